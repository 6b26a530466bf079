//! The porter: waits for slow clients in a process of its own, so that no worker does.
//!
//! A worker that would have to wait leaves the connection on the dock, with what it has read or has still to send. The
//! porter never calls the application: a request that is complete goes on the shelf, for an idle worker. It is started
//! when something is first left for it, and not before: behind a front server that takes requests whole it never is.

mod client;
mod dispatch;
mod serve;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;

use super::PoolOptions;
use super::clock::millis;
use super::dock::Dock;
use super::scoreboard::{Scoreboard, Slow};
use super::shelf::Shelf;
use crate::host::Host;
use crate::server::listener::Listener;
use crate::sys::log::log;
use crate::sys::process::{self, Death};
use crate::sys::signal::{Blocked, Signal};

/// How long its place stays empty when it died soon after it was started, or could not be.
const DELAY: u64 = 1_000;

/// The porter, as its master knows it.
pub(super) struct Porter {
    pid: Option<Pid>,
    /// It is the one of the program that this process was before.
    is_outdated: bool,
    /// Those that make place for it, and when they are killed.
    leaving: Vec<(Pid, u64)>,
    /// Since when it is stopped (`SIGSTOP`).
    stopped: Option<u64>,
    started: u64,
    not_before: u64,
    /// When it is killed, once it was told to finish.
    until: Option<u64>,
}

/// What it needs, as it is in the master when it forks.
pub(super) struct Setting<'a> {
    pub(super) host: &'a Host,
    pub(super) listeners: &'a [Listener],
    pub(super) board: Scoreboard,
    pub(super) dock: &'a Arc<Dock>,
    pub(super) shelf: &'a Arc<Shelf>,
    pub(super) options: &'a PoolOptions,
    pub(super) master: Pid,
}

impl Porter {
    /// None yet, or the one of the program before.
    pub(super) fn new(before: Option<i32>) -> Self {
        let pid = before.and_then(Pid::from_raw);
        Self {
            pid,
            is_outdated: pid.is_some(),
            leaving: Vec::new(),
            stopped: None,
            started: 0,
            not_before: 0,
            until: None,
        }
    }

    /// Its process, for the next program.
    pub(super) fn pid(&self) -> Option<i32> {
        self.pid.map(|pid| pid.as_raw_nonzero().get())
    }

    /// What is readable when one is needed.
    pub(super) fn watch<'a>(&self, dock: &'a Dock, time: u64) -> Option<BorrowedFd<'a>> {
        use std::os::fd::AsFd as _;
        (self.pid.is_none() && self.until.is_none() && time >= self.not_before).then(|| dock.as_fd())
    }

    /// Starts one where one is needed, and ends one that is stopped for too long. Returns when to look again.
    pub(super) fn keep(&mut self, setting: &Setting<'_>, time: u64) -> u64 {
        let Setting { dock, .. } = *setting;
        let wake = self.enforce(setting.options, time);
        let is_needed = self.is_outdated || (self.pid.is_none() && dock.has_waiting());
        if !is_needed || self.until.is_some() {
            return wake;
        }
        if time < self.not_before {
            return wake.min(self.not_before);
        }
        wake.min(self.start(setting, time))
    }

    fn start(&mut self, setting: &Setting<'_>, time: u64) -> u64 {
        let Setting { board, master, .. } = *setting;
        // Until the child has handlers of its own, a signal would reach the master's pipe through it.
        let blocked = Blocked::all();
        match process::spawn(move || serve::run(setting, blocked)) {
            Ok(pid) => {
                self.is_outdated = false;
                if let Some(before) = self.pid.replace(pid) {
                    // What it has comes here by the dock.
                    process::kill(before, Signal::TERM);
                    self.leaving.push((before, time.saturating_add(patience(setting.options))));
                }
                (self.started, self.stopped) = (time, None);
                board.set_slow(Slow::Missing, 0);
                self.leaving.iter().map(|&(_, until)| until).min().unwrap_or(u64::MAX)
            }
            Err(error) => {
                log!("master pid={} cannot start the porter: {error}", master.as_raw_nonzero());
                board.set_slow(Slow::Missing, u64::from(self.pid.is_none()));
                self.not_before = time + DELAY;
                self.not_before
            }
        }
    }

    /// Whether it was the porter that died, or one before it.
    pub(super) fn bury(&mut self, pid: Pid, death: Death, board: Scoreboard, time: u64) -> bool {
        if let Some(at) = self.leaving.iter().position(|&(leaving, _)| leaving == pid) {
            self.leaving.remove(at);
            // Where what it held is lost, the count on the scoreboard is still its own: whatever wakes the other one has
            // that written anew.
            if death != Death::Exited(0) {
                self.reopen_log();
            }
            return true;
        }
        if self.pid != Some(pid) {
            return false;
        }
        (self.pid, self.is_outdated, self.stopped) = (None, false, None);
        board.set_slow(Slow::Missing, 0);
        // What it held is gone with it.
        board.set_slow(Slow::Receiving, 0);
        board.set_slow(Slow::Sending, 0);
        board.set_slow(Slow::Stored, 0);
        // One that has had nothing to do for long leaves by itself.
        if self.until.is_some() || death == Death::Exited(0) {
            return true;
        }
        board.note_slow(Slow::Deaths);
        if time.saturating_sub(self.started) < DELAY {
            self.not_before = time + DELAY;
        }
        let pid = pid.as_raw_nonzero();
        match death {
            Death::Exited(status) => log!("porter pid={pid} exited status={status}, its slow clients are lost"),
            Death::Killed(signal) => log!("porter pid={pid} killed signal={signal}, its slow clients are lost"),
        }
        true
    }

    /// Kills one that is stopped for longer than any request may take, and those before it that do not leave. Returns when
    /// to look again.
    fn enforce(&mut self, options: &PoolOptions, time: u64) -> u64 {
        let mut wake = u64::MAX;
        for (pid, until) in &mut self.leaving {
            if time >= *until {
                process::kill(*pid, Signal::KILL);
                *until = u64::MAX;
            }
            wake = wake.min(*until);
        }
        if let (Some(pid), Some(since), Some(hard)) = (self.pid, self.stopped, options.request_timeout) {
            let until = since.saturating_add(millis(hard));
            if time < until {
                return wake.min(until);
            }
            let stopped = Duration::from_millis(time.saturating_sub(since)).as_secs_f64();
            log!("porter pid={} stopped for {stopped:.1}s, killed", pid.as_raw_nonzero());
            process::kill(pid, Signal::KILL);
            self.stopped = None;
        }
        wake
    }

    /// Notes that somebody has stopped it, and says so. Workers wait for slow clients themselves meanwhile.
    pub(super) fn stopped(&mut self, pid: Pid, signal: i32, board: Scoreboard, time: u64) {
        if self.pid == Some(pid) {
            self.stopped = Some(time);
            board.set_slow(Slow::Missing, 1);
            log!("porter pid={} stopped signal={signal}", pid.as_raw_nonzero());
        }
    }

    /// Notes that it goes on.
    pub(super) fn continued(&mut self, pid: Pid, board: Scoreboard) {
        if self.pid == Some(pid) {
            self.stopped = None;
            board.set_slow(Slow::Missing, 0);
        }
    }

    /// It opens the access log again, which has another name by now.
    pub(super) fn reopen_log(&self) {
        if let Some(pid) = self.pid {
            process::kill(pid, Signal::USR1);
        }
    }

    /// The workers are gone: it finishes what it sends, until `until`, and leaves. Returns when to look again; `None`
    /// when it is gone.
    pub(super) fn finish(&mut self, until: u64, time: u64) -> Option<u64> {
        let pid = self.pid?;
        if self.until.is_none() {
            process::kill(pid, Signal::TERM);
        }
        let until = *self.until.insert(self.until.map_or(until, |before| before.min(until)));
        if time >= until {
            process::kill(pid, Signal::KILL);
            return Some(u64::MAX);
        }
        Some(until)
    }
}

/// How long a porter that leaves has for what it holds.
fn patience(options: &PoolOptions) -> u64 {
    millis(options.graceful_timeout)
}
