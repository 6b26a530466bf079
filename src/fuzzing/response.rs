//! What is written: no CR, LF or NUL of an application's or a client's ever reaches the wire.

use std::time::SystemTime;

use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::gateway::http1::{self, Delivery, Exchange};
use crate::gateway::{self, Front, Site, cgi, push_field};
use crate::message::{Body, MetaVariables, RequestParts, Response};
use crate::session::{CookiePolicy, Id};

/// Two bytes of status, a line each of Host, request target and mount of the request, then fields: `name NUL value LF`.
pub(super) fn response(data: &[u8]) {
    let Some((status, rest)) = data.split_at_checked(2) else { return };
    let status = u16::from_le_bytes([status[0], status[1]]) % 1000;
    let mut lines = rest.split(|&b| b == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (host, target, mount) = (line(), line(), line());
    let mut meta = MetaVariables::new();
    meta.push("REQUEST_METHOD", if status.is_multiple_of(2) { "GET" } else { "HEAD" });
    meta.push("REQUEST_URI", target);
    meta.push("SCRIPT_NAME", mount);
    meta.push("HTTP_HOST", host);
    let parts = gateway::request(meta, Body::empty(), Front::Cgi, &Site::default()).ok().map(|r| r.into_parts().0);

    let body = Body::from(rest.to_vec());
    let body = if status.is_multiple_of(3) { Body::from_reader(body, None) } else { body };
    let mut response = Response::of("text/plain", body).with_status(StatusCode::from_u16(status).unwrap_or_default());
    if let Some(parts) = &parts {
        let cookie = CookiePolicy::default().hand_out(&id(), std::time::Duration::from_secs(1), parts);
        response.headers_mut().append("set-cookie", cookie);
    }
    // More say nothing new, and each is written five times.
    for field in lines.take(16) {
        let at = field.iter().position(|&b| b == 0).unwrap_or(field.len());
        let (name, value) = (&field[..at], &field[(at + 1).min(field.len())..]);
        raw_field(name, value);
        raw_field(b"x-value", field);
        raw_field(field, b"value");
        let text = String::from_utf8_lossy(value);
        if let Ok(redirect) = Response::redirect(&text) {
            heads(redirect, parts.as_deref());
        }
        if name.eq_ignore_ascii_case(b"set-cookie") {
            let (name, value) = text.split_once('=').unwrap_or_default();
            let _ = response.set_cookie((name, value));
        } else if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            response.headers_mut().append(name, value);
        }
    }
    heads(response, parts.as_deref());
}

fn id() -> Id {
    Id::parse("00112233445566778899aabbccddeeff").expect("an ID")
}

/// One field is one line, or nothing, also where nobody has checked its bytes before.
fn raw_field(name: &[u8], value: &[u8]) {
    let mut out = Vec::new();
    push_field(&mut out, name, value);
    if out.is_empty() {
        return;
    }
    let line = out.strip_suffix(b"\r\n").expect("a line");
    assert!(!line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "{line:?}");
    assert!(line[..name.len()].eq_ignore_ascii_case(name) && line[name.len()..].starts_with(b": "));
}

/// Writes the head of this response for every transport.
pub(super) fn heads(mut response: Response, parts: Option<&RequestParts>) {
    if let Some(parts) = parts {
        cgi::complete(&mut response, parts);
    }
    let mut out = Vec::new();
    let length = cgi::write_head(&mut out, &response, parts);
    assert_eq!(length, out.len());
    check(&out, b"Status: ", &response);
    let is_head = parts.is_some_and(|parts| parts.method == Method::HEAD);
    for (is_11, keep_alive) in [(true, true), (true, false), (false, true), (false, false)] {
        out.clear();
        let exchange = Exchange { is_11, is_head, keep_alive };
        let (delivery, stays) = http1::write_head(&mut out, &response, exchange, SystemTime::UNIX_EPOCH);
        let (lengths, codings) = check(&out, b"HTTP/1.1 ", &response);
        assert_eq!(codings == 1, delivery == Delivery::Chunked);
        assert!(lengths == 1 || !matches!(delivery, Delivery::Length(_)));
        assert!(delivery != Delivery::ToEnd || !stays);
        let mut fields = vec![httparse::EMPTY_HEADER; response.headers().len() + 4];
        let mut oracle = httparse::Response::new(&mut fields);
        let parsed = oracle.parse(&out).expect("a response head");
        assert!(parsed.is_complete() && parsed.unwrap() == out.len());
        assert_eq!(oracle.code, Some(response.status().as_u16()));
    }
}

/// Each line of a head is a field of the response, in its order, or the codec's own. How many Content-Lengths and
/// Transfer-Encodings there are.
fn check(head: &[u8], start: &[u8], response: &Response) -> (usize, usize) {
    assert!(head.starts_with(start));
    let own = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "status",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let fields = response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let mut fields = fields.filter(|(name, _)| !own.contains(name)).peekable();
    let text = head.strip_suffix(b"\r\n\r\n").expect("the end of the head");
    let mut counts = (0, 0);
    for line in &split_lines(text) {
        assert!(!line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "{:?}", String::from_utf8_lossy(head));
    }
    for line in &split_lines(text)[1..] {
        let (name, value) = line.split_at(line.iter().position(|&b| b == b':').expect("a field"));
        let name = String::from_utf8(name.to_ascii_lowercase()).expect("a token");
        let value = value.strip_prefix(b": ").expect("a field");
        if fields.next_if(|next| *next == (&*name, value)).is_some() {
            continue;
        }
        counts.0 += usize::from(name == "content-length");
        counts.1 += usize::from(name == "transfer-encoding");
        let may_be = ["content-length", "transfer-encoding", "connection", "date"];
        assert!(may_be.contains(&&*name), "{name} comes from nowhere");
    }
    assert_eq!(fields.next(), None, "left out");
    assert!(counts.0 + counts.1 <= 1, "two framings: {:?}", String::from_utf8_lossy(head));
    counts
}

/// At CR LF, and nowhere else.
pub(super) fn split_lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}
