//! Options: what an operator says, on the command line and in `CLOAKROOM_*` variables.

mod command;
mod settings;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use self::command::{Values, command, from_matches};
use self::settings::{Kind, SETTINGS, Setting};
pub use self::values::{AccessLog, AccessLogFormat, Workers};
use super::listener::Address;
use crate::doctor::DoctorToken;

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
/// assert_eq!(options.workers, Some(cloakroom::Workers::fixed(8)));
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
    /// `--allow`: networks whose hosts may speak SCGI over TCP. Default: only this machine (127.0.0.0/8 and `::1`), as
    /// whoever speaks SCGI says who the client is.
    pub allow: Vec<IpNet>,
    /// `--status`: where the pool tells how it is. Default: nowhere.
    pub status: Option<Address>,
    /// `--sessions`: the directory of the sessions. It is the program that makes its store, so only a program that
    /// looks here has this option; see [`Host::run`](crate::Host::run).
    pub sessions: Option<PathBuf>,
    /// `--workers`: how many processes serve. Default: two for each CPU, at least 4; counted when a pool starts, as
    /// that takes a dozen system calls and a CGI script has no use for them.
    pub workers: Option<Workers>,
    /// `--idle-timeout`: how long a worker may have nothing to do before it leaves, where there may be fewer. Default
    /// 10 s.
    pub idle_timeout: Duration,
    /// `--max-requests`: a worker leaves after this many requests, or up to 10 % more (so that not all leave
    /// together), and another takes its place. 0, the default: never.
    pub max_requests: u64,
    /// `--request-timeout`: how long the application may take for one request before its worker is killed and the
    /// client answered with 504. Default 60 s; `None`: for ever.
    pub request_timeout: Option<Duration>,
    /// `--soft-timeout`: how long it may take before it is told so, see
    /// [`Host::on_soft_timeout`](crate::Host::on_soft_timeout). Default: it is not told.
    pub soft_timeout: Option<Duration>,
    /// `--slow-request`: a request that takes longer is named in the log. Default: none is.
    pub slow_request: Option<Duration>,
    /// `--lock-timeout`: how long a request waits for its session while another one holds it. `None`: what the program
    /// says, see [`Host::lock_timeout`](crate::Host::lock_timeout).
    pub lock_timeout: Option<Duration>,
    /// `--max-per-session`: how many workers may hold and wait for one session together, once it has been held for
    /// 50 ms. `None`: half of them.
    pub max_per_session: Option<usize>,
    /// `--graceful-timeout`: how long requests may take to end when the pool stops. Default 30 s.
    pub graceful_timeout: Duration,
    /// `--script-name`: the path that the application is mounted at. `None`: what the program says.
    pub script_name: Option<String>,
    /// `--socket-mode`: permissions of Unix sockets. Default 0660.
    pub socket_mode: u32,
    /// `--socket-owner`: the user, by name or number, that Unix sockets belong to. `None`: whoever starts the program.
    pub socket_owner: Option<String>,
    /// `--socket-group`: the same for the group.
    pub socket_group: Option<String>,
    /// `--backlog`: how many connections wait in a listener's queue. Default 1024.
    pub backlog: u32,
    /// `--trusted-proxy`: networks of proxies whose forwarding header fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `--body-limit`: how many bytes a message-body may have. `None`: what the program says.
    pub body_limit: Option<u64>,
    /// `--access-log`: where each request is written down. Default: nowhere.
    pub access_log: Option<AccessLog>,
    /// `--access-log-format`: in which form. Default: combined.
    pub access_log_format: AccessLogFormat,
    /// `--user`: the user, by name or number, that the pool runs as once its listeners are open.
    pub user: Option<String>,
    /// `--group`: the same for the group; default: the user's own, with all that it is a member of.
    pub group: Option<String>,
    /// `--umask`: what permissions new files do not have. Default 0027.
    pub umask: u32,
    /// `--strict`: what is only warned of otherwise is refused, such as workers that run as root.
    pub strict: bool,
    /// `--allow-new-privileges`: programs that the application starts may gain privileges (set-user-ID, as sudo(8) and
    /// some mail programs need). Default: they may not.
    pub allow_new_privileges: bool,
    /// `--sweep-every`: how often the pool deletes sessions that are over. Default 10 min; `None`: never.
    pub sweep_every: Option<Duration>,
    /// `--sweep-one-in`: under CGI, one request in so many sweeps for a moment after its response has been sent. 0, the
    /// default: none does.
    pub sweep_one_in: u64,
    /// `--env-file`: variables that are set before anything else is read, and read anew at each reload.
    pub env_file: Option<PathBuf>,
    /// `--check`: nothing is served; whether it could be is said, by the exit status too.
    pub check: bool,
    /// `--doctor`: nothing is served; the deployment at this URL is examined.
    pub doctor: Option<String>,
    /// `--doctor-token`: who examines must send it, and whoever sends it is answered. `None`: nobody is.
    pub doctor_token: Option<DoctorToken>,
    /// The names of the variables that the environment file has set.
    pub(crate) from_file: Vec<OsString>,
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
            allow: Vec::new(),
            status: None,
            sessions: None,
            workers: None,
            idle_timeout: Duration::from_secs(10),
            max_requests: 0,
            // Twice the usual lock timeout, so that a request that waits for its session is answered with 503, and its
            // worker is not killed.
            request_timeout: Some(Duration::from_secs(60)),
            soft_timeout: None,
            slow_request: None,
            lock_timeout: None,
            max_per_session: None,
            graceful_timeout: Duration::from_secs(30),
            script_name: None,
            socket_mode: 0o660,
            socket_owner: None,
            socket_group: None,
            backlog: 1024,
            trusted_proxies: Vec::new(),
            body_limit: None,
            access_log: None,
            access_log_format: AccessLogFormat::default(),
            user: None,
            group: None,
            umask: 0o027,
            strict: false,
            allow_new_privileges: false,
            sweep_every: Some(Duration::from_secs(600)),
            sweep_one_in: 0,
            env_file: None,
            check: false,
            doctor: None,
            doctor_token: None,
            from_file: Vec::new(),
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
                (setting.apply)(&mut options, text).map_err(|what| match setting.kind {
                    Kind::Secret => wrong(what),
                    _ => wrong(&format!("{text:?}: {what}")),
                })?;
            }
        }
        Ok(options)
    }
}

/// Whether this process is a CGI script: RFC 3875 section 4.1.4 has every server say so.
pub(crate) fn under_cgi() -> bool {
    std::env::var_os("GATEWAY_INTERFACE").is_some_and(|value| !value.is_empty())
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
        assert_eq!((options.workers, options.max_requests, options.backlog), (Some(Workers::fixed(3)), 9, 5));
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
            ("c --doctor-token secret", "--doctor-token"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(!error.is_help());
            let text = error.to_string();
            assert!(!text.contains("secret"), "{text}");
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
