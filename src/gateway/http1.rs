//! HTTP/1.1 heads (RFC 9112): a request head to meta-variables, a response to a response head.
//!
//! httparse reads the head; what it lets pass and a proxy in front may read differently is refused here: bare LF,
//! repeated or contradicting lengths, transfer codings other than chunked, more than one Host.

pub(crate) mod chunked;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use http::{Method, header};
use httpdate::HttpDate;

use super::fields::{self, has_body, has_length};
use super::number::decimal;
use super::repeated::joint;
use super::{GatewayError, Limits};
use crate::message::{MetaVariables, Response};

/// Empty lines before a request line that are forgiven: old clients end a form with one (RFC 9112 section 2.2).
const EMPTY_LINES: usize = 2;

/// Fields that are parsed without asking for memory.
const USUAL_FIELDS: usize = 48;

/// The interim response that lets a client send its message-body.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Finds the end of a request head as its bytes arrive, looking at each byte once.
#[derive(Debug, Default)]
pub(crate) struct HeadScanner {
    scanned: usize,
    /// Where the request line begins.
    start: usize,
    /// Where the current line begins.
    line: usize,
    in_fields: bool,
}

impl HeadScanner {
    /// Looks at what is new in `bytes`, which must begin with the bytes of the call before. Returns the length of the
    /// head, the empty line that ends it included.
    pub(crate) fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, GatewayError> {
        while let Some(at) = bytes[self.scanned..].iter().position(|&b| b == b'\n').map(|i| i + self.scanned) {
            // The limit comes first, as it would for bytes that come one by one: how they are cut changes no answer.
            self.check(at + 1, limits)?;
            if at == self.line || bytes[at - 1] != b'\r' {
                return Err(GatewayError::Malformed("line that ends in LF alone"));
            }
            let is_empty = at - 1 == self.line;
            self.line = at + 1;
            self.scanned = at + 1;
            match (is_empty, self.in_fields) {
                (true, true) => return Ok(Some(at + 1)),
                (true, false) if at + 1 > 2 * EMPTY_LINES => {
                    return Err(GatewayError::Malformed("empty lines before the request line"));
                }
                (true, false) => self.start = at + 1,
                (false, _) => self.in_fields = true,
            }
        }
        self.scanned = bytes.len();
        self.check(bytes.len(), limits)?;
        Ok(None)
    }

    fn check(&self, end: usize, limits: &Limits) -> Result<(), GatewayError> {
        if end - self.start <= limits.head {
            Ok(())
        } else if self.in_fields {
            Err(GatewayError::HeadTooLarge { what: "bytes", limit: limits.head })
        } else {
            Err(GatewayError::TargetTooLong { limit: limits.head })
        }
    }
}

/// Both ends of a TCP connection; over a Unix socket there are none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
}

/// What follows a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes of message-body; 0 is none.
    Length(u64),
    /// A message-body in chunks.
    Chunked,
}

/// A request head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) meta: MetaVariables,
    pub(crate) framing: Framing,
    /// Whether the client waits for [`CONTINUE`] before it sends the message-body.
    pub(crate) expects_continue: bool,
    pub(crate) exchange: Exchange,
}

/// What a response must know about its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// HTTP/1.1, which knows chunks and keeps connections unless told otherwise; else HTTP/1.0.
    pub(crate) is_11: bool,
    /// The method is HEAD.
    pub(crate) is_head: bool,
    /// The connection is to be kept.
    pub(crate) keep_alive: bool,
}

impl Exchange {
    /// For a request that could not be read, after which nothing can be: the connection is closed.
    pub(crate) const BROKEN: Self = Self { is_11: true, is_head: false, keep_alive: false };
}

/// Reads a request head that [`HeadScanner`] found the end of.
pub(crate) fn parse_head(bytes: &[u8], ends: Ends, limits: &Limits) -> Result<Head, GatewayError> {
    let mut usual = [httparse::EMPTY_HEADER; USUAL_FIELDS];
    let count = limits.head_count.min(USUAL_FIELDS);
    let mut request = httparse::Request::new(&mut usual[..count]);
    match request.parse(bytes) {
        Err(httparse::Error::TooManyHeaders) if count < limits.head_count => {
            let mut many = vec![httparse::EMPTY_HEADER; limits.head_count];
            let mut request = httparse::Request::new(&mut many);
            let result = request.parse(bytes);
            finish(&request, result, bytes, ends, limits)
        }
        result => finish(&request, result, bytes, ends, limits),
    }
}

fn finish(
    request: &httparse::Request<'_, '_>,
    result: httparse::Result<usize>,
    bytes: &[u8],
    ends: Ends,
    limits: &Limits,
) -> Result<Head, GatewayError> {
    match result {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(GatewayError::Malformed("request head")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(GatewayError::HeadTooLarge { what: "header fields", limit: limits.head_count });
        }
        Err(httparse::Error::Version) if names_a_version(bytes) => return Err(GatewayError::Version),
        Err(httparse::Error::HeaderName) => return Err(GatewayError::Malformed("header field name")),
        Err(httparse::Error::HeaderValue) => return Err(GatewayError::Malformed("header field value")),
        Err(_) => return Err(GatewayError::Malformed("request line")),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(GatewayError::Malformed("request line"));
    };
    if method == "CONNECT" {
        return Err(GatewayError::NotImplemented("CONNECT"));
    }
    let is_11 = version == 1;
    let mut meta = MetaVariables::new();
    meta.push("REQUEST_METHOD", method);
    meta.push("REQUEST_URI", target);
    let before_fragment = target.split('#').next().unwrap_or_default();
    meta.push("QUERY_STRING", before_fragment.split_once('?').map_or("", |(_, query)| query));
    meta.push("SERVER_PROTOCOL", if is_11 { "HTTP/1.1" } else { "HTTP/1.0" });
    push_ends(&mut meta, ends);
    push_fields(&mut meta, request.headers)?;

    if is_11 && meta.get("HTTP_HOST").is_none() {
        return Err(GatewayError::Malformed("no Host"));
    }
    let framing = framing(&meta, is_11)?;
    let expects_continue = match meta.get("HTTP_EXPECT") {
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => is_11 && framing != Framing::Length(0),
        Some(_) => return Err(GatewayError::Expectation),
        None => false,
    };
    let connection = |option: &str| {
        let options = meta.get("HTTP_CONNECTION").unwrap_or_default();
        options.split(|&b| b == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    };
    let keep_alive = !connection("close") && (is_11 || connection("keep-alive"));
    let exchange = Exchange { is_11, is_head: method == "HEAD", keep_alive };
    Ok(Head { meta, framing, expects_continue, exchange })
}

/// Whether the request line ends in a version, if in another one than ours: 505 and not 400.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start().split(|&b| b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&b| b == b' ').filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(_), Some(_), Some(b"HTTP/1.0" | b"HTTP/1.1"), None) => false,
        (Some(_), Some(_), Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None) => {
            major.is_ascii_digit() && minor.is_ascii_digit()
        }
        _ => false,
    }
}

fn push_ends(meta: &mut MetaVariables, ends: Ends) {
    if let Some(peer) = ends.peer {
        meta.push("REMOTE_ADDR", peer.ip().to_canonical().to_string());
        meta.push("REMOTE_PORT", peer.port().to_string());
    }
    // A listener on every address has none to tell.
    let named = |ip: &IpAddr| !ip.is_unspecified();
    match ends.local.map(|local| local.ip().to_canonical()).filter(named) {
        Some(ip) => {
            let text = ip.to_string();
            meta.push("SERVER_ADDR", &text);
            meta.push("SERVER_NAME", if ip.is_ipv6() { format!("[{text}]") } else { text });
        }
        None => meta.push("SERVER_NAME", "localhost"),
    }
    meta.push("SERVER_PORT", ends.local.map_or(80, |local| local.port()).to_string());
}

fn push_fields(meta: &mut MetaVariables, fields: &[httparse::Header<'_>]) -> Result<(), GatewayError> {
    // `X_Foo` and `X-Foo` would be one meta-variable, and the client would choose what a proxy's field says. `Proxy`
    // would be HTTP_PROXY (CVE-2016-5385).
    let dropped = |name: &str| name.contains('_') || name.eq_ignore_ascii_case("Proxy");
    for (i, field) in fields.iter().enumerate().filter(|(_, field)| !dropped(field.name)) {
        let same = |other: &&httparse::Header<'_>| other.name.eq_ignore_ascii_case(field.name);
        if fields[..i].iter().any(|other| same(&other)) {
            continue;
        }
        let mut repeated = fields[i + 1..].iter().filter(same).peekable();
        let name = meta_name(field.name);
        if repeated.peek().is_none() {
            meta.push(name, field.value);
            continue;
        }
        let joint = joint(name.as_bytes()).ok_or(GatewayError::Malformed("repeated header field"))?;
        let mut value = field.value.to_vec();
        for other in repeated {
            value.extend_from_slice(joint);
            value.extend_from_slice(other.value);
        }
        meta.push(name, value);
    }
    Ok(())
}

fn meta_name(field: &str) -> String {
    let mut name = String::with_capacity(5 + field.len());
    if !field.eq_ignore_ascii_case("Content-Type") && !field.eq_ignore_ascii_case("Content-Length") {
        name.push_str("HTTP_");
    }
    name.extend(field.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }));
    name
}

/// RFC 9112 section 6.3, without the repairs it allows: two readers that repair differently see two requests.
fn framing(meta: &MetaVariables, is_11: bool) -> Result<Framing, GatewayError> {
    match (meta.get("HTTP_TRANSFER_ENCODING"), meta.get("CONTENT_LENGTH")) {
        (None, None) => Ok(Framing::Length(0)),
        (None, Some(length)) => match decimal(length) {
            Some(length) => Ok(Framing::Length(length)),
            None => Err(GatewayError::Malformed("Content-Length")),
        },
        (Some(_), Some(_)) => Err(GatewayError::Malformed("Content-Length with Transfer-Encoding")),
        (Some(_), None) if !is_11 => Err(GatewayError::Malformed("Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (Some(_), None) => Err(GatewayError::NotImplemented("transfer coding")),
    }
}

/// How a response's message-body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Not at all.
    None,
    /// As it is; its length was announced.
    Length(u64),
    /// In chunks.
    Chunked,
    /// As it is; the end of the connection ends it.
    ToEnd,
}

/// Appends the response head to `out`. Returns how the message-body is to be sent, and whether the connection stays.
pub(crate) fn write_head(
    out: &mut Vec<u8>,
    response: &Response,
    exchange: Exchange,
    date: SystemTime,
) -> (Delivery, bool) {
    let status = response.status();
    let length = if exchange.is_head { fields::length_for_head(response) } else { response.body().length() };
    let delivery = match length {
        _ if !has_body(status, exchange.is_head.then_some(&Method::HEAD)) => Delivery::None,
        Some(length) => Delivery::Length(length),
        None if exchange.is_11 => Delivery::Chunked,
        None => Delivery::ToEnd,
    };
    let wants_close = response.headers().get_all(header::CONNECTION).iter().any(|value| {
        value.as_bytes().split(|&b| b == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    // After an interim status the client goes on waiting for the final one, which nobody is going to send.
    let keep_alive = exchange.keep_alive && delivery != Delivery::ToEnd && !wants_close && !status.is_informational();

    // Writing to a Vec does not fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", status.as_str(), fields::reason(status));
    if !response.headers().contains_key(header::DATE) {
        let _ = write!(out, "Date: {}\r\n", HttpDate::from(date.max(SystemTime::UNIX_EPOCH)));
    }
    fields::push_fields(out, response.headers());
    match (delivery, length) {
        (Delivery::Length(length), _) => {
            let _ = write!(out, "Content-Length: {length}\r\n");
        }
        (Delivery::None, Some(length)) if has_length(status) => {
            let _ = write!(out, "Content-Length: {length}\r\n");
        }
        (Delivery::Chunked, _) => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        _ => {}
    }
    match (keep_alive, exchange.is_11) {
        (true, true) => {}
        (true, false) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    (delivery, keep_alive)
}

#[cfg(test)]
mod tests;
