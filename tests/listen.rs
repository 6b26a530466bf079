//! Where a server listens, how it says so, and what it refuses; with real processes.

mod support;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::{Command, Stdio};

use support::client::{http, scgi};
use support::process::{Proc, Signal, demo, demo_by_shell};
use support::{PATIENCE, TestDir};

#[test]
fn several_listeners_at_once() {
    let dir = TestDir::new();
    let (one, two) = (dir.join("one"), dir.join("two"));
    // Left behind by a server that was killed.
    drop(UnixListener::bind(&one).unwrap());
    let (one, two) = (format!("unix:{}", one.display()), format!("unix:{}", two.display()));
    let mut proc = Proc::demo([
        "--http",
        "127.0.0.1:0",
        "--http",
        &two,
        "--scgi",
        "127.0.0.1:0",
        "--scgi",
        &one,
        "--socket-mode",
        "0600",
        "--workers",
        "1",
    ]);
    let first = proc.address("http");
    assert_eq!(proc.address("http"), two);
    let second = proc.address("scgi");
    assert_eq!(proc.address("scgi"), one);
    proc.line("ready workers=1");
    for address in [&first, &two] {
        assert!(http(address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    }
    for address in [&second, &one] {
        assert!(scgi(address, "/hello").unwrap().starts_with("Status: 200 "));
    }
    let mode = std::fs::metadata(dir.join("one")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A second server on the same socket is refused, and does no harm to the first.
    let mut other = Proc::demo(["--scgi", &one]);
    assert_eq!(other.end(), 111);
    assert!(other.log().contains(&format!("cannot listen on {one}: ")), "{}", other.log());
    assert!(scgi(&one, "/hello").unwrap().starts_with("Status: 200 "));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
    assert!(!dir.join("one").exists() && !dir.join("two").exists());
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut proc = Proc::demo(["--http", &address]);
    assert_eq!(proc.end(), 111);
    assert!(proc.log().contains(&format!("cloakroom: cannot listen on {address}: ")), "{}", proc.log());
}

#[test]
fn mistakes_in_usage_end_with_2() {
    for arguments in [&["--workers", "none"][..], &["--http", "here"], &["--frobnicate"], &["word"]] {
        let mut proc = Proc::demo(arguments.iter().copied());
        assert_eq!(proc.end(), 2, "{arguments:?}");
        let log = proc.log();
        assert!(log.starts_with("cloakroom: ") && !log.contains('\n'), "{log}");
    }
}

#[test]
fn variables_are_read_and_flags_go_first() {
    let mut command = demo();
    command.args(["--workers", "1"]);
    command.envs([("CLOAKROOM_HTTP", "127.0.0.1:0 127.0.0.1:0"), ("CLOAKROOM_WORKERS", "3")]);
    // What a client could send is no configuration.
    command.env("HTTP_CLOAKROOM_WORKERS", "9");
    let mut proc = Proc::start(command);
    assert_ne!(proc.address("http"), proc.address("http"));
    proc.line("ready workers=1");
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
    let mut command = demo();
    command.env("CLOAKROOM_WORKERS", "many");
    let mut proc = Proc::start(command);
    assert_eq!(proc.end(), 2);
    assert!(proc.log().contains("CLOAKROOM_WORKERS: "), "{}", proc.log());
}

/// A command that hands over `sockets` (two of them) as systemd does; `pid` is what `LISTEN_PID` is set to.
fn activated(one: OwnedFd, two: OwnedFd, pid: &str) -> Command {
    // LISTEN_PID is the process ID of the program, which exec keeps.
    let script = format!(
        "export LISTEN_PID={pid} LISTEN_FDS=2 LISTEN_FDNAMES=http-main:other; exec \"$0\" \"$@\" 3<&0 4<&1 </dev/null >&2"
    );
    let mut command = demo_by_shell(&script);
    command.args(["--workers", "1"]);
    command.stdin(Stdio::from(one)).stdout(Stdio::from(two));
    command
}

#[test]
fn inherited_listeners_are_served_and_left_in_place() {
    let dir = TestDir::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(dir.join("s")).unwrap();
    let (tcp_name, unix_name) = (tcp.local_addr().unwrap().to_string(), format!("unix:{}", dir.join("s").display()));
    let mut proc = Proc::start(activated(tcp.try_clone().unwrap().into(), unix.try_clone().unwrap().into(), "$$"));
    assert_eq!(proc.address("http"), tcp_name);
    assert_eq!(proc.address("scgi"), unix_name);
    proc.line("ready workers=1");
    assert!(http(&tcp_name, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(scgi(&unix_name, "/hello").unwrap().starts_with("Status: 200 "));
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
    assert!(dir.join("s").exists());
}

#[test]
fn listeners_for_another_process_are_not_taken() {
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let two = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = one.local_addr().unwrap().to_string();
    let mut command = activated(one.into(), two.into(), "1");
    command.args(["--http", "127.0.0.1:0"]);
    let mut proc = Proc::start(command);
    assert_ne!(proc.address("http"), name);
    proc.signal(Signal::TERM);
    assert_eq!(proc.end(), 0);
}

#[test]
fn the_service_manager_is_told() {
    let dir = TestDir::new();
    let path = dir.join("notify");
    let name = format!("cloakroom-test-{}", std::process::id());
    let manager = SocketAddr::from_abstract_name(&name).unwrap();
    let sockets = [
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
        (UnixDatagram::bind_addr(&manager).unwrap(), format!("@{name}")),
    ];
    for (socket, name) in sockets {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let receive = || {
            let mut buffer = [0; 100];
            let count = socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..count].to_vec()).unwrap()
        };
        let mut command = demo();
        command.args(["--http", "127.0.0.1:0", "--workers", "2"]).env("NOTIFY_SOCKET", name);
        let mut proc = Proc::start(command);
        assert_eq!(receive(), "READY=1");
        proc.line("ready workers=2");
        proc.signal(Signal::TERM);
        assert_eq!(receive(), "STOPPING=1");
        assert_eq!(proc.end(), 0);
    }
}

#[test]
fn words_of_a_client_are_no_arguments_under_cgi() {
    // RFC 3875 section 4.4, CVE-2012-1823: a query without `=` arrives as command line.
    let mut command = demo();
    command.args(["--workers", "none", "--sessions", "/etc"]);
    command.envs([
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", "/cgi-bin/demo"),
        ("PATH_INFO", "/hello"),
        ("QUERY_STRING", "--workers+none"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let response = String::from_utf8(output.stdout).unwrap();
    assert!(response.starts_with("Status: 200 OK\r\n"), "{response}");
    // What the client sent in a `Proxy` header field is nobody's proxy (CVE-2016-5385).
    let output = command.env("PATH_INFO", "/env").env("HTTP_PROXY", "http://evil").output().unwrap();
    let response = String::from_utf8(output.stdout).unwrap();
    assert!(response.contains("GATEWAY_INTERFACE=CGI/1.1\n") && !response.contains("HTTP_PROXY"), "{response}");
    // Without a method there is no request, but there is a response.
    let output = command.env_remove("REQUEST_METHOD").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.starts_with(b"Status: 400 "), "{:?}", output.stdout);
    assert!(String::from_utf8_lossy(&output.stderr).contains("REQUEST_METHOD"));
    // Nobody takes the response.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = command.env("REQUEST_METHOD", "GET").stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(111));
}
