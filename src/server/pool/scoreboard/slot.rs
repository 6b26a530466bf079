//! The words of one worker, as everybody but that worker sees them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::tally::Tally;
use crate::server::pool::clock::now;
use crate::sys::deadline::Words;

const STATE: usize = 0;
const CURRENT: usize = 1;
const CONDEMNED: usize = 2;
const CLIENT: usize = 3;
const ANSWER: usize = 4;
const STARTED: usize = 5;
const LENGTHS: usize = 6;
const EXTENSION: usize = 7;
const GENERATION: usize = 8;
const BORN: usize = 9;
const IDLE_SINCE: usize = 10;
const LOCK: usize = 11;
const LOCK_SINCE: usize = 12;
const LOCK_KEY: usize = 13;
const TOLD: usize = 14;
const PID: usize = 15;
const WISH: usize = 16;
const LEFT_KEY: usize = 17;
const LEFT_AT: usize = 18;
const SESSION: usize = 19;
const PULSE: usize = 20;
const TEXT: usize = 21;
const TEXT_WORDS: usize = 32;
pub(super) const TEXT_BYTES: usize = TEXT_WORDS * 8;
/// What is counted.
const TALLY: usize = TEXT + TEXT_WORDS;

/// What a worker has to do with a lock takes so many bits of its word; above it is counted how often that changed.
const LOCK_BITS: u32 = 2;
const LOCK_MASK: u64 = (1 << LOCK_BITS) - 1;
const WAITS: u64 = 1;
const HOLDS: u64 = 2;

/// Nobody has the slot, or its worker is not ready yet.
const BOOTING: u64 = 0;
/// Its worker serves.
const READY: u64 = 1;

/// The words of one worker.
#[derive(Clone, Copy)]
pub(in crate::server::pool) struct Slot {
    words: &'static [AtomicU64],
}

/// A request at work, as the master sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server::pool) struct Work {
    /// The number of the request among those of its worker.
    pub(in crate::server::pool) number: u64,
    /// When the application was called for it.
    pub(in crate::server::pool) started: u64,
    /// By how much its deadlines were put off.
    pub(in crate::server::pool) extension: u64,
}

/// What a worker has to do with a session's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server::pool) enum LockState {
    /// Nothing.
    None,
    /// It waits for it.
    Waits,
    /// It holds it.
    Holds,
}

impl LockState {
    /// As log and reports name it.
    pub(in crate::server::pool) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Waits => "waits",
            Self::Holds => "holds",
        }
    }
}

impl Slot {
    pub(super) fn new(words: &'static [AtomicU64]) -> Self {
        Self { words }
    }

    /// Makes the slot ready for a new worker; what is counted stays.
    pub(super) fn clear(&self, generation: u64) {
        for word in &self.words[..TALLY] {
            word.store(0, Relaxed);
        }
        self.words[GENERATION].store(generation, Relaxed);
        self.words[BORN].store(now(), Relaxed);
        self.words[STATE].store(BOOTING, Release);
    }

    /// Its worker is dead: nothing more of it is at work, idle or locked.
    pub(in crate::server::pool) fn leave(&self) {
        self.words[STATE].store(BOOTING, Release);
        for word in [CURRENT, IDLE_SINCE, LOCK, PID] {
            self.words[word].store(0, Release);
        }
    }

    /// Its worker says who it is.
    pub(in crate::server::pool) fn set_pid(&self, pid: u64) {
        self.words[PID].store(pid, Relaxed);
    }

    /// The process of its worker; 0: none.
    pub(in crate::server::pool) fn pid(&self) -> u64 {
        self.words[PID].load(Relaxed)
    }

    /// The worker has set up its store and serves: it is idle until it is [`busy`](Self::busy).
    pub(in crate::server::pool) fn set_ready(&self) {
        self.words[IDLE_SINCE].store(now().max(1), Release);
        self.words[STATE].store(READY, Release);
    }

    /// Whether the worker serves.
    pub(in crate::server::pool) fn is_ready(&self) -> bool {
        self.words[STATE].load(Acquire) == READY
    }

    /// How many reloads there had been when the worker started.
    pub(in crate::server::pool) fn generation(&self) -> u64 {
        self.words[GENERATION].load(Relaxed)
    }

    /// When the worker was started.
    pub(in crate::server::pool) fn born(&self) -> u64 {
        self.words[BORN].load(Relaxed)
    }

    /// Leaves a word for the master: why the worker cannot start.
    pub(in crate::server::pool) fn set_reason(&self, reason: &str) {
        self.set_text("", reason);
    }

    /// The request that the application works on, if it does.
    pub(in crate::server::pool) fn work(&self) -> Option<Work> {
        match self.words[CURRENT].load(Acquire) {
            // It was given up: the worker is as good as gone.
            0 | u64::MAX => None,
            number => Some(Work {
                number,
                started: self.words[STARTED].load(Relaxed),
                extension: self.words[EXTENSION].load(Relaxed),
            }),
        }
    }

    pub(super) fn begin(&self, time: u64) {
        self.words[STARTED].store(time, Relaxed);
        self.words[EXTENSION].store(0, Relaxed);
        self.words[SESSION].store(0, Relaxed);
    }

    /// Puts the deadlines of the request at work off by so many milliseconds more.
    pub(in crate::server::pool) fn extend(&self, millis: u64) {
        let before = self.words[EXTENSION].load(Relaxed);
        self.words[EXTENSION].store(before.saturating_add(millis), Release);
    }

    /// The worker has served its share, and will leave when there is another in its place.
    pub(in crate::server::pool) fn wish_to_leave(&self) {
        let _ = self.words[WISH].compare_exchange(0, 1, Release, Relaxed);
    }

    /// Whether it has.
    pub(in crate::server::pool) fn wishes_to_leave(&self) -> bool {
        self.words[WISH].load(Acquire) != 0
    }

    /// For the master: the worker was told to leave.
    pub(in crate::server::pool) fn set_leaving(&self) {
        self.words[WISH].store(2, Release);
    }

    /// Whether it was.
    pub(in crate::server::pool) fn is_leaving(&self) -> bool {
        self.words[WISH].load(Acquire) == 2
    }

    /// Whether the worker has begun any request.
    pub(in crate::server::pool) fn has_worked(&self) -> bool {
        self.words[STARTED].load(Relaxed) != 0
    }

    /// Whether request `number` is over: neither at work nor being given up.
    pub(in crate::server::pool) fn has_ended(&self, number: u64) -> bool {
        let current = self.words[CURRENT].load(Acquire);
        current != number && current != u64::MAX
    }

    /// The application is to be told that request `number` takes long. False where it was told before.
    pub(in crate::server::pool) fn tell(&self, number: u64) -> bool {
        self.words[TOLD].swap(number, Release) != number
    }

    /// The number of the request that the application is to be told of.
    pub(in crate::server::pool) fn told(&self) -> u64 {
        self.words[TOLD].load(Acquire)
    }

    /// The words that the handler looks at.
    pub(in crate::server::pool) fn deadline(&self) -> Words {
        Words {
            current: &self.words[CURRENT],
            condemned: &self.words[CONDEMNED],
            client: &self.words[CLIENT],
            answer: &self.words[ANSWER],
        }
    }

    /// Since when the worker has had nothing to do.
    pub(in crate::server::pool) fn idle_since(&self) -> Option<u64> {
        Some(self.words[IDLE_SINCE].load(Acquire)).filter(|&since| since != 0)
    }

    /// The worker has nothing to do while `wait` runs. To be called by the worker.
    pub(in crate::server::pool) fn while_idle<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.words[IDLE_SINCE].store(now().max(1), Release);
        let result = wait();
        self.words[IDLE_SINCE].store(0, Release);
        result
    }

    /// The worker turns to a connection.
    pub(in crate::server::pool) fn busy(&self) {
        self.words[IDLE_SINCE].store(0, Release);
    }

    /// What the worker has to do with the lock of which session, and since when.
    pub(in crate::server::pool) fn lock(&self) -> (LockState, u64, u64) {
        loop {
            let word = self.words[LOCK].load(Acquire);
            let state = match word & LOCK_MASK {
                WAITS => LockState::Waits,
                HOLDS => LockState::Holds,
                _ => return (LockState::None, 0, 0),
            };
            let (key, since) = (self.words[LOCK_KEY].load(Acquire), self.words[LOCK_SINCE].load(Acquire));
            // Unless it has changed meanwhile the three belong together.
            if self.words[LOCK].load(Acquire) == word {
                return (state, key, since);
            }
        }
    }

    /// The lock of which session the worker gave back last, and when.
    pub(in crate::server::pool) fn left(&self) -> (u64, u64) {
        (self.words[LEFT_KEY].load(Acquire), self.words[LEFT_AT].load(Acquire))
    }

    /// To be called by the worker: what it has to do with the lock of the session `key` from now on. Who waits has
    /// waited since it first said so; who gives a lock back says so before it does.
    pub(in crate::server::pool) fn set_lock(&self, state: LockState, key: u64) {
        let before = self.words[LOCK].load(Relaxed);
        let turn = (before >> LOCK_BITS).wrapping_add(1) << LOCK_BITS;
        if before & LOCK_MASK == HOLDS {
            self.words[LEFT_AT].store(now(), Release);
            self.words[LEFT_KEY].store(self.words[LOCK_KEY].load(Relaxed), Release);
        }
        self.words[LOCK].store(turn, Release);
        let state = match state {
            LockState::None => return,
            LockState::Waits => WAITS,
            LockState::Holds => HOLDS,
        };
        self.words[LOCK_KEY].store(key, Release);
        self.words[LOCK_SINCE].store(now(), Release);
        self.words[LOCK].store(turn | state, Release);
    }

    /// How long the worker has run since somebody first asked this while it held the lock that it has held `since`, if it
    /// has run for `total` altogether. All in milliseconds.
    pub(in crate::server::pool) fn ran(&self, since: u64, total: u64) -> u64 {
        // In one word, as several may ask at once. Half of a word is weeks, and what counts are differences.
        let half = |millis: u64| millis & 0xffff_ffff;
        let word = self.words[PULSE].load(Relaxed);
        if word >> 32 != half(since) {
            self.words[PULSE].store(half(since) << 32 | half(total), Relaxed);
            return 0;
        }
        // Whoever asked first may have looked a little later.
        let ran = half(total.wrapping_sub(word));
        if ran > u64::from(u32::MAX) / 2 { 0 } else { ran }
    }

    /// The session that the request at work, or the last one, has used, as a key; 0: none.
    pub(in crate::server::pool) fn session(&self) -> u64 {
        self.words[SESSION].load(Relaxed)
    }

    /// To be called by the worker.
    pub(in crate::server::pool) fn set_session(&self, key: u64) {
        self.words[SESSION].store(key, Relaxed);
    }

    /// What its workers have counted.
    pub(in crate::server::pool) fn tally(&self) -> Tally {
        Tally::new(&self.words[TALLY..])
    }

    pub(super) fn set_text(&self, first: &str, second: &str) {
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
    pub(in crate::server::pool) fn text(&self) -> (String, String) {
        let lengths = self.words[LENGTHS].load(Relaxed);
        let first = ((lengths >> 32) as usize).min(TEXT_BYTES);
        let second = ((lengths & 0xffff_ffff) as usize).min(TEXT_BYTES - first);
        let text = &self.words[TEXT..][..TEXT_WORDS];
        let bytes: Vec<u8> = text.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&bytes[..first]), text(&bytes[first..][..second]))
    }
}
