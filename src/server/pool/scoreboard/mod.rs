//! The scoreboard: what the workers do, in memory that all processes of the pool see.
//!
//! One slot per worker, written by that worker while it lives and by the master before and after. Everything is an
//! atomic word; the text of a slot can be read while it is written, and a torn one would merely look odd in a report.
//! What is counted is never set back, also not when another worker takes the place. The board outlives the program: a
//! reload hands it to the next one, which takes it if it knows its layout.

mod desk;
mod name;
mod slot;
mod tally;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use rustix::process::Pid;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(super) use self::desk::Desk;
pub(super) use self::name::session_name;
pub(super) use self::slot::{LockState, Slot, Work};
pub(super) use self::tally::{BOUNDS, Count, Totals};
use crate::server::options::MAX_WORKERS;
use crate::session::Id;
use crate::sys::shared::Shared;
use crate::sys::{descriptor, process};

/// Words of a slot, and of what concerns all, which comes before the first slot.
const SLOT: usize = 128;
/// Changes whenever the meaning of a word does. `LAST` and `STOPPING` keep their places in every layout.
const LAYOUT: u64 = 0x636c_6f61_6b00_0005;

/// What concerns all; what changes often has a cache line of its own.
const LAYOUT_AT: usize = 0;
const LAST: usize = 1;
const STOPPING: usize = 2;
const MASTER: usize = 3;
const USED: usize = 4;
const SALT: usize = 5;
const SINCE: usize = 6;
const WANTED: usize = 7;
const SHELF: usize = 8;
const CALLED: usize = 16;
/// What the master counts: one word for each [`Event`].
const EVENTS: usize = 24;
/// What the last sweep did, see `sweeper`.
const SWEEP: usize = 48;
const SWEEP_WORDS: usize = 8;
/// Slow clients: one word for each [`Slow`].
const PORTER: usize = 56;

/// What is counted of slow clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slow {
    /// Those that the porter receives a request from now, and those whose request it cannot get rid of.
    Receiving,
    /// Those that it sends a response to now, or waits for to close.
    Sending,
    /// Connections that were handed to it.
    Handed,
    /// Those that it has closed to have room for others.
    Dropped,
    /// Porters that died.
    Deaths,
    /// 1 where none can be started.
    Missing,
    /// Bytes in files that it has open.
    Stored,
}

/// What happens to a pool, counted by its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A worker died that nobody had told to.
    Crashed,
    /// A worker was killed for a request that took too long.
    TimedOut,
    /// A worker had served its share.
    Recycled,
    /// A worker made place for one of a reload.
    Reloaded,
    /// A worker had nothing to do.
    Idle,
    /// A worker did not leave in time, or never became ready.
    Overdue,
    /// A worker could not start.
    BootFailed,
    /// A reload is complete.
    Reload,
    /// A reload failed.
    ReloadFailed,
    /// More workers were wanted than there may be.
    Exhausted,
    /// A request passed its soft deadline.
    SoftTimeout,
}

impl Event {
    /// All of them, in the order of their words.
    pub(super) const ALL: [Self; 11] = [
        Self::Crashed,
        Self::TimedOut,
        Self::Recycled,
        Self::Reloaded,
        Self::Idle,
        Self::Overdue,
        Self::BootFailed,
        Self::Reload,
        Self::ReloadFailed,
        Self::Exhausted,
        Self::SoftTimeout,
    ];
}

fn pid(pid: Option<Pid>) -> u64 {
    pid.map_or(0, |pid| u64::from(pid.as_raw_nonzero().get().cast_unsigned()))
}

/// The shared memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scoreboard {
    shared: &'static Shared,
}

impl Scoreboard {
    /// A scoreboard with room for `slots` workers of this process.
    pub(super) fn new(slots: usize) -> io::Result<Self> {
        let shared = Box::leak(Box::new(Shared::new((slots + 1) * SLOT)?));
        let board = Self { shared };
        board.words()[LAYOUT_AT].store(LAYOUT, Relaxed);
        board.words()[MASTER].store(pid(Some(process::id())), Relaxed);
        let mut salt = [0; 8];
        // From the kernel, which remembers nothing that a fork could copy.
        rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty())?;
        board.words()[SALT].store(u64::from_ne_bytes(salt), Relaxed);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        board.words()[SINCE].store(since.as_millis() as u64, Relaxed);
        Ok(board)
    }

    /// Room for every worker of a pool: those that leave still have their slots while their successors start.
    pub(super) fn for_pool() -> io::Result<Self> {
        Self::new(2 * MAX_WORKERS + 1)
    }

    /// Takes over the board of the program that this process was before. Where that has another layout, it is told that
    /// its workers are on their own, and there is a new one (and `false`).
    pub(super) fn take_over(number: Option<RawFd>) -> io::Result<(Self, bool)> {
        let missing = || io::Error::from(io::ErrorKind::InvalidInput);
        match Self::adopt(descriptor::adopt(number.ok_or_else(missing)?)?)? {
            Some(board) => Ok((board, true)),
            None => Ok((Self::for_pool()?, false)),
        }
    }

    fn adopt(fd: OwnedFd) -> io::Result<Option<Self>> {
        let shared = Shared::adopt(fd)?;
        let words = shared.words();
        if words.len() >= 2 * SLOT && words[LAYOUT_AT].load(Relaxed) == LAYOUT {
            return Ok(Some(Self { shared: Box::leak(Box::new(shared)) }));
        }
        // Nobody takes from their shelf what they would leave there.
        if let Some(stopping) = words.get(STOPPING) {
            stopping.store(1, Release);
        }
        Ok(None)
    }

    fn words(self) -> &'static [AtomicU64] {
        self.shared.words()
    }

    /// How many workers it has room for.
    pub(super) fn slots(self) -> usize {
        self.words().len() / SLOT - 1
    }

    /// The slot of worker `number`.
    pub(super) fn slot(self, number: usize) -> Slot {
        Slot::new(&self.words()[(number + 1) * SLOT..][..SLOT])
    }

    /// The slots that have ever had a worker.
    pub(super) fn used(self) -> impl Iterator<Item = (usize, Slot)> + use<> {
        let board = self;
        (0..self.words()[USED].load(Acquire) as usize).map(move |number| (number, board.slot(number)))
    }

    /// Makes slot `number` ready for worker `pid`, which is about to be started.
    pub(super) fn prepare(self, number: usize, generation: u64) {
        self.slot(number).clear(generation);
        self.words()[USED].fetch_max(number as u64 + 1, AcqRel);
    }

    /// Tells the workers that nobody will serve after them: connections that wait in a queue are theirs. `sealed`: no
    /// others can come.
    pub(super) fn set_last(self, sealed: bool) {
        self.words()[LAST].store(if sealed { 2 } else { 1 }, Release);
    }

    /// Whether nobody will come after those that wait in the queues.
    pub(super) fn is_sealed(self) -> bool {
        self.words()[LAST].load(Acquire) == 2
    }

    /// Whether nobody will serve after the workers that there are.
    pub(super) fn is_last(self) -> bool {
        self.words()[LAST].load(Acquire) != 0
    }

    /// Tells the workers that all of them leave.
    pub(super) fn set_stopping(self) {
        self.words()[STOPPING].store(1, Release);
    }

    /// Whether the master has told all workers to leave.
    pub(super) fn is_told_to_stop(self) -> bool {
        self.words()[STOPPING].load(Acquire) != 0
    }

    /// Whether all workers leave, asked by one of them: their master stops, or is dead. Others may still serve the
    /// listeners, where those are inherited.
    pub(super) fn is_stopping(self) -> bool {
        self.words()[STOPPING].load(Acquire) != 0 || pid(process::parent()) != self.words()[MASTER].load(Relaxed)
    }

    /// Whether a connection may be on the shelf: a hint that saves a system call.
    pub(super) fn is_shelf_used(self) -> bool {
        self.words()[SHELF].load(Acquire) != 0
    }

    pub(super) fn set_shelf_used(self, used: bool) {
        self.words()[SHELF].store(used.into(), Release);
    }

    /// Whether a worker waits for something to do.
    pub(super) fn has_idle(self) -> bool {
        self.used().any(|(_, slot)| slot.idle_since().is_some())
    }

    /// A worker found no idle one beside it: the master may want to know. True for the first that says so since the
    /// master [looked](Self::take_call).
    pub(super) fn call(self) -> bool {
        self.words()[CALLED].load(Relaxed) == 0 && self.words()[CALLED].swap(1, AcqRel) == 0
    }

    /// Lets workers call again.
    pub(super) fn take_call(self) -> bool {
        self.words()[CALLED].swap(0, AcqRel) != 0
    }

    /// What session IDs are hashed with, so that they can be told apart in reports and not be recognised.
    pub(super) fn salt(self) -> u64 {
        self.words()[SALT].load(Relaxed)
    }

    /// As what a session is known on the board; never 0.
    pub(super) fn key(self, id: &Id) -> u64 {
        xxh3_64_with_seed(id.as_bytes(), self.salt()).max(1)
    }

    /// When the pool was started, in milliseconds since 1970.
    pub(super) fn since(self) -> u64 {
        self.words()[SINCE].load(Relaxed)
    }

    /// How many workers there should be: at least, at most, and now.
    pub(super) fn wanted(self) -> (usize, usize, usize) {
        let word = self.words()[WANTED].load(Relaxed);
        let part = |shift: u32| ((word >> shift) & 0xffff) as usize;
        (part(0), part(16), part(32))
    }

    pub(super) fn set_wanted(self, min: usize, max: usize, now: usize) {
        self.words()[WANTED].store(min as u64 | (max as u64) << 16 | (now as u64) << 32, Relaxed);
    }

    /// Counts an event.
    pub(super) fn note(self, event: Event) {
        self.words()[EVENTS + event as usize].fetch_add(1, Relaxed);
    }

    /// How often an event was counted.
    pub(super) fn events(self, event: Event) -> u64 {
        self.words()[EVENTS + event as usize].load(Relaxed)
    }

    /// Says how many slow clients there are.
    pub(super) fn set_slow(self, slow: Slow, count: u64) {
        self.words()[PORTER + slow as usize].store(count, Release);
    }

    /// Counts a slow client, or something that has to do with them.
    pub(super) fn note_slow(self, slow: Slow) {
        self.words()[PORTER + slow as usize].fetch_add(1, Relaxed);
    }

    /// How many there are or were.
    pub(super) fn slow(self, slow: Slow) -> u64 {
        self.words()[PORTER + slow as usize].load(Acquire)
    }

    /// The words for what the last sweep did.
    pub(super) fn sweep(self) -> &'static [AtomicU64] {
        &self.words()[SWEEP..][..SWEEP_WORDS]
    }
}

/// What the next program [adopts](Scoreboard::adopt).
impl AsFd for Scoreboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_handed_on_and_keeps_what_was_counted() {
        let board = Scoreboard::new(3).unwrap();
        assert_eq!(board.slots(), 3);
        assert_eq!(board.used().count(), 0);
        board.prepare(1, 1);
        board.note(Event::Crashed);
        board.set_wanted(1, 512, 4);
        let next = Scoreboard::adopt(board.as_fd().try_clone_to_owned().unwrap()).unwrap().unwrap();
        assert_eq!(next.used().count(), 2);
        assert_eq!((next.events(Event::Crashed), next.events(Event::Exhausted)), (1, 0));
        assert_eq!(next.wanted(), (1, 512, 4));
        assert_eq!(next.salt(), board.salt());
        assert!(!next.is_last());
        board.set_last(false);
        assert!(next.is_last() && !next.is_sealed());
        board.set_last(true);
        assert!(next.is_last() && next.is_sealed());
        assert_eq!(next.words()[STOPPING].load(Relaxed), 0);
        board.words()[LAYOUT_AT].store(LAYOUT + 1, Relaxed);
        assert!(Scoreboard::adopt(board.as_fd().try_clone_to_owned().unwrap()).unwrap().is_none());
        assert_eq!(next.words()[STOPPING].load(Relaxed), 1);
    }

    #[test]
    fn a_call_is_made_once() {
        let board = Scoreboard::new(1).unwrap();
        assert!(board.call() && !board.call());
        assert!(board.take_call() && !board.take_call());
        assert!(board.call());
    }

    #[test]
    fn every_event_has_a_word() {
        assert!(Event::ALL.iter().enumerate().all(|(i, event)| *event as usize == i));
        assert!(EVENTS + Event::ALL.len() <= SWEEP);
        assert!(SWEEP + SWEEP_WORDS <= PORTER && PORTER + (Slow::Stored as usize) < SLOT);
    }
}
