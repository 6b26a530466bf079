//! In which order the store syncs, seen by strace(1): ext4 and XFS bring back a new name with its file, so that a power cut
//! there does not show whether the directory was synced. Other file systems need not.

use std::process::Command;

use cloakroom::session::{Id, Saved, Store};
use cloakroom::{DirectoryStore, Durability};

use super::session::record;
use super::support::TestDir;

/// Set in the process that is traced: where its sessions are.
const TRACED: &str = "CLOAKROOM_TEST_TRACED";

/// Not a test: what is traced.
#[test]
fn create_save_and_delete() {
    let Some(directory) = std::env::var_os(TRACED) else { return };
    let store = DirectoryStore::at(directory).durability(Durability::Power);
    let id = Id::generate().expect("an ID");
    let version = store.create(&id, &record(&id, 1, 100)).expect("create");
    let saved = store.save(&id, &record(&id, 2, 100), version).expect("save");
    assert!(matches!(saved, Saved::Saved(_)));
    assert!(store.delete(&id).expect("delete"));
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn with_durability_power_all_is_on_disk_before_it_is_acknowledged() {
    let directory = TestDir::new();
    let (trace, sessions) = (directory.join("trace"), directory.join("sessions"));
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-e", "trace=openat,pwrite64,fsync,fdatasync,unlinkat", "-o"]).arg(&trace);
    command.arg(std::env::current_exe().expect("this program")).args(["--exact", "order::create_save_and_delete"]);
    let output = command.env(TRACED, &sessions).output().expect("strace");
    assert!(output.status.success(), "{output:?}");

    let text = std::fs::read_to_string(&trace).expect("read the trace");
    let inside = sessions.to_str().expect("text");
    let steps: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(inside))
        .filter_map(|line| {
            let of_directory = line.contains(&format!("{inside}>)"));
            match line.split_whitespace().nth(1)?.split('(').next()? {
                "openat" if line.contains("O_CREAT") => Some("make"),
                "pwrite64" => Some("write"),
                "fdatasync" | "fsync" if of_directory => Some("sync directory"),
                "fdatasync" | "fsync" => Some("sync"),
                "unlinkat" => Some("unlink"),
                _ => None,
            }
        })
        .collect();
    let create = ["make", "write", "sync", "sync directory"];
    let (save, delete) = (["write", "sync"], ["write", "sync", "unlink", "sync directory"]);
    assert_eq!(steps, [&create[..], &save, &delete].concat(), "{text}");
}
