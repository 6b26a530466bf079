//! `HUP`: another program is tried out, and takes this process over.

use std::io;
use std::os::fd::AsFd;

use super::Master;
use crate::server::listener::Listener;
use crate::server::pool::handoff::{Handoff, Kept, VARIABLE};
use crate::server::pool::reload::Candidate;
use crate::server::pool::scoreboard::Event;
use crate::sys::log::log;
use crate::sys::process::Death;
use crate::sys::signal::{Blocked, Signal};

impl Master<'_> {
    /// `HUP`: sees whether the program on the disk would do.
    pub(super) fn try_program(&mut self) {
        let pid = self.pid.as_raw_nonzero();
        if self.candidate.is_some() {
            self.again = true;
            return;
        }
        log!("master pid={pid} HUP: trying {}", self.options.program.path().display());
        self.notify.send_reloading();
        let records = self.listeners.iter().map(Listener::record).collect();
        let descriptors: Vec<_> = self.listeners.iter().map(AsFd::as_fd).collect();
        let handoff = Handoff { master: pid.get(), listeners: records, ..Handoff::default() };
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
    pub(super) fn judge(&mut self, death: Death) {
        let Some(candidate) = self.candidate.take() else { return };
        if self.stopping.is_some() {
            return;
        }
        let is_outdated = candidate.is_outdated(&self.options.program);
        match candidate.verdict(death) {
            Ok(()) if is_outdated => self.again = true,
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
            if signal == Signal::HUP {
                self.again = true;
            } else {
                self.obey(signal);
            }
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
        let [leave, fetch] = self.dock.relay().ends();
        let mut handoff = Handoff {
            report: None,
            master: self.pid.as_raw_nonzero().get(),
            listeners: self.listeners.iter().map(Listener::record).collect(),
            status: self.reporter.listeners().iter().map(Listener::record).collect(),
            board: Some(kept.keep(&self.board)?),
            shelf: vec![kept.keep(give)?, kept.keep(take)?],
            dock: vec![kept.keep(leave)?, kept.keep(fetch)?],
            porter: self.porter.pid(),
            ready: vec![kept.keep(&self.ready.0)?, kept.keep(&self.ready.1)?],
            generation: self.generation + 1,
            workers: self.staff.count(),
            sweep: Some(self.sweeper.next()),
            sweeping: self.sweeper.child(),
            again: self.again,
            ..Handoff::default()
        };
        handoff.set_crew(&self.crew);
        written = handoff.write()?;
        let mut variables = vec![(VARIABLE, kept.keep(&written)?.to_string().into())];
        variables.extend(self.notify.variable());
        Ok(self.options.program.execute(&variables))
    }
}
