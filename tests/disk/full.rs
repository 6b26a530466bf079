//! A full disk: sessions that are there are saved as ever, new ones and larger ones are refused, and nothing is damaged.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloakroom::session::{Id, Saved, Store};
use cloakroom::{DirectoryStore, Durability, StoreError};

use super::mount::{Disk, Kind, has_loop_devices, isolated};
use super::session::{number, record};

pub const SESSIONS: usize = 1000;
const UPDATES: u64 = 10;

/// What there is nothing left of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    Data,
    Inodes,
}

/// Takes all that is left of one or the other.
pub struct Filling(Vec<PathBuf>);

impl Filling {
    pub fn new(disk: &Path, lack: Lack) -> Self {
        let mut files = Vec::new();
        let mut next = || {
            let path = disk.join(format!("filling-{}", files.len()));
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            if file.is_ok() {
                files.push(path);
            }
            file
        };
        match lack {
            Lack::Inodes => while next().inspect_err(is_full).is_ok() {},
            Lack::Data => {
                let mut file = next().expect("a file that fills the disk");
                // What is written later may still find a little that was only promised to others before.
                for _ in 0..3 {
                    for size in [1 << 20, 1 << 12, 1] {
                        let bytes = vec![b'x'; size];
                        while file.write_all(&bytes).inspect_err(is_full).is_ok() {}
                    }
                    let _ = file.sync_all();
                }
            }
        }
        Self(files)
    }

    pub fn remove(self) {
        for path in self.0 {
            std::fs::remove_file(path).expect("remove what filled the disk");
        }
    }
}

#[track_caller]
fn is_full(error: &std::io::Error) {
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
}

#[track_caller]
fn is_refused<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    match outcome {
        Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::StorageFull => {}
        other => panic!("{other:?}"),
    }
}

pub fn names(directory: &Path) -> usize {
    std::fs::read_dir(directory).expect("list").count()
}

/// Most are small, some are of several blocks.
fn size(i: usize, n: u64) -> usize {
    let largest = if i.is_multiple_of(10) { 9000 } else { 1500 };
    largest - (i * 7 + n as usize * 13) % 700
}

fn all_are(directory: &Path, ids: &[Id], n: u64) {
    let store = DirectoryStore::at(directory);
    for id in ids {
        let stored = store.load(id).expect("load").expect("a session that is there");
        assert_eq!(number(id, &stored.record), Some(n), "damaged or older");
    }
}

/// The store on a disk that lacks this.
fn store_on(mut disk: Disk, lack: Lack, durability: Durability) {
    let directory = disk.join("sessions");
    let store = DirectoryStore::at(&directory).durability(durability);
    let ids: Vec<Id> = (0..SESSIONS).map(|_| Id::generate().expect("an ID")).collect();
    for (i, id) in ids.iter().enumerate() {
        store.create(id, &record(id, 0, size(i, 0))).expect("create");
    }
    let filling = Filling::new(&disk.path(), lack);

    let mut failures = Vec::new();
    for n in 1..=UPDATES {
        for (i, id) in ids.iter().enumerate() {
            let saved = (|| {
                let mut guard = store.lock(id, Duration::from_secs(20))?.expect("a session that is there");
                let stored = guard.load()?.expect("a session that is there");
                guard.save(&record(id, n, size(i, n)), stored.version)
            })();
            if !matches!(saved, Ok(Saved::Saved(_))) {
                failures.push(format!("{saved:?}"));
            }
        }
        if let Some(first) = failures.first() {
            panic!("{} of {SESSIONS} updates failed: {first}", failures.len());
        }
    }
    all_are(&directory, &ids, UPDATES);

    // What needs more is refused, leaves what is there, and leaves nothing behind.
    let large = |id: &Id, n| store.save(id, &record(id, n, 60_000), store.load(id)?.expect("a session").version);
    let (before, growing) = (names(&directory), &ids[..50]);
    for id in growing {
        is_refused_if(lack == Lack::Data, large(id, UPDATES));
    }
    for _ in 0..50 {
        let id = Id::generate().expect("an ID");
        is_refused(store.create(&id, &record(&id, 0, 60_000)));
        assert!(store.load(&id).expect("load").is_none());
    }
    assert_eq!(names(&directory), before, "a session that was not created left its file");
    all_are(&directory, &ids, UPDATES);
    assert!(ids.iter().all(|id| store.touch(id).expect("touch")));
    drop(store);
    if matches!(disk.kind(), Kind::Image(..)) {
        // Also what was written back only later.
        disk.remount();
        all_are(&directory, &ids, UPDATES);
    }

    // A logout needs no space either.
    let store = DirectoryStore::at(&directory).durability(durability);
    let (gone, ids) = ids.split_at(10);
    assert!(gone.iter().all(|id| store.delete(id).expect("delete")));
    assert!(gone.iter().all(|id| store.load(id).expect("load").is_none()));

    filling.remove();
    for id in ids {
        let version = store.load(id).expect("load").expect("a session").version;
        let saved = store.save(id, &record(id, UPDATES + 1, 10_000), version).expect("save when there is space again");
        assert!(matches!(saved, Saved::Saved(_)));
    }
    all_are(&directory, ids, UPDATES + 1);
    let id = Id::generate().expect("an ID");
    store.create(&id, &record(&id, 0, 100)).expect("create when there is space again");
    eprintln!(
        "full of {lack:?}: {:?} {durability:?}: {} updates of {SESSIONS} sessions, 0 failed, 0 damaged",
        disk.kind(),
        SESSIONS as u64 * UPDATES
    );
}

#[track_caller]
fn is_refused_if(refused: bool, outcome: Result<Saved, StoreError>) {
    if refused { is_refused(outcome) } else { assert!(matches!(outcome, Ok(Saved::Saved(_))), "{outcome:?}") }
}

#[test]
fn sessions_are_saved_in_memory_without_space() {
    isolated("full::sessions_are_saved_in_memory_without_space", || {
        store_on(Disk::new(Kind::Memory("size=48m")), Lack::Data, Durability::Process);
    });
}

#[test]
fn sessions_are_saved_in_memory_without_inodes() {
    isolated("full::sessions_are_saved_in_memory_without_inodes", || {
        store_on(Disk::new(Kind::Memory("size=64m,nr_inodes=1200")), Lack::Inodes, Durability::Process);
    });
}

/// Blocks of 1 KiB, as mkfs has them on small disks: a slot is several, and so are the extents that a save splits.
const EXT4: Kind = Kind::Image(64, &["mkfs.ext4", "-q", "-b", "1024", "-m", "0"], "rw");
const EXT4_FEW_INODES: Kind = Kind::Image(96, &["mkfs.ext4", "-q", "-m", "0", "-N", "1200"], "rw");
const XFS: Kind = Kind::Image(320, &["mkfs.xfs", "-q"], "rw");

#[test]
#[ignore = "needs mkfs.ext4 and mount (Debian: e2fsprogs, mount): run tests/run"]
fn sessions_are_saved_on_ext4_without_space() {
    let test = "full::sessions_are_saved_on_ext4_without_space";
    isolated(test, || {
        for durability in [Durability::Process, Durability::Power] {
            if has_loop_devices(test) {
                store_on(Disk::new(EXT4), Lack::Data, durability);
            }
        }
    });
}

#[test]
#[ignore = "needs mkfs.ext4 and mount (Debian: e2fsprogs, mount): run tests/run"]
fn sessions_are_saved_on_ext4_without_inodes() {
    let test = "full::sessions_are_saved_on_ext4_without_inodes";
    isolated(test, || {
        if has_loop_devices(test) {
            store_on(Disk::new(EXT4_FEW_INODES), Lack::Inodes, Durability::Process);
        }
    });
}

#[test]
#[ignore = "needs mkfs.xfs and mount (Debian: xfsprogs, mount): run tests/run"]
fn sessions_are_saved_on_xfs_without_space() {
    let test = "full::sessions_are_saved_on_xfs_without_space";
    isolated(test, || {
        if has_loop_devices(test) {
            store_on(Disk::new(XFS), Lack::Data, Durability::Process);
        }
    });
}
