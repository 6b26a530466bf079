//! What the master does when several things happen to it at once.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::client::{http, http_request, read, send};
use support::process::{Proc, Signal, children, copy_demo, demo, demo_at, is_sleeping, wait_until_sleeping};
use support::{TestDir, eventually, turn};

// One test at a time (`turn`), as in the tests of the reload, and since processor time is measured.

/// A pool of the demo, and its address; all workers are ready.
fn pool(workers: &str, arguments: &[&str]) -> (Proc, String) {
    start(demo(), workers, arguments)
}

fn start(mut command: Command, workers: &str, arguments: &[&str]) -> (Proc, String) {
    command.args(["--http", "127.0.0.1:0", "--workers", workers]).args(arguments);
    let proc = Proc::start(command);
    let address = proc.address("http");
    proc.line(" ready workers=");
    (proc, address)
}

/// A pool whose program is a copy of the demo in `dir`.
fn pool_in(dir: &TestDir, workers: &str, arguments: &[&str]) -> (Proc, String) {
    copy_demo(&dir.join("demo"));
    start(demo_at(&dir.join("demo")), workers, arguments)
}

/// Puts a script in the place of the program in `dir`.
fn install_script(dir: &TestDir, text: &str) {
    fs::write(dir.join("new"), text).unwrap();
    fs::set_permissions(dir.join("new"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(dir.join("new"), dir.join("demo")).unwrap();
}

/// Hundredths of a second for which process `pid` has had a processor.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

/// Fails if the process does not rest for half a second.
#[track_caller]
fn assert_rests(proc: &Proc) {
    let before = ticks(proc.pid());
    std::thread::sleep(Duration::from_millis(500));
    let used = ticks(proc.pid()) - before;
    assert!(used < 10, "{used} ticks in half a second");
}

/// A place that is kept empty for a while is not waited for when nobody is wanted there any more.
#[test]
fn the_master_rests_when_a_place_stays_empty() {
    let _turn = turn();
    let (mut proc, _) = pool("2", &[]);
    support::process::send(children(proc.pid())[0], Signal::KILL);
    proc.line(" killed signal=9, respawning");
    proc.signal(Signal::TTOU);
    proc.line("TTOU: workers=1");
    assert_rests(&proc);
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn the_master_rests_whatever_time_requests_have() {
    let _turn = turn();
    for flag in ["--request-timeout", "--soft-timeout"] {
        let (mut proc, address) = pool("2", &[flag, "0.0001"]);
        assert_rests(&proc);
        let response = http(&address, "/slow?ms=100").unwrap();
        let status = if flag == "--request-timeout" { "504" } else { "200" };
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
        proc.signal(Signal::TERM);
        assert_eq!(proc.end(), 0);
    }
}

#[test]
fn the_master_rests_while_it_stops() {
    let _turn = turn();
    let (mut proc, address) = pool("2", &[]);
    let slow = send(&address, &http_request("GET", "/slow?ms=2000")).unwrap();
    eventually("one sleeps", || children(proc.pid()).into_iter().any(is_sleeping));
    let idle = children(proc.pid()).into_iter().find(|pid| !is_sleeping(*pid)).unwrap();
    support::process::send(idle, Signal::KILL);
    proc.line(" killed signal=9, respawning");
    proc.signal(Signal::TERM);
    proc.line("TERM: stopping");
    assert_rests(&proc);
    assert!(read(slow).unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(proc.end(), 0);
}

/// The program would do, but its workers do not, and the old ones live on beside them.
#[test]
fn a_reload_ends_when_five_workers_in_a_row_cannot_start() {
    let _turn = turn();
    let dir = TestDir::new();
    let sessions = dir.join("sessions");
    let (mut proc, address) = pool_in(&dir, "2", &["--sessions", sessions.to_str().unwrap()]);
    let before = children(proc.pid());
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    let (tried, sessions, demo) = (dir.join("tried"), sessions.display(), env!("CARGO_BIN_EXE_demo"));
    let tried = tried.display();
    // The first time it is only tried out.
    install_script(
        &dir,
        &format!("#!/bin/sh\n[ -e {tried} ] && chmod 777 {sessions}\ntouch {tried}\nexec {demo} \"$@\"\n"),
    );
    // A worker that has lived for a second has shown that workers can live.
    std::thread::sleep(Duration::from_millis(1100));
    proc.signal(Signal::HUP);
    let line = proc.line("reload failed, the old workers stay: ");
    assert!(line.contains("others may write to it"), "{line}");
    assert_eq!(proc.log().matches(" cannot start: ").count(), 5, "{}", proc.log());
    assert_eq!(children(proc.pid()), before);
    assert_rests(&proc);
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

/// What was tried out is not what would be executed.
#[test]
fn a_program_that_is_replaced_while_it_is_tried_out_is_tried_again() {
    let _turn = turn();
    let dir = TestDir::new();
    let (mut proc, address) = pool_in(&dir, "1", &[]);
    fs::write(dir.join("broken"), "#!/bin/sh\nexit 7\n").unwrap();
    fs::set_permissions(dir.join("broken"), fs::Permissions::from_mode(0o755)).unwrap();
    let (broken, program) = (dir.join("broken"), dir.join("demo"));
    let script = format!(
        "#!/bin/sh\nmv {} {}\nexec {} \"$@\"\n",
        broken.display(),
        program.display(),
        env!("CARGO_BIN_EXE_demo")
    );
    install_script(&dir, &script);
    proc.signal(Signal::HUP);
    proc.line("reload failed, the old workers stay: the program exited with status 7");
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

/// The next release may be there before the last one has looked at its own file.
#[test]
fn a_program_that_was_replaced_as_it_started_can_be_reloaded() {
    let _turn = turn();
    let dir = TestDir::new();
    copy_demo(&dir.join("demo"));
    copy_demo(&dir.join("next"));
    let mut command = Command::new("bash");
    command.env("XDG_STATE_HOME", dir.path()).arg("-c");
    command.arg("exec 9<\"$0\"; mv \"$1\" \"$0\"; shift; exec -a \"$0\" /proc/self/fd/9 \"$@\"");
    command.arg(dir.join("demo")).arg(dir.join("next"));
    let (mut proc, _) = start(command, "1", &[]);
    proc.signal(Signal::HUP);
    proc.line(" reloaded");
    assert_eq!(fs::read_link(format!("/proc/{}/exe", proc.pid())).unwrap(), dir.join("demo"));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn one_more_at_most_is_one_more_at_once_where_somebody_waits() {
    let _turn = turn();
    let (mut proc, address) = pool("1..2", &[]);
    let slow = || send(&address, &http_request("GET", "/slow?ms=5000")).unwrap();
    let began = Instant::now();
    let _busy = [slow(), slow()];
    eventually("two sleep", || children(proc.pid()).into_iter().filter(|pid| is_sleeping(*pid)).count() == 2);
    let _waiting = slow();
    // The master is not told again by those that are busy, and hears nobody for a second once it has nobody to send.
    std::thread::sleep(Duration::from_millis(1500));
    proc.signal(Signal::TTIN);
    eventually("three sleep", || children(proc.pid()).into_iter().filter(|pid| is_sleeping(*pid)).count() == 3);
    assert!(began.elapsed() < Duration::from_secs(4), "only after the others were done: {:?}", began.elapsed());
    proc.signal(Signal::INT);
    assert_eq!(proc.end(), 0);
}

#[test]
fn the_master_rests_while_a_program_is_tried_out_that_has_nothing_to_say() {
    let _turn = turn();
    let dir = TestDir::new();
    let (mut proc, _) = pool_in(&dir, "1", &[]);
    let mark = dir.join("mark");
    let close = "for number in $(seq 3 63); do eval \"exec $number>&-\"; done";
    install_script(&dir, &format!("#!/bin/bash\n{close}\ntouch {}\nexec sleep 1000\n", mark.display()));
    proc.signal(Signal::HUP);
    eventually("it is tried out", || mark.exists());
    assert_rests(&proc);
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

/// Who waits in the queue after the last worker is served by another one, but not if that cannot start.
#[test]
fn a_stop_ends_when_workers_cannot_start() {
    let _turn = turn();
    let dir = TestDir::new();
    let sessions = dir.join("sessions");
    let (mut proc, address) = pool("1", &["--sessions", sessions.to_str().unwrap()]);
    let worker = children(proc.pid())[0];
    let _busy = send(&address, &http_request("GET", "/slow?ms=60000")).unwrap();
    wait_until_sleeping(worker);
    let _waiting = send(&address, &http_request("GET", "/hello")).unwrap();
    fs::set_permissions(&sessions, fs::Permissions::from_mode(0o777)).unwrap();
    proc.signal(Signal::TERM);
    proc.line("TERM: stopping");
    support::process::send(worker, Signal::KILL);
    assert_eq!(proc.end(), 0);
    let tries = proc.log().matches(" cannot start: ").count();
    assert!(tries <= 1, "{tries} workers were started in vain");
}

/// The operator's word counts more than what there was.
#[test]
fn another_number_of_workers_is_in_force_after_a_reload() {
    let _turn = turn();
    let dir = TestDir::new();
    let file = dir.join("env");
    let write = |workers: &str| fs::write(&file, format!("CLOAKROOM_WORKERS={workers}\n")).unwrap();
    write("3");
    let mut command = demo();
    command.args(["--http", "127.0.0.1:0", "--env-file"]).arg(&file);
    let mut proc = Proc::start(command);
    proc.line(" ready workers=3");
    let count = |proc: &Proc| children(proc.pid()).len();
    let reload = |expected: usize| {
        proc.signal(Signal::HUP);
        proc.line(" reloaded");
        eventually("as many as there should be", || count(&proc) == expected);
    };
    proc.signal(Signal::TTOU);
    proc.line("TTOU: workers=2");
    eventually("one less", || count(&proc) == 2);
    // What TTOU did stays as long as the number that was said is the same.
    reload(2);
    write("1");
    reload(1);
    write("4");
    reload(4);
    write("1..3");
    reload(3);
    proc.signal(Signal::TTIN);
    proc.line("TTIN: workers=1..4");
    reload(3);
    proc.signal(Signal::TTIN);
    proc.line("TTIN: workers=1..5");
    write("2");
    reload(2);
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

/// The handlers of a worker that could not even install its own are those of its master, and would speak to that.
#[test]
fn what_is_sent_to_a_worker_that_cannot_start_does_not_stop_the_pool() {
    use rustix::process::{Pid, Resource, prlimit};
    let _turn = turn();
    let (mut proc, address) = pool("2", &["--status", "127.0.0.1:0"]);
    let master = Pid::from_raw(i32::try_from(proc.pid()).unwrap());
    let mut few = rustix::process::getrlimit(Resource::Nofile);
    few.current = Some(5);
    let before = prlimit(master, Resource::Nofile, few).unwrap();
    // Two workers and the reporter, of which one worker lives on.
    let all = children(proc.pid());
    let lives = all[1];
    all.iter().filter(|pid| **pid != lives).for_each(|pid| support::process::send(*pid, Signal::KILL));
    eventually("five could not start, nor the reporter", || {
        // They do not live long enough for a look now and then.
        for _ in 0..200 {
            let others = children(proc.pid()).into_iter().filter(|pid| *pid != lives);
            others.for_each(|pid| support::process::send(pid, Signal::TERM));
        }
        let log = proc.log();
        let failed = log.matches(" cannot start: ").count() >= 5
            && log.lines().any(|line| line.starts_with("cloakroom: reporter ") && line.contains("exited status=1"));
        failed || log.contains("stopping")
    });
    assert!(!proc.log().contains("stopping"));
    prlimit(master, Resource::Nofile, before).unwrap();
    eventually("there are two again", || proc.log().matches(" ready").count() >= 4);
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

/// However often it is told to reload, it stops when it is told to.
#[test]
fn a_thousand_reloads_and_a_stop() {
    let _turn = turn();
    let (mut proc, address) = pool("2", &[]);
    for _ in 0..1000 {
        proc.signal(Signal::HUP);
    }
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
    assert!(!Path::new(&format!("/proc/{}", proc.pid())).exists());
}
