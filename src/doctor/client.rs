//! The asking side: HTTP/1.1 over TCP, one connection for each request, and curl(1) for TLS.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpStream, ToSocketAddrs as _};
use std::thread;
use std::time::Duration;

use super::answer::{ASK_FIELD, Answer, Ask, TOKEN_FIELD};
use super::curl;
use super::target::Target;
use super::token::DoctorToken;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Between the two halves of a message-body.
pub(super) const PAUSE: Duration = Duration::from_millis(600);
/// A response that is longer is none of ours.
const MOST: usize = 4 << 20;

/// A request's message-body.
pub(super) enum Payload {
    None,
    /// With a length.
    Whole(Vec<u8>),
    /// In chunks; over plain TCP the second half of them [`PAUSE`] later, as a server may pass on without a length what
    /// it has not seen the end of.
    Chunked(Vec<u8>),
    /// With a length, over plain TCP the second half of it [`PAUSE`] later.
    Halves(Vec<u8>),
}

impl Payload {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Whole(bytes) | Self::Halves(bytes) => bytes.clone(),
            Self::Chunked(bytes) => {
                let mut out = Vec::new();
                for piece in bytes.chunks(1000) {
                    out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    out.extend_from_slice(piece);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n\r\n");
                out
            }
        }
    }
}

/// A request of the doctor's.
pub(super) struct Probe {
    /// Below the mount.
    pub(super) path: String,
    pub(super) ask: Ask,
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) payload: Payload,
    /// For what may be somebody else's: the token is not sent.
    pub(super) is_anonymous: bool,
}

impl Probe {
    pub(super) fn get(path: &str) -> Self {
        Self { path: path.to_owned(), ask: Ask::Plain, fields: Vec::new(), payload: Payload::None, is_anonymous: false }
    }

    pub(super) fn anonymous(path: &str) -> Self {
        Self { is_anonymous: true, ..Self::get(path) }
    }

    pub(super) fn post(payload: Payload) -> Self {
        let probe = Self { payload, ..Self::get("/cloakroom-doctor/body") };
        probe.field("Content-Type", "application/x-cloakroom-doctor")
    }

    pub(super) fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(super) fn asking(mut self, ask: Ask) -> Self {
        self.ask = ask;
        self
    }

    pub(super) fn method(&self) -> &'static str {
        if matches!(self.payload, Payload::None) { "GET" } else { "POST" }
    }

    /// The fields of the head but for Host and those that frame the message-body.
    pub(super) fn all_fields(&self, token: &DoctorToken) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        if !self.is_anonymous {
            fields.push((TOKEN_FIELD, token.text().to_owned()));
        }
        if self.ask != Ask::Plain {
            fields.push((ASK_FIELD, self.ask.text()));
        }
        fields.extend(self.fields.iter().cloned());
        fields
    }
}

/// A response, complete.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.fields.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.as_str())
    }

    /// What the deployment says, if it is the deployment who speaks.
    pub(super) fn answer(&self) -> Option<Answer> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ClientError {
    #[error("connect to {host}:{port}: {source}")]
    Connect { host: String, port: u16, source: io::Error },
    #[error("no program curl, which speaks TLS for the doctor (Debian: apt-get install curl)")]
    NoCurl,
    #[error("{0}")]
    Curl(String),
    #[error("request: {0}")]
    Request(#[source] io::Error),
    #[error("the connection ends before the response does")]
    Cut,
    #[error("the response is not HTTP/1.1: {0}")]
    Malformed(&'static str),
}

/// Asks one deployment.
pub(super) struct Client<'a> {
    pub(super) target: &'a Target,
    pub(super) token: &'a DoctorToken,
    /// Certificates are not checked.
    pub(super) insecure: bool,
}

/// Both ends of a connection that was made.
pub(super) struct Ends {
    pub(super) own: IpAddr,
    pub(super) peer: IpAddr,
}

impl Client<'_> {
    /// The addresses that a connection has, if one can be made.
    pub(super) fn ends(&self) -> Result<Ends, ClientError> {
        let (host, port) = self.target.address();
        let connect = |source| ClientError::Connect { host: host.to_owned(), port, source };
        let stream = self.connect()?;
        let own = stream.local_addr().map_err(connect)?.ip().to_canonical();
        Ok(Ends { own, peer: stream.peer_addr().map_err(connect)?.ip().to_canonical() })
    }

    pub(super) fn send(&self, probe: &Probe) -> Result<Reply, ClientError> {
        if self.target.is_https { curl::send(self, probe) } else { self.send_plain(probe) }
    }

    fn connect(&self) -> Result<TcpStream, ClientError> {
        let (host, port) = self.target.address();
        let connect = |source| ClientError::Connect { host: host.to_owned(), port, source };
        let mut last = io::Error::other("the host has no address");
        for address in (host, port).to_socket_addrs().map_err(connect)? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).map_err(connect)?;
                    stream.set_write_timeout(Some(PATIENCE)).map_err(connect)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(connect(last))
    }

    fn head(&self, probe: &Probe) -> Vec<u8> {
        use std::fmt::Write as _;
        let mut head = format!("{} {}{} HTTP/1.1\r\n", probe.method(), self.target.mount(), probe.path);
        let framing = match &probe.payload {
            Payload::None => None,
            Payload::Whole(bytes) | Payload::Halves(bytes) => Some(("Content-Length", bytes.len().to_string())),
            Payload::Chunked(_) => Some(("Transfer-Encoding", "chunked".to_owned())),
        };
        let own = [("Host", self.target.authority()), ("Connection", "close".to_owned())];
        for (name, value) in own.into_iter().chain(probe.all_fields(self.token)).chain(framing) {
            // Writing to a String does not fail.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Sends and reads at the same time: a server may answer before it has read everything.
    fn send_plain(&self, probe: &Probe) -> Result<Reply, ClientError> {
        let mut stream = self.connect()?;
        let mut writer = stream.try_clone().map_err(ClientError::Request)?;
        let head = self.head(probe);
        let body = probe.payload.bytes();
        let is_slow = matches!(probe.payload, Payload::Halves(_) | Payload::Chunked(_));
        let first = if is_slow { body.len() / 2 } else { body.len() };
        thread::scope(|scope| {
            scope.spawn(move || {
                // That the server does not want the rest is no failure: what counts is what it answers.
                let _ = writer.write_all(&[&head, &body[..first]].concat());
                if first < body.len() {
                    thread::sleep(PAUSE);
                    let _ = writer.write_all(&body[first..]);
                }
            });
            let reply = read(&mut stream);
            // The writer must not wait for a server that has answered and does not read on.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            reply
        })
    }
}

fn read(stream: &mut TcpStream) -> Result<Reply, ClientError> {
    let mut received = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let n = match stream.read(&mut piece) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(ClientError::Request(error)),
        };
        received.extend_from_slice(&piece[..n]);
        if let Some(reply) = parse(&received, n == 0)? {
            return Ok(reply);
        }
        if n == 0 {
            return Err(ClientError::Cut);
        }
        if received.len() > MOST {
            return Err(ClientError::Malformed("too long"));
        }
    }
}

/// The response, if it is complete.
pub(super) fn parse(received: &[u8], is_end: bool) -> Result<Option<Reply>, ClientError> {
    let mut fields = [httparse::EMPTY_HEADER; 200];
    let mut head = httparse::Response::new(&mut fields);
    let length = match head.parse(received) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(ClientError::Malformed("head")),
    };
    let status = head.code.unwrap_or_default();
    let rest = &received[length..];
    if (100..200).contains(&status) {
        return parse(rest, is_end);
    }
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let fields = head.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect();
    let mut reply = Reply { status, fields, body: Vec::new() };
    if status == 204 || status == 304 {
        return Ok(Some(reply));
    }
    let is_chunked = reply.all("Transfer-Encoding").any(|coding| coding.eq_ignore_ascii_case("chunked"));
    let length = reply.all("Content-Length").next().map(str::parse::<usize>);
    reply.body = match length {
        _ if is_chunked => match dechunk(rest)? {
            Some(body) => body,
            None => return Ok(None),
        },
        Some(Ok(length)) => match rest.get(..length) {
            Some(body) => body.to_vec(),
            None => return Ok(None),
        },
        Some(Err(_)) => return Err(ClientError::Malformed("Content-Length")),
        None if is_end => rest.to_vec(),
        None => return Ok(None),
    };
    Ok(Some(reply))
}

fn dechunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
    let mut body = Vec::new();
    loop {
        let (start, length) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(chunk)) => chunk,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(ClientError::Malformed("chunk")),
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= MOST);
        let length = length.ok_or(ClientError::Malformed("chunk"))?;
        if length == 0 {
            return Ok(Some(body));
        }
        let Some(piece) = rest.get(start..start + length) else { return Ok(None) };
        body.extend_from_slice(piece);
        rest = rest.get(start + length + 2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, is_end: bool) -> Option<(u16, String)> {
        let reply = parse(text.as_bytes(), is_end).unwrap()?;
        Some((reply.status, String::from_utf8(reply.body).unwrap()))
    }

    #[test]
    fn a_response_is_complete_when_its_head_says_so() {
        let response = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        assert_eq!(parsed(response, false), Some((200, "ab".to_owned())));
        let chunked = "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n";
        assert_eq!(parsed(chunked, false), Some((404, "abc".to_owned())));
        for end in 0..response.len() {
            assert_eq!(parsed(&response[..end], false), None, "{end}");
        }
        assert_eq!(parsed("HTTP/1.1 200 OK\r\n\r\nab", false), None);
        assert_eq!(parsed("HTTP/1.1 200 OK\r\n\r\nab", true), Some((200, "ab".to_owned())));
        assert_eq!(parsed("HTTP/1.1 204 No Content\r\n\r\n", false), Some((204, String::new())));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [
            "hello\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        ] {
            assert!(parse(bad.as_bytes(), true).is_err(), "{bad:?}");
        }
    }
}
