//! The processes of the bare store's tests: this program, started again with the name of a job in its environment.
//!
//! A forked copy of a test runner with several threads could do next to nothing safely; a new process can do all.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;

use cloakroom::DirectoryStore;

use crate::coat::WAIT;
use crate::jobs;

const JOB: &str = "CLOAKROOM_TEST_JOB";

/// A process at work. Dropping it kills it and waits for it.
pub struct Process {
    name: String,
    child: Child,
    output: Option<BufReader<ChildStdout>>,
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
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let ready = report(&mut output);
        let process = Self { name: job.to_owned(), child, output: Some(output) };
        assert_eq!(ready.as_deref(), Some("ready"), "{job} did not start");
        process
    }

    /// Lets it begin.
    pub fn go(&mut self) {
        self.child.stdin.take().expect("once").write_all(b"go\n").expect("tell a process to go");
    }

    /// Kills it, as SIGKILL does; gives the lines that it reported before.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("kill a process");
        let mut output = self.output.take().expect("once");
        let lines = std::iter::from_fn(|| report(&mut output)).collect();
        let status = self.child.wait().expect("wait for a process");
        assert!(status.code().is_none(), "{} ended before it was killed: {status}", self.name);
        lines
    }
}

/// The next line that a process reported; `None` at its end. A line that was cut off by its death is none.
fn report(output: &mut BufReader<ChildStdout>) -> Option<String> {
    let mut line = String::new();
    while output.read_line(&mut line).expect("read from a process") > 0 {
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

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has been waited for, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs processes for all of `jobs` at once, each to its end; gives the lines of each. When one fails, the others are
/// killed: they may be waiting for what it was to do.
pub fn all(directory: &Path, jobs: impl IntoIterator<Item = (&'static str, Vec<String>)>) -> Vec<Vec<String>> {
    let start = |(job, arguments): (&'static str, Vec<String>)| Process::start(job, directory, &arguments);
    let mut processes: Vec<Process> = jobs.into_iter().map(start).collect();
    processes.iter_mut().for_each(Process::go);
    let (sender, ends) = channel();
    // One thread each, so that none waits for a reader of what it reports.
    for (at, process) in processes.iter_mut().enumerate() {
        let (mut output, sender) = (process.output.take().expect("once"), sender.clone());
        std::thread::spawn(move || sender.send((at, std::iter::from_fn(|| report(&mut output)).collect())));
    }
    let mut reports = vec![Vec::new(); processes.len()];
    for _ in 0..processes.len() {
        let (at, lines) = ends.recv_timeout(WAIT).expect("processes that do not wait for each other for ever");
        reports[at] = lines;
        let status = processes[at].child.wait().expect("wait for a process");
        assert!(status.success(), "{} failed, see its message above: {status}", processes[at].name);
    }
    reports
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
