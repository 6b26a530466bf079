//! Requests with unknown IDs, with none and with no session in mind: they leave nothing, on the disk or in memory.
//!
//! `CLOAKROOM_FLOOD=1000000` makes it as many as that; 20,000 otherwise.

use std::fs;
use std::thread;

use cloakroom::session::Id;

use super::demo::Pool;
use super::full::names;
use super::support::TestDir;
use super::support::process::children;
use super::support::visit::{Door, Visitor};

const WORKERS: usize = 2;
const CLIENTS: u64 = 4;

fn requests() -> u64 {
    std::env::var("CLOAKROOM_FLOOD").ok().map_or(20_000, |requests| requests.parse().expect("a number of requests"))
}

/// KiB of memory that the processes have to themselves.
fn memory(pids: &[u32]) -> u64 {
    let private = |pid: &u32| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("look at memory");
        let lines = text.lines().filter(|line| line.starts_with("Private_"));
        lines.map(|line| line.split_whitespace().nth(1).expect("KiB").parse::<u64>().expect("a number")).sum()
    };
    pids.iter().map(private).sum()
}

fn flood(door: &Door, count: u64) {
    let client = &|number: u64| {
        let mut visitor = Visitor::new(door);
        for i in (number..count).step_by(CLIENTS as usize) {
            // None, one of no session, one that is none, and many.
            let unknown = || format!("session={}", &*Id::generate().expect("an ID").to_text());
            visitor.cookie = match i % 8 {
                0..2 => None,
                2..6 => Some(unknown()),
                6 => Some(format!("session=../../{i}")),
                _ => Some([unknown(), unknown(), unknown(), unknown(), unknown()].join("; ")),
            };
            let (method, target) = match i / 8 % 8 {
                0 => ("POST", "/counter"),
                1 => ("POST", "/increment"),
                2 => ("POST", "/logout"),
                3 => ("GET", "/counter"),
                4 => ("GET", "/login"),
                5 => ("GET", "/hello"),
                _ => ("GET", "/check"),
            };
            let answer = visitor.ask(method, target, "").expect("an answer");
            assert!(answer.status < 400, "{method} {target}: {answer:?}");
            let handed_out = answer.set_cookie.is_some_and(|cookie| !cookie.ends_with('='));
            assert!(!handed_out, "{method} {target} handed out a session");
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        for client in clients {
            client.join().expect("a client");
        }
    });
}

#[test]
fn a_flood_of_unknown_ids_leaves_nothing() {
    let directory = TestDir::new();
    let sessions = directory.join("sessions");
    let pool = Pool::with(&sessions, WORKERS);
    let workers = children(pool.proc.pid());
    let count = requests();
    flood(&pool.door, count / 4);
    let before = memory(&workers);
    flood(&pool.door, count);
    let after = memory(&workers);
    assert_eq!(children(pool.proc.pid()), workers, "a worker was replaced");
    assert_eq!(names(&sessions), 0, "files were made");
    eprintln!(
        "{count} requests with unknown IDs or none: 0 files, {before} KiB of memory before and {after} KiB after"
    );
    // Pages that one worker touches sooner than another, no more.
    assert!(after <= before + before / 20 + 64, "{before} KiB before and {after} KiB after");
}
