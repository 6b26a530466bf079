//! The sweeper: starts the housekeeping at its interval, in a short-lived child, so that the master touches no store and
//! no worker is kept from its requests.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::clock::{millis, now};
use crate::host::Host;
use crate::session::{Store, Swept};
use crate::sys::log::log;
use crate::sys::process::{self, Death};
use crate::sys::signal::{self, Blocked, Signal};

/// A sweep that takes longer than so many intervals is taken for one that hangs, but none before the second.
const MAX_INTERVALS: u64 = 10;
const MIN_PATIENCE: u64 = 2_000;

/// When sweeps are due, and the one that is going on.
pub(super) struct Sweeper {
    /// The interval; `None`: never.
    every: Option<u64>,
    /// When the next one is due.
    next: u64,
    master: Pid,
    child: Option<Child>,
    stopping: bool,
    report: Report,
}

struct Child {
    pid: Pid,
    started: u64,
    /// It was sent SIGKILL.
    killed: bool,
}

impl Sweeper {
    /// A sweeper of the pool of `master`, which is this process. `next` is when the next one was due in the program that
    /// this process was before: a reload now and then must not put it off for ever.
    pub(super) fn new(every: Option<Duration>, next: Option<u64>, time: u64, master: Pid, report: Report) -> Self {
        let every = every.map(|every| millis(every).max(1));
        let first = every.map_or(u64::MAX, |every| time.saturating_add(first(every, master)));
        let next = next.filter(|_| every.is_some()).map_or(first, |next| next.min(first));
        Self { every, next, master, child: None, stopping: false, report }
    }

    /// Starts the sweep that is due, and ends the one that hangs. One that is still at it is not joined by another.
    pub(super) fn attend(&mut self, time: u64, host: &Host) {
        let Some(every) = self.every.filter(|_| !self.stopping) else { return };
        if let Some(child) = &mut self.child
            && !child.killed
            && time >= child.until(every)
        {
            child.killed = true;
            let age = Duration::from_millis(time.saturating_sub(child.started)).as_secs_f64();
            log!("sweep pid={} not done after {age:.1}s, killed", child.pid.as_raw_nonzero());
            process::kill(child.pid, Signal::KILL);
        }
        if time < self.next {
            return;
        }
        self.next = time.saturating_add(every);
        if let Some(store) = host.store()
            && self.child.is_none()
        {
            self.start(time, &**store);
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The sweep that is going on, for the program that comes after this one: its process and when it was started.
    pub(super) fn child(&self) -> Option<(i32, u64)> {
        self.child.as_ref().map(|child| (child.pid.as_raw_nonzero().get(), child.started))
    }

    /// Goes on with the one that was [going on](Self::child) in the program that this process was before.
    pub(super) fn resume(&mut self, child: (i32, u64)) {
        let (pid, started) = child;
        self.child = Pid::from_raw(pid).map(|pid| Child { pid, started, killed: false });
    }

    /// When to [`attend`](Self::attend) again.
    pub(super) fn wake(&self) -> u64 {
        let Some(every) = self.every.filter(|_| !self.stopping) else { return u64::MAX };
        let hangs = self.child.as_ref().filter(|child| !child.killed).map(|child| child.until(every));
        hangs.map_or(self.next, |hangs| hangs.min(self.next))
    }

    /// Whether it was the sweep that died; says how, where it did not end in peace.
    pub(super) fn bury(&mut self, pid: Pid, death: Death) -> bool {
        let Some(child) = self.child.take_if(|child| child.pid == pid) else { return false };
        if death != Death::Exited(0) && !self.stopping {
            self.report.count_failure();
            match death {
                // Said when it was done.
                Death::Killed(_) if child.killed => {}
                Death::Killed(signal) => log!("sweep pid={} killed signal={signal}", pid.as_raw_nonzero()),
                Death::Exited(status) => log!("sweep pid={} exited status={status}", pid.as_raw_nonzero()),
            }
        }
        true
    }

    /// The pool stops: nothing is started any more, and the sweep is told to end. It need not be waited for, as the
    /// kernel kills it when the master is gone.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        if let Some(child) = &self.child {
            process::kill(child.pid, Signal::TERM);
        }
    }

    fn start(&mut self, time: u64, store: &dyn Store) {
        let (master, report) = (self.master, self.report);
        // Until the child has its own ways, a signal would reach the master's pipe through it.
        let blocked = Blocked::all();
        match process::spawn(move || sweep(store, master, report, blocked)) {
            Ok(pid) => self.child = Some(Child { pid, started: time, killed: false }),
            Err(error) => log!("master pid={} cannot start a sweep: {error}", master.as_raw_nonzero()),
        }
    }
}

impl Child {
    /// When it is taken for one that hangs.
    fn until(&self, every: u64) -> u64 {
        self.started.saturating_add(every.saturating_mul(MAX_INTERVALS).max(MIN_PATIENCE))
    }
}

/// How long after its start a pool sweeps for the first time: a twentieth to a third of the interval, by the master's
/// process ID, so that pools that start together do not sweep together.
fn first(every: u64, master: Pid) -> u64 {
    let pid = u64::from(master.as_raw_nonzero().get().cast_unsigned());
    every / 20 + (pid.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % (every / 4 + 1)
}

/// The life of the child; returns its exit status.
fn sweep(store: &dyn Store, master: Pid, report: Report, blocked: Blocked) -> i32 {
    signal::restore_defaults();
    drop(blocked);
    // KILL, as one that is stopped would keep the lock of the sweep for ever. It can be killed at any instant.
    if !process::signal_when_parent_dies(master, Signal::KILL) {
        return 0;
    }
    process::give_way();
    let pid = process::id().as_raw_nonzero();
    let start = Instant::now();
    match store.sweep(None, None) {
        Ok(None) => log!("sweep pid={pid} skipped: another process is sweeping"),
        Ok(Some(swept)) => {
            let took = start.elapsed();
            report.store(swept, took);
            if swept.deleted > 0 {
                let Swept { deleted, remaining, lag, .. } = swept;
                let (took, lag) = (took.as_secs_f64(), lag.as_secs_f64());
                log!("sweep pid={pid} deleted={deleted} remaining={remaining} took={took:.3}s lag={lag:.1}s");
            }
        }
        Err(error) => {
            report.count_failure();
            log!("sweep pid={pid} failed: {}", crate::error::Error::from(error));
        }
    }
    0
}

/// What the sweeps have done, in memory that the child shares with the rest of the pool. Word by word; whoever reads
/// while one is written sees some of either.
#[derive(Clone, Copy)]
pub(super) struct Report {
    words: &'static [AtomicU64],
}

const FINISHED: usize = 0;
const DELETED: usize = 1;
const REMAINING: usize = 2;
const LAG: usize = 3;
const TOOK: usize = 4;
const DELETED_IN_ALL: usize = 5;
const SWEEPS: usize = 6;
const FAILURES: usize = 7;

/// What the last sweep did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// When it ended, by the clock of the scoreboard.
    pub(super) finished: u64,
    pub(super) deleted: u64,
    pub(super) remaining: u64,
    /// Milliseconds, see [`Swept::lag`].
    pub(super) lag: u64,
    /// Milliseconds.
    pub(super) took: u64,
}

impl Report {
    /// How many words it takes.
    pub(super) const WORDS: usize = 8;

    /// A report in these words, which are zeros at first.
    pub(super) fn new(words: &'static [AtomicU64]) -> Self {
        Self { words: &words[..Self::WORDS] }
    }

    fn store(self, swept: Swept, took: Duration) {
        let set = |word: usize, value| self.words[word].store(value, Relaxed);
        set(DELETED, swept.deleted);
        set(REMAINING, swept.remaining);
        set(LAG, millis(swept.lag));
        set(TOOK, millis(took));
        self.words[DELETED_IN_ALL].fetch_add(swept.deleted, Relaxed);
        self.words[SWEEPS].fetch_add(1, Relaxed);
        self.words[FINISHED].store(now().max(1), Release);
    }

    fn count_failure(self) {
        self.words[FAILURES].fetch_add(1, Relaxed);
    }
}

impl Report {
    /// The last sweep that was not skipped and did not fail.
    pub(super) fn last(self) -> Option<Last> {
        let finished = self.words[FINISHED].load(Acquire);
        let get = |word: usize| self.words[word].load(Relaxed);
        let [deleted, remaining, lag, took] = [DELETED, REMAINING, LAG, TOOK].map(get);
        (finished > 0).then_some(Last { finished, deleted, remaining, lag, took })
    }

    /// How many sweeps there were since the pool started, how many failed or were killed, and how many sessions were
    /// deleted by all of them together.
    pub(super) fn totals(self) -> [u64; 3] {
        [SWEEPS, FAILURES, DELETED_IN_ALL].map(|word| self.words[word].load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::sys::shared::Shared;
    use crate::{Request, Response, Session};

    fn report() -> Report {
        Report::new(Shared::new(Report::WORDS).unwrap().words())
    }

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    fn host() -> Host {
        Host::new(|_: Request, _: &mut Session| Ok(Response::text(""))).sessions(MemoryStore::new())
    }

    #[test]
    fn pools_that_start_together_do_not_sweep_together() {
        let first: Vec<u64> = (1000..1100).map(|number| first(600_000, pid(number))).collect();
        assert!(first.iter().all(|time| (30_000..=180_000).contains(time)), "{first:?}");
        let early = first.iter().filter(|&&time| time < 105_000).count();
        assert!((30..=70).contains(&early), "{early}");
        assert!(super::first(1, pid(1)) <= 1);
    }

    #[test]
    fn without_an_interval_there_is_never_one() {
        let mut sweeper = Sweeper::new(None, None, 5, pid(1), report());
        assert_eq!(sweeper.wake(), u64::MAX);
        sweeper.attend(u64::MAX - 1, &host());
        assert!(sweeper.child.is_none());
        assert!(!sweeper.bury(pid(1), Death::Exited(0)));
    }

    #[test]
    fn one_that_is_at_it_is_not_joined_by_another_and_has_ten_intervals() {
        let mut sweeper = Sweeper::new(Some(Duration::from_secs(100)), None, 0, pid(1), report());
        // No process of any system has this ID.
        let child = pid(i32::MAX);
        sweeper.next = 100_000;
        sweeper.child = Some(Child { pid: child, started: 0, killed: false });
        sweeper.attend(100_000, &host());
        assert_eq!((sweeper.next, sweeper.wake()), (200_000, 200_000));
        for time in (200_000..1_000_000).step_by(100_000) {
            sweeper.attend(time, &host());
            assert!(!sweeper.child.as_ref().unwrap().killed, "{time}");
        }
        assert_eq!(sweeper.wake(), 1_000_000);
        sweeper.attend(1_000_000, &host());
        assert!(sweeper.child.as_ref().unwrap().killed);
        assert_eq!(sweeper.wake(), 1_100_000);
        assert!(!sweeper.bury(pid(7), Death::Exited(0)));
        assert!(sweeper.bury(child, Death::Killed(9)));
        assert_eq!(sweeper.report.totals(), [0, 1, 0]);
        sweeper.stop();
        assert_eq!(sweeper.wake(), u64::MAX);
    }

    #[test]
    fn a_short_interval_leaves_a_sweep_two_seconds() {
        let child = Child { pid: pid(1), started: 50, killed: false };
        assert_eq!(child.until(1), 2_050);
        assert_eq!(child.until(u64::MAX), u64::MAX);
    }

    #[test]
    fn what_a_sweep_did_is_seen() {
        let report = report();
        assert_eq!(report.last(), None);
        let lag = Duration::from_millis(4500);
        let swept = Swept { deleted: 3, remaining: 4, complete: true, lag };
        report.store(swept, Duration::from_millis(7));
        report.store(swept, Duration::from_millis(8));
        let last = report.last().unwrap();
        assert_eq!(Last { finished: 0, ..last }, Last { finished: 0, deleted: 3, remaining: 4, lag: 4500, took: 8 });
        assert_eq!(report.totals(), [2, 0, 6]);
    }
}
