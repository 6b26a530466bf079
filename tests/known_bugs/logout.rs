//! A request that runs for long while somebody logs out.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Saved, Store as _};

use super::session::record;
use super::support::process::{Proc, children, is_sleeping};
use super::support::visit::{Door, Visitor};
use super::support::{PATIENCE, TestDir, eventually};

const WAITERS: usize = 7;

/// The whole of it through the demo: a request that has looked at the session, a logout, and then the request's end.
#[test]
fn cve_2025_46336_cve_2013_10075_dalli_1040_vertx_web_2771_a_long_request_does_not_undo_a_logout() {
    let directory = TestDir::new();
    let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
    let (socket, sessions) = (format!("unix:{}", path("socket")), path("sessions"));
    let arguments = ["--http", "127.0.0.1:0", "--scgi", &socket, "--sessions", &sessions, "--workers", "4"];
    let pool = Proc::demo(arguments);
    let doors =
        [Door::Http(pool.address("http")), Door::Scgi(pool.address("scgi")), Door::Cgi(sessions.clone().into())];
    pool.ready(4);
    for door in &doors {
        let mut visitor = Visitor::new(door);
        visitor.get("/keep");
        let cookie = visitor.cookie.clone().expect("a cookie");
        let slow = Visitor::with(door, &cookie);
        // It has looked at the session and works on, without the lock, as GET does.
        let target = "/slow?ms=700&write=late";
        let answer = thread::scope(|scope| {
            let slow = if matches!(door, Door::Cgi(_)) {
                let script = slow.start_script("GET", target, "").expect("start");
                let pid = script.0.id();
                eventually("the script sleeps", || is_sleeping(pid));
                scope.spawn(move || script.answer().expect("an answer"))
            } else {
                let mut slow = slow;
                let asked = scope.spawn(move || slow.get(target));
                eventually("a worker sleeps", || children(pool.pid()).into_iter().any(is_sleeping));
                asked
            };
            visitor.get("/logout").ok();
            slow.join().expect("an answer")
        });
        assert!(answer.set_cookie.as_deref().is_none_or(|cookie| cookie.ends_with('=')), "{door:?}: {answer:?}");
        let mut again = Visitor::with(door, &cookie);
        assert!(again.get("/check").ok().body.contains("session_id: None"), "{door:?}: the session is back");
        assert_eq!(std::fs::read_dir(&sessions).expect("list").count(), 0, "{door:?}: a file is back");
    }
}

/// Those who wait for the lock of a session that is deleted (PHP acknowledged their saves, into a file without a name),
/// and those who save what they have read before.
///
/// `CLOAKROOM_DELETIONS=10000` makes it as many rounds as that; 200 otherwise.
#[test]
fn cve_2025_46336_cve_2013_10075_nothing_is_saved_after_a_delete() {
    let rounds = super::count("CLOAKROOM_DELETIONS", 200);
    let directory = TestDir::new();
    let sessions = directory.join("sessions");
    let store = DirectoryStore::at(&sessions);
    let (start, end) = (Barrier::new(WAITERS + 1), Barrier::new(WAITERS + 1));
    let ids: Vec<Id> = (0..rounds).map(|_| Id::generate().expect("an ID")).collect();
    for id in &ids {
        store.create(id, &record(id, 0, 50)).expect("create");
    }
    // When each deletion was acknowledged, told while the waiters of that round are still at it.
    let deleted: Vec<AtomicBool> = ids.iter().map(|_| AtomicBool::new(false)).collect();
    let (mut late, mut count) = (0, 0);
    thread::scope(|scope| {
        let waiter = |number: usize| {
            let (store, ids, deleted, start, end) = (DirectoryStore::at(&sessions), &ids, &deleted, &start, &end);
            move || {
                let (mut late, mut count) = (0, 0);
                for (id, deleted) in ids.iter().zip(deleted) {
                    let read = store.load(id).expect("load").expect("there");
                    let mut version = read.version;
                    start.wait();
                    let began = Instant::now();
                    loop {
                        assert!(began.elapsed() < PATIENCE, "a waiter was not answered");
                        let mut was_deleted = deleted.load(Ordering::SeqCst);
                        // Half of them hold the lock over it, as POST does.
                        let saved = if number.is_multiple_of(2) {
                            match store.lock(id, PATIENCE).expect("lock") {
                                None => Saved::Gone,
                                Some(mut guard) => {
                                    // Who has waited has nothing to find where the delete was acknowledged meanwhile.
                                    was_deleted = deleted.load(Ordering::SeqCst);
                                    let there = guard.load().expect("load").expect("locked, so there").version;
                                    guard.save(&record(id, 1, 50), there).expect("save")
                                }
                            }
                        } else {
                            store.save(id, &record(id, 1, 50), version).expect("save")
                        };
                        match saved {
                            Saved::Gone => break,
                            Saved::Saved(now) => {
                                late += u64::from(was_deleted);
                                count += 1;
                                version = now;
                            }
                            Saved::Conflict => match store.load(id).expect("load") {
                                Some(now) => version = now.version,
                                None => break,
                            },
                        }
                    }
                    end.wait();
                }
                (late, count)
            }
        };
        let waiters: Vec<_> = (0..WAITERS).map(|number| scope.spawn(waiter(number))).collect();
        for (id, deleted) in ids.iter().zip(&deleted) {
            start.wait();
            assert!(store.delete(id).expect("delete"));
            deleted.store(true, Ordering::SeqCst);
            end.wait();
            assert!(store.load(id).expect("load").is_none() && !store.touch(id).expect("touch"), "it is back");
        }
        for waiter in waiters {
            let (its_late, its_count) = waiter.join().expect("a waiter");
            late += its_late;
            count += its_count;
        }
    });
    assert_eq!(late, 0, "saves were acknowledged after the delete was");
    assert_eq!(std::fs::read_dir(&sessions).expect("list").count(), 0, "a file is back");
    assert!(count > 0, "nobody was in the way of the deletions");
    eprintln!("{rounds} deletions among {WAITERS} savers with {count} saves: 0 saved after it, 0 back");
    // One who waits is told so, and not at the end of his time.
    let id = Id::generate().expect("an ID");
    store.create(&id, &record(&id, 0, 50)).expect("create");
    let guard = store.lock(&id, Duration::ZERO).expect("lock").expect("there");
    thread::scope(|scope| {
        let waits = scope.spawn(|| DirectoryStore::at(&sessions).lock(&id, PATIENCE).expect("lock").is_none());
        guard.delete().expect("delete");
        assert!(waits.join().expect("a waiter"), "who waited was given the lock of a deleted session");
    });
}
