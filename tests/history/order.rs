//! The order of writes and syncs, as strace(1) sees it. A process that dies between the two leaves a current record that
//! is not on disk; to overwrite the other slot then, before a sync, is to have neither after a power cut (`tests/model`).

use std::process::Command;
use std::time::Duration;

use cloakroom::session::{Id, Saved, Store as _};
use cloakroom::{DirectoryStore, Durability};

use crate::coat::Coat;

const DIRECTORY: &str = "CLOAKROOM_HISTORY_TRACED";

/// Not a test: saves once, twice under one lock, grows from either slot, and deletes.
#[test]
fn traced() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = DirectoryStore::at(directory).durability(Durability::Power);
    let id = Id::generate().expect("an ID");
    store.create(&id, &Coat { n: 0, size: 40 }.record()).expect("create");
    for (n, sizes) in [(1, &[40][..]), (2, &[40, 40]), (4, &[40]), (5, &[3000]), (6, &[9000])] {
        let mut guard = store.lock(&id, Duration::ZERO).expect("lock").expect("there");
        for (n, &size) in (n..).zip(sizes) {
            let version = guard.load().expect("load").expect("there").version;
            let saved = guard.save(&Coat { n, size }.record(), version).expect("save");
            assert!(matches!(saved, Saved::Saved(_)));
        }
    }
    assert!(store.delete(&id).expect("delete"));
}

#[test]
#[ignore = "needs strace (Debian: strace): run tests/run"]
fn nothing_is_overwritten_before_what_follows_it_is_on_disk() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let output = Command::new("strace")
        .args(["-f", "-e", "trace=flock,pwrite64,ftruncate,fdatasync,unlinkat"])
        .arg(std::env::current_exe().expect("path of this program"))
        .args(["--exact", "order::traced", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory.path().join("sessions"))
        .output()
        .expect("strace");
    let trace = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{trace}");
    let call = |line: &str| {
        let line = if line.starts_with('[') { line.split_once("] ")?.1 } else { line };
        Some(match line.split_once('(')?.0 {
            "flock" => "lock",
            "pwrite64" => "write",
            "ftruncate" => "length",
            "fdatasync" => "sync",
            "unlinkat" => "unlink",
            _ => return None,
        })
    };
    let calls: Vec<&str> = trace.lines().filter_map(call).collect();
    let expected = [
        // Created; saved into B, into A and into B, under one lock, and into A.
        "lock length write sync",
        "lock sync write sync",
        "lock sync write sync write sync",
        "lock sync write sync",
        // Grows with the record in A, and then in B, which is copied.
        "lock sync length sync write sync",
        "lock sync write sync length sync write sync",
        "lock sync write sync unlink",
    ];
    assert_eq!(calls.join(" "), expected.join(" "), "{trace}");
}
