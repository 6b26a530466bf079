//! The systemd units and the cron line of `deploy/`, as far as they can be run without systemd as the first process.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Duration;

use crate::process::{Place, Process, wait_for};
use crate::site::{Adapted, install};

const UNITS: [&str; 4] =
    ["cloakroom-demo.socket", "cloakroom-demo.service", "cloakroom-sweep.service", "cloakroom-sweep.timer"];

/// The value of the only line `key=` of a unit.
fn value(unit: &str, key: &str) -> String {
    let text = Adapted::read(&format!("systemd/{unit}")).text();
    let values: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert_eq!(values.len(), 1, "{unit}: {key}");
    values[0].to_owned()
}

fn programs(place: &Place) {
    fs::create_dir(place.path("lib")).unwrap();
    install(env!("CARGO_BIN_EXE_demo").as_ref(), &place.path("lib/demo"));
    install(env!("CARGO_BIN_EXE_cloakroom").as_ref(), &place.path("lib/cloakroom"));
}

/// A command line of `deploy/`, with the programs and the session directory of this test.
fn words(place: &Place, line: &str) -> Vec<String> {
    let sessions = place.path("sessions").to_str().unwrap().to_owned();
    let lib = place.path("lib").to_str().unwrap().to_owned();
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let program = words[0].clone();
    words[0] = program.replace("/usr/local/lib/cloakroom", &lib).replace("/usr/local/bin", &lib);
    assert_ne!(words[0], program, "{line}");
    let directory = words.iter_mut().find(|word| *word == "/var/lib/cloakroom-demo/sessions");
    *directory.unwrap_or_else(|| panic!("no session directory in {line}")) = sessions;
    words
}

#[test]
#[ignore = "needs systemd-analyze (Debian: systemd): run tests/run"]
fn systemd_finds_no_fault_in_the_units() {
    let place = Place::new();
    programs(&place);
    let lib = place.path("lib").to_str().unwrap().to_owned();
    for unit in UNITS {
        let mut file = Adapted::read(&format!("systemd/{unit}"));
        if unit == "cloakroom-demo.service" {
            file = file.replace("/usr/local/lib/cloakroom", &lib);
        } else if unit == "cloakroom-sweep.service" {
            file = file.replace("/usr/local/bin", &lib);
        }
        fs::write(place.path(unit), file.text()).unwrap();
    }
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).current_dir(place.directory()).output().unwrap();
        (
            output.status.success(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    for unit in UNITS {
        let (is_good, said) = analyze(&["verify", &format!("./{unit}")]);
        assert!(is_good && !said.contains(unit), "{unit}: {said}");
    }
    for unit in ["cloakroom-demo.service", "cloakroom-sweep.service"] {
        // Tenths; 10 is exposed to everything.
        let (is_good, said) = analyze(&["security", "--offline=yes", "--threshold=5", &format!("./{unit}")]);
        assert!(is_good, "{said}");
    }
}

/// systemd holds the socket: the program inherits it, and says when it is ready.
#[test]
#[ignore = "needs systemd-socket-activate (Debian: systemd): run tests/run"]
fn the_service_serves_the_socket_and_says_that_it_is_ready() {
    let place = Place::new();
    programs(&place);
    place.private("sessions", None);
    let socket = place.path("scgi.sock");
    assert_eq!(value("cloakroom-demo.socket", "ListenStream"), "/run/cloakroom-demo/scgi.sock");
    assert_eq!(value("cloakroom-demo.service", "Type"), "notify");
    let notify = UnixDatagram::bind(place.path("notify.sock")).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(30))).unwrap();

    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(&socket);
    command.arg("--fdname").arg(value("cloakroom-demo.socket", "FileDescriptorName"));
    command.arg("-E").arg(format!("NOTIFY_SOCKET={}", place.path("notify.sock").display()));
    command.args(words(&place, &value("cloakroom-demo.service", "ExecStart")));
    let service = Process::start(command, place.path("service.log"));
    // The first connection starts the program.
    let stream = service.wait_for("the socket is there", |_| UnixStream::connect(&socket).ok());
    let mut message = [0; 256];
    let length = notify.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1");
    assert!(service.log().contains(" listening scgi unix:"), "{}", service.log());
    assert_eq!(scgi(stream), "Status: 200 OK");
    assert_eq!(scgi(UnixStream::connect(&socket).unwrap()), "Status: 200 OK");
    drop(service);
    let length = notify.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"STOPPING=1");
}

/// The first line of the answer to `/hello`.
fn scgi(mut stream: UnixStream) -> String {
    use std::io::{Read as _, Write as _};
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = "CONTENT_LENGTH\x000\0SCGI\x001\0REQUEST_METHOD\0GET\0REQUEST_URI\0/hello\0";
    stream.write_all(format!("{}:{head},", head.len()).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[test]
fn the_sweep_lines_sweep() {
    let cron = Adapted::read("cron/cloakroom-sweep").text();
    let line = cron.lines().find(|line| !line.starts_with('#')).unwrap();
    // Five times and a user stand before the command, and one redirection behind it.
    let cron = line.split_whitespace().skip(6).collect::<Vec<_>>().join(" ").replace(" >/dev/null", "");
    for line in [cron, value("cloakroom-sweep.service", "ExecStart")] {
        let place = Place::new();
        programs(&place);
        place.private("sessions", None);
        let words = words(&place, &line);
        let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "swept: deleted 0, remaining 0\n", "{line}");
        assert!(output.status.success() && output.stderr.is_empty(), "{line}");
    }
}

/// A system call that the service's filter does not know fails at a moment that nobody tests, such as a reload.
#[test]
#[ignore = "needs strace and systemd-analyze (Debian: strace, systemd): run tests/run"]
fn the_service_allows_every_system_call_that_is_made() {
    let filters = Adapted::read("systemd/cloakroom-demo.service").text();
    let filters: Vec<&str> = filters.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")).collect();
    assert_eq!(filters, ["@system-service", "~@privileged @resources", "setpriority ioprio_set"]);
    let mut allowed = calls("@system-service");
    for group in ["@privileged", "@resources"] {
        allowed = &allowed - &calls(group);
    }
    allowed.extend(["setpriority", "ioprio_set"].map(str::to_owned));
    // Always there: systemd adds it by itself.
    allowed.extend(calls("@default"));

    let place = Place::new();
    programs(&place);
    place.private("sessions", None);
    let (socket, trace) = (place.path("scgi.sock"), place.path("trace.txt"));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&trace).arg("--");
    command.args(words(&place, &value("cloakroom-demo.service", "ExecStart")));
    command.arg("--scgi").arg(format!("unix:{}", socket.display())).args([
        "--workers",
        "2",
        "--max-requests",
        "2",
        "--sweep-every",
        "0.1",
    ]);
    let service = Process::start(command, place.path("service.log"));
    service.wait_for("the pool is ready", |service| service.log().contains(" ready workers=2").then_some(()));
    for _ in 0..8 {
        assert_eq!(scgi(UnixStream::connect(&socket).unwrap()), "Status: 200 OK");
    }
    let form = "name=alice";
    let head = format!(
        "CONTENT_LENGTH\0{}\0SCGI\x001\0REQUEST_METHOD\0POST\0REQUEST_URI\0/login\0\
         CONTENT_TYPE\0application/x-www-form-urlencoded\0",
        form.len()
    );
    {
        use std::io::{Read as _, Write as _};
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(format!("{}:{head},{form}", head.len()).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("Set-Cookie: session="), "{answer}");
    }
    wait_for("workers were replaced", || (service.log().matches(" exited status=0").count() >= 2).then_some(()));
    wait_for("a sweep was made", || {
        fs::read_to_string(&trace).is_ok_and(|text| text.contains(" ioprio_set(")).then_some(())
    });
    // The program, not strace: it is to end by itself, under strace's eyes.
    let log = service.log();
    let master: i32 = log.split("master pid=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let master = rustix::process::Pid::from_raw(master).unwrap();
    rustix::process::kill_process(master, rustix::process::Signal::TERM).unwrap();
    wait_for("the pool stops", || service.log().contains(" stopped\n").then_some(()));
    drop(service);

    let trace = fs::read_to_string(&trace).unwrap();
    // "PID call(arguments) = result"
    let made: BTreeSet<String> = trace
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('(').map(|(name, _)| name.to_owned()))
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .collect();
    assert!(["accept4", "flock", "setpriority"].iter().all(|call| made.contains(*call)), "{made:?}");

    let missing: Vec<_> = made.iter().filter(|name| !allowed.contains(*name)).collect();
    assert!(missing.is_empty(), "not allowed: {missing:?}");
}

/// The system calls of one of systemd's groups.
fn calls(group: &str) -> BTreeSet<String> {
    let output = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", group]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut calls = BTreeSet::new();
    for word in text.lines().skip(1).map(str::trim).filter(|word| !word.is_empty() && !word.starts_with('#')) {
        if word.starts_with('@') {
            calls.extend(self::calls(word));
        } else {
            calls.insert(word.to_owned());
        }
    }
    calls
}
