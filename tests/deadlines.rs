//! Deadlines that speak: what the application is told, what the client gets, and what the log says.

mod support;

use support::client::{http, http_request, read, send};
use support::process::{Proc, Signal, wait_until_sleeping, wait_until_stopped};

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
    // Of that request only.
    let response = http(&address, "/slow?ms=60000").unwrap();
    assert!(response.starts_with("HTTP/1.1 504 "), "{response}");
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
