//! The crew: the workers that there are, as the master knows them.

use std::fmt;

use rustix::process::Pid;

use super::scoreboard::{Event, Scoreboard, Slot, Work};
use crate::sys::log::log;
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
    /// Why it was told to, for who counts such things.
    pub(super) reason: Option<Event>,
    /// Since when it is stopped (`SIGSTOP`).
    pub(super) stopped: Option<u64>,
    /// It was told to give up a request.
    pub(super) condemned: Option<Condemned>,
    /// It was sent SIGKILL.
    pub(super) killed: bool,
    /// A program whose scoreboard this one cannot read has started it: all that is known is that it serves.
    pub(super) foreign: bool,
}

/// A request that took too long, and whose worker was asked to give it up.
pub(super) struct Condemned {
    pub(super) work: Work,
    /// When the worker was told.
    pub(super) at: u64,
    /// What the log says of it.
    pub(super) what: String,
}

impl Member {
    pub(super) fn new(number: usize, pid: Pid, generation: u64, started: u64) -> Self {
        Self {
            number,
            pid,
            generation,
            started,
            ready: false,
            leaving: None,
            reason: None,
            stopped: None,
            condemned: None,
            killed: false,
            foreign: false,
        }
    }

    /// Its slot, if this program can read it.
    pub(super) fn slot(&self, board: Scoreboard) -> Option<Slot> {
        (!self.foreign).then(|| board.slot(self.number))
    }

    /// Tells it to leave, and remembers until when.
    pub(super) fn leave(&mut self, until: u64) {
        // One that was told before keeps its earlier end.
        self.leaving = Some(self.leaving.map_or(until, |before| before.min(until)));
        process::kill(self.pid, Signal::TERM);
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

    /// Notes that somebody has stopped a worker, and says so: it keeps what it has, and does nothing.
    pub(super) fn stopped(&mut self, pid: Pid, signal: i32, time: u64) {
        if let Some(member) = self.iter_mut().find(|member| member.pid == pid && !member.killed) {
            member.stopped = Some(time);
            log!("{member} stopped signal={signal}");
        }
    }

    /// Notes that a worker goes on.
    pub(super) fn continued(&mut self, pid: Pid) {
        if let Some(member) = self.iter_mut().find(|member| member.pid == pid) {
            member.stopped = None;
        }
    }

    /// The lowest number that no worker has.
    pub(super) fn free_number(&self, slots: usize) -> Option<usize> {
        (0..slots).find(|&number| self.0.iter().all(|member| member.foreign || member.number != number))
    }
}
