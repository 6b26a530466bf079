//! Options: what an operator says, on the command line and in `CLOAKROOM_*` variables.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use ipnet::IpNet;

use super::listener::Address;

/// How a program is run: what the operator says on the command line or in the environment.
///
/// A flag goes before its variable (`--max-requests` before `CLOAKROOM_MAX_REQUESTS`), and that before the default. In
/// a variable, what may be given more than once is separated by spaces. Variables named `HTTP_...` are never read:
/// under CGI the client sets those.
///
/// ```
/// use cloakroom::Options;
///
/// let options = Options::try_from_args(["counter", "--scgi", "unix:/run/counter.sock", "--workers", "8"])?;
/// assert_eq!(options.workers, Some(8));
/// assert_eq!(options.request_timeout, Some(std::time::Duration::from_secs(60)));
/// # Ok::<(), cloakroom::OptionsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// `--http`: where HTTP/1.1 is served.
    pub http: Vec<Address>,
    /// `--scgi`: where SCGI is served.
    pub scgi: Vec<Address>,
    /// `--sessions`: the directory of the sessions. It is the program that makes its store, so only a program that
    /// looks here has this option; see [`Host::run`](crate::Host::run).
    pub sessions: Option<PathBuf>,
    /// `--workers`: how many processes serve. Default: two for each CPU, at least 4; counted when a pool starts, as
    /// that takes a dozen system calls and a CGI script has no use for them.
    pub workers: Option<usize>,
    /// `--max-requests`: a worker leaves after this many requests, or up to 10 % more (so that not all leave
    /// together), and another takes its place. 0, the default: never.
    pub max_requests: u64,
    /// `--request-timeout`: how long the application may take for one request before its worker is killed and the
    /// client answered with 504. Default 30 s; `None`: for ever.
    pub request_timeout: Option<Duration>,
    /// `--lock-timeout`: how long a request waits for its session while another one holds it. `None`: what the program
    /// says, see [`Host::lock_timeout`](crate::Host::lock_timeout).
    pub lock_timeout: Option<Duration>,
    /// `--graceful-timeout`: how long requests may take to end when the pool stops. Default 30 s.
    pub graceful_timeout: Duration,
    /// `--script-name`: the path that the application is mounted at. `None`: what the program says.
    pub script_name: Option<String>,
    /// `--socket-mode`: permissions of Unix sockets. Default 0660.
    pub socket_mode: u32,
    /// `--backlog`: how many connections wait in a listener's queue. Default 1024.
    pub backlog: u32,
    /// `--trusted-proxy`: networks of proxies whose forwarding header fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `--body-limit`: how many bytes a message-body may have. `None`: what the program says.
    pub body_limit: Option<u64>,
}

/// A command line or variable that cannot be understood, or the text that `--help` asks for.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct OptionsError {
    text: String,
    help: bool,
}

impl OptionsError {
    fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), help: false }
    }

    /// Whether this is the text that `--help` asked for, and no mistake.
    pub fn is_help(&self) -> bool {
        self.help
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            http: Vec::new(),
            scgi: Vec::new(),
            sessions: None,
            workers: None,
            max_requests: 0,
            // Twice the usual lock timeout, so that a request that waits for its session is answered with 503, and its
            // worker is not killed.
            request_timeout: Some(Duration::from_secs(60)),
            lock_timeout: None,
            graceful_timeout: Duration::from_secs(30),
            script_name: None,
            socket_mode: 0o660,
            backlog: 1024,
            trusted_proxies: Vec::new(),
            body_limit: None,
        }
    }
}

/// More would not fit into the scoreboard, nor into any machine that this is made for.
pub(crate) const MAX_WORKERS: usize = 512;

impl Options {
    /// Reads the command line and the environment of this process. Under CGI the command line is **not** looked at: a
    /// client can put words there (RFC 3875 section 4.4, CVE-2012-1823).
    ///
    /// Ends the process with status 2 and a message on stderr where they make no sense, and with the help on stdout
    /// where that is asked for.
    pub fn from_args() -> Self {
        let result = if under_cgi() { Self::from_environment() } else { Self::try_from_args(std::env::args_os()) };
        result.unwrap_or_else(|error| {
            if error.is_help() {
                use std::io::Write as _;
                let _ = std::io::stdout().write_all(error.to_string().as_bytes());
                std::process::exit(0);
            }
            crate::sys::log::log!("{error}");
            std::process::exit(2);
        })
    }

    /// Reads `arguments`, the program's name first, and the environment of this process.
    pub fn try_from_args(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, OptionsError> {
        let mut arguments = arguments.into_iter().map(Into::<OsString>::into);
        let program = arguments.next().unwrap_or_else(|| "program".into());
        let name =
            PathBuf::from(&program).file_name().map_or("program".into(), |name| name.to_string_lossy().into_owned());
        let matches = command(name).try_get_matches_from(std::iter::once(program).chain(arguments));
        let matches = matches.map_err(|error| {
            let help = error.kind() == clap::error::ErrorKind::DisplayHelp;
            let text = error.to_string();
            if help {
                return OptionsError { text, help };
            }
            // One line for the log: what is wrong, without the usage that follows.
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let first = text.split("\n\n").next().unwrap_or(text).split_whitespace().collect::<Vec<_>>().join(" ");
            OptionsError { text: format!("{first} (see --help)"), help }
        })?;
        Self::read(|setting| from_matches(&matches, setting))
    }

    /// Reads `CLOAKROOM_*` variables only.
    pub(crate) fn from_environment() -> Result<Self, OptionsError> {
        Self::read(|setting| {
            let value = std::env::var_os(setting.variable);
            Values { source: setting.variable.into(), values: setting.split(value.into_iter()) }
        })
    }

    fn read(mut values: impl FnMut(&'static Setting) -> Values) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        for setting in SETTINGS {
            let values = values(setting);
            for value in values.values {
                let wrong = |what: &str| OptionsError::usage(format!("{}: {what} (see --help)", values.source));
                let text = value.to_str().ok_or_else(|| wrong("not UTF-8"))?;
                (setting.apply)(&mut options, text).map_err(|what| wrong(&format!("{text:?}: {what}")))?;
            }
        }
        Ok(options)
    }
}

/// Whether this process is a CGI script: RFC 3875 section 4.1.4 has every server say so.
pub(crate) fn under_cgi() -> bool {
    std::env::var_os("GATEWAY_INTERFACE").is_some_and(|value| !value.is_empty())
}

/// What was said about one setting, and where.
struct Values {
    source: Cow<'static, str>,
    values: Vec<OsString>,
}

/// One setting: a flag, a variable, and how they change the options.
struct Setting {
    flag: &'static str,
    variable: &'static str,
    value: &'static str,
    help: &'static str,
    many: bool,
    apply: fn(&mut Options, &str) -> Result<(), &'static str>,
}

impl Setting {
    /// What a variable holds: several values only for a setting that can have them.
    fn split(&self, values: impl Iterator<Item = OsString>) -> Vec<OsString> {
        let values = values.filter(|value| !value.is_empty());
        if !self.many {
            return values.collect();
        }
        let words = |value: OsString| match value.to_str() {
            Some(text) => text.split_whitespace().map(OsString::from).collect(),
            None => vec![value],
        };
        values.flat_map(words).collect()
    }
}

fn from_matches(matches: &ArgMatches, setting: &Setting) -> Values {
    let values = matches.get_many::<OsString>(setting.flag).into_iter().flatten().cloned();
    if matches.value_source(setting.flag) == Some(ValueSource::EnvVariable) {
        Values { source: setting.variable.into(), values: setting.split(values) }
    } else {
        Values { source: format!("--{}", setting.flag).into(), values: values.collect() }
    }
}

const NOT_A_NUMBER: &str = "expected a number";

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds: f64 = text.parse().map_err(|_| "expected seconds, such as 30 or 0.5")?;
    // A thousand years are as good as for ever, and every deadline still fits.
    if !(0.0..=3e10).contains(&seconds) {
        return Err("expected seconds, 0 or more");
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| "expected seconds, 0 or more")
}

fn address(text: &str) -> Result<Address, &'static str> {
    text.parse().map_err(|_| "expected HOST:PORT or unix:PATH")
}

const SETTINGS: &[Setting] = &[
    Setting {
        flag: "http",
        variable: "CLOAKROOM_HTTP",
        value: "HOST:PORT",
        help: "Serve HTTP/1.1 here; also unix:PATH. Can be given more than once. [default: localhost:8080, where \
               nothing else is said]",
        many: true,
        apply: |options, text| {
            options.http.push(address(text)?);
            Ok(())
        },
    },
    Setting {
        flag: "scgi",
        variable: "CLOAKROOM_SCGI",
        value: "unix:PATH",
        help: "Serve SCGI here, for nginx, Apache or lighttpd; also HOST:PORT. Can be given more than once",
        many: true,
        apply: |options, text| {
            options.scgi.push(address(text)?);
            Ok(())
        },
    },
    Setting {
        flag: "sessions",
        variable: "CLOAKROOM_SESSIONS",
        value: "DIR",
        help: "Directory of the sessions, for programs that let it be chosen",
        many: false,
        apply: |options, text| {
            options.sessions = Some(text.into());
            Ok(())
        },
    },
    Setting {
        flag: "workers",
        variable: "CLOAKROOM_WORKERS",
        value: "N",
        help: "How many processes serve. [default: two for each CPU, at least 4]",
        many: false,
        apply: |options, text| {
            let workers = text.parse().map_err(|_| NOT_A_NUMBER)?;
            if !(1..=MAX_WORKERS).contains(&workers) {
                return Err("expected 1 to 512");
            }
            options.workers = Some(workers);
            Ok(())
        },
    },
    Setting {
        flag: "max-requests",
        variable: "CLOAKROOM_MAX_REQUESTS",
        value: "N",
        help: "Replace a worker after N requests, or up to 10 % more; 0: never. [default: 0]",
        many: false,
        apply: |options, text| {
            options.max_requests = text.parse().map_err(|_| NOT_A_NUMBER)?;
            Ok(())
        },
    },
    Setting {
        flag: "request-timeout",
        variable: "CLOAKROOM_REQUEST_TIMEOUT",
        value: "SECS",
        help: "Answer 504 and replace the worker when the application takes longer; 0: never. [default: 60]",
        many: false,
        apply: |options, text| {
            options.request_timeout = Some(seconds(text)?).filter(|time| !time.is_zero());
            Ok(())
        },
    },
    Setting {
        flag: "lock-timeout",
        variable: "CLOAKROOM_LOCK_TIMEOUT",
        value: "SECS",
        help: "Answer 503 when another request holds the session for longer. [default: the program's, usually 30]",
        many: false,
        apply: |options, text| {
            options.lock_timeout = Some(seconds(text)?);
            Ok(())
        },
    },
    Setting {
        flag: "graceful-timeout",
        variable: "CLOAKROOM_GRACEFUL_TIMEOUT",
        value: "SECS",
        help: "Kill workers that are still busy this long after they were told to stop. [default: 30]",
        many: false,
        apply: |options, text| {
            options.graceful_timeout = seconds(text)?;
            Ok(())
        },
    },
    Setting {
        flag: "script-name",
        variable: "CLOAKROOM_SCRIPT_NAME",
        value: "/PREFIX",
        help: "The path that the application is mounted at, where it is not the root of the site",
        many: false,
        apply: |options, text| {
            let mount = text.trim_end_matches('/');
            if !(mount.is_empty() || mount.starts_with('/')) || mount.contains(['?', '#']) {
                return Err("expected a path that starts with a slash");
            }
            options.script_name = Some(mount.to_owned());
            Ok(())
        },
    },
    Setting {
        flag: "socket-mode",
        variable: "CLOAKROOM_SOCKET_MODE",
        value: "OCTAL",
        help: "Permissions of Unix sockets. [default: 0660]",
        many: false,
        apply: |options, text| {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            options.socket_mode = u32::from_str_radix(digits, 8)
                .ok()
                .filter(|mode| *mode <= 0o777)
                .ok_or("expected an octal number up to 0777")?;
            Ok(())
        },
    },
    Setting {
        flag: "backlog",
        variable: "CLOAKROOM_BACKLOG",
        value: "N",
        help: "How many connections may wait for a worker. [default: 1024]",
        many: false,
        apply: |options, text| {
            let backlog = text.parse().map_err(|_| NOT_A_NUMBER)?;
            if !(1..=65535).contains(&backlog) {
                return Err("expected 1 to 65535");
            }
            options.backlog = backlog;
            Ok(())
        },
    },
    Setting {
        flag: "trusted-proxy",
        variable: "CLOAKROOM_TRUSTED_PROXY",
        value: "CIDR",
        help: "Believe the forwarding header fields of this proxy or network. Can be given more than once",
        many: true,
        apply: |options, text| {
            let network = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
            options.trusted_proxies.push(network.map_err(|_| "expected an address or a network such as 10.0.0.0/8")?);
            Ok(())
        },
    },
    Setting {
        flag: "body-limit",
        variable: "CLOAKROOM_BODY_LIMIT",
        value: "BYTES",
        help: "Answer 413 to a longer message-body. [default: the program's, usually 8388608]",
        many: false,
        apply: |options, text| {
            options.body_limit = Some(text.parse().map_err(|_| NOT_A_NUMBER)?);
            Ok(())
        },
    },
];

fn command(name: String) -> Command {
    let examples = format!(
        "Examples:\n  {name}                                    HTTP on localhost:8080\n  \
           {name} --scgi unix:/run/{name}.sock       SCGI behind nginx, Apache or lighttpd\n  \
           {name} --http 127.0.0.1:3000 --script-name /app --trusted-proxy 127.0.0.1\n                 \
             HTTP behind a reverse proxy, mounted at /app\n\n\
         As a CGI script it reads the variables only, and as a service that systemd opens sockets for\n\
         (LISTEN_FDS) it serves those.\n\n\
         Signals to the master: TERM, QUIT: stop when the requests at work are answered; INT: stop at once;\n\
         HUP: replace the workers one after another; TTIN, TTOU: one worker more, one less.\n\
         Exit status: 0 done, 2 usage or configuration, 111 temporary failure of the system."
    );
    let arguments = SETTINGS.iter().map(|setting| {
        Arg::new(setting.flag)
            .long(setting.flag)
            .env(setting.variable)
            .hide_env_values(true)
            .value_name(setting.value)
            .help(setting.help)
            .action(if setting.many { ArgAction::Append } else { ArgAction::Set })
            .allow_negative_numbers(true)
            .value_parser(clap::value_parser!(OsString))
    });
    Command::new("program")
        .bin_name(name)
        .about("Serves one web application: as SCGI or HTTP worker pool, or as CGI script.")
        .after_help(examples)
        .args(arguments)
        .args_override_self(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Result<Options, OptionsError> {
        Options::try_from_args(arguments.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command("counter".to_owned()).debug_assert();
    }

    #[test]
    fn reads_every_flag() {
        let options = parse(
            "/bin/counter --http localhost:1 --http unix:/h --scgi unix:/s --sessions /d --workers 3 --max-requests 9 \
             --request-timeout 0.5 --lock-timeout 1.5 --graceful-timeout 0 --script-name /app/ --socket-mode 0600 \
             --backlog 5 --trusted-proxy 10.0.0.0/8 --trusted-proxy ::1 --body-limit 10",
        )
        .unwrap();
        assert_eq!(options.http, ["localhost:1".parse().unwrap(), "unix:/h".parse().unwrap()]);
        assert_eq!(options.scgi, [Address::Unix("/s".into())]);
        assert_eq!(options.sessions, Some("/d".into()));
        assert_eq!((options.workers, options.max_requests, options.backlog), (Some(3), 9, 5));
        assert_eq!(options.request_timeout, Some(Duration::from_millis(500)));
        assert_eq!(options.lock_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(options.graceful_timeout, Duration::ZERO);
        assert_eq!(options.script_name.as_deref(), Some("/app"));
        assert_eq!(options.socket_mode, 0o600);
        assert_eq!(options.trusted_proxies.len(), 2);
        assert_eq!(options.body_limit, Some(10));
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let options = parse("counter").unwrap();
        assert_eq!(options, Options::default());
        assert_eq!(parse("counter --request-timeout 0").unwrap().request_timeout, None);
    }

    #[test]
    fn mistakes_name_the_flag_in_one_line() {
        for (arguments, flag) in [
            ("c --workers 0", "--workers"),
            ("c --workers x", "--workers"),
            ("c --http nowhere", "--http"),
            ("c --request-timeout -1", "--request-timeout"),
            ("c --request-timeout NaN", "--request-timeout"),
            ("c --graceful-timeout inf", "--graceful-timeout"),
            ("c --socket-mode 0999", "--socket-mode"),
            ("c --script-name app", "--script-name"),
            ("c --trusted-proxy here", "--trusted-proxy"),
            ("c --nonsense", "--nonsense"),
            ("c --workers", "--workers"),
            ("c word", "word"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(!error.is_help());
            let text = error.to_string();
            assert!(text.contains(flag) && !text.contains('\n'), "{arguments}: {text:?}");
        }
        let help = parse("counter --help").unwrap_err();
        assert!(help.is_help());
        assert!(help.to_string().contains("CLOAKROOM_WORKERS"), "{help}");
    }

    #[test]
    fn a_variable_holds_several_values_only_where_a_flag_may_be_repeated() {
        let setting = |flag| SETTINGS.iter().find(|setting| setting.flag == flag).unwrap();
        let split = |flag, text: &str| setting(flag).split(std::iter::once(text.into())).len();
        assert_eq!(split("scgi", "unix:/a  localhost:1"), 2);
        assert_eq!(split("sessions", "/a b"), 1);
        assert_eq!(split("sessions", ""), 0);
    }
}
