//! The reload: `HUP` makes the master the program that is on the disk by now, and whatever goes wrong with that leaves the
//! old pool as it was.

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use support::client::{connect, http, http_request, read, scgi, send};
use support::process::{Proc, Signal, children, demo_at, is_sleeping};
use support::{PATIENCE, TestDir, eventually, turn};

// One test at a time (`turn`): a file that one has just written could be open in the children that another starts at this
// moment, and would be busy.

/// A pool whose program is a copy of the demo in a directory of its own.
struct Pool {
    proc: Proc,
    address: String,
    program: PathBuf,
    dir: TestDir,
}

impl Pool {
    fn start(arguments: &[&str]) -> Self {
        let dir = TestDir::new();
        let program = dir.join("demo");
        install(Path::new(env!("CARGO_BIN_EXE_demo")), &program);
        Self::start_at(dir, program, arguments)
    }

    fn start_at(dir: TestDir, program: PathBuf, arguments: &[&str]) -> Self {
        let mut command = demo_at(&program);
        command.args(["--http", "127.0.0.1:0", "--workers", "2", "--sessions"]).arg(dir.join("sessions"));
        let proc = Proc::start({
            command.args(arguments);
            command
        });
        let address = proc.address("http");
        proc.line(" ready workers=2");
        Self { proc, address, program, dir }
    }

    fn reload(&self) {
        self.proc.signal(Signal::HUP);
        self.proc.line(" reloaded");
    }

    /// Sends `HUP` and waits for the line that says why it came to nothing.
    fn fail_to_reload(&self) -> String {
        self.proc.signal(Signal::HUP);
        self.proc.line("reload failed, the old workers stay: ")
    }

    fn hello(&self) {
        let response = http(&self.address, "/hello").unwrap();
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    }

    /// The file that every process of the pool runs.
    fn runs(&self, file: &Path) -> bool {
        let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        let of = |pid: u32| identity(Path::new(&format!("/proc/{pid}/exe")));
        let all = children(self.proc.pid()).into_iter().chain([self.proc.pid()]);
        all.map(of).all(|program| program == identity(file))
    }

    fn stop(mut self) {
        self.proc.signal(Signal::TERM);
        assert_eq!(self.proc.end(), 0);
    }
}

/// Puts a copy of `from` in the place of `to`, in one step, as an installation should.
fn install(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    fs::copy(from, &new).unwrap();
    fs::rename(new, to).unwrap();
}

/// The same with a text that is to be executed.
fn install_script(text: &str, to: &Path) {
    let new = to.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, to).unwrap();
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn hup_executes_the_program_on_the_disk_in_the_same_process() {
    let _turn = turn();
    let pool = Pool::start(&[]);
    let before = children(pool.proc.pid());
    let old = fs::File::open(&pool.program).unwrap();
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let address = &pool.address;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert!(http(address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("requests are served", || served.load(Ordering::Relaxed) > 20);
        install(Path::new(env!("CARGO_BIN_EXE_demo")), &pool.program);
        pool.reload();
        stop.store(true, Ordering::Relaxed);
    });
    assert_ne!(old.metadata().unwrap().ino(), fs::metadata(&pool.program).unwrap().ino());
    assert!(pool.runs(&pool.program));
    let after = children(pool.proc.pid());
    assert!(after.len() == 2 && after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
    // A new one was ready before an old one left.
    let log = pool.proc.log();
    let replacing = log.find(" replacing 2 workers").unwrap();
    assert!(log[replacing..].find(" ready").unwrap() < log[replacing..].find("exited status=0").unwrap(), "{log}");
    pool.hello();
    pool.stop();
}

/// Releases side by side, and a link to the one that counts.
#[test]
fn a_link_that_is_turned_leads_to_the_new_program() {
    let _turn = turn();
    let dir = TestDir::new();
    let (one, two, link) = (dir.join("one"), dir.join("two"), dir.join("demo"));
    for release in [&one, &two] {
        install(Path::new(env!("CARGO_BIN_EXE_demo")), release);
    }
    symlink(&one, &link).unwrap();
    let pool = Pool::start_at(dir, link.clone(), &[]);
    assert!(pool.runs(&one));
    symlink(&two, pool.dir.join("next")).unwrap();
    fs::rename(pool.dir.join("next"), &link).unwrap();
    pool.reload();
    assert!(pool.runs(&two) && !pool.runs(&one));
    pool.stop();
}

#[test]
fn a_program_that_cannot_start_leaves_the_old_pool() {
    let _turn = turn();
    let pool = Pool::start(&[]);
    let before = children(pool.proc.pid());
    let check = |what: &str, line: String| {
        assert!(line.contains(what), "{line}");
        pool.hello();
        assert_eq!(children(pool.proc.pid()), before);
    };
    fs::remove_file(&pool.program).unwrap();
    check("No such file or directory", pool.fail_to_reload());
    install_script("no program at all", &pool.program);
    check("Exec format error", pool.fail_to_reload());
    install_script("#!/bin/sh\necho broken >&2\nexit 7\n", &pool.program);
    check("exited with status 7 before it was ready", pool.fail_to_reload());
    install_script("#!/bin/sh\nkill -SEGV $$\n", &pool.program);
    check("killed by signal 11 before it was ready", pool.fail_to_reload());
    // One that ends in peace and has not served, either.
    install_script("#!/bin/sh\n", &pool.program);
    check("exited with status 0 before it was ready", pool.fail_to_reload());
    install_script("#!/nonexistent\n", &pool.program);
    check("No such file or directory", pool.fail_to_reload());
    fs::set_permissions(&pool.program, fs::Permissions::from_mode(0o600)).unwrap();
    check("Permission denied", pool.fail_to_reload());
    // And then one that can.
    install(Path::new(env!("CARGO_BIN_EXE_demo")), &pool.program);
    pool.reload();
    pool.hello();
    pool.stop();
}

#[test]
fn a_program_whose_workers_cannot_start_leaves_the_old_pool() {
    let _turn = turn();
    let pool = Pool::start(&[]);
    let before = children(pool.proc.pid());
    fs::set_permissions(pool.dir.join("sessions"), fs::Permissions::from_mode(0o777)).unwrap();
    let line = pool.fail_to_reload();
    assert!(line.contains("others may write to it"), "{line}");
    // What may pass is tried again before it counts.
    fs::set_permissions(pool.dir.join("sessions"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(pool.dir.join("sessions"), pool.dir.join("away")).unwrap();
    fs::write(pool.dir.join("sessions"), "").unwrap();
    let line = pool.fail_to_reload();
    assert!(line.contains("open session directory"), "{line}");
    assert_eq!(children(pool.proc.pid()), before);
    pool.hello();
    fs::remove_file(pool.dir.join("sessions")).unwrap();
    fs::rename(pool.dir.join("away"), pool.dir.join("sessions")).unwrap();
    pool.reload();
    pool.stop();
}

#[test]
fn a_program_that_is_tried_out_does_not_outlive_a_stop() {
    let _turn = turn();
    let pool = Pool::start(&[]);
    let mark = pool.dir.join("tried");
    install_script(
        &format!("#!/bin/sh\necho $$ >{0}.new\nmv {0}.new {0}\nexec sleep 1000\n", mark.display()),
        &pool.program,
    );
    pool.proc.signal(Signal::HUP);
    eventually("it is tried out", || mark.exists());
    let candidate = fs::read_to_string(&mark).unwrap();
    pool.hello();
    pool.stop();
    eventually("it is gone", || !Path::new(&format!("/proc/{}", candidate.trim())).exists());
}

#[test]
fn a_program_that_is_tried_out_dies_with_the_master() {
    let _turn = turn();
    let mut pool = Pool::start(&[]);
    let mark = pool.dir.join("tried");
    install_script(
        &format!("#!/bin/sh\necho $$ >{0}.new\nmv {0}.new {0}\nexec sleep 1000\n", mark.display()),
        &pool.program,
    );
    pool.proc.signal(Signal::HUP);
    eventually("it is tried out", || mark.exists());
    let candidate = fs::read_to_string(&mark).unwrap();
    pool.proc.signal(Signal::KILL);
    assert_eq!(pool.proc.end(), -9);
    eventually("it is gone", || !Path::new(&format!("/proc/{}", candidate.trim())).exists());
}

/// Whoever sends it twice wants what is there by then.
#[test]
fn signals_that_come_during_a_reload_are_not_lost() {
    let _turn = turn();
    let pool = Pool::start(&[]);
    for _ in 0..3 {
        pool.proc.signal(Signal::HUP);
    }
    pool.proc.signal(Signal::TTIN);
    pool.proc.line(" reloaded");
    eventually("three workers", || children(pool.proc.pid()).len() == 3);
    // However many reloads came of it (one that comes while workers are being replaced goes on with that), the last one
    // ends.
    eventually("the last reload is complete", || {
        let log = pool.proc.log();
        log.rfind(": trying ") < log.rfind(" reloaded")
    });
    pool.hello();
    pool.stop();
}

#[test]
fn quiet_connections_and_requests_at_work_go_on_through_a_reload() {
    let _turn = turn();
    let pool = Pool::start(&[]);
    let mut quiet: Vec<_> = (0..20).map(|_| connect(&pool.address).unwrap()).collect();
    let ask = |connection: &mut Box<dyn support::client::Connection>| {
        connection.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut response = [0; 15];
        connection.read_exact(&mut response).unwrap();
        assert_eq!(&response, b"HTTP/1.1 200 OK");
        let mut rest = Vec::new();
        while !rest.ends_with(b"Hello, world!\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            rest.push(byte[0]);
        }
    };
    quiet.iter_mut().for_each(ask);
    let at_work = send(&pool.address, &http_request("GET", "/slow?ms=600")).unwrap();
    eventually("a worker sleeps", || children(pool.proc.pid()).into_iter().any(is_sleeping));
    pool.reload();
    assert!(read(at_work).unwrap().starts_with("HTTP/1.1 200 "));
    quiet.iter_mut().for_each(ask);
    pool.stop();
}

#[test]
fn unix_and_inherited_listeners_go_along_and_nothing_leaks() {
    let _turn = turn();
    let dir = TestDir::new();
    let socket = dir.join("s");
    let address = format!("unix:{}", socket.display());
    let pool = Pool::start(&["--scgi", &address]);
    let identity = fs::symlink_metadata(&socket).unwrap().ino();
    pool.reload();
    let before = descriptors(pool.proc.pid());
    for _ in 0..5 {
        pool.reload();
    }
    assert_eq!(descriptors(pool.proc.pid()), before);
    assert_eq!(fs::symlink_metadata(&socket).unwrap().ino(), identity);
    assert!(scgi(&address, "/hello").unwrap().starts_with("Status: 200 "));
    pool.stop();
    // The file of the socket belongs to the pool, whichever program it was that made it.
    assert!(!socket.exists());
}

#[test]
fn the_service_manager_is_told_of_a_reload() {
    let _turn = turn();
    let dir = TestDir::new();
    let path = dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let receive = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let program = dir.join("demo");
    install(Path::new(env!("CARGO_BIN_EXE_demo")), &program);
    let mut command = demo_at(&program);
    command.args(["--http", "127.0.0.1:0", "--workers", "1"]).env("NOTIFY_SOCKET", &path);
    let mut proc = Proc::start(command);
    assert_eq!(receive(), "READY=1");
    for _ in 0..2 {
        proc.signal(Signal::HUP);
        assert!(receive().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(receive(), "READY=1");
        proc.line(" reloaded");
    }
    fs::remove_file(&program).unwrap();
    proc.signal(Signal::HUP);
    assert!(receive().starts_with("RELOADING=1\n"));
    assert_eq!(receive(), "READY=1");
    proc.signal(Signal::TERM);
    assert_eq!(receive(), "STOPPING=1");
    assert_eq!(proc.end(), 0);
}

/// A version with another layout of the scoreboard cannot look at what the old workers do: it leaves them alone, and they
/// end what they have.
#[test]
fn a_program_that_cannot_read_the_scoreboard_takes_over_all_the_same() {
    let _turn = turn();
    let pool = Pool::start(&[]);
    let old = children(pool.proc.pid());
    let mut bytes = fs::read(&pool.program).unwrap();
    // The layout's number, as src/server/pool/scoreboard has it, wherever it stands in the code: all but its lowest byte.
    let number = &0x636c_6f61_6b00_0000_u64.to_le_bytes()[1..];
    let found: Vec<usize> = (0..bytes.len() - 8).filter(|&at| bytes[at + 1..at + 8] == *number).collect();
    assert!(!found.is_empty(), "the layout has another number");
    for at in found {
        bytes[at] ^= 0x80;
    }
    let other = pool.dir.join("other");
    fs::write(&other, bytes).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let at_work = send(&pool.address, &http_request("GET", "/slow?ms=700")).unwrap();
    eventually("a worker sleeps", || old.iter().any(|&pid| is_sleeping(pid)));
    fs::rename(&other, &pool.program).unwrap();
    pool.reload();
    assert!(pool.runs(&pool.program));
    assert!(read(at_work).unwrap().starts_with("HTTP/1.1 200 "));
    let new = children(pool.proc.pid());
    assert!(new.len() == 2 && new.iter().all(|pid| !old.contains(pid)), "{old:?} {new:?}");
    pool.hello();
    // And back.
    install(Path::new(env!("CARGO_BIN_EXE_demo")), &pool.program);
    pool.reload();
    pool.hello();
    pool.stop();
}

/// Deadlines hold for requests that were begun under the program before.
#[test]
fn a_request_of_an_old_worker_still_has_its_deadline() {
    let _turn = turn();
    let pool = Pool::start(&["--request-timeout", "1"]);
    let old = children(pool.proc.pid());
    let request = send(&pool.address, &http_request("GET", "/slow?ms=60000")).unwrap();
    eventually("a worker sleeps", || old.iter().any(|&pid| is_sleeping(pid)));
    pool.proc.signal(Signal::HUP);
    pool.proc.line(" replacing 2 workers");
    pool.proc.line(" timed out method=GET path=/slow");
    pool.proc.line(" reloaded");
    assert!(read(request).unwrap().starts_with("HTTP/1.1 504 "));
    pool.hello();
    pool.stop();
}

/// The whole of a reload while a worker is stopped: it is killed when its time is over, and nobody waits for it.
#[test]
fn a_worker_that_is_stopped_does_not_keep_a_reload() {
    let _turn = turn();
    let pool = Pool::start(&["--graceful-timeout", "1"]);
    let old = children(pool.proc.pid());
    let request = send(&pool.address, &http_request("GET", "/slow?ms=60000")).unwrap();
    let busy = || old.iter().copied().find(|&pid| is_sleeping(pid));
    eventually("a worker sleeps", || busy().is_some());
    let stopped = busy().unwrap();
    support::process::send(stopped, Signal::STOP);
    pool.reload();
    pool.hello();
    assert!(pool.proc.log().contains(&format!("pid={stopped} did not leave in time ")));
    drop(request);
    pool.stop();
}

/// Found when the program is tried out, not by its workers.
#[test]
fn a_reload_that_cannot_open_the_access_log_leaves_the_old_workers() {
    let _turn = turn();
    let dir = TestDir::new();
    let (logs, log) = (dir.join("logs"), dir.join("logs/access.log"));
    std::fs::create_dir(&logs).unwrap();
    let arguments = ["--http", "127.0.0.1:0", "--workers", "1", "--access-log", log.to_str().unwrap()];
    let mut proc = Proc::demo(arguments);
    let address = proc.address("http");
    proc.line(" ready workers=1");
    std::fs::rename(&logs, dir.join("away")).unwrap();
    std::fs::write(&logs, "").unwrap();
    proc.signal(Signal::HUP);
    let line = proc.line("reload failed, the old workers stay: ");
    assert!(line.contains("open access log: "), "{line}");
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    std::fs::remove_file(&logs).unwrap();
    std::fs::create_dir(&logs).unwrap();
    proc.signal(Signal::HUP);
    proc.line(" reloaded");
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}
