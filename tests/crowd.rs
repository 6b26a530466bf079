//! A crowd of requests for one session: it may keep a part of the pool, and not the pool.

#![allow(missing_docs, unreachable_pub)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::{DirectoryStore, Id, Store as _};
use support::process::{Proc, Signal, send, wait_until_sleeping, wait_until_stopped};
use support::visit::{Answer, Door, Visitor};
use support::{TestDir, eventually};

/// A pool, ready to serve, and one session in it.
struct Crowded {
    proc: Proc,
    http: Door,
    scgi: Door,
    workers: Vec<u32>,
    cookie: String,
    store: DirectoryStore,
    _directory: TestDir,
}

impl Crowded {
    fn new(workers: usize, more: &[&str]) -> Self {
        let directory = TestDir::new();
        let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
        let (socket, sessions, count) = (format!("unix:{}", path("socket")), path("sessions"), workers.to_string());
        let all = ["--http", "127.0.0.1:0", "--scgi", &socket, "--sessions", &sessions, "--workers", &count];
        let proc = Proc::demo(all.into_iter().chain(more.iter().copied()));
        let (http, scgi) = (Door::Http(proc.address("http")), Door::Scgi(proc.address("scgi")));
        let workers = proc.ready(workers);
        let mut visitor = Visitor::new(&scgi);
        visitor.get("/keep");
        let cookie = visitor.cookie.expect("a cookie");
        Self { proc, http, scgi, workers, cookie, store: DirectoryStore::at(sessions), _directory: directory }
    }

    fn id(&self) -> Id {
        Id::parse(self.cookie.split_once('=').expect("a cookie").1).expect("an ID")
    }

    /// Sends a request of the session and does not wait for the answer: it arrives with the time that it took.
    fn ask(&self, method: &'static str, target: &'static str) -> Receiver<(Answer, Duration)> {
        let (sender, receiver) = channel();
        let mut visitor = Visitor::with(&self.scgi, &self.cookie);
        thread::spawn(move || {
            let began = Instant::now();
            // Where the worker is killed there is no answer.
            if let Ok(answer) = visitor.ask(method, target, "") {
                let _ = sender.send((answer, began.elapsed()));
            }
        });
        receiver
    }

    /// The worker that sleeps in `/slow`.
    fn sleeper(&self) -> u32 {
        let mut found = None;
        eventually("a worker sleeps in its handler", || {
            found = self.workers.iter().copied().find(|pid| is_in(*pid, &[libc::SYS_clock_nanosleep]));
            found.is_some()
        });
        let pid = found.expect("found");
        wait_until_sleeping(pid);
        pid
    }

    /// Waits until so many workers wait for a lock.
    fn wait_for_waiters(&self, count: usize) {
        eventually("workers wait for a lock", || {
            self.workers.iter().filter(|pid| is_in(**pid, &[libc::SYS_flock])).count() == count
        });
    }

    /// Somebody outside of the pool holds the session's lock while `act` runs.
    fn held_by_others<T>(&self, act: impl FnOnce() -> T) -> T {
        let guard = self.store.lock(&self.id(), Duration::ZERO).expect("free").expect("a session");
        let result = act();
        drop(guard);
        result
    }
}

fn is_in(pid: u32, calls: &[libc::c_long]) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let call = text.split(' ').next().and_then(|number| number.parse().ok());
    call.is_some_and(|call| calls.contains(&call))
}

/// Refused, in the way that tells a client what to do.
#[track_caller]
fn assert_refused(answer: &Answer) {
    assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("1")), "{answer:?}");
}

#[track_caller]
fn get((answer, _): (Answer, Duration)) -> Answer {
    answer
}

fn percentile(times: &mut [Duration], of_100: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * of_100 / 100).min(times.len() - 1)]
}

/// What other visitors see, all of them together, until `stop`: how long each of their requests took.
fn others(doors: &[Door], stop: &AtomicBool) -> Vec<Duration> {
    let one = |door: &Door| {
        let mut visitor = Visitor::new(door);
        visitor.get("/keep");
        let (mut times, mut count) = (Vec::new(), 0);
        while !stop.load(Ordering::Relaxed) {
            for (method, target) in [("GET", "/hello"), ("GET", "/counter"), ("POST", "/counter"), ("GET", "/read")] {
                let began = Instant::now();
                let answer = visitor.ask(method, target, "").expect("an answer").ok();
                times.push(began.elapsed());
                count += u64::from(target == "/counter");
                if target != "/hello" {
                    assert_eq!(answer.number("Counter"), count, "a visitor of its own");
                }
            }
            // As people do, it looks at what came; the next request comes when it comes.
            thread::sleep(Duration::from_millis(5));
        }
        times
    };
    thread::scope(|scope| {
        let visitors: Vec<_> = doors.iter().map(|door| scope.spawn(move || one(door))).collect();
        visitors.into_iter().flat_map(|visitor| visitor.join().expect("served")).collect()
    })
}

/// What a crowd of 64 is answered that posts to one session for four seconds, each a request of a second, and how long the
/// requests of others took meanwhile. Whoever is refused comes again after `pause`.
fn crowd(pool: &Crowded, doors: &[Door], pause: Duration) -> (Vec<Answer>, Vec<Duration>) {
    let done = AtomicBool::new(false);
    let began = Instant::now();
    thread::scope(|scope| {
        let times = scope.spawn(|| others(doors, &done));
        let crowd: Vec<_> = doors
            .iter()
            .cycle()
            .take(64)
            .map(|door| {
                let mut visitor = Visitor::with(door, &pool.cookie);
                scope.spawn(move || {
                    let mut answers = Vec::new();
                    while began.elapsed() < Duration::from_secs(4) {
                        let answer = visitor.post("/slow?ms=1000&write=k", "");
                        let is_refused = answer.status == 503;
                        answers.push(answer);
                        if is_refused {
                            thread::sleep(pause);
                        }
                    }
                    answers
                })
            })
            .collect();
        let answers = crowd.into_iter().flat_map(|member| member.join().expect("answered")).collect();
        done.store(true, Ordering::Relaxed);
        (answers, times.join().expect("served"))
    })
}

#[test]
fn slow_requests_of_one_session_leave_room_for_others() {
    // As Retry-After says, and as nobody should.
    for pause in [Duration::from_secs(1), Duration::from_millis(20)] {
        let pool = Crowded::new(4, &[]);
        let doors = [&pool.http, &pool.scgi, &pool.http, &pool.scgi].map(Clone::clone);
        // What they take when nobody else is there is their own work, on this machine and at this time.
        let alone = AtomicBool::new(false);
        let mut before = thread::scope(|scope| {
            let times = scope.spawn(|| others(&doors, &alone));
            thread::sleep(Duration::from_secs(1));
            alone.store(true, Ordering::Relaxed);
            times.join().expect("served")
        });
        let own = percentile(&mut before, 99);
        let (answers, mut times) = crowd(&pool, &doors, pause);
        let (half, most, worst) = (percentile(&mut times, 50), percentile(&mut times, 99), percentile(&mut times, 100));
        let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
        println!(
            "again after {pause:?}: {} served, {} refused; others: {} requests, median {half:?}, p99 {most:?}, slowest \
             {worst:?}; p99 without the crowd {own:?}",
            served.len(),
            refused.len(),
            times.len()
        );
        assert!(times.len() >= 500, "too few to tell");
        assert!(most < Duration::from_millis(100) + own, "p99 {most:?}, without the crowd {own:?}");
        refused.iter().for_each(assert_refused);
        assert!(refused.len() >= 32, "hardly anybody was refused: {}", refused.len());
        // One after the other, a second each, and never nobody.
        assert!(served.len() >= 3, "{} served", served.len());
        let mut seen: Vec<u64> = served.iter().map(|answer| answer.number("k")).collect();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(1..=served.len() as u64), "not each counted once: {seen:?}");
        let last = Visitor::with(&pool.scgi, &pool.cookie).post("/slow?ms=0&write=k", "").ok();
        assert_eq!(last.number("k"), served.len() as u64 + 1);
    }
}

#[test]
fn quick_requests_of_one_session_are_never_refused() {
    const CLIENTS: u64 = 32;
    const REQUESTS: u64 = 40;
    for workers in [4, 8] {
        let pool = Crowded::new(workers, &[]);
        let mut count = 0;
        for door in [&pool.scgi, &pool.http] {
            let began = Instant::now();
            thread::scope(|scope| {
                for _ in 0..CLIENTS {
                    let mut visitor = Visitor::with(door, &pool.cookie);
                    scope.spawn(move || {
                        for _ in 0..REQUESTS {
                            visitor.post("/counter", "").ok();
                        }
                    });
                }
            });
            count += CLIENTS * REQUESTS;
            println!("{workers} workers, {door:?}: {} requests in {:?}", CLIENTS * REQUESTS, began.elapsed());
            assert_eq!(Visitor::with(door, &pool.cookie).get("/read").ok().number("Counter"), count);
        }
    }
}

#[test]
fn where_others_hold_the_lock_ones_own_wait_counts() {
    let pool = Crowded::new(4, &[]);
    let mut waiting = pool.held_by_others(|| {
        let mut waiting: Vec<_> = (0..4).map(|_| pool.ask("POST", "/counter")).collect();
        // Two may stay, as nobody of the pool holds the lock; the others have their time and are sent away.
        eventually("two are refused", || {
            waiting.retain(|answer| {
                let Ok((answer, time)) = answer.try_recv() else { return true };
                assert_refused(&answer);
                assert!(time >= Duration::from_millis(50), "refused after {time:?}");
                false
            });
            waiting.len() == 2
        });
        for _ in 0..3 {
            let (answer, time) = pool.ask("POST", "/counter").recv().expect("an answer");
            assert_refused(&answer);
            assert!(time >= Duration::from_millis(50), "refused after {time:?}");
        }
        // Who only looks needs no lock, and there are workers for that.
        Visitor::with(&pool.http, &pool.cookie).get("/read").ok();
        assert!(waiting.iter().all(|answer| answer.try_recv().is_err()));
        waiting
    });
    let mut counts: Vec<_> =
        waiting.drain(..).map(|answer| get(answer.recv().expect("an answer")).ok().number("Counter")).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2]);
}

#[test]
fn the_lock_timeout_is_a_503_as_before() {
    let pool = Crowded::new(4, &["--lock-timeout", "0.3"]);
    let (answer, time) = pool.held_by_others(|| pool.ask("POST", "/counter").recv().expect("an answer"));
    assert_refused(&answer);
    assert!(time >= Duration::from_millis(300), "{time:?}");
    pool.proc.line("error=session is in use: lock not granted in time");
    pool.ask("POST", "/counter").recv().expect("an answer").0.ok();
}

#[test]
fn readers_are_never_refused_and_second_runs_are() {
    let pool = Crowded::new(4, &["--max-per-session", "1"]);
    let slow = pool.ask("POST", "/slow?ms=1500&write=k");
    pool.sleeper();
    // By the time that this one is answered the holder has had its 50 ms.
    assert_refused(&get(pool.ask("POST", "/counter").recv().expect("an answer")));
    pool.proc.line("error=session is in use: too many requests wait for it");
    let mut visitor = Visitor::with(&pool.http, &pool.cookie);
    for target in ["/read", "/check", "/"] {
        visitor.get(target).ok();
    }
    // Begins without the lock, and wants it in the end: with changes, and for its second run.
    assert_refused(&get(pool.ask("GET", "/counter").recv().expect("an answer")));
    assert_eq!(get(slow.recv().expect("an answer")).ok().number("k"), 1);
    visitor.get("/counter").ok();
}

#[test]
fn a_holder_that_is_killed_stands_in_nobodys_way() {
    let pool = Crowded::new(4, &[]);
    let slow = pool.ask("POST", "/slow?ms=60000&write=k");
    let holder = pool.sleeper();
    let waiter = pool.ask("POST", "/counter");
    pool.wait_for_waiters(1);
    // The master cannot see to the dead, whose slot goes on saying that it has the lock.
    pool.proc.signal(Signal::STOP);
    wait_until_stopped(pool.proc.pid());
    send(holder, Signal::KILL);
    get(waiter.recv().expect("an answer")).ok();
    // By the clock that hold is long now.
    thread::sleep(Duration::from_millis(100));
    thread::scope(|scope| {
        for _ in 0..8 {
            let mut visitor = Visitor::with(&pool.scgi, &pool.cookie);
            scope.spawn(move || (0..50).for_each(|_| drop(visitor.post("/counter", "").ok())));
        }
    });
    pool.proc.signal(Signal::CONT);
    pool.proc.line(&format!("pid={holder} killed signal=9"));
    assert!(slow.recv().is_err(), "a dead worker answered");
    let count = Visitor::with(&pool.scgi, &pool.cookie).get("/read").ok().number("Counter");
    assert_eq!(count, 1 + 8 * 50);
    assert!(!pool.proc.log().contains("status=503"), "{}", pool.proc.log());
}

#[test]
fn the_share_can_be_chosen_and_outlives_a_reload() {
    let mut pool = Crowded::new(5, &["--max-per-session", "3"]);
    let check = |pool: &Crowded| {
        let slow = pool.ask("POST", "/slow?ms=1000&write=k");
        pool.sleeper();
        // The holder and two more.
        let waiters = [pool.ask("POST", "/counter"), pool.ask("POST", "/counter")];
        pool.wait_for_waiters(2);
        assert_refused(&get(pool.ask("POST", "/counter").recv().expect("an answer")));
        pool.wait_for_waiters(2);
        get(slow.recv().expect("an answer")).ok();
        for waiter in waiters {
            get(waiter.recv().expect("an answer")).ok();
        }
    };
    check(&pool);
    pool.proc.signal(Signal::HUP);
    pool.workers = pool.proc.ready(5);
    pool.proc.line("reloaded");
    check(&pool);
    // Half of the workers, where nothing was said: of those that there are.
    let mut pool = Crowded::new(4, &[]);
    for _ in 0..2 {
        pool.proc.signal(Signal::TTIN);
        pool.workers.extend(pool.proc.ready(1));
    }
    check(&pool);
}
