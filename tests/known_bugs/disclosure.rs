//! What tells somebody a session ID who has none.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Store as _};

use super::session::record;
use super::support::client::http;
use super::support::process::{Proc, demo};
use super::support::visit::{Door, Visitor};
use super::support::{TestDir, turn};

/// The file name is the ID, so whoever can list the directory needs no more: it is closed, and nothing else that the
/// program writes or shows has more than six digits of an ID.
#[test]
fn cve_2019_16782_no_log_page_or_message_tells_an_id() {
    let directory = TestDir::new();
    let (sessions, access) = (directory.join("sessions"), directory.join("access"));
    let mut command = demo();
    command.args(["--http", "127.0.0.1:0", "--status", "127.0.0.1:0", "--workers", "2", "--slow-request", "0"]);
    command.arg("--access-log").arg(&access).arg("--sessions").arg(&sessions);
    let pool = Proc::start(command);
    let (door, status) = (Door::Http(pool.address("http")), pool.address("status"));
    let mut visitor = Visitor::new(&door);
    visitor.get("/keep");
    let mut ids = vec![visitor.cookie.clone().expect("a cookie")];
    let token = visitor.get("/create_token").body.trim().rsplit(' ').next().expect("a token").to_owned();
    visitor.post("/login", &format!("name=ada&form_token={token}")).ok();
    ids.push(visitor.cookie.clone().expect("a cookie"));
    let ids: Vec<String> = ids.iter().map(|cookie| cookie.split_once('=').expect("a pair").1.to_owned()).collect();
    // All that makes it speak: failures of the application and of the store, damage, and somebody who waits.
    for target in ["/boom", "/incrementfail", "/counter", "/check"] {
        visitor.get(target);
    }
    let own = sessions.join(&ids[1]);
    fs::set_permissions(&own, fs::Permissions::from_mode(0o644)).expect("chmod");
    assert_eq!(visitor.get("/check").status, 500);
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::write(&own, "not a session").expect("write");
    visitor.get("/check").ok();
    pool.line("damaged");
    let mut shown = vec![("log", pool.log()), ("access log", fs::read_to_string(&access).expect("read"))];
    for page in ["/", "/status.json", "/metrics", "/health"] {
        shown.push((page, http(&status, page).expect("a page")));
    }
    assert!(shown[0].1.contains("damaged") && shown[1].1.contains("/check"), "{shown:?}");
    for (what, text) in &shown {
        for id in &ids {
            assert!(!text.contains(&id[..8]) && !text.contains(&id[24..]), "{what} tells an ID: {text}");
        }
    }
    assert_eq!(fs::metadata(&sessions).expect("look").permissions().mode() & 0o777, 0o700);
    fs::set_permissions(&sessions, fs::Permissions::from_mode(0o755)).expect("chmod");
    let refused = DirectoryStore::at(&sessions).setup().expect_err("a directory that others may list").to_string();
    assert!(refused.contains("list"), "{refused}");
}

/// How long a look for an unknown ID takes does not depend on how many of its digits are those of one that exists: names
/// are found by their hash. The medians of many looks that take turns.
#[test]
fn cve_2019_16782_an_id_that_is_nearly_right_takes_no_longer() {
    let _turn = turn();
    let directory = TestDir::new();
    let store = DirectoryStore::at(directory.join("sessions"));
    let ids: Vec<Id> = (0..20).map(|_| Id::generate().expect("an ID")).collect();
    for id in &ids {
        store.create(id, &record(id, 1, 100)).expect("create");
    }
    let right = ids[7].to_text().to_string();
    // Each digit after the prefix is another one.
    let wrong = |prefix: usize| {
        let other = |c: char| {
            if c == 'f' { '0' } else { char::from_digit(c.to_digit(16).expect("a digit") + 1, 16).unwrap_or('0') }
        };
        let text: String = right[..prefix].chars().chain(right[prefix..].chars().map(other)).collect();
        Id::parse(&text).expect("an ID")
    };
    let prefixes = [0, 8, 16, 24, 31].map(wrong);
    let mut tries = Vec::new();
    // On a machine that has other things to do one try may be odd.
    for _ in 0..6 {
        let mut times: [Vec<Duration>; 5] = Default::default();
        for _ in 0..4000 {
            for (id, times) in prefixes.iter().zip(&mut times) {
                let began = Instant::now();
                assert!(store.load(id).expect("load").is_none());
                times.push(began.elapsed());
            }
        }
        let medians = times.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        });
        let (least, most) = (medians.iter().min().expect("some"), medians.iter().max().expect("some"));
        if *most <= *least + *least / 20 {
            eprintln!("looks for IDs with 0, 8, 16, 24 and 31 digits of one that exists: {medians:?}");
            return;
        }
        tries.push(medians);
    }
    panic!("the time tells how many digits are right: {tries:?}");
}
