//! Who is killed, and what is left of processes.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::Dice;
use crate::book::Book;
use crate::support::eventually;
use crate::support::process::{Proc, Signal, children, descriptors, state};

/// The dead have to be buried within this time.
const UNBURIED: Duration = Duration::from_secs(1);

/// Kills a child of `master`: a worker mostly, but what sweeps, or answers `--status`, is none the better for not being one.
/// False where there was none.
pub fn kill_one(master: u32, dice: &mut Dice) -> bool {
    let pids = children(master);
    if pids.is_empty() {
        return false;
    }
    let mut pid = pids[dice.roll(pids.len())];
    if is_nice(pid) && dice.roll(8) > 0 {
        // Where there is other work a sweep takes its time, and would never get through.
        pid = pids[dice.roll(pids.len())];
    }
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    // By a descriptor, and only after another look: its number may be somebody else's by now.
    let Ok(process) = pidfd_open(raw, PidfdFlags::empty()) else { return false };
    children(master).contains(&pid) && pidfd_send_signal(&process, Signal::KILL).is_ok()
}

/// Whether a process lets all others go first, as a sweep does.
pub fn is_nice(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.split(' ').nth(16) == Some("19"))
}

/// The children of a master that are dead and not buried.
#[derive(Default)]
pub struct Graves(HashMap<u32, Instant>);

impl Graves {
    pub fn look(&mut self, master: u32, book: &Book) {
        let dead: Vec<u32> = children(master).into_iter().filter(|&pid| state(pid) == Some('Z')).collect();
        self.0.retain(|pid, _| dead.contains(pid));
        for pid in dead {
            let since = *self.0.entry(pid).or_insert_with(Instant::now);
            if since.elapsed() > UNBURIED {
                book.fail(format_args!("process {pid} is dead and was not buried"));
                self.0.insert(pid, Instant::now());
            }
        }
    }
}

/// The middle one of some figures.
pub fn median(mut figures: Vec<u64>) -> u64 {
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or(0)
}

/// Fails where `late` is more than a twentieth above `early`, and by more than `slack`: KiB or descriptors.
pub fn check_growth(book: &Book, what: &str, early: u64, late: u64, slack: u64) {
    if late * 20 > early * 21 && late > early + slack {
        book.fail(format_args!("{what} has grown: from {early} to {late}"));
    }
}

/// When nobody asks any more: the crew is complete, nobody is dead, and the master has the descriptors that it had.
pub fn check_processes(pool: &Proc, workers: usize, before: usize) {
    let master = pool.pid();
    eventually(&format!("there are {workers} children, all alive"), || {
        let pids = children(master);
        pids.len() == workers && pids.iter().all(|&pid| state(pid).is_some_and(|state| state != 'Z'))
    });
    eventually(&format!("the master has {before} descriptors again"), || descriptors(master) == before);
}

/// The names in the session directory: of sessions, and of nothing else but what a sweep keeps for itself. How many
/// sessions.
pub fn check_names(book: &Book, directory: &Path) -> usize {
    let names = std::fs::read_dir(directory).expect("list the sessions").filter_map(Result::ok);
    let mut sessions = 0;
    for name in names.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        match cloakroom::session::Id::parse(&name) {
            Some(_) => sessions += 1,
            None if name == "sweep-position" => {}
            None => book.fail(format_args!("a file {name} among the sessions")),
        }
    }
    sessions
}

/// Nothing in the log but what workers that are killed bring about.
pub fn check_log(book: &Book, log: &str) {
    const NEVER: [&str; 9] = [
        "gives up",
        "damaged",
        "panicked",
        "cannot",
        "timed out",
        "takes long",
        "did not leave",
        "request failed",
        "response:",
    ];
    for line in log.lines() {
        // A reload fails where the program that is tried out is the one that was killed.
        let failed =
            line.contains(" failed") && !line.contains("the old workers stay: the program was killed by signal 9");
        let ended = line.contains(" exited status=") && !line.contains(" exited status=0");
        if failed || ended || NEVER.iter().any(|word| line.contains(word)) {
            book.fail(format_args!("in the log: {line}"));
        }
    }
}
