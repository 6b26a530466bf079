//! What is counted, worker by worker: each has one writer, so no count needs a locked instruction.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use http::StatusCode;

/// The upper bounds of the latency histogram's buckets, in microseconds; above the last one is one bucket more.
pub(in crate::server::pool) const BOUNDS: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];

/// What is counted one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server::pool) enum Count {
    /// Sessions that were saved, created or deleted at the end of a request.
    Commits,
    /// Requests that were run again since their session had changed.
    Conflicts,
    /// Waits for a session's lock.
    LockWaits,
    /// Microseconds in them.
    LockWaitMicros,
    /// Waits that ended with the lock timeout.
    LockTimeouts,
    /// Waits that were refused since too many waited for the same session.
    LockRefusals,
    /// Requests that took longer than the threshold of the log.
    Slow,
    /// SCGI connections from where none may come.
    Forbidden,
    /// Lines that could not be written to the access log.
    LostLines,
}

/// How many counts there are.
const COUNTS: usize = 9;
/// One word for each class of status, 1xx to 5xx.
const CLASSES: usize = COUNTS;
const MICROS: usize = CLASSES + 5;
const BUCKETS: usize = MICROS + 1;
const WORDS: usize = BUCKETS + BOUNDS.len() + 1;

/// The counts in one slot.
#[derive(Clone, Copy)]
pub(in crate::server::pool) struct Tally {
    words: &'static [AtomicU64],
}

impl Tally {
    pub(super) fn new(words: &'static [AtomicU64]) -> Self {
        Self { words: &words[..WORDS] }
    }

    fn add_at(self, word: usize, amount: u64) {
        // Nobody else writes here.
        self.words[word].store(self.words[word].load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Counts; by the slot's own worker only.
    pub(in crate::server::pool) fn add(self, count: Count, amount: u64) {
        self.add_at(count as usize, amount);
    }

    /// Counts a request that was answered with `status` after so long; by the slot's own worker only.
    pub(in crate::server::pool) fn request(self, status: StatusCode, micros: u64) {
        self.add_at(CLASSES + (usize::from(status.as_u16()) / 100).clamp(1, 5) - 1, 1);
        self.add_at(MICROS, micros);
        self.add_at(BUCKETS + BOUNDS.iter().position(|&bound| micros <= bound).unwrap_or(BOUNDS.len()), 1);
    }
}

/// The counts of many slots together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::server::pool) struct Totals {
    counts: [u64; COUNTS],
    /// Answered requests by class of status, 1xx to 5xx.
    pub(in crate::server::pool) classes: [u64; 5],
    /// Microseconds from the call of the application to its answer, of all requests together.
    pub(in crate::server::pool) micros: u64,
    /// Requests by how long they took, see [`BOUNDS`].
    pub(in crate::server::pool) buckets: [u64; BOUNDS.len() + 1],
}

impl Totals {
    /// Adds what was counted in one slot.
    pub(in crate::server::pool) fn add(&mut self, tally: Tally) {
        let load = |word: usize| tally.words[word].load(Relaxed);
        self.counts.iter_mut().enumerate().for_each(|(i, count)| *count += load(i));
        self.classes.iter_mut().enumerate().for_each(|(i, count)| *count += load(CLASSES + i));
        self.micros += load(MICROS);
        self.buckets.iter_mut().enumerate().for_each(|(i, count)| *count += load(BUCKETS + i));
    }

    /// One of the counts.
    pub(in crate::server::pool) fn of(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    /// Answered requests.
    pub(in crate::server::pool) fn requests(&self) -> u64 {
        self.classes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::shared::Shared;

    #[test]
    fn counts_by_class_and_by_time() {
        let words = Shared::new(2 * WORDS).unwrap().words();
        let (one, other) = (Tally::new(words), Tally::new(&words[WORDS..]));
        one.request(StatusCode::OK, 100);
        one.request(StatusCode::NOT_FOUND, 101);
        other.request(StatusCode::from_u16(999).unwrap(), 10_000_001);
        one.add(Count::LostLines, 3);
        other.add(Count::Commits, 1);
        let mut totals = Totals::default();
        totals.add(one);
        totals.add(other);
        assert_eq!(totals.classes, [0, 1, 0, 1, 1]);
        assert_eq!(totals.requests(), 3);
        assert_eq!((totals.buckets[0], totals.buckets[1], totals.buckets[BOUNDS.len()]), (1, 1, 1));
        assert_eq!(totals.micros, 10_000_202);
        assert_eq!((totals.of(Count::LostLines), totals.of(Count::Commits), totals.of(Count::Slow)), (3, 1, 0));
        assert_eq!(Count::LostLines as usize, COUNTS - 1);
    }
}
