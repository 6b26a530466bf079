//! Visitors of the demo application: browsers just good enough, that reach it by CGI, by SCGI or by HTTP.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::sync::Mutex;

use assert_cmd::assert::OutputAssertExt as _;

use super::client::{read_bytes, send};
use super::process::{Proc, demo};
use super::{PATIENCE, TestDir};

/// How visitors reach the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    Cgi,
    Scgi,
    Http,
}

/// A running application, or, for CGI, one that is started for each request.
pub struct Site {
    front: Front,
    mount: &'static str,
    program: fn() -> Command,
    dir: TestDir,
    /// The pool, in a mutex as visitors may come from several threads, and its address.
    pool: Option<(Mutex<Proc>, String)>,
}

impl Site {
    pub fn new(front: Front) -> Self {
        Self::mounted(front, "")
    }

    /// Mounted at `mount`.
    pub fn mounted(front: Front, mount: &'static str) -> Self {
        Self::of(front, mount, demo)
    }

    /// Another program.
    pub fn of(front: Front, mount: &'static str, program: fn() -> Command) -> Self {
        let dir = TestDir::new();
        let sessions = dir.join("sessions");
        let pool = (front != Front::Cgi).then(|| {
            let mut command = program();
            let flag = if front == Front::Http { "--http" } else { "--scgi" };
            command.args([flag, "127.0.0.1:0", "--workers", "2"]).arg("--sessions").arg(&sessions);
            if !mount.is_empty() {
                command.args(["--script-name", mount]);
            }
            let pool = Proc::start(command);
            let address = pool.address(&flag[2..]);
            (Mutex::new(pool), address)
        });
        Self { front, mount, program, dir, pool }
    }

    pub fn visitor(&self) -> Visitor<'_> {
        Visitor { site: self, cookie: None }
    }

    pub fn front(&self) -> Front {
        self.front
    }

    pub fn dir(&self) -> &TestDir {
        &self.dir
    }

    /// The pool's address and its master.
    pub fn pool(&self) -> Option<(&str, u32)> {
        self.pool.as_ref().map(|(pool, address)| (address.as_str(), pool.lock().unwrap().pid()))
    }

    /// How many files the session directory holds.
    pub fn stored(&self) -> usize {
        std::fs::read_dir(self.dir.join("sessions")).map_or(0, Iterator::count)
    }

    /// The program as a web server starts it for `request`.
    pub fn cgi(&self, request: &Message<'_>) -> Command {
        let mut command = (self.program)();
        command.env_clear();
        for (name, value) in self.meta(request) {
            command.env(name, OsStr::from_bytes(&value));
        }
        command.env("GATEWAY_INTERFACE", "CGI/1.1").env("CLOAKROOM_SESSIONS", self.dir.join("sessions"));
        command
    }

    /// What a front server says about `request`.
    fn meta(&self, request: &Message<'_>) -> Vec<(String, Vec<u8>)> {
        let target = format!("{}{}", self.mount, request.target);
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        let mut meta = vec![("CONTENT_LENGTH".to_owned(), request.body.len().to_string().into_bytes())];
        let mut push = |name: &str, value: &[u8]| meta.push((name.to_owned(), value.to_owned()));
        push("SCGI", b"1");
        push("REQUEST_METHOD", request.method.as_bytes());
        push("REQUEST_URI", target.as_bytes());
        push("SCRIPT_NAME", self.mount.as_bytes());
        push("PATH_INFO", path.as_bytes());
        push("QUERY_STRING", query.as_bytes());
        push("SERVER_NAME", b"localhost");
        push("SERVER_PORT", b"80");
        push("SERVER_PROTOCOL", b"HTTP/1.1");
        push("SERVER_SOFTWARE", b"test");
        push("REMOTE_ADDR", b"192.0.2.7");
        push("HTTP_HOST", b"localhost");
        for (name, value) in &request.headers {
            match name.to_ascii_uppercase().replace('-', "_") {
                name if name == "CONTENT_TYPE" => push(&name, value),
                name => push(&format!("HTTP_{name}"), value),
            }
        }
        if self.front == Front::Cgi {
            meta.retain(|(name, _)| name != "SCGI");
        }
        meta
    }

    /// Sends `request`; gives what came, byte by byte.
    pub fn exchange(&self, request: &Message<'_>) -> Vec<u8> {
        let Some((_, address)) = &self.pool else {
            let mut command = assert_cmd::Command::from_std(self.cgi(request));
            return command.timeout(PATIENCE).write_stdin(request.body.clone()).output().unwrap().stdout;
        };
        let mut bytes = Vec::new();
        if self.front == Front::Scgi {
            let fields = self.meta(request);
            let head: Vec<u8> =
                fields.into_iter().flat_map(|(name, value)| [name.as_bytes(), b"\0", &value, b"\0"].concat()).collect();
            bytes = [format!("{}:", head.len()).as_bytes(), &head, b","].concat();
        } else {
            let line = format!("{} {}{} HTTP/1.1\r\n", request.method, self.mount, request.target);
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"Host: localhost\r\nConnection: close\r\n");
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", request.body.len()).as_bytes());
            for (name, value) in &request.headers {
                bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
            }
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(&request.body);
        read_bytes(send(address, &bytes).unwrap()).unwrap_or_default()
    }
}

/// A request.
#[derive(Clone, Default)]
pub struct Message<'m> {
    pub method: &'m str,
    /// Below the mount.
    pub target: &'m str,
    pub headers: Vec<(&'m str, Vec<u8>)>,
    pub body: Vec<u8>,
}

/// Somebody with at most one cookie.
#[derive(Clone)]
pub struct Visitor<'s> {
    site: &'s Site,
    pub cookie: Option<String>,
}

impl Visitor<'_> {
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.send(Message { method: "GET", target, ..Message::default() }).expect("no answer")
    }

    /// Posts a form, urlencoded.
    #[track_caller]
    pub fn post(&mut self, target: &str, fields: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish().into_bytes();
        let headers = vec![("Content-Type", b"application/x-www-form-urlencoded".to_vec())];
        self.send(Message { method: "POST", target, headers, body }).expect("no answer")
    }

    /// Sends a request with the cookie, and keeps the cookie that comes; `None` where there was no answer at all.
    pub fn send(&mut self, mut request: Message<'_>) -> Option<Answer> {
        if let Some(cookie) = &self.cookie {
            request.headers.push(("Cookie", format!("session={cookie}").into_bytes()));
        }
        let answer = Answer::parse(&self.site.exchange(&request))?;
        if let Some(cookie) = answer.header("Set-Cookie") {
            let value = cookie.strip_prefix("session=").unwrap().split(';').next().unwrap();
            self.cookie = (!cookie.contains("Max-Age=0")).then(|| value.to_owned());
        }
        Some(answer)
    }
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("the end of the head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        // HTTP/1.1 200 OK, or Status: 200 OK
        let status = head.lines().find_map(|line| line.strip_prefix("HTTP/1.1 ").or(line.strip_prefix("Status: ")));
        let status = status.expect("a status")[..3].parse().unwrap();
        let fields = head.lines().filter_map(|line| line.split_once(": "));
        let headers: Vec<_> = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let answer = Self { status, headers, body: bytes[end + 4..].to_vec() };
        assert_eq!(answer.header("Transfer-Encoding"), None);
        Some(answer)
    }

    /// The value of the only header field of this name.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &**value);
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks the status and that the body contains `text`.
    #[track_caller]
    pub fn shows(&self, status: u16, text: &str) {
        let body = self.text();
        assert_eq!(self.status, status, "{body}");
        assert!(body.contains(text), "no {text:?} in:\n{body}");
    }

    /// The text between `before` and the next `after`.
    #[track_caller]
    pub fn between(&self, before: &str, after: &str) -> String {
        let body = self.text();
        let rest = body.split_once(before).unwrap_or_else(|| panic!("no {before:?} in:\n{body}")).1;
        rest.split_once(after).unwrap().0.to_owned()
    }

    /// The value of a line `name: value`.
    #[track_caller]
    pub fn line(&self, name: &str) -> String {
        self.between(&format!("{name}: "), "\n")
    }
}

/// Runs a program to its end; returns what it wrote to stdout. It must end with status 0.
#[track_caller]
pub fn stdout(mut command: Command) -> Vec<u8> {
    command.assert().success().get_output().stdout.clone()
}
