//! Where a request begins and ends, and what is in its head.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::app::FRONTS;
use super::support::client::{read_bytes, scgi_request, send};
use super::support::process::{Proc, children};
use super::support::visitor::{Front, Message, Site};
use super::support::{PATIENCE, TestDir};

fn netstring(block: &[u8]) -> Vec<u8> {
    [format!("{}:", block.len()).as_bytes(), block, b","].concat()
}

fn head(pairs: &[(&str, &[u8])]) -> Vec<u8> {
    netstring(
        &pairs.iter().flat_map(|(name, value)| [name.as_bytes(), b"\0", value, b"\0"].concat()).collect::<Vec<_>>(),
    )
}

/// A head of an SCGI request for a page, with these in front.
fn request(first: &[(&str, &[u8])]) -> Vec<u8> {
    let rest: [(&str, &[u8]); 5] = [
        ("REQUEST_METHOD", b"POST"),
        ("REQUEST_URI", b"/hello"),
        ("SERVER_NAME", b"localhost"),
        ("SERVER_PORT", b"80"),
        ("SERVER_PROTOCOL", b"HTTP/1.1"),
    ];
    head(&[first, &rest].concat())
}

/// A pool of one worker, so that one that dies is seen.
struct Pool {
    proc: Proc,
    scgi: String,
    http: String,
    worker: Vec<u32>,
    _directory: TestDir,
}

/// Sends this, says that nothing more will come, and gives what comes back.
fn exchange(mut connection: impl Read + Write + AsFd, bytes: &[u8]) -> Vec<u8> {
    // It may be refused before all of it is sent.
    let _ = connection.write_all(bytes);
    let _ = rustix::net::shutdown(&connection, rustix::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    answer
}

impl Pool {
    fn new() -> Self {
        let directory = TestDir::new();
        let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
        let socket = format!("unix:{}", path("socket"));
        let sessions = path("sessions");
        let arguments = ["--http", "127.0.0.1:0", "--scgi", &socket, "--workers", "1", "--sessions", &sessions];
        let proc = Proc::demo(arguments);
        let (http, scgi) = (proc.address("http"), proc.address("scgi"));
        proc.ready(1);
        let worker = children(proc.pid());
        Self { proc, scgi, http, worker, _directory: directory }
    }

    /// Sends this and says that nothing more will come; gives what comes back.
    fn ask_http(&self, bytes: &[u8]) -> Vec<u8> {
        let connection = TcpStream::connect(&self.http).expect("connect");
        connection.set_read_timeout(Some(PATIENCE)).expect("set");
        exchange(connection, bytes)
    }

    /// The same over SCGI.
    fn ask_scgi(&self, bytes: &[u8]) -> Vec<u8> {
        let path = self.scgi.strip_prefix("unix:").expect("a path");
        let connection = UnixStream::connect(path).expect("connect");
        connection.set_read_timeout(Some(PATIENCE)).expect("set");
        exchange(connection, bytes)
    }

    /// Whether the worker is the same and serves, and how much memory it has to itself.
    #[track_caller]
    fn is_well(&self, what: &str) -> u64 {
        let hello = read_bytes(send(&self.scgi, &scgi_request("GET", "/hello", b"")).expect("send"));
        assert!(hello.expect("an answer").ends_with(b"Hello, world!\n"), "{what}");
        assert_eq!(children(self.proc.pid()), self.worker, "{what}: the worker is another one");
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.worker[0])).expect("look");
        let line = text.lines().find(|line| line.starts_with("VmHWM:")).expect("its memory");
        line.split_whitespace().nth(1).expect("KiB").parse().expect("a number")
    }
}

#[track_caller]
fn refused(answer: &[u8], what: &str) {
    let is_refused =
        answer.is_empty() || [&b"Status: 4"[..], b"HTTP/1.1 4"].iter().any(|start| answer.starts_with(start));
    assert!(is_refused, "{what}: {}", answer.escape_ascii());
}

/// The 23 heads of which Python's scgi 2.2 takes 15 and which make the crate scgi panic, abort or guess; and that what
/// follows a request on its connection is never taken for another one.
#[test]
fn scgi_framing_malformed_heads_are_refused_and_no_second_request_is_parsed() {
    let pool = Pool::new();
    let block: &[u8] = b"CONTENT_LENGTH\x000\0SCGI\x001\0REQUEST_METHOD\0GET\0REQUEST_URI\0/hello\0";
    let n = block.len();
    assert!(pool.ask_scgi(&netstring(block)).starts_with(b"Status: 200"));
    let with = |length: &str, end: &str| [length.as_bytes(), block, end.as_bytes()].concat();
    let (tens, units) = (n / 10, n % 10);
    let mut heads: Vec<(&str, Vec<u8>)> = vec![
        ("sign", with(&format!("+{n}:"), ",")),
        ("negative", with(&format!("-{n}:"), ",")),
        ("negative and short", with("-5:", ",")),
        ("space before", with(&format!(" {n}:"), ",")),
        ("space behind", with(&format!("{n} :"), ",")),
        ("underscore", with(&format!("{tens}_{units}:"), ",")),
        ("leading zero", with(&format!("0{n}:"), ",")),
        ("hexadecimal", with(&format!("0x{n:x}:"), ",")),
        ("no length", with(":", ",")),
        ("eleven digits", with(&format!("{n:011}:"), ",")),
        ("ten digits", b"9999999999:".to_vec()),
        ("no colon", b"1234567890x".to_vec()),
        ("no comma", with(&format!("{n}:"), ";")),
        ("too short", with(&format!("{}:", n - 1), ",")),
        ("no last NUL", netstring(&block[..n - 1])),
        ("a name alone", netstring(&[block, b"HTTP_HOST\0"].concat())),
    ];
    heads.extend([
        ("an empty name", request(&[("CONTENT_LENGTH", b"0"), ("", b"x"), ("SCGI", b"1")])),
        ("no CONTENT_LENGTH", request(&[("SCGI", b"1")])),
        ("a late CONTENT_LENGTH", request(&[("SCGI", b"1"), ("CONTENT_LENGTH", b"0")])),
        ("a negative CONTENT_LENGTH", request(&[("CONTENT_LENGTH", b"-5"), ("SCGI", b"1")])),
        ("an underscore in CONTENT_LENGTH", request(&[("CONTENT_LENGTH", b"1_0"), ("SCGI", b"1")])),
        ("CONTENT_LENGTH twice", request(&[("CONTENT_LENGTH", b"5"), ("SCGI", b"1"), ("CONTENT_LENGTH", b"0")])),
        ("an empty CONTENT_LENGTH", request(&[("CONTENT_LENGTH", b""), ("SCGI", b"1")])),
    ]);
    assert_eq!(heads.len(), 23);
    for (what, head) in &heads {
        // With what would be a message-body if it were not refused.
        refused(&pool.ask_scgi(&[head, &b"hello"[..]].concat()), what);
        refused(&pool.ask_scgi(head), what);
    }
    let good = scgi_request("POST", "/hello", b"");
    for (first, length) in [("0", 0), ("5", 5)] {
        let body = &b"hello"[..length];
        let first = [&request(&[("CONTENT_LENGTH", first.as_bytes()), ("SCGI", b"1")])[..], body].concat();
        let answer = pool.ask_scgi(&[first, good.clone(), good.clone()].concat());
        let answers = answer.windows(8).filter(|window| window == b"Status: ").count();
        assert_eq!(answers, 1, "{}", answer.escape_ascii());
    }
    pool.is_well("after them");
}

/// libfcgi's lengths overflowed, haproxy's were cut, and what was left over became another request.
#[test]
fn cve_2025_23016_haproxy_mux_fcgi_lengths_at_the_edges_of_integers() {
    let pool = Pool::new();
    let before = pool.is_well("before");
    let edges: [u128; 12] = [
        (1 << 31) - 1,
        1 << 31,
        (1 << 31) + 1,
        (1 << 32) - 1,
        1 << 32,
        (1 << 32) + 1,
        (1 << 63) - 1,
        1 << 63,
        (1 << 64) - 1,
        1 << 64,
        (1 << 64) + 5,
        u128::MAX,
    ];
    let mut lengths: Vec<String> = edges.iter().map(u128::to_string).collect();
    lengths.extend(["99999999999999999999", "184467440737095516150"].map(str::to_owned));
    lengths.push("9".repeat(400));
    // What would be a good head, were the upper bits of its length lost.
    let block = b"CONTENT_LENGTH\x000\0SCGI\x001\0REQUEST_METHOD\0GET\0REQUEST_URI\0/hello\0";
    for bits in [16, 31, 32, 63, 64] {
        let length = (1_u128 << bits) + block.len() as u128;
        refused(&pool.ask_scgi(&[format!("{length}:").as_bytes(), block, b","].concat()), &length.to_string());
    }
    let smuggled = "GET /env HTTP/1.1\r\nHost: smuggled\r\n\r\n";
    for length in &lengths {
        for bytes in [format!("{length}:"), format!("{length}:CONTENT_LENGTH\x005\0SCGI\x001\0,hello")] {
            refused(&pool.ask_scgi(bytes.as_bytes()), length);
        }
        refused(&pool.ask_scgi(&[&request(&[("CONTENT_LENGTH", length.as_bytes())])[..], b"hello"].concat()), length);
        for field in
            ["Content-Length: ", "Transfer-Encoding: chunked\r\n\r\n", "X: y\r\nContent-Length: 0\r\nContent-Length: "]
        {
            let size = if field.starts_with('T') {
                let number = length.parse::<u128>().unwrap_or(u128::MAX);
                format!("{number:x}")
            } else {
                length.clone()
            };
            let bytes = format!("POST /hello HTTP/1.1\r\nHost: x\r\n{field}{size}\r\n\r\n{smuggled}");
            let answer = pool.ask_http(bytes.as_bytes());
            let what = format!("{field:?} {size}");
            // Chunks are read as the application wants them; this one does not.
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert_eq!(text.matches("HTTP/1.1 ").count(), usize::from(!answer.is_empty()), "{what}: {text}");
            assert!(!text.contains("smuggled"), "{what}: {text}");
        }
    }
    // A netstring's length has no zeros in front, nor has CONTENT_LENGTH. In HTTP they mean nothing (RFC 9110 section 8.6).
    let five = format!("{}5", "0".repeat(30));
    refused(&pool.ask_scgi(format!("{five}:").as_bytes()), &five);
    refused(&pool.ask_scgi(&[&request(&[("CONTENT_LENGTH", five.as_bytes())])[..], b"hello"].concat()), &five);
    let bytes = format!("POST /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {five}\r\n\r\nhello");
    assert!(pool.ask_http(bytes.as_bytes()).starts_with(b"HTTP/1.1 200"));
    // Zero is a length like others.
    assert!(pool.ask_scgi(&request(&[("CONTENT_LENGTH", b"0"), ("SCGI", b"1")])).starts_with(b"Status: 200"));
    let after = pool.is_well("after");
    assert!(after < before + 1024, "{before} KiB before, {after} KiB after");
}

/// php-fpm's arithmetic on `PATH_INFO` went below zero where a line feed made it empty.
#[test]
fn cve_2019_11043_path_info_empty_absent_or_a_line_feed() {
    let paths: [Option<&[u8]>; 8] =
        [None, Some(b""), Some(b"/"), Some(b"\n"), Some(b"/\n"), Some(b"/hello\n"), Some(b"\0"), Some(b"/%0a")];
    let names: [Option<&[u8]>; 6] = [None, Some(b""), Some(b"/"), Some(b"/app"), Some(b"/app.php\n"), Some(b"\n")];
    let targets: [Option<&[u8]>; 6] =
        [None, Some(b""), Some(b"/%0a"), Some(b"/app/%0A?a%0a"), Some(b"/hello%0a/x.php"), Some(b"/\n")];
    let pool = Pool::new();
    let site = Site::new(Front::Cgi);
    let mut scripts = 0;
    for path in paths {
        for name in names {
            for target in targets {
                let what = format!("{path:?} {name:?} {target:?}");
                let mut pairs: Vec<(&str, &[u8])> = vec![("CONTENT_LENGTH", b"0"), ("REQUEST_METHOD", b"GET")];
                pairs.extend(path.map(|path| ("PATH_INFO", path)));
                pairs.extend(name.map(|name| ("SCRIPT_NAME", name)));
                pairs.extend(target.map(|target| ("REQUEST_URI", target)));
                pairs.extend([("SERVER_NAME", &b"localhost"[..]), ("SERVER_PORT", b"80")]);
                let answer = pool.ask_scgi(&head(&pairs));
                let is_answer = [&b"Status: 2"[..], b"Status: 3", b"Status: 4"].iter().any(|s| answer.starts_with(s));
                // A NUL in a value makes another head of it.
                assert!(is_answer || path == Some(b"\0"), "{what}: {}", answer.escape_ascii());
                if path == Some(b"\0") || (scripts + 1) % 3 != 0 {
                    scripts += 1;
                    continue;
                }
                scripts += 1;
                let mut command = site.cgi(&Message { method: "GET", target: "/", ..Message::default() });
                for variable in ["PATH_INFO", "SCRIPT_NAME", "REQUEST_URI"] {
                    command.env_remove(variable);
                }
                for (name, value) in &pairs {
                    command.env(name, <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(value));
                }
                let output = command.output().expect("run");
                assert!(output.status.success() && output.stdout.starts_with(b"Status: "), "{what}: {output:?}");
                assert!(!output.stdout.starts_with(b"Status: 5"), "{what}: {output:?}");
            }
        }
    }
    pool.is_well("after them");
}

/// The crate scgi takes no value that is not UTF-8. Here they are bytes, all the way to the application and back.
#[test]
fn scgi_crate_values_have_any_byte() {
    for front in FRONTS {
        let site = Site::new(front);
        let mut arrived = 0;
        for byte in 1..=255_u8 {
            // No header field may have these (RFC 9110 section 5.5), and a line feed ends the lines of the page.
            let is_control = (byte < b' ' && byte != b'\t') || byte == 0x7f;
            if (front == Front::Http && is_control) || (front == Front::Cgi && byte % 8 != 0) {
                continue;
            }
            let value = [b'x', byte, b'y'];
            let headers = vec![("X-Any", value.to_vec())];
            let message = Message { method: "GET", target: "/env", headers, body: Vec::new() };
            let answer = site.visitor().send(message).expect("an answer");
            let line = [b"HTTP_X_ANY=", &value[..], b"\n"].concat();
            assert!(answer.body.windows(line.len()).any(|window| window == line), "{front:?}: {byte:#04x}");
            arrived += 1;
        }
        eprintln!("{front:?}: {arrived} values, all as they were sent");
        assert!(front != Front::Scgi || arrived == 255);
    }
}
