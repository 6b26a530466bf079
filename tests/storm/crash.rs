//! A worker that crashes in the middle of a request: only its client sees it, its place is taken at once, and the lock that
//! it held is free.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Record, Store as _};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::book::say;
use crate::support::process::{Proc, Signal, children, is_sleeping, send, state, wait_until_sleeping};
use crate::support::visit::{Door, Visitor};
use crate::support::{StopOnDrop, TestDir, eventually, turn};

/// A worker is back after this time. A machine that is busy with other things may need another try.
const BACK: Duration = Duration::from_millis(100);
const TRIES: usize = 10;

struct Site {
    pool: Proc,
    door: Door,
    _directory: TestDir,
    store: DirectoryStore,
}

impl Site {
    fn new(protocol: &str, workers: usize) -> Self {
        let directory = TestDir::new();
        let sessions = directory.join("sessions");
        let socket = format!("unix:{}", directory.join("socket").display());
        let address = if protocol == "http" { "127.0.0.1:0" } else { &socket };
        let flag = format!("--{protocol}");
        let workers = workers.to_string();
        let arguments = [&*flag, address, "--workers", &workers, "--sweep-every", "0", "--sessions"];
        let pool = Proc::demo(arguments.into_iter().chain([sessions.to_str().unwrap()]));
        let address = pool.address(protocol);
        pool.line(&format!(" ready workers={workers}"));
        let door = if protocol == "http" { Door::Http(address) } else { Door::Scgi(address) };
        Self { pool, door, _directory: directory, store: DirectoryStore::at(sessions) }
    }

    /// A session with this much in it.
    fn session(&self, bytes: usize) -> String {
        let mut visitor = Visitor::new(&self.door);
        assert_eq!(visitor.get("/keep").status, 303);
        assert_eq!(visitor.post(&format!("/fill?bytes={bytes}"), "").status, 200);
        visitor.cookie.unwrap()
    }

    fn record(&self, cookie: &str) -> Record {
        let id = Id::parse(cookie.split_once('=').unwrap().1).unwrap();
        self.store.load(&id).unwrap().expect("the session is there").record
    }
}

/// How a worker is made to crash that holds the session's lock.
#[derive(Clone, Copy, Debug)]
enum Crash {
    /// By this signal, in the middle of a request.
    By(Signal),
    /// The application calls `abort`, as a panic does in a program that is built not to unwind.
    Abort,
    /// It gets no memory any more.
    NoMemory,
}

fn crash(protocol: &str, how: Crash) {
    let _turn = turn();
    let mut backs = Vec::new();
    for _ in 0..TRIES {
        backs.push(crash_once(protocol, how));
        if *backs.last().unwrap() < BACK {
            break;
        }
    }
    say(&format!("crash: {how:?} by {protocol}: a worker was back after {backs:?}"));
    assert!(backs.last().is_some_and(|back| *back < BACK), "a worker was back only after {backs:?}");
}

/// Ends a process by a signal. A fault that was none lets it go on the first time: Rust looks whether the stack was at its
/// end, and if not has the instruction done again, now without a handler.
fn crash_by(pid: u32, signal: Signal) {
    let is_alive = || state(pid).is_some_and(|state| state != 'Z');
    eventually("the worker dies of the signal", || {
        send(pid, signal);
        !is_alive()
    });
}

/// From here on the process cannot have half a megabyte more.
fn allow_no_more_memory(pid: u32) {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let most = Some(pages * rustix::param::page_size() as u64 + (512 << 10));
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    prlimit(pid, Resource::As, Rlimit { current: most, maximum: most }).unwrap();
}

/// Returns how long it took until the lock was somebody else's and the only other worker had served its request.
fn crash_once(protocol: &str, how: Crash) -> Duration {
    let mut site = Site::new(protocol, 1);
    let cookie = site.session(if matches!(how, Crash::NoMemory) { 1 << 20 } else { 10 });
    let mut other = Visitor::with(&site.door, &site.session(10));
    let worker = children(site.pool.pid())[0];
    if matches!(how, Crash::NoMemory) {
        allow_no_more_memory(worker);
    }
    let asked = thread::scope(|scope| {
        let (door, cookie) = (&site.door, &cookie);
        let client = scope.spawn(move || {
            let mut visitor = Visitor::with(door, cookie);
            let (method, target) = match how {
                Crash::By(_) => ("POST", "/slow?ms=50000&write=lost"),
                Crash::Abort => ("POST", "/exit"),
                Crash::NoMemory => ("POST", "/counter"),
            };
            visitor.ask(method, target, "").map(|answer| (answer, Instant::now())).map_err(|_| Instant::now())
        });
        if let Crash::By(signal) = how {
            wait_until_sleeping(worker);
            crash_by(worker, signal);
        }
        client.join().unwrap()
    });
    let died = match asked {
        Err(died) => died,
        Ok((answer, _)) => panic!("a worker that crashed has answered: {answer:?}"),
    };
    // One who comes just then is served by the next worker, by way of the lock that was held.
    other.cookie = Some(cookie.clone());
    let answer = other.post("/counter", "").ok();
    let back = died.elapsed();
    assert_eq!(answer.number("Counter"), 1, "something of the failed request was saved");
    assert_eq!(site.record(&cookie).get::<u64>("lost").unwrap(), None);
    assert_eq!(children(site.pool.pid()).len(), 1);
    site.pool.signal(Signal::TERM);
    assert_eq!(site.pool.end(), 0);
    back
}

/// All of them, by both ways in.
macro_rules! crashes {
    ($($name:ident $how:expr;)*) => {
        mod http {
            use super::*;
            $(#[test] fn $name() { crash("http", $how); })*
        }
        mod scgi {
            use super::*;
            $(#[test] fn $name() { crash("scgi", $how); })*
        }
    };
}

crashes! {
    a_worker_that_aborts_is_back_at_once_and_holds_no_lock Crash::Abort;
    a_worker_without_memory_is_back_at_once_and_holds_no_lock Crash::NoMemory;
    a_worker_that_is_killed_is_back_at_once_and_holds_no_lock Crash::By(Signal::KILL);
    a_worker_with_a_segmentation_fault_is_back_at_once_and_holds_no_lock Crash::By(Signal::SEGV);
    a_worker_with_a_bus_error_is_back_at_once_and_holds_no_lock Crash::By(Signal::BUS);
}

/// Clients whose requests other workers have do not notice, and whoever waits for the lock gets it.
#[test]
fn a_crash_is_seen_by_its_own_client_only() {
    let _turn = turn();
    let mut site = Site::new("scgi", 6);
    let cookie = site.session(10);
    let others: Vec<String> = (0..3).map(|_| site.session(10)).collect();
    let done = AtomicBool::new(false);
    let mut waits = Vec::new();
    let served: u64 = thread::scope(|scope| {
        let (door, done) = (&site.door, &done);
        let stop = StopOnDrop(done);
        let clients: Vec<_> =
            others.iter().map(|cookie| scope.spawn(move || count_until(done, door, cookie))).collect();
        for (round, signal) in
            [Signal::SEGV, Signal::ABORT, Signal::BUS, Signal::KILL].into_iter().cycle().take(12).enumerate()
        {
            let slow = scope.spawn(|| Visitor::with(door, &cookie).ask("POST", "/slow?ms=50000&write=lost", ""));
            let mut holder = None;
            eventually("a worker holds the lock", || {
                holder = children(site.pool.pid()).into_iter().find(|&pid| is_sleeping(pid));
                holder.is_some()
            });
            let waiter = scope.spawn(|| {
                let answer = Visitor::with(door, &cookie).post("/counter", "").ok();
                (answer.number("Counter"), Instant::now())
            });
            let start = Instant::now();
            crash_by(holder.unwrap(), signal);
            assert!(slow.join().unwrap().is_err(), "a worker that crashed has answered");
            let (number, end) = waiter.join().unwrap();
            assert_eq!(number, round as u64 + 1);
            waits.push(end.saturating_duration_since(start));
        }
        drop(stop);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    waits.sort_unstable();
    say(&format!(
        "crash: 12 crashes, {served} requests of others, all answered; who waited for the lock waited for {:?} at most, \
         {:?} in the middle",
        waits[11], waits[6]
    ));
    assert!(waits[6] < BACK, "the lock was free only after {waits:?}");
    assert_eq!(site.record(&cookie).get::<u64>("lost").unwrap(), None);
    assert!(served > 12);
    site.pool.signal(Signal::TERM);
    assert_eq!(site.pool.end(), 0);
}

/// Counts, and expects each number in its turn; how many they were.
fn count_until(done: &AtomicBool, door: &Door, cookie: &str) -> u64 {
    let mut visitor = Visitor::with(door, cookie);
    let mut count = 0;
    while !done.load(Relaxed) {
        count += 1;
        let method = if count % 2 == 0 { "GET" } else { "POST" };
        let answer = visitor.ask(method, "/counter", "").expect("a request that had nothing to do with the crash");
        assert_eq!(answer.ok().number("Counter"), count);
    }
    count
}
