//! Locks that are held for too long, or by nobody.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Store as _};

use super::app::{self, FRONTS};
use super::session::{number, record};
use super::support::process::{Proc, Signal, send};
use super::support::visit::{Door, Visitor};
use super::support::visitor::{Front, Message};
use super::support::{TestDir, eventually, turn};

const TIMEOUT: Duration = Duration::from_millis(200);
const AT_ONCE: usize = 20;

/// PHP waits for ever. A stuck holder, and many who wait for 200 ms: each is told so with 503 in 200 to 230 ms, as far as
/// the machine lets anybody be on time, which pages that only sleep for as long show; and the holder is not disturbed.
///
/// `CLOAKROOM_LOCK_TIMEOUTS=1000` makes it as many tries as that; 200 otherwise.
#[test]
fn php_a_lock_timeout_is_a_503_in_time_and_the_holder_is_unharmed() {
    let _turn = turn();
    let tries = super::count("CLOAKROOM_LOCK_TIMEOUTS", 200) / AT_ONCE;
    let directory = TestDir::new();
    let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
    let (socket, sessions) = (format!("unix:{}", path("socket")), path("sessions"));
    let workers = (2 * AT_ONCE).to_string();
    let pool = Proc::demo(["--scgi", &socket, "--sessions", &sessions, "--workers", &workers, "--lock-timeout", "0.2"]);
    let door = Door::Scgi(pool.address("scgi"));
    pool.ready(2 * AT_ONCE);
    let store = DirectoryStore::at(&sessions);
    let ids: Vec<Id> = (0..AT_ONCE).map(|_| Id::generate().expect("an ID")).collect();
    for id in &ids {
        store.create(id, &record(id, 0, 100)).expect("create");
    }
    let mut guards: Vec<_> =
        ids.iter().map(|id| store.lock(id, Duration::ZERO).expect("lock").expect("there")).collect();
    let (mut waits, mut sleeps) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let waiters: Vec<_> = ids
            .iter()
            .map(|id| {
                let mut visitor = Visitor::with(&door, &format!("session={}", &*id.to_text()));
                let time = move |_| {
                    let began = Instant::now();
                    let answer = visitor.post("/counter", "");
                    assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("1")), "{answer:?}");
                    began.elapsed()
                };
                scope.spawn(move || (0..tries).map(time).collect::<Vec<_>>())
            })
            .collect();
        let sleepers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let mut visitor = Visitor::new(&door);
                let time = move |_| {
                    let began = Instant::now();
                    visitor.get("/slow?ms=200").ok();
                    began.elapsed()
                };
                scope.spawn(move || (0..tries).map(time).collect::<Vec<_>>())
            })
            .collect();
        waits.extend(waiters.into_iter().flat_map(|waiter| waiter.join().expect("a waiter")));
        sleeps.extend(sleepers.into_iter().flat_map(|sleeper| sleeper.join().expect("a sleeper")));
    });
    waits.sort_unstable();
    sleeps.sort_unstable();
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
    eprintln!(
        "{} waits for a lock with a timeout of 200 ms: {:?} to {:?}, p99 {:?}; as many sleeps: p99 {:?}",
        waits.len(),
        waits[0],
        waits[waits.len() - 1],
        p99(&waits),
        p99(&sleeps),
    );
    assert!(waits[0] >= TIMEOUT, "gave up after {:?}", waits[0]);
    let median = |times: &[Duration]| times[times.len() / 2];
    let late = |time: Duration| time.saturating_sub(TIMEOUT);
    let most = Duration::from_millis(230);
    assert!(median(&waits) <= most + late(median(&sleeps)), "median {:?}", median(&waits));
    assert!(p99(&waits) <= most + 2 * late(p99(&sleeps)), "p99 {:?}", p99(&waits));
    // The holders have what they had, and can save it.
    for (id, guard) in ids.iter().zip(&mut guards) {
        let stored = guard.load().expect("load").expect("there");
        assert_eq!(number(id, &stored.record), Some(0));
        assert!(matches!(guard.save(&record(id, 1, 100), stored.version), Ok(cloakroom::session::Saved::Saved(_))));
    }
    drop(guards);
    for id in &ids {
        Visitor::with(&door, &format!("session={}", &*id.to_text())).post("/counter", "").ok();
    }
}

/// flock(2) goes along into whatever inherits the descriptor. A holder that starts a program which outlives it gives the
/// lock back all the same, whether it ends well or not.
#[test]
fn php_a_child_that_outlives_the_holder_keeps_no_lock() {
    for front in FRONTS {
        let site = app::site(front);
        let sessions = site.dir().join("sessions");
        let store = DirectoryStore::at(&sessions);
        let id = Id::generate().expect("an ID");
        store.create(&id, &record(&id, 0, 100)).expect("create");
        let post = |target: &str| {
            let headers = vec![("Cookie", format!("session={}", &*id.to_text()).into_bytes())];
            site.exchange(&Message { method: "POST", target, headers, body: Vec::new() })
        };
        let check = |child: u32| {
            let descriptors = fs::read_dir(format!("/proc/{child}/fd")).expect("the child lives");
            let files: Vec<_> =
                descriptors.filter_map(|entry| fs::read_link(entry.expect("entry").path()).ok()).collect();
            let lock = store.lock(&id, Duration::from_secs(1));
            send(child, Signal::KILL);
            assert!(matches!(lock, Ok(Some(_))), "{front:?}: the lock is not free");
            assert!(!files.iter().any(|file| file.starts_with(&sessions)), "{front:?}: {files:?}");
        };
        let answer = String::from_utf8(post("/leave-a-child")).expect("text");
        let child = answer.rsplit("\r\n").next().expect("a body").parse();
        check(child.unwrap_or_else(|_| panic!("{front:?}: {answer}")));
        // It ends in the middle of its work.
        let note = site.dir().join("note");
        assert!(post(&format!("/leave-a-child?note={}", note.display())).is_empty(), "{front:?}");
        let mut child = None;
        eventually("the child is known", || {
            child = fs::read_to_string(&note).ok().and_then(|pid| pid.parse().ok());
            child.is_some()
        });
        check(child.expect("known"));
        let n = store.load(&id).expect("load").expect("there").record.get::<u64>("n").expect("a number");
        assert_eq!(n, Some(1), "{front:?}");
        if front == Front::Cgi {
            continue;
        }
        assert!(!app::get(&site, "/child", &[]).is_empty(), "{front:?}: the pool is gone");
    }
}
