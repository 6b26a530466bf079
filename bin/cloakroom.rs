//! The administrator's tool.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use cloakroom::admin::{self, StatusForm};
use cloakroom::doctor::{self, DoctorToken};
use cloakroom::session::Swept;
use cloakroom::{Address, Error};

/// The answer is no: there is something to mend.
const EXIT_NO: u8 = 1;
/// Usage: trying again does not help.
const EXIT_USAGE: u8 = 2;
/// The system failed; it may work another time.
const EXIT_TEMPORARY: u8 = 111;

fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return print(&error.to_string());
        }
        Err(error) => return fail(EXIT_USAGE, mistake(&error)),
    };
    match matches.subcommand() {
        Some(("sweep", matches)) => sweep(matches),
        Some(("status", matches)) => status(matches),
        Some(("doctor", matches)) => doctor(matches),
        _ => unreachable!("clap asks for one of the subcommands"),
    }
}

fn sweep(matches: &ArgMatches) -> ExitCode {
    let directory: &PathBuf = matches.get_one("sessions").expect("clap asks for it");
    let time = |name| matches.get_one(name).copied();
    match admin::sweep(directory, time("idle"), time("budget")) {
        Ok(swept) => print(&if matches.get_flag("json") { json(swept) } else { text(swept) }),
        Err(error) => fail(EXIT_TEMPORARY, Error::from(error)),
    }
}

fn status(matches: &ArgMatches) -> ExitCode {
    let address: &String = matches.get_one("address").expect("clap asks for it");
    if let Err(error) = address.parse::<Address>() {
        return fail(EXIT_USAGE, format_args!("{address:?}: {error} (see --help)"));
    }
    let form = if matches.get_flag("json") { StatusForm::Json } else { StatusForm::Text };
    let result = if matches.get_flag("watch") {
        let mut screen = Screen::new();
        admin::watch_status(address, form, Duration::from_secs(1), |text| screen.show(text))
    } else {
        match admin::status(address, form) {
            Ok(text) => return print(&(text.trim_end().to_owned() + "\n")),
            Err(error) => Err(error),
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_TEMPORARY, Error::from(error)),
    }
}

/// Shows one text in the place of the other; where stdout is no terminal, one after the other. The terminal is left as
/// it is, cursor and all, so that nothing has to be put back however this ends.
struct Screen {
    is_terminal: bool,
    is_first: bool,
}

impl Screen {
    fn new() -> Self {
        Self { is_terminal: std::io::stdout().is_terminal(), is_first: true }
    }

    fn show(&mut self, text: &str) -> std::io::Result<()> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        let mut out = String::new();
        if self.is_terminal {
            // Lines that do not fit would move the others, at every turn.
            let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_row > 1);
            let (rows, columns) =
                size.map_or((usize::MAX, usize::MAX), |size| (size.ws_row.into(), size.ws_col.into()));
            // Clear once; then overwrite from the top, so that nothing flickers.
            out.push_str(if is_first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
            for line in text.lines().take(rows - 1) {
                out.extend(line.chars().take(columns));
                out.push_str("\x1b[K\n");
            }
            out.push_str("\x1b[J");
        } else {
            out.push_str(text.trim_end());
            out.push('\n');
        }
        let mut stdout = std::io::stdout();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }
}

fn doctor(matches: &ArgMatches) -> ExitCode {
    let url: &String = matches.get_one("url").expect("clap asks for it");
    let token: &String = matches.get_one("token").expect("clap asks for it");
    // Not by clap, whose message repeats what was given.
    let token: DoctorToken = match token.parse() {
        Ok(token) => token,
        Err(what) => return fail(EXIT_USAGE, format_args!("--token, CLOAKROOM_DOCTOR_TOKEN: {what}")),
    };
    match doctor::examine(url, &token, matches.get_flag("insecure")) {
        Ok(report) => {
            let text = if matches.get_flag("json") { report.to_json() + "\n" } else { report.to_text() };
            let printed = print(&text);
            if report.is_healthy() || printed != ExitCode::SUCCESS { printed } else { EXIT_NO.into() }
        }
        Err(error) if error.is_usage() => fail(EXIT_USAGE, error),
        Err(error) => fail(EXIT_TEMPORARY, error),
    }
}

fn text(swept: Option<Swept>) -> String {
    let Some(swept) = swept else { return "skipped: another process is sweeping this directory\n".to_owned() };
    let Swept { deleted, remaining, .. } = swept;
    // How far behind says something only where something was behind.
    let lag = if deleted == 0 { String::new() } else { format!(", lag {:.1}s", swept.lag.as_secs_f64()) };
    let more = if swept.complete { "" } else { ", to be continued" };
    format!("swept: deleted {deleted}, remaining {remaining}{lag}{more}\n")
}

fn json(swept: Option<Swept>) -> String {
    let Some(swept) = swept else { return "{\"skipped\":true}\n".to_owned() };
    let Swept { deleted, remaining, complete, .. } = swept;
    let lag = swept.lag.as_secs_f64();
    format!("{{\"deleted\":{deleted},\"remaining\":{remaining},\"complete\":{complete},\"lag\":{lag:.3}}}\n")
}

fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_TEMPORARY, format_args!("write to stdout: {error}")),
    }
}

fn fail(status: u8, reason: impl Display) -> ExitCode {
    // Nobody is left to be told where stderr cannot be written.
    let _ = writeln!(std::io::stderr(), "cloakroom: {reason}");
    status.into()
}

/// What is wrong with the command line, in one line.
fn mistake(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "say what to do (see --help)".to_owned();
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let first = text.split("\n\n").next().unwrap_or(text).split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{first} (see --help)")
}

/// `500ms`, `90s`, `30m`, `12h` or `7d`. A bare number is refused: it is minutes in one tool and seconds in the next.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number with ms, s, m, h or d behind it, such as 30m".to_owned();
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 24 * 3_600_000)];
    let split = |(name, unit)| text.strip_suffix(name).map(|digits| (digits, unit));
    let (digits, unit) = units.into_iter().find_map(split).ok_or_else(wrong)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).map(Duration::from_millis).ok_or_else(wrong)
}

fn command() -> Command {
    let sessions = Arg::new("sessions")
        .long("sessions")
        .value_name("DIR")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("The directory of the sessions");
    let idle =
        Arg::new("idle").long("idle").value_name("TIME").value_parser(ValueParser::new(duration)).help(
            "Delete what was last used so long ago: 90s, 30m, 12h, 7d [default: what is over by its own timeouts]",
        );
    let budget = Arg::new("budget").long("budget").value_name("TIME").value_parser(ValueParser::new(duration)).help(
        "Stop after this time: 50ms, 2s; the next sweep with a budget goes on from there [default: go through all]",
    );
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the result as JSON");
    let doctor = doctor_command().arg(json.clone());
    let sweep = Command::new("sweep")
        .about("Deletes sessions that are over; one that is in use is left as it is")
        .after_help(
            "Run it regularly where no pool does so (--sweep-every), as the user that the application runs as; it may\n\
             run while the application does. Where another process is sweeping the directory it leaves that to it.\n\
             Prints: swept: deleted D, remaining R, lag 12.3s\n\
             (lag: how long the longest overdue of the deleted had been over), or: skipped: ...",
        )
        .args([sessions, idle, budget, json]);
    let address = Arg::new("address")
        .value_name("ADDR")
        .required(true)
        .env("CLOAKROOM_STATUS")
        .hide_env_values(true)
        .help("Where the pool tells how it is (its --status): HOST:PORT or unix:PATH");
    let watch = Arg::new("watch").long("watch").action(ArgAction::SetTrue).help("Show it anew each second");
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print it as JSON");
    let status = Command::new("status")
        .about("Shows what the workers of a pool are doing")
        .after_help("With --watch it ends at Ctrl-C, or with the pool.")
        .args([address, watch, json]);
    Command::new("cloakroom")
        .about("Administers the sessions of a cloakroom, and shows how its pool is")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .after_help("Exit status: 0 done, 1 the answer is no, 2 usage, 111 failure of the system.")
        .subcommand(sweep)
        .subcommand(status)
        .subcommand(doctor)
}

fn doctor_command() -> Command {
    let url = Arg::new("url").value_name("URL").required(true).help("Where the application is mounted");
    let token = Arg::new("token")
        .long("token")
        .env("CLOAKROOM_DOCTOR_TOKEN")
        .hide_env_values(true)
        .value_name("TOKEN")
        .required(true)
        .help("The deployment's CLOAKROOM_DOCTOR_TOKEN; a flag is seen by ps, the variable is not");
    let insecure =
        Arg::new("insecure").long("insecure").action(ArgAction::SetTrue).help("Do not check the certificate");
    Command::new("doctor")
        .about("Examines a deployment through its front server: what arrives, what is missing, and what mends it")
        .after_help(
            "The deployment answers if it has the same token: CLOAKROOM_DOCTOR_TOKEN, 16 characters or more.\n\
             https:// needs the program curl.\n\
             Exit status: 0 nothing to mend, 1 something to mend, 2 usage, 111 it cannot be reached.",
        )
        .args([url, token, insecure])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30m"), Ok(Duration::from_secs(1800)));
        assert_eq!(duration("12h"), Ok(Duration::from_secs(43200)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in [
            "",
            "30",
            "m",
            "ms",
            "5 ms",
            "-1m",
            "+1m",
            "1.5h",
            "1w",
            "30 m",
            "30é",
            "99999999999999999999s",
            "999999999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
