//! The demo with its sessions in a directory of the test's choice.

use std::path::Path;

use cloakroom::session::{Id, Store};
use cloakroom::{DirectoryStore, Durability};

use super::full::{Filling, Lack, SESSIONS, names};
use super::mount::{Disk, Kind, isolated};
use super::session::{number, record};
use super::support::process::{Proc, demo};
use super::support::visit::{Answer, Door, Visitor};

/// A pool that serves HTTP.
pub struct Pool {
    pub door: Door,
    pub proc: Proc,
}

impl Pool {
    pub fn new(sessions: &Path) -> Self {
        Self::with(sessions, 2)
    }

    pub fn with(sessions: &Path, workers: usize) -> Self {
        let mut command = demo();
        let workers = workers.to_string();
        command.args(["--http", "127.0.0.1:0", "--workers", &workers, "--sessions"]).arg(sessions);
        let proc = Proc::start(command);
        let door = Door::Http(proc.address("http"));
        proc.line(&format!(" ready workers={workers}"));
        Self { door, proc }
    }
}

/// An error of the server's, and no cookie of a session that was not saved.
#[track_caller]
fn refused(answer: &Answer) {
    assert!(answer.status >= 500 && answer.set_cookie.is_none(), "{answer:?}");
}

/// A disk that has become full under a site: who is there goes on, who would be new is told so.
fn site_on(disk: &Disk, lack: Lack, door: &Door, updates: u64) {
    let sessions = disk.join("sessions");
    let store = DirectoryStore::at(&sessions).durability(Durability::Process);
    let ids: Vec<Id> = (0..SESSIONS).map(|_| Id::generate().expect("an ID")).collect();
    for id in &ids {
        store.create(id, &record(id, 0, 500)).expect("create");
    }
    // One token more, and the session needs a larger slot.
    let brimful = Id::generate().expect("an ID");
    let mut pad = 1900;
    while record(&brimful, 7, pad + 1).encode().len() <= 2048 - 64 {
        pad += 1;
    }
    store.create(&brimful, &record(&brimful, 7, pad)).expect("create");
    let filling = Filling::new(&disk.path(), lack);
    let files = names(&sessions);
    let cookie = |id: &Id| format!("session={}", &*id.to_text());

    let mut failures = Vec::new();
    for id in &ids {
        let mut visitor = Visitor::with(door, &cookie(id));
        for n in 1..=updates {
            let method = if n % 2 == 0 { "GET" } else { "POST" };
            let answer = visitor.ask(method, "/counter", "").expect("an answer");
            if answer.status != 200 || answer.number("Counter") != n {
                failures.push(answer);
            }
        }
    }
    let requests = SESSIONS as u64 * updates;
    assert!(failures.is_empty(), "{} of {requests} failed: {:?}", failures.len(), failures[0]);

    // No new session, so no cookie either.
    for _ in 0..10 {
        refused(&Visitor::new(door).get("/keep"));
    }
    // A login draws a new ID: it fails, and the old session is as it was.
    let mut visitor = Visitor::with(door, &cookie(&ids[0]));
    let form = visitor.get("/create_token");
    let token = form.ok().body.trim().rsplit(' ').next().expect("a token").to_owned();
    refused(&visitor.post("/login", &format!("form_token={token}&name=ada")));
    let kept = visitor.get("/check").ok();
    assert_eq!(kept.number("counter"), updates);
    assert!(kept.body.contains("user: None") && kept.body.contains("form_tokens_count: 1"), "{kept:?}");
    // A session that would have to grow.
    let mut visitor = Visitor::with(door, &cookie(&brimful));
    let answer = visitor.post("/create_token", "");
    if lack == Lack::Data {
        refused(&answer);
        let stored = store.load(&brimful).expect("load").expect("a session");
        assert_eq!(number(&brimful, &stored.record), Some(7));
    } else {
        answer.ok();
    }
    assert_eq!(names(&sessions), files, "a session that was not created left its file");
    for id in &ids {
        let stored = store.load(id).expect("load").expect("a session");
        assert_eq!(stored.record.get::<u64>("counter").expect("a number"), Some(updates), "damaged or older");
    }

    filling.remove();
    visitor.post("/create_token", "").ok();
    assert!(Visitor::new(door).get("/keep").set_cookie.is_some());
    let mut visitor = Visitor::with(door, &cookie(&ids[0]));
    let answer = visitor.post("/login", &format!("form_token={token}&name=ada")).ok();
    assert!(answer.set_cookie.is_some());
    assert_eq!(visitor.get("/check").ok().number("counter"), updates);
    // For the next.
    for entry in std::fs::read_dir(&sessions).expect("list") {
        std::fs::remove_file(entry.expect("an entry").path()).expect("remove");
    }
    eprintln!("full of {lack:?}: {door:?}: {requests} updates of {SESSIONS} sessions, 0 failed, 0 damaged");
}

fn sites_on(kind: Kind, lack: Lack) {
    let disk = Disk::new(kind);
    {
        let pool = Pool::new(&disk.join("sessions"));
        site_on(&disk, lack, &pool.door, 10);
    }
    // A process for each request: one update of each session.
    site_on(&disk, lack, &Door::Cgi(disk.join("sessions")), 1);
}

#[test]
fn visitors_go_on_while_there_is_no_space() {
    isolated("demo::visitors_go_on_while_there_is_no_space", || sites_on(Kind::Memory("size=16m"), Lack::Data));
}

#[test]
fn visitors_go_on_while_there_are_no_inodes() {
    let test = "demo::visitors_go_on_while_there_are_no_inodes";
    isolated(test, || sites_on(Kind::Memory("size=16m,nr_inodes=1200"), Lack::Inodes));
}
