//! Workers come and go: how many are wanted, who is started, and what a death means.

use std::io;
use std::sync::atomic::{Ordering::SeqCst, fence};

use rustix::process::Pid;

use super::Master;
use crate::server::exit::{EXIT_TEMPORARY, EXIT_USAGE};
use crate::server::listener::Listener;
use crate::server::pool::clock::{millis, now};
use crate::server::pool::crew::Member;
use crate::server::pool::scoreboard::{Event, Slot};
use crate::server::pool::staff::Step;
use crate::server::pool::worker::{self, EXIT_BOOT, EXIT_BOOT_CONFIGURATION};
use crate::sys::deadline::EXIT_TIMED_OUT;
use crate::sys::log::log;
use crate::sys::process::{self, Death};
use crate::sys::signal::{Blocked, Signal};

/// After so many workers in a row that could not start, and none that could, the master gives up.
const MAX_BOOT_FAILURES: u32 = 5;
/// A worker that dies sooner after its start, without having begun a request, is respawned with a delay.
const FAST_DEATH: u64 = 1_000;
/// For so long a worker that calls since all are busy is not heard again, where there may be more workers and where not.
const CALLED: u64 = 2;
const CALLED_IN_VAIN: u64 = 1_000;
/// And for so long somebody must wait, with nobody idle, before there is one more.
const CONFIRMED: u64 = 1;

impl Master<'_> {
    /// Makes the crew what it should be.
    pub(super) fn balance(&mut self) -> io::Result<()> {
        let time = now();
        let until = time.saturating_add(millis(self.options.graceful_timeout));
        self.backoff.release(time);
        loop {
            if self.reloading && self.crew.iter().all(|member| member.generation == self.generation) {
                self.reloading = false;
                self.board.note(Event::Reload);
                log!("master pid={} reloaded", self.pid.as_raw_nonzero());
                self.notify.send("READY=1");
            }
            let step = self.staff.next_step(&self.crew, self.board, self.generation);
            let range = self.staff.range();
            self.board.set_wanted(range.min, range.max, self.staff.target());
            match step {
                Step::Rest => return Ok(()),
                Step::Retire(pid, reason) => {
                    let member = self.crew.iter_mut().find(|member| member.pid == pid);
                    if let Some(member) = member {
                        member.reason = Some(reason);
                        member.slot(self.board).inspect(Slot::set_leaving);
                        member.leave(until);
                    }
                }
                Step::Spawn(missing) => {
                    if !self.backoff.allows(missing) || !self.spawn(time)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Starts a worker. False where that must wait.
    pub(super) fn spawn(&mut self, time: u64) -> io::Result<bool> {
        let Some(number) = self.crew.free_number(self.board.slots()) else { return Ok(false) };
        self.board.prepare(number, self.generation);
        let setting = worker::Setting {
            host: self.host,
            listeners: self.listeners,
            board: self.board,
            shelf: &self.shelf,
            dock: &self.dock,
            number,
            master: self.pid,
            ready: &self.ready.1,
            options: self.options,
        };
        // Until the child has handlers of its own, a signal would reach the master's pipe through it.
        let blocked = Blocked::all();
        match process::spawn(move || worker::run(&setting, blocked)) {
            Ok(pid) => {
                self.crew.push(Member::new(number, pid, self.generation, time));
                Ok(true)
            }
            Err(error) if self.ever_ready => {
                log!("master pid={} cannot start a worker: {error}", self.pid.as_raw_nonzero());
                self.backoff.hold(time);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn note_ready(&mut self) {
        let time = now();
        for member in self.crew.iter_mut() {
            let Some(slot) = member.slot(self.board) else { continue };
            if !member.ready && slot.is_ready() {
                member.ready = true;
                self.ever_ready = true;
                log!("{member} ready");
            }
            // During a reload it is the new workers who have to show that they can live.
            let counts = !self.reloading || member.generation == self.generation;
            if counts && member.ready && (slot.has_worked() || time.saturating_sub(member.started) >= FAST_DEATH) {
                self.backoff.relax();
            }
        }
        let target = self.staff.target();
        if !self.announced && self.stopping.is_none() && self.crew.staying().filter(|m| m.ready).count() >= target {
            self.announced = true;
            log!("master pid={} ready workers={target}", self.pid.as_raw_nonzero());
            self.notify.send("READY=1");
        }
    }

    /// Where all are busy and connections wait: one worker more.
    pub(super) fn look_out(&mut self) {
        let was_watching = std::mem::take(&mut self.watching);
        let suspected = std::mem::take(&mut self.suspected);
        let time = now();
        if self.stopping.is_some() || self.deaf_until.is_some_and(|until| time < until) {
            self.suspected = suspected;
            return;
        }
        self.deaf_until = None;
        // First the mark, then the look: who becomes busy in between calls again.
        let called = self.board.take_call();
        fence(SeqCst);
        if !called && !was_watching && !suspected && self.staff.target() > 0 {
            return;
        }
        if self.board.has_idle() || self.crew.staying().any(|member| !member.ready) {
            self.deaf_until = Some(time + CALLED);
            return;
        }
        let waiting = self.listeners.iter().any(Listener::has_waiting);
        if !waiting {
            // Nobody calls the master when somebody comes, so it sees to that itself.
            self.watching = self.staff.can_grow();
        } else if !suspected && self.staff.can_grow() && self.staff.target() > 0 {
            // A worker that has just answered may be about to take it.
            self.suspected = true;
            self.deaf_until = Some(time + CONFIRMED);
        } else if !self.staff.grow() {
            self.board.note(Event::Exhausted);
            self.deaf_until = Some(time + CALLED_IN_VAIN);
        }
    }

    /// A child has died: says how, and thinks about what that means.
    pub(super) fn bury(&mut self, pid: Pid, death: Death) {
        if self.candidate.as_ref().is_some_and(|candidate| candidate.pid == pid) {
            return self.judge(death);
        }
        if self.sweeper.bury(pid, death)
            || self.reporter.bury(pid, death, now())
            || self.porter.bury(pid, death, self.board, now())
        {
            return;
        }
        // A child that is no worker: somebody forked before run was called, or left an orphan to us (as process 1).
        let Some(member) = self.crew.remove(pid) else { return };
        let time = now();
        let expected = self.stopping.is_some() || member.leaving.is_some();
        let respawning = if expected { "" } else { ", respawning" };
        let slot = member.slot(self.board);
        let text = slot.map(|slot| slot.text().1).unwrap_or_default();
        let has_worked = slot.is_none_or(|slot| slot.has_worked());
        slot.inspect(Slot::leave);
        match (&member.condemned, death) {
            _ if member.reason == Some(Event::TimedOut) => {}
            (Some(condemned), Death::Exited(EXIT_TIMED_OUT)) => log!("{member} timed out {}, killed", condemned.what),
            (Some(condemned), Death::Killed(_)) if member.killed => {
                log!("{member} timed out {}, killed", condemned.what);
            }
            (_, Death::Exited(0)) => log!("{member} exited status=0"),
            (_, Death::Exited(status)) => log!("{member} exited status={status}{respawning}"),
            (_, Death::Killed(signal)) => log!("{member} killed signal={signal}{respawning}"),
        }
        let boot_failed = !member.ready && !expected;
        if let Some(stop) = &mut self.stopping {
            stop.vain |= !member.ready && death != Death::Exited(0);
        }
        if self.stopping.is_none() {
            let reason = match member.reason {
                _ if member.condemned.is_some() => Event::TimedOut,
                None if boot_failed => Event::BootFailed,
                reason => reason.unwrap_or(Event::Crashed),
            };
            self.board.note(reason);
        }
        if expected || member.reason == Some(Event::TimedOut) {
            return;
        }
        let has_lived = member.ready && (has_worked || time.saturating_sub(member.started) >= FAST_DEATH);
        if self.ever_ready && !member.killed && death == Death::Killed(Signal::KILL.as_raw()) {
            // A program does not do that to itself: it was a person, or the kernel out of memory. So it says nothing of
            // the workers that come after it, and there is no reason to give up, nor to take a reload back.
            if !has_lived {
                self.backoff.hold_briefly(time);
            }
        } else if boot_failed {
            let reason = match death {
                Death::Exited(EXIT_BOOT | EXIT_BOOT_CONFIGURATION) => text,
                Death::Exited(status) => format!("exited with status {status} before it was ready"),
                Death::Killed(signal) => format!("killed by signal {signal} before it was ready"),
            };
            let lasting = death == Death::Exited(EXIT_BOOT_CONFIGURATION);
            self.died_fast(&reason, if lasting { EXIT_USAGE } else { EXIT_TEMPORARY }, time);
        } else if death != Death::Exited(0) && !has_lived {
            // It died of itself. One that died of a request is replaced at once, or whoever knows that request could
            // keep the pool empty.
            let reason = match death {
                Death::Exited(status) => format!("exited with status {status} as soon as it was ready"),
                Death::Killed(signal) => format!("killed by signal {signal} as soon as it was ready"),
            };
            self.died_fast(&reason, EXIT_TEMPORARY, time);
        }
    }

    /// A worker died that had hardly started: respawning waits, and where nobody else lives and that has not helped for
    /// long enough, it ends.
    fn died_fast(&mut self, reason: &str, status: u8, time: u64) {
        let pid = self.pid.as_raw_nonzero();
        let row = self.backoff.hold(time);
        if self.reloading {
            if row < MAX_BOOT_FAILURES && self.crew.staying().any(|member| member.generation < self.generation) {
                return;
            }
            log!("master pid={pid} reload failed, the old workers stay: {reason}");
            self.board.note(Event::ReloadFailed);
            self.reloading = false;
            for member in self.crew.iter_mut() {
                member.generation = self.generation;
            }
            self.notify.send("READY=1");
        }
        let nobody = self.crew.staying().all(|member| !member.ready);
        let enough = if self.ever_ready { self.backoff.is_exhausted() } else { row >= MAX_BOOT_FAILURES };
        if nobody && enough {
            log!("master pid={pid} gives up: {row} workers in a row could not start: {reason}");
            self.stop(status, true);
        }
    }
}
