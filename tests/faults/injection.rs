//! strace(1): which system calls an operation makes, and one of them failing, or killing.

use std::path::Path;
use std::process::Command;

use crate::operation::Operation;
use crate::verdict::Scene;

/// What does not fail, or not so that the kernel would not have done it: `close` gives descriptor and lock back whatever
/// it returns. What is written to stdout is the server's, and a client that is not there is told nothing.
pub const NEVER_FAIL: [&str; 17] = [
    "close",
    "munmap",
    "exit_group",
    "exit",
    "geteuid",
    "getpid",
    "gettid",
    "sigaltstack",
    "rt_sigaction",
    "rt_sigprocmask",
    "fcntl",
    "write",
    "mprotect",
    "dup2",
    "rt_sigreturn",
    "read",
    "futex",
];

/// What happens at a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before it.
    Kill,
    /// It fails.
    Error(&'static str),
    /// No file may be longer than this.
    Limit(u64),
}

/// A fault, and where.
#[derive(Clone, Debug)]
pub struct Injection {
    pub call: String,
    /// Of the calls of this name that the process makes, counted from 1.
    pub nth: usize,
    /// How many in a row.
    pub times: usize,
    pub fault: Fault,
}

impl Injection {
    pub fn expression(&self) -> String {
        let Self { call, nth, times, fault } = self;
        let what = match fault {
            Fault::Kill => "signal=KILL".to_owned(),
            Fault::Error(error) => format!("error={error}"),
            Fault::Limit(_) => return format!("trace={call}"),
        };
        format!("inject={call}:{what}:when={nth}..{}", nth + times - 1)
    }
}

/// Leaves nothing of this test's environment to a program but where programs are, and where tests/coverage counts.
pub fn bare(command: &mut Command) -> &mut Command {
    let kept = ["PATH", "LLVM_PROFILE_FILE"];
    command.env_clear().envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
}

/// `program` under strace, with a fault or, without one, with all its calls written down.
pub fn traced(program: &Command, trace: &Path, injection: Option<&Injection>) -> Command {
    let mut command = Command::new("strace");
    // As a server starts a script.
    bare(&mut command);
    command.args(["-f", "-y", "-q", "-e", "signal=none", "-o"]).arg(trace);
    if let Some(injection) = injection {
        command.args(["-e", &format!("trace={}", injection.call), "-e", &injection.expression()]);
        if matches!(injection.fault, Fault::Error(_)) {
            // The other calls are not even stopped at. Signals are not delivered at calls that are stopped at like this.
            command.arg("--seccomp-bpf");
        }
    }
    command.arg("--").arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

/// The names of the system calls that an operation makes once it is about its work, and which of that name is the first:
/// what comes before is the start of a Rust program.
pub fn region(operation: &Operation) -> Vec<(String, usize)> {
    let scene = Scene::new(operation);
    let run = scene.run(None);
    let directory = scene.sessions.to_str().expect("text");
    let calls: Vec<(String, &str)> = run
        .trace
        .lines()
        .map(|line| line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start())
        .filter(|call| call.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(|call| (call.split('(').next().expect("a name").to_owned(), call))
        .collect();
    // A script puts its stdout out of the application's way first; the tool is at it when it has opened the directory.
    let is_first =
        |(name, call): &(String, &str)| name == "dup2" || name.starts_with("open") && call.contains(directory);
    let start = calls.iter().position(is_first).unwrap_or_else(|| panic!("{}: {}", operation.name, run.trace));
    let mut names: Vec<(String, usize)> = Vec::new();
    for (name, _) in &calls[start..] {
        if !names.iter().any(|(known, _)| known == name) {
            let before = calls[..start].iter().filter(|(other, _)| other == name).count();
            names.push((name.clone(), before + 1));
        }
    }
    names
}
