//! What the standard library does at the start of a program, and `cloakroom::entry!` in its place.

mod support;

use std::os::unix::fs::DirBuilderExt as _;
use std::process::Stdio;

use support::TestDir;
use support::process::{demo, demo_by_shell};
use support::visit::{Door, Visitor};

fn visitor(directory: &TestDir) -> Visitor {
    let sessions = directory.join("sessions");
    std::fs::DirBuilder::new().mode(0o700).create(&sessions).expect("a directory");
    Visitor::new(&Door::Cgi(sessions))
}

/// Without them the session's file would be where the message of a panic goes.
#[test]
fn closed_standard_descriptors_are_no_files() {
    let directory = TestDir::new();
    let mut visitor = visitor(&directory);
    visitor.get("/keep");
    for n in 1..=3 {
        assert!(visitor.get("/counter").body.contains(&n.to_string()));
        let script = demo_by_shell("exec \"$0\" <&- 2>&-");
        let output = visitor.script(script, "GET", "/boom", "").output().expect("a script");
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(answer.starts_with("Status: 500 "), "{answer}");
    }
    let names: Vec<_> = std::fs::read_dir(directory.join("sessions"))
        .expect("list")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    assert!(names.iter().all(|name| !name.contains("damaged")), "{names:?}");
    assert!(visitor.get("/counter").body.contains('4'));
}

/// Whoever reads the response may go at any time, and that is no crash.
#[test]
fn a_reader_that_goes_does_not_kill_a_script() {
    let directory = TestDir::new();
    let visitor = visitor(&directory);
    let mut script = visitor.script(demo(), "GET", "/large?bytes=10000000", "");
    let mut child = script.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a script");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.code().is_some(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}
