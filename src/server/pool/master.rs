//! The master: starts workers, buries them, and waits for signals, deaths and deadlines. It does nothing else.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::PoolOptions;
use super::crew::{Backoff, Crew, Member};
use super::notify::Notify;
use super::scoreboard::{Scoreboard, millis, now};
use super::shelf::Shelf;
use super::worker::{self, EXIT_BOOT, EXIT_BOOT_CONFIGURATION};
use crate::host::Host;
use crate::server::listener::Listener;
use crate::server::options::MAX_WORKERS;
use crate::sys::deadline::EXIT_TIMED_OUT;
use crate::sys::log::log;
use crate::sys::process::{self, Death};
use crate::sys::signal::{self, Action, Blocked, Signal, Signals};

/// The master exits with this when something failed that may work another time.
const EXIT_TEMPORARY: u8 = 111;
/// And with this when somebody has to change something first.
const EXIT_CONFIGURATION: u8 = 2;
/// After so many workers in a row that could not start, and none that could, the master gives up.
const MAX_BOOT_FAILURES: u32 = 5;
/// How long a worker may take to become ready.
const BOOT_TIMEOUT: u64 = 60_000;
/// How long a worker that was told to give up its request may take to die.
const GIVE_UP_TIMEOUT: u64 = 1_000;
/// A worker that dies sooner after its start, without having begun a request, is respawned with a delay.
const FAST_DEATH: u64 = 1_000;
/// A master that wakes up so much later than it meant to has not been running, and perhaps nobody has.
const LATE: u64 = 1_000;

struct Master<'a> {
    host: &'a Host,
    listeners: &'a [Listener],
    options: PoolOptions,
    board: Scoreboard,
    shelf: Arc<Shelf>,
    signals: Signals,
    /// Workers that became ready write a byte.
    ready: (OwnedFd, OwnedFd),
    notify: Notify,
    pid: Pid,
    crew: Crew,
    /// How many workers there should be.
    target: usize,
    /// Grows with each reload; older workers are replaced.
    generation: u64,
    reloading: bool,
    /// `READY=1` has been sent.
    announced: bool,
    ever_ready: bool,
    boot_failures: u32,
    backoff: Backoff,
    /// Nobody is killed for a deadline before this time.
    spare_until: u64,
    /// The exit status, once the pool is stopping.
    stopping: Option<u8>,
}

/// Runs the pool until a signal stops it; returns the exit status.
pub(super) fn run(host: &Host, listeners: &[Listener], options: PoolOptions) -> io::Result<u8> {
    let signals = Signals::install(&[
        (Signal::TERM, Action::Tell),
        (Signal::QUIT, Action::Tell),
        (Signal::INT, Action::Tell),
        (Signal::HUP, Action::Tell),
        (Signal::TTIN, Action::Tell),
        (Signal::TTOU, Action::Tell),
        (Signal::CHILD, Action::Tell),
        // Their default would end the master, and careless log rotation sends the first.
        (Signal::USR1, Action::Nothing),
        (Signal::USR2, Action::Nothing),
        (Signal::PIPE, Action::Ignore),
    ])?;
    signal::unblock_all();
    let pid = process::id();
    for listener in listeners {
        log!("master pid={} listening {} {listener}", pid.as_raw_nonzero(), listener.protocol);
    }
    // Those that leave still have their slots while their successors start.
    let board = Scoreboard::new(2 * MAX_WORKERS + 1)?;
    let mut master = Master {
        host,
        listeners,
        options,
        board,
        shelf: Arc::new(Shelf::new(board)?),
        signals,
        ready: pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?,
        notify: Notify::from_environment(),
        pid,
        crew: Crew::default(),
        target: options.workers,
        generation: 0,
        reloading: false,
        announced: false,
        ever_ready: false,
        boot_failures: 0,
        backoff: Backoff::default(),
        spare_until: 0,
        stopping: None,
    };
    master.attend()
}

impl Master<'_> {
    fn attend(&mut self) -> io::Result<u8> {
        loop {
            self.note_ready();
            while let Some((pid, death)) = process::reap() {
                self.bury(pid, death);
            }
            match self.stopping {
                Some(status) if self.crew.is_empty() => {
                    log!("master pid={} stopped", self.pid.as_raw_nonzero());
                    return Ok(status);
                }
                Some(_) => {}
                None => self.balance()?,
            }
            let wake = self.enforce(now());
            self.wait(wake)?;
            while let Some(signal) = self.signals.next() {
                self.obey(signal);
            }
        }
    }

    /// Waits for a signal, a ready worker, or `wake`.
    fn wait(&mut self, wake: u64) -> io::Result<()> {
        let left = wake.saturating_sub(now()).min(3_600_000);
        let planned = now().saturating_add(left);
        let time = Timespec { tv_sec: (left / 1000).cast_signed(), tv_nsec: ((left % 1000) * 1_000_000).cast_signed() };
        let mut descriptors = [PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.ready.0, PollFlags::IN)];
        match poll(&mut descriptors, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut bytes = [0; 256];
        while rustix::io::read(&self.ready.0, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
        let late = now().saturating_sub(planned);
        if late > LATE {
            // The machine or this container was frozen: what is overdue may be so for no fault of its own.
            self.spare_until = now().saturating_add(late);
            let seconds = seconds(late);
            log!("master pid={} was not running for {seconds:.1}s, deadlines moved", self.pid.as_raw_nonzero());
        }
        Ok(())
    }

    /// Does what `signal` says.
    fn obey(&mut self, signal: Signal) {
        let pid = self.pid.as_raw_nonzero();
        if signal == Signal::CHILD {
            return; // Who died is asked for in each turn.
        }
        if signal == Signal::INT {
            log!("master pid={pid} INT: stopping at once");
            self.stop(0, true);
        } else if self.stopping.is_some() {
            log!("master pid={pid} is stopping already");
        } else if signal == Signal::TERM || signal == Signal::QUIT {
            log!("master pid={pid} {}: stopping", if signal == Signal::TERM { "TERM" } else { "QUIT" });
            self.stop(0, false);
        } else if signal == Signal::HUP {
            log!("master pid={pid} HUP: replacing {} workers", self.crew.staying().count());
            self.generation += 1;
            self.reloading = true;
        } else if signal == Signal::TTIN {
            self.target = (self.target + 1).min(MAX_WORKERS);
            log!("master pid={pid} TTIN: workers={}", self.target);
        } else if signal == Signal::TTOU {
            self.target = (self.target - 1).max(1);
            log!("master pid={pid} TTOU: workers={}", self.target);
        }
    }

    /// Begins the end: the master stops with `status` when all workers are gone.
    fn stop(&mut self, status: u8, quick: bool) {
        let first = self.stopping.is_none();
        self.stopping.get_or_insert(status);
        if first {
            self.notify.send("STOPPING=1");
            self.board.set_stopping();
            if !self.listeners.iter().any(Listener::is_inherited) {
                self.board.set_last();
            }
            self.listeners.iter().for_each(Listener::refuse_more);
        }
        let patience = if quick { 0 } else { millis(self.options.graceful_timeout) };
        let until = now().saturating_add(patience);
        for member in self.crew.iter_mut() {
            if quick {
                member.killed = true;
                process::kill(member.pid, Signal::KILL);
            } else {
                member.leave(until);
            }
        }
    }

    /// Makes the crew what it should be: nobody too few or too many, nobody of an older generation.
    fn balance(&mut self) -> io::Result<()> {
        let time = now();
        let until = time.saturating_add(millis(self.options.graceful_timeout));
        loop {
            let old = self.crew.staying().filter(|member| member.generation < self.generation).count();
            let staying = self.crew.staying().count();
            let ready = self.crew.staying().filter(|member| member.ready).count();
            if self.reloading && self.crew.iter().all(|member| member.generation == self.generation) {
                self.reloading = false;
                log!("master pid={} reloaded", self.pid.as_raw_nonzero());
            }
            // While there are old ones, one worker more than usual is there: the next that takes a place.
            let wanted = self.target + usize::from(old > 0);
            if staying > wanted || (old > 0 && ready > self.target) {
                self.crew.retire(self.generation, &self.board, until);
            } else if staying < wanted && self.backoff.allows(wanted - staying, time) {
                if !self.spawn(time)? {
                    return Ok(());
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Starts a worker. False where that must wait.
    fn spawn(&mut self, time: u64) -> io::Result<bool> {
        let Some(number) = (0..self.board.slots()).find(|&number| self.crew.iter().all(|m| m.number != number)) else {
            return Ok(false);
        };
        self.board.slot(number).clear();
        let setting = worker::Setting {
            host: self.host,
            listeners: self.listeners,
            board: self.board,
            shelf: &self.shelf,
            number,
            master: self.pid,
            ready: &self.ready.1,
            max_requests: self.options.max_requests,
            graceful_timeout: self.options.graceful_timeout,
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

    fn note_ready(&mut self) {
        for member in self.crew.iter_mut().filter(|member| !member.ready) {
            if self.board.slot(member.number).is_ready() {
                member.ready = true;
                self.ever_ready = true;
                self.boot_failures = 0;
                log!("{member} ready");
            }
        }
        if !self.announced && self.stopping.is_none() && self.crew.staying().filter(|m| m.ready).count() >= self.target
        {
            self.announced = true;
            log!("master pid={} ready workers={}", self.pid.as_raw_nonzero(), self.target);
            self.notify.send("READY=1");
        }
    }

    /// A child has died: says how, and thinks about what that means.
    fn bury(&mut self, pid: Pid, death: Death) {
        // A child that is no worker: somebody forked before run was called.
        let Some(member) = self.crew.remove(pid) else { return };
        let time = now();
        let expected = self.stopping.is_some() || member.leaving.is_some();
        let respawning = if expected { "" } else { ", respawning" };
        let (method, text) = self.board.slot(member.number).text();
        let timed_out = match death {
            Death::Exited(status) => status == EXIT_TIMED_OUT,
            Death::Killed(signal) => signal == Signal::KILL.as_raw() && member.killed,
        };
        match (&member.condemned, death) {
            (Some(condemned), _) if timed_out => {
                let age = seconds(condemned.at.saturating_sub(condemned.work.started));
                log!("{member} timed out method={method} path={text} age={age:.1}s, killed");
            }
            (_, Death::Exited(0)) => log!("{member} exited status=0"),
            (_, Death::Exited(status)) => log!("{member} exited status={status}{respawning}"),
            (_, Death::Killed(signal)) => log!("{member} killed signal={signal}{respawning}"),
        }
        if expected {
            return;
        }
        if !member.ready {
            let reason = match death {
                Death::Exited(EXIT_BOOT | EXIT_BOOT_CONFIGURATION) => text,
                Death::Exited(status) => format!("exited with status {status} before it was ready"),
                Death::Killed(signal) => format!("killed by signal {signal} before it was ready"),
            };
            let lasting = death == Death::Exited(EXIT_BOOT_CONFIGURATION);
            self.boot_failed(&reason, if lasting { EXIT_CONFIGURATION } else { EXIT_TEMPORARY });
            self.backoff.hold(time);
        } else if death != Death::Exited(0)
            && time.saturating_sub(member.started) < FAST_DEATH
            && !self.board.slot(member.number).has_worked()
        {
            // It died of itself. One that died of a request is replaced at once, or whoever knows that request could
            // keep the pool empty.
            self.backoff.hold(time);
        }
    }

    fn boot_failed(&mut self, reason: &str, status: u8) {
        let pid = self.pid.as_raw_nonzero();
        self.boot_failures += 1;
        if !self.ever_ready && self.boot_failures >= MAX_BOOT_FAILURES {
            log!("master pid={pid} gives up: {MAX_BOOT_FAILURES} workers in a row could not start: {reason}");
            self.stop(status, true);
        } else if self.reloading {
            log!("master pid={pid} reload failed, the old workers stay: {reason}");
            self.reloading = false;
            for member in self.crew.iter_mut() {
                member.generation = self.generation;
            }
        }
    }

    /// Holds the workers to their deadlines. Returns when to look again.
    fn enforce(&mut self, time: u64) -> u64 {
        let mut wake = self.backoff.wake(time);
        let timeout = self.options.request_timeout.map(millis);
        for member in self.crew.iter_mut().filter(|member| !member.killed) {
            let slot = self.board.slot(member.number);
            if let Some(until) = member.leaving {
                if time >= until {
                    log!("{member} did not leave in time, killed");
                    member.kill();
                    continue;
                }
                wake = wake.min(until);
            }
            if !member.ready {
                let until = member.started + BOOT_TIMEOUT;
                if time >= until {
                    log!("{member} not ready after {}s, killed", BOOT_TIMEOUT / 1000);
                    member.kill();
                }
                wake = wake.min(until);
                continue;
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
                wake = wake.min(until);
            } else if let Some(timeout) = timeout {
                // A request that begins from now on cannot be overdue before the time has passed once.
                let work = slot.work();
                let due = work.map_or(time, |work| work.started).saturating_add(timeout).max(self.spare_until);
                match work {
                    Some(work) if time >= due => {
                        slot.condemn(work.number);
                        member.condemn(work, time);
                        wake = wake.min(time + GIVE_UP_TIMEOUT);
                    }
                    _ => wake = wake.min(due),
                }
            }
        }
        wake
    }
}

/// Milliseconds as the log writes them.
fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}
