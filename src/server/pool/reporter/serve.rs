//! The reporter's own process: HTTP on the status listeners, each request in a thread of its own.

use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::{Duration, Instant};

use http::header::{ALLOW, CACHE_CONTROL, HeaderName, VARY};
use http::{Method, StatusCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use super::measure::Measure;
use super::report::Report;
use super::{metrics, page, text};
use crate::gateway::{Front, Limits, Site};
use crate::host::Examination;
use crate::message::{Body, MessageError, MetaVariables, Request, RequestParts, Response};
use crate::server::activity::Activity;
use crate::server::buffers::Buffers;
use crate::server::exchange::{Application, plain};
use crate::server::http::serve as serve_http;
use crate::server::listener::Listener;
use crate::server::pool::scoreboard::Scoreboard;
use crate::server::stream::Stream;
use crate::sys::process::signal_when_parent_dies;
use crate::sys::signal::{Action, Blocked, Signal, Signals};

/// How long a client may take: to say a word, for a request, and for each piece of an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many requests are answered at once.
const AT_ONCE: usize = 8;
/// How many connections may be open on which nothing has been sent yet.
const QUIET: usize = 32;

/// What the reporter needs, as it was in the master when it forked.
pub(super) struct Setting<'a> {
    pub(super) board: Scoreboard,
    pub(super) master: Pid,
    /// Those of the pool, of which it tells the queues.
    pub(super) listeners: &'a [Listener],
    /// Its own.
    pub(super) status: &'a [Listener],
    /// Names by which it may be called over TCP, beside addresses.
    pub(super) names: &'a [String],
}

/// The life of the reporter; returns its exit status.
pub(super) fn run(setting: &Setting<'_>, blocked: Blocked) -> i32 {
    let signals = Signals::install(&[
        // Its end is the master's to say: also while the pool stops there is something to be seen.
        (Signal::TERM, Action::Nothing),
        (Signal::QUIT, Action::Nothing),
        (Signal::INT, Action::Nothing),
        (Signal::HUP, Action::Nothing),
        (Signal::USR1, Action::Nothing),
        (Signal::USR2, Action::Nothing),
        (Signal::TTIN, Action::Nothing),
        (Signal::TTOU, Action::Nothing),
        (Signal::CHILD, Action::Default),
        (Signal::PIPE, Action::Ignore),
    ]);
    if signals.is_err() {
        // The handlers may still be the master's, and write to its pipe: what is held back stays so to the end.
        std::mem::forget(blocked);
        return 1;
    }
    if !signal_when_parent_dies(setting.master, Signal::KILL) {
        return 1;
    }
    drop(blocked);
    // As ps(1) and top(1) show it.
    let _ = rustix::thread::set_name(c"reporter");
    let office = Office::new(setting);
    let at_work = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let mut quiet: Vec<(Instant, Stream)> = Vec::new();
        loop {
            for stream in wait(setting.status, &mut quiet, at_work.load(Acquire) < AT_ONCE) {
                at_work.fetch_add(1, AcqRel);
                let (office, count) = (&office, &at_work);
                let serve = move || {
                    serve(stream, office);
                    count.fetch_sub(1, AcqRel);
                };
                // Without a thread to be had the client sees the connection close.
                if std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, serve).is_err() {
                    at_work.fetch_sub(1, AcqRel);
                }
            }
        }
    })
}

/// Takes connections, and returns those on which something has been sent. `free`: whether they could be served now.
fn wait(listeners: &[Listener], quiet: &mut Vec<(Instant, Stream)>, free: bool) -> Vec<Stream> {
    let timeout = if free {
        let next = quiet.first().map(|(since, _)| (*since + PATIENCE).saturating_duration_since(Instant::now()));
        next.map(|next| next + Duration::from_millis(1))
    } else {
        Some(Duration::from_millis(20))
    };
    let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
    let mut descriptors: Vec<PollFd<'_>> = Vec::new();
    if free {
        descriptors.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        descriptors.extend(quiet.iter().map(|(_, stream)| PollFd::new(stream, PollFlags::IN)));
    }
    let _ = poll(&mut descriptors, timeout.as_ref());
    let ready: Vec<bool> = descriptors.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();
    drop(descriptors);
    if !free {
        return Vec::new();
    }
    let mut served = Vec::new();
    let time = Instant::now();
    let mut talks = ready[listeners.len()..].iter();
    let mut kept = Vec::new();
    for (since, stream) in quiet.drain(..) {
        match talks.next() {
            Some(true) => served.push(stream),
            _ if time.saturating_duration_since(since) < PATIENCE => kept.push((since, stream)),
            _ => {}
        }
    }
    *quiet = kept;
    for listener in listeners {
        while let Ok(stream) = listener.accept() {
            if quiet.len() >= QUIET {
                quiet.remove(0);
            }
            quiet.push((time, stream));
        }
    }
    served
}

fn serve(stream: Stream, office: &Office<'_>) {
    let is_tcp = stream.local().is_some();
    let _ = serve_http(stream, None, &Desk { office, is_tcp }, &Brief, &mut Buffers::new());
}

/// One request, and the connection is closed.
struct Brief;

impl Activity for Brief {
    fn begin(&self, _method: &Method, _path: &str) {}
    fn end(&self, _status: StatusCode) {}
    fn stopping(&self) -> bool {
        true
    }
}

struct Office<'a> {
    setting: &'a Setting<'a>,
    limits: Limits,
    site: Site,
    measure: Measure,
    /// This machine's name.
    machine: String,
}

/// The office, to a client that came by TCP or not.
struct Desk<'a> {
    office: &'a Office<'a>,
    is_tcp: bool,
}

impl Application for Desk<'_> {
    fn limits(&self) -> &Limits {
        &self.office.limits
    }

    fn site(&self) -> &Site {
        &self.office.site
    }

    // The doctor is not for this.
    fn examination(&self, _meta: &MetaVariables, _front: Front, _since: Instant) -> Option<Examination> {
        None
    }

    fn examine(&self, _examination: Examination, _parts: &RequestParts, _body: Body) -> Response {
        plain(StatusCode::NOT_FOUND)
    }

    fn respond(&self, request: Request) -> Response {
        self.office.answer(&request, self.is_tcp).unwrap_or_else(|_| {
            Response::text("500 Internal Server Error\n").with_status(StatusCode::INTERNAL_SERVER_ERROR)
        })
    }
}

impl<'a> Office<'a> {
    fn new(setting: &'a Setting<'a>) -> Self {
        let limits = Limits {
            body: 0,
            head: 16 * 1024,
            head_timeout: PATIENCE,
            body_timeout: PATIENCE,
            write_timeout: PATIENCE,
            keep_alive_timeout: PATIENCE,
            ..Limits::default()
        };
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        Self { setting, limits, site: Site::default(), measure: Measure::default(), machine }
    }

    fn report(&self) -> Report {
        let Setting { board, listeners, master, .. } = *self.setting;
        Report::new(board, listeners, master, &self.measure)
    }

    fn answer(&self, request: &Request, is_tcp: bool) -> Result<Response, MessageError> {
        let say = |status: StatusCode, text: &str| {
            Response::text(format!("{} {text}\n", status.as_str())).with_status(status)
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return say(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed").with_header(ALLOW, "GET, HEAD");
        }
        if is_tcp && !self.is_known(request.authority()) {
            let text = "Forbidden: ask by an address, or by a name that --status has";
            return Ok(say(StatusCode::FORBIDDEN, text));
        }
        let response = match request.path() {
            "/" if accepts_html(request) => self.page()?,
            "/" | "/status" => Response::text(text::text(&self.report())),
            "/status.json" => Response::json(&self.report())?,
            "/metrics" => Response::bytes(metrics::MEDIA_TYPE, metrics::metrics(&self.report())),
            "/health" if self.is_healthy() => say(StatusCode::OK, "OK"),
            "/health" => say(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
            _ => say(StatusCode::NOT_FOUND, "Not Found"),
        };
        let response = response.with_header(CACHE_CONTROL, "no-store")?.with_header(VARY, "Accept")?;
        response.with_header(HeaderName::from_static("x-content-type-options"), "nosniff")
    }

    fn page(&self) -> Result<Response, MessageError> {
        let mut random = [0u8; 16];
        // Where the kernel has none, style and script are not let in, which a page survives.
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        let nonce = format!("{:032x}", u128::from_ne_bytes(random));
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Response::html(page::page(&self.report(), &nonce))
            .with_header(HeaderName::from_static("content-security-policy"), &policy)?
            .with_header(HeaderName::from_static("referrer-policy"), "no-referrer")
    }

    /// Whether somebody would be served.
    fn is_healthy(&self) -> bool {
        let board = self.setting.board;
        let is_ready = board.used().any(|(_, slot)| slot.pid() != 0 && slot.is_ready() && !slot.is_leaving());
        !board.is_told_to_stop() && (is_ready || board.wanted().0 == 0)
    }

    /// Whether the client knew whom it asked: a page from elsewhere can have its name lead here, but it cannot ask by
    /// an address or by a name that is ours (DNS rebinding).
    fn is_known(&self, authority: &str) -> bool {
        let host = host(authority);
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let same = |name: &str| !name.is_empty() && host.eq_ignore_ascii_case(name);
        bare.parse::<IpAddr>().is_ok()
            || same("localhost")
            || same(&self.machine)
            || self.setting.names.iter().any(|name| same(name))
    }
}

/// The host of `host[:port]`.
pub(super) fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether it is a browser that asks.
fn accepts_html(request: &Request) -> bool {
    request.header("accept").is_some_and(|accept| accept.contains("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::id;

    fn with_office(test: impl FnOnce(&Office<'_>, Scoreboard)) {
        let board = Scoreboard::new(2).unwrap();
        let setting =
            Setting { board, master: id(), listeners: &[], status: &[], names: &["status.example".to_owned()] };
        test(&Office::new(&setting), board);
    }

    fn ask(office: &Office<'_>, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        office.answer(&Request::test(method, target, headers, ""), false).unwrap()
    }

    #[test]
    fn only_who_knows_us_is_told() {
        with_office(|office, _| {
            for host in ["127.0.0.1:80", "[::1]:9", "10.0.0.7", "localhost:1", "LOCALHOST", "Status.Example:9"] {
                assert!(office.is_known(host), "{host}");
            }
            for host in ["evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "", "status.example.x"]
            {
                assert!(!office.is_known(host), "{host}");
            }
            let request = Request::test("GET", "/status", &[], "");
            assert_eq!(office.answer(&request, true).unwrap().status(), StatusCode::FORBIDDEN);
            assert_eq!(office.answer(&request, false).unwrap().status(), StatusCode::OK);
        });
    }

    #[test]
    fn browsers_get_a_page_and_others_text() {
        with_office(|office, _| {
            let media_type = |response: &Response| response.headers()["content-type"].to_str().unwrap().to_owned();
            let page = ask(office, "GET", "/", &[("Accept", "text/html,*/*")]);
            assert!(
                media_type(&page).starts_with("text/html") && page.headers().contains_key("content-security-policy")
            );
            assert!(media_type(&ask(office, "GET", "/", &[("Accept", "*/*")])).starts_with("text/plain"));
            assert_eq!(media_type(&ask(office, "HEAD", "/status.json", &[])), "application/json");
            let post = ask(office, "POST", "/status", &[]);
            assert_eq!(
                (post.status(), &post.headers()["allow"]),
                (StatusCode::METHOD_NOT_ALLOWED, &"GET, HEAD".parse().unwrap())
            );
            assert_eq!(ask(office, "GET", "/nothing", &[]).status(), StatusCode::NOT_FOUND);
        });
    }

    #[test]
    fn a_pool_is_healthy_when_somebody_would_be_served() {
        with_office(|office, board| {
            let status = |office: &Office<'_>| ask(office, "GET", "/health", &[]).status();
            board.set_wanted(1, 1, 1);
            assert_eq!(status(office), StatusCode::SERVICE_UNAVAILABLE);
            board.prepare(0, 0);
            board.slot(0).set_pid(1);
            assert_eq!(status(office), StatusCode::SERVICE_UNAVAILABLE);
            board.slot(0).set_ready();
            assert_eq!(status(office), StatusCode::OK);
            board.slot(0).set_leaving();
            assert_eq!(status(office), StatusCode::SERVICE_UNAVAILABLE);
            board.set_wanted(0, 1, 0);
            assert_eq!(status(office), StatusCode::OK);
            board.set_stopping();
            assert_eq!(status(office), StatusCode::SERVICE_UNAVAILABLE);
        });
    }
}
