//! The reload: the program on the disk is tried out, and if it would do, this process becomes it.
//!
//! The process ID stays, so no supervisor has to be told, and the workers stay children of their master. What could go
//! wrong in the new program does so in the try: a process of its own, with the same arguments, variables and listeners,
//! that does what a worker does before it serves.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::clock::now;
use super::handoff::{Handoff, READY, VARIABLE};
use crate::host::Host;
use crate::sys::descriptor;
use crate::sys::log::log;
use crate::sys::process::{self, Death};
use crate::sys::signal::{self, Blocked, Signal};

/// How long a program may take to say whether it would do, in milliseconds.
const TRY_TIMEOUT: u64 = 60_000;
/// How often it tries to set up its store.
const TRIES: u32 = 5;

/// The program that this process is, as it would be started again.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    /// Variables that came from the environment file, and are read anew.
    from_file: Vec<OsString>,
}

impl Program {
    /// This process's. To be called before anything changes the current directory.
    pub(crate) fn current(from_file: Vec<OsString>) -> io::Result<Self> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        // As it was called, so that a symbolic link that is turned to a new version leads there; but only if that is
        // this program now, since the caller can say anything.
        let running = successor(std::env::current_exe()?);
        let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        let called = arguments.first().and_then(|name| find(name)).filter(|path| identity(path) == identity(&running));
        Ok(Self { path: called.unwrap_or(running), arguments, from_file })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What tells the file that is there now from any other that takes its place.
    fn version(&self) -> Option<[u64; 4]> {
        let file = fs::metadata(&self.path).ok()?;
        Some([file.dev(), file.ino(), file.ctime().cast_unsigned(), file.ctime_nsec().cast_unsigned()])
    }

    /// The environment of this process, without what was set for it alone.
    fn environment(&self, more: &[(&str, OsString)]) -> Vec<OsString> {
        let own =
            |name: &OsStr| more.iter().any(|(own, _)| *own == name) || self.from_file.iter().any(|own| own == name);
        let pair = |name: &OsStr, value: &OsStr| [name, OsStr::new("="), value].concat_os();
        let kept = std::env::vars_os().filter(|(name, _)| !own(name)).map(|(name, value)| pair(&name, &value));
        kept.chain(more.iter().map(|(name, value)| pair(OsStr::new(name), value))).collect()
    }

    /// Becomes the program; returns only if that fails. Signals stay held back if they are.
    pub(super) fn execute(&self, more: &[(&str, OsString)]) -> io::Error {
        process::execute(&self.path, &self.arguments, &self.environment(more))
    }
}

trait ConcatOs {
    fn concat_os(&self) -> OsString;
}

impl ConcatOs for [&OsStr; 3] {
    fn concat_os(&self) -> OsString {
        self.iter().fold(OsString::new(), |mut all, part| {
            all.push(part);
            all
        })
    }
}

/// The file itself, or the one that has taken its place since it was executed; the kernel marks the name then.
fn successor(running: PathBuf) -> PathBuf {
    match running.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(name) if !running.exists() => PathBuf::from(OsStr::from_bytes(name)),
        _ => running,
    }
}

/// The file that a shell starts by this name.
fn find(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return std::path::absolute(name).ok();
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// A program that is being tried out.
pub(super) struct Candidate {
    pub(super) pid: Pid,
    /// Which program it is, see [`is_outdated`](Self::is_outdated).
    version: Option<[u64; 4]>,
    report: OwnedFd,
    said: Vec<u8>,
    /// It has said all that is heard of it, and only its end is waited for.
    silent: bool,
    until: u64,
    overdue: bool,
}

impl Candidate {
    /// Starts it. `handoff` has the listeners, of which the descriptors are kept over execve(2) in the child only.
    pub(super) fn start(program: &Program, mut handoff: Handoff, listeners: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let (report, its) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&report, true)?;
        handoff.report = Some(std::os::fd::AsRawFd::as_raw_fd(&its));
        let written = handoff.write()?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&written).to_string();
        let master = process::id();
        let blocked = Blocked::all();
        let child = || {
            // The master's handlers would write to the master's pipe.
            signal::all_default();
            let keep = listeners.iter().copied().chain([its.as_fd(), written.as_fd()]);
            if let Some(error) = keep.map(|fd| descriptor::keep(fd, true)).find_map(Result::err) {
                log!("cannot hand descriptors on: {error}");
                return 111;
            }
            if !process::signal_when_parent_dies(master, Signal::KILL) {
                return 111;
            }
            drop(blocked);
            let error = program.execute(&[(VARIABLE, number.into())]);
            let _ = rustix::io::write(&its, format!("execute {}: {error}", program.path.display()).as_bytes());
            111
        };
        let version = program.version();
        let pid = process::spawn(child)?;
        Ok(Self { pid, version, report, said: Vec::new(), silent: false, until: now() + TRY_TIMEOUT, overdue: false })
    }

    /// Takes in what it says.
    pub(super) fn listen(&mut self) {
        // It says one line; who says more is not heard out.
        let room = 4096usize.saturating_sub(self.said.len()) as u64;
        let mut said = Vec::new();
        let report = fs::File::from(match self.report.try_clone() {
            Ok(report) => report,
            Err(_) => return,
        });
        // An error says that there is no more for the moment; without one it is the end.
        let ended = report.take(room).read_to_end(&mut said).is_ok();
        self.said.extend_from_slice(&said);
        self.silent |= ended;
    }

    /// Whether it may say more: it is readable for ever once it may not.
    pub(super) fn may_speak(&self) -> bool {
        !self.silent
    }

    /// Whether another file has taken its place since: what would be executed is not what was tried out.
    pub(super) fn is_outdated(&self, program: &Program) -> bool {
        self.version != program.version()
    }

    /// What it said when it was dead.
    pub(super) fn verdict(mut self, death: Death) -> Result<(), String> {
        self.listen();
        let said = String::from_utf8_lossy(&self.said).into_owned();
        match death {
            Death::Exited(0) if said == READY => Ok(()),
            _ if self.overdue => {
                Err(format!("the program did not say whether it would do in {} s", TRY_TIMEOUT / 1000))
            }
            _ if !said.is_empty() && said != READY => Err(said.trim_end().to_owned()),
            Death::Exited(status) => Err(format!("the program exited with status {status} before it was ready")),
            Death::Killed(signal) => Err(format!("the program was killed by signal {signal} before it was ready")),
        }
    }

    /// Kills it if it takes too long; returns when to look again.
    pub(super) fn enforce(&mut self, time: u64) -> u64 {
        if time < self.until {
            return self.until;
        }
        self.overdue = true;
        self.kill();
        u64::MAX
    }

    pub(super) fn kill(&self) {
        process::kill(self.pid, Signal::KILL);
    }
}

/// Readable when it has said something.
impl AsFd for Candidate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }
}

/// In the program that is tried out: does what a worker does before it serves. `prepared`: whether this process
/// could take the listeners, and be made what the options say. Returns the exit status.
pub(crate) fn rehearse(host: &Host, handoff: &Handoff, prepared: Result<(), String>) -> u8 {
    let outcome = prepared.map_err(|error| (error, 2)).and_then(|()| {
        let mut pause = std::time::Duration::from_millis(50);
        let mut tries = 1;
        loop {
            match super::worker::set_up(host) {
                Ok(()) => return Ok(()),
                Err(failure) if failure.lasting || tries == TRIES => {
                    return Err((failure.to_string(), if failure.lasting { 2 } else { 111 }));
                }
                Err(_) => {}
            }
            std::thread::sleep(pause);
            (pause, tries) = (pause * 2, tries + 1);
        }
    });
    match outcome {
        Ok(()) => {
            handoff.answer(Ok(()));
            0
        }
        Err((reason, status)) => {
            handoff.answer(Err(&reason));
            status
        }
    }
}
