//! The crew: the workers that there are, as the master knows them.

use std::fmt;

use rustix::process::Pid;

use super::scoreboard::{Scoreboard, Work};
use crate::sys::process;
use crate::sys::signal::Signal;

/// A worker.
pub(super) struct Member {
    /// Its slot on the scoreboard, which is what the log calls it.
    pub(super) number: usize,
    pub(super) pid: Pid,
    pub(super) generation: u64,
    pub(super) started: u64,
    pub(super) ready: bool,
    /// It was told to leave, and is killed at this time.
    pub(super) leaving: Option<u64>,
    /// It was told to give up a request.
    pub(super) condemned: Option<Condemned>,
    /// It was sent SIGKILL.
    pub(super) killed: bool,
}

/// A request that took too long.
pub(super) struct Condemned {
    pub(super) work: Work,
    /// When the worker was told.
    pub(super) at: u64,
}

impl Member {
    pub(super) fn new(number: usize, pid: Pid, generation: u64, started: u64) -> Self {
        Self { number, pid, generation, started, ready: false, leaving: None, condemned: None, killed: false }
    }

    /// Tells it to leave, and remembers until when.
    pub(super) fn leave(&mut self, until: u64) {
        // One that was told before keeps its earlier end.
        self.leaving = Some(self.leaving.map_or(until, |before| before.min(until)));
        process::kill(self.pid, Signal::TERM);
    }

    /// Tells it to give up a request.
    pub(super) fn condemn(&mut self, work: Work, at: u64) {
        self.condemned = Some(Condemned { work, at });
        process::kill(self.pid, Signal::USR2);
    }

    pub(super) fn kill(&mut self) {
        self.killed = true;
        process::kill(self.pid, Signal::KILL);
    }
}

/// As the log names it.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker={} pid={}", self.number, self.pid.as_raw_nonzero())
    }
}

/// All workers that have not been buried, in the order in which they were started.
#[derive(Default)]
pub(super) struct Crew(Vec<Member>);

impl Crew {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.0.iter_mut()
    }

    /// Those that were not told to leave.
    pub(super) fn staying(&self) -> impl Iterator<Item = &Member> {
        self.0.iter().filter(|member| member.leaving.is_none())
    }

    pub(super) fn push(&mut self, member: Member) {
        self.0.push(member);
    }

    pub(super) fn remove(&mut self, pid: Pid) -> Option<Member> {
        let at = self.0.iter().position(|member| member.pid == pid)?;
        Some(self.0.remove(at))
    }

    /// Tells one worker to leave, that who is missed least: of an older generation than `generation` if there is one
    /// (rather one that is idle), else the one that was started last.
    pub(super) fn retire(&mut self, generation: u64, board: &Scoreboard, until: u64) {
        let is_old = |member: &Member| member.leaving.is_none() && member.generation < generation;
        let chosen = if self.0.iter().any(is_old) {
            let old = self.0.iter_mut().filter(|member| is_old(member));
            old.max_by_key(|member| board.slot(member.number).work().is_none())
        } else {
            self.0.iter_mut().rev().find(|member| member.leaving.is_none())
        };
        if let Some(member) = chosen {
            member.leave(until);
        }
    }
}

/// How long respawning waits when workers die as soon as they are there.
#[derive(Default)]
pub(super) struct Backoff {
    delay: u64,
    until: u64,
    /// How many places stay empty until then.
    held: usize,
}

impl Backoff {
    const FIRST: u64 = 50;
    const LAST: u64 = 5_000;
    /// After so long without a fast death the first delay is the first again.
    const FORGOTTEN: u64 = 10_000;

    /// A worker died fast: its place stays empty for a while.
    pub(super) fn hold(&mut self, time: u64) {
        self.held += 1;
        if time < self.until {
            return;
        }
        let forgotten = time.saturating_sub(self.until) > Self::FORGOTTEN;
        self.delay = if forgotten || self.delay == 0 { Self::FIRST } else { (2 * self.delay).min(Self::LAST) };
        self.until = time + self.delay;
    }

    /// Whether one of `missing` places may be filled now.
    pub(super) fn allows(&mut self, missing: usize, time: u64) -> bool {
        if time >= self.until {
            self.held = 0;
        }
        missing > self.held
    }

    /// When a place may be filled that is held empty now.
    pub(super) fn wake(&self, time: u64) -> u64 {
        if self.held > 0 { self.until.max(time) } else { u64::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_limit_and_is_forgotten() {
        let mut backoff = Backoff::default();
        let mut time = 1_000_000;
        let mut delays = Vec::new();
        for _ in 0..9 {
            backoff.hold(time);
            assert!(!backoff.allows(1, time));
            // Others that die meanwhile wait as well, but do not make it longer.
            backoff.hold(time);
            assert!(!backoff.allows(2, time));
            // A place that became free in peace is filled at once.
            assert!(backoff.allows(3, time));
            delays.push(backoff.wake(time) - time);
            time = backoff.wake(time);
            assert!(backoff.allows(1, time));
        }
        assert_eq!(delays, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.hold(time + 20_000);
        assert_eq!(backoff.wake(time) - time - 20_000, 50);
    }
}
