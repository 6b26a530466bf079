//! The same in a worker of a pool, which lives on: whatever fails in one request, the next one has a worker that works, and
//! a lock that is free.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::injection::{Fault, Injection};
use crate::operation::{Ask, CREATE, DELETE_FROM_A, GROW_FROM_B, OWN, Operation, READ_TORN, RENEW, SAVE_TO_B, TOUCH};
use crate::support::process::{Proc, Signal, children, send};
use crate::support::visit::{Door, Visitor};
use crate::verdict::{Run, Scene, judge_error, judge_kill, starting};

/// strace, attached to a worker; it lets go when it is dropped.
struct Attached(Child, BufReader<ChildStderr>);

impl Attached {
    fn to(worker: u32, trace: &std::path::Path, injection: &Injection) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-e", "signal=none", "-o"]).arg(trace);
        command.args(["-e", &format!("trace={}", injection.call), "-e", &injection.expression()]);
        command.args(["-p", &worker.to_string()]);
        let quiet = starting();
        let mut strace = command.stderr(Stdio::piped()).spawn().expect("strace (Debian: strace)");
        drop(quiet);
        let mut stderr = BufReader::new(strace.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("read from strace");
        assert!(line.contains("attached"), "{line}");
        Self(strace, stderr)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Not KILL: it is to let go of the worker.
        send(self.0.id(), Signal::TERM);
        let mut line = String::new();
        while self.1.read_line(&mut line).is_ok_and(|read| read > 0) {}
        let _ = self.0.wait();
    }
}

const CALLS: [&str; 10] =
    ["openat", "flock", "fstat", "pread64", "fallocate", "ftruncate", "pwrite64", "fdatasync", "unlinkat", "utimensat"];

/// One pool for all faults of an operation; what is in the directory is made anew each time.
fn in_a_pool(operation: &Operation, fault: Fault) {
    let Ask::Page(method, target, form) = operation.ask else { panic!("no page") };
    let mut scene = Scene::new(operation);
    let sessions = scene.sessions.to_str().expect("text").to_owned();
    let quiet = starting();
    let pool = Proc::demo(["--http", "127.0.0.1:0", "--workers", "1", "--sweep-every", "0", "--sessions", &sessions]);
    drop(quiet);
    let door = Door::Http(pool.address("http"));
    let mut worker = pool.ready(1)[0];
    let trace = scene.trace();
    let mut faults = 0;
    for call in CALLS {
        for nth in 1.. {
            scene.again();
            let injection = Injection { call: call.to_owned(), nth, times: 1, fault };
            let strace = Attached::to(worker, &trace, &injection);
            let mut visitor = Visitor::new(&door);
            visitor.cookie = scene.sessions.join(OWN).exists().then(|| format!("session={OWN}"));
            let answer = visitor.ask(method, target, form).ok();
            drop(visitor);
            let killed = fault == Fault::Kill && answer.as_ref().is_none_or(|answer| answer.status == 502);
            if killed {
                // The one that takes its place.
                worker = pool.ready(1)[0];
            }
            drop(strace);
            let trace = std::fs::read_to_string(&trace).expect("what strace has written");
            let injected = killed || trace.contains("(INJECTED)");
            if killed {
                judge_kill(&scene, &injection);
            } else {
                // Its log is the pool's, with all that came before.
                let log = pool.log().lines().last().unwrap_or_default().to_owned();
                judge_error(&scene, &Run { answer, log, trace, injected }, &injection);
            }
            assert_eq!(children(pool.pid()).len(), 1, "the worker that there is to be");
            // The same worker serves the next one.
            Visitor::new(&door).get("/read").ok();
            if !injected {
                break;
            }
            faults += 1;
        }
    }
    println!("{}: {faults} faults in a pool", operation.name);
    assert!(faults >= 4, "{}: only {faults} faults in a pool", operation.name);
}

#[test]
#[ignore = "needs strace (Debian: strace): run tests/run"]
fn a_worker_survives_every_error_and_keeps_no_lock() {
    let errors = if crate::is_full() { &crate::ERRORS[..] } else { &["EIO", "ENOSPC"] };
    for operation in [&CREATE, &SAVE_TO_B, &GROW_FROM_B, &DELETE_FROM_A, &RENEW, &TOUCH, &READ_TORN] {
        for error in errors {
            in_a_pool(operation, Fault::Error(error));
        }
    }
}

#[test]
#[ignore = "needs strace (Debian: strace): run tests/run"]
fn a_worker_that_is_killed_is_replaced_and_keeps_no_lock() {
    for operation in [&SAVE_TO_B, &RENEW] {
        in_a_pool(operation, Fault::Kill);
    }
}
