//! The settings: what an operator can say, flag by flag.

use std::ffi::OsString;
use std::time::Duration;

use ipnet::IpNet;

use super::Options;
use crate::server::listener::Address;

/// How often a setting can be given, and whether it has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Once; the last one counts.
    One,
    /// As often as one likes.
    Many,
    /// Without a value.
    Switch,
    /// Once, and never repeated in a message.
    Secret,
}

/// One setting: a flag, a variable, and how they change the options.
pub(super) struct Setting {
    pub(super) flag: &'static str,
    pub(super) variable: &'static str,
    pub(super) value: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) apply: fn(&mut Options, &str) -> Result<(), &'static str>,
}

impl Setting {
    /// What a variable holds: several values only for a setting that can have them.
    pub(super) fn split(&self, values: impl Iterator<Item = OsString>) -> Vec<OsString> {
        let values = values.filter(|value| !value.is_empty());
        if self.kind != Kind::Many {
            return values.collect();
        }
        let words = |value: OsString| match value.to_str() {
            Some(text) => text.split_whitespace().map(OsString::from).collect(),
            None => vec![value],
        };
        values.flat_map(words).collect()
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

fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "yes" | "true" | "on" => Ok(true),
        "0" | "no" | "false" | "off" => Ok(false),
        _ => Err("expected yes or no"),
    }
}

fn octal(text: &str) -> Result<u32, &'static str> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777).ok_or("expected an octal number up to 0777")
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    let network = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    network.map_err(|_| "expected an address or a network such as 10.0.0.0/8")
}

fn name(text: &str) -> Result<Option<String>, &'static str> {
    if text.is_empty() { Err("expected a name or a number") } else { Ok(Some(text.to_owned())) }
}

/// All settings, in the order in which the help shows them.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        flag: "http",
        variable: "CLOAKROOM_HTTP",
        value: "HOST:PORT",
        help: "Serve HTTP/1.1 here; also unix:PATH. Can be given more than once. [default: localhost:8080, where \
               nothing else is said]",
        kind: Kind::Many,
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
        kind: Kind::Many,
        apply: |options, text| {
            options.scgi.push(address(text)?);
            Ok(())
        },
    },
    Setting {
        flag: "allow",
        variable: "CLOAKROOM_ALLOW",
        value: "CIDR",
        help: "Take SCGI over TCP from this network; given at all, only from those named. Can be given more than once. [default: this machine]",
        kind: Kind::Many,
        apply: |options, text| {
            options.allow.push(network(text)?);
            Ok(())
        },
    },
    Setting {
        flag: "status",
        variable: "CLOAKROOM_STATUS",
        value: "HOST:PORT",
        help: "Tell here how the pool is: a page, JSON and metrics; also unix:PATH",
        kind: Kind::One,
        apply: |options, text| {
            options.status = Some(address(text)?);
            Ok(())
        },
    },
    Setting {
        flag: "sessions",
        variable: "CLOAKROOM_SESSIONS",
        value: "DIR",
        help: "Directory of the sessions, for programs that let it be chosen",
        kind: Kind::One,
        apply: |options, text| {
            options.sessions = Some(text.into());
            Ok(())
        },
    },
    Setting {
        flag: "workers",
        variable: "CLOAKROOM_WORKERS",
        value: "N|MIN..MAX",
        help: "How many processes serve: as many, or as many as are needed. [default: two for each CPU, at least 4]",
        kind: Kind::One,
        apply: |options, text| {
            options.workers = Some(text.parse().map_err(|_| "expected 1 to 512, or MIN..MAX such as 2..16")?);
            Ok(())
        },
    },
    Setting {
        flag: "idle-timeout",
        variable: "CLOAKROOM_IDLE_TIMEOUT",
        value: "SECS",
        help: "With --workers MIN..MAX: a worker that had nothing to do for so long leaves. [default: 10]",
        kind: Kind::One,
        apply: |options, text| {
            options.idle_timeout = seconds(text)?;
            Ok(())
        },
    },
    Setting {
        flag: "max-requests",
        variable: "CLOAKROOM_MAX_REQUESTS",
        value: "N",
        help: "Replace a worker after N requests, or up to 10 % more; 0: never. [default: 0]",
        kind: Kind::One,
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
        kind: Kind::One,
        apply: |options, text| {
            options.request_timeout = Some(seconds(text)?).filter(|time| !time.is_zero());
            Ok(())
        },
    },
    Setting {
        flag: "soft-timeout",
        variable: "CLOAKROOM_SOFT_TIMEOUT",
        value: "SECS",
        help: "Tell the application when a request takes longer; 0: never. [default: 0]",
        kind: Kind::One,
        apply: |options, text| {
            options.soft_timeout = Some(seconds(text)?).filter(|time| !time.is_zero());
            Ok(())
        },
    },
    Setting {
        flag: "slow-request",
        variable: "CLOAKROOM_SLOW_REQUEST",
        value: "SECS",
        help: "Name a request in the log that takes longer; 0: none. [default: 0]",
        kind: Kind::One,
        apply: |options, text| {
            options.slow_request = Some(seconds(text)?).filter(|time| !time.is_zero());
            Ok(())
        },
    },
    Setting {
        flag: "lock-timeout",
        variable: "CLOAKROOM_LOCK_TIMEOUT",
        value: "SECS",
        help: "Answer 503 when another request holds the session for longer. [default: the program's, usually 30]",
        kind: Kind::One,
        apply: |options, text| {
            options.lock_timeout = Some(seconds(text)?);
            Ok(())
        },
    },
    Setting {
        flag: "max-per-session",
        variable: "CLOAKROOM_MAX_PER_SESSION",
        value: "N",
        help: "Answer 503 when so many workers hold and wait for one session that was held for 50 ms. [default: half of them]",
        kind: Kind::One,
        apply: |options, text| {
            let count: usize = text.parse().map_err(|_| NOT_A_NUMBER)?;
            if count == 0 {
                return Err("expected 1 or more");
            }
            options.max_per_session = Some(count);
            Ok(())
        },
    },
    Setting {
        flag: "graceful-timeout",
        variable: "CLOAKROOM_GRACEFUL_TIMEOUT",
        value: "SECS",
        help: "Kill workers that are still busy this long after they were told to stop. [default: 30]",
        kind: Kind::One,
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
        kind: Kind::One,
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
        kind: Kind::One,
        apply: |options, text| {
            options.socket_mode = octal(text)?;
            Ok(())
        },
    },
    Setting {
        flag: "socket-owner",
        variable: "CLOAKROOM_SOCKET_OWNER",
        value: "USER",
        help: "Who owns Unix sockets: a name or a number. [default: who starts the program]",
        kind: Kind::One,
        apply: |options, text| {
            options.socket_owner = name(text)?;
            Ok(())
        },
    },
    Setting {
        flag: "socket-group",
        variable: "CLOAKROOM_SOCKET_GROUP",
        value: "GROUP",
        help: "The group of Unix sockets: a name or a number. [default: that of who starts the program]",
        kind: Kind::One,
        apply: |options, text| {
            options.socket_group = name(text)?;
            Ok(())
        },
    },
    Setting {
        flag: "backlog",
        variable: "CLOAKROOM_BACKLOG",
        value: "N",
        help: "How many connections may wait for a worker. [default: 1024]",
        kind: Kind::One,
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
        kind: Kind::Many,
        apply: |options, text| {
            options.trusted_proxies.push(network(text)?);
            Ok(())
        },
    },
    Setting {
        flag: "body-limit",
        variable: "CLOAKROOM_BODY_LIMIT",
        value: "BYTES",
        help: "Answer 413 to a longer message-body. [default: the program's, usually 8388608]",
        kind: Kind::One,
        apply: |options, text| {
            options.body_limit = Some(text.parse().map_err(|_| NOT_A_NUMBER)?);
            Ok(())
        },
    },
    Setting {
        flag: "access-log",
        variable: "CLOAKROOM_ACCESS_LOG",
        value: "FILE",
        help: "Write each request down in this file, reopened at USR1, or on stderr",
        kind: Kind::One,
        apply: |options, text| {
            options.access_log = Some(text.parse()?);
            Ok(())
        },
    },
    Setting {
        flag: "access-log-format",
        variable: "CLOAKROOM_ACCESS_LOG_FORMAT",
        value: "combined|json",
        help: "In which form. [default: combined]",
        kind: Kind::One,
        apply: |options, text| {
            options.access_log_format = text.parse()?;
            Ok(())
        },
    },
    Setting {
        flag: "user",
        variable: "CLOAKROOM_USER",
        value: "USER",
        help: "Run as this user, by name or number, once the listeners are open",
        kind: Kind::One,
        apply: |options, text| {
            options.user = name(text)?;
            Ok(())
        },
    },
    Setting {
        flag: "group",
        variable: "CLOAKROOM_GROUP",
        value: "GROUP",
        help: "Run as this group. [default: the groups of --user]",
        kind: Kind::One,
        apply: |options, text| {
            options.group = name(text)?;
            Ok(())
        },
    },
    Setting {
        flag: "umask",
        variable: "CLOAKROOM_UMASK",
        value: "OCTAL",
        help: "Permissions that new files do not have. [default: 0027]",
        kind: Kind::One,
        apply: |options, text| {
            options.umask = octal(text)?;
            Ok(())
        },
    },
    Setting {
        flag: "strict",
        variable: "CLOAKROOM_STRICT",
        value: "",
        help: "Refuse what is only warned of otherwise, such as workers that run as root",
        kind: Kind::Switch,
        apply: |options, text| {
            options.strict = boolean(text)?;
            Ok(())
        },
    },
    Setting {
        flag: "allow-new-privileges",
        variable: "CLOAKROOM_ALLOW_NEW_PRIVILEGES",
        value: "",
        help: "Let programs that the application starts gain privileges (sudo, some mail programs)",
        kind: Kind::Switch,
        apply: |options, text| {
            options.allow_new_privileges = boolean(text)?;
            Ok(())
        },
    },
    Setting {
        flag: "sweep-every",
        variable: "CLOAKROOM_SWEEP_EVERY",
        value: "SECS",
        help: "Delete sessions that are over so often; 0: never. [default: 600]",
        kind: Kind::One,
        apply: |options, text| {
            options.sweep_every = Some(seconds(text)?).filter(|time| !time.is_zero());
            Ok(())
        },
    },
    Setting {
        flag: "sweep-one-in",
        variable: "CLOAKROOM_SWEEP_ONE_IN",
        value: "N",
        help: "Under CGI: sweep for a moment after one request in N; 0: never. [default: 0]",
        kind: Kind::One,
        apply: |options, text| {
            options.sweep_one_in = text.parse().map_err(|_| NOT_A_NUMBER)?;
            Ok(())
        },
    },
    Setting {
        flag: "env-file",
        variable: "CLOAKROOM_ENV_FILE",
        value: "FILE",
        help: "Set the variables in this file first (NAME=VALUE lines); read anew at each reload",
        kind: Kind::One,
        apply: |options, text| {
            options.env_file = Some(text.into());
            Ok(())
        },
    },
    Setting {
        flag: "check",
        variable: "CLOAKROOM_CHECK",
        value: "",
        help: "Serve nothing; say whether all of this would work, and end with status 0 or 2",
        kind: Kind::Switch,
        apply: |options, text| {
            options.check = boolean(text)?;
            Ok(())
        },
    },
    Setting {
        flag: "doctor",
        variable: "CLOAKROOM_DOCTOR",
        value: "URL",
        help: "Serve nothing; examine the deployment at this URL through its front server",
        kind: Kind::One,
        apply: |options, text| {
            options.doctor = Some(text.to_owned());
            Ok(())
        },
    },
    Setting {
        flag: "doctor-token",
        variable: "CLOAKROOM_DOCTOR_TOKEN",
        value: "TOKEN",
        help: "Answer whoever examines with this token (16 characters or more); a flag is seen by ps, the variable is not. [default: nobody]",
        kind: Kind::Secret,
        apply: |options, text| {
            options.doctor_token = Some(text.parse()?);
            Ok(())
        },
    },
];
