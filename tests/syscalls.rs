//! What the kernel is asked to do, seen by strace(1): a request costs what it must and nothing else.
//!
//! These tests need strace and are not run without it being asked for: `cargo test --test syscalls -- --ignored`, or
//! `tests/run`.

#![allow(missing_docs, unreachable_pub)]

mod support;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use support::client;
use support::process::{self, Proc, Signal, children, demo};
use support::strace::Strace;
use support::visit::{Door, Visitor};
use support::{TestDir, eventually};

/// A pool of one worker with strace looking over its shoulder.
struct Traced {
    door: Door,
    trace: std::path::PathBuf,
    /// Dropped in this order: strace lets go before the worker ends.
    _strace: Strace,
    pool: Proc,
    directory: TestDir,
}

impl Traced {
    fn new(protocol: &str) -> Self {
        Self::with(protocol, &[])
    }

    fn with(protocol: &str, more: &[&str]) -> Self {
        let directory = TestDir::new();
        let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
        let address = if protocol == "http" { "127.0.0.1:0".to_owned() } else { format!("unix:{}", path("socket")) };
        let flag = format!("--{protocol}");
        let sessions = path("sessions");
        let arguments = [&flag, &address, "--sessions", &sessions, "--workers", "1"];
        let pool = Proc::demo(arguments.into_iter().chain(more.iter().copied()));
        let address = pool.address(protocol);
        pool.line(" ready workers=1");
        let door = if protocol == "http" { Door::Http(address) } else { Door::Scgi(address) };
        // What is done once per process is not what a request costs.
        let mut visitor = Visitor::new(&door);
        visitor.get("/keep");
        visitor.get("/counter").ok();
        drop(visitor);
        let trace = directory.join("trace");
        let worker = children(pool.pid())[0];
        let strace = Strace::attach(worker, &["-f", "-y"], &trace);
        Self { door, trace, _strace: strace, pool, directory }
    }

    /// What is traced, once as many calls of `last` as that have come.
    fn calls(&self, last: &str, count: usize) -> Vec<Call> {
        let read = || -> Vec<Call> {
            let text = std::fs::read_to_string(&self.trace).unwrap_or_default();
            text.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(Call::of).collect()
        };
        eventually("strace has written", || read().iter().filter(|call| call.name == last).count() >= count);
        read()
    }
}

/// One line of strace's output.
#[derive(Debug)]
struct Call {
    name: String,
    line: String,
}

impl Call {
    /// `None` for what is no call, such as a signal, and for one that has not returned.
    fn of(line: &str) -> Option<Self> {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        let call = match call.strip_prefix("<... ") {
            Some(resumed) => resumed,
            None if call.contains("<unfinished") => return None,
            None => call,
        };
        let name: String = call.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        // Debug builds ask about every descriptor before they close it.
        let is_call = !name.is_empty() && !call.contains("F_GETFD");
        let name = if call.contains(" EAGAIN ") { format!("{name}: nobody there") } else { name };
        is_call.then(|| Self { name, line: line.trim_end().to_owned() })
    }
}

fn counts(calls: &[Call]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry(call.name.as_str()).or_default() += 1;
    }
    counts
}

const REQUESTS: usize = 10;

/// How often each call may come per request: all that `allowed` does not name may not come at all.
fn assert_at_most(calls: &[Call], allowed: &[(&[&str], usize)]) {
    let counts = counts(calls);
    // Where the worker was faster than the client: it has accepted the connection before the request was sent, which is
    // the client's doing. That costs a look in vain and a wait, the one as often as the other.
    let early = |name: &str| counts.get(name).copied().unwrap_or(0);
    assert_eq!(early("recvfrom: nobody there"), early("ppoll"), "{calls:#?}");
    let is_early = |name: &str| matches!(name, "recvfrom: nobody there" | "ppoll");
    for (&name, &count) in counts.iter().filter(|(name, _)| !is_early(name)) {
        let group = allowed.iter().find(|(names, _)| names.contains(&name));
        let (_, most) = group.unwrap_or_else(|| panic!("{name} was called: {calls:#?}"));
        assert!(count <= most * REQUESTS, "{name} was called {count} times in {REQUESTS} requests: {calls:#?}");
    }
}

const SCGI: &[(&[&str], usize)] = &[
    // A look whether the next visitor is there already; where not, others have the processor before the worker sleeps.
    (&["epoll_wait", "epoll_pwait", "epoll_pwait2"], 2),
    (&["sched_yield"], 1),
    (&["accept4", "accept"], 1),
    // After some who were there already.
    (&["accept4: nobody there"], 1),
    (&["read", "recvfrom", "recv"], 1),
    (&["write", "sendto", "writev", "sendmsg"], 1),
    // The connection, which may have to be shut down for writing first.
    (&["shutdown"], 1),
    (&["close"], 1),
];

#[test]
#[ignore = "needs strace: run tests/run"]
fn a_request_over_scgi_that_does_not_touch_the_session_costs_four_calls_and_what_it_is_waited_for_with() {
    let traced = Traced::new("scgi");
    let mut visitor = Visitor::new(&traced.door);
    for _ in 0..REQUESTS {
        visitor.get("/hello").ok();
    }
    assert_at_most(&traced.calls("close", REQUESTS), SCGI);
}

/// Where visitors wait for the worker, and not it for them, a request is accept, read, write and close.
#[test]
#[ignore = "needs strace: run tests/run"]
fn a_request_that_waits_already_costs_four_calls() {
    const WAITING: usize = 60;
    let traced = Traced::new("scgi");
    let Door::Scgi(address) = &traced.door else { unreachable!("asked for") };
    let worker = children(traced.pool.pid())[0];
    process::send(worker, Signal::STOP);
    let request = client::scgi_request("GET", "/hello", b"");
    let waiting: Vec<_> = (0..WAITING).map(|_| client::send(address, &request).expect("send")).collect();
    process::send(worker, Signal::CONT);
    for connection in waiting {
        assert!(client::read(connection).expect("an answer").starts_with("Status: 200"));
    }
    let calls = traced.calls("close", WAITING);
    let counts = counts(&calls);
    for name in ["accept4", "recvfrom", "sendto", "close"] {
        assert_eq!(counts[name], WAITING, "{calls:#?}");
    }
    // After some of them it does not ask any more whether there is one.
    let others = calls.len() - 4 * WAITING;
    assert!(others <= 16, "{others} other calls: {calls:#?}");
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn the_access_log_costs_one_call_more() {
    let traced = Traced::with("scgi", &["--access-log", "/dev/null"]);
    let mut visitor = Visitor::new(&traced.door);
    for _ in 0..REQUESTS {
        visitor.get("/hello").ok();
    }
    let calls = traced.calls("close", REQUESTS);
    let allowed: Vec<_> =
        SCGI.iter().map(|(names, most)| (*names, most + usize::from(names.contains(&"write")))).collect();
    assert_at_most(&calls, &allowed);
    assert_eq!(calls.iter().filter(|call| call.line.contains("</dev/null>")).count(), REQUESTS, "{calls:#?}");
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn a_request_over_http_that_does_not_touch_the_session_makes_no_file_system_call() {
    let traced = Traced::new("http");
    let mut visitor = Visitor::new(&traced.door);
    for _ in 0..REQUESTS {
        visitor.get("/hello").ok();
    }
    drop(visitor);
    let calls = traced.calls("close", 1);
    for call in &calls {
        let on_a_file =
            ["open", "stat", "flock", "unlink", "rename", "access", "mkdir", "getdents", "truncate", "sync"];
        assert!(!on_a_file.iter().any(|name| call.name.contains(name)), "{}", call.line);
        let on_the_sessions = call.line.contains(traced.directory.path().to_str().expect("text"));
        assert!(!on_the_sessions, "{}", call.line);
    }
    // Kept open: one accept for all of them; then each is received, sent, and the next one awaited.
    let counts = counts(&calls);
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    assert_eq!(count("accept4"), 1, "{calls:#?}");
    assert!(count("recvfrom") <= REQUESTS + 1 && count("recvfrom: nobody there") <= 1, "{calls:#?}");
    assert!(count("sendto") == REQUESTS && count("epoll_ctl") <= REQUESTS + 2, "{calls:#?}");
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn a_request_that_counts_adds_six_calls() {
    let traced = Traced::new("scgi");
    let mut visitor = Visitor::new(&traced.door);
    visitor.get("/keep");
    for _ in 0..REQUESTS {
        visitor.post("/counter", "").ok();
    }
    // Each closes the session's file and the connection; those of /keep are not looked at.
    let mut calls = traced.calls("close", 2 * (REQUESTS + 1));
    let kept = calls.iter().enumerate().filter(|(_, call)| call.name == "close").nth(1).expect("/keep").0;
    calls.drain(..=kept);
    let allowed: Vec<(&[&str], usize)> = SCGI
        .iter()
        .map(|(names, most)| (*names, most + usize::from(names.contains(&"close"))))
        .chain([
            (&["openat"][..], 1),
            (&["flock"], 1),
            (&["fstat", "newfstatat"], 1),
            (&["pread64"], 1),
            (&["pwrite64"], 1),
        ])
        .collect();
    assert_at_most(&calls, &allowed);
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn a_session_id_is_drawn_from_the_system_each_time() {
    let traced = Traced::new("scgi");
    for drawn in 1..=REQUESTS {
        Visitor::new(&traced.door).get("/keep");
        // One for the ID, one for the mark of the session's file.
        let calls = traced.calls("getrandom", 2 * drawn);
        assert_eq!(counts(&calls)["getrandom"], 2 * drawn, "{calls:#?}");
        assert!(
            calls.iter().filter(|call| call.name == "getrandom").all(|call| call.line.ends_with("= 16")),
            "{calls:#?}"
        );
    }
}

/// Everything that a script opens: its libraries, what the start of a Rust program looks at, and its session.
#[test]
#[ignore = "needs strace: run tests/run"]
fn a_script_opens_its_session_and_nothing_else() {
    let directory = TestDir::new();
    let sessions = directory.join("sessions");
    let mut visitor = Visitor::new(&Door::Cgi(sessions.clone()));
    visitor.get("/keep");
    let trace = directory.join("trace");
    // One that counts by GET looks first, and opens the file again to save.
    for (method, path, opens) in
        [("GET", "/hello", 0), ("GET", "/read", 1), ("POST", "/counter", 1), ("GET", "/counter", 2)]
    {
        let output = Command::new("strace")
            .args(["-f", "-o", trace.to_str().expect("text")])
            .arg(demo().get_program())
            .env_clear()
            .envs([("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", method), ("SERVER_NAME", "localhost")])
            .envs([("SERVER_PORT", "80"), ("SERVER_PROTOCOL", "HTTP/1.1"), ("SCRIPT_NAME", ""), ("PATH_INFO", path)])
            .envs([("REQUEST_URI", path), ("HTTP_COOKIE", visitor.cookie.as_deref().expect("a cookie"))])
            .env("CLOAKROOM_SESSIONS", &sessions)
            .stdin(Stdio::null())
            .output()
            .expect("strace");
        assert!(output.stdout.starts_with(b"Status: 200"), "{output:?}");
        let text = std::fs::read_to_string(&trace).expect("strace's output");
        let calls: Vec<Call> = text.lines().filter_map(Call::of).collect();
        let id = visitor.cookie.as_deref().expect("a cookie").split_once('=').expect("a cookie").1;
        let mut opened = Vec::new();
        for call in calls.iter().filter(|call| call.name.starts_with("open")) {
            let name = call.line.split('"').nth(1).expect("a path");
            let of_the_start = name.starts_with("/etc/ld.so") || name.contains(".so") || name == "/proc/self/maps";
            if !of_the_start {
                opened.push(name.to_owned());
            }
        }
        let sessions = sessions.to_str().expect("text");
        let expected = [sessions, id, id];
        let expected = if opens == 0 { &[] } else { &expected[..=opens] };
        assert_eq!(opened, expected, "{method} {path}: {calls:#?}");
    }
}
