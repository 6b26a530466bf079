//! The administrator's tool, run as an administrator would run it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use assert_cmd::Command;
use cloakroom::session::{Id, Record, Store as _};
use cloakroom::store::DirectoryStore;
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn store(&self) -> DirectoryStore {
        DirectoryStore::at(self.path())
    }

    /// Keeps a session that was last used `age` ago.
    fn session(&self, age: Duration) -> Id {
        let id = Id::generate().unwrap();
        self.store().create(&id, &record()).unwrap();
        let file = fs::File::options().write(true).open(self.path().join(&*id.to_text())).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        id
    }
}

/// A record with a user, made from its encoding as there is no session at hand.
fn record() -> Record {
    #[derive(serde::Serialize)]
    struct Encoded {
        u: &'static str,
        c: u64,
    }
    let mut bytes = Vec::new();
    ciborium::into_writer(&Encoded { u: "somebody", c: 1_700_000_000_000 }, &mut bytes).unwrap();
    let mut record = Record::decode(&bytes).unwrap();
    record.set_accessed(SystemTime::now());
    record
}

fn cloakroom(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
    command.args(arguments).timeout(Duration::from_secs(60));
    command
}

fn sweep(directory: &Path, more: &[&str]) -> Command {
    let mut command = cloakroom(&["sweep", "--sessions"]);
    command.arg(directory).args(more);
    command
}

/// Runs it, and gives what it prints to stderr: one line that says who speaks.
fn fails(command: &mut Command, status: i32) -> String {
    let output = command.assert().code(status).stdout("").get_output().clone();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("cloakroom: ") && text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
    text
}

#[test]
fn sweep_deletes_what_is_idle_and_counts_the_rest() {
    let directory = Directory::new();
    let (old, new) = (directory.session(HOUR), directory.session(Duration::ZERO));
    let output = sweep(directory.path(), &["--idle", "30m"]).assert().code(0).stderr("").get_output().clone();
    // Half an hour is what an hour lags behind a half.
    let text = String::from_utf8(output.stdout).unwrap();
    let lag = text.strip_prefix("swept: deleted 1, remaining 1, lag ").and_then(|rest| rest.strip_suffix("s\n"));
    let lag: f64 = lag.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    assert!((1800.0..1860.0).contains(&lag), "{text}");
    assert!(!directory.store().exists(&old).unwrap());
    assert!(directory.store().exists(&new).unwrap());
    sweep(directory.path(), &["--idle=30m"]).assert().code(0).stdout("swept: deleted 0, remaining 1\n");
}

#[test]
fn sweep_without_idle_goes_by_the_sessions_own_timeouts() {
    let directory = Directory::new();
    // Its record has no timeouts, so it is never over by itself.
    directory.session(1000 * HOUR);
    sweep(directory.path(), &[]).assert().code(0).stdout("swept: deleted 0, remaining 1\n");
}

#[test]
fn sweep_speaks_json() {
    let directory = Directory::new();
    directory.session(HOUR);
    let output = sweep(directory.path(), &["--json", "--idle", "1800s"]).assert().code(0).get_output().clone();
    let mut value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lag = value.as_object_mut().unwrap().remove("lag").unwrap().as_f64().unwrap();
    assert!((1800.0..1860.0).contains(&lag), "{lag}");
    assert_eq!(value, serde_json::json!({"deleted": 1, "remaining": 0, "complete": true}));
}

#[test]
fn one_sweep_at_a_time() {
    let directory = Directory::new();
    directory.session(HOUR);
    let sweeper = fs::File::open(directory.path()).unwrap();
    sweeper.lock().unwrap();
    let said = "skipped: another process is sweeping this directory\n";
    sweep(directory.path(), &["--idle", "30m"]).assert().code(0).stdout(said).stderr("");
    sweep(directory.path(), &["--json"]).assert().code(0).stdout("{\"skipped\":true}\n").stderr("");
    // Closed, it would still be locked: another test may be about to start a process, which has a copy until its exec.
    sweeper.unlock().unwrap();
    sweep(directory.path(), &["--idle", "30m", "--json"]).assert().code(0);
    assert_eq!(directory.store().iter().unwrap().count(), 0);
}

/// Each is another process.
#[test]
fn sweeps_with_a_budget_go_on_from_each_other() {
    let directory = Directory::new();
    (0..30).for_each(|n| _ = directory.session(if n % 2 == 0 { HOUR } else { Duration::ZERO }));
    let mut deleted = 0;
    for turn in 0.. {
        let budget = ["--idle", "30m", "--budget", "0ms", "--json"];
        let output = sweep(directory.path(), &budget).assert().code(0).get_output().clone();
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        deleted += value["deleted"].as_u64().unwrap();
        if value["complete"].as_bool().unwrap() {
            break;
        }
        assert!(turn < 50, "it does not get on");
    }
    assert_eq!(deleted, 15);
    let output = sweep(directory.path(), &["--budget", "0s"]).assert().code(0).get_output().clone();
    assert!(String::from_utf8(output.stdout).unwrap().ends_with(", to be continued\n"));
    sweep(directory.path(), &["--budget=1m"]).assert().code(0);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 15);
}

#[test]
fn a_session_in_use_is_skipped() {
    let directory = Directory::new();
    let id = directory.session(HOUR);
    let store = directory.store();
    let guard = store.lock(&id, HOUR).unwrap().unwrap();
    sweep(directory.path(), &["--idle", "1s"]).assert().code(0).stdout("swept: deleted 0, remaining 1\n");
    assert!(directory.store().exists(&id).unwrap());
    drop(guard);
    sweep(directory.path(), &["--idle", "1s"]).assert().code(0);
    assert!(!directory.store().exists(&id).unwrap());
}

#[test]
fn what_is_no_session_is_left_alone() {
    let directory = Directory::new();
    let other = directory.path().join("README");
    fs::write(&other, "not a session").unwrap();
    sweep(directory.path(), &["--idle", "0s"]).assert().code(0).stdout("swept: deleted 0, remaining 0\n");
    assert!(other.exists());
}

#[test]
fn wrong_usage_is_told_in_one_line() {
    for (arguments, named) in [
        (&[][..], "sweep"),
        (&["sweep"], "--sessions"),
        (&["mop"], "mop"),
        (&["sweep", "--sessions"], "--sessions"),
        (&["sweep", "--sessions", ""], "--sessions"),
        (&["sweep", "--sessions", "/x", "--idle"], "--idle"),
        (&["sweep", "--sessions", "/x", "--idle", "30"], "--idle"),
        (&["sweep", "--sessions", "/x", "--idle", "-3m"], ""),
        (&["sweep", "--sessions", "/x", "--budget", "50"], "--budget"),
        (&["sweep", "--sessions", "/x", "--idle", "99999999999999999999d"], "--idle"),
        (&["sweep", "--sessions", "/x", "--dry"], "--dry"),
        (&["sweep", "--sessions", "/x", "more"], "more"),
    ] {
        let text = fails(&mut cloakroom(arguments), 2);
        assert!(text.contains(named) && text.contains("--help"), "{arguments:?}: {text:?}");
    }
}

#[test]
fn a_mistyped_directory_is_not_created() {
    let directory = Directory::new();
    let missing = directory.path().join("sesions");
    let text = fails(&mut sweep(&missing, &[]), 111);
    assert!(text.contains("sesions") && text.contains("No such file"), "{text:?}");
    assert!(!missing.exists());
}

#[test]
fn an_unreadable_directory_is_a_failure_and_not_an_empty_one() {
    let directory = Directory::new();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(fails(&mut sweep(&file, &[]), 111).contains("Not a directory"));
    // To root nothing is unreadable, but a directory that others may write to is refused whoever looks.
    directory.session(HOUR);
    for (mode, reason) in [(0o777, "chmod 700"), (0o000, "")] {
        fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
        if mode == 0 && fs::read_dir(directory.path()).is_ok() {
            continue;
        }
        let text = fails(&mut sweep(directory.path(), &["--idle", "1s"]), 111);
        assert!(text.contains(reason), "{text:?}");
    }
    fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(directory.store().iter().unwrap().count(), 1);
}

#[test]
fn a_foreign_directory_is_refused() {
    let directory = Directory::new();
    directory.session(HOUR);
    if std::os::unix::fs::chown(directory.path(), Some(12345), None).is_err() {
        return; // Only root can give a directory away.
    }
    let text = fails(&mut sweep(directory.path(), &["--idle", "1s"]), 111);
    assert!(text.contains("belongs to user 12345"), "{text:?}");
}

#[test]
fn output_that_nobody_takes_is_a_failure() {
    let directory = Directory::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_cloakroom"))
        .args(["sweep", "--sessions"])
        .arg(directory.path())
        .stdout(full)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(111));
}

#[test]
fn help_and_version() {
    let help = cloakroom(&["--help"]).assert().code(0).stderr("").get_output().stdout.clone();
    let help = String::from_utf8(help).unwrap();
    assert!(help.contains("sweep") && help.contains("111"), "{help}");
    let help = cloakroom(&["sweep", "--help"]).assert().code(0).stderr("").get_output().stdout.clone();
    let help = String::from_utf8(help).unwrap();
    assert!(["--sessions", "--idle", "--budget", "--json", "30m"].iter().all(|word| help.contains(word)), "{help}");
    cloakroom(&["--version"])
        .assert()
        .code(0)
        .stdout(concat!("cloakroom ", env!("CARGO_PKG_VERSION"), "\n"))
        .stderr("");
}
