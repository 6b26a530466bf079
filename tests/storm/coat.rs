//! A session that stays, and what its visitors know of it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Record, Store as _};

use crate::book::{Book, Reply};
use crate::support::visit::{Answer, Door, Visitor};

/// How a visitor may count: method, path, and whether the answer says the number.
const WAYS: [(&str, &str, bool); 4] = [
    ("GET", "/increment", false),
    ("POST", "/increment", false),
    ("GET", "/counter", true),
    ("POST", "/counter", true),
];

/// A session, its counter, and what is known of both.
pub struct Coat {
    pub cookie: String,
    id: Id,
    /// Counts that were asked for, acknowledged, and of which nobody knows.
    asked: AtomicU64,
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    /// The numbers that acknowledged counts were told.
    numbers: Mutex<Vec<u64>>,
    /// How many bytes may have been filled in.
    filled: Mutex<BTreeSet<usize>>,
}

impl Coat {
    /// A new session, before anything happens.
    pub fn new(door: &Door) -> Self {
        let mut visitor = Visitor::new(door);
        let answer = visitor.get("/keep?idle=86400");
        assert_eq!(answer.status, 303, "{answer:?}");
        let id = Id::parse(answer.id()).expect("an ID");
        let cookie = visitor.cookie.expect("a cookie");
        let (asked, acknowledged, unknown) = Default::default();
        Self { cookie, id, asked, acknowledged, unknown, numbers: Mutex::default(), filled: Mutex::new([0].into()) }
    }

    /// Asks for something, as the visitor with this session.
    fn ask(&self, book: &Book, visitor: &mut Visitor, method: &str, target: &str) -> Reply {
        visitor.cookie = Some(self.cookie.clone());
        let reply = book.ask(visitor, method, target, "");
        if let Reply::Done(Answer { set_cookie: Some(_), .. }) = &reply {
            book.fail(format_args!("{method} {target}: the session was taken for lost"));
        }
        reply
    }

    /// Adds one, in the given of four ways.
    pub fn count(&self, book: &Book, visitor: &mut Visitor, way: usize) {
        let (method, path, is_told) = WAYS[way % WAYS.len()];
        let before = self.acknowledged.load(SeqCst);
        self.asked.fetch_add(1, SeqCst);
        match self.ask(book, visitor, method, path) {
            Reply::Done(answer) => {
                if is_told && answer.status == 200 {
                    let number = answer.number("Counter");
                    if number <= before || number > self.asked.load(SeqCst) {
                        book.fail(format_args!("{method} {path} was told {number} after {before} had been"));
                    }
                    self.numbers.lock().unwrap().push(number);
                }
                self.acknowledged.fetch_add(1, SeqCst);
            }
            Reply::Refused => {}
            Reply::Unknown => _ = self.unknown.fetch_add(1, SeqCst),
        }
    }

    /// Reads the counter by way of the pool.
    pub fn read(&self, book: &Book, visitor: &mut Visitor) {
        let before = self.acknowledged.load(SeqCst);
        if let Reply::Done(answer) = self.ask(book, visitor, "GET", "/read") {
            let number = answer.number("Counter");
            if number < before || number > self.asked.load(SeqCst) {
                book.fail(format_args!("GET /read was told {number} after {before} had been acknowledged"));
            }
        }
    }

    /// Makes the session larger or smaller. For one visitor at a time.
    pub fn fill(&self, book: &Book, visitor: &mut Visitor, method: &str, bytes: usize) {
        self.filled.lock().unwrap().insert(bytes);
        let reply = self.ask(book, visitor, method, &format!("/fill?bytes={bytes}"));
        if let Reply::Done(_) = reply {
            self.filled.lock().unwrap().retain(|&one| one == bytes);
        }
    }

    /// Looks at the session without a lock, as any reader does: it is there, whole, and not older than what had been
    /// acknowledged before.
    pub fn look(&self, book: &Book, store: &DirectoryStore) {
        let (before, filled) = (self.acknowledged.load(SeqCst), self.filled.lock().unwrap().clone());
        match store.load(&self.id) {
            Ok(Some(stored)) => {
                let count = counter(&stored.record);
                let after = self.asked.load(SeqCst);
                if !(before..=after).contains(&count) {
                    book.fail(format_args!("a look found {count} counts of {before} to {after}"));
                }
                let bytes = stuffing(&stored.record);
                if !filled.contains(&bytes) && !self.filled.lock().unwrap().contains(&bytes) {
                    book.fail(format_args!("a look found {bytes} bytes where there should be {filled:?}"));
                }
            }
            Ok(None) => book.fail("a look found no session"),
            Err(error) => book.fail(format_args!("a look failed: {error}")),
        }
        book.looks.fetch_add(1, SeqCst);
    }

    /// At the end, when nobody asks any more: what is in the file is what was acknowledged, and besides at most what
    /// nobody knows of. Returns how many counts these are: acknowledged, in the file, unknown.
    pub fn check(&self, book: &Book, store: &DirectoryStore) -> [u64; 3] {
        self.look(book, store);
        let count = store.load(&self.id).ok().flatten().map_or(0, |stored| counter(&stored.record));
        let [acknowledged, unknown] = [&self.acknowledged, &self.unknown].map(|count| count.load(SeqCst));
        if count < acknowledged || count > acknowledged + unknown {
            book.fail(format_args!("{count} counts, {acknowledged} acknowledged and {unknown} unknown"));
        }
        let mut numbers = self.numbers.lock().unwrap();
        let told = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.len() < told {
            book.fail(format_args!("{} counts were told the number of another", told - numbers.len()));
        }
        [acknowledged, count, unknown]
    }

    /// No lock was left behind: a request that needs it is answered at once.
    pub fn assert_is_free(&self, book: &Book, door: &Door) {
        self.count(book, &mut Visitor::new(door), 3);
    }
}

fn counter(record: &Record) -> u64 {
    record.get("counter").expect("a number").unwrap_or(0)
}

fn stuffing(record: &Record) -> usize {
    record.get::<String>("fill").expect("text").map_or(0, |text| text.len())
}

/// Looks at all of them, all the time.
pub fn look_all_the_time(coats: &[Coat], book: &Book, store: &DirectoryStore) {
    while book.goes_on() {
        for coat in coats {
            coat.look(book, store);
        }
        // The others want a processor as well.
        thread::sleep(Duration::from_millis(1));
    }
}
