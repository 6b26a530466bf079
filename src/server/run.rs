//! Running a [`Host`]: which mode, with which listeners.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use super::allow::Allow;
use super::concerns::concerns;
use super::exit::{EXIT_NO, EXIT_TEMPORARY, EXIT_USAGE};
use super::listener::{Listener, Protocol};
use super::open::{open, open_status, remove_files};
use super::options::{Options, Workers, under_cgi};
use super::pool::{self, Handoff, PoolOptions, Program, Reporter};
use super::privileges::settle;
use super::{cgi, check};
use crate::doctor::{self, DoctorToken};
use crate::host::Host;
use crate::sys::log::log;
use crate::sys::process;

const NOT_SHARED: &str = "this store keeps sessions in one process, and a pool has several: use another store, or \
                          Host::serve_scgi or Host::serve_http";

impl Host {
    /// Runs the application in the way that its surroundings ask for, with the options of the command line and of
    /// `CLOAKROOM_*` variables ([`Options`]). It is all that `main` has to do:
    ///
    /// * `GATEWAY_INTERFACE` is set: as CGI script, one request. The command line is not looked at, as a client can put
    ///   words there (RFC 3875 section 4.4).
    /// * Listeners are inherited (`LISTEN_FDS`, systemd): a pool of workers serves them, HTTP on those whose name starts
    ///   with `http` and SCGI on the others. `--http` and `--scgi` are not needed then, and not used.
    /// * Else the pool serves what `--http` and `--scgi` name, or HTTP on `localhost:8080` where they name nothing.
    ///
    /// Returns the exit status: 0 after a graceful stop, 2 for a mistake in usage or configuration, 111 for a temporary
    /// failure of the system.
    ///
    /// `--sessions` is refused here, since the store was chosen before the options were read. A program that wants it
    /// reads them first:
    ///
    /// ```no_run
    /// # use std::process::ExitCode;
    /// # use cloakroom::{DirectoryStore, Host, Options, Request, Response, Result, Session};
    /// # fn counter(_: Request, _: &mut Session) -> Result<Response> { Ok(Response::text("")) }
    /// fn main() -> ExitCode {
    ///     let options = Options::from_args();
    ///     let directory = options.sessions.clone().unwrap_or("/var/lib/counter/sessions".into());
    ///     Host::new(counter).sessions(DirectoryStore::at(directory)).run_with(options)
    /// }
    /// ```
    ///
    /// Call it from the process's only thread: workers are forked, and start their threads themselves.
    pub fn run(self) -> ExitCode {
        let options = Options::from_args();
        if options.sessions.is_some() {
            let reason = "this program does not let its session directory be chosen (--sessions, CLOAKROOM_SESSIONS)";
            if under_cgi() {
                return cgi::refuse(reason).into();
            }
            log!("{reason}");
            return EXIT_USAGE.into();
        }
        self.run_with(options)
    }

    /// The same as [`run`](Self::run) with options that the program has read, or made, itself.
    #[expect(clippy::needless_pass_by_value, reason = "it is used up: the host has what it says from here on")]
    pub fn run_with(self, options: Options) -> ExitCode {
        if let Some(url) = options.doctor.as_ref().filter(|_| !under_cgi()) {
            return examine(url, options.doctor_token.as_ref()).into();
        }
        let host = self.with_options(&options);
        if under_cgi() {
            cgi::serve(&host, options.sweep_one_in).into()
        } else if options.check {
            check::run(&host, &options).into()
        } else {
            serve_pool(&host, &options).into()
        }
    }

    /// Serves the one request that a web server has started this process for (CGI), with what it put into the
    /// environment and on stdin.
    ///
    /// From here on whatever is written to stdout other than the response goes to stderr. A store that lives in one
    /// process is refused: it would forget everything with this request. Returns 0 where a response was written,
    /// whatever its status, and 111 where nobody took it.
    pub fn serve_cgi(&self) -> ExitCode {
        cgi::serve(self, 0).into()
    }

    /// Serves SCGI on a listening socket (a [`TcpListener`](std::net::TcpListener), a
    /// [`UnixListener`](std::os::unix::net::UnixListener)) in this process: one request after another, without workers,
    /// signals or request timeout, until the process ends.
    ///
    /// For tests, and for the one thing that a pool cannot do: a store that lives in one process. Whoever can connect is
    /// believed what it says of the client, from wherever: it is the caller who has bound the socket.
    ///
    /// # Errors
    /// Where the socket is no listener, or the store cannot be set up.
    pub fn serve_scgi(&self, listener: impl Into<OwnedFd>) -> io::Result<()> {
        pool::serve_alone(self, Listener::from_fd(listener.into(), Protocol::Scgi)?)
    }

    /// Serves HTTP/1.1 in this process; else the same as [`serve_scgi`](Self::serve_scgi).
    ///
    /// # Errors
    /// Where the socket is no listener, or the store cannot be set up.
    pub fn serve_http(&self, listener: impl Into<OwnedFd>) -> io::Result<()> {
        pool::serve_alone(self, Listener::from_fd(listener.into(), Protocol::Http)?)
    }

    /// What the operator says goes before what the program says.
    fn with_options(mut self, options: &Options) -> Self {
        if let Some(time) = options.lock_timeout {
            self = self.lock_timeout(time);
        }
        if let Some(mount) = &options.script_name {
            self = self.script_name(mount);
        }
        if !options.trusted_proxies.is_empty() {
            self = self.trusted_proxies(options.trusted_proxies.iter().copied());
        }
        if let Some(limit) = options.body_limit {
            self.set_limits(|limits| limits.body = limit);
        }
        if let Some(token) = &options.doctor_token {
            self = self.doctor_token(token.clone());
        }
        self
    }
}

/// `--doctor`.
fn examine(url: &str, token: Option<&DoctorToken>) -> u8 {
    use std::io::Write as _;
    let Some(token) = token else {
        log!("doctor: say which token the deployment has (CLOAKROOM_DOCTOR_TOKEN)");
        return EXIT_USAGE;
    };
    match doctor::examine(url, token, false) {
        Ok(report) => match std::io::stdout().write_all(report.to_text().as_bytes()) {
            Ok(()) if report.is_healthy() => 0,
            Ok(()) => EXIT_NO,
            Err(error) => {
                log!("doctor: write to stdout: {error}");
                EXIT_TEMPORARY
            }
        },
        Err(error) => {
            log!("{error}");
            if error.is_usage() { EXIT_USAGE } else { EXIT_TEMPORARY }
        }
    }
}

fn serve_pool(host: &Host, options: &Options) -> u8 {
    if let Some(reason) = refusal(host) {
        log!("{reason}");
        return EXIT_USAGE;
    }
    if process::threads().is_some_and(|threads| threads > 1) {
        log!("the process has more than one thread: call Host::run first, and start threads in the application");
        return EXIT_USAGE;
    }
    let mut handoff = match Handoff::take() {
        Ok(handoff) => handoff,
        Err(error) => {
            log!("cannot take over from the program before: {error}");
            return EXIT_TEMPORARY;
        }
    };
    if let Some(handoff) = handoff.as_mut().filter(|handoff| handoff.is_rehearsal()) {
        let prepared = rehearse(options, handoff);
        return pool::rehearse(host, handoff, prepared);
    }
    let mut listeners = match open(options, handoff.as_mut()) {
        Ok(listeners) => listeners,
        Err(status) => return status,
    };
    let mut status = match open_status(options, handoff.as_mut()) {
        Ok(status) => status,
        Err(code) => {
            remove_files(&mut listeners);
            return code;
        }
    };
    if let Err(error) = settle(options, handoff.is_some()) {
        log!("{error}");
        remove_files(&mut listeners);
        remove_files(&mut status);
        return EXIT_USAGE;
    }
    let program = match Program::current(options.from_file.clone()) {
        Ok(program) => program,
        Err(error) => {
            log!("find this program's own file: {error}");
            return EXIT_TEMPORARY;
        }
    };
    let pool = PoolOptions {
        workers: options.workers.unwrap_or_else(default_workers),
        idle_timeout: options.idle_timeout,
        max_requests: options.max_requests,
        request_timeout: options.request_timeout,
        soft_timeout: options.soft_timeout,
        slow_request: options.slow_request,
        max_per_session: options.max_per_session,
        graceful_timeout: options.graceful_timeout,
        allow: Allow::new(&options.allow),
        access_log: options.access_log.clone().map(|log| (log, options.access_log_format)),
        program,
        sweep_every: options.sweep_every,
    };
    let reporter = Reporter::new(status, options.status.as_ref());
    pool::run(host, &mut listeners, reporter, &pool, handoff).unwrap_or_else(|error| {
        log!("master pid={} cannot go on: {error}", process::id().as_raw_nonzero());
        EXIT_TEMPORARY
    })
}

/// Why this host cannot be served by a pool.
pub(super) fn refusal(host: &Host) -> Option<&'static str> {
    host.store().is_some_and(|store| !store.is_multiprocess_safe()).then_some(NOT_SHARED)
}

fn default_workers() -> Workers {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Workers::fixed((2 * cpus).max(4))
}

/// In a program that a reload tries out: takes the listeners, and becomes what the options say. `Err` says why this
/// program would not do.
fn rehearse(options: &Options, handoff: &mut Handoff) -> Result<(), String> {
    let listeners = handoff.listeners().map_err(|error| format!("take over listeners: {error}"))?;
    if options.strict
        && let Some(concern) = concerns(options, &listeners).first()
    {
        return Err(format!("refused by --strict: {concern}"));
    }
    settle(options, true).map_err(|error| error.to_string())?;
    match &options.access_log {
        Some(log) => pool::try_access_log(log).map_err(|error| format!("open access log: {error}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::{Request, Response, Session};

    fn host() -> Host {
        Host::new(|_: Request, _: &mut Session| Ok(Response::text("hello")))
    }

    #[test]
    fn a_pool_refuses_a_store_of_one_process() {
        assert!(refusal(&host()).is_none());
        assert_eq!(refusal(&host().sessions(MemoryStore::new())), Some(NOT_SHARED));
    }

    #[test]
    fn what_the_operator_says_goes_first() {
        let arguments = "c --script-name /b --body-limit 5 --trusted-proxy 10.0.0.0/8";
        let options = Options::try_from_args(arguments.split(' ')).unwrap();
        let host = host().script_name("/a").with_options(&options);
        assert_eq!(host.site().script_name.as_deref(), Some("/b"));
        assert_eq!(host.site().trusted_proxies.len(), 1);
        assert_eq!(host.current_limits().body, 5);
        let host = super::tests::host().script_name("/a").with_options(&Options::default());
        assert_eq!(host.site().script_name.as_deref(), Some("/a"));
        assert_eq!(host.current_limits().body, 8 << 20);
    }

    #[test]
    fn serves_in_this_process_with_any_store() {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // It serves until the process ends, so nobody waits for the thread.
        std::thread::spawn(move || host().sessions(MemoryStore::new()).serve_http(listener).unwrap());
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("hello"), "{response}");
        let no_listener = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(super::tests::host().serve_scgi(no_listener).is_err());
    }
}
