//! The operations: what is there before, what is asked for, and what is there afterwards.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ciborium::Value;
use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Record, Saved, Store as _, Version};

/// The ID of the session that is there before.
pub const OWN: &str = "c10a4c10a4c10a4c10a4c10a4c10a4c1";
/// Its form token.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Bytes of a record that fill a slot of the smallest capacity.
const FULL: usize = 2048 - 64;

/// What a session holds, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coat {
    pub user: Option<String>,
    pub counter: u64,
}

/// One operation.
pub struct Operation {
    pub name: &'static str,
    /// Makes what is there before.
    pub prepare: fn(&Path),
    /// Method, target and form; or the arguments of the administrator's sweep.
    pub ask: Ask,
    /// The session's counter before, if there is one.
    pub old: Option<u64>,
    /// What the session has become: its counter.
    pub new: Option<u64>,
    /// What is there under another ID: user and counter.
    pub another: Option<(Option<&'static str>, u64)>,
    /// Whether it is known by the time of the last use.
    pub touches: bool,
    /// Where it writes, and how much at least.
    pub write: Option<(u64, u64)>,
}

pub enum Ask {
    Page(&'static str, &'static str, &'static str),
    Sweep(&'static [&'static str]),
}

const NOTHING: Operation = Operation {
    name: "",
    prepare: |_| {},
    ask: Ask::Page("GET", "/read", ""),
    old: None,
    new: None,
    another: None,
    touches: false,
    write: None,
};
const POST_COUNTER: Ask = Ask::Page("POST", "/counter", "");

pub const CREATE: Operation = Operation {
    name: "create",
    prepare: make_directory,
    ask: Ask::Page("POST", "/keep", ""),
    another: Some((None, 0)),
    ..NOTHING
};
pub const CREATE_THE_FIRST: Operation = Operation { name: "create the first", prepare: |_| {}, ..CREATE };
pub const SAVE_TO_B: Operation = Operation {
    name: "save to B",
    prepare: |path| own(path, 7, 0, false),
    ask: POST_COUNTER,
    old: Some(7),
    new: Some(8),
    write: Some((2048, 150)),
    ..NOTHING
};
pub const SAVE_TO_A: Operation =
    Operation { name: "save to A", prepare: |path| own(path, 7, 0, true), write: Some((0, 150)), ..SAVE_TO_B };
pub const SAVE_OPTIMISTIC: Operation =
    Operation { name: "save optimistically", ask: Ask::Page("GET", "/counter", ""), ..SAVE_TO_B };
pub const GROW_FROM_A: Operation = Operation {
    name: "grow from A",
    prepare: |path| own(path, 23, FULL, false),
    // One byte more.
    ask: POST_COUNTER,
    old: Some(23),
    new: Some(24),
    ..NOTHING
};
pub const GROW_FROM_B: Operation =
    Operation { name: "grow from B", prepare: |path| own(path, 23, FULL, true), ..GROW_FROM_A };
pub const DELETE_FROM_A: Operation = Operation {
    name: "delete from A",
    prepare: |path| own(path, 7, 0, false),
    ask: Ask::Page("POST", "/logout", ""),
    old: Some(7),
    write: Some((2048, 64)),
    ..NOTHING
};
pub const DELETE_FROM_B: Operation =
    Operation { name: "delete from B", prepare: |path| own(path, 7, 0, true), write: Some((0, 64)), ..DELETE_FROM_A };
pub const RENEW: Operation = Operation {
    name: "renew",
    prepare: |path| own(path, 7, 0, false),
    ask: Ask::Page("POST", "/login", "name=grace&form_token=0123456789abcdef0123456789abcdef"),
    old: Some(7),
    another: Some((Some("grace"), 7)),
    ..NOTHING
};
pub const TOUCH: Operation = Operation {
    name: "touch",
    prepare: |path| {
        own(path, 7, 0, false);
        age(&path.join(OWN), 60);
    },
    old: Some(7),
    new: Some(7),
    touches: true,
    ..NOTHING
};
pub const READ: Operation =
    Operation { name: "read", prepare: |path| own(path, 7, 0, false), old: Some(7), new: Some(7), ..NOTHING };
pub const READ_TORN: Operation = Operation {
    name: "read beside a torn save",
    prepare: |path| {
        own(path, 7, 0, false);
        scribble(&path.join(OWN), &[2048]);
    },
    ..READ
};
/// Where both slots are bad there is no session, before and afterwards.
pub const READ_DAMAGED: Operation = Operation {
    name: "read what is damaged",
    prepare: |path| {
        own(path, 7, 0, false);
        scribble(&path.join(OWN), &[0, 2048]);
    },
    old: None,
    new: None,
    ..NOTHING
};
pub const SWEEPS: [Operation; 2] = [
    Operation { name: "sweep", prepare: litter, ask: Ask::Sweep(&[]), old: Some(7), new: Some(7), ..NOTHING },
    Operation {
        name: "sweep with a budget",
        prepare: litter,
        ask: Ask::Sweep(&["--budget", "0ms"]),
        old: Some(7),
        new: Some(7),
        ..NOTHING
    },
];

fn make_directory(path: &Path) {
    DirectoryStore::at(path).setup().expect("make the directory");
}

/// A session with a user, a counter and a form token, of `size` bytes at least; its record is in slot A, or B.
fn record(counter: u64, size: usize, idle: u64) -> Record {
    let encoded = |value: Value| {
        let mut bytes = Vec::new();
        ciborium::into_writer(&value, &mut bytes).expect("encode");
        Value::Bytes(bytes)
    };
    let with_padding = |padding: usize| {
        let values = vec![
            ("counter".into(), encoded(counter.into())),
            ("keep".into(), encoded(true.into())),
            ("pad".into(), encoded("x".repeat(padding).into())),
        ];
        let map = vec![
            ("u".into(), "ada".into()),
            ("c".into(), Value::from(1_700_000_000_000_u64)),
            ("i".into(), Value::from(idle)),
            ("v".into(), Value::Map(values)),
            ("t".into(), Value::Array(vec![TOKEN.into()])),
        ];
        let mut bytes = Vec::new();
        ciborium::into_writer(&Value::Map(map), &mut bytes).expect("encode");
        Record::decode(&bytes).expect("a record")
    };
    let length = |padding| with_padding(padding).encode().len();
    let mut padding = 300;
    while length(padding) < size {
        padding += size - length(padding);
    }
    while size > 0 && length(padding) > size {
        padding -= 1;
    }
    with_padding(padding)
}

fn own(path: &Path, counter: u64, size: usize, in_b: bool) {
    let (store, id) = (DirectoryStore::at(path), Id::parse(OWN).expect("an ID"));
    let record = |counter| record(counter, size, 1800);
    assert!(size == 0 || record(counter).encode().len() == size);
    // What was saved before is another one, so that it is noticed where it comes back.
    store.create(&id, &record(if in_b { counter - 1 } else { counter })).expect("create");
    if in_b {
        assert!(matches!(store.save(&id, &record(counter), Version(1)).expect("save"), Saved::Saved(_)));
    }
}

/// Sets the time of the last use back.
pub fn age(file: &Path, seconds: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds);
    File::options().write(true).open(file).expect("open").set_modified(time).expect("set the time");
}

/// Damages the slots at these offsets: behind the head, so that only the checksum tells.
fn scribble(file: &Path, slots: &[u64]) {
    use std::os::unix::fs::FileExt as _;
    let (file, whole) = (File::options().write(true).open(file).expect("open"), fs::read(file).expect("read"));
    for &slot in slots {
        let slot_a = &whole[..200];
        file.write_all_at(slot_a, slot).expect("write");
        file.write_all_at(b"torn here", slot + 80).expect("write");
    }
}

/// A session that is used, and all that a sweep is there for.
fn litter(path: &Path) {
    own(path, 7, 0, false);
    let store = DirectoryStore::at(path);
    let over = Id::generate().expect("an ID");
    store.create(&over, &record(1, 0, 60)).expect("create");
    age(&path.join(&*over.to_text()), 3600);
    // Deleted, and not unlinked.
    let deleted = Id::generate().expect("an ID");
    store.create(&deleted, &record(1, 0, 1800)).expect("create");
    let file = path.join(&*deleted.to_text());
    let open = File::open(&file).expect("open");
    store.delete(&deleted).expect("delete");
    put(&file, &{
        use std::io::Read as _;
        let mut bytes = Vec::new();
        (&open).read_to_end(&mut bytes).expect("read");
        bytes
    });
    // Never completed; set aside.
    let blank = path.join(&*Id::generate().expect("an ID").to_text());
    put(&blank, &[]);
    age(&blank, 120);
    let damaged = path.join(format!("damaged-{OWN}-1"));
    put(&damaged, b"x");
    age(&damaged, 8 * 24 * 3600);
}

fn put(file: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(file).expect("create");
    file.write_all(bytes).expect("write");
}
