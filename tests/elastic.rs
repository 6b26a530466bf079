//! As many workers as are needed: growth, shrinking, crash loops, and a pool that is process 1.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use support::client::{http, http_request, read, send};
use support::process::{Proc, Signal, children, demo, wait_until_sleeping};
use support::{TestDir, eventually};

fn pool(workers: &str, arguments: &[&str]) -> (Proc, String) {
    let all = ["--http", "127.0.0.1:0", "--workers", workers].into_iter().chain(arguments.iter().copied());
    let proc = Proc::demo(all);
    let address = proc.address("http");
    proc.line("ready workers=");
    (proc, address)
}

fn slow(address: &str) -> Box<dyn support::client::Connection> {
    send(address, &http_request("GET", "/slow?ms=60000")).unwrap()
}

#[test]
fn grows_at_once_when_all_are_busy_and_never_beyond_its_limit() {
    let (mut proc, address) = pool("1..3", &[]);
    assert_eq!(children(proc.pid()).len(), 1);
    let mut requests = vec![slow(&address)];
    wait_until_sleeping(children(proc.pid())[0]);
    // One is busy, which is no reason to grow as long as nobody waits.
    assert_eq!(children(proc.pid()).len(), 1);
    // Whoever comes now finds somebody.
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(children(proc.pid()).len(), 2);
    requests.extend((0..3).map(|_| slow(&address)));
    eventually("three workers are busy", || children(proc.pid()).len() == 3);
    children(proc.pid()).into_iter().for_each(wait_until_sleeping);
    // The fourth waits, and is answered when one of the others is gone.
    let waiting = send(&address, &http_request("GET", "/hello")).unwrap();
    assert_eq!(children(proc.pid()).len(), 3);
    support::process::send(children(proc.pid())[0], Signal::KILL);
    // Its place is taken at once, though the queue has the fourth slow one first.
    eventually("three workers again", || children(proc.pid()).len() == 3);
    proc.signal(Signal::INT);
    assert_eq!(proc.end(), 0);
    drop((requests, waiting));
}

#[test]
fn shrinks_when_idle_but_not_below_its_limit() {
    let (mut proc, address) = pool("1..4", &["--idle-timeout", "0.3"]);
    let requests: Vec<_> = (0..4).map(|_| send(&address, &http_request("GET", "/slow?ms=300")).unwrap()).collect();
    eventually("four workers", || children(proc.pid()).len() == 4);
    for request in requests {
        assert!(read(request).unwrap().starts_with("HTTP/1.1 200 "));
    }
    eventually("one worker", || children(proc.pid()).len() == 1);
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    // It stays, idle for longer than the time.
    let only = children(proc.pid());
    std::thread::sleep(std::time::Duration::from_millis(900));
    assert_eq!(children(proc.pid()), only);
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
    assert!(!proc.log().contains("respawning"), "{}", proc.log());
}

/// php-fpm's `ondemand`.
#[test]
fn there_may_be_none_until_somebody_comes() {
    let (mut proc, address) = pool("0..2", &["--idle-timeout", "0.2"]);
    for _ in 0..3 {
        eventually("nobody is there", || children(proc.pid()).is_empty());
        assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    }
    // A reload finds nobody to replace, and goes on.
    eventually("nobody is there", || children(proc.pid()).is_empty());
    proc.signal(Signal::HUP);
    proc.line("reloaded");
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn ttin_and_ttou_move_the_limits() {
    let (mut proc, _) = pool("1..2", &[]);
    proc.signal(Signal::TTIN);
    proc.line("TTIN: workers=1..3");
    for expected in ["1..2", "1", "1"] {
        proc.signal(Signal::TTOU);
        proc.line(&format!("TTOU: workers={expected}"));
    }
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

/// A pool that has served, and whose workers cannot start any more: it waits longer and longer, then ends with the reason.
#[test]
fn a_crash_loop_ends_with_its_reason() {
    let dir = TestDir::new();
    let sessions = dir.join("sessions");
    let (mut proc, address) = pool("2", &["--sessions", sessions.to_str().unwrap()]);
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    std::fs::set_permissions(&sessions, std::fs::Permissions::from_mode(0o777)).unwrap();
    let workers = children(proc.pid());
    // As long as one serves, the pool stays.
    support::process::send(workers[0], Signal::KILL);
    for _ in 0..6 {
        proc.line("cannot start: ");
    }
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    support::process::send(workers[1], Signal::KILL);
    let line = proc.line("gives up");
    assert!(line.contains("others may write to it"), "{line}");
    assert_eq!(proc.end(), 2);
}

/// The same where workers can start and die at once.
#[test]
fn workers_that_die_at_once_are_not_respawned_for_ever() {
    let (mut proc, address) = pool("1", &[]);
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    let log = |proc: &Proc| proc.log();
    loop {
        let worker = children(proc.pid());
        if log(&proc).contains("gives up") {
            break;
        }
        for pid in worker {
            support::process::send(pid, Signal::ABORT);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(proc.end(), 111);
    assert!(proc.log().contains("killed by signal 6"), "{}", proc.log());
}

/// Somebody who kills workers, or a kernel without memory, does not make the program a bad one.
#[test]
fn workers_that_somebody_kills_are_no_crash_loop() {
    let (mut proc, address) = pool("2", &[]);
    // Again and again all there are, so that none lives for long.
    let kill = |count: usize| {
        eventually("they are killed", || {
            for pid in children(proc.pid()) {
                support::process::send(pid, Signal::KILL);
            }
            proc.log().matches(" killed signal=9").count() >= count
        });
    };
    // Far more than would end a pool whose workers die of themselves.
    kill(60);
    let start = std::time::Instant::now();
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(start.elapsed() < std::time::Duration::from_secs(1), "{:?}", start.elapsed());
    // Nor does it make a reload a failure.
    proc.signal(Signal::HUP);
    proc.line(" replacing ");
    kill(80);
    eventually("the reload is done", || proc.log().contains(" reloaded"));
    eventually("the crew is complete", || children(proc.pid()).len() == 2);
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
    assert!(!proc.log().contains("failed"), "{}", proc.log());
}

/// In a container the master may be process 1: signals have no default action then, and every orphan is its child.
#[test]
fn works_as_process_1() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a process namespace needs root");
        return;
    }
    let dir = TestDir::new();
    let inner = demo();
    let mut command = Command::new("unshare");
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // The shell leaves an orphan behind and becomes the master: it ends after that, as a child that is no worker.
    let script = "(sleep 0.2 &) ; exec \"$0\" \"$@\"";
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script]).arg(inner.get_program());
    command.args(["--http", "127.0.0.1:0", "--workers", "2", "--sessions"]).arg(dir.join("sessions"));
    command.stdin(std::process::Stdio::null());
    let mut proc = Proc::start(command);
    let address = proc.address("http");
    proc.line("master pid=1 ready workers=2");
    let master = children(proc.pid())[0];
    let workers = || children(master).into_iter().filter(|pid| exe(*pid).ends_with("demo")).collect::<Vec<_>>();
    eventually("the orphan is gone", || children(master).len() == 2);
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    support::process::send(workers()[0], Signal::KILL);
    proc.line(", respawning");
    proc.ready(1);
    support::process::send(master, Signal::HUP);
    proc.line("master pid=1 reloaded");
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    support::process::send(master, Signal::TERM);
    assert_eq!(proc.end(), 0);
    proc.log().lines().for_each(|line| assert!(!line.contains("timed out"), "{line}"));
}

fn exe(pid: u32) -> String {
    std::fs::read_link(format!("/proc/{pid}/exe")).map(|path| path.display().to_string()).unwrap_or_default()
}
