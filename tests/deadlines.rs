//! Deadlines that speak: what the application is told, what the client gets, and what the log says.

mod support;

use std::time::{Duration, Instant};

use support::client::{http, http_request, read, send};
use support::eventually;
use support::process::{Proc, Signal, children, is_sleeping, wait_until_sleeping, wait_until_stopped};
use support::visit::{Door, Visitor};

/// A pool of one worker with an HTTP listener: itself, its address, its worker.
fn pool(arguments: &[&str]) -> (Proc, String, u32) {
    let all = ["--http", "127.0.0.1:0", "--workers", "1"].into_iter().chain(arguments.iter().copied());
    let proc = Proc::demo(all);
    let address = proc.address("http");
    let worker = proc.ready(1)[0];
    (proc, address, worker)
}

#[test]
fn the_application_is_told_at_the_soft_deadline_and_goes_on() {
    let (mut proc, address, worker) = pool(&["--soft-timeout", "0.2"]);
    let response = http(&address, "/slow?ms=900&secret=7").unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    // The master's line and the hook's.
    let line = proc.line(" takes long method=");
    assert!(line.starts_with(&format!("cloakroom: worker=0 pid={worker} takes long method=GET path=/slow age=0.")));
    assert!(line.contains(" lock=none state=S in="), "{line}");
    proc.line("demo: GET /slow takes long");
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
    // Once for each request, and without what a query may hold.
    assert_eq!(proc.log().matches("takes long").count(), 2, "{}", proc.log());
    assert!(!proc.log().contains("secret"));
}

#[test]
fn both_deadlines_can_be_put_off() {
    let (proc, address, worker) = pool(&["--soft-timeout", "0.3", "--request-timeout", "0.5"]);
    let response = http(&address, "/slow?ms=1500&extend=10000").unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(!proc.log().contains("takes long"), "{}", proc.log());
    // Of that request only: the next one is not given the time that is left of it.
    let start = Instant::now();
    let response = http(&address, "/slow?ms=60000").unwrap();
    assert!(response.starts_with("HTTP/1.1 504 "), "{response}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    proc.line(&format!("pid={worker} timed out method=GET path=/slow"));
}

#[test]
fn a_request_above_the_threshold_is_named_in_the_log() {
    let (proc, address, worker) = pool(&["--slow-request", "0.1"]);
    http(&address, "/hello").unwrap();
    http(&address, "/slow?ms=150&secret=7").unwrap();
    let line = proc.line(" slow ");
    let start = format!("cloakroom: pid={worker} slow method=GET path=/slow age=0.");
    assert!(line.starts_with(&start) && line.ends_with("s status=200"), "{line}");
    assert_eq!(proc.log().matches(" slow method").count(), 1);
}

/// A stopped worker cannot run a handler: neither at the soft deadline nor at the hard one. Its client is answered, its
/// lock is free, and who waited for that goes on.
#[test]
fn a_stopped_worker_costs_its_client_no_answer() {
    let (proc, address, worker) = pool(&["--soft-timeout", "0.3", "--request-timeout", "0.6"]);
    let request = send(&address, &http_request("GET", "/slow?ms=60000")).unwrap();
    wait_until_sleeping(worker);
    support::process::send(worker, Signal::STOP);
    wait_until_stopped(worker);
    // It waits in the queue meanwhile.
    let next = send(&address, &http_request("GET", "/hello")).unwrap();
    let line = proc.line(" takes long ");
    assert!(line.contains(" state=T "), "{line}");
    let line = proc.line(" timed out ");
    assert!(line.contains(" state=T ") && line.ends_with(", killed"), "{line}");
    assert!(read(request).unwrap().starts_with("HTTP/1.1 504 "));
    assert!(read(next).unwrap().starts_with("HTTP/1.1 200 "));
}

/// One that is stopped without a request at work has nobody's deadline; it does not keep what waits for it for ever.
#[test]
fn a_stopped_worker_without_a_request_is_replaced() {
    let (proc, address, worker) = pool(&["--request-timeout", "0.6"]);
    // One that goes on in time is left alone.
    support::process::send(worker, Signal::STOP);
    proc.line(&format!("cloakroom: worker=0 pid={worker} stopped signal=19"));
    support::process::send(worker, Signal::CONT);
    for _ in 0..3 {
        assert!(http(&address, "/slow?ms=300").unwrap().starts_with("HTTP/1.1 200 "));
    }
    assert!(!proc.log().contains("killed"), "{}", proc.log());
    // It waits for something to do; the client waits in the queue.
    support::process::send(worker, Signal::STOP);
    wait_until_stopped(worker);
    let next = send(&address, &http_request("GET", "/hello")).unwrap();
    let line = proc.line(" stopped for 0.");
    assert!(line.starts_with(&format!("cloakroom: worker=0 pid={worker} ")) && line.ends_with("s, killed"), "{line}");
    assert!(read(next).unwrap().starts_with("HTTP/1.1 200 "));
}

/// A stop and a reload have an end, also for a request that takes longer; its client hears of it.
#[test]
fn who_does_not_leave_in_time_costs_its_client_no_answer() {
    for signal in [Signal::TERM, Signal::HUP] {
        let (mut proc, address, worker) = pool(&["--graceful-timeout", "0.4"]);
        let request = send(&address, &http_request("GET", "/slow?ms=60000&secret=7")).unwrap();
        wait_until_sleeping(worker);
        proc.signal(signal);
        let line = proc.line(" did not leave in time ");
        let start = format!("cloakroom: worker=0 pid={worker} did not leave in time method=GET path=/slow age=");
        assert!(line.starts_with(&start) && line.ends_with(", killed"), "{line}");
        assert!(read(request).unwrap().starts_with("HTTP/1.1 504 "));
        if signal == Signal::TERM {
            assert_eq!(proc.end(), 0);
        }
    }
}

/// Where a request hangs on its session, the log says so.
#[test]
fn the_log_says_who_holds_a_lock_and_who_waits() {
    let all = ["--http", "127.0.0.1:0", "--workers", "2", "--max-per-session", "2", "--request-timeout", "1"];
    let proc = Proc::demo(all);
    let address = proc.address("http");
    proc.line(" ready workers=2");
    let mut visitor = Visitor::new(&Door::Http(address.clone()));
    visitor.get("/keep");
    let cookie = visitor.cookie.clone().expect("a session");
    let post = |target: &str| {
        let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n");
        send(&address, format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes()).unwrap()
    };
    // The holder has more time than who waits, or the lock might change hands before anybody looks.
    let holder = post("/slow?ms=60000&extend=2000");
    eventually("it holds the lock", || children(proc.pid()).into_iter().any(is_sleeping));
    let requests = [holder, post("/slow?ms=60000")];
    let line = proc.line(" timed out ");
    assert!(line.contains(" lock=waits("), "{line}");
    let line = proc.line(" timed out ");
    assert!(line.contains(" lock=holds("), "{line}");
    for request in requests {
        assert!(read(request).unwrap().starts_with("HTTP/1.1 504 "));
    }
    // The lock went with its holder.
    assert_eq!(Visitor::with(&Door::Http(address), &cookie).post("/increment", "").status, 303);
}
