//! The master: starts workers, buries them, and waits for signals, deaths and deadlines. It does nothing else.
//!
//! How many workers there should be is `staff`'s to say, who holds them to their time is `deadlines`, how this process
//! becomes a newer program is `reload`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::PoolOptions;
use super::clock::{millis, now, seconds};
use super::crew::{Crew, Member};
use super::deadlines::Deadlines;
use super::handoff::{Handoff, Kept, VARIABLE};
use super::notify::Notify;
use super::reload::Candidate;
use super::reporter::Reporter;
use super::scoreboard::{Event, Scoreboard, Slot};
use super::shelf::Shelf;
use super::staff::{Backoff, Staff, Step};
use super::worker::{self, EXIT_BOOT, EXIT_BOOT_CONFIGURATION};
use crate::host::Host;
use crate::server::listener::Listener;
use crate::server::options::{AccessLog, MAX_WORKERS};
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
/// A worker that dies sooner after its start, without having begun a request, is respawned with a delay.
const FAST_DEATH: u64 = 1_000;
/// A master that wakes up so much later than it meant to has not been running, and perhaps nobody has.
const LATE: u64 = 1_000;
/// For so long a worker that calls since all are busy is not heard again, where there may be more workers and where not.
const CALLED: u64 = 2;
const CALLED_IN_VAIN: u64 = 1_000;

struct Master<'a> {
    host: &'a Host,
    listeners: &'a mut [Listener],
    reporter: &'a mut Reporter,
    options: &'a PoolOptions,
    board: Scoreboard,
    shelf: Arc<Shelf>,
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
    /// When workers are heard again that call.
    deaf_until: Option<u64>,
    /// `READY=1` has been sent.
    announced: bool,
    ever_ready: bool,
    backoff: Backoff,
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
    let (board, shelf, ready, crew, generation) = match &handoff {
        None => {
            for listener in listeners.iter() {
                log!("master pid={} listening {} {listener}", pid.as_raw_nonzero(), listener.protocol);
            }
            for listener in reporter.listeners() {
                log!("master pid={} listening status {listener}", pid.as_raw_nonzero());
            }
            let board = Scoreboard::for_pool()?;
            (board, Shelf::new(board)?, pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?, Crew::default(), 0)
        }
        Some(handoff) => {
            staff.resume(handoff.target);
            let ready = Handoff::pair(&handoff.ready)?;
            let ends = Handoff::pair(&handoff.shelf)?;
            let (board, readable) = Scoreboard::take_over(handoff.board)?;
            let shelf = if readable { Shelf::adopt(ends, board) } else { Shelf::new(board)? };
            (board, shelf, ready, handoff.crew(readable), handoff.generation)
        }
    };
    let ever_ready = crew.iter().any(|member| member.ready);
    let mut master = Master {
        host,
        listeners,
        reporter,
        options,
        board,
        shelf: Arc::new(shelf),
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
        deaf_until: None,
        backoff: Backoff::default(),
        stopping: None,
    };
    if master.reloading {
        log!("master pid={} replacing {} workers", pid.as_raw_nonzero(), master.crew.staying().count());
    }
    master.attend()
}

impl Master<'_> {
    fn attend(&mut self) -> io::Result<u8> {
        loop {
            self.note_ready();
            while let Some((pid, death)) = process::reap() {
                self.bury(pid, death);
            }
            if let Some(stop) = self.stopping {
                if self.crew.is_empty() && !self.drain_rest(stop)? {
                    log!("master pid={} stopped", self.pid.as_raw_nonzero());
                    return Ok(stop.status);
                }
            } else {
                self.balance()?;
            }
            let time = now();
            let mut wake = self.deadlines.enforce(&mut self.crew, &self.board, time);
            wake = wake.min(self.backoff.wake(time));
            if self.stopping.is_none() {
                wake = wake.min(self.reporter.keep(self.board, self.listeners, self.pid, time));
                wake = wake.min(self.staff.wake(&self.crew, &self.board));
                wake = wake.min(self.deaf_until.unwrap_or(u64::MAX));
            }
            if let Some(candidate) = &mut self.candidate {
                wake = wake.min(candidate.enforce(time));
            }
            self.wait(wake)?;
            while let Some(signal) = self.signals.next() {
                self.obey(signal);
            }
            self.look_out();
        }
    }

    /// Waits for a signal, a worker that calls, or `wake`.
    fn wait(&mut self, wake: u64) -> io::Result<()> {
        let left = wake.saturating_sub(now()).min(3_600_000);
        let planned = now().saturating_add(left);
        let time = Timespec { tv_sec: (left / 1000).cast_signed(), tv_nsec: ((left % 1000) * 1_000_000).cast_signed() };
        let mut descriptors =
            vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.ready.0, PollFlags::IN)];
        descriptors.extend(self.candidate.iter().map(|candidate| PollFd::new(candidate, PollFlags::IN)));
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
        let late = now().saturating_sub(planned);
        if late > LATE {
            // The machine or this container was frozen: what is overdue may be so for no fault of its own.
            self.deadlines.spare(now().saturating_add(late));
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
            self.staff.change(signal == Signal::TTIN, MAX_WORKERS);
            let name = if signal == Signal::TTIN { "TTIN" } else { "TTOU" };
            log!("master pid={pid} {name}: workers={}", self.staff.range());
        }
    }

    /// The workers open the access log again, which has another name by now.
    fn reopen_log(&self) {
        if let Some((AccessLog::File(path), _)) = &self.options.access_log {
            log!("master pid={} USR1: reopening {}", self.pid.as_raw_nonzero(), path.display());
            self.crew.iter().for_each(|member| process::kill(member.pid, Signal::USR1));
        }
    }

    /// Begins the end: the master stops with `status` when all workers are gone.
    fn stop(&mut self, status: u8, quick: bool) {
        let patience = if quick { 0 } else { millis(self.options.graceful_timeout) };
        let until = now().saturating_add(patience);
        let first = self.stopping.is_none();
        let stop = self.stopping.get_or_insert(Stop { status, until, quick });
        stop.quick |= quick;
        stop.until = stop.until.min(until);
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
        if stop.quick || !ours || time >= stop.until || !self.listeners.iter().any(Listener::has_waiting) {
            return Ok(false);
        }
        let spawned = self.spawn(time)?;
        self.crew.iter_mut().for_each(|member| member.leave(stop.until));
        Ok(spawned)
    }

    /// Makes the crew what it should be.
    fn balance(&mut self) -> io::Result<()> {
        let time = now();
        let until = time.saturating_add(millis(self.options.graceful_timeout));
        loop {
            if self.reloading && self.crew.iter().all(|member| member.generation == self.generation) {
                self.reloading = false;
                self.board.note(Event::Reload);
                log!("master pid={} reloaded", self.pid.as_raw_nonzero());
                self.notify.send("READY=1");
            }
            let step = self.staff.next_step(&self.crew, &self.board, self.generation);
            let range = self.staff.range();
            self.board.set_wanted(range.min, range.max, self.staff.target());
            match step {
                Step::Rest => return Ok(()),
                Step::Retire(pid, reason) => {
                    let member = self.crew.iter_mut().find(|member| member.pid == pid);
                    if let Some(member) = member {
                        member.reason = Some(reason);
                        member.slot(&self.board).inspect(Slot::set_leaving);
                        member.leave(until);
                    }
                }
                Step::Spawn(missing) => {
                    if !self.backoff.allows(missing, time) || !self.spawn(time)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Starts a worker. False where that must wait.
    fn spawn(&mut self, time: u64) -> io::Result<bool> {
        let Some(number) = self.crew.free_number(self.board.slots()) else { return Ok(false) };
        self.board.prepare(number, self.generation);
        let setting = worker::Setting {
            host: self.host,
            listeners: self.listeners,
            board: self.board,
            shelf: &self.shelf,
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

    fn note_ready(&mut self) {
        let time = now();
        for member in self.crew.iter_mut() {
            let Some(slot) = member.slot(&self.board) else { continue };
            if !member.ready && slot.is_ready() {
                member.ready = true;
                self.ever_ready = true;
                log!("{member} ready");
            }
            if member.ready && (slot.has_worked() || time.saturating_sub(member.started) >= FAST_DEATH) {
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
    fn look_out(&mut self) {
        if self.stopping.is_some() {
            self.watching = false;
            return;
        }
        let time = now();
        if self.deaf_until.is_some_and(|until| time < until) {
            return;
        }
        let was_deaf = self.deaf_until.take().is_some();
        // First the mark, then the look: who becomes busy in between calls again.
        let called = if was_deaf || self.watching { self.board.take_call() } else { self.board.is_called() };
        let idle = self.board.has_idle();
        let booting = self.crew.staying().any(|member| !member.ready);
        let empty = self.crew.staying().next().is_none();
        self.watching = !idle && !booting && self.staff.can_grow() && (called || empty || self.watching || was_deaf);
        if idle || booting || !(called || empty || self.watching) {
            if called {
                self.deaf_until = Some(time + CALLED);
            }
            return;
        }
        if !self.listeners.iter().any(Listener::has_waiting) {
            return;
        }
        if self.staff.grow() {
            self.watching = false;
            self.deaf_until = Some(time + CALLED);
        } else {
            self.board.note(Event::Exhausted);
            self.deaf_until = Some(time + CALLED_IN_VAIN);
        }
    }

    /// A child has died: says how, and thinks about what that means.
    fn bury(&mut self, pid: Pid, death: Death) {
        if self.candidate.as_ref().is_some_and(|candidate| candidate.pid == pid) {
            return self.judge(death);
        }
        if self.reporter.bury(pid, death, now()) {
            return;
        }
        // A child that is no worker: somebody forked before run was called, or left an orphan to us (as process 1).
        let Some(member) = self.crew.remove(pid) else { return };
        let time = now();
        let expected = self.stopping.is_some() || member.leaving.is_some();
        let respawning = if expected { "" } else { ", respawning" };
        let slot = member.slot(&self.board);
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
        if boot_failed {
            let reason = match death {
                Death::Exited(EXIT_BOOT | EXIT_BOOT_CONFIGURATION) => text,
                Death::Exited(status) => format!("exited with status {status} before it was ready"),
                Death::Killed(signal) => format!("killed by signal {signal} before it was ready"),
            };
            let lasting = death == Death::Exited(EXIT_BOOT_CONFIGURATION);
            self.died_fast(&reason, if lasting { EXIT_CONFIGURATION } else { EXIT_TEMPORARY }, time);
        } else if death != Death::Exited(0) && time.saturating_sub(member.started) < FAST_DEATH && !has_worked {
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

    /// `HUP`: sees whether the program on the disk would do.
    fn try_program(&mut self) {
        let pid = self.pid.as_raw_nonzero();
        if self.candidate.is_some() {
            self.again = true;
            return;
        }
        log!("master pid={pid} HUP: trying {}", self.options.program.path().display());
        self.notify.send_reloading();
        let records = self.listeners.iter().map(Listener::record).collect();
        let descriptors: Vec<_> = self.listeners.iter().map(AsFd::as_fd).collect();
        let handoff = Handoff { listeners: records, ..Handoff::default() };
        match Candidate::start(&self.options.program, handoff, &descriptors) {
            Ok(candidate) => self.candidate = Some(candidate),
            Err(error) => self.refuse_program(&error.to_string()),
        }
    }

    fn refuse_program(&mut self, reason: &str) {
        log!("master pid={} reload failed, the old workers stay: {reason}", self.pid.as_raw_nonzero());
        self.board.note(Event::ReloadFailed);
        self.notify.send("READY=1");
    }

    /// The program that was tried out has ended.
    fn judge(&mut self, death: Death) {
        let Some(candidate) = self.candidate.take() else { return };
        if self.stopping.is_some() {
            return;
        }
        match candidate.verdict(death) {
            Ok(()) if self.again => {}
            Ok(()) => {
                let error = self.become_program();
                if self.stopping.is_none() {
                    self.refuse_program(&error.to_string());
                }
            }
            Err(reason) => self.refuse_program(&reason),
        }
        // Somebody has asked for it again, perhaps since there is yet another program.
        if std::mem::take(&mut self.again) && self.stopping.is_none() {
            self.try_program();
        }
    }

    /// This process becomes the program on the disk. Returns only if it does not.
    fn become_program(&mut self) -> io::Error {
        // What comes from here on is for the next program.
        let _blocked = Blocked::all();
        while let Some(signal) = self.signals.next() {
            self.obey(signal);
        }
        if self.stopping.is_some() {
            return io::Error::other("stopping");
        }
        // It would stay a child that the next program does not know.
        self.reporter.dismiss();
        self.hand_over().unwrap_or_else(|error| error)
    }

    fn hand_over(&self) -> io::Result<io::Error> {
        let written;
        let mut kept = Kept::new();
        for listener in self.listeners.iter().chain(self.reporter.listeners()) {
            kept.keep(listener)?;
        }
        let [give, take] = self.shelf.ends();
        let mut handoff = Handoff {
            report: None,
            master: self.pid.as_raw_nonzero().get(),
            listeners: self.listeners.iter().map(Listener::record).collect(),
            status: self.reporter.listeners().iter().map(Listener::record).collect(),
            board: Some(kept.keep(&self.board)?),
            shelf: vec![kept.keep(give)?, kept.keep(take)?],
            ready: vec![kept.keep(&self.ready.0)?, kept.keep(&self.ready.1)?],
            generation: self.generation + 1,
            target: self.staff.target(),
            ..Handoff::default()
        };
        handoff.set_crew(&self.crew);
        written = handoff.write()?;
        let mut variables = vec![(VARIABLE, kept.keep(&written)?.to_string().into())];
        variables.extend(self.notify.variable());
        Ok(self.options.program.execute(&variables))
    }
}
