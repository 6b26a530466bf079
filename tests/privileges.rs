//! Who the pool runs as, what it may do, and who may speak to it; with real processes.
//!
//! What only root can do is skipped, with the reason printed, where somebody else runs these tests.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use support::client::{http, http_request, read, scgi, scgi_request, send};
use support::process::{Proc, Signal, copy_demo, demo, pid_in, wait_until_sleeping, wait_until_stopped};
use support::{PATIENCE, TestDir};

/// Somebody who is on every system, by number: a name differs.
const NOBODY: u32 = 65534;

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("{test}: skipped, only root can become somebody else");
    }
    root
}

/// A directory with the program, where anybody may execute it, and a session directory of nobody's.
struct Place {
    dir: TestDir,
}

impl Place {
    fn new() -> Self {
        let dir = TestDir::new();
        set_mode(&dir.join(""), 0o755);
        copy_demo(&dir.join("program"));
        std::fs::create_dir(dir.join("sessions")).unwrap();
        set_mode(&dir.join("sessions"), 0o700);
        let _ = chown(dir.join("sessions"), Some(NOBODY), Some(NOBODY));
        Self { dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.dir.join("program"));
        for (name, value) in demo().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.arg("--sessions").arg(self.dir.join("sessions")).args(arguments);
        command
    }

    fn socket(&self, name: &str) -> String {
        format!("unix:{}", self.dir.join(name).display())
    }
}

fn set_mode(path: &PathBuf, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The value of a line of `/proc/PID/status`.
#[track_caller]
fn status(pid: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A request that hangs in its worker, which is stopped then; what the client gets.
fn answer_of_a_stopped_worker(address: &str, worker: u32) -> String {
    let request = send(address, &http_request("GET", "/slow?ms=60000")).unwrap();
    wait_until_sleeping(worker);
    support::process::send(worker, Signal::STOP);
    wait_until_stopped(worker);
    read(request).unwrap_or_default()
}

#[test]
fn master_and_workers_give_up_their_privileges() {
    if !is_root("master_and_workers_give_up_their_privileges") {
        return;
    }
    let place = Place::new();
    let ids = |group: u32| format!("{NOBODY} {NOBODY} {NOBODY} {NOBODY}/{group} {group} {group} {group}/{group}");
    for (group, expected) in [(None, ids(NOBODY)), (Some("4242"), ids(4242))] {
        let mut command = place.command(&["--http", "127.0.0.1:0", "--workers", "1", "--user", "nobody"]);
        command.args(group.iter().flat_map(|group| ["--group", group]));
        // Root's groups must not stay; std would drop them itself, so they are set just before the program begins.
        // SAFETY: only a system call, with a pointer to a live value.
        unsafe {
            command.pre_exec(|| {
                let groups = [0, 4, 27];
                if libc::setgroups(groups.len(), groups.as_ptr()) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        let mut proc = Proc::start(command);
        let address = proc.address("http");
        let worker = proc.ready(1)[0];
        for pid in [proc.pid(), worker] {
            let now = ["Uid", "Gid", "Groups"].map(|name| status(pid, name)).join("/");
            assert_eq!(now, expected, "pid {pid}");
            assert_eq!(status(pid, "CapPrm"), "0000000000000000");
            assert_eq!(status(pid, "CapEff"), "0000000000000000");
        }
        assert!(http(&address, "/counter").unwrap().starts_with("HTTP/1.1 200 "));
        assert!(!proc.log().contains("runs as root"), "{}", proc.log());
        proc.signal(Signal::TERM);
        assert_eq!(proc.end(), 0);
    }
}

/// The kernel hides a process that has changed its user even from that user, so its own master could not help it.
#[test]
fn a_stopped_worker_of_another_user_still_gets_its_client_an_answer_also_after_a_reload() {
    if !is_root("a_stopped_worker_of_another_user_still_gets_its_client_an_answer_also_after_a_reload") {
        return;
    }
    let place = Place::new();
    let arguments = ["--http", "127.0.0.1:0", "--workers", "1", "--request-timeout", "0.5", "--user", "nobody"];
    let mut proc = Proc::start(place.command(&arguments));
    let address = proc.address("http");
    let mut worker = proc.ready(1)[0];
    for _ in 0..2 {
        assert!(answer_of_a_stopped_worker(&address, worker).starts_with("HTTP/1.1 504 "));
        // The master saw where it hung, too.
        assert!(proc.line(" timed out ").contains(" state=T in="), "{}", proc.log());
        proc.ready(1);
        proc.signal(Signal::HUP);
        worker = proc.ready(1)[0];
        proc.line(" reloaded");
        for pid in [proc.pid(), worker] {
            assert!(status(pid, "Uid").starts_with("65534 65534 65534 "));
        }
    }
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
    assert!(!proc.log().contains("reload failed"), "{}", proc.log());
}

#[test]
fn a_reload_does_not_become_somebody_else() {
    if !is_root("a_reload_does_not_become_somebody_else") {
        return;
    }
    let place = Place::new();
    let file = place.dir.join("env");
    std::fs::write(&file, "").unwrap();
    chown(place.dir.join("sessions"), Some(0), Some(0)).unwrap();
    let mut command = place.command(&["--http", "127.0.0.1:0", "--workers", "1"]);
    command.arg("--env-file").arg(&file);
    let mut proc = Proc::start(command);
    proc.line("runs as root: ");
    proc.line("ready workers=1");
    for (text, said) in [
        ("CLOAKROOM_USER=nobody\n", "cannot become user 65534 (nobody), group 65534 "),
        ("CLOAKROOM_STRICT=yes\n", "refused by --strict: runs as root: "),
    ] {
        std::fs::write(&file, text).unwrap();
        proc.signal(Signal::HUP);
        let line = proc.line("reload failed, the old workers stay: ");
        assert!(line.contains(said), "{line}");
    }
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn who_is_not_root_is_refused_unless_he_is_it_already() {
    if !is_root("who_is_not_root_is_refused_unless_he_is_it_already") {
        return;
    }
    let place = Place::new();
    let start = |user: &str| {
        let mut command =
            place.command(&["--http", "127.0.0.1:0", "--workers", "1", "--user", user, "--group", "65534"]);
        command.uid(NOBODY).gid(NOBODY);
        Proc::start(command)
    };
    let mut proc = start("1");
    assert_eq!(proc.end(), 2);
    let log = proc.log();
    assert!(log.contains("cannot run as user 1 ") && log.contains("only root can change that"), "{log}");
    let mut proc = start("nobody");
    proc.line("ready workers=1");
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn an_unknown_user_ends_it_before_anything_is_left_behind() {
    let dir = TestDir::new();
    let socket = format!("unix:{}", dir.join("s").display());
    for (arguments, reason) in [
        (["--user", "nosuchuser"], "--user: there is no user \"nosuchuser\" on this system"),
        (["--group", "nosuchgroup"], "--group: there is no group \"nosuchgroup\" on this system"),
        (["--socket-owner", "nosuchuser"], "--socket-owner: there is no user \"nosuchuser\" on this system"),
        (["--socket-group", "nosuchgroup"], "--socket-group: there is no group \"nosuchgroup\" on this system"),
    ] {
        let mut proc = Proc::demo(["--scgi", &socket].into_iter().chain(arguments));
        assert_eq!(proc.end(), 2);
        assert!(proc.log().contains(reason), "{}", proc.log());
        assert!(!dir.join("s").exists());
    }
}

/// Elsewhere the group was taken and not applied.
#[test]
fn a_socket_has_the_owner_the_group_and_the_mode_that_were_said() {
    if !is_root("a_socket_has_the_owner_the_group_and_the_mode_that_were_said") {
        return;
    }
    let place = Place::new();
    let socket = place.socket("s");
    for (more, owner, group, mode) in [
        (&["--socket-owner", "1234", "--socket-group", "4321", "--socket-mode", "0640"][..], 1234, 4321, 0o640),
        (&["--socket-group", "4321"], 0, 4321, 0o660),
        (&["--socket-owner", "nobody"], NOBODY, 0, 0o660),
    ] {
        let usual = ["--scgi", &socket, "--workers", "1", "--user", "nobody"];
        let mut proc = Proc::start(place.command(&[&usual, more].concat()));
        proc.address("scgi");
        let file = std::fs::symlink_metadata(place.dir.join("s")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (owner, group, mode), "{more:?}");
        proc.signal(Signal::TERM);
        assert_eq!(proc.end(), 0);
    }
}

/// There is no moment with a wrong owner or mode: nobody can connect to a socket that does not listen.
#[test]
#[ignore = "needs strace (Debian: strace): run tests/run"]
fn a_socket_is_given_away_before_it_listens() {
    let place = Place::new();
    let trace = place.dir.join("trace");
    let program = place.command(&["--scgi", &place.socket("s"), "--workers", "1"]);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=bind,listen,fchownat,chown,lchown,chmod,fchmodat,umask", "-o"]).arg(&trace);
    let group = rustix::process::getegid().as_raw().to_string();
    command.arg("--").arg(program.get_program()).args(program.get_args()).args(["--socket-group", &group]);
    let mut proc = Proc::start(command);
    let master = pid_in(&proc.line("listening scgi "));
    support::process::send(master, Signal::TERM);
    proc.end();
    let trace = std::fs::read_to_string(&trace).unwrap();
    let names: Vec<_> = trace.lines().filter_map(|line| line.split_whitespace().nth(1)?.split('(').next()).collect();
    assert_eq!(names[..5], ["umask", "bind", "umask", "fchownat", "listen"], "{trace}");
    assert!(trace.lines().next().unwrap().contains("umask(0117)"), "{trace}");
}

#[test]
fn a_socket_that_cannot_be_given_away_is_not_left_behind() {
    if !is_root("a_socket_that_cannot_be_given_away_is_not_left_behind") {
        return;
    }
    let place = Place::new();
    chown(place.dir.path(), Some(NOBODY), None).unwrap();
    let mut command = place.command(&["--scgi", &place.socket("s"), "--socket-group", "4321"]);
    command.uid(NOBODY).gid(NOBODY);
    let mut proc = Proc::start(command);
    assert_eq!(proc.end(), 2);
    let log = proc.log();
    assert!(log.contains("cannot give unix:") && log.contains(" to group 4321 "), "{log}");
    assert!(!place.dir.join("s").exists());
}

#[test]
fn a_socket_in_roots_directory_stays_and_is_replaced_by_the_next_start() {
    if !is_root("a_socket_in_roots_directory_stays_and_is_replaced_by_the_next_start") {
        return;
    }
    let place = Place::new();
    let socket = place.socket("s");
    for _ in 0..2 {
        let mut proc = Proc::start(place.command(&["--scgi", &socket, "--workers", "1", "--user", "nobody"]));
        proc.line("ready workers=1");
        assert!(scgi(&socket, "/hello").unwrap().starts_with("Status: 200 "));
        proc.signal(Signal::TERM);
        assert_eq!(proc.end(), 0);
        let path = place.dir.join("s");
        let said =
            format!("cannot remove {}: Permission denied (os error 13); the next start removes it", path.display());
        assert_eq!(proc.log().matches(&said).count(), 1, "{}", proc.log());
        assert!(path.exists());
    }
}

#[test]
fn programs_that_the_application_starts_gain_no_privileges_unless_allowed() {
    for (arguments, expected) in [(&[][..], "1"), (&["--allow-new-privileges"], "0")] {
        // Where whoever runs the tests has ruled it out already, the second case says so.
        let outer = status(std::process::id(), "NoNewPrivs");
        let all = ["--http", "127.0.0.1:0", "--workers", "1"].iter().chain(arguments);
        let proc = Proc::demo(all.copied());
        let worker = proc.ready(1)[0];
        for pid in [proc.pid(), worker] {
            let expected = if outer == "1" { "1" } else { expected };
            assert_eq!(status(pid, "NoNewPrivs"), expected);
        }
        assert_eq!(proc.log().contains("cannot have --allow-new-privileges"), expected == "0" && outer == "1");
    }
}

#[test]
fn new_files_are_closed_to_others() {
    for (arguments, expected) in [(&[][..], "0027"), (&["--umask", "077"], "0077")] {
        let all = ["--http", "127.0.0.1:0", "--workers", "1"].iter().chain(arguments);
        let proc = Proc::demo(all.copied());
        let worker = proc.ready(1)[0];
        assert_eq!([proc.pid(), worker].map(|pid| status(pid, "Umask")), [expected; 2]);
    }
}

#[test]
fn what_is_seldom_meant_is_warned_of_and_refused_when_strict() {
    let place = Place::new();
    let socket = place.socket("s");
    let _ = chown(place.dir.join("sessions"), Some(rustix::process::geteuid().as_raw()), None);
    let file = place.dir.join("env").display().to_string();
    std::fs::write(&file, "").unwrap();
    set_mode(&place.dir.join("env"), 0o664);
    let mut cases = vec![
        (vec!["--env-file", &file], "environment file "),
        (vec!["--umask", "0"], "--umask 0000 lets everybody write"),
        (vec!["--umask", "0025"], "--umask 0025 lets everybody write"),
        (vec!["--scgi", &socket, "--socket-mode", "0666"], "--socket-mode 0666 lets every user"),
        (vec!["--http", &socket, "--socket-mode", "0777"], "--socket-mode 0777 lets every user"),
        (vec!["--scgi", "127.0.0.1:0", "--allow", "10.0.0.0/8"], "--allow 10.0.0.0/8 is a whole network"),
        (vec!["--scgi", "127.0.0.1:0", "--allow", "0.0.0.0/0"], "--allow 0.0.0.0/0 is a whole network"),
        (vec!["--trusted-proxy", "0.0.0.0/0"], "--trusted-proxy 0.0.0.0/0 believes everybody"),
        (vec!["--trusted-proxy", "::/0"], "--trusted-proxy ::/0 believes everybody"),
        (vec!["--status", "0.0.0.0:1"], "--status 0.0.0.0:1 tells everybody"),
    ];
    if rustix::process::geteuid().is_root() {
        cases.push((vec![], "runs as root: "));
    }
    for (mut arguments, said) in cases {
        if !arguments.iter().any(|word| matches!(*word, "--scgi" | "--http")) {
            arguments.extend(["--http", "127.0.0.1:0"]);
        }
        let mut proc = Proc::start(place.command(&[&arguments[..], &["--strict"]].concat()));
        assert_eq!(proc.end(), 2, "{arguments:?}: {}", proc.log());
        assert!(proc.log().contains(&format!("cloakroom: refused by --strict: {said}")), "{}", proc.log());
        assert!(!place.dir.join("s").exists());
        if said.starts_with("--status") {
            continue; // Port 1 is not for the taking.
        }
        let mut proc = Proc::start(place.command(&arguments));
        let line = proc.line(said);
        assert_eq!(line.find(said), Some(format!("cloakroom: master pid={} ", proc.pid()).len()), "{line}");
        proc.line(" ready workers=");
        proc.signal(Signal::TERM);
        assert_eq!(proc.end(), 0);
    }
}

#[test]
fn what_is_usual_is_not_warned_of_and_passes_when_strict() {
    let place = Place::new();
    let (socket, root) = (place.socket("s"), rustix::process::geteuid().is_root());
    let mut arguments =
        vec!["--scgi", &socket, "--scgi", "127.0.0.1:0", "--allow", "10.0.0.7", "--allow", "127.0.0.0/8"];
    arguments.extend(["--trusted-proxy", "10.0.0.0/8", "--workers", "1", "--strict"]);
    if root {
        arguments.extend(["--user", "nobody"]);
    } else {
        std::fs::remove_dir(place.dir.join("sessions")).unwrap();
    }
    let mut proc = Proc::start(place.command(&arguments));
    proc.line("ready workers=1");
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

/// A connection to `address` from `source`, an address of this machine.
fn connect_from(source: &str, address: &str) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&fd, &format!("{source}:0").parse::<SocketAddr>().unwrap()).unwrap();
    connect(&fd, &address.parse::<SocketAddr>().unwrap()).unwrap();
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What an SCGI request from `source` is answered with.
fn scgi_from(source: &str, address: &str) -> String {
    let mut stream = connect_from(source, address);
    // Who is refused may find the connection closed while he writes.
    let _ = stream.write_all(&scgi_request("GET", "/hello", b""));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn scgi_over_tcp_is_taken_from_the_allowed_networks_only() {
    let dir = TestDir::new();
    let socket = format!("unix:{}", dir.join("s").display());
    let listeners = ["--scgi", "127.0.0.1:0", "--scgi", &socket, "--http", "127.0.0.1:0", "--workers", "1"];
    let proc = Proc::demo(listeners.into_iter().chain(["--allow", "127.0.0.5/32", "--allow", "10.0.0.0/30"]));
    let web = proc.address("http");
    let scgi_address = proc.address("scgi");
    proc.line("ready workers=1");
    assert!(scgi_from("127.0.0.5", &scgi_address).starts_with("Status: 200 "));
    for _ in 0..20 {
        assert_eq!(scgi_from("127.0.0.1", &scgi_address), "");
    }
    assert!(scgi_from("127.0.0.5", &scgi_address).starts_with("Status: 200 "));
    // Neither HTTP nor a Unix socket is concerned.
    assert!(http(&web, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(scgi(&socket, "/hello").unwrap().starts_with("Status: 200 "));
    let log = proc.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(" refused ")).collect();
    assert!((1..=5).contains(&lines.len()), "{log}");
    assert!(lines[0].contains(" refused 127.0.0.1:") && lines[0].ends_with("not allowed (--allow)"), "{log}");
}

#[test]
fn scgi_over_tcp_is_taken_from_this_machine_by_default() {
    let proc = Proc::demo(["--scgi", "127.0.0.1:0", "--workers", "1"]);
    let address = proc.address("scgi");
    for source in ["127.0.0.1", "127.0.0.5"] {
        assert!(scgi_from(source, &address).starts_with("Status: 200 "));
    }
}

/// The filter of a hardened service refuses `pidfd_getfd`: a worker that can still move answers for itself.
#[test]
fn an_overdue_request_is_answered_where_the_master_may_not_take_its_connection() {
    let mut command = demo();
    command.args(["--http", "127.0.0.1:0", "--workers", "1", "--request-timeout", "0.3"]);
    // SAFETY: only system calls, with pointers to live values.
    unsafe { command.pre_exec(|| deny(libc::SYS_pidfd_getfd)) };
    let mut proc = Proc::start(command);
    let address = proc.address("http");
    let worker = proc.ready(1)[0];
    assert_eq!(status(worker, "Seccomp"), "2");
    assert!(http(&address, "/slow?ms=60000").unwrap().starts_with("HTTP/1.1 504 "));
    assert!(proc.line(" timed out ").ends_with(", killed"));
    // One that cannot move is killed a second later, and its client sees the connection close.
    let worker = proc.ready(1)[0];
    assert_eq!(answer_of_a_stopped_worker(&address, worker), "");
    assert!(proc.line(" timed out ").contains(" state=T "));
    proc.ready(1);
    assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

/// From now on system call `number` fails with EPERM in this process and all that it starts.
fn deny(number: libc::c_long) -> std::io::Result<()> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let number = u32::try_from(number).unwrap();
    let filter = [
        // The number comes first in seccomp_data.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the pointers are to live values, which the kernel copies.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
