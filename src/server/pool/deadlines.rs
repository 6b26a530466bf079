//! Holding workers to their deadlines: the application is told at the soft one; at the hard one the client is answered
//! and the worker killed.

use std::fmt::Write as _;
use std::time::Duration;

use rustix::process::Pid;

use super::clock::{millis, seconds};
use super::crew::{Condemned, Crew, Member};
use super::scoreboard::{Event, LockState, Scoreboard, Slot, Work};
use crate::sys::log::log;
use crate::sys::process;
use crate::sys::signal::Signal;

/// How long a worker may take to become ready.
const BOOT_TIMEOUT: u64 = 60_000;
/// How long a worker that was told to give up its request may take to die.
const GIVE_UP_TIMEOUT: u64 = 1_000;
/// No deadline is shorter: the master looks at requests that are to come as often as that.
const SHORTEST: u64 = 10;

/// How long requests may take, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    soft: Option<u64>,
    hard: Option<u64>,
    /// Nobody is killed for a deadline before this time.
    spare_until: u64,
}

impl Deadlines {
    pub(super) fn new(soft: Option<Duration>, hard: Option<Duration>) -> Self {
        let limit = |time| millis(time).max(SHORTEST);
        Self { soft: soft.map(limit), hard: hard.map(limit), spare_until: 0 }
    }

    /// Everybody has so much time more: nobody was running for so long.
    pub(super) fn spare(&mut self, until: u64) {
        self.spare_until = self.spare_until.max(until);
    }

    /// Does what is due. Returns when to look again.
    pub(super) fn enforce(&self, crew: &mut Crew, board: Scoreboard, time: u64) -> u64 {
        crew.iter_mut()
            .filter(|member| !member.killed)
            .map(|member| self.enforce_one(member, board, time))
            .min()
            .unwrap_or(u64::MAX)
    }

    fn enforce_one(&self, member: &mut Member, board: Scoreboard, time: u64) -> u64 {
        let mut wake = u64::MAX;
        if let Some(until) = member.leaving {
            if time >= until {
                cut_off(member, board, time);
                return wake;
            }
            wake = until;
        }
        let Some(slot) = member.slot(board) else { return wake };
        if !member.ready {
            let until = (member.started + BOOT_TIMEOUT).max(self.spare_until);
            if time >= until {
                log!("{member} not ready after {}s, killed", BOOT_TIMEOUT / 1000);
                member.reason = Some(Event::Overdue);
                member.kill();
            }
            return wake.min(until);
        }
        // One that has ended in time after all is forgiven.
        if member.condemned.as_ref().is_some_and(|c| slot.has_ended(c.work.number)) {
            member.condemned = None;
        }
        if let Some(condemned) = &member.condemned {
            let until = condemned.at + GIVE_UP_TIMEOUT;
            if time >= until {
                member.kill();
            }
            return wake.min(until);
        }
        // A request that begins from now on cannot be overdue before the time has passed once; but it can be before one
        // that is at work now and was given more time.
        let work = slot.work();
        let begun = work.map_or(time, |work| work.started.saturating_add(work.extension));
        // One that is stopped, by no fault of a request: others would wait for what it has accepted.
        if let (Some(since), None, Some(hard)) = (member.stopped, work, self.hard) {
            let until = since.saturating_add(hard).max(self.spare_until);
            if time >= until {
                log!("{member} stopped for {:.1}s, killed", seconds(time.saturating_sub(since)));
                member.reason = Some(Event::Overdue);
                member.kill();
                return wake;
            }
            wake = wake.min(until);
        }
        if let Some(soft) = self.soft
            && work.is_none_or(|work| slot.told() != work.number)
        {
            let due = begun.saturating_add(soft).max(self.spare_until);
            match work {
                Some(work) if time >= due => remind(member, slot, board, work, time),
                _ => wake = wake.min(due).min(time.saturating_add(soft)),
            }
        }
        if let Some(hard) = self.hard {
            let due = begun.saturating_add(hard).max(self.spare_until);
            match work {
                Some(work) if time >= due => {
                    give_up(member, slot, work, time);
                    wake = wake.min(time + GIVE_UP_TIMEOUT);
                }
                _ => wake = wake.min(due).min(time.saturating_add(hard)),
            }
        }
        wake
    }
}

/// The soft deadline: the application's hook is called in the worker.
fn remind(member: &Member, slot: Slot, board: Scoreboard, work: Work, time: u64) {
    if !slot.tell(work.number) {
        return;
    }
    board.note(Event::SoftTimeout);
    log!("{member} takes long {}", describe(member.pid, slot, work, time));
    process::kill(member.pid, Signal::USR2);
}

/// The hard one: the client is answered, whatever the worker does, and the worker dies.
fn give_up(member: &mut Member, slot: Slot, work: Work, time: u64) {
    // While it still hangs where it hangs.
    let what = describe(member.pid, slot, work, time);
    match slot.deadline().take_over(work.number, member.pid) {
        Ok(Some(overdue)) => {
            // First its death, so that its locks and all else that it holds are free when the client hears of it.
            member.kill();
            overdue.answer();
            log!("{member} timed out {what}, killed");
            member.reason = Some(Event::TimedOut);
        }
        Ok(None) => {}
        Err(_) => {
            slot.deadline().condemn(work.number);
            process::kill(member.pid, Signal::USR2);
            member.condemned = Some(Condemned { work, at: time, what });
        }
    }
}

/// A worker that was told to leave long enough ago dies; the client of a request that is still at work is answered.
fn cut_off(member: &mut Member, board: Scoreboard, time: u64) {
    let request = member.slot(board).and_then(|slot| {
        let work = slot.work()?;
        let what = describe(member.pid, slot, work, time);
        Some((what, slot.deadline().take_over(work.number, member.pid).ok()??))
    });
    member.reason = Some(Event::Overdue);
    member.kill();
    if let Some((what, client)) = request {
        client.answer();
        log!("{member} did not leave in time {what}, killed");
    } else {
        log!("{member} did not leave in time, killed");
    }
}

/// A request at work and where it hangs, for the log.
fn describe(pid: Pid, slot: Slot, work: Work, time: u64) -> String {
    let (method, path) = slot.text();
    let age = seconds(time.saturating_sub(work.started));
    let (lock, _, since) = slot.lock();
    let lock = match lock {
        LockState::None => "none".to_owned(),
        state => format!("{}({:.1}s)", state.name(), seconds(time.saturating_sub(since))),
    };
    format!("method={method} path={path} age={age:.1}s lock={lock} {}", whereabouts(pid))
}

/// What the kernel tells of where a process is: its state and what it waits for.
fn whereabouts(pid: Pid) -> String {
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{}/{name}", pid.as_raw_nonzero())).unwrap_or_default();
        Some(text.trim().to_owned()).filter(|text| !text.is_empty() && text != "0")
    };
    // The name, in parentheses, may contain anything.
    let state = read("stat").and_then(|stat| stat.rsplit(") ").next().and_then(|rest| rest.chars().next()));
    let mut text = format!("state={}", state.unwrap_or('?'));
    if let Some(channel) = read("wchan") {
        _ = write!(text, " in={channel}");
    }
    if let Some(call) = read("syscall").and_then(|line| line.split(' ').next().map(str::to_owned)) {
        _ = write!(text, " syscall={call}");
    }
    // For root only: the innermost of the kernel's functions.
    if let Some(stack) = read("stack") {
        let names = stack.lines().filter_map(|line| line.split_whitespace().nth(1));
        let names: Vec<&str> = names.filter_map(|name| name.split('+').next()).take(4).collect();
        _ = write!(text, " stack={}", names.join("<"));
    }
    text
}
