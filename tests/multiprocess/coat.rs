//! Session records for the bare store's tests, and the directory they are in.

use std::path::Path;
use std::time::Duration;

use ciborium::Value;
use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Record, Saved, Store, Version};

/// Longer than any test takes: a wait that comes to this end is a failure.
pub const WAIT: Duration = Duration::from_secs(60);

/// A counter, and so much padding that the record has a certain size. The padding tells which count it belongs to, so a
/// record put together from two is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coat {
    pub n: u64,
    pub size: usize,
}

impl Coat {
    pub fn record(self) -> Record {
        self.record_with(None)
    }

    /// With an idle timeout in seconds.
    pub fn record_with(self, idle: Option<u32>) -> Record {
        let bytes = |value: &Value| {
            let mut bytes = Vec::new();
            ciborium::into_writer(value, &mut bytes).expect("encode");
            Value::Bytes(bytes)
        };
        let text = |text: &str| Value::Text(text.to_owned());
        let values = vec![(text("n"), bytes(&Value::from(self.n))), (text("pad"), bytes(&Value::Text(self.pad())))];
        let mut record = vec![(text("c"), Value::from(0)), (text("v"), Value::Map(values))];
        if let Some(idle) = idle {
            record.push((text("i"), Value::from(idle)));
        }
        let mut bytes = Vec::new();
        ciborium::into_writer(&Value::Map(record), &mut bytes).expect("encode");
        Record::decode(&bytes).expect("a record")
    }

    fn pad(self) -> String {
        char::from(b'a' + (self.n % 26) as u8).to_string().repeat(self.size)
    }

    /// Reads a record; panics if it is not one that was saved.
    pub fn of(record: &Record) -> Self {
        let n = record.get("n").expect("a number").expect("a count");
        let pad: String = record.get("pad").expect("a text").expect("padding");
        let coat = Self { n, size: pad.len() };
        assert!(pad == coat.pad(), "a record put together from two: {coat:?}");
        coat
    }
}

/// Creates `count` sessions with the count 0.
pub fn create(store: &DirectoryStore, count: usize, size: usize) -> Vec<Id> {
    let create = |_| {
        let id = Id::generate().expect("an ID");
        store.create(&id, &Coat { n: 0, size }.record()).expect("create");
        id
    };
    (0..count).map(create).collect()
}

/// What a session holds.
pub fn coat(store: &DirectoryStore, id: &Id) -> Option<Coat> {
    store.load(id).expect("load").map(|stored| Coat::of(&stored.record))
}

/// One increment under the session's lock; `None` if the session is gone.
pub fn increment_locked(store: &DirectoryStore, id: &Id, size: usize) -> Option<u64> {
    let mut guard = store.lock(id, WAIT).expect("lock")?;
    let stored = guard.load().expect("load").expect("locked, so it is there");
    let n = Coat::of(&stored.record).n + 1;
    let saved = guard.save(&Coat { n, size }.record(), stored.version).expect("save");
    assert!(matches!(saved, Saved::Saved(_)), "{saved:?} under the lock");
    Some(n)
}

/// One increment without a lock: load, save if nobody else has, else again; `None` if the session is gone.
pub fn increment_optimistic(store: &DirectoryStore, id: &Id, size: usize) -> Option<u64> {
    loop {
        let stored = store.load(id).expect("load")?;
        let n = Coat::of(&stored.record).n + 1;
        match store.save(id, &Coat { n, size }.record(), stored.version).expect("save") {
            Saved::Saved(Version(_)) => return Some(n),
            Saved::Conflict => {}
            Saved::Gone => return None,
        }
    }
}

/// The names of all files of a directory.
pub fn names(directory: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("entry").file_name().into_string();
    std::fs::read_dir(directory).expect("list").map(|entry| name(entry).expect("a name")).collect()
}

/// IDs as one argument of a job.
pub fn as_argument(ids: &[Id]) -> String {
    ids.iter().map(|id| id.to_text().to_string()).collect::<Vec<_>>().join(",")
}

/// The other side of [`as_argument`].
pub fn from_argument(text: &str) -> Vec<Id> {
    text.split(',').map(|id| Id::parse(id).expect("an ID")).collect()
}
