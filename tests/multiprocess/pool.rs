//! The demo as pool of workers, over SCGI and HTTP.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cloakroom::session::Id;

use crate::site::{self, Site, Tally, VISITORS};
use crate::support::process::{Signal, children, send};
use crate::support::visit::Visitor;
use crate::support::{StopOnDrop, TestDir, eventually};
use crate::turn;

const EACH: u64 = 2000;
/// One for each visitor.
const WORKERS: usize = VISITORS as usize;
/// Twice as many: a session may occupy half of a pool, and the others must be served.
const MANY: usize = 2 * WORKERS;

fn by_turns(i: u64) -> &'static str {
    if i.is_multiple_of(2) { "GET" } else { "POST" }
}

#[test]
fn get_over_http_on_one_session_is_all_counted() {
    let _turn = turn();
    site::count_all(&Site::http(WORKERS), 1, EACH, |_| "GET");
}

#[test]
fn post_over_http_on_one_session_is_all_counted() {
    let _turn = turn();
    site::count_all(&Site::http(WORKERS), 1, EACH, |_| "POST");
}

#[test]
fn get_over_scgi_on_one_session_is_all_counted() {
    let _turn = turn();
    site::count_all(&Site::scgi(WORKERS), 1, EACH, |_| "GET");
}

#[test]
fn post_over_scgi_on_one_session_is_all_counted() {
    let _turn = turn();
    site::count_all(&Site::scgi(WORKERS), 1, EACH, |_| "POST");
}

#[test]
fn get_and_post_over_http_on_many_sessions_are_all_counted_while_old_ones_are_swept() {
    let _turn = turn();
    let site = Site::http(WORKERS);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sweeper = Visitor::new(&site.door);
            while !done.load(Ordering::Relaxed) {
                assert!(sweeper.get("/delete_old?minutes=1").ok().body.starts_with("Deleted: 0, Remaining: "));
            }
        });
        let stop = StopOnDrop(&done);
        site::count_all(&site, 16, EACH, by_turns);
        drop(stop);
    });
}

#[test]
fn get_and_post_over_scgi_on_many_sessions_are_all_counted() {
    let _turn = turn();
    site::count_all(&Site::scgi(WORKERS), 16, EACH, by_turns);
}

#[test]
fn different_keys_do_not_wait_over_http() {
    let _turn = turn();
    site::different_keys_do_not_wait(&Site::http(WORKERS));
}

#[test]
fn different_keys_do_not_wait_over_scgi() {
    let _turn = turn();
    site::different_keys_do_not_wait(&Site::scgi(WORKERS));
}

#[test]
fn the_same_key_is_counted() {
    let _turn = turn();
    for site in [Site::http(MANY), Site::scgi(MANY)] {
        site::the_same_key_is_counted(&site);
    }
}

#[test]
fn posts_run_one_by_one() {
    let _turn = turn();
    for site in [Site::http(MANY), Site::scgi(MANY)] {
        site::posts_run_one_by_one(&site);
    }
}

#[test]
fn a_login_leaves_one_valid_id() {
    let _turn = turn();
    site::a_login_leaves_one_valid_id(&Site::http(WORKERS), 25, 8);
    site::a_login_leaves_one_valid_id(&Site::scgi(WORKERS), 25, 8);
}

#[test]
fn a_logout_is_never_undone() {
    let _turn = turn();
    site::a_logout_is_never_undone(&Site::http(WORKERS), 25, 8);
    site::a_logout_is_never_undone(&Site::scgi(WORKERS), 25, 8);
}

/// Workers are killed every few milliseconds while visitors count. A pool takes its time to replace workers that die
/// young, so each round has a pool of its own, on the same sessions.
#[test]
fn no_acknowledged_count_is_lost_when_workers_are_killed() {
    const ROUNDS: usize = 6;
    const KILLS: usize = 40;
    let _turn = turn();
    let mut directory = TestDir::new();
    let mut cookie = None;
    let mut tally = Tally::default();
    for round in 0..ROUNDS {
        let site = Site::pool(KILLS + WORKERS, if round % 2 == 0 { "http" } else { "scgi" }, directory);
        let cookie: &str = cookie.get_or_insert_with(|| site.visitor().cookie.expect("a cookie"));
        let done = AtomicBool::new(false);
        let visit = |i: u64| {
            let (mut visitor, mut tally) = (Visitor::with(&site.door, cookie), Tally::default());
            while !done.load(Ordering::Relaxed) {
                tally.note(visitor.ask(by_turns(i), "/counter", ""));
            }
            tally
        };
        thread::scope(|scope| {
            let _stop = StopOnDrop(&done);
            let visit = &visit;
            let visitors: Vec<_> = (0..VISITORS).map(|i| scope.spawn(move || visit(i))).collect();
            let master = site.master();
            for kill in 0..KILLS {
                // Not to wait for anything, but to hit them at work, at ever different places.
                thread::sleep(Duration::from_micros(1000 + (kill as u64 * 7919) % 8000));
                // One that has work: those that sleep on a lock or in accept are hit now and then, too.
                let workers = children(master);
                if let Some(worker) = workers.iter().copied().find(|pid| is_running(*pid)).or(workers.first().copied())
                {
                    send(worker, Signal::KILL);
                }
            }
            done.store(true, Ordering::Relaxed);
            for visitor in visitors {
                tally.add(visitor.join().expect("a visitor failed"));
            }
        });
        tally.check(site.counter(cookie));
        site.assert_lock_is_free(cookie);
        tally.unknown_one();
        assert_eq!(site.files().len(), 1, "{:?}", site.files());
        directory = site.directory;
    }
    assert!(tally.acknowledged() > ROUNDS * KILLS, "hardly any counts: {}", tally.acknowledged());
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('R'))
}

#[test]
fn a_worker_that_dies_or_panics_at_work_leaves_nothing_behind() {
    let _turn = turn();
    let site = Site::scgi(WORKERS);
    let mut visitor = site.visitor();
    let cookie = visitor.cookie.clone().expect("a cookie");
    for round in 1..=20 {
        assert_eq!(visitor.post("/boom", "").status, 500);
        assert_eq!(visitor.get("/boom").status, 500);
        if round % 4 == 0 {
            assert!(visitor.ask("GET", "/exit", "").is_err(), "a dead worker answers nothing");
        }
        site.assert_lock_is_free(&cookie);
        assert_eq!(site.counter(&cookie), round, "nothing of a failed request is saved");
    }
    // Killed with the lock in its hands, while others wait for it.
    let master = site.master();
    let busy = |pid: &u32| {
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        [libc::SYS_clock_nanosleep, libc::SYS_nanosleep].iter().any(|number| call.starts_with(&format!("{number} ")))
    };
    thread::scope(|scope| {
        let holder = scope.spawn(|| Visitor::with(&site.door, &cookie).ask("POST", "/slow?ms=50000&write=held", ""));
        let mut found = None;
        eventually("a worker holds the lock", || {
            found = children(master).into_iter().find(busy);
            found.is_some()
        });
        let waiter = scope.spawn(|| Visitor::with(&site.door, &cookie).post("/counter", "").ok().number("Counter"));
        send(found.expect("found"), Signal::KILL);
        assert!(holder.join().expect("a visitor").is_err());
        assert_eq!(waiter.join().expect("a visitor"), 21);
    });
    assert_eq!(site.value(&cookie, "held"), 0);
    assert_eq!(site.files().len(), 1, "{:?}", site.files());
}

/// Each session ends at once, so that its ID is free again: else a store that refuses to create what exists would hide
/// workers that draw the same IDs.
#[test]
fn ids_drawn_by_forked_workers_never_repeat() {
    const SESSIONS: usize = 500;
    let _turn = turn();
    let site = Site::http(WORKERS);
    let draw = || {
        let mut visitor = Visitor::new(&site.door);
        let draw = |_| {
            let id = visitor.get("/keep").id().to_owned();
            visitor.get("/logout").ok();
            id
        };
        (0..SESSIONS).map(draw).collect::<Vec<_>>()
    };
    let ids = thread::scope(|scope| {
        let threads: Vec<_> = (0..VISITORS).map(|_| scope.spawn(draw)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a visitor failed")).collect::<Vec<_>>()
    });
    assert!(ids.iter().all(|id| Id::parse(id).is_some()));
    let distinct: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), SESSIONS * VISITORS as usize);
    assert!(site.files().is_empty());
}
