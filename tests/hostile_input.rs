//! What comes over the wire, whole, cut off and without an end, to a real pool: answered or refused, by workers that live
//! on, and in bounded memory.

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use support::client::{http, scgi_head};
use support::process::{Proc, Signal, anonymous, children, porter};
use support::{PATIENCE, TestDir, eventually};

/// A pool that listens on Unix sockets for both protocols.
struct Pool {
    proc: Proc,
    scgi: String,
    http: String,
    status: String,
    workers: Vec<u32>,
    /// Whose sessions and sockets are in it.
    _directory: TestDir,
}

impl Pool {
    fn new(workers: usize) -> Self {
        let directory = TestDir::new();
        let path = |name: &str| directory.join(name).display().to_string();
        let (scgi, http, status) = (path("scgi"), path("http"), format!("unix:{}", path("status")));
        let (count, sessions) = (workers.to_string(), path("sessions"));
        let (scgi_address, http_address) = (format!("unix:{scgi}"), format!("unix:{http}"));
        let proc = Proc::demo([
            "--scgi",
            &scgi_address,
            "--http",
            &http_address,
            "--workers",
            &count,
            "--sessions",
            &sessions,
            "--status",
            &status,
        ]);
        let pids = proc.ready(workers);
        proc.line(&format!("ready workers={workers}"));
        Self { proc, scgi, http, status, workers: pids, _directory: directory }
    }

    /// Sends `bytes` and nothing after them; what comes back. That it comes is what tells that nothing hangs.
    fn ask(path: &str, bytes: &[u8]) -> String {
        let mut stream = connect(path);
        let sent = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // A server that has seen enough closes before it has read the rest.
        for error in [sent.err(), read.err()].into_iter().flatten() {
            let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset, io::ErrorKind::NotConnected];
            assert!(gone.contains(&error.kind()), "{error} after {} bytes", bytes.len());
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// How many clients are received from that nobody but the porter waits for.
    fn received(&self) -> u64 {
        let answer = http(&self.status, "/status.json").expect("the status");
        let status: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").expect("a head").1).unwrap();
        status["slow_clients"]["receiving"].as_u64().expect("a number")
    }

    /// The same workers are there, and serve.
    fn lives(mut self) {
        assert_eq!(children_that_serve(&self), self.workers, "a worker was replaced");
        let hello = Self::ask(&self.http, b"GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert!(hello.starts_with("HTTP/1.1 200 "), "{hello}");
        self.proc.signal(Signal::TERM);
        assert_eq!(self.proc.end(), 0);
        assert!(!self.proc.log().contains("panic"), "{}", self.proc.log());
    }
}

/// Those of its children that it started with: one more may be sweeping.
fn children_that_serve(pool: &Pool) -> Vec<u32> {
    let children = children(pool.proc.pid());
    pool.workers.iter().copied().filter(|pid| children.contains(pid)).collect()
}

fn connect(path: &str) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What front servers and curl have sent, byte by byte.
fn captured(protocol: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(protocol);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("read {}: {error}", directory.display()));
    let all = entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == protocol));
    let all: Vec<_> =
        all.map(|path| (path.file_name().unwrap().display().to_string(), fs::read(path).unwrap())).collect();
    assert!(all.len() >= 9, "what the servers sent is missing");
    all
}

/// Every prefix of every request: only the whole one is answered as one, of the others those that have begun are refused.
fn every_prefix(protocol: &str, path: impl Fn(&Pool) -> &str, start: &str) {
    let pool = Pool::new(2);
    let mut count = 0;
    for (name, bytes) in captured(protocol) {
        for end in 0..=bytes.len() {
            let answer = Pool::ask(path(&pool), &bytes[..end]);
            count += 1;
            let status = answer.strip_prefix(start).map_or("", |rest| &rest[..3]);
            let is_right = match end {
                0 => answer.is_empty(),
                // Old clients send it after a form.
                _ if bytes[..end] == *b"\r\n" => answer.is_empty(),
                _ if end == bytes.len() => !answer.is_empty() && !matches!(status, "400" | "500"),
                _ => status == "400",
            };
            assert!(is_right, "{name}, {end} of {} bytes: {answer}", bytes.len());
        }
    }
    eprintln!("{protocol}: {count} prefixes");
    pool.lives();
}

#[test]
fn every_prefix_of_what_front_servers_send_by_scgi_is_refused() {
    every_prefix("scgi", |pool| &pool.scgi, "Status: ");
}

#[test]
fn every_prefix_of_what_front_servers_send_by_http_is_refused() {
    every_prefix("http", |pool| &pool.http, "HTTP/1.1 ");
}

/// See [`anonymous`].
fn memory(pid: u32) -> u64 {
    anonymous(pid).expect("look at memory")
}

/// KiB that a worker may have more than an idle one while it reads a request, whatever it is: the head as it came (64, and
/// a read of 16 on top, in a vector that doubles: 160), its meta-variables (64 and an index of 4), the message-body (64,
/// in a vector that doubles: 128), all that once more on its way to the porter, and what the allocator makes of it.
const BOUND: u64 = 512;
/// KiB that the porter has for each whom it waits for: the same without the way.
const EACH: u64 = 256;

/// A request head with this much in one field, for a message-body of `length` bytes.
fn head(is_scgi: bool, padding: usize, length: usize) -> Vec<u8> {
    let (length, padding) = (length.to_string(), "x".repeat(padding));
    if is_scgi {
        scgi_head(&[
            ("CONTENT_LENGTH", &length),
            ("REQUEST_METHOD", "POST"),
            ("REQUEST_URI", "/hello"),
            ("HTTP_X", &padding),
        ])
    } else {
        format!("POST /hello HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\nX: {padding}\r\n\r\n").into_bytes()
    }
}

/// A request head of 190 fields that are as long as they may be.
fn many_fields(is_scgi: bool) -> Vec<u8> {
    let (names, value): (Vec<_>, _) = ((0..190).map(|i| i.to_string()).collect(), "x".repeat(300));
    if is_scgi {
        let names: Vec<_> = names.iter().map(|name| format!("HTTP_X{name}")).collect();
        let fields = names.iter().map(|name| (&**name, &*value));
        scgi_head(&[("CONTENT_LENGTH", "9")].into_iter().chain(fields).collect::<Vec<_>>())
    } else {
        let fields = names.iter().map(|name| format!("X{name}: {value}\r\n")).collect::<Vec<_>>().concat();
        format!("POST /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n{fields}\r\n").into_bytes()
    }
}

/// All but the end of requests that are as large as they may be: what each is, and its bytes.
fn unfinished(is_scgi: bool) -> Vec<(&'static str, Vec<u8>)> {
    let cut = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes
    };
    let body = |length: usize| cut([head(is_scgi, 60_000, length), vec![b'x'; length]].concat());
    let mut all = vec![
        ("a head of one long field", cut(head(is_scgi, 65_000, 0))),
        ("a head of many fields", many_fields(is_scgi)),
        ("a message-body in memory", body(64 << 10)),
        ("a message-body in a file", body(8 << 20)),
    ];
    if !is_scgi {
        let chunked = |chunk: &[u8], times| {
            [b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", &*chunk.repeat(times)].concat()
        };
        let large = [b"10000\r\n", &*vec![b'x'; 0x10000], b"\r\n"].concat();
        all.push(("a message-body in large chunks", chunked(&large, 127)));
        all.push(("a message-body in small chunks", chunked(b"1\r\nx\r\n", 500_000)));
        all.push(("trailers", chunked(b"0\r\nX: y", 1)));
    }
    all
}

/// Whether the porter waits for more: it is seen in `epoll_wait(2)`, time and again.
fn waits(porter: u32) -> bool {
    (0..5).all(|_| {
        std::thread::sleep(Duration::from_millis(2));
        let call = fs::read_to_string(format!("/proc/{porter}/syscall")).unwrap_or_default();
        let polls = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2].map(|call| call.to_string());
        call.split(' ').next().is_some_and(|call| polls.iter().any(|poll| poll == call))
    })
}

#[test]
fn a_connection_takes_bounded_memory_while_its_head_and_its_body_are_read() {
    const CLIENTS: usize = 16;
    let pool = Pool::new(1);
    let worker = pool.workers[0];
    // What the first requests of a process touch stays: it is no connection's.
    for (is_scgi, path) in [(true, &pool.scgi), (false, &pool.http)] {
        Pool::ask(path, &head(is_scgi, 10, 0));
        let mut slow = connect(path);
        slow.write_all(&head(is_scgi, 10, 1)).unwrap();
        eventually("the porter has it", || pool.received() == 1);
    }
    eventually("nobody is left", || pool.received() == 0);
    let porter = porter(pool.proc.pid()).expect("a porter");
    let (idle, own) = (memory(worker), memory(porter));
    for (protocol, path) in [("SCGI", &pool.scgi), ("HTTP", &pool.http)] {
        for (what, bytes) in unfinished(protocol == "SCGI") {
            let mut streams: Vec<_> = (0..CLIENTS).map(|_| connect(path)).collect();
            for stream in &mut streams {
                stream.write_all(&bytes).unwrap();
            }
            eventually("all was read", || pool.received() == CLIENTS as u64 && waits(porter));
            let added = memory(worker).saturating_sub(idle);
            let each = memory(porter).saturating_sub(own) / CLIENTS as u64;
            for mut stream in streams {
                stream.shutdown(Shutdown::Write).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("Status: 400 ") || answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
            }
            eventually("nobody is left", || pool.received() == 0);
            eprintln!("{protocol}, {what}: worker {idle} KiB and {added} more; porter {own} KiB and {each} for each");
            assert!(added <= BOUND && each <= EACH, "{what} takes {added} KiB, and then {each}");
        }
    }
    pool.lives();
}

/// Nobody has to wait for the end of a head or a message-body that is too long.
#[test]
fn what_never_ends_is_refused_before_it_is_read_in_bounded_memory() {
    let pool = Pool::new(1);
    let worker = pool.workers[0];
    for (is_scgi, path) in [(true, &pool.scgi), (false, &pool.http)] {
        Pool::ask(path, &head(is_scgi, 10, 0));
    }
    let idle = memory(worker);
    let endless = vec![b'x'; 4 << 20];
    for (path, start, status) in [
        (&pool.http, &b"GET /"[..], "HTTP/1.1 414 "),
        (&pool.http, b"GET / HTTP/1.1\r\nX: ", "HTTP/1.1 431 "),
        (&pool.http, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8388609\r\n\r\n", "HTTP/1.1 413 "),
        (&pool.scgi, b"4194304:CONTENT_LENGTH\x000\0HTTP_X\0", "Status: 431 "),
        (&pool.scgi, b"999999999999999999999", "Status: 400 "),
        (&pool.scgi, b"23:CONTENT_LENGTH\x008388609\0,", "Status: 413 "),
    ] {
        let mut stream = connect(path);
        // What is refused is not read to its end, and not for ever.
        let _ = stream.write_all(start).and_then(|()| stream.write_all(&endless));
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(status), "{}: {answer}", start.escape_ascii());
        assert!(memory(worker) <= idle + BOUND);
    }
    pool.lives();
}
