//! How many instructions a request costs, by each gateway: counted by callgrind in the static release build of
//! `tests/bench/app.rs`, and held against `tests/instructions/baseline.txt`. Unlike a time, a count is the same on a busy
//! machine; what the kernel does is not in it.
//!
//! `CLOAKROOM_INSTRUCTIONS=write cargo test --test instructions -- --ignored` writes the file anew, for a change that is
//! worth its price and says so.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::TestDir;
use support::client::{connect, read, scgi_head, send};
use support::process::{Proc, Signal};

const BASELINE: &str = "tests/instructions/baseline.txt";
/// More than this share above the baseline is red.
const TOLERANCE: f64 = 0.03;
/// Requests that are counted, and those before them, which find everything for the first time.
const COUNTED: u64 = 200;
const FIRST: u64 = 20;
/// HTTP connections that are kept.
const KEPT: u64 = 4;

const WORK: [&str; 3] = ["/hello", "/read", "/counter"];

/// The program, as it is deployed; built where it disturbs no other build.
fn build() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    let mut build = Command::new("deploy/build-static.sh");
    // The places of functions change no count, and a count that a debugger could show needs no more than their names.
    build.args(["--example", "app"]).env("ORDER", "no").env("CARGO_PROFILE_RELEASE_DEBUG", "none");
    let output = build.env("CARGO_TARGET_DIR", target).output().expect("deploy/build-static.sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

/// Runs under callgrind, which writes what it has counted in a process to `counts.PID`.
fn callgrind(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new("valgrind");
    let counts = format!("--callgrind-out-file={}/counts.%p", directory.display());
    command.args(["--tool=callgrind", "--quiet"]).arg(counts).arg(program);
    command.env("SESSDIR", directory).env("PAD", "1000");
    command
}

fn counted(directory: &Path, pid: u32) -> u64 {
    let path = directory.join(format!("counts.{pid}"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
    fs::remove_file(path).expect("remove what was counted");
    total.trim().parse().expect("a number")
}

fn cookie(answer: &str) -> String {
    let field = answer.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).expect("a cookie");
    field.split(';').next().expect("a pair").to_owned()
}

/// From the first instruction of the process to its last.
fn by_cgi(program: &Path, directory: &Path) -> Vec<u64> {
    let mut known = String::new();
    let mut ask = |path: &str| {
        let mut command = callgrind(program, directory);
        // Each variable costs something, so there are no others than a server's.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("SESSDIR", directory).env("PAD", "1000");
        command.envs([("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", "/app")]);
        command.envs([("SERVER_NAME", "localhost"), ("SERVER_PORT", "80"), ("SERVER_PROTOCOL", "HTTP/1.1")]);
        command.envs([("HTTP_HOST", "localhost"), ("HTTP_COOKIE", &known), ("PATH_INFO", path), ("QUERY_STRING", "")]);
        let child = command.stdout(std::process::Stdio::piped()).spawn().expect("valgrind");
        let pid = child.id();
        let output = child.wait_with_output().expect("its end");
        let answer = String::from_utf8(output.stdout).expect("text");
        assert!(answer.starts_with("Status: 200 OK\r\n"), "{path}: {answer}");
        if answer.contains("Set-Cookie: ") {
            known = cookie(&answer);
        }
        counted(directory, pid)
    };
    // The first one makes the session.
    ask("/counter");
    WORK.iter().map(|path| ask(path)).collect()
}

/// What a server front sends for a plain GET.
fn scgi(path: &str, cookie: &str) -> Vec<u8> {
    let pairs = [
        ("CONTENT_LENGTH", "0"),
        ("SCGI", "1"),
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", path),
        ("QUERY_STRING", ""),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("HTTP_HOST", "localhost"),
        ("HTTP_COOKIE", cookie),
    ];
    scgi_head(&pairs)
}

fn http(path: &str, cookie: &str, connection: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nConnection: {connection}\r\n\r\n")
        .into_bytes()
}

/// Asks so often, by one connection each, or by some that are kept.
fn ask(address: &str, is_scgi: bool, path: &str, cookie: &str, times: u64) -> String {
    let mut answer = String::new();
    if is_scgi {
        for _ in 0..times {
            answer = read(send(address, &scgi(path, cookie)).expect("send")).expect("an answer");
            assert!(answer.starts_with("Status: 200 "), "{answer}");
        }
        return answer;
    }
    // Some at a time, so that the worker, slow as it is now, never has to wait: how often it did would be in the count.
    let mut kept: Vec<_> = (0..KEPT).map(|_| connect(address).expect("connect")).collect();
    for n in 0..times + KEPT {
        let connection = &mut kept[(n % KEPT) as usize];
        // All responses end with the same line.
        let mut piece = [0; 4096];
        if n >= KEPT {
            answer.clear();
            while !answer.ends_with("-\n") {
                let n = connection.read(&mut piece).expect("an answer");
                assert!(n > 0, "{answer}");
                answer.push_str(std::str::from_utf8(&piece[..n]).expect("text"));
            }
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        if n < times {
            connection.write_all(&http(path, cookie, "keep-alive")).expect("send");
        }
    }
    answer
}

/// Per request of a worker: what more of them cost, by so many. A worker that has to wait for what comes next does a
/// little more, so that of several lives the cheapest one counts.
fn by_pool(program: &Path, directory: &Path, is_scgi: bool, path: &str, lives: usize) -> u64 {
    let life = |times: u64| {
        let mut command = callgrind(program, directory);
        let address = format!("unix:{}", directory.join("socket").display());
        let protocol = if is_scgi { "scgi" } else { "http" };
        command.args([&format!("--{protocol}"), &address, "--workers", "1"]);
        let mut proc = Proc::start(command);
        let worker = proc.ready(1)[0];
        let known = cookie(&ask(&address, is_scgi, "/counter", "", 1));
        ask(&address, is_scgi, path, &known, times);
        proc.signal(Signal::TERM);
        assert_eq!(proc.end(), 0);
        counted(directory, worker)
    };
    let cheapest = |times| (0..lives).map(|_| life(times)).min().unwrap_or_default();
    cheapest(FIRST + COUNTED).saturating_sub(cheapest(FIRST)) / COUNTED
}

/// The compiler has a say in it.
fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("rustc");
    format!("{}, {}", String::from_utf8(output.stdout).expect("text").trim(), std::env::consts::ARCH)
}

#[test]
#[ignore = "needs valgrind (Debian: valgrind), builds the program: run tests/run"]
fn no_request_costs_more_instructions_than_it_did() {
    let program = build();
    let directory = TestDir::new();
    let counts = directory.join("counts");
    fs::DirBuilder::new().mode(0o700).create(&counts).expect("a directory");
    let compiler = compiler();
    let head = format!("# User-space instructions per request: tests/instructions.rs. {compiler}\n");
    let writes = std::env::var("CLOAKROOM_INSTRUCTIONS").is_ok_and(|what| what == "write");
    let baseline = fs::read_to_string(BASELINE).expect("read the baseline");
    if !writes && baseline.lines().next() != head.lines().next() {
        println!("skipped: the baseline is of another compiler: {}", baseline.lines().next().unwrap_or_default());
        return;
    }
    let before = |name: &str| {
        let line = baseline.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        line.unwrap_or_else(|| panic!("{BASELINE} has no {name}"))
    };
    let (mut text, mut worse) = (head, String::new());
    let mut judge = |name: &str, measure: &dyn Fn(usize) -> u64| {
        let mut count = measure(if writes { 6 } else { 1 });
        writeln!(text, "{name} {count}").expect("write to a string");
        if writes {
            return;
        }
        // Counts are far below 2^52.
        #[allow(clippy::cast_precision_loss)]
        let share = |count: u64| count as f64 / before(name) - 1.0;
        if share(count) > TOLERANCE {
            count = count.min(measure(6));
        }
        println!("{name} {count}: {:+.1} %", share(count) * 100.0);
        if share(count) > TOLERANCE {
            writeln!(worse, "{name}: {} -> {count}", before(name)).expect("write to a string");
        }
    };
    for (path, count) in WORK.iter().zip(by_cgi(&program, &counts)) {
        judge(&format!("cgi {path}"), &|_| count);
    }
    for (gateway, is_scgi) in [("scgi", true), ("http", false)] {
        for path in WORK {
            judge(&format!("{gateway} {path}"), &|lives| by_pool(&program, &counts, is_scgi, path, lives));
        }
    }
    if writes {
        print!("{text}");
        return fs::write(BASELINE, text).expect("write the baseline");
    }
    assert!(worse.is_empty(), "more than {TOLERANCE} above the baseline:\n{worse}");
}
