//! The reporter: tells how the pool is, in a process of its own. The master waits for signals and deaths only, and the
//! workers may all be busy.

mod measure;
mod metrics;
mod page;
mod report;
mod serve;
mod text;

use rustix::process::Pid;

use super::scoreboard::Scoreboard;
use crate::server::listener::{Address, Listener};

use crate::sys::log::log;
use crate::sys::process::{self, Death};
use crate::sys::signal::{Blocked, Signal};

/// How long its place stays empty when it has died.
const DELAY: u64 = 1_000;

/// The reporter, as its master knows it.
pub(crate) struct Reporter {
    listeners: Vec<Listener>,
    names: Vec<String>,
    pid: Option<Pid>,
    /// Not before this time is another one started.
    not_before: u64,
    /// It was told to go.
    dismissed: Option<Pid>,
}

impl Reporter {
    /// A reporter for these listeners, of which the operator named `address`; without any there is none.
    pub(crate) fn new(listeners: Vec<Listener>, address: Option<&Address>) -> Self {
        let name = match address {
            Some(Address::Tcp(text)) => Some(serve::host(text).to_owned()),
            _ => None,
        };
        Self { listeners, names: name.into_iter().collect(), pid: None, not_before: 0, dismissed: None }
    }

    /// Where it listens.
    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Starts it if it is not there. Returns when to try again.
    pub(super) fn keep(&mut self, board: Scoreboard, listeners: &[Listener], master: Pid, time: u64) -> u64 {
        if self.listeners.is_empty() || self.pid.is_some() {
            return u64::MAX;
        }
        if time < self.not_before {
            return self.not_before;
        }
        let setting = serve::Setting { board, master, listeners, status: &self.listeners, names: &self.names };
        // Until the child has handlers of its own, a signal would reach the master's pipe through it.
        let blocked = Blocked::all();
        match process::spawn(move || serve::run(&setting, blocked)) {
            Ok(pid) => {
                self.pid = Some(pid);
                u64::MAX
            }
            Err(error) => {
                log!("master pid={} cannot start the reporter: {error}", master.as_raw_nonzero());
                self.not_before = time + DELAY;
                self.not_before
            }
        }
    }

    /// Whether it was the reporter that died.
    pub(super) fn bury(&mut self, pid: Pid, death: Death, time: u64) -> bool {
        if self.dismissed == Some(pid) {
            self.dismissed = None;
            return true;
        }
        if self.pid != Some(pid) {
            return false;
        }
        self.pid = None;
        self.not_before = time + DELAY;
        let pid = pid.as_raw_nonzero();
        match death {
            Death::Exited(status) => log!("reporter pid={pid} exited status={status}, respawning"),
            Death::Killed(signal) => log!("reporter pid={pid} killed signal={signal}, respawning"),
        }
        true
    }

    /// Ends it, at once: it has nothing that could be lost, and it keeps the pool's listeners open.
    pub(super) fn dismiss(&mut self) {
        if let Some(pid) = self.pid.take() {
            process::kill(pid, Signal::KILL);
            self.dismissed = Some(pid);
        }
    }

    /// Ends it for good, with the file of its socket.
    pub(super) fn close(&mut self) {
        self.dismiss();
        self.listeners.iter_mut().for_each(Listener::remove_file);
    }
}
