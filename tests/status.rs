//! What a pool tells of itself, with real processes: the status in all its forms, and the access log.

#![expect(clippy::float_cmp, reason = "they are counts")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::client::{connect, http, http_request, read, scgi, scgi_request, send};
use support::process::{Proc, Signal, children, wait_until_sleeping};
use support::visit::{Door, Visitor};
use support::{TestDir, eventually};

/// A pool with an HTTP listener and a status listener, ready to serve.
struct Pool {
    proc: Proc,
    address: String,
    status: String,
    workers: Vec<u32>,
    directory: TestDir,
}

impl Pool {
    fn new(workers: usize, arguments: &[&str]) -> Self {
        let directory = TestDir::new();
        Self::within(directory, "127.0.0.1:0", workers, arguments)
    }

    fn within(directory: TestDir, status: &str, workers: usize, arguments: &[&str]) -> Self {
        let count = workers.to_string();
        let sessions = directory.join("sessions").to_str().unwrap().to_owned();
        let all =
            ["--http", "127.0.0.1:0", "--status", status, "--sessions", &sessions, "--workers", &count].into_iter();
        let proc = Proc::demo(all.chain(arguments.iter().copied()));
        let address = proc.address("http");
        let status = proc.address("status");
        let workers = proc.ready(workers);
        proc.line(" ready workers=");
        Self { proc, address, status, workers, directory }
    }

    #[track_caller]
    fn ask(&self, path: &str) -> String {
        body(&http(&self.status, path).unwrap())
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.ask("/status.json")).unwrap()
    }

    /// The process that answers.
    fn reporter(&self) -> Option<u32> {
        let is_reporter =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "reporter\n");
        children(self.proc.pid()).into_iter().find(is_reporter)
    }
}

#[track_caller]
fn body(response: &str) -> String {
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    response.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Samples by name and labels, of a text that keeps the rules of the format (version 0.0.4).
#[track_caller]
fn metrics(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let (mut family, mut kind, mut helped) = (String::new(), String::new(), String::new());
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            rest.split_once(' ').expect("a help text").0.clone_into(&mut helped);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').expect("a type");
            assert_eq!(name, helped, "HELP before TYPE");
            assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
            assert!(!families.contains(&name.to_owned()), "{name} is there twice");
            families.push(name.to_owned());
            (family, kind) = (name.to_owned(), of.to_owned());
            assert!(kind != "counter" || family.ends_with("_total"), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert!(name.starts_with("cloakroom_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            if kind == "histogram" {
                let suffix = name.strip_prefix(&*family).expect("of the family");
                assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}");
            } else {
                assert_eq!(name, family, "{line}");
            }
            if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                let inner = labels.strip_prefix('{').and_then(|inner| inner.strip_suffix("\"}")).expect("labels");
                assert!(inner.split("\",").all(|label| label.contains("=\"")), "{line}");
            }
            assert!(samples.insert(series.to_owned(), value.parse().expect("a number")).is_none(), "{line} twice");
        }
    }
    samples
}

/// The numbers that the board has for the histogram must be those of a histogram.
#[track_caller]
fn check_histogram(samples: &BTreeMap<String, f64>) {
    let bound =
        |series: &str| series.split_once("le=\"")?.1.strip_suffix("\"}")?.replace("+Inf", "inf").parse::<f64>().ok();
    let mut buckets: Vec<(f64, f64)> =
        samples.iter().filter_map(|(series, value)| Some((bound(series)?, *value))).collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert_eq!(buckets.len(), 16);
    assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
    assert_eq!(buckets[15].1, samples["cloakroom_request_duration_seconds_count"]);
}

#[test]
fn every_form_has_the_numbers_of_a_known_load() {
    let pool = Pool::new(2, &[]);
    for _ in 0..7 {
        assert!(http(&pool.address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    }
    for _ in 0..3 {
        assert!(http(&pool.address, "/nowhere").unwrap().starts_with("HTTP/1.1 404 "));
    }
    assert!(http(&pool.address, "/boom").unwrap().starts_with("HTTP/1.1 500 "));
    let mut visitor = Visitor::new(&Door::Http(pool.address.clone()));
    visitor.get("/keep");
    visitor.get("/counter").ok();
    // The count is there before the response, and all workers are idle soon after it.
    eventually("idle workers", || pool.json()["workers"]["idle"] == 2);
    let json = pool.json();
    let classes = &json["requests"]["by_class"];
    let redirects = classes["3xx"].as_u64().unwrap();
    assert_eq!((classes["4xx"].as_u64(), classes["5xx"].as_u64()), (Some(3), Some(1)), "{json}");
    assert_eq!(classes["2xx"].as_u64().unwrap() + redirects, 9, "{json}");
    assert_eq!(json["requests"]["total"], 13);
    assert_eq!(json["pool"]["pid"], pool.proc.pid());
    assert_eq!((json["workers"]["ready"].as_u64(), json["workers"]["max"].as_u64()), (Some(2), Some(2)));
    assert_eq!(json["listeners"][0]["address"], pool.address);
    assert_eq!(
        (json["listeners"][0]["waiting"].as_u64(), json["listeners"][0]["limit"].as_u64()),
        (Some(0), Some(1024))
    );
    assert!(json["sessions"]["commits"].as_u64().unwrap() >= 2, "{json}");
    let rows = json["scoreboard"].as_array().unwrap();
    let mut pids: Vec<u32> = rows.iter().map(|row| u32::try_from(row["pid"].as_u64().unwrap()).unwrap()).collect();
    pids.sort_unstable();
    let mut workers = pool.workers.clone();
    workers.sort_unstable();
    assert_eq!(pids, workers);
    assert!(rows.iter().all(|row| row["usage"]["private_bytes"].as_u64().unwrap() > 10_000), "{json}");

    let response = http(&pool.status, "/metrics").unwrap();
    assert!(response.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{response}");
    let samples = metrics(&body(&response));
    check_histogram(&samples);
    assert_eq!(samples["cloakroom_requests_total{class=\"4xx\"}"], 3.0);
    assert_eq!(samples["cloakroom_request_duration_seconds_count"], 13.0);
    assert_eq!(samples["cloakroom_workers{state=\"idle\"}"], 2.0);
    assert!(samples["cloakroom_request_duration_seconds_sum"] > 0.0);

    let text = pool.ask("/status");
    assert!(text.contains("requests  13: ") && text.contains("4xx 3, 5xx 1;"), "{text}");
    assert!(pool.workers.iter().all(|pid| text.contains(&format!(" {pid} idle "))), "{text}");
    assert_eq!(pool.ask("/").lines().count(), text.lines().count());
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n";
    let page = read(send(&pool.status, request.as_bytes()).unwrap()).unwrap();
    assert!(page.contains("\r\nContent-Type: text/html; charset=utf-8\r\n") && page.contains("<main "), "{page}");
    assert!(page.contains("\r\nContent-Security-Policy: default-src 'none'; "), "{page}");
}

#[test]
fn health_says_whether_somebody_would_be_served_and_nothing_else() {
    let pool = Pool::new(1, &[]);
    assert_eq!(pool.ask("/health"), "200 OK\n");
    let head = read(send(&pool.status, &http_request("HEAD", "/health")).unwrap()).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let refused = read(send(&pool.status, &http_request("POST", "/health")).unwrap()).unwrap();
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("\r\nAllow: GET, HEAD\r\n"), "{refused}");
    assert!(http(&pool.status, "/nothing").unwrap().starts_with("HTTP/1.1 404 "));
    // A page that has its own name lead here.
    let rebound = read(send(&pool.status, b"GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n").unwrap()).unwrap();
    assert!(rebound.starts_with("HTTP/1.1 403 ") && !rebound.contains("requests"), "{rebound}");
}

#[test]
fn it_answers_while_all_workers_are_busy_and_one_can_see_with_what() {
    let pool = Pool::new(2, &[]);
    let requests: Vec<_> =
        (0..2).map(|_| send(&pool.address, &http_request("GET", "/slow?ms=1500&secret=1")).unwrap()).collect();
    pool.workers.iter().for_each(|&pid| wait_until_sleeping(pid));
    // And some who wait.
    let waiting: Vec<_> = (0..3).map(|_| send(&pool.address, &http_request("GET", "/hello")).unwrap()).collect();
    eventually("a queue", || pool.json()["listeners"][0]["waiting"] == 3);
    let json = pool.json();
    assert_eq!(json["workers"]["busy"], 2);
    for row in json["scoreboard"].as_array().unwrap() {
        assert_eq!((row["request"]["method"].as_str(), row["request"]["path"].as_str()), (Some("GET"), Some("/slow")));
    }
    let text = pool.ask("/status");
    assert!(text.contains("GET /slow\n") && !text.contains("secret"), "{text}");
    assert!(text.contains(&format!("queue     3/1024 http {}", pool.address)), "{text}");
    for request in requests.into_iter().chain(waiting) {
        assert!(read(request).unwrap().starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn one_can_see_who_holds_a_session_and_who_waits_for_it() {
    let pool = Pool::new(4, &["--max-per-session", "4"]);
    let door = Door::Http(pool.address.clone());
    let mut visitor = Visitor::new(&door);
    visitor.get("/keep");
    visitor.get("/counter").ok();
    let cookie = visitor.cookie.clone().unwrap();
    let id = cookie.split_once('=').unwrap().1;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| Visitor::with(&door, &cookie).post("/slow", "ms=1500").ok());
        }
        eventually("a holder and a waiter", || {
            let locks = pool.json()["locks"].clone();
            locks[0]["holder"].is_u64() && locks[0]["waiting"].as_array().is_some_and(|waiting| waiting.len() == 1)
        });
        let json = pool.json();
        let name = json["locks"][0]["session"].as_str().unwrap();
        assert!(name.len() == 12 && !id.contains(name));
        let text = pool.ask("/status");
        assert!(text.contains(&format!("{name}  held by ")) && text.contains("; waiting: "), "{text}");
        assert!(!text.contains(id) && !json.to_string().contains(id));
        let samples = metrics(&pool.ask("/metrics"));
        assert_eq!(samples["cloakroom_session_locks{state=\"waits\"}"], 1.0);
    });
    let json = pool.json();
    assert_eq!((json["sessions"]["lock_waits"].as_u64(), json["locks"].as_array().map(Vec::len)), (Some(1), Some(0)));
    assert!(json["sessions"]["lock_wait_seconds"].as_f64().unwrap() > 0.5, "{json}");
}

#[test]
fn a_request_that_timed_out_is_counted_as_a_failure() {
    let pool = Pool::new(1, &["--request-timeout", "0.2"]);
    assert!(http(&pool.address, "/slow?ms=60000").unwrap().starts_with("HTTP/1.1 504 "));
    assert!(http(&pool.address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    let samples = metrics(&pool.ask("/metrics"));
    let requests = |class| samples[&format!("cloakroom_requests_total{{class=\"{class}\"}}")];
    assert_eq!((requests("2xx"), requests("5xx")), (1.0, 1.0));
}

#[test]
fn a_reload_keeps_the_counts_and_the_address() {
    let pool = Pool::new(1, &[]);
    for _ in 0..5 {
        http(&pool.address, "/hello").unwrap();
    }
    let (before, reporter) = (pool.json(), pool.reporter());
    assert_eq!(before["requests"]["total"], 5);
    pool.proc.signal(Signal::HUP);
    pool.proc.line(" reloaded");
    http(&pool.address, "/hello").unwrap();
    let after = pool.json();
    assert_eq!(
        (&after["pool"]["pid"], &after["pool"]["started"]),
        (&before["pool"]["pid"], &before["pool"]["started"])
    );
    assert_eq!(after["requests"]["total"], 6);
    assert_eq!((after["reloads"]["done"].as_u64(), after["exits"]["reloaded"].as_u64()), (Some(1), Some(1)));
    assert_ne!(pool.reporter(), reporter);
}

#[test]
fn a_reporter_that_was_killed_comes_back() {
    let pool = Pool::new(1, &[]);
    eventually("a reporter", || pool.reporter().is_some());
    let first = pool.reporter().unwrap();
    support::process::send(first, Signal::KILL);
    pool.proc.line(&format!("reporter pid={first} killed signal=9, respawning"));
    // Who asks meanwhile waits in the queue.
    assert_eq!(pool.ask("/health"), "200 OK\n");
    assert_ne!(pool.reporter(), Some(first));
    assert_eq!(pool.json()["exits"]["crashed"], 0);
}

#[test]
fn a_stop_does_not_wait_for_who_asks() {
    let directory = TestDir::new();
    let socket = directory.join("status");
    let address = format!("unix:{}", socket.display());
    let mut pool = Pool::within(directory, &address, 1, &[]);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(pool.ask("/status").contains(" idle "));
    // Somebody who has connected and says nothing.
    let _silent = connect(&pool.status).unwrap();
    let started = Instant::now();
    pool.proc.signal(Signal::TERM);
    assert_eq!(pool.proc.end(), 0);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(!socket.exists());
}

#[test]
fn it_can_be_asked_while_the_pool_stops_and_goes_with_a_killed_master() {
    let pool = Pool::new(1, &[]);
    let request = send(&pool.address, &http_request("GET", "/slow?ms=1000")).unwrap();
    wait_until_sleeping(pool.workers[0]);
    pool.proc.signal(Signal::TERM);
    pool.proc.line("TERM: stopping");
    eventually("it says so", || pool.json()["pool"]["stopping"] == true);
    assert!(http(&pool.status, "/health").unwrap().starts_with("HTTP/1.1 503 "));
    assert!(read(request).unwrap().starts_with("HTTP/1.1 200 "));
    let mut pool = Pool::new(1, &[]);
    assert_eq!(pool.ask("/health"), "200 OK\n");
    pool.proc.signal(Signal::KILL);
    assert_eq!(pool.proc.end(), -9);
}

#[test]
fn slow_clients_do_not_keep_others() {
    let pool = Pool::new(1, &[]);
    // More than it answers at once: some say nothing, some stop in the middle of a request.
    let _silent: Vec<_> = (0..20).map(|_| connect(&pool.status).unwrap()).collect();
    let _slow: Vec<_> = (0..6).map(|_| send(&pool.status, b"GET /status HTT").unwrap()).collect();
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(pool.ask("/health"), "200 OK\n");
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
    command.args(arguments).env_remove("CLOAKROOM_STATUS").stdin(Stdio::null());
    command
}

#[test]
fn the_tool_shows_it() {
    let mut pool = Pool::new(1, &[]);
    let output = tool(&["status", &pool.status]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains(&format!(" {} idle ", pool.workers[0])), "{text}");
    let output = tool(&["status", "--json"]).env("CLOAKROOM_STATUS", &pool.status).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["pool"]["pid"], pool.proc.pid());
    // Watching lasts until the pool ends.
    let mut watch = tool(&["status", "--watch", "--json", &pool.status]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let json: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(json["workers"]["ready"], 1);
    }
    pool.proc.signal(Signal::TERM);
    assert_eq!(pool.proc.end(), 0);
    assert!(watch.wait().unwrap().success());
    // Or until Ctrl-C, and nobody there is a temporary failure.
    let output = tool(&["status", &pool.status]).output().unwrap();
    assert_eq!(output.status.code(), Some(111), "{output:?}");
    assert_eq!(tool(&["status"]).output().unwrap().status.code(), Some(2));
    assert_eq!(tool(&["status", "nonsense"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn ctrl_c_ends_watching_in_peace() {
    let pool = Pool::new(1, &[]);
    let mut watch = tool(&["status", "--watch", &pool.status]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("cloakroom "));
    support::process::send(watch.id(), Signal::INT);
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

/// The lines of an access log once there are `count` of them.
#[track_caller]
fn lines(path: &std::path::Path, count: usize) -> Vec<String> {
    let read = || fs::read_to_string(path).unwrap_or_default();
    eventually("the lines of the access log", || read().lines().count() >= count);
    read().lines().map(str::to_owned).collect()
}

#[test]
fn the_access_log_has_a_line_for_each_request() {
    let directory = TestDir::new();
    let path = directory.join("access.log");
    let socket = format!("unix:{}", directory.join("scgi").display());
    let pool = Pool::within(directory, "127.0.0.1:0", 1, &["--access-log", path.to_str().unwrap(), "--scgi", &socket]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    http(&pool.address, "/hello?name=x").unwrap();
    let hostile = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\nUser-Agent: \" 200 1 \"x\\\u{1f}\r\nReferer: é\r\n\
                   Connection: close\r\n\r\n";
    let hostile = hostile.replace('\u{1f}', "\t");
    read(send(&pool.address, hostile.as_bytes()).unwrap()).unwrap();
    read(send(&pool.address, b"NONSENSE\r\n\r\n").unwrap()).unwrap();
    let large = "POST /counter HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n";
    read(send(&pool.address, large.as_bytes()).unwrap()).unwrap();
    read(send(&pool.address, &http_request("HEAD", "/hello")).unwrap()).unwrap();
    scgi(&socket, "/hello").unwrap();
    let mut visitor = Visitor::new(&Door::Http(pool.address.clone()));
    visitor.get("/keep");
    visitor.get("/counter").ok();
    let lines = lines(&path, 8);
    assert_eq!(lines.len(), 8, "{lines:#?}");
    let pid = pool.workers[0].to_string();
    for line in &lines {
        assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)) && line.ends_with(&format!(" {pid}")), "{line}");
    }
    let after_date = |line: &str| line.split_once("] ").unwrap().1.to_owned();
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{}", lines[0]);
    assert!(after_date(&lines[0]).starts_with("\"GET /hello?name=x HTTP/1.1\" 200 "), "{}", lines[0]);
    let expected = r#""GET /nowhere HTTP/1.1" 404 "#;
    assert!(after_date(&lines[1]).starts_with(expected), "{}", lines[1]);
    assert!(lines[1].contains(r#" "\xc3\xa9" "\" 200 1 \"x\\" - "#), "{}", lines[1]);
    assert!(after_date(&lines[2]).starts_with("\"-\" 400 "), "{}", lines[2]);
    assert!(after_date(&lines[3]).starts_with("\"POST /counter HTTP/1.1\" 413 "), "{}", lines[3]);
    assert!(after_date(&lines[4]).starts_with("\"HEAD /hello HTTP/1.1\" 200 - "), "{}", lines[4]);
    assert!(lines[5].starts_with("- - - [") && lines[5].contains("] \"GET /hello HTTP/1.1\" 200 "), "{}", lines[5]);
    let session = |line: &str| line.rsplit(' ').nth(2).unwrap().to_owned();
    assert_eq!((session(&lines[0]), session(&lines[6]).len()), ("-".to_owned(), 12));
    assert_eq!(session(&lines[6]), session(&lines[7]), "{lines:#?}");
    let id = visitor.cookie.unwrap();
    assert!(!lines.iter().any(|line| line.contains(id.split_once('=').unwrap().1)));
}

#[test]
fn the_access_log_can_be_json_and_go_to_stderr() {
    let pool = Pool::new(1, &["--access-log", "stderr", "--access-log-format", "json"]);
    http(&pool.address, "/hello").unwrap();
    let line = pool.proc.line("\"status\":200");
    let json: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((json["target"].as_str(), json["client"].as_str()), (Some("/hello"), Some("127.0.0.1")));
    assert_eq!((json["pid"].as_u64(), json["session"].is_null()), (Some(pool.workers[0].into()), true));
    assert!(json["bytes"].as_u64().unwrap() > 0 && json["micros"].is_u64(), "{line}");
}

#[test]
fn usr1_reopens_the_access_log_and_no_line_is_lost() {
    let directory = TestDir::new();
    let path = directory.join("access.log");
    let rotated = directory.join("access.log.1");
    let pool = Pool::within(directory, "127.0.0.1:0", 3, &["--access-log", path.to_str().unwrap()]);
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let inodes = || {
        let links = pool.workers.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten());
        links.filter_map(|link| fs::read_link(link.path()).ok()).filter(|target| *target == rotated).count()
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert!(http(&pool.address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("requests are served", || served.load(Ordering::Relaxed) > 50);
        fs::rename(&path, &rotated).unwrap();
        pool.proc.signal(Signal::USR1);
        pool.proc.line(&format!("master pid={} USR1: reopening {}", pool.proc.pid(), path.display()));
        eventually("nobody has the old file", || inodes() == 0);
        let old = fs::read_to_string(&rotated).unwrap().lines().count();
        let before = served.load(Ordering::Relaxed);
        eventually("more requests are served", || served.load(Ordering::Relaxed) > before + 50);
        assert_eq!(fs::read_to_string(&rotated).unwrap().lines().count(), old);
        stop.store(true, Ordering::Relaxed);
    });
    let total = served.load(Ordering::Relaxed);
    let count =
        || [&path, &rotated].map(|path| fs::read_to_string(path).unwrap().lines().count()).iter().sum::<usize>();
    eventually("all lines", || count() >= total);
    assert_eq!(count(), total);
    // Idle workers let go of it, too.
    fs::rename(&path, &rotated).unwrap();
    pool.proc.signal(Signal::USR1);
    eventually("nobody has the old file", || inodes() == 0);
    assert_eq!(pool.json()["access_log_lost_lines"], 0);
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_nobody_waits_for_them() {
    let pool = Pool::new(1, &["--access-log", "/dev/full"]);
    for _ in 0..3 {
        assert!(http(&pool.address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    }
    eventually("three lines are lost", || pool.json()["access_log_lost_lines"] == 3);
    assert_eq!(metrics(&pool.ask("/metrics"))["cloakroom_access_log_lost_lines_total"], 3.0);
}

#[test]
fn a_log_that_cannot_be_opened_ends_the_pool() {
    let mut proc = Proc::demo(["--http", "127.0.0.1:0", "--workers", "1", "--access-log", "/nonexistent/log"]);
    assert_eq!(proc.end(), 2);
    assert!(proc.log().contains("open access log /nonexistent/log: "), "{}", proc.log());
}

#[test]
fn usr1_without_a_file_does_nothing() {
    let pool = Pool::new(1, &[]);
    pool.proc.signal(Signal::USR1);
    for &pid in &pool.workers {
        support::process::send(pid, Signal::USR1);
    }
    assert!(http(&pool.address, "/hello").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(!pool.proc.log().contains("USR1"));
}

/// What a front server sends in parts is one request, also in the log.
#[test]
fn an_scgi_user_is_named() {
    let directory = TestDir::new();
    let path = directory.join("access.log");
    let socket = format!("unix:{}", directory.join("scgi").display());
    let pool = Pool::within(directory, "127.0.0.1:0", 1, &["--access-log", path.to_str().unwrap(), "--scgi", &socket]);
    let request = String::from_utf8(scgi_request("GET", "/hello", b"")).unwrap();
    let (_, rest) = request.split_once(':').unwrap();
    let head = format!("{}REMOTE_USER\0anna b\0REMOTE_ADDR\0192.0.2.9\0", rest.strip_suffix(',').unwrap());
    let mut connection = connect(&socket).unwrap();
    write!(connection, "{}:{head},", head.len()).unwrap();
    assert!(read(connection).unwrap().starts_with("Status: 200 "));
    assert!(lines(&path, 1)[0].starts_with("192.0.2.9 - anna+b ["));
    drop(pool.directory);
}

/// The file of `deploy/`, with the paths, the user and the pool of this test.
#[test]
#[ignore = "needs logrotate (Debian: logrotate): run tests/run"]
fn logrotate_rotates_the_access_log() {
    let directory = TestDir::new();
    let path = directory.join("access.log");
    let pool = Pool::within(directory, "127.0.0.1:0", 1, &["--access-log", path.to_str().unwrap()]);
    http(&pool.address, "/hello?n=1").unwrap();
    lines(&path, 1);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/logrotate/cloakroom-demo");
    let mut file = fs::read_to_string(file).unwrap();
    for (old, new) in [
        ("/var/log/cloakroom-demo/access.log {", format!("{} {{", path.display())),
        ("    su cloakroom-demo cloakroom-demo\n", String::new()),
        (
            "systemctl kill --kill-whom=main --signal=USR1 cloakroom-demo.service",
            format!("kill -USR1 {}", pool.proc.pid()),
        ),
    ] {
        assert_eq!(file.matches(old).count(), 1, "{old}");
        file = file.replace(old, &new);
    }
    let rules = pool.directory.join("rules");
    fs::write(&rules, file).unwrap();
    fs::set_permissions(&rules, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(pool.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("logrotate")
        .args(["--force", "--state", pool.directory.join("state").to_str().unwrap(), rules.to_str().unwrap()])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    pool.proc.line(" USR1: reopening ");
    eventually("the new file", || path.exists());
    http(&pool.address, "/hello?n=2").unwrap();
    let new = lines(&path, 1);
    assert!(new.len() == 1 && new[0].contains("/hello?n=2"), "{new:?}");
    let old = lines(&pool.directory.join("access.log.1"), 1);
    assert!(old.len() == 1 && old[0].contains("/hello?n=1"), "{old:?}");
}

/// In a terminal: the screen is cleared once and then overwritten, and no line is broken.
#[test]
#[ignore = "needs script (Debian: bsdutils, always there): run tests/run"]
fn watching_in_a_terminal_overwrites_and_leaves_the_cursor_alone() {
    let mut pool = Pool::new(1, &[]);
    let command =
        format!("stty rows 8 cols 40; exec '{}' status --watch '{}'", env!("CARGO_BIN_EXE_cloakroom"), pool.status);
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(script.stdout.take().unwrap());
    let mut shown = Vec::new();
    // Two whole turns.
    while String::from_utf8_lossy(&shown).matches("\x1b[J").count() < 2 {
        assert!(stdout.read_until(b'J', &mut shown).unwrap() > 0, "{}", String::from_utf8_lossy(&shown));
    }
    pool.proc.signal(Signal::TERM);
    assert_eq!(pool.proc.end(), 0);
    assert!(script.wait().unwrap().success());
    let shown = String::from_utf8(shown).unwrap();
    assert_eq!((shown.matches("\x1b[2J").count(), shown.matches("\x1b[H").count()), (1, 2), "{shown:?}");
    assert!(!shown.contains("\x1b[?"), "{shown:?}");
    let turn = shown.split("\x1b[H").nth(1).unwrap();
    assert_eq!(turn.matches('\n').count(), 7, "{turn:?}");
    assert!(turn.split("\x1b[K").all(|line| line.trim_start().chars().count() <= 40), "{turn:?}");
}
