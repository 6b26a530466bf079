//! A look that saves race past. Random histories all but never meet that, so a reader is held up by strace(1) between its
//! first look and its second.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Saved, Store, Version};

use crate::coat::Coat;
use crate::support::{TestDir, eventually};

/// Set in the process that is held up: where the sessions are, and which it is to look at.
const LOOKER: &str = "CLOAKROOM_HISTORY_LOOKER";

/// Not a test: looks.
#[test]
fn looker() {
    let Ok(what) = std::env::var(LOOKER) else { return };
    let (directory, id) = what.rsplit_once(' ').expect("a directory and an ID");
    let found = DirectoryStore::at(directory).load(&Id::parse(id).expect("an ID")).expect("load").expect("there");
    println!("version {}", found.version.0);
}

#[test]
#[ignore = "needs strace (Debian: strace): run tests/run"]
fn a_look_between_two_saves_that_race_past_it_is_not_believed() {
    let directory = TestDir::new();
    let sessions = directory.join("sessions");
    let store = DirectoryStore::at(&sessions);
    let id = Id::generate().expect("an ID");
    store.create(&id, &Coat { n: 1, size: 40 }.record()).expect("create");
    let saved = store.save(&id, &Coat { n: 2, size: 40 }.record(), Version(1)).expect("save");
    assert!(matches!(saved, Saved::Saved(Version(2))));

    // As a reader may find it that looked at A before save 3, and at B in the middle of save 4: A is save 1, long past.
    let path = sessions.join(&*id.to_text());
    let file = File::options().read(true).write(true).open(&path).expect("open");
    let mut whole = [0; 8];
    file.read_exact_at(&mut whole, 2048).expect("read");
    file.write_all_at(&whole.map(|byte| !byte), 2048).expect("tear");
    let trace = directory.join("trace");
    let child = Command::new("strace")
        .args(["-f", "-e", "trace=pread64", "-e", "inject=pread64:delay_enter=2s:when=2", "-P"])
        .arg(&path)
        .arg("-o")
        .arg(&trace)
        .arg(std::env::current_exe().expect("path of this program"))
        .args(["--exact", "look::looker", "--nocapture"])
        .env(LOOKER, format!("{} {}", sessions.display(), &*id.to_text()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("strace");
    eventually("a first look", || std::fs::read_to_string(&trace).is_ok_and(|text| text.contains("= 4096")));
    file.write_all_at(&whole, 2048).expect("finish the save");
    let output = child.wait_with_output().expect("wait for strace");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("version 2"), "{text}");
}
