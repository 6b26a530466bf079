//! The scoreboard: what the workers do, in memory that the master sees.
//!
//! One slot per worker, written by that worker while it lives and by the master before and after. Everything is an
//! atomic word; the text of a slot is only read once its worker is dead or overdue, and a torn one would merely look
//! odd in the log.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use http::{Method, StatusCode};
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

use crate::server::activity::Activity;
use crate::sys::deadline::{Answer, Words};
use crate::sys::{process, shared, signal};

/// Words of a slot: 4 cache lines, so that workers do not slow each other down.
const SLOT: usize = 32;
/// What concerns all: words before the first slot, those that change often on cache lines of their own.
const LAST: usize = 0;
const STOPPING: usize = 1;
const MASTER: usize = 2;
const SHELF: usize = 8;
const IDLE: usize = 16;
/// The words of a slot.
const STATE: usize = 0;
const CURRENT: usize = 1;
const CONDEMNED: usize = 2;
const CLIENT: usize = 3;
const ANSWER: usize = 4;
const STARTED: usize = 5;
const LENGTHS: usize = 6;
const TEXT: usize = 7;
const TEXT_BYTES: usize = (SLOT - TEXT) * 8;

/// A slot's worker is not ready yet.
const BOOTING: u64 = 0;
/// It serves.
const READY: u64 = 1;

/// The time of a clock that never jumps and stands still while the machine is suspended, in milliseconds. All
/// processes see the same.
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1000 + time.tv_nsec.cast_unsigned() / 1_000_000
}

/// `time` in milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn pid(pid: Option<Pid>) -> u64 {
    pid.map_or(0, |pid| u64::from(pid.as_raw_nonzero().get().cast_unsigned()))
}

/// The shared memory. The first slot's place is taken by what concerns all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scoreboard {
    words: &'static [AtomicU64],
}

impl Scoreboard {
    /// A scoreboard for `slots` workers of this process.
    pub(super) fn new(slots: usize) -> io::Result<Self> {
        let words = shared::words((slots + 1) * SLOT)?;
        words[MASTER].store(pid(Some(process::id())), Relaxed);
        Ok(Self { words })
    }

    /// How many workers it has room for.
    pub(super) fn slots(&self) -> usize {
        self.words.len() / SLOT - 1
    }

    /// The slot of worker `number`.
    pub(super) fn slot(&self, number: usize) -> Slot {
        Slot { words: &self.words[(number + 1) * SLOT..][..SLOT] }
    }

    /// Tells the workers that nobody will serve after them: connections that wait in a queue are theirs.
    pub(super) fn set_last(&self) {
        self.words[LAST].store(1, Release);
    }

    /// Whether nobody will serve after the workers that there are.
    pub(super) fn is_last(&self) -> bool {
        self.words[LAST].load(Acquire) != 0
    }

    /// Tells the workers that all of them leave.
    pub(super) fn set_stopping(&self) {
        self.words[STOPPING].store(1, Release);
    }

    /// Whether all workers leave, asked by one of them: their master stops, or is dead. Others may still serve the
    /// listeners, where those are inherited.
    pub(super) fn is_stopping(&self) -> bool {
        self.words[STOPPING].load(Acquire) != 0 || pid(process::parent()) != self.words[MASTER].load(Relaxed)
    }

    /// Whether a connection may be on the shelf: a hint that saves a system call.
    pub(super) fn is_shelf_used(&self) -> bool {
        self.words[SHELF].load(Acquire) != 0
    }

    pub(super) fn set_shelf_used(&self, used: bool) {
        self.words[SHELF].store(used.into(), Release);
    }

    /// How many workers wait for something to do. One that was killed while it waited is counted for ever: this is
    /// for who would be glad of help, and may be wrong.
    pub(super) fn idle(&self) -> u64 {
        self.words[IDLE].load(Relaxed)
    }

    /// Counts the worker as idle while `wait` runs.
    pub(super) fn while_idle<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.words[IDLE].fetch_add(1, Relaxed);
        let result = wait();
        self.words[IDLE].fetch_sub(1, Relaxed);
        result
    }
}

/// The words of one worker.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    words: &'static [AtomicU64],
}

/// A request at work, as the master sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// The number of the request among those of its worker.
    pub(super) number: u64,
    /// When the application was called for it.
    pub(super) started: u64,
}

impl Slot {
    /// Makes the slot ready for a new worker.
    pub(super) fn clear(&self) {
        for word in self.words {
            word.store(0, Relaxed);
        }
        self.words[STATE].store(BOOTING, Release);
    }

    /// The worker has set up its store and serves.
    pub(super) fn set_ready(&self) {
        self.words[STATE].store(READY, Release);
    }

    /// Whether the worker serves.
    pub(super) fn is_ready(&self) -> bool {
        self.words[STATE].load(Acquire) == READY
    }

    /// Leaves a word for the master: why the worker cannot start.
    pub(super) fn set_reason(&self, reason: &str) {
        self.set_text("", reason);
    }

    /// The request that the application works on, if it does.
    pub(super) fn work(&self) -> Option<Work> {
        match self.words[CURRENT].load(Acquire) {
            // The handler has decided to answer: the worker is as good as gone.
            0 | u64::MAX => None,
            number => Some(Work { number, started: self.words[STARTED].load(Relaxed) }),
        }
    }

    /// Whether the worker has begun any request.
    pub(super) fn has_worked(&self) -> bool {
        self.words[STARTED].load(Relaxed) != 0
    }

    /// Whether request `number` is over: neither at work nor being given up.
    pub(super) fn has_ended(&self, number: u64) -> bool {
        let current = self.words[CURRENT].load(Acquire);
        current != number && current != u64::MAX
    }

    /// Condemns request `number`; the signal comes after it.
    pub(super) fn condemn(&self, number: u64) {
        self.deadline().condemn(number);
    }

    /// The words that the handler looks at.
    pub(super) fn deadline(&self) -> Words {
        Words {
            current: &self.words[CURRENT],
            condemned: &self.words[CONDEMNED],
            client: &self.words[CLIENT],
            answer: &self.words[ANSWER],
        }
    }

    fn set_text(&self, first: &str, second: &str) {
        let mut bytes = [0u8; TEXT_BYTES];
        let first_length = first.len().min(TEXT_BYTES);
        let second_length = second.len().min(TEXT_BYTES - first_length);
        bytes[..first_length].copy_from_slice(&first.as_bytes()[..first_length]);
        bytes[first_length..][..second_length].copy_from_slice(&second.as_bytes()[..second_length]);
        let used = (first_length + second_length).div_ceil(8);
        for (word, bytes) in self.words[TEXT..].iter().zip(bytes.as_chunks().0).take(used) {
            word.store(u64::from_ne_bytes(*bytes), Relaxed);
        }
        self.words[LENGTHS].store((first_length as u64) << 32 | second_length as u64, Relaxed);
    }

    /// The method and the path of the last request, the end of a long path missing; or nothing and the reason that
    /// the worker could not start.
    pub(super) fn text(&self) -> (String, String) {
        let lengths = self.words[LENGTHS].load(Relaxed);
        let first = ((lengths >> 32) as usize).min(TEXT_BYTES);
        let second = ((lengths & 0xffff_ffff) as usize).min(TEXT_BYTES - first);
        let bytes: Vec<u8> = self.words[TEXT..].iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&bytes[..first]), text(&bytes[first..][..second]))
    }
}

/// The worker's own view of its slot: what connections tell it.
pub(super) struct Desk {
    slot: Slot,
    words: Words,
    client: Cell<RawFd>,
    answer: Cell<Answer>,
    busy: Cell<bool>,
    served: Cell<u64>,
    /// How many requests this worker serves before it leaves.
    limit: u64,
}

impl Desk {
    pub(super) fn new(slot: Slot, limit: u64) -> Self {
        Self {
            slot,
            words: slot.deadline(),
            client: Cell::new(-1),
            answer: Cell::new(Answer::Cgi),
            busy: Cell::new(false),
            served: Cell::new(0),
            limit,
        }
    }

    /// From now on requests come from this connection, which stays open until [`quiet`](Self::quiet).
    pub(super) fn attend(&self, client: RawFd, answer: Answer) {
        self.client.set(client);
        self.answer.set(answer);
    }

    /// The connection is served.
    pub(super) fn quiet(&self) {
        if self.busy.replace(false) {
            self.words.end(self.served.get());
        }
    }

    /// How many requests the worker has served.
    pub(super) fn served(&self) -> u64 {
        self.served.get()
    }

    /// Whether the worker has served as many requests as it should.
    pub(super) fn is_spent(&self) -> bool {
        self.served.get() >= self.limit
    }
}

impl Activity for Desk {
    fn begin(&self, method: &Method, path: &str) {
        self.quiet();
        let number = self.served.get() + 1;
        self.served.set(number);
        self.busy.set(true);
        self.slot.words[STARTED].store(now(), Relaxed);
        self.slot.set_text(method.as_str(), path);
        let answer = match self.answer.get() {
            Answer::Http if *method == Method::HEAD => Answer::HttpHead,
            answer => answer,
        };
        self.words.begin(number, self.client.get(), answer);
    }

    fn end(&self, _status: StatusCode) {
        self.quiet();
    }

    fn stopping(&self) -> bool {
        self.is_spent() || signal::asked_to_leave()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_tells_what_its_worker_does() {
        let board = Scoreboard::new(3).unwrap();
        assert_eq!(board.slots(), 3);
        let (slot, other) = (board.slot(1), board.slot(2));
        slot.clear();
        assert!(!slot.is_ready() && !slot.has_worked());
        slot.set_ready();
        let desk = Desk::new(slot, 2);
        desk.attend(7, Answer::Http);
        desk.begin(&Method::HEAD, "/slow");
        assert_eq!(slot.work().map(|work| work.number), Some(1));
        assert_eq!(slot.text(), ("HEAD".to_owned(), "/slow".to_owned()));
        assert!(!desk.is_spent());
        desk.end(StatusCode::OK);
        assert_eq!(slot.work(), None);
        assert!(slot.has_worked());
        desk.begin(&Method::GET, &"/é".repeat(500));
        let (method, path) = slot.text();
        assert_eq!(method, "GET");
        assert!(path.starts_with("/é/é") && path.len() <= TEXT_BYTES);
        assert!(desk.is_spent() && desk.stopping());
        desk.quiet();
        assert_eq!(slot.work(), None);
        assert!(!other.is_ready());
        assert_eq!(other.text(), (String::new(), String::new()));
        assert!(!board.is_last());
        board.set_last();
        assert!(board.is_last());
    }
}
