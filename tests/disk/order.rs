//! In which order the store syncs, seen by strace(1): ext4 and XFS bring back a new name with its file, so that a power cut
//! there does not show whether the directory was synced. Other file systems need not.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cloakroom::session::{Id, Saved, Store};
use cloakroom::{DirectoryStore, Durability};

use super::session::record;
use super::support::TestDir;

/// Set in the process that is traced: where its sessions are.
const TRACED: &str = "CLOAKROOM_TEST_TRACED";

/// Not a test: what is traced. Saves from either slot, several times under one lock, and grows from either slot.
#[test]
fn create_save_and_delete() {
    let Some(directory) = std::env::var_os(TRACED) else { return };
    let store = DirectoryStore::at(directory).durability(Durability::Power);
    let id = Id::generate().expect("an ID");
    store.create(&id, &record(&id, 0, 100)).expect("create");
    for (n, sizes) in [(1, &[100][..]), (2, &[100, 100]), (4, &[100]), (5, &[3000]), (6, &[9000])] {
        let mut guard = store.lock(&id, Duration::ZERO).expect("lock").expect("there");
        for (n, &size) in (n..).zip(sizes) {
            let version = guard.load().expect("load").expect("there").version;
            let saved = guard.save(&record(&id, n, size), version).expect("save");
            assert!(matches!(saved, Saved::Saved(_)));
        }
    }
    assert!(store.delete(&id).expect("delete"));
}

/// Set as well in the process that saves a session whose file has grown, and nothing else.
const GROWN: &str = "CLOAKROOM_TEST_GROWN";

/// Not a test: what is traced.
#[test]
fn save_and_delete_what_has_grown() {
    let (Some(directory), Some(ids)) = (std::env::var_os(TRACED), std::env::var(GROWN).ok()) else { return };
    let store = DirectoryStore::at(directory);
    let (saved, deleted) = ids.split_once(' ').expect("two");
    let id = Id::parse(saved).expect("an ID");
    for n in [1, 2] {
        let version = store.load(&id).expect("load").expect("there").version;
        assert!(matches!(store.save(&id, &record(&id, n, 100), version).expect("save"), Saved::Saved(_)));
    }
    assert!(store.delete(&Id::parse(deleted).expect("an ID")).expect("delete"));
}

/// The calls on files in `sessions` that a test of this program makes.
fn trace(test: &str, sessions: &Path, grown: &str) -> String {
    let trace = sessions.with_extension("trace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-e", "trace=openat,flock,pwrite64,pwritev,ftruncate,fsync,fdatasync,unlinkat", "-o"])
        .arg(&trace);
    command.arg(std::env::current_exe().expect("this program")).args(["--exact", test]);
    if !grown.is_empty() {
        command.env(GROWN, grown);
    }
    let output = command.env(TRACED, sessions).output().expect("strace");
    assert!(output.status.success(), "{output:?}");
    let lines = std::fs::read_to_string(&trace).expect("read the trace");
    let inside = sessions.to_str().expect("text");
    let call = |line: &str| {
        let of_directory = line.contains(&format!("{inside}>)"));
        Some(match line.split_whitespace().nth(1)?.split('(').next()? {
            "openat" if line.contains("O_CREAT") => "make",
            "flock" => "lock",
            "pwrite64" | "pwritev" => "write",
            "ftruncate" => "length",
            "fdatasync" | "fsync" if of_directory => "directory",
            "fdatasync" | "fsync" => "sync",
            "unlinkat" => "unlink",
            _ => return None,
        })
    };
    let calls: Vec<&str> = lines.lines().filter(|line| line.contains(inside)).filter_map(call).collect();
    calls.join(" ")
}

/// Before each write as well, unless the same process has synced the one before it: a process that dies between the two
/// leaves a current record that is in memory alone, and the slot to be overwritten is then the only one on disk (`tests/model`).
#[test]
#[ignore = "needs strace: run tests/run"]
fn with_durability_power_all_is_on_disk_before_it_is_acknowledged() {
    let directory = TestDir::new();
    let expected = [
        // Created; saved into B, into A and into B, under one lock, and into A.
        "make lock length write sync directory",
        "lock sync write sync",
        "lock sync write sync write sync",
        "lock sync write sync",
        // Grows with the record in A, and then in B, which is copied.
        "lock sync length sync write sync",
        "lock sync write sync length sync write sync",
        "lock sync write sync unlink directory",
    ];
    let calls = trace("order::create_save_and_delete", &directory.join("sessions"), "");
    assert_eq!(calls, expected.join(" "));
}

/// Whoever made the file grow may have died before the new length was on disk. A power cut that brings the old one back
/// must not find a value in place of slot B.
#[test]
#[ignore = "needs strace: run tests/run"]
fn what_has_grown_is_on_disk_before_it_is_written_to() {
    let directory = TestDir::new();
    let sessions = directory.join("sessions");
    let store = DirectoryStore::at(&sessions);
    let ids = [1, 2].map(|_| {
        let id = Id::generate().expect("an ID");
        store.create(&id, &record(&id, 0, 100)).expect("create");
        let file = File::options().write(true).open(sessions.join(&*id.to_text())).expect("open");
        // As far as it comes that is killed after it has set the length.
        file.set_len(2 * file.metadata().expect("its length").len()).expect("grow");
        id.to_text().to_string()
    });
    let calls = trace("order::save_and_delete_what_has_grown", &sessions, &ids.join(" "));
    assert_eq!(calls, "lock sync write lock write lock sync write sync unlink");
}
