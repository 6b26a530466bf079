//! The processes of the bare store's tests: this program, started again with the name of a job in its environment.
//!
//! A forked copy of a test runner with several threads could do next to nothing safely; a new process can do all.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use cloakroom::DirectoryStore;

use crate::jobs;

const JOB: &str = "CLOAKROOM_TEST_JOB";

/// A process at work. Dropping it kills it and waits for it.
pub struct Process {
    name: String,
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a process for `job`, which waits for [`go`](Self::go).
    pub fn start(job: &str, directory: &Path, arguments: &[String]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("path of this program"))
            .args(["--exact", "job", "--nocapture", "--quiet", "--test-threads=1"])
            .env(JOB, job)
            .env("CLOAKROOM_TEST_DIRECTORY", directory)
            .env("CLOAKROOM_TEST_ARGUMENTS", arguments.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a process");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Self { name: job.to_owned(), child, output };
        assert_eq!(process.line().as_deref(), Some("ready"), "{job} did not start");
        process
    }

    /// Lets it begin.
    pub fn go(&mut self) {
        self.child.stdin.take().expect("once").write_all(b"go\n").expect("tell a process to go");
    }

    /// The next line that it reported; `None` at its end. A line that was cut off by its death is none.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line).expect("read from a process") > 0 {
            // What the test harness prints has no mark.
            if let Some((_, report)) = line.split_once('@')
                && let Some(report) = report.strip_suffix('\n')
            {
                return Some(report.to_owned());
            }
            line.clear();
        }
        None
    }

    /// All lines to its end, which must be a good one.
    pub fn finish(mut self) -> Vec<String> {
        let lines = std::iter::from_fn(|| self.line()).collect();
        let status = self.child.wait().expect("wait for a process");
        assert!(status.success(), "{} failed, see its message above: {status}", self.name);
        lines
    }

    /// Kills it, as SIGKILL does; gives the lines that it reported before.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("kill a process");
        let lines = std::iter::from_fn(|| self.line()).collect();
        let status = self.child.wait().expect("wait for a process");
        assert!(status.code().is_none(), "{} ended before it was killed: {status}", self.name);
        lines
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has been waited for, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs processes for all of `jobs` at once, each to its end; gives the lines of each.
pub fn all(directory: &Path, jobs: impl IntoIterator<Item = (&'static str, Vec<String>)>) -> Vec<Vec<String>> {
    let start = |(job, arguments): (&'static str, Vec<String>)| Process::start(job, directory, &arguments);
    let mut processes: Vec<Process> = jobs.into_iter().map(start).collect();
    processes.iter_mut().for_each(Process::go);
    // One thread each, so that none waits for a reader of what it reports.
    std::thread::scope(|scope| {
        let threads: Vec<_> = processes.into_iter().map(|process| scope.spawn(|| process.finish())).collect();
        threads.into_iter().map(|thread| thread.join().expect("a process failed")).collect()
    })
}

/// The other side: does what the environment says, if it says anything.
pub fn run_job() {
    let Ok(job) = std::env::var(JOB) else { return };
    let directory = std::env::var_os("CLOAKROOM_TEST_DIRECTORY").expect("set by Process::start");
    let arguments = std::env::var("CLOAKROOM_TEST_ARGUMENTS").expect("set by Process::start");
    let arguments: Vec<&str> = arguments.split(' ').collect();
    // The first argument or two may be the session IDs; each job knows.
    println!("@ready");
    let mut go = String::new();
    std::io::stdin().read_line(&mut go).expect("wait for the start");
    if go == "go\n" {
        jobs::run(&job, &DirectoryStore::at(&directory), &arguments);
    }
}
