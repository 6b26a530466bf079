//! The access log: one line for each request, written by its worker after the response was sent.
//!
//! A line is one write to a file opened for appending, so that those of several workers do not mix. One that cannot be
//! written is counted and lost: no request waits for the log or fails because of it.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Instant, SystemTime};

use httpdate::HttpDate;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::clock::now_micros;
use crate::message::MetaVariables;
use crate::server::activity::Reply;
use crate::server::options::{AccessLog, AccessLogFormat};
use crate::sys::log::log;
use crate::sys::process::id;
use crate::sys::signal;

/// More of a request line, and of any other field, is cut off.
const MOST_OF_TARGET: usize = 8 * 1024;
const MOST: usize = 2 * 1024;

/// Where a worker writes down what it has served.
pub(super) struct Journal {
    /// `None`: stderr.
    file: Option<(AccessLog, RefCell<OwnedFd>)>,
    format: AccessLogFormat,
    pid: i32,
    entry: RefCell<Entry>,
    line: RefCell<Vec<u8>>,
    is_known: Cell<bool>,
}

/// What is known of a request before it is served.
#[derive(Default)]
struct Entry {
    arrived: u64,
    method: Vec<u8>,
    target: Vec<u8>,
    protocol: Vec<u8>,
    user: Vec<u8>,
    referer: Vec<u8>,
    agent: Vec<u8>,
}

impl Journal {
    /// Opens the log; to be called by the worker.
    pub(super) fn open(log: &AccessLog, format: AccessLogFormat) -> std::io::Result<Self> {
        let file = match log {
            AccessLog::Stderr => None,
            AccessLog::File(path) => Some((log.clone(), RefCell::new(open(path)?))),
        };
        let (entry, line) = (RefCell::default(), RefCell::default());
        Ok(Self { file, format, pid: id().as_raw_nonzero().get(), entry, line, is_known: Cell::new(false) })
    }

    /// Opens the file anew, if the master has asked for it. Where that fails the old one is as good as it was.
    pub(super) fn reopen_if_asked(&self) {
        if let Some((AccessLog::File(path), file)) = &self.file
            && signal::asked_to_reopen()
        {
            match open(path) {
                Ok(new) => *file.borrow_mut() = new,
                Err(error) => log!("pid={} cannot reopen the access log {}: {error}", self.pid, path.display()),
            }
        }
    }

    /// Nothing is known of a request.
    pub(super) fn forget(&self) {
        self.is_known.set(false);
    }

    /// A request has been read, its head at this time.
    pub(super) fn note(&self, meta: &MetaVariables, since: Instant) {
        let mut entry = self.entry.borrow_mut();
        let set = |field: &mut Vec<u8>, name: &str, most: usize| {
            let value = meta.get(name).unwrap_or_default();
            field.clear();
            field.extend_from_slice(&value[..value.len().min(most)]);
        };
        entry.arrived = now_micros().saturating_sub(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX));
        set(&mut entry.method, "REQUEST_METHOD", MOST);
        set(&mut entry.target, "REQUEST_URI", MOST_OF_TARGET);
        set(&mut entry.protocol, "SERVER_PROTOCOL", MOST);
        set(&mut entry.user, "REMOTE_USER", MOST);
        set(&mut entry.referer, "HTTP_REFERER", MOST);
        set(&mut entry.agent, "HTTP_USER_AGENT", MOST);
        self.is_known.set(true);
    }

    /// Writes the line of the request that was answered with `reply`. False where it was lost.
    pub(super) fn write(&self, reply: &Reply, session: Option<&str>) -> bool {
        self.reopen_if_asked();
        let known = self.entry.borrow();
        let unknown = Entry::default();
        let entry = if self.is_known.replace(false) { &*known } else { &unknown };
        let micros = if entry.arrived == 0 { 0 } else { now_micros().saturating_sub(entry.arrived) };
        let time = SystemTime::now() - std::time::Duration::from_micros(micros);
        let line = Line { entry, reply, session, micros, time, pid: self.pid };
        let mut bytes = self.line.borrow_mut();
        bytes.clear();
        match self.format {
            AccessLogFormat::Combined => line.combined(&mut bytes),
            AccessLogFormat::Json => line.json(&mut bytes),
        }
        bytes.push(b'\n');
        let put = || match &self.file {
            Some((_, file)) => rustix::io::write(file.borrow().as_fd(), &bytes),
            None => rustix::io::write(rustix::stdio::stderr(), &bytes),
        };
        loop {
            match put() {
                Err(Errno::INTR) => {}
                result => return result.is_ok_and(|written| written == bytes.len()),
            }
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    // Not to wait for a reader, where it is a pipe.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))
}

struct Line<'a> {
    entry: &'a Entry,
    reply: &'a Reply,
    session: Option<&'a str>,
    micros: u64,
    time: SystemTime,
    pid: i32,
}

/// The fields of a line, by the names that they have in JSON.
#[derive(Serialize)]
struct Fields<'a> {
    time: String,
    client: Option<IpAddr>,
    user: Option<String>,
    method: Option<String>,
    target: Option<String>,
    protocol: Option<String>,
    status: u16,
    bytes: u64,
    referer: Option<String>,
    agent: Option<String>,
    session: Option<&'a str>,
    micros: u64,
    pid: i32,
}

impl Line<'_> {
    /// Apache's `combined`, and behind it the session, the microseconds and the process.
    fn combined(&self, out: &mut Vec<u8>) {
        let Self { entry, reply, .. } = self;
        let or_none = |out: &mut Vec<u8>, bytes: &[u8]| {
            if bytes.is_empty() { out.push(b'-') } else { escape(out, bytes) }
        };
        // Writing to a Vec does not fail.
        let _ = match reply.client {
            Some(client) => write!(out, "{client} - "),
            None => write!(out, "- - "),
        };
        // A space would move all that follows.
        let user: Vec<u8> = entry.user.iter().map(|&b| if b == b' ' { b'+' } else { b }).collect();
        or_none(out, &user);
        let date = Date::of(self.time);
        let _ = write!(out, " [{}/{}/{}:{} +0000] \"", date.day, date.month, date.year, date.time);
        if entry.method.is_empty() {
            out.push(b'-');
        } else {
            let line = [&entry.method[..], &entry.target, &entry.protocol].join(&b' ');
            escape(out, &line);
        }
        let _ = write!(out, "\" {} ", reply.status.as_str());
        let _ = match reply.bytes {
            0 => write!(out, "-"),
            bytes => write!(out, "{bytes}"),
        };
        for field in [&entry.referer, &entry.agent] {
            out.extend_from_slice(b" \"");
            or_none(out, field);
            out.push(b'"');
        }
        let _ = write!(out, " {} {} {}", self.session.unwrap_or("-"), self.micros, self.pid);
    }

    fn json(&self, out: &mut Vec<u8>) {
        let text = |bytes: &[u8]| (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned());
        let entry = self.entry;
        let fields = Fields {
            time: Date::of(self.time).iso(self.time),
            client: self.reply.client,
            user: text(&entry.user),
            method: text(&entry.method),
            target: text(&entry.target),
            protocol: text(&entry.protocol),
            status: self.reply.status.as_u16(),
            bytes: self.reply.bytes,
            referer: text(&entry.referer),
            agent: text(&entry.agent),
            session: self.session,
            micros: self.micros,
            pid: self.pid,
        };
        // Text and numbers are always JSON.
        let json = serde_json::to_string(&fields).unwrap_or_default();
        for c in json.chars() {
            // JSON lets those from U+007F on stand as they are.
            if c.is_control() {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
}

/// What Apache makes of bytes that are not printable ASCII, of quotes and of backslashes.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0b => out.extend_from_slice(b"\\v"),
            b' '..=b'~' => out.push(byte),
            // Writing to a Vec does not fail.
            _ => _ = write!(out, "\\x{byte:02x}"),
        }
    }
}

/// A date in UTC, as httpdate has calculated it.
struct Date {
    day: String,
    month: String,
    year: String,
    time: String,
}

impl Date {
    fn of(time: SystemTime) -> Self {
        // "Wed, 25 Nov 2026 03:36:25 GMT"
        let text = HttpDate::from(time).to_string();
        let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default().to_owned();
        Self { day: part(5..7), month: part(8..11), year: part(12..16), time: part(17..25) }
    }

    /// The same as RFC 3339 has it, in milliseconds.
    fn iso(&self, time: SystemTime) -> String {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = MONTHS.iter().position(|month| *month == self.month).map_or(0, |at| at + 1);
        let millis = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_millis();
        format!("{}-{month:02}-{}T{}.{millis:03}Z", self.year, self.day, self.time)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn line(format: AccessLogFormat, meta: Option<&[(&str, &[u8])]>, status: StatusCode, bytes: u64) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let journal = Journal::open(&AccessLog::File(path.clone()), format).unwrap();
        if let Some(meta) = meta {
            let mut variables = MetaVariables::new();
            for (name, value) in meta {
                variables.push(name, value);
            }
            journal.note(&variables, Instant::now());
        }
        let reply = Reply { client: "192.0.2.7".parse().ok(), status, bytes };
        assert!(journal.write(&reply, Some("0123456789ab")));
        // What is left of this request is not taken for the next one's.
        assert!(journal.write(&reply, None));
        let text = std::fs::read_to_string(path).unwrap();
        let (first, second) = text.split_once('\n').unwrap();
        assert!(!second.contains("HTTP/1.1") && second.ends_with('\n'), "{second}");
        first.to_owned()
    }

    const HOSTILE: &[(&str, &[u8])] = &[
        ("REQUEST_METHOD", b"GET"),
        ("REQUEST_URI", b"/a?q=1"),
        ("SERVER_PROTOCOL", b"HTTP/1.1"),
        ("REMOTE_USER", b"an na\n"),
        ("HTTP_REFERER", b"http://x/\x80"),
        ("HTTP_USER_AGENT", b"\" 200 5 \"\r\n\x1b[2J\\\x7f\xc2\x85"),
    ];

    #[test]
    fn combined_is_apaches() {
        let line = line(AccessLogFormat::Combined, Some(HOSTILE), StatusCode::OK, 5);
        let (before, after) = line.split_once(" [").unwrap();
        assert_eq!(before, "192.0.2.7 - an+na\\n");
        let (date, after) = after.split_once("] ").unwrap();
        assert!(date.ends_with(" +0000") && date.matches('/').count() == 2 && date.len() == 26, "{date}");
        let expected =
            r#""GET /a?q=1 HTTP/1.1" 200 5 "http://x/\x80" "\" 200 5 \"\r\n\x1b[2J\\\x7f\xc2\x85" 0123456789ab "#;
        let rest = after.strip_prefix(expected).unwrap_or_else(|| panic!("{after}"));
        assert!(rest.ends_with(&format!(" {}", std::process::id())), "{rest}");
        assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line}");
    }

    #[test]
    fn what_could_not_be_read_has_a_line() {
        let line = line(AccessLogFormat::Combined, None, StatusCode::BAD_REQUEST, 0);
        assert!(
            line.starts_with("192.0.2.7 - - [") && line.contains("] \"-\" 400 - \"-\" \"-\" 0123456789ab 0 "),
            "{line}"
        );
    }

    #[test]
    fn json_has_the_same_fields() {
        let line = line(AccessLogFormat::Json, Some(HOSTILE), StatusCode::OK, 5);
        assert!(!line.chars().any(char::is_control), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((value["status"].as_u64(), value["bytes"].as_u64()), (Some(200), Some(5)));
        assert_eq!((value["target"].as_str(), value["session"].as_str()), (Some("/a?q=1"), Some("0123456789ab")));
        assert_eq!(value["agent"].as_str(), Some("\" 200 5 \"\r\n\x1b[2J\\\x7f\u{85}"));
        assert_eq!(value["referer"].as_str(), Some("http://x/\u{fffd}"));
        assert_eq!(value["time"].as_str().map(str::len), Some("2026-11-25T03:36:25.123Z".len()));
    }

    #[test]
    fn dates_are_right() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_795_577_785_042);
        assert_eq!(Date::of(time).iso(time), "2026-11-25T03:36:25.042Z");
    }

    #[test]
    fn a_line_that_cannot_be_written_is_lost() {
        let journal = Journal::open(&AccessLog::File("/dev/full".into()), AccessLogFormat::Json).unwrap();
        assert!(!journal.write(&Reply { client: None, status: StatusCode::OK, bytes: 0 }, None));
        assert!(Journal::open(&AccessLog::File("/nonexistent/log".into()), AccessLogFormat::Json).is_err());
    }
}
