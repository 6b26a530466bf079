//! Housekeeping without cron, with real processes: the sweeps of pools, of the administrator and of CGI scripts, and
//! what may happen to them.
#![allow(missing_docs, unreachable_pub)]

mod support;

use std::fs::{self, DirBuilder, File};
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use cloakroom::session::{Id, Record, Store as _};
use cloakroom::store::DirectoryStore;
use support::client::http;
use support::process::{Proc, Signal, children, demo, pid_in, send};
use support::visit::{Door, Visitor};
use support::{PATIENCE, TestDir, eventually};

const HOUR: Duration = Duration::from_secs(3600);

/// A session directory.
struct Sessions {
    _keep: TestDir,
    path: String,
    store: DirectoryStore,
}

impl Sessions {
    fn new() -> Self {
        let keep = TestDir::new();
        let path = keep.join("sessions").to_str().unwrap().to_owned();
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self { store: DirectoryStore::at(&path), path, _keep: keep }
    }

    /// Keeps sessions with an idle timeout of a minute, last used so long ago.
    fn add(&self, count: usize, unused: Duration) -> Vec<Id> {
        /// What a record is made from, as there is no session at hand.
        #[derive(serde::Serialize)]
        struct Encoded {
            u: &'static str,
            c: u64,
            i: u32,
        }
        let mut bytes = Vec::new();
        ciborium::into_writer(&Encoded { u: "somebody", c: 1_700_000_000_000, i: 60 }, &mut bytes).unwrap();
        let record = Record::decode(&bytes).unwrap();
        let time = SystemTime::now() - unused;
        let add = |_| {
            let id = Id::generate().unwrap();
            self.store.create(&id, &record).unwrap();
            if !unused.is_zero() {
                File::options().write(true).open(self.file(&id)).unwrap().set_modified(time).unwrap();
            }
            id
        };
        (0..count).map(add).collect()
    }

    /// Over for 59 minutes.
    fn add_over(&self, count: usize) {
        self.add(count, HOUR);
    }

    /// Good for longer than any test.
    fn add_alive(&self, count: usize) {
        let tomorrow = SystemTime::now() + 24 * HOUR;
        for id in self.add(count, Duration::ZERO) {
            File::options().write(true).open(self.file(&id)).unwrap().set_modified(tomorrow).unwrap();
        }
    }

    fn file(&self, id: &Id) -> std::path::PathBuf {
        std::path::Path::new(&self.path).join(&*id.to_text())
    }

    fn position(&self) -> std::path::PathBuf {
        std::path::Path::new(&self.path).join("sweep-position")
    }

    /// How many files there are, but for the sweep's own.
    fn count(&self) -> usize {
        let names = fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name != "sweep-position").count()
    }

    /// A pool that serves them, and its workers.
    fn pool(&self, arguments: &[&str]) -> (Proc, String, Vec<u32>) {
        let all = ["--http", "127.0.0.1:0", "--workers", "2", "--sessions", &self.path];
        let pool = Proc::demo(all.into_iter().chain(arguments.iter().copied()));
        let address = pool.address("http");
        let workers = pool.ready(2);
        (pool, address, workers)
    }

    /// The administrator's sweep.
    fn tool(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
        command.args(["sweep", "--sessions", &self.path]).args(arguments);
        command
    }

    fn sweep(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.tool(arguments).output().unwrap();
        assert!(status.success() && stderr.is_empty(), "{status}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// Whether a sweep is at it now.
    fn is_swept(&self) -> bool {
        File::open(&self.path).unwrap().try_lock().is_err()
    }

    /// Is what a sweeper is, until it is dropped.
    fn be_the_sweeper(&self) -> File {
        let directory = File::open(&self.path).unwrap();
        directory.lock().unwrap();
        directory
    }
}

/// The number that a line says for `name`.
#[track_caller]
fn field(line: &str, name: &str) -> f64 {
    let value = line.split(' ').find_map(|word| word.strip_prefix(&format!("{name}=")));
    value.unwrap_or_else(|| panic!("no {name} in {line:?}")).trim_end_matches('s').parse().unwrap()
}

/// The fields of `/proc/PID/stat` from the third, the state, on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// Stops the next sweep of a pool in the middle; the directory must be large. Returns its process ID.
#[track_caller]
fn stop_a_sweep(sessions: &Sessions, pool: &Proc, workers: &[u32]) -> u32 {
    let deadline = Instant::now() + PATIENCE;
    let nice = |pid| stat(pid).is_some_and(|fields| fields[16] == "19");
    loop {
        assert!(Instant::now() < deadline, "never caught a sweep");
        let Some(pid) = children(pool.pid()).into_iter().find(|&pid| !workers.contains(&pid) && nice(pid)) else {
            thread::yield_now();
            continue;
        };
        send(pid, Signal::STOP);
        // It may have been done already.
        while let Some(fields) = stat(pid).filter(|fields| fields[0] != "Z") {
            if fields[0] == "T" {
                if sessions.is_swept() {
                    return pid;
                }
                // Too early, or too late.
                send(pid, Signal::CONT);
                break;
            }
            thread::yield_now();
        }
    }
}

#[test]
fn a_pool_sweeps_at_its_interval_and_only_what_is_over() {
    let sessions = Sessions::new();
    sessions.add_over(30);
    sessions.add_alive(10);
    let (mut pool, address, _) = sessions.pool(&["--sweep-every", "0.3"]);
    let line = pool.line("sweep pid=");
    assert!(line.starts_with("cloakroom: sweep pid="), "{line}");
    assert_eq!((field(&line, "deleted"), field(&line, "remaining")), (30.0, 10.0), "{line}");
    let lag = field(&line, "lag");
    assert!((3540.0..3600.0).contains(&lag) && field(&line, "took") < 20.0, "{line}");
    // A session that a visitor keeps is one more.
    let mut visitor = Visitor::new(&Door::Http(address));
    visitor.get("/keep");
    for round in 1..=3 {
        sessions.add_over(5);
        let mut deleted = 0.0;
        while deleted < 5.0 {
            deleted += field(&pool.line("sweep pid="), "deleted");
        }
        assert_eq!((deleted, sessions.count()), (5.0, 11), "{round}");
    }
    assert_eq!(visitor.get("/check").number("counter"), 0);
    // What a sweep does not do it does not speak of.
    let log = pool.log();
    assert!(log.lines().filter(|line| line.contains("sweep")).all(|line| !line.contains("deleted=0")), "{log}");
    pool.signal(Signal::TERM);
    assert_eq!(pool.end(), 0);
}

#[test]
fn never_two_sweep_a_directory_at_once() {
    let sessions = Sessions::new();
    sessions.add_over(20);
    let sweeper = sessions.be_the_sweeper();
    let pools = [sessions.pool(&["--sweep-every", "0.2"]), sessions.pool(&["--sweep-every", "0.2"])];
    for (pool, address, _) in &pools {
        for _ in 0..2 {
            let line = pool.line("sweep pid=");
            assert_eq!(line, format!("cloakroom: sweep pid={} skipped: another process is sweeping", pid_in(&line)));
        }
        // Nobody else waits for it.
        assert!(http(address, "/keep").unwrap().starts_with("HTTP/1.1 303 "));
    }
    assert_eq!(sessions.sweep(&[]), "skipped: another process is sweeping this directory\n");
    assert_eq!(sessions.count(), 22);
    drop(sweeper);
    eventually("somebody sweeps", || sessions.count() == 2);
    let deleted = |pool: &Proc| {
        let log = pool.log();
        log.lines().filter(|line| line.contains(" deleted=")).map(|line| field(line, "deleted")).sum::<f64>()
    };
    eventually("they say so", || pools.iter().map(|(pool, ..)| deleted(pool)).sum::<f64>() >= 20.0);
    for (mut pool, ..) in pools {
        pool.signal(Signal::TERM);
        assert_eq!(pool.end(), 0);
    }
}

#[test]
fn a_sweep_has_the_lowest_priority_and_can_be_killed_at_any_time() {
    const WHO_PROCESS: libc::c_long = 1;
    let sessions = Sessions::new();
    sessions.add_alive(3000);
    let (mut pool, address, workers) = sessions.pool(&["--sweep-every", "0.5"]);
    for _ in 0..3 {
        let pid = stop_a_sweep(&sessions, &pool, &workers);
        // SAFETY: two integers.
        let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, pid) };
        assert_eq!(priority >> 13, 3, "not of the idle class");
        send(pid, Signal::KILL);
        pool.line(&format!("sweep pid={pid} killed signal=9"));
    }
    for worker in workers {
        assert_eq!(stat(worker).unwrap()[16], "0", "a worker has given way");
    }
    sessions.add_over(10);
    let mut deleted = 0.0;
    while deleted < 10.0 {
        deleted += field(&pool.line(" deleted="), "deleted");
    }
    assert_eq!(sessions.count(), 3000);
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    pool.signal(Signal::TERM);
    assert_eq!(pool.end(), 0);
}

#[test]
fn a_sweep_that_hangs_is_killed_and_others_know_that_it_is_there() {
    let sessions = Sessions::new();
    sessions.add_alive(3000);
    let (mut pool, address, workers) = sessions.pool(&["--sweep-every", "0.3"]);
    let pid = stop_a_sweep(&sessions, &pool, &workers);
    let start = Instant::now();
    assert!(sessions.sweep(&[]).starts_with("skipped: "));
    sessions.add_over(3);
    assert!(http(&address, "/keep").unwrap().starts_with("HTTP/1.1 303 "));
    let line = pool.line(&format!("sweep pid={pid} not done after "));
    assert!(line.ends_with("s, killed") && start.elapsed() > Duration::from_secs(1), "{line}");
    // It was the only one all the time.
    let log = pool.log();
    assert!(!log.contains("skipped"), "{log}");
    pool.line(" deleted=");
    // Nobody says twice that it is dead.
    assert!(!pool.log().contains("killed signal="), "{}", pool.log());
    pool.signal(Signal::TERM);
    assert_eq!(pool.end(), 0);
}

/// It would keep the lock, and nobody would sweep any more.
#[test]
fn a_sweep_that_hangs_is_killed_after_a_reload_too() {
    let sessions = Sessions::new();
    sessions.add_alive(3000);
    let (mut pool, _, workers) = sessions.pool(&["--sweep-every", "0.3"]);
    let pid = stop_a_sweep(&sessions, &pool, &workers);
    pool.signal(Signal::HUP);
    pool.line(" reloaded");
    pool.line(&format!("sweep pid={pid} not done after "));
    sessions.add_over(3);
    pool.line(" deleted=");
    assert!(!pool.log().contains("skipped"), "{}", pool.log());
    pool.signal(Signal::TERM);
    assert_eq!(pool.end(), 0);
}

/// Neither of them leaves a sweep behind: it would keep the lock.
#[test]
fn a_stop_does_not_wait_for_a_sweep_that_hangs() {
    let sessions = Sessions::new();
    sessions.add_alive(3000);
    for (signal, status) in [(Signal::TERM, 0), (Signal::INT, 0), (Signal::KILL, -9)] {
        let (mut pool, _, workers) = sessions.pool(&["--sweep-every", "2"]);
        let pid = stop_a_sweep(&sessions, &pool, &workers);
        let start = Instant::now();
        pool.signal(signal);
        // Of the sweep as well: it has the log open.
        assert_eq!(pool.end(), status);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert!(!pool.log().contains(&format!("sweep pid={pid}")), "{}", pool.log());
        assert!(sessions.sweep(&[]).starts_with("swept: "));
    }
}

#[test]
fn sessions_in_use_are_never_deleted_under_load() {
    const EACH: u64 = 150;
    let sessions = Sessions::new();
    let (mut pool, address, _) = sessions.pool(&["--sweep-every", "0.02"]);
    let door = Door::Http(address);
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let visitors: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut visitor = Visitor::new(&door);
                    visitor.get("/keep");
                    for n in 1..=EACH {
                        assert_eq!(visitor.post("/counter", "").ok().number("Counter"), n);
                    }
                })
            })
            .collect();
        let sweeper = scope.spawn(|| {
            let mut added = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                sessions.add_over(10);
                added += 10;
                let said = sessions.sweep(&["--budget", "5ms"]);
                assert!(said.starts_with("swept: ") || said.starts_with("skipped: "), "{said}");
            }
            added
        });
        let results: Vec<_> = visitors.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let added: usize = sweeper.join().unwrap();
        for result in results {
            result.unwrap();
        }
        eventually("what is over goes", || sessions.count() == 4);
        assert!(added > 10, "{}", pool.log());
    });
    // The pool's own sweeps have the lowest priority, and on a busy machine the tool may have been first every time.
    sessions.add_over(10);
    pool.line(" deleted=");
    pool.signal(Signal::TERM);
    assert_eq!(pool.end(), 0);
}

/// Each sweep is another process, and one of them is killed.
#[test]
fn sweeps_with_a_small_budget_get_through_a_large_directory() {
    let sessions = Sessions::new();
    sessions.add_alive(12_000);
    sessions.add_over(8_000);
    let (mut deleted, mut remaining, mut turns) = (0, 0, 0);
    loop {
        let start = Instant::now();
        let said = sessions.sweep(&["--budget", "10ms", "--json"]);
        // A process, at a time when others want the processor too.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        turns += 1;
        deleted += said["deleted"].as_u64().unwrap();
        remaining += said["remaining"].as_u64().unwrap();
        assert_eq!(sessions.position().exists(), !said["complete"].as_bool().unwrap());
        if said["complete"].as_bool().unwrap() {
            break;
        }
        if turns == 2 {
            let before = fs::read(sessions.position()).unwrap();
            let mut long = sessions.tool(&["--budget", "10m"]).stdout(Stdio::null()).spawn().unwrap();
            eventually("it sweeps", || sessions.is_swept());
            long.kill().unwrap();
            long.wait().unwrap();
            // Where this process had not its turn, it was done before it could be killed.
            assert!(fs::read(sessions.position()).is_ok_and(|after| after == before) || sessions.count() == 12_000);
            deleted = 20_000 - sessions.count() as u64;
        }
        assert!(turns < 5_000, "it does not get on");
    }
    assert!(turns > 4, "only {turns} sweeps: nothing was shown");
    assert_eq!((deleted, sessions.count()), (8_000, 12_000));
    assert!((12_000..=20_000).contains(&remaining), "{remaining}");
}

/// One CGI request as a server makes it; returns when the end of stdout and stderr has been seen and the
/// process is gone.
fn script(sessions: &Sessions, one_in: &str) {
    let mut command = demo();
    let meta = [("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/hello")];
    let meta = meta.into_iter().chain([("PATH_INFO", "/hello"), ("SERVER_PROTOCOL", "HTTP/1.1"), ("SCRIPT_NAME", "")]);
    command.env_clear().envs(meta).env("SERVER_NAME", "localhost").env("SERVER_PORT", "80");
    command.env("CLOAKROOM_SESSIONS", &sessions.path).env("CLOAKROOM_SWEEP_ONE_IN", one_in);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut response, mut errors) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut response).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(response.starts_with("Status: 200 ") && response.ends_with("Hello, world!\n"), "{response}");
    assert_eq!(errors, "");
}

#[test]
fn a_cgi_script_sweeps_after_one_request_in_so_many() {
    let sessions = Sessions::new();
    sessions.add_over(10);
    // None asked for, none done.
    (0..20).for_each(|_| script(&sessions, "0"));
    assert_eq!(sessions.count(), 10);
    // Somebody else is at it.
    let sweeper = sessions.be_the_sweeper();
    (0..3).for_each(|_| script(&sessions, "1"));
    assert_eq!(sessions.count(), 10);
    drop(sweeper);
    script(&sessions, "1");
    eventually("the script has swept", || sessions.count() == 0);
    // One in three, sooner or later.
    sessions.add_over(10);
    eventually("a script has swept", || {
        script(&sessions, "3");
        sessions.count() == 0
    });
}

#[test]
fn who_asks_a_cgi_script_does_not_wait_for_its_sweep() {
    let sessions = Sessions::new();
    sessions.add_alive(12_000);
    // The sweep takes 50 ms. That it is seen after the end of everything that a server waits for may take some tries,
    // where this process has not its turn.
    eventually("the response ends before the sweep", || {
        eventually("the last one is over", || !sessions.is_swept());
        script(&sessions, "1");
        sessions.is_swept()
    });
    // A little at a time, it goes on.
    let mut positions = std::collections::BTreeSet::new();
    eventually("sweeps go on from each other", || {
        script(&sessions, "1");
        eventually("it is over", || !sessions.is_swept());
        positions.extend(fs::read(sessions.position()).ok());
        positions.len() > 3
    });
    assert_eq!(sessions.count(), 12_000);
}
