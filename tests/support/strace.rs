//! strace(1), looking over a process's shoulder.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use super::process::{Signal, send};

/// With what it has to say: it would die of a pipe that nobody has open when the process starts a thread.
pub struct Strace {
    child: Child,
    _stderr: BufReader<ChildStderr>,
}

impl Strace {
    /// Writes what the process does to `output` from now on.
    #[track_caller]
    pub fn attach(pid: u32, arguments: &[&str], output: &Path) -> Self {
        let mut command = Command::new("strace");
        command.args(arguments).arg("-o").arg(output).args(["-p", &pid.to_string()]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("strace");
        // It says so when it is there.
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("read from strace");
        assert!(line.contains("attached"), "{line}");
        Self { child, _stderr: stderr }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // SIGTERM and not SIGKILL: it is to let go of the process.
        send(self.child.id(), Signal::TERM);
        let _ = self.child.wait();
    }
}
