//! Random histories of processes that share nothing but a directory, some of them killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Store};

use crate::Figures;
use crate::check::{Answer, Event, Name, Op};
use crate::coat::Coat;
use crate::random::Random;
use crate::support::turn;
use crate::worker::{NUMBER, time};

const PROCESSES: u32 = 8;

/// A process at work. Dropping it kills it and waits for it.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(number: u32) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("path of this program"))
            .args(["--exact", "worker", "--nocapture", "--quiet", "--test-threads=1"])
            .env(NUMBER, number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a process");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, input, output }
    }

    /// Waits until it says so; `false` where it was killed before.
    fn says(&mut self, what: &str) -> bool {
        let mut line = String::new();
        while self.output.read_line(&mut line).expect("read from a process") > 0 {
            if line.trim_end().ends_with(what) {
                return true;
            }
            line.clear();
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One history: everybody works, and some are killed. Gives what happened.
fn record(processes: &mut [Process], directory: &Path, seed: u64) -> Vec<Event> {
    let mut random = Random::new(!seed);
    std::fs::create_dir(directory).expect("make a directory");
    let store = DirectoryStore::at(directory.join("sessions"));
    store.setup().expect("setup");
    for process in &mut *processes {
        writeln!(process.input, "{seed} {}", directory.display()).expect("tell a process what to do");
    }
    let victims: Vec<usize> = (0..[0, 1, 1, 2][random.below(4) as usize]).map(|_| random.below(8) as usize).collect();
    for &victim in &victims {
        // Not to wait for anything, but to hit it at work.
        std::thread::sleep(Duration::from_micros(random.below(6000)));
        processes[victim].child.kill().expect("kill a process");
    }
    let mut history = Vec::new();
    let mut names = Names::default();
    for (number, process) in (0_u32..).zip(processes) {
        let mut end = u64::MAX;
        if !process.says("@done") {
            let status = process.child.wait().expect("wait for a process");
            assert!(status.code().is_none(), "a process failed, see its message above: {status}");
            end = time();
        }
        if victims.contains(&(number as usize)) {
            // It may have been done before it was killed.
            *process = Process::start(number);
            assert!(process.says("@ready"));
        }
        let log = std::fs::read_to_string(directory.join(format!("log-{number}"))).unwrap_or_default();
        history.extend(names.parse(number, &log, end));
    }
    for (text, &id) in &names.told {
        let key = Id::parse(text).expect("an ID");
        let start = time();
        let stored = store.load(&key).expect("load").map(|stored| (stored.version.0, Coat::of(&stored.record).n));
        let (op, answer) = (Op::Load { id }, Answer::Found(stored));
        history.push(Event { process: PROCESSES, start, end: time(), op, answer });
        let locked = store.lock(&key, Duration::ZERO).expect("no lock left behind");
        assert_eq!(locked.is_some(), stored.is_some());
    }
    history
}

/// The numbers of the IDs.
#[derive(Default)]
struct Names {
    all: BTreeMap<String, Name>,
    /// Those that their makers lived to tell.
    told: BTreeMap<String, Name>,
}

impl Names {
    fn name(&mut self, text: &str) -> Name {
        let next = self.all.len() as Name;
        *self.all.entry(text.to_owned()).or_insert(next)
    }

    /// Reads a log; its last operation may have no answer, and was then over at `end`.
    fn parse(&mut self, process: u32, log: &str, end: u64) -> Vec<Event> {
        // A line that was cut off is none.
        let mut lines = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).peekable();
        let mut events = Vec::new();
        while let Some(line) = lines.next() {
            let call: Vec<&str> = line.split(' ').collect();
            let ["call", start, what, id, rest @ ..] = call.as_slice() else { panic!("{line}") };
            let (text, id) = (*id, self.name(id));
            let new = |names: &mut Self| names.name(rest[0]);
            let op = match *what {
                "create" => Op::Create { id, value: number(rest[0]) },
                "load" => Op::Load { id },
                "exists" => Op::Exists { id },
                "touch" => Op::Touch { id },
                "save" => Op::Save { id, expected: number(rest[0]), value: number(rest[1]) },
                "update" => Op::Update { id, value: number(rest[0]) },
                "delete" => Op::Delete { id },
                "renew" => Op::Renew { id, new: new(self) },
                other => panic!("{other}"),
            };
            let start = number(start);
            let Some(line) = lines.next() else {
                assert!(end < u64::MAX, "no answer, and yet alive");
                events.push(Event { process, start, end, op, answer: Answer::Unknown });
                break;
            };
            let reply: Vec<&str> = line.split(' ').collect();
            let ["answer", end, reply @ ..] = reply.as_slice() else { panic!("{line}") };
            let answer = match reply {
                ["locked"] => Answer::Failed,
                ["created", "1"] => Answer::Done,
                ["found", version, value] => Answer::Found(Some((number(version), number(value)))),
                ["nothing"] => Answer::Found(None),
                ["is", there] => Answer::Is(*there == "true"),
                ["saved", new, "after", version, value] => {
                    Answer::Updated((number(version), number(value)), number(new))
                }
                ["conflict", ..] => Answer::Conflict,
                ["gone", ..] => Answer::Gone,
                ["saved", new] => Answer::Saved(number(new)),
                other => panic!("{other:?}"),
            };
            match op {
                _ if answer == Answer::Failed => {}
                Op::Create { .. } => drop(self.told.insert(text.to_owned(), id)),
                Op::Renew { new, .. } if answer != Answer::Gone => drop(self.told.insert(rest[0].to_owned(), new)),
                _ => {}
            }
            events.push(Event { process, start, end: number(end), op, answer });
        }
        events
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

#[test]
fn histories_of_processes_that_share_a_directory_are_linearizable() {
    let _turn = turn();
    // In memory, where thousands of syncs cost nothing; some on disk, where who syncs makes way for others.
    let mut place = tempfile::Builder::new();
    let disk = place.prefix("history-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let memory = place.tempdir_in("/dev/shm").ok();
    let mut processes: Vec<Process> = (0..PROCESSES).map(Process::start).collect();
    assert!(processes.iter_mut().all(|process| process.says("@ready")));
    let mut figures = Figures::new();
    for seed in crate::seeds(150, 1) {
        let place = memory.as_ref().filter(|_| seed % 8 > 0).unwrap_or(&disk).path();
        let place = place.join(seed.to_string());
        figures.check(seed, &record(&mut processes, &place, seed));
        std::fs::remove_dir_all(&place).expect("remove a directory");
    }
    figures.print("processes");
}
