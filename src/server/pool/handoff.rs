//! What a master hands to the program that takes its place: descriptors by number, and what it knows of its workers.
//!
//! It is JSON in an unnamed file, of which a variable names the descriptor. Two versions of this library may be at the
//! two ends, so what is not known is left out of account, and what is missing has its default.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::clock::now;
use super::crew::{Crew, Member};
use super::staff::Headcount;
use crate::server::listener::{Listener, Record};
use crate::sys::log::log;
use crate::sys::{descriptor, environment, process};

/// Names the descriptor.
pub(super) const VARIABLE: &str = "CLOAKROOM_HANDOFF";

/// What is handed on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Handoff {
    /// Only to see whether the program would do: where the answer goes.
    pub(super) report: Option<RawFd>,
    /// The process that it is meant for; where the program is only tried out, its parent.
    pub(super) master: i32,
    pub(super) listeners: Vec<Record>,
    /// Those of the reporter.
    pub(super) status: Vec<Record>,
    pub(super) board: Option<RawFd>,
    /// Both ends of the shelf, then both of the pipe by which workers call.
    pub(super) shelf: Vec<RawFd>,
    pub(super) ready: Vec<RawFd>,
    /// Both ends of the dock, and the porter that goes on.
    pub(super) dock: Vec<RawFd>,
    pub(super) porter: Option<i32>,
    pub(super) generation: u64,
    pub(super) workers: Headcount,
    /// `HUP` has come again meanwhile.
    pub(super) again: bool,
    /// When the next sweep is due.
    pub(super) sweep: Option<u64>,
    /// The one that is going on, see [`Sweeper::child`](super::sweeper::Sweeper::child).
    pub(super) sweeping: Option<(i32, u64)>,
    pub(super) crew: Vec<Hand>,
}

/// A worker that goes on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Hand {
    number: usize,
    pid: i32,
    generation: u64,
    started: u64,
    ready: bool,
    leaving: Option<u64>,
    foreign: bool,
}

impl Handoff {
    /// Writes it down; the descriptor survives execve(2) once it is [kept](descriptor::keep).
    pub(super) fn write(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create(c"cloakroom-handoff", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(self)?)?;
        Ok(file.into())
    }

    /// Takes what was handed to this process, if anything was.
    ///
    /// # Errors
    /// Where the variable is set and there is nothing that can be taken, or another thread runs.
    pub(crate) fn take() -> io::Result<Option<Self>> {
        let several = || io::Error::other("the process has more than one thread; call run from its only one");
        let [value] = environment::take([VARIABLE]).ok_or_else(several)?;
        let Some(value) = value else { return Ok(None) };
        let handoff = Self::read(&value)?;
        // A child of such a process may have the variable, too, and is not meant.
        let meant = if handoff.is_rehearsal() { process::parent() } else { Some(process::id()) };
        Ok(Some(handoff).filter(|handoff| meant == rustix::process::Pid::from_raw(handoff.master)))
    }

    fn read(value: &OsString) -> io::Result<Self> {
        let number = value.to_str().and_then(|value| value.parse().ok());
        let mut file = File::from(descriptor::adopt(number.ok_or_else(|| io::Error::other("not a number"))?)?);
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Whether the program is only tried out.
    pub(crate) fn is_rehearsal(&self) -> bool {
        self.report.is_some()
    }

    /// The listeners.
    pub(crate) fn listeners(&mut self) -> io::Result<Vec<Listener>> {
        std::mem::take(&mut self.listeners).into_iter().map(Listener::adopt).collect()
    }

    /// The reporter's listeners.
    pub(crate) fn status_listeners(&mut self) -> io::Result<Vec<Listener>> {
        std::mem::take(&mut self.status).into_iter().map(Listener::adopt).collect()
    }

    /// Remembers the workers.
    pub(super) fn set_crew(&mut self, crew: &Crew) {
        self.crew = crew
            .iter()
            .map(|member| Hand {
                number: member.number,
                pid: member.pid.as_raw_nonzero().get(),
                generation: member.generation,
                started: member.started,
                ready: member.ready,
                leaving: member.leaving,
                foreign: member.foreign,
            })
            .collect();
    }

    /// The workers, as those of this master. `readable`: their slots are on a scoreboard that this program can read.
    pub(super) fn crew(&self, readable: bool) -> Crew {
        let mut crew = Crew::default();
        for hand in &self.crew {
            let Some(pid) = rustix::process::Pid::from_raw(hand.pid) else { continue };
            let mut member = Member::new(hand.number, pid, hand.generation, hand.started.min(now()));
            member.leaving = hand.leaving;
            member.foreign = hand.foreign || !readable;
            // Of a stranger it is not known; it is told to leave when its successor is there, whatever it does.
            member.ready = hand.ready || member.foreign;
            crew.push(member);
        }
        crew
    }

    /// Takes two descriptors that belong together.
    pub(super) fn pair(numbers: &[RawFd]) -> io::Result<(OwnedFd, OwnedFd)> {
        let [one, other] = numbers else { return Err(io::Error::other("not two descriptors")) };
        Ok((descriptor::adopt(*one)?, descriptor::adopt(*other)?))
    }

    /// Answers the master that tries this program out: `Ok` it would do, `Err` it would not, and why.
    pub(super) fn answer(&self, verdict: Result<(), &str>) {
        let Some(Ok(report)) = self.report.map(descriptor::adopt) else { return };
        let text = verdict.map_or_else(ToOwned::to_owned, |()| READY.to_owned());
        if let Err(error) = File::from(report).write_all(text.as_bytes()) {
            log!("cannot answer the master: {error}");
        }
    }
}

/// What a program answers that would do.
pub(super) const READY: &str = "ready\n";

/// Descriptors that survive execve(2) as long as this exists.
pub(super) struct Kept<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Kept<'a> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Keeps a descriptor, and gives its number.
    pub(super) fn keep(&mut self, fd: &'a impl AsFd) -> io::Result<RawFd> {
        let fd = fd.as_fd();
        descriptor::keep(fd, true)?;
        self.0.push(fd);
        Ok(fd.as_raw_fd())
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        for fd in &self.0 {
            // It is open, so there is nothing that could fail.
            let _ = descriptor::keep(*fd, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_unknown_is_left() {
        let mut crew = Crew::default();
        let pid = rustix::process::Pid::from_raw(77).unwrap();
        crew.push(Member { ready: true, ..Member::new(3, pid, 9, 5) });
        let mut handoff = Handoff { generation: 9, ..Handoff::default() };
        handoff.set_crew(&crew);
        let text = serde_json::to_string(&handoff).unwrap().replacen('{', "{\"news\":[1],", 1);
        let read: Handoff = serde_json::from_str(&text).unwrap();
        assert_eq!((read.generation, read.is_rehearsal()), (9, false));
        let crew = read.crew(true);
        let member = crew.iter().next().unwrap();
        assert_eq!((member.number, member.pid, member.ready, member.foreign), (3, pid, true, false));
        assert!(read.crew(false).iter().all(|member| member.foreign));
        assert!(serde_json::from_str::<Handoff>("{}").unwrap().crew(true).is_empty());
    }

    #[test]
    fn kept_descriptors_are_closed_on_exec_again() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let flags = || rustix::io::fcntl_getfd(&one).unwrap();
        let mut kept = Kept::new();
        kept.keep(&one).unwrap();
        assert!(!flags().contains(rustix::io::FdFlags::CLOEXEC));
        drop(kept);
        assert!(flags().contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Handoff::read(&"x".into()).is_err());
        assert!(Handoff::read(&"987654".into()).is_err());
        assert!(Handoff::pair(&[1]).is_err());
    }
}
