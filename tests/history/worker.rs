//! The processes: this program, started again with a number in its environment. Each is told a directory and a seed on
//! its standard input, does what the seed says to the sessions there, and says so when it is done; then the next.
//!
//! What it does goes to a log of its own, a line before each operation and a line after it, each one write(2): what was
//! written survives the process.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use cloakroom::DirectoryStore;
use cloakroom::session::{Guard, Id, Record, Saved, Store, StoreError, Version};
use rustix::time::{ClockId, clock_gettime};

use crate::coat::{Coat, WAIT};
use crate::random::Random;

pub const NUMBER: &str = "CLOAKROOM_HISTORY_WORKER";

/// Sessions of a history at any time.
pub const SESSIONS: u64 = 3;

/// A clock that all processes share, in nanoseconds.
pub fn time() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

pub fn run() {
    let Ok(number) = std::env::var(NUMBER) else { return };
    let number: u64 = number.parse().expect("a number");
    println!("@ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("read what to do");
        let (seed, directory) = line.split_once(' ').expect("a seed and a directory");
        Worker::new(number, seed.parse().expect("a seed"), Path::new(directory)).work();
        println!("@done");
    }
}

/// The IDs that everybody is to use, one for each session.
pub struct Board(File);

impl Board {
    pub fn open(directory: &Path) -> Self {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(directory.join("board"));
        Self(file.expect("open the board"))
    }

    pub fn get(&self, at: u64) -> Option<Id> {
        let mut text = [0; 32];
        self.0.read_exact_at(&mut text, 32 * at).ok()?;
        Id::parse(std::str::from_utf8(&text).ok()?)
    }

    pub fn set(&self, at: u64, id: &Id) {
        self.0.write_all_at(id.to_text().as_bytes(), 32 * at).expect("write on the board");
    }
}

/// What a history is about.
#[derive(Clone, Copy)]
enum Kind {
    /// Something of everything.
    Mixed,
    /// Sessions come, go and change their IDs all the time.
    Restless,
    /// Large files with smaller records, so that several saves race past a look.
    Long,
}

struct Worker {
    number: u64,
    random: Random,
    kind: Kind,
    sessions: u64,
    store: DirectoryStore,
    board: Board,
    log: File,
    records: u64,
}

impl Worker {
    fn new(number: u64, seed: u64, directory: &Path) -> Self {
        let mut shared = Random::new(seed);
        let kind = [Kind::Mixed, Kind::Restless, Kind::Long][shared.below(3) as usize];
        let sessions = 1 + shared.below(SESSIONS);
        let log = OpenOptions::new().create_new(true).append(true).open(directory.join(format!("log-{number}")));
        Self {
            number,
            random: Random::new(seed ^ (number + 1) << 48),
            kind,
            sessions,
            store: DirectoryStore::at(directory.join("sessions")),
            board: Board::open(directory),
            log: log.expect("open the log"),
            records: 0,
        }
    }

    fn work(&mut self) {
        let count = 10 + self.random.below(5);
        for _ in 0..count {
            // Neither all in step nor one after the other.
            match self.random.below(8) {
                0 => std::thread::sleep(Duration::from_micros(self.random.below(300))),
                1 | 2 => std::thread::yield_now(),
                _ => {}
            }
            self.operate();
        }
    }

    fn operate(&mut self) {
        let at = self.random.below(self.sessions);
        let Some(id) = self.board.get(at) else { return self.create(at) };
        // Load, exists, touch, optimistic, update, burst, delete, renew, sweep, create.
        let weights: [u64; 10] = match self.kind {
            Kind::Mixed => [20, 4, 5, 25, 25, 8, 3, 6, 3, 4],
            Kind::Restless => [20, 5, 8, 15, 20, 2, 10, 12, 6, 8],
            Kind::Long => [40, 5, 2, 10, 8, 30, 2, 1, 2, 2],
        };
        let mut drawn = self.random.below(weights.iter().sum());
        let what = weights.iter().position(|&weight| {
            if drawn < weight {
                true
            } else {
                drawn -= weight;
                false
            }
        });
        match what.expect("one of them") {
            0 => drop(self.load(&id)),
            1 => {
                self.begin("exists", &[&text(&id)]);
                let there = self.store.exists(&id);
                self.end(there.map(|there| format!("is {there}")));
            }
            2 => {
                self.begin("touch", &[&text(&id)]);
                let there = self.store.touch(&id);
                self.end(there.map(|there| format!("is {there}")));
            }
            3 => self.optimistic(&id),
            4 => self.update(&id, 1),
            5 => {
                let count = 3 + self.random.below(4);
                self.update(&id, count);
            }
            6 => {
                self.begin("delete", &[&text(&id)]);
                let there = self.store.delete(&id);
                self.end(there.map(|there| format!("is {there}")));
            }
            7 => self.renew(at, &id),
            // No session is over, so it is no operation: it must not be noticed.
            8 => drop(self.store.sweep(None, None).expect("sweep")),
            _ => self.create(at),
        }
    }

    /// A record that nobody else saves, and what it is known by.
    fn record(&mut self) -> (u64, Coat) {
        self.records += 1;
        let value = self.number << 20 | self.records;
        let sizes = match self.kind {
            Kind::Mixed | Kind::Restless => [40, 40, 1500, 3000, 20_000],
            Kind::Long => [40, 40, 500, 2000, 3000],
        };
        (value, Coat { n: value, size: sizes[self.random.below(5) as usize] })
    }

    fn begin(&mut self, what: &str, arguments: &[&str]) {
        self.note(&format!("call {} {what} {}", time(), arguments.join(" ")));
    }

    fn end(&mut self, answer: Result<String, StoreError>) {
        let now = time();
        match answer {
            Ok(answer) => self.note(&format!("answer {now} {answer}")),
            // Not granted in time, so nothing was done.
            Err(StoreError::Locked) => self.note(&format!("answer {now} locked")),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn note(&mut self, line: &str) {
        self.log.write_all(format!("{line}\n").as_bytes()).expect("write the log");
    }

    fn create(&mut self, at: u64) {
        let id = Id::generate().expect("an ID");
        let (value, mut coat) = self.record();
        if matches!(self.kind, Kind::Long) {
            coat.size = 60_000;
        }
        let record = coat.record();
        self.begin("create", &[&text(&id), &value.to_string()]);
        let created = self.store.create(&id, &record);
        let told = created.is_ok();
        self.end(created.map(|version| format!("created {}", version.0)));
        if told {
            self.board.set(at, &id);
        }
    }

    fn load(&mut self, id: &Id) -> Option<Version> {
        self.begin("load", &[&text(id)]);
        let stored = self.store.load(id);
        let version = stored.as_ref().ok().and_then(|stored| stored.as_ref().map(|stored| stored.version));
        self.end(stored.map(|stored| match stored {
            Some(stored) => format!("found {} {}", stored.version.0, Coat::of(&stored.record).n),
            None => "nothing".to_owned(),
        }));
        version
    }

    fn optimistic(&mut self, id: &Id) {
        let Some(version) = self.load(id) else { return };
        if self.random.below(3) == 0 {
            std::thread::yield_now();
        }
        let (value, coat) = self.record();
        let record = coat.record();
        self.begin("save", &[&text(id), &version.0.to_string(), &value.to_string()]);
        let saved = self.store.save(id, &record, version);
        self.end(saved.map(saved_text));
    }

    /// Saves so many times under one lock, after the first as fast as it goes.
    fn update(&mut self, id: &Id, count: u64) {
        let mut held: Option<(Box<dyn Guard>, Version, u64)> = None;
        let coats: Vec<(u64, Record)> =
            (0..count).map(|_| self.record()).map(|(value, coat)| (value, coat.record())).collect();
        for (value, record) in coats {
            self.begin("update", &[&text(id), &value.to_string()]);
            if held.is_none() {
                let mut guard = match self.store.lock(id, WAIT) {
                    Ok(Some(guard)) => guard,
                    Ok(None) => return self.end(Ok("gone".to_owned())),
                    Err(error) => return self.end(Err(error)),
                };
                let stored = guard.load().expect("load").expect("locked, so it is there");
                held = Some((guard, stored.version, Coat::of(&stored.record).n));
                if self.random.below(4) == 0 {
                    std::thread::yield_now();
                }
            }
            let (guard, version, before) = held.as_mut().expect("locked");
            let saved = guard.save(&record, *version).expect("save");
            let answer = format!("{} after {} {before}", saved_text(saved), version.0);
            if let Saved::Saved(new) = saved {
                (*version, *before) = (new, value);
            }
            self.end(Ok(answer));
        }
    }

    fn renew(&mut self, at: u64, id: &Id) {
        let new = Id::generate().expect("an ID");
        self.begin("renew", &[&text(id), &text(&new)]);
        let mut guard = match self.store.lock(id, WAIT) {
            Ok(Some(guard)) => guard,
            Ok(None) => return self.end(Ok("gone".to_owned())),
            Err(error) => return self.end(Err(error)),
        };
        let stored = guard.load().expect("load").expect("locked, so it is there");
        self.store.create(&new, &stored.record).expect("create");
        guard.delete().expect("delete");
        self.end(Ok(format!("found {} {}", stored.version.0, Coat::of(&stored.record).n)));
        self.board.set(at, &new);
    }
}

fn saved_text(saved: Saved) -> String {
    match saved {
        Saved::Saved(version) => format!("saved {}", version.0),
        Saved::Conflict => "conflict".to_owned(),
        Saved::Gone => "gone".to_owned(),
    }
}

fn text(id: &Id) -> String {
    id.to_text().to_string()
}
