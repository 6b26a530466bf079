//! A real server process and what it says on stderr.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use super::{PATIENCE, eventually};

/// A process whose log is read line by line. Killed, with its log printed, if the test fails.
pub struct Proc {
    child: Child,
    lines: Receiver<String>,
    log: Arc<Mutex<Vec<String>>>,
    ended: bool,
}

impl Proc {
    /// Starts the demo application with these arguments.
    pub fn demo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut command = demo();
        command.args(arguments);
        Self::start(command)
    }

    /// Starts `command`.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&log);
        // It ends when the last process that has stderr open does: the master and all its workers.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                copy.lock().unwrap().push(line.clone());
                let _ = sender.send(line);
            }
        });
        Self { child, lines, log, ended: false }
    }

    /// The next line that contains `text`; those before it are skipped.
    #[track_caller]
    pub fn line(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(error) => panic!("no line with {text:?}: {error}"),
            }
        }
    }

    /// The address that the next `listening` line names.
    #[track_caller]
    pub fn address(&self, protocol: &str) -> String {
        let line = self.line(&format!("listening {protocol} "));
        line.rsplit_once(' ').unwrap().1.to_owned()
    }

    /// The process IDs of the next `count` workers that become ready.
    #[track_caller]
    pub fn ready(&self, count: usize) -> Vec<u32> {
        (0..count).map(|_| pid_in(&self.line_of_worker(" ready"))).collect()
    }

    /// The next line of a worker that contains `text`.
    #[track_caller]
    pub fn line_of_worker(&self, text: &str) -> String {
        loop {
            let line = self.line(text);
            if line.starts_with("cloakroom: worker=") {
                return line;
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits until the process and all that it started are gone; returns its exit status, or minus its signal.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("does not end"),
            }
        }
        self.ended = true;
        let status = self.child.wait().unwrap();
        status.code().unwrap_or_else(|| -status.signal().unwrap())
    }

    /// Everything that it has said so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}\n---", self.pid(), self.log());
        }
        if !self.ended {
            // Its workers leave when it is gone; those that the test has stopped must be awake for that.
            for child in children(self.pid()) {
                send(child, Signal::CONT);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The demo application, with nothing of this test's environment that could configure it.
pub fn demo() -> Command {
    demo_at(Path::new(env!("CARGO_BIN_EXE_demo")))
}

/// The same, from a copy.
pub fn demo_at(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLOAKROOM_") {
            command.env_remove(name);
        }
    }
    // Nothing is left in the home directory of whoever runs the tests.
    command.env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR")).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

/// Puts a copy of the demo there that anybody may execute.
pub fn copy_demo(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    // By another process: a file that is open for writing, as it would be in a child that another test starts just now,
    // cannot be executed.
    let status = Command::new("cp").arg(env!("CARGO_BIN_EXE_demo")).arg(path).status().unwrap();
    assert!(status.success());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The demo application, started by a shell: `script` ends with `exec "$0" "$@"`.
pub fn demo_by_shell(script: &str) -> Command {
    let demo = demo();
    let mut command = Command::new("sh");
    for (name, value) in demo.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.arg("-c").arg(script).arg(demo.get_program()).stdin(Stdio::null());
    command
}

/// The process ID that a log line names.
#[track_caller]
pub fn pid_in(line: &str) -> u32 {
    line.split(' ').find_map(|word| word.strip_prefix("pid=")).unwrap().parse().unwrap()
}

pub fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

/// Whether the application in process `pid` sleeps in `/slow`.
pub fn is_sleeping(pid: u32) -> bool {
    let calls = [libc::SYS_clock_nanosleep, libc::SYS_nanosleep].map(|call| call.to_string());
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next().is_some_and(|call| calls.iter().any(|c| c == call))
}

/// Waits until it does.
#[track_caller]
pub fn wait_until_sleeping(pid: u32) {
    eventually("the worker sleeps", || is_sleeping(pid));
}

/// Waits until process `pid` is stopped.
#[track_caller]
pub fn wait_until_stopped(pid: u32) {
    eventually("the process is stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    });
}

/// How many sockets these processes have open.
pub fn sockets(pids: &[u32]) -> usize {
    let of = |pid: &u32| {
        let links = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let names = links.filter_map(|link| std::fs::read_link(link.path()).ok());
        names.filter(|name| name.to_string_lossy().starts_with("socket:")).count()
    };
    pids.iter().map(of).sum()
}

/// The children of process `pid`: the workers of a master. The porter, which is there once a client was slow, is none.
pub fn children(pid: u32) -> Vec<u32> {
    all_children(pid).into_iter().filter(|child| !is_porter(*child)).collect()
}

/// The porter of master `pid`, if there is one.
pub fn porter(pid: u32) -> Option<u32> {
    all_children(pid).into_iter().find(|child| is_porter(*child))
}

fn all_children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The state of process `pid`, as ps(1) names it: `Z` has ended, and nobody has asked how.
pub fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// How many descriptors process `pid` has.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// What process `pid` has in memory that is in no file, in KiB. Not what it has alone (`Private_*`): that goes up and
/// down with the children that still share its pages.
pub fn anonymous(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn is_porter(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "porter")
}
