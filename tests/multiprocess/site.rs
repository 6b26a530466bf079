//! A running demo with its directory, for each form of it; and what every form must do.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Record, Store as _};

use crate::coat::names;
use crate::support::TestDir;
use crate::support::process::Proc;
use crate::support::visit::{Answer, Door, Visitor};

/// Visitors at once.
pub const VISITORS: u64 = 8;

/// A demo that can be visited. When a test fails, its log is printed and its directory is kept.
pub struct Site {
    pub door: Door,
    /// `None` under CGI.
    pool: Option<Mutex<Proc>>,
    pub directory: TestDir,
}

impl Site {
    pub fn http(workers: usize) -> Self {
        Self::pool(workers, "http", TestDir::new())
    }

    pub fn scgi(workers: usize) -> Self {
        Self::pool(workers, "scgi", TestDir::new())
    }

    /// A pool on the sessions in `directory`.
    pub fn pool(workers: usize, protocol: &str, directory: TestDir) -> Self {
        let (sessions, socket) = (directory.join("sessions"), directory.join("socket"));
        let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
        let address = if protocol == "http" { "127.0.0.1:0".to_owned() } else { format!("unix:{}", text(&socket)) };
        let workers = workers.to_string();
        let flag = format!("--{protocol}");
        let pool = Proc::demo([&flag, &address, "--sessions", &text(&sessions), "--workers", &workers]);
        let address = pool.address(protocol);
        pool.line(&format!(" ready workers={workers}"));
        let door = if protocol == "http" { Door::Http(address) } else { Door::Scgi(address) };
        Self { door, pool: Some(Mutex::new(pool)), directory }
    }

    pub fn cgi() -> Self {
        let directory = TestDir::new();
        Self { door: Door::Cgi(directory.join("sessions")), pool: None, directory }
    }

    /// The process ID of the pool's master.
    pub fn master(&self) -> u32 {
        self.pool.as_ref().expect("a pool").lock().expect("not poisoned").pid()
    }

    /// Somebody whose session is kept.
    pub fn visitor(&self) -> Visitor {
        let mut visitor = Visitor::new(&self.door);
        let answer = visitor.get("/keep");
        assert!((300..400).contains(&answer.status) && visitor.cookie.is_some(), "{answer:?}");
        visitor
    }

    /// The session with this cookie, as the store has it.
    pub fn record(&self, cookie: &str) -> Option<Record> {
        let id = Id::parse(cookie.split_once('=').expect("a cookie").1).expect("an ID");
        let stored = DirectoryStore::at(self.directory.join("sessions")).load(&id).expect("load");
        stored.map(|stored| stored.record)
    }

    pub fn counter(&self, cookie: &str) -> u64 {
        self.value(cookie, "counter")
    }

    pub fn value(&self, cookie: &str, key: &str) -> u64 {
        self.record(cookie).expect("there").get(key).expect("a number").unwrap_or(0)
    }

    pub fn files(&self) -> Vec<String> {
        names(&self.directory.join("sessions"))
    }

    /// No lock was left behind: a request that needs it is answered at once.
    pub fn assert_lock_is_free(&self, cookie: &str) {
        let began = Instant::now();
        Visitor::with(&self.door, cookie).post("/counter", "").ok();
        assert!(began.elapsed() < Duration::from_secs(5), "a lock was left behind");
    }
}

/// `VISITORS` visitors make `each` requests, each with one of these cookies in turn. All must count, and no two may get
/// the same answer.
pub fn count_all(site: &Site, sessions: usize, each: u64, method: impl Fn(u64) -> &'static str + Sync) {
    let cookies: Vec<String> = (0..sessions).map(|_| site.visitor().cookie.expect("a cookie")).collect();
    let count = |visitor: u64| {
        let mut visitors: Vec<Visitor> = cookies.iter().map(|cookie| Visitor::with(&site.door, cookie)).collect();
        let mut answers = vec![Vec::new(); sessions];
        for i in 0..each {
            let at = ((i + visitor) % sessions as u64) as usize;
            let answer = visitors[at].ask(method(i), "/counter", "").expect("a whole answer").ok();
            answers[at].push(answer.number("Counter"));
        }
        answers
    };
    let answers: Vec<Vec<Vec<u64>>> = thread::scope(|scope| {
        let count = &count;
        let threads: Vec<_> = (0..VISITORS).map(|visitor| scope.spawn(move || count(visitor))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a visitor failed")).collect()
    });
    let mut counted = 0;
    for (at, cookie) in cookies.iter().enumerate() {
        let total = site.counter(cookie);
        counted += total;
        let mut answers: Vec<u64> = answers.iter().flat_map(|answers| &answers[at]).copied().collect();
        answers.sort_unstable();
        assert_eq!(answers, (1..=total).collect::<Vec<_>>(), "each count is somebody's answer");
    }
    assert_eq!(counted, VISITORS * each);
    assert_eq!(site.files().len(), sessions, "{:?}", site.files());
}

/// `VISITORS` requests at once, one from each; their answers and how long it took until all were there.
fn at_once(site: &Site, cookie: &str, method: &str, target: impl Fn(u64) -> String) -> (Vec<Answer>, Duration) {
    let began = Instant::now();
    let answers = thread::scope(|scope| {
        let ask = |i: u64| {
            let (mut visitor, target) = (Visitor::with(&site.door, cookie), target(i));
            scope.spawn(move || visitor.ask(method, &target, "").expect("a whole answer").ok())
        };
        let threads: Vec<_> = (0..VISITORS).map(ask).collect();
        threads.into_iter().map(|thread| thread.join().expect("a visitor failed")).collect()
    });
    (answers, began.elapsed())
}

/// Requests that write different keys do not wait for each other, and all that they wrote is kept.
pub fn different_keys_do_not_wait(site: &Site) {
    let cookie = site.visitor().cookie.expect("a cookie");
    let mut best = Duration::MAX;
    // Another try where the machine was busy with something else; what they wrote must be there each time.
    for round in 1..=5 {
        let (answers, took) = at_once(site, &cookie, "GET", |i| format!("/slow?ms=300&write=k{i}"));
        for (i, answer) in answers.iter().enumerate() {
            assert_eq!(answer.number(&format!("k{i}")), round);
            assert_eq!(site.value(&cookie, &format!("k{i}")), round, "k{i} was lost");
        }
        best = best.min(took);
        if best < Duration::from_millis(600) {
            return;
        }
    }
    panic!("parallel requests waited for each other: {best:?}");
}

/// Requests that write the same key are all counted, though the first of them makes the others run again.
pub fn the_same_key_is_counted(site: &Site) {
    let cookie = site.visitor().cookie.expect("a cookie");
    let (answers, _) = at_once(site, &cookie, "GET", |_| "/slow?ms=40&write=same".to_owned());
    assert_permutation(&answers, "same");
    assert_eq!(site.value(&cookie, "same"), VISITORS);
}

/// POST requests run one by one, each exactly once.
pub fn posts_run_one_by_one(site: &Site) {
    let cookie = site.visitor().cookie.expect("a cookie");
    let (answers, took) = at_once(site, &cookie, "POST", |_| "/slow?ms=40&write=post".to_owned());
    assert_permutation(&answers, "post");
    assert_eq!(site.value(&cookie, "post"), VISITORS);
    assert!(took >= Duration::from_millis(40 * VISITORS), "two ran at once: {took:?}");
    // Nor do two look at once, where there is nothing to save that could tell.
    let (_, took) = at_once(site, &cookie, "POST", |_| "/slow?ms=40".to_owned());
    assert!(took >= Duration::from_millis(40 * VISITORS), "two looked at once: {took:?}");
}

fn assert_permutation(answers: &[Answer], key: &str) {
    let numbers: BTreeSet<u64> = answers.iter().map(|answer| answer.number(key)).collect();
    assert_eq!(numbers, (1..=VISITORS).collect(), "{answers:?}");
}

/// What a counter page says when the session is a kept one.
const KEPT: &str = "Every request counts exactly once";

/// Counts with the visitor's old cookie from several visitors, while `change` is done to the session; gives how many
/// counts went to a kept session, and what `change` gave.
fn count_during<T>(site: &Site, cookie: &str, each: u64, change: impl FnOnce() -> T) -> (u64, T) {
    let count = |i: u64| {
        let method = if i.is_multiple_of(2) { "GET" } else { "POST" };
        let ask = |_| {
            let answer = Visitor::with(&site.door, cookie).ask(method, "/counter", "").expect("a whole answer").ok();
            assert_eq!(answer.set_cookie, None, "an unknown ID was given a session");
            u64::from(answer.body.contains(KEPT))
        };
        (0..each).map(ask).sum::<u64>()
    };
    thread::scope(|scope| {
        let count = &count;
        let threads: Vec<_> = (1..VISITORS).map(|i| scope.spawn(move || count(i))).collect();
        let changed = change();
        (threads.into_iter().map(|thread| thread.join().expect("a visitor failed")).sum(), changed)
    })
}

/// A login among other requests: the old ID is dead, the new one has all that was counted, and there is no third.
pub fn a_login_leaves_one_valid_id(site: &Site, rounds: u64, each: u64) {
    for round in 0..rounds {
        let mut visitor = site.visitor();
        let form = visitor.get("/login").ok().body;
        let token = form.split_once("name=\"form_token\" value=\"").expect("a token").1;
        let token = token.split_once('"').expect("a quoted token").0.to_owned();
        let old = visitor.cookie.clone().expect("a cookie");
        let (counted, ()) = count_during(site, &old, each, || {
            // Not always before the others.
            for _ in 0..round % each {
                Visitor::with(&site.door, &old).get("/read").ok();
            }
            visitor.post("/login", &format!("name=ada&form_token={token}")).ok();
        });
        let new = visitor.cookie.clone().expect("a cookie");
        assert_ne!(new, old);
        assert!(site.record(&old).is_none(), "the old ID is still valid");
        assert_eq!(site.record(&new).expect("the new ID is valid").user(), Some("ada"));
        assert_eq!(site.counter(&new), counted, "counts that were acknowledged before the login");
        assert_eq!(site.files().len() as u64, 1, "{:?}", site.files());
        assert!(visitor.get("/check").ok().body.contains("user: ada"));
        visitor.get("/logout").ok();
        assert!(site.files().is_empty(), "{:?}", site.files());
    }
}

/// A logout among other requests: nothing comes back.
pub fn a_logout_is_never_undone(site: &Site, rounds: u64, each: u64) {
    for round in 0..rounds {
        let mut visitor = site.visitor();
        let cookie = visitor.cookie.clone().expect("a cookie");
        count_during(site, &cookie, each, || {
            for _ in 0..round % each {
                Visitor::with(&site.door, &cookie).get("/read").ok();
            }
            if round.is_multiple_of(2) { visitor.post("/logout", "") } else { visitor.get("/logout") }.ok();
            assert!(site.record(&cookie).is_none(), "still there after the logout");
        });
        assert_eq!(visitor.cookie, None, "the cookie was not taken back");
        assert!(site.files().is_empty(), "brought back: {:?}", site.files());
    }
}

/// What was acknowledged and what is not known, of counts that were made while processes were killed.
#[derive(Default)]
pub struct Tally {
    answers: Vec<u64>,
    unknown: u64,
}

impl Tally {
    pub fn note(&mut self, answer: std::io::Result<Answer>) {
        match answer {
            Ok(answer) => self.answers.push(answer.ok().number("Counter")),
            Err(_) => self.unknown += 1,
        }
    }

    pub fn add(&mut self, other: Self) {
        self.answers.extend(other.answers);
        self.unknown += other.unknown;
    }

    /// A count that was made, of which nobody kept the answer.
    pub fn unknown_one(&mut self) {
        self.unknown += 1;
    }

    pub fn acknowledged(&self) -> usize {
        self.answers.len()
    }

    /// Every acknowledged count is in `counter`, and nothing is in it that nobody asked for.
    pub fn check(&self, counter: u64) {
        let distinct: BTreeSet<u64> = self.answers.iter().copied().collect();
        assert_eq!(distinct.len(), self.answers.len(), "a count was acknowledged twice, so one was lost");
        assert!(distinct.last().is_some_and(|last| *last <= counter), "the last acknowledged count is lost");
        let extra = counter - distinct.len() as u64;
        assert!(extra <= self.unknown, "{extra} counts too many, {} answers unknown", self.unknown);
    }
}
