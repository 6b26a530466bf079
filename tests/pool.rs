//! The pool with real processes: one test per row of the signal table, and the accidents that a pool must survive.

mod support;

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::client::{connect, http, http_request, read, scgi, send};
use support::process::{
    Proc, Signal, demo_by_shell, is_sleeping, pid_in, sockets, wait_until_sleeping, wait_until_stopped,
};
use support::{PATIENCE, TestDir, eventually};

/// A pool with an HTTP listener, ready to serve: itself, its address, its workers.
fn pool(workers: usize, arguments: &[&str]) -> (Proc, String, Vec<u32>) {
    let count = workers.to_string();
    let all = ["--http", "127.0.0.1:0", "--workers", &count].into_iter().chain(arguments.iter().copied());
    let proc = Proc::demo(all);
    let address = proc.address("http");
    let pids = proc.ready(workers);
    proc.line(&format!("ready workers={workers}"));
    (proc, address, pids)
}

/// One response on a connection that stays open.
fn read_one(connection: &mut impl std::io::Read) -> String {
    let mut response = Vec::new();
    let mut byte = [0];
    while !response.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte).unwrap();
        response.push(byte[0]);
    }
    let head = String::from_utf8(response).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    connection.read_exact(&mut body).unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

fn assert_ok(response: &str) {
    assert!(response.starts_with("HTTP/1.1 200 ") || response.starts_with("Status: 200 "), "{response}");
}

#[test]
fn term_and_quit_answer_what_was_sent_and_stop() {
    for signal in [Signal::TERM, Signal::QUIT] {
        let (mut proc, address, _) = pool(1, &[]);
        // One is at work, the others wait in the queue; all of them were sent before the signal.
        let requests: Vec<_> = (0..5).map(|_| send(&address, &http_request("GET", "/slow?ms=50")).unwrap()).collect();
        proc.signal(signal);
        for request in requests {
            assert_ok(&read(request).unwrap());
        }
        assert_eq!(proc.end(), 0);
        assert!(proc.log().ends_with(&format!("master pid={} stopped", proc.pid())), "{}", proc.log());
        assert!(connect(&address).is_err());
    }
}

#[test]
fn a_graceful_stop_does_not_wait_for_ever() {
    let (mut proc, address, pids) = pool(1, &["--graceful-timeout", "0.2", "--request-timeout", "0"]);
    let request = send(&address, &http_request("GET", "/slow?ms=60000")).unwrap();
    wait_until_sleeping(pids[0]);
    proc.signal(Signal::TERM);
    proc.line(&format!("worker=0 pid={} did not leave in time method=GET path=/slow", pids[0]));
    assert_eq!(proc.end(), 0);
    // Not in time, but not without a word either.
    assert!(read(request).unwrap().starts_with("HTTP/1.1 504 "));
}

#[test]
fn int_stops_at_once() {
    let (mut proc, address, pids) = pool(1, &[]);
    let request = send(&address, &http_request("GET", "/slow?ms=60000")).unwrap();
    wait_until_sleeping(pids[0]);
    proc.signal(Signal::INT);
    assert_eq!(proc.end(), 0);
    assert!(read(request).unwrap_or_default().is_empty());
}

#[test]
fn int_cuts_a_graceful_stop_short() {
    let (mut proc, address, pids) = pool(1, &[]);
    let _request = send(&address, &http_request("GET", "/slow?ms=60000")).unwrap();
    wait_until_sleeping(pids[0]);
    proc.signal(Signal::TERM);
    proc.line("TERM: stopping");
    proc.signal(Signal::INT);
    assert_eq!(proc.end(), 0);
}

#[test]
fn hup_replaces_every_worker_and_drops_nothing() {
    let (mut proc, address, old) = pool(2, &[]);
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let new = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_ok(&http(&address, "/hello").unwrap());
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("requests are served", || served.load(Ordering::Relaxed) > 20);
        proc.signal(Signal::HUP);
        let new = proc.ready(2);
        proc.line(&format!("master pid={} reloaded", proc.pid()));
        let before = served.load(Ordering::Relaxed);
        eventually("requests are served by the new ones", || served.load(Ordering::Relaxed) > before + 20);
        stop.store(true, Ordering::Relaxed);
        new
    });
    assert!(new.iter().all(|pid| !old.contains(pid)));
    for pid in old {
        assert!(proc.log().contains(&format!("pid={pid} exited status=0")), "{}", proc.log());
    }
    // A new one was ready before an old one left.
    let log = proc.log();
    assert!(log.find(&format!("pid={} ready", new[0])) < log.find("exited status=0"), "{log}");
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn ttin_and_ttou_change_the_number_of_workers() {
    let (mut proc, address, _) = pool(1, &[]);
    proc.signal(Signal::TTIN);
    proc.line("TTIN: workers=2");
    let new = proc.ready(1)[0];
    proc.signal(Signal::TTOU);
    proc.line("TTOU: workers=1");
    proc.line(&format!("pid={new} exited status=0"));
    // Never less than one.
    proc.signal(Signal::TTOU);
    proc.line("TTOU: workers=1");
    assert_ok(&http(&address, "/hello").unwrap());
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn usr1_and_usr2_do_nothing() {
    let (mut proc, address, pids) = pool(1, &[]);
    for signal in [Signal::USR1, Signal::USR2] {
        proc.signal(signal);
        support::process::send(pids[0], signal);
    }
    assert_ok(&http(&address, "/hello").unwrap());
    proc.signal(Signal::TERM);
    proc.line(&format!("worker=0 pid={} exited status=0", pids[0]));
    assert_eq!(proc.end(), 0);
}

#[test]
fn a_worker_that_dies_is_replaced() {
    let (proc, address, pids) = pool(1, &[]);
    support::process::send(pids[0], Signal::KILL);
    proc.line(&format!("worker=0 pid={} killed signal=9, respawning", pids[0]));
    proc.ready(1);
    // A request that takes its worker with it costs itself only.
    assert!(http(&address, "/exit").unwrap_or_default().is_empty());
    let line = proc.line_of_worker(", respawning");
    assert!(line.contains(" killed signal=6, ") || line.contains(" exited status="), "{line}");
    proc.ready(1);
    assert!(http(&address, "/boom").unwrap().starts_with("HTTP/1.1 500 "));
    assert_ok(&http(&address, "/hello").unwrap());
}

#[test]
fn workers_leave_when_the_master_is_killed() {
    let (mut proc, address, pids) = pool(2, &["--graceful-timeout", "0.2", "--request-timeout", "0"]);
    // One is idle and leaves by itself; the other hangs in a request, and nobody is left to kill it but the kernel.
    let request = send(&address, &http_request("GET", "/slow?ms=60000")).unwrap();
    eventually("a worker sleeps", || pids.iter().any(|&pid| is_sleeping(pid)));
    proc.signal(Signal::KILL);
    assert_eq!(proc.end(), -9);
    assert!(read(request).unwrap_or_default().is_empty());
}

#[test]
fn workers_answer_what_they_have_and_leave_when_the_master_is_killed() {
    let (mut proc, address, pids) = pool(2, &[]);
    let request = send(&address, &http_request("GET", "/slow?ms=500")).unwrap();
    eventually("a worker sleeps", || pids.iter().any(|&pid| is_sleeping(pid)));
    proc.signal(Signal::KILL);
    assert_ok(&read(request).unwrap());
    let answered = Instant::now();
    assert_eq!(proc.end(), -9);
    assert!(answered.elapsed() < Duration::from_secs(1), "{:?}", answered.elapsed());
    assert!(connect(&address).is_err());
}

#[test]
fn a_request_that_takes_too_long_is_answered_with_504() {
    let dir = TestDir::new();
    let socket = format!("unix:{}", dir.join("s").display());
    let (mut proc, address, pids) = pool(1, &["--scgi", &socket, "--request-timeout", "0.3"]);
    let response = http(&address, "/slow?ms=60000").unwrap();
    assert!(response.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nGateway Timeout\n"), "{response}");
    let line = proc.line_of_worker(" timed out ");
    assert!(line.starts_with(&format!("cloakroom: worker=0 pid={} timed out method=GET path=/slow age=0.", pids[0])));
    assert!(line.contains("s lock=none state=S in=") && line.ends_with(", killed"), "{line}");
    proc.ready(1);
    let response = scgi(&socket, "/slow?ms=60000").unwrap();
    assert!(response.starts_with("Status: 504 Gateway Timeout\r\n"), "{response}");
    proc.ready(1);
    let response = read(send(&address, &http_request("HEAD", "/slow?ms=60000")).unwrap()).unwrap();
    assert!(response.starts_with("HTTP/1.1 504 ") && response.ends_with("\r\n\r\n"), "{response}");
    proc.ready(1);
    assert_ok(&http(&address, "/slow?ms=1").unwrap());
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn a_stopped_worker_is_killed_at_its_deadline() {
    let (proc, address, pids) = pool(1, &["--request-timeout", "0.5"]);
    let request = send(&address, &http_request("GET", "/slow?ms=60000")).unwrap();
    wait_until_sleeping(pids[0]);
    support::process::send(pids[0], Signal::STOP);
    let line = proc.line(&format!("worker=0 pid={} timed out method=GET path=/slow", pids[0]));
    assert!(line.contains(" state=T "), "{line}");
    // It could not answer; somebody else did.
    assert!(read(request).unwrap().starts_with("HTTP/1.1 504 "));
    proc.ready(1);
    assert_ok(&http(&address, "/hello").unwrap());
}

#[test]
fn nobody_is_killed_for_the_time_in_which_all_were_frozen() {
    let (proc, address, pids) = pool(1, &["--request-timeout", "2"]);
    let request = send(&address, &http_request("GET", "/slow?ms=1500")).unwrap();
    wait_until_sleeping(pids[0]);
    for pid in [pids[0], proc.pid()] {
        support::process::send(pid, Signal::STOP);
        wait_until_stopped(pid);
    }
    // The freeze itself: longer than the deadline by more than the master's tolerance.
    thread::sleep(Duration::from_millis(3500));
    // The master sees an overdue request before its worker can move.
    proc.signal(Signal::CONT);
    proc.line("was not running for");
    support::process::send(pids[0], Signal::CONT);
    assert_ok(&read(request).unwrap());
    assert!(!proc.log().contains("timed out"), "{}", proc.log());
}

#[test]
fn respawning_backs_off_when_workers_die_at_once() {
    let (proc, address, mut pids) = pool(1, &[]);
    let start = Instant::now();
    for _ in 0..5 {
        support::process::send(pids[0], Signal::ABORT);
        proc.line("killed signal=6, respawning");
        pids = proc.ready(1);
    }
    // 50 + 100 + 200 + 400 + 800 ms, if each died within its first second.
    assert!(start.elapsed() >= Duration::from_millis(1550), "{:?}", start.elapsed());
    assert_ok(&http(&address, "/hello").unwrap());
}

/// Who knows a request that kills its worker must not be able to keep the pool empty.
#[test]
fn workers_that_die_of_requests_are_replaced_at_once() {
    let (proc, address, _) = pool(1, &[]);
    let start = Instant::now();
    for _ in 0..12 {
        let _ = http(&address, "/exit");
        proc.line(", respawning");
        proc.ready(1);
    }
    // With delays it would take 50 ms, 100 ms and so on up to 5 s: more than 20 s.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_ok(&http(&address, "/hello").unwrap());
}

#[test]
fn a_pool_whose_workers_cannot_start_says_why_and_ends() {
    let dir = TestDir::new();
    std::fs::write(dir.join("file"), "").unwrap();
    let mut proc =
        Proc::demo(["--http", "127.0.0.1:0", "--workers", "2", "--sessions", dir.join("file").to_str().unwrap()]);
    let status = proc.end();
    assert!(status == 111 || status == 2, "{status}\n{}", proc.log());
    let log = proc.log();
    assert!(log.contains("gives up: 5 workers in a row could not start: "), "{log}");
    assert!(log.contains("cannot start: "), "{log}");
    // Somebody has to change something: that is another status.
    let open = dir.join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut proc = Proc::demo(["--http", "127.0.0.1:0", "--workers", "1", "--sessions", open.to_str().unwrap()]);
    assert_eq!(proc.end(), 2, "{}", proc.log());
}

#[test]
fn recycling_drops_nothing() {
    let dir = TestDir::new();
    let socket = format!("unix:{}", dir.join("s").display());
    let mut proc = Proc::demo(["--scgi", &socket, "--workers", "2", "--max-requests", "7"]);
    proc.line("ready workers=2");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_ok(&scgi(&socket, "/hello").unwrap());
                }
            });
        }
        // Each of them goes when its successor is ready.
        (0..20).for_each(|_| drop(proc.line("exited status=0")));
        stop.store(true, Ordering::Relaxed);
    });
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
    assert!(!proc.log().contains("respawning"), "{}", proc.log());
}

#[test]
fn a_quiet_connection_is_kept_and_does_not_keep_its_worker() {
    let (mut proc, address, _) = pool(1, &[]);
    let mut kept = connect(&address).unwrap();
    let request = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut one = |request: &[u8]| {
        kept.write_all(request).unwrap();
        read_one(&mut kept)
    };
    assert_ok(&one(request));
    // The only worker serves others while the first connection is open.
    assert_ok(&http(&address, "/hello").unwrap());
    assert_ok(&one(request));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn a_worker_that_is_told_to_leave_is_replaced() {
    let (proc, address, pids) = pool(1, &[]);
    support::process::send(pids[0], Signal::TERM);
    assert_eq!(pid_in(&proc.line("exited status=0")), pids[0]);
    proc.ready(1);
    assert_ok(&http(&address, "/hello").unwrap());
}

#[test]
fn a_reload_that_fails_leaves_the_old_workers() {
    let dir = TestDir::new();
    let sessions = dir.join("sessions");
    std::fs::create_dir(&sessions).unwrap();
    std::fs::set_permissions(&sessions, std::fs::Permissions::from_mode(0o700)).unwrap();
    let (mut proc, address, pids) = pool(2, &["--sessions", sessions.to_str().unwrap()]);
    std::fs::set_permissions(&sessions, std::fs::Permissions::from_mode(0o777)).unwrap();
    proc.signal(Signal::HUP);
    proc.line("reload failed, the old workers stay: ");
    assert_ok(&http(&address, "/hello").unwrap());
    std::fs::set_permissions(&sessions, std::fs::Permissions::from_mode(0o700)).unwrap();
    proc.signal(Signal::HUP);
    proc.line("reloaded");
    for pid in pids {
        assert_eq!(proc.log().matches(&format!("pid={pid} exited status=0")).count(), 1, "{}", proc.log());
    }
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn a_worker_without_descriptors_gives_back_quiet_connections() {
    let mut command = demo_by_shell("ulimit -n 32; exec \"$0\" \"$@\"");
    command.args(["--http", "127.0.0.1:0", "--workers", "1"]);
    let mut proc = Proc::start(command);
    let address = proc.address("http");
    let mut kept = Vec::new();
    for _ in 0..40 {
        let mut connection = connect(&address).unwrap();
        connection.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_ok(&read_one(&mut connection));
        kept.push(connection);
    }
    proc.line(&format!("cannot accept on {address}: "));
    assert_ok(&http(&address, "/hello").unwrap());
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

/// `count` connections that have been served once and are quiet now.
fn quiet(address: &str, count: usize) -> Vec<TcpStream> {
    let one = |_| {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        ask(&mut connection, "/hello");
        assert_ok(&read_one(&mut connection));
        connection
    };
    (0..count).map(one).collect()
}

/// Sends a request on a connection that stays open.
fn ask(connection: &mut impl std::io::Write, target: &str) {
    // In one piece: who sends several is slow, and served by way of the porter.
    connection.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
}

/// A pool of two workers of which the first holds `count` quiet connections: it was alone when they came.
fn pool_with_quiet(count: usize) -> (Proc, Vec<u32>, Vec<TcpStream>) {
    let (proc, address, mut pids) = pool(1, &[]);
    let connections = quiet(&address, count);
    proc.signal(Signal::TTIN);
    pids.extend(proc.ready(1));
    (proc, pids, connections)
}

#[test]
fn connections_that_were_opened_early_wait_for_nobody() {
    let dir = TestDir::new();
    let unix = format!("unix:{}", dir.join("s").display());
    let (mut proc, tcp, pids) = pool(8, &["--http", &unix]);
    for (address, is_deferred) in [(&tcp, true), (&unix, false)] {
        let before = sockets(&pids);
        let mut connections: Vec<_> = (0..8).map(|_| connect(address).unwrap()).collect();
        if !is_deferred {
            eventually("all are accepted", || sockets(&pids) == before + 8);
        }
        let start = Instant::now();
        for connection in &mut connections {
            connection.write_all(&http_request("GET", "/slow?ms=300")).unwrap();
        }
        for connection in connections {
            assert_ok(&read(connection).unwrap());
        }
        assert!(start.elapsed() < Duration::from_millis(600), "{address}: {:?}", start.elapsed());
    }
    // One on which nothing is ever sent is accepted, too, and costs nobody anything.
    let mut silent = connect(&tcp).unwrap();
    let before = sockets(&pids);
    eventually("it is accepted", || sockets(&pids) > before);
    assert_ok(&http(&tcp, "/hello").unwrap());
    silent.write_all(&http_request("GET", "/hello")).unwrap();
    assert_ok(&read(silent).unwrap());
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn quiet_connections_do_not_wait_for_the_worker_that_holds_them() {
    let (mut proc, pids, mut connections) = pool_with_quiet(20);
    let (busy, others) = connections.split_first_mut().unwrap();
    let start = Instant::now();
    ask(busy, "/slow?ms=2500");
    wait_until_sleeping(pids[0]);
    for other in others {
        ask(other, "/hello");
        assert_ok(&read_one(other));
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_ok(&read_one(busy));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn a_worker_that_gives_up_its_request_takes_no_quiet_connection_with_it() {
    let (mut proc, address, pids) = pool(2, &["--request-timeout", "0.3"]);
    let mut connections = quiet(&address, 10);
    ask(&mut connections[0], "/slow?ms=60000");
    // The handler runs in the thread of the request, whatever other threads there are.
    assert!(read_one(&mut connections[0]).starts_with("HTTP/1.1 504 "));
    let line = proc.line_of_worker(" timed out ");
    assert!(line.contains(" age=0.") && pids.contains(&pid_in(&line)), "{line}");
    for connection in &mut connections[1..] {
        ask(connection, "/hello");
        assert_ok(&read_one(connection));
    }
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn a_worker_that_leaves_passes_its_quiet_connections_on() {
    let (mut proc, pids, mut connections) = pool_with_quiet(20);
    support::process::send(pids[0], Signal::TERM);
    proc.line(&format!("pid={} exited status=0", pids[0]));
    for connection in &mut connections {
        ask(connection, "/hello");
        assert_ok(&read_one(connection));
    }
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn connections_that_move_keep_their_order_and_none_is_lost() {
    let (mut proc, address, pids) = pool(4, &[]);
    let before = sockets(&pids);
    let mut connections = quiet(&address, 200);
    eventually("all are there", || sockets(&pids) == before + 200);
    thread::scope(|scope| {
        for (part, connections) in connections.chunks_mut(25).enumerate() {
            scope.spawn(move || {
                for round in 0..6 {
                    for (i, connection) in connections.iter_mut().enumerate() {
                        // Every fifth is slow, and each is followed at once by one that says whose it is.
                        let ms = if (i + part + round) % 5 == 0 { 15 } else { 0 };
                        ask(connection, &format!("/slow?ms={ms}"));
                        ask(connection, &format!("/env?{part}.{round}.{i}"));
                    }
                    for (i, connection) in connections.iter_mut().enumerate() {
                        let first = read_one(connection);
                        assert!(first.ends_with("\r\n\r\nCounter: 0\n"), "{first}");
                        let second = read_one(connection);
                        let port = connection.local_addr().unwrap().port();
                        for line in [
                            format!("\nQUERY_STRING={part}.{round}.{i}\n"),
                            format!("\nREMOTE_PORT={port}\n"),
                            "\nSERVER_ADDR=127.0.0.1\n".to_owned(),
                        ] {
                            assert!(second.contains(&line), "no {line:?} in {second}");
                        }
                    }
                }
            });
        }
    });
    eventually("each is in one worker", || sockets(&pids) == before + 200);
    drop(connections);
    eventually("all are closed", || sockets(&pids) == before);
    assert!(!proc.log().contains("respawning"), "{}", proc.log());
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn term_answers_a_first_request_that_is_on_its_way() {
    let (mut proc, address, _) = pool(2, &[]);
    let start = Instant::now();
    // Nothing was sent, so the kernel has not handed it over.
    let mut connection = connect(&address).unwrap();
    proc.signal(Signal::TERM);
    proc.line("TERM: stopping");
    let sent = connection.write_all(&http_request("GET", "/hello"));
    // It has 200 ms for that, which a crowded machine may have let pass.
    if start.elapsed() < Duration::from_millis(150) {
        sent.unwrap();
        assert_ok(&read(connection).unwrap());
    }
    assert_eq!(proc.end(), 0);
}

#[test]
fn term_answers_what_was_sent_on_connections_that_no_worker_holds() {
    let (mut proc, pids, mut connections) = pool_with_quiet(12);
    // The first worker is busy, so the second one gets the others; when it is busy, too, the first one has finished
    // and takes back one by one: the rest is on nobody's table.
    let (before, held) = (sockets(&pids[..1]), sockets(&pids));
    ask(&mut connections[0], "/slow?ms=400");
    wait_until_sleeping(pids[0]);
    eventually("the others are given away", || sockets(&pids[..1]) == before - 11);
    for connection in &mut connections[1..] {
        ask(connection, "/slow?ms=400");
    }
    wait_until_sleeping(pids[1]);
    assert_ok(&read_one(&mut connections[0]));
    eventually("most are on the shelf", || sockets(&pids) < held - 5);
    proc.signal(Signal::TERM);
    for connection in &mut connections[1..] {
        assert_ok(&read_one(connection));
    }
    assert_eq!(proc.end(), 0);
}
