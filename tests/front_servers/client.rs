//! A client of HTTP/1.1 that can be as rude as real ones, and that takes nothing on trust: a reset, or an end before
//! the end, is a failure.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A response, complete.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The values of a header field.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let fields = self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The value of a header field that is there at most once.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        assert!(all.len() <= 1, "{name} is there several times: {all:?}");
        all.pop()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a line `NAME=value` of `/env`, byte by byte.
    pub(crate) fn variable(&self, name: &str) -> Option<Vec<u8>> {
        let start = format!("{name}=");
        self.body.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(start.as_bytes())).map(<[u8]>::to_vec)
    }

    /// The same as text.
    pub(crate) fn variable_text(&self, name: &str) -> Option<String> {
        self.variable(name).map(|value| String::from_utf8(value).unwrap())
    }

    /// The session ID that it hands out.
    pub(crate) fn session(&self) -> Option<String> {
        let cookies = self.all("Set-Cookie");
        let values = cookies.iter().filter_map(|cookie| cookie.strip_prefix("session="));
        values.map(|value| value.split(';').next().unwrap().to_owned()).next()
    }
}

/// A request that is being put together.
#[derive(Clone)]
pub(crate) struct Request {
    address: SocketAddr,
    method: &'static str,
    head: Vec<u8>,
    body: Vec<u8>,
    has_framing: bool,
}

impl Request {
    /// `target` is sent as it is, whatever bytes are in it.
    pub(crate) fn new(address: SocketAddr, method: &'static str, target: impl AsRef<[u8]>) -> Self {
        let mut head = format!("{method} ").into_bytes();
        head.extend_from_slice(target.as_ref());
        head.extend_from_slice(format!(" HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n").as_bytes());
        Self { address, method, head, body: Vec::new(), has_framing: false }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        self
    }

    pub(crate) fn session(self, id: &str) -> Self {
        self.header("Cookie", &format!("session={id}"))
    }

    pub(crate) fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.has_framing = true;
        let length = self.body.len().to_string();
        self.header("Content-Type", content_type).header("Content-Length", &length)
    }

    pub(crate) fn form(self, form: &str) -> Self {
        self.body("application/x-www-form-urlencoded", form)
    }

    /// The message-body in pieces of a few bytes, its length unannounced.
    pub(crate) fn chunked_form(mut self, form: &str) -> Self {
        self.has_framing = true;
        for piece in form.as_bytes().chunks(3) {
            self.body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            self.body.extend_from_slice(piece);
            self.body.extend_from_slice(b"\r\n");
        }
        self.body.extend_from_slice(b"0\r\n\r\n");
        self.header("Content-Type", "application/x-www-form-urlencoded").header("Transfer-Encoding", "chunked")
    }

    fn bytes(&self) -> Vec<u8> {
        // lighttpd wants to be told even that there is nothing (411).
        let length = if self.method == "POST" && !self.has_framing { "Content-Length: 0\r\n" } else { "" };
        [&self.head, length.as_bytes(), b"\r\n", &self.body].concat()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends the request and reads the response at the same time, as browsers do: a server may answer before it has
    /// read everything, and the answer must arrive.
    pub(crate) fn send(&self) -> Reply {
        let mut stream = self.connect();
        let mut writer = stream.try_clone().unwrap();
        let bytes = self.bytes();
        thread::scope(|scope| {
            scope.spawn(move || {
                // That the server does not want the rest is no failure of ours: what counts is what it answers.
                let _ = writer.write_all(&bytes);
            });
            let mut received = Vec::new();
            let mut piece = vec![0; 64 * 1024];
            loop {
                let (n, is_end) = match stream.read(&mut piece) {
                    Ok(n) => (n, n == 0),
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => panic!("{}: {error} after {:?}", self.title(), String::from_utf8_lossy(&received)),
                };
                received.extend_from_slice(&piece[..n]);
                if let Some(reply) = parse(&received, self.method == "HEAD", is_end) {
                    let _ = stream.shutdown(Shutdown::Both);
                    return reply;
                }
                assert!(!is_end, "{}: ends after {:?}", self.title(), String::from_utf8_lossy(&received));
            }
        })
    }

    /// Sends all but the last `missing` bytes and goes away.
    pub(crate) fn abort(&self, missing: usize) {
        let mut stream = self.connect();
        let bytes = self.bytes();
        stream.write_all(&bytes[..bytes.len() - missing]).unwrap();
    }

    fn title(&self) -> String {
        String::from_utf8_lossy(self.head.split(|&b| b == b'\r').next().unwrap()).into_owned()
    }
}

/// The response, if it is complete.
fn parse(received: &[u8], is_head: bool, is_end: bool) -> Option<Reply> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(received).unwrap() else { return None };
    let status = head.code.unwrap();
    let rest = &received[length..];
    if (100..200).contains(&status) {
        return parse(rest, is_head, is_end);
    }
    let headers = head.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect();
    let mut reply = Reply { status, headers, body: Vec::new() };
    if is_head || status == 204 || status == 304 {
        reply.body = rest.to_vec();
        return Some(reply);
    }
    if let Some(coding) = reply.header("Transfer-Encoding") {
        assert_eq!(coding, "chunked");
        reply.body = dechunk(rest)?;
    } else if let Some(length) = reply.header("Content-Length") {
        reply.body = rest.get(..length.parse().unwrap())?.to_vec();
    } else if is_end {
        reply.body = rest.to_vec();
    } else {
        return None;
    }
    Some(reply)
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((start, length)) = httparse::parse_chunk_size(rest).unwrap() else {
            return None;
        };
        let length = usize::try_from(length).unwrap();
        if length == 0 {
            return rest[start..].starts_with(b"\r\n").then_some(body);
        }
        body.extend_from_slice(rest.get(start..start + length)?);
        rest = rest.get(start + length + 2..)?;
    }
}
