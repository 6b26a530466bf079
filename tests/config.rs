//! How a pool is told what to do: flags, variables, the environment file, and `--check`; with real processes.

mod support;

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use support::TestDir;
use support::client::{http, read, send};
use support::process::{Proc, Signal, copy_demo, demo};

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// The status of the answer to a body of so many bytes.
fn upload(address: &str, bytes: usize) -> String {
    let head = format!(
        "POST /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n{}",
        "x".repeat(bytes)
    );
    let answer = read(send(address, head.as_bytes()).unwrap()).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn the_environment_file_is_read_anew_at_each_reload() {
    let dir = TestDir::new();
    let file = dir.join("env");
    write(&file, "# limits\nCLOAKROOM_BODY_LIMIT='10'\nCLOAKROOM_WORKERS=1\nCLOAKROOM_HTTP=\"127.0.0.1:0\"\n");
    let mut command = demo();
    command.env("CLOAKROOM_ENV_FILE", &file);
    let mut proc = Proc::start(command);
    let address = proc.address("http");
    proc.line("ready workers=1");
    let reload = |text: &str| {
        write(&file, text);
        proc.signal(Signal::HUP);
        proc.line(" reloaded");
    };
    assert_eq!((upload(&address, 10), upload(&address, 11)), ("200".into(), "413".into()));
    reload("CLOAKROOM_BODY_LIMIT=100\nCLOAKROOM_WORKERS=1\n");
    assert_eq!((upload(&address, 100), upload(&address, 101)), ("200".into(), "413".into()));
    // A line that is gone is as if it had never been there.
    reload("CLOAKROOM_WORKERS=1\n");
    assert_eq!(upload(&address, 1000), "200");
    // A mistake: all stays as it was, and the log says where it is.
    write(&file, "CLOAKROOM_WORKERS=1\nCLOAKROOM_BODY_LIMIT=\"5\n");
    proc.signal(Signal::HUP);
    let line = proc.line(&format!("{}:2: ", file.display()));
    assert!(line.ends_with("CLOAKROOM_BODY_LIMIT: the quotation does not end in this line"), "{line}");
    proc.line("reload failed, the old workers stay: the program exited with status 2");
    assert_eq!(upload(&address, 1000), "200");
    // And so does a file that is gone.
    std::fs::remove_file(&file).unwrap();
    proc.signal(Signal::HUP);
    proc.line(&format!("read environment file {}: ", file.display()));
    proc.line("reload failed, ");
    write(&file, "CLOAKROOM_WORKERS=2\nCLOAKROOM_BODY_LIMIT=7\n");
    proc.signal(Signal::HUP);
    proc.line(" reloaded");
    assert_eq!((upload(&address, 7), upload(&address, 8)), ("200".into(), "413".into()));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn what_is_set_already_goes_before_the_environment_file() {
    let dir = TestDir::new();
    let file = dir.join("env");
    write(&file, "CLOAKROOM_BODY_LIMIT=10\nCLOAKROOM_SCRIPT_NAME=/file\nCLOAKROOM_WORKERS=3\n");
    let mut command = demo();
    command.args(["--http", "127.0.0.1:0", "--workers", "1", "--env-file"]).arg(&file);
    command.env("CLOAKROOM_BODY_LIMIT", "20").env("CLOAKROOM_SCRIPT_NAME", "");
    let mut proc = Proc::start(command);
    let address = proc.address("http");
    proc.line("ready workers=1");
    for _ in 0..2 {
        assert_eq!((upload(&address, 20), upload(&address, 21)), ("200".into(), "413".into()));
        // Empty is set, too.
        assert!(http(&address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
        proc.signal(Signal::HUP);
        proc.line(" reloaded");
    }
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn mistakes_in_the_environment_file_end_with_2() {
    let dir = TestDir::new();
    let file = dir.join("env");
    for (text, said) in [
        ("CLOAKROOM_WORKERS=1\n\nsecret", ":3: expected NAME=VALUE"),
        ("GATEWAY_INTERFACE=CGI/1.1", ":1: GATEWAY_INTERFACE cannot be set here"),
        ("CLOAKROOM_WORKERS=0", "CLOAKROOM_WORKERS: \"0\": expected 1 to 512"),
    ] {
        write(&file, text);
        let mut command = demo();
        command.arg("--env-file").arg(&file);
        let mut proc = Proc::start(command);
        assert_eq!(proc.end(), 2);
        let log = proc.log();
        assert!(log.starts_with("cloakroom: ") && !log.contains('\n') && log.contains(said), "{log}");
        assert!(!log.contains("secret"), "{log}");
    }
}

#[test]
fn the_environment_file_is_not_read_under_cgi() {
    let mut command = demo();
    command.envs([
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("CLOAKROOM_ENV_FILE", "/no/such/file"),
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/hello"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ]);
    let output = command.output().unwrap();
    assert!(output.stdout.starts_with(b"Status: 200 "), "{output:?}");
}

#[test]
fn a_mistyped_name_is_told_what_was_meant() {
    let mut proc = Proc::demo(["--worker", "3"]);
    assert_eq!(proc.end(), 2);
    let log = proc.log();
    assert!(log.contains("'--worker'") && log.ends_with(", did you mean --workers? (see --help)"), "{log}");
    let mut command = demo();
    command.args(["--http", "127.0.0.1:0", "--workers", "1"]);
    command.env("CLOAKROOM_REQEST_TIMEOUT", "5").env("CLOAKROOM_MOOD", "good");
    let mut proc = Proc::start(command);
    proc.line("ready workers=1");
    let log = proc.log();
    let line = "CLOAKROOM_REQEST_TIMEOUT is no variable of this program, did you mean CLOAKROOM_REQUEST_TIMEOUT?\n";
    assert!(log.contains(line), "{log}");
    assert!(log.contains(" CLOAKROOM_MOOD is no variable of this program\n"), "{log}");
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn the_short_help_is_short_and_the_long_one_is_long() {
    let help = |flag: &str| {
        let output = demo().arg(flag).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty());
        String::from_utf8(output.stdout).unwrap()
    };
    let (short, long) = (help("-h"), help("--help"));
    assert!(short.lines().count() <= 24 && !short.contains("Security:"), "{short}");
    assert!(long.contains("\nSecurity:\n") && long.contains("[variable: CLOAKROOM_USER]"), "{long}");
}

/// What `--check` prints and its exit status, with a session directory that it may use.
fn check(dir: &TestDir, arguments: &[&str]) -> (Option<i32>, String) {
    finish(check_command(dir, arguments))
}

fn check_command(dir: &TestDir, arguments: &[&str]) -> Command {
    let mut command = demo();
    command.arg("--check").arg("--sessions").arg(dir.join("sessions")).args(arguments);
    command
}

fn finish(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.lines().all(|line| ["ok: ", "wrong: ", "warning: "].iter().any(|word| line.starts_with(word))),
        "{text}"
    );
    assert!(output.stderr.is_empty(), "{:?}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

fn entries(dir: &TestDir) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_check_says_what_would_work_and_leaves_no_trace() {
    let dir = TestDir::new();
    write(&dir.join("env"), "CLOAKROOM_WORKERS=2\nCLOAKROOM_BODY_LIMIT=7\n");
    let (socket, env) = (dir.join("s").display().to_string(), dir.join("env").display().to_string());
    let log = dir.join("access.log").display().to_string();
    let unix = format!("unix:{socket}");
    let arguments =
        ["--http", "127.0.0.1:0", "--scgi", &unix, "--env-file", &env, "--access-log", &log, "--status", "127.0.0.1:0"];
    let (status, text) = check(&dir, &arguments);
    assert_eq!(status, Some(0), "{text}");
    for line in [
        format!("ok: environment file {env}: 2 variables\n"),
        "ok: listener http 127.0.0.1:0\n".to_owned(),
        format!("ok: listener scgi {unix}\n"),
        "ok: status 127.0.0.1:0\n".to_owned(),
        "ok: program ".to_owned(),
        format!("ok: access log {log}\n"),
        "ok: session store (its directory was made for this check, and removed)\n".to_owned(),
        "ok: nothing is wrong\n".to_owned(),
    ] {
        assert!(text.contains(&line), "no {line:?} in\n{text}");
    }
    assert_eq!(entries(&dir), ["env"]);
    // A session directory that is there stays, and a file that a server has left does, too.
    std::fs::create_dir(dir.join("sessions")).unwrap();
    std::fs::set_permissions(dir.join("sessions"), std::fs::Permissions::from_mode(0o700)).unwrap();
    drop(UnixListener::bind(&socket).unwrap());
    let (status, text) = check(&dir, &["--scgi", &unix]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains(&format!("{unix}: a server that is gone has left its file")), "{text}");
    assert!(text.contains("ok: session store\n"), "{text}");
    assert_eq!(entries(&dir), ["env", "s", "sessions"]);
}

#[test]
fn a_check_does_not_disturb_who_is_listening() {
    let dir = TestDir::new();
    let [tcp, other] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let unix = UnixListener::bind(dir.join("s")).unwrap();
    let inode = std::fs::metadata(dir.join("s")).unwrap().ino();
    let (one, two) = (tcp.local_addr().unwrap().to_string(), format!("unix:{}", dir.join("s").display()));
    let three = other.local_addr().unwrap().to_string();
    let (status, text) = check(&dir, &["--http", &one, "--scgi", &two, "--status", &three]);
    assert_eq!(status, Some(0), "{text}");
    for name in [format!("listener http {one}"), format!("listener scgi {two}"), format!("status {three}")] {
        let line = format!("ok: {name}: in use by another process, as it is while the pool runs\n");
        assert!(text.contains(&line), "no {line:?} in\n{text}");
    }
    assert_eq!(std::fs::metadata(dir.join("s")).unwrap().ino(), inode);
    // Nobody has connected.
    unix.set_nonblocking(true).unwrap();
    for tcp in [tcp, other] {
        tcp.set_nonblocking(true).unwrap();
        assert!(tcp.accept().is_err());
    }
    assert!(unix.accept().is_err());
}

#[test]
fn a_check_says_what_is_wrong_and_ends_with_2() {
    let dir = TestDir::new();
    write(&dir.join("file"), "precious");
    std::fs::create_dir(dir.join("open")).unwrap();
    std::fs::set_permissions(dir.join("open"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let (file, open) = (dir.join("file").display().to_string(), dir.join("open").display().to_string());
    let unix = format!("unix:{file}");
    let nowhere = format!("unix:{file}/s");
    let missing = format!("unix:{}", dir.join("missing/s").display());
    let same = format!("unix:{}", dir.join("same").display());
    let same_said = format!("wrong: status {same}: another listener has this address");
    let (endless, log) = (format!("unix:/{}", "x".repeat(200)), format!("{file}/log"));
    for (arguments, said) in [
        (&["--scgi", &*unix][..], "the file is there and is no socket"),
        (&["--scgi", &nowhere], "Not a directory"),
        (&["--scgi", &missing], "missing: No such file or directory"),
        (&["--scgi", &endless], "wrong: listener scgi unix:/xxx"),
        (&["--http", "192.0.2.1:80"], "wrong: listener http 192.0.2.1:80: Cannot assign"),
        (&["--status", "192.0.2.1:80"], "wrong: status 192.0.2.1:80: Cannot assign"),
        (&["--http", &same, "--status", &same], &same_said),
        (&["--user", "nosuchuser"], "wrong: --user: there is no user \"nosuchuser\" on this system"),
        (&["--socket-group", "nosuchgroup"], "wrong: --socket-group: there is no group \"nosuchgroup\""),
        (&["--access-log", &log], "wrong: access log: open "),
        (&["--access-log", "/no/such/log"], "wrong: access log: make a file in /no/such: "),
        (&["--sessions", &file], "wrong: session store: "),
        (&["--sessions", &open], "wrong: session store: "),
        (&["--umask", "0", "--strict"], "wrong: --umask 0000 lets everybody write"),
    ] {
        let listener = arguments.iter().any(|word| ["--http", "--scgi"].contains(word));
        let more: &[&str] = if listener { &[] } else { &["--http", "127.0.0.1:0"] };
        let (status, text) = check(&dir, &[more, arguments].concat());
        assert_eq!(status, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(said) && text.lines().last().unwrap().starts_with("wrong: "), "{arguments:?}: {text}");
    }
    assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "precious");
    assert_eq!(entries(&dir), ["file", "open"]);
    // Without --strict it is a warning.
    let (status, text) = check(&dir, &["--http", "127.0.0.1:0", "--umask", "0"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("warning: --umask 0000 lets everybody write"), "{text}");
}

#[test]
fn a_check_looks_with_the_eyes_of_the_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("a_check_looks_with_the_eyes_of_the_user: skipped, only root can become somebody else");
        return;
    }
    let dir = TestDir::new();
    write(&dir.join("env"), "CLOAKROOM_WORKERS=1\n");
    write(&dir.join("access.log"), "");
    for name in ["env", "access.log"] {
        std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    std::fs::create_dir(dir.join("sessions")).unwrap();
    std::fs::set_permissions(dir.join("sessions"), std::fs::Permissions::from_mode(0o700)).unwrap();
    copy_demo(&dir.join("program"));
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(dir.join("program"));
        let arguments = check_command(&dir, &["--http", "127.0.0.1:80", "--user", "nobody"]);
        command.args(arguments.get_args()).args(more).arg("--env-file").arg(dir.join("env"));
        command.arg("--access-log").arg(dir.join("access.log"));
        finish(command)
    };
    std::fs::set_permissions(dir.join("program"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let (status, text) = run(&[]);
    assert_eq!(status, Some(2), "{text}");
    for line in [
        "ok: runs as user 65534 (nobody), group 65534",
        "wrong: a reload cannot read environment file ",
        "wrong: a reload cannot execute ",
        "wrong: access log: open ",
        "wrong: session store: ",
        "wrong: 4 in all",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    std::fs::set_permissions(dir.join("program"), std::fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["env", "access.log", "sessions"] {
        chown(dir.join(name), Some(65534), Some(65534)).unwrap();
    }
    let (status, text) = run(&["--strict"]);
    assert_eq!(status, Some(0), "{text}");
}
