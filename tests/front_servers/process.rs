//! Processes that end with the test that started them, and the place they work in.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until there is something. A test that waits in vain fails.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A temporary directory that servers can enter, whatever user they become. It is removed with the test, unless that
/// fails: then it stays, and the logs in it are printed.
pub(crate) struct Place(Option<TempDir>);

impl Place {
    pub(crate) fn new() -> Self {
        let directory =
            tempfile::Builder::new().prefix("cloakroom-").permissions(Permissions::from_mode(0o755)).tempdir();
        Self(Some(directory.unwrap()))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub(crate) fn directory(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }

    /// Makes a directory in it that belongs to `user`, closed to others.
    pub(crate) fn private(&self, name: &str, user: Option<(u32, u32)>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        if let Some((user, group)) = user {
            std::os::unix::fs::chown(&path, Some(user), Some(group)).unwrap();
        }
        path
    }

    fn print_logs(&self) {
        eprintln!("kept: {}", self.directory().display());
        let mut logs: Vec<PathBuf> =
            fs::read_dir(self.directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        for log in logs {
            let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {} ({} lines)", log.display(), lines.len());
            for line in &lines[lines.len().saturating_sub(60)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            self.print_logs();
            let _ = self.0.take().map(TempDir::keep);
        }
    }
}

/// A server in a process group of its own. It ends when this is dropped, and all that it started with it.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it prints goes into `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether it has ended. Its number is not given back yet, so no signal can hit a stranger.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::Pid(self.pid()), options).unwrap().is_some()
    }

    /// Waits until `look` finds something; fails as soon as the process has ended.
    pub(crate) fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        wait_for(what, || {
            let found = look(self);
            assert!(found.is_some() || !self.has_ended(), "ended before {what}: {}", self.log());
            found
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.pid(), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.has_ended() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = rustix::process::kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }
}
