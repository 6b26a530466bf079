//! The command line of a pool, made of the settings.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::settings::{Kind, SETTINGS, Setting};

/// What was said about one setting, and where.
pub(super) struct Values {
    pub(super) source: Cow<'static, str>,
    pub(super) values: Vec<OsString>,
}

pub(super) fn from_matches(matches: &ArgMatches, setting: &Setting) -> Values {
    let values = matches.get_many::<OsString>(setting.flag).into_iter().flatten().cloned();
    if matches.value_source(setting.flag) == Some(ValueSource::EnvVariable) {
        Values { source: setting.variable.into(), values: setting.split(values) }
    } else {
        Values { source: format!("--{}", setting.flag).into(), values: values.collect() }
    }
}

/// The environment file, which is needed before anything else can be read.
pub(super) fn env_file_of(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<OsString>("env-file").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// What `-h` shows: the flags that are used most, in a line each.
const BRIEF: &[(&str, &str)] = &[
    ("http", "Serve HTTP/1.1 here; also unix:PATH"),
    ("scgi", "Serve SCGI here, for a front server; also HOST:PORT"),
    ("script-name", "The path that the application is mounted at"),
    ("trusted-proxy", "Whose forwarding header fields are believed"),
    ("sessions", "Directory of the sessions"),
    ("workers", "How many processes serve"),
    ("request-timeout", "Answer 504 after so long, 0: never"),
    ("user", "Run as this user once the listeners are open"),
    ("access-log", "Write each request down, in a file or on stderr"),
    ("env-file", "Set the variables in this file first"),
    ("check", "Serve nothing; say whether all of this would work"),
];

/// Longer lines of the help are broken.
const WIDTH: usize = 88;

fn wrap(text: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let width = word.chars().count();
        if length > 0 && length + 1 + width > WIDTH {
            lines.push('\n');
            length = 0;
        } else if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += width;
    }
    lines
}

/// `headings`: whether the help has them; the short one has too few lines for that.
pub(super) fn command(name: String, headings: bool) -> Command {
    let examples = format!(
        "Examples:\n  {name}                                    HTTP on localhost:8080\n  \
           {name} --scgi unix:/run/{name}.sock       SCGI behind nginx, Apache or lighttpd\n  \
           {name} --http 127.0.0.1:3000 --script-name /app --trusted-proxy 127.0.0.1\n                 \
             HTTP behind a reverse proxy, mounted at /app\n\n\
         A flag goes before its variable, that before the same variable in the environment file, and\n\
         that before the default. As a CGI script it reads the variables only, and as a service that\n\
         systemd opens sockets for (LISTEN_FDS) it serves those.\n\n\
         Signals to the master: TERM, QUIT: stop when the requests at work are answered; INT: stop at once;\n\
         HUP: become the program on the disk, with new workers; TTIN, TTOU: one worker more, one less;\n\
         USR1: open the access log again.\n\
         Exit status: 0 done, 2 usage or configuration, 111 temporary failure of the system."
    );
    let arguments = SETTINGS.iter().map(|setting| {
        let brief = BRIEF.iter().find(|(flag, _)| *flag == setting.flag).map(|(_, text)| *text);
        let argument = Arg::new(setting.flag)
            .long(setting.flag)
            .env(setting.variable)
            // It is a part of the text, as the short help has no room for it.
            .hide_env(true)
            .help_heading(headings.then_some(setting.heading))
            .help(brief.unwrap_or(setting.help))
            .long_help(format!("{}\n[variable: {}]", wrap(setting.help), setting.variable))
            .hide_short_help(brief.is_none())
            .action(if setting.kind == Kind::Many { ArgAction::Append } else { ArgAction::Set })
            .allow_negative_numbers(true)
            .value_parser(clap::value_parser!(OsString));
        match setting.kind {
            Kind::Switch => argument
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("1")
                .hide_possible_values(true)
                .value_name("yes|no"),
            Kind::One | Kind::Many | Kind::Secret => argument.value_name(setting.value),
        }
    });
    Command::new("program")
        .bin_name(name)
        .about("Serves one web application: as SCGI or HTTP worker pool, or as CGI script.")
        .after_help("--help shows all flags, and the variable of each.")
        .after_long_help(examples)
        .args(arguments)
        .args_override_self(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_brief_text_has_its_flag() {
        for (flag, _) in BRIEF {
            assert!(SETTINGS.iter().any(|setting| setting.flag == *flag), "{flag}");
        }
    }
}
