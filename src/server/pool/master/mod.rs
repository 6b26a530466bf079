//! The master: starts workers, buries them, and waits for signals, deaths and deadlines. It does nothing else.
//!
//! Here is its loop; what it does to workers is in `personnel`, how it becomes a newer program in `succession`. How many
//! workers there should be is `staff`'s to say, and `deadlines` holds them to their time.

mod personnel;
mod succession;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use crate::host::Host;
use crate::server::listener::Listener;
use crate::server::options::AccessLog;
use crate::server::pool::PoolOptions;
use crate::server::pool::clock::{millis, now, seconds};
use crate::server::pool::crew::Crew;
use crate::server::pool::deadlines::Deadlines;
use crate::server::pool::dock::Dock;
use crate::server::pool::handoff::Handoff;
use crate::server::pool::notify::Notify;
use crate::server::pool::porter::{self, Porter};
use crate::server::pool::relay::Relay;
use crate::server::pool::reload::Candidate;
use crate::server::pool::reporter::Reporter;
use crate::server::pool::scoreboard::Scoreboard;
use crate::server::pool::shelf::Shelf;
use crate::server::pool::staff::{Backoff, Staff};
use crate::server::pool::sweeper::{Report, Sweeper};
use crate::sys::log::log;
use crate::sys::process::{self, Change};
use crate::sys::signal::{self, Action, Signal, Signals};

/// A master that wakes up so much later than it meant to has not been running, and perhaps nobody has.
const LATE: u64 = 1_000;

#[allow(clippy::struct_excessive_bools)] // Each is a fact of its own; no two make a state.
struct Master<'a> {
    host: &'a Host,
    listeners: &'a mut [Listener],
    reporter: &'a mut Reporter,
    options: &'a PoolOptions,
    board: Scoreboard,
    shelf: Arc<Shelf>,
    dock: Arc<Dock>,
    porter: Porter,
    signals: Signals,
    /// Workers that become ready, want to be replaced or find all others busy write a byte.
    ready: (OwnedFd, OwnedFd),
    notify: Notify,
    pid: Pid,
    crew: Crew,
    staff: Staff,
    deadlines: Deadlines,
    /// Grows with each reload; older workers are replaced.
    generation: u64,
    reloading: bool,
    /// A newer program, being tried out.
    candidate: Option<Candidate>,
    /// `HUP` came while one was.
    again: bool,
    /// All workers are busy: the master itself looks out for connections.
    watching: bool,
    /// Somebody waited when the master looked last.
    suspected: bool,
    /// When workers are heard again that call.
    deaf_until: Option<u64>,
    /// When it last stopped waiting.
    awake: u64,
    /// `READY=1` has been sent.
    announced: bool,
    ever_ready: bool,
    backoff: Backoff,
    sweeper: Sweeper,
    stopping: Option<Stop>,
}

/// The end of the pool.
#[derive(Clone, Copy)]
struct Stop {
    /// The exit status.
    status: u8,
    /// When whoever is left is killed.
    until: u64,
    quick: bool,
    /// A worker could not start: others that would serve who still waits could not, either.
    vain: bool,
}

/// Runs the pool until a signal stops it; returns the exit status. `handoff` is what the program has left that this
/// process was before.
pub(super) fn run(
    host: &Host,
    listeners: &mut [Listener],
    reporter: &mut Reporter,
    options: &PoolOptions,
    handoff: Option<Handoff>,
) -> io::Result<u8> {
    let signals = Signals::install(&[
        (Signal::TERM, Action::Tell),
        (Signal::QUIT, Action::Tell),
        (Signal::INT, Action::Tell),
        (Signal::HUP, Action::Tell),
        (Signal::TTIN, Action::Tell),
        (Signal::TTOU, Action::Tell),
        (Signal::CHILD, Action::Tell),
        (Signal::USR1, Action::Tell),
        // Its default would end the master.
        (Signal::USR2, Action::Nothing),
        (Signal::PIPE, Action::Ignore),
    ])?;
    signal::unblock_all();
    let pid = process::id();
    let mut staff = Staff::new(options.workers, millis(options.idle_timeout));
    let (board, shelf, dock, ready, crew, generation) = match &handoff {
        None => {
            for listener in listeners.iter() {
                log!("master pid={} listening {} {listener}", pid.as_raw_nonzero(), listener.protocol);
            }
            for listener in reporter.listeners() {
                log!("master pid={} listening status {listener}", pid.as_raw_nonzero());
            }
            let board = Scoreboard::for_pool()?;
            let ready = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            (board, Shelf::new(board)?, Dock::new(Relay::new()?, board), ready, Crew::default(), 0)
        }
        Some(handoff) => {
            staff.resume(handoff.workers);
            let ready = Handoff::pair(&handoff.ready)?;
            let ends = Handoff::pair(&handoff.shelf)?;
            let (board, readable) = Scoreboard::take_over(handoff.board)?;
            let shelf = if readable { Shelf::adopt(ends, board) } else { Shelf::new(board)? };
            // A program that can read the board has left both ends.
            let ends = if handoff.dock.is_empty() { None } else { Some(Handoff::pair(&handoff.dock)?) };
            let relay = ends.filter(|_| readable).map_or_else(Relay::new, |ends| Ok(Relay::adopt(ends)))?;
            let dock = Dock::new(relay, board);
            (board, shelf, dock, ready, handoff.crew(readable), handoff.generation)
        }
    };
    let sweep_every = options.sweep_every.filter(|_| host.store().is_some());
    let next_sweep = handoff.as_ref().and_then(|handoff| handoff.sweep);
    let mut sweeper = Sweeper::new(sweep_every, next_sweep, now(), pid, Report::new(board.sweep()));
    if let Some(child) = handoff.as_ref().and_then(|handoff| handoff.sweeping) {
        sweeper.resume(child);
    }
    let ever_ready = crew.iter().any(|member| member.ready);
    let mut master = Master {
        host,
        listeners,
        reporter,
        options,
        board,
        shelf: Arc::new(shelf),
        dock: Arc::new(dock),
        porter: Porter::new(handoff.as_ref().and_then(|handoff| handoff.porter)),
        signals,
        ready,
        notify: Notify::from_environment(),
        pid,
        reloading: handoff.is_some(),
        announced: handoff.is_some(),
        ever_ready,
        crew,
        staff,
        deadlines: Deadlines::new(options.soft_timeout, options.request_timeout),
        generation,
        candidate: None,
        again: false,
        watching: false,
        suspected: false,
        deaf_until: None,
        awake: now(),
        backoff: Backoff::default(),
        sweeper,
        stopping: None,
    };
    if master.reloading {
        log!("master pid={} replacing {} workers", pid.as_raw_nonzero(), master.crew.staying().count());
        if handoff.is_some_and(|handoff| handoff.again) {
            master.try_program();
        }
    }
    master.attend()
}

impl Master<'_> {
    fn attend(&mut self) -> io::Result<u8> {
        loop {
            self.note_ready();
            while let Some((pid, change)) = process::reap() {
                match change {
                    Change::Ended(death) => self.bury(pid, death),
                    Change::Stopped(signal) => {
                        self.crew.stopped(pid, signal, now());
                        self.porter.stopped(pid, signal, self.board, now());
                    }
                    Change::Continued => {
                        self.crew.continued(pid);
                        self.porter.continued(pid, self.board);
                    }
                }
            }
            self.look_out();
            if let Some(stop) = self.stopping {
                if self.crew.is_empty() && !self.drain_rest(stop)? && self.porter.finish(stop.until, now()).is_none() {
                    log!("master pid={} stopped", self.pid.as_raw_nonzero());
                    return Ok(stop.status);
                }
            } else {
                self.balance()?;
            }
            let time = now();
            self.look_for_a_freeze(self.awake, time);
            self.sweeper.attend(time, self.host);
            let mut wake = self.deadlines.enforce(&mut self.crew, self.board, time);
            wake = wake.min(self.sweeper.wake());
            wake = wake.min(self.keep_porter(time));
            if self.stopping.is_none() {
                wake = wake.min(self.reporter.keep(self.board, self.listeners, self.pid, time));
                wake = wake.min(self.backoff.wake()).min(self.staff.wake(&self.crew, self.board));
                wake = wake.min(self.deaf_until.unwrap_or(u64::MAX));
            }
            if let Some(candidate) = &mut self.candidate {
                wake = wake.min(candidate.enforce(time));
            }
            self.wait(wake, time)?;
            while let Some(signal) = self.signals.next() {
                self.obey(signal);
            }
        }
    }

    /// Has a porter be there if one is needed; once the workers are gone, has it finish. Returns when to look again.
    fn keep_porter(&mut self, time: u64) -> u64 {
        if let Some(stop) = self.stopping.filter(|_| self.crew.is_empty()) {
            return self.porter.finish(stop.until, time).unwrap_or(u64::MAX);
        }
        let setting = porter::Setting {
            host: self.host,
            listeners: self.listeners,
            board: self.board,
            dock: &self.dock,
            shelf: &self.shelf,
            options: self.options,
            master: self.pid,
        };
        self.porter.keep(&setting, time)
    }

    /// Where much more time has passed since `planned` than this process can have needed, the machine or this container
    /// was frozen: what is overdue may be so for no fault of its own.
    fn look_for_a_freeze(&mut self, planned: u64, time: u64) {
        let late = time.saturating_sub(planned);
        if late > LATE {
            self.deadlines.spare(time.saturating_add(late));
            let seconds = seconds(late);
            log!("master pid={} was not running for {seconds:.1}s, deadlines moved", self.pid.as_raw_nonzero());
        }
    }

    /// Waits for a signal, a worker that calls, or `wake`. At `time` it was last looked what is due.
    fn wait(&mut self, wake: u64, time: u64) -> io::Result<()> {
        let planned = wake.clamp(time, time.saturating_add(3_600_000));
        let left = planned.saturating_sub(now());
        let time = Timespec { tv_sec: (left / 1000).cast_signed(), tv_nsec: ((left % 1000) * 1_000_000).cast_signed() };
        let mut descriptors =
            vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.ready.0, PollFlags::IN)];
        descriptors
            .extend(self.porter.watch(&self.dock, now()).map(|dock| PollFd::from_borrowed_fd(dock, PollFlags::IN)));
        let speaking = self.candidate.iter().filter(|candidate| candidate.may_speak());
        descriptors.extend(speaking.map(|candidate| PollFd::new(candidate, PollFlags::IN)));
        if self.watching {
            descriptors.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        }
        match poll(&mut descriptors, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        drop(descriptors);
        let mut bytes = [0; 256];
        while rustix::io::read(&self.ready.0, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
        if let Some(candidate) = &mut self.candidate {
            candidate.listen();
        }
        self.awake = now();
        self.look_for_a_freeze(planned, self.awake);
        Ok(())
    }

    /// Does what `signal` says.
    fn obey(&mut self, signal: Signal) {
        let pid = self.pid.as_raw_nonzero();
        if signal == Signal::CHILD {
            return; // Who died is asked for in each turn.
        }
        if signal == Signal::USR1 {
            self.reopen_log();
        } else if signal == Signal::INT {
            log!("master pid={pid} INT: stopping at once");
            self.stop(0, true);
        } else if self.stopping.is_some() {
            log!("master pid={pid} is stopping already");
        } else if signal == Signal::TERM || signal == Signal::QUIT {
            log!("master pid={pid} {}: stopping", if signal == Signal::TERM { "TERM" } else { "QUIT" });
            self.stop(0, false);
        } else if signal == Signal::HUP {
            self.try_program();
        } else if signal == Signal::TTIN || signal == Signal::TTOU {
            self.staff.change(signal == Signal::TTIN);
            // Workers that are busy all the time do not call again, and may have been turned down just now.
            (self.watching, self.deaf_until) = (self.staff.can_grow(), None);
            let name = if signal == Signal::TTIN { "TTIN" } else { "TTOU" };
            log!("master pid={pid} {name}: workers={}", self.staff.range());
        }
    }

    /// The workers open the access log again, which has another name by now.
    fn reopen_log(&self) {
        if let Some((AccessLog::File(path), _)) = &self.options.access_log {
            log!("master pid={} USR1: reopening {}", self.pid.as_raw_nonzero(), path.display());
            self.crew.iter().for_each(|member| process::kill(member.pid, Signal::USR1));
            self.porter.reopen_log();
        }
    }

    /// Begins the end: the master stops with `status` when all workers are gone.
    fn stop(&mut self, status: u8, quick: bool) {
        let patience = if quick { 0 } else { millis(self.options.graceful_timeout) };
        let until = now().saturating_add(patience);
        let first = self.stopping.is_none();
        let stop = self.stopping.get_or_insert(Stop { status, until, quick, vain: false });
        stop.quick |= quick;
        stop.until = stop.until.min(until);
        self.sweeper.stop();
        if first {
            self.notify.send("STOPPING=1");
            self.board.set_stopping();
            if let Some(candidate) = &self.candidate {
                candidate.kill();
            }
            if !self.listeners.iter().any(Listener::is_inherited) {
                // From here on nobody comes who could find the door closed behind the queue.
                let mut sealed = true;
                self.listeners.iter_mut().for_each(|listener| sealed &= listener.seal());
                self.board.set_last(sealed);
            }
        }
        for member in self.crew.iter_mut() {
            if quick {
                member.kill();
            } else {
                member.leave(until);
            }
        }
    }

    /// After the last worker: whether somebody came into a queue while it left. Then one more is started for them.
    fn drain_rest(&mut self, stop: Stop) -> io::Result<bool> {
        let time = now();
        let ours = !self.listeners.iter().any(Listener::is_inherited);
        if stop.quick || stop.vain || !ours || time >= stop.until || !self.listeners.iter().any(Listener::has_waiting) {
            return Ok(false);
        }
        let spawned = self.spawn(time)?;
        self.crew.iter_mut().for_each(|member| member.leave(stop.until));
        Ok(spawned)
    }
}
