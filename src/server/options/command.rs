//! The command line of a pool, made of the settings.

use std::borrow::Cow;
use std::ffi::OsString;

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

pub(super) fn command(name: String) -> Command {
    let examples = format!(
        "Examples:\n  {name}                                    HTTP on localhost:8080\n  \
           {name} --scgi unix:/run/{name}.sock       SCGI behind nginx, Apache or lighttpd\n  \
           {name} --http 127.0.0.1:3000 --script-name /app --trusted-proxy 127.0.0.1\n                 \
             HTTP behind a reverse proxy, mounted at /app\n\n\
         As a CGI script it reads the variables only, and as a service that systemd opens sockets for\n\
         (LISTEN_FDS) it serves those.\n\n\
         Signals to the master: TERM, QUIT: stop when the requests at work are answered; INT: stop at once;\n\
         HUP: replace the workers one after another; TTIN, TTOU: one worker more, one less;\n\
         USR1: open the access log again.\n\
         Exit status: 0 done, 2 usage or configuration, 111 temporary failure of the system."
    );
    let arguments = SETTINGS.iter().map(|setting| {
        let argument = Arg::new(setting.flag)
            .long(setting.flag)
            .env(setting.variable)
            .hide_env_values(true)
            .help(setting.help)
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
        .after_help(examples)
        .args(arguments)
        .args_override_self(true)
}
