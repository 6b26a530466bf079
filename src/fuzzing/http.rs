//! Requests over HTTP: heads, and message-bodies in chunks.

use super::request::{Outcome, Pairs, STEPS, limits, pairs, requests};
use crate::gateway::http1::chunked::{Decoder, LAST_CHUNK, Piece, push_chunk};
use crate::gateway::http1::{self, Ends, Exchange, Framing, HeadScanner};
use crate::gateway::{Front, GatewayError};

/// What an HTTP request head comes to.
#[derive(Debug, PartialEq, Eq)]
struct HttpHead {
    meta: Pairs,
    framing: Framing,
    expects_continue: bool,
    exchange: Exchange,
    end: usize,
}

/// Reads a head as its bytes arrive, `step` of them at a time; returns where it ends.
pub(super) fn read_http(bytes: &[u8], step: usize) -> Result<Option<(http1::Head, usize)>, GatewayError> {
    let limits = limits();
    let ends = Ends { peer: Some(([192, 0, 2, 1], 4711).into()), local: Some(([127, 0, 0, 1], 80).into()) };
    let mut scanner = HeadScanner::default();
    let mut there = 0;
    while there < bytes.len() {
        there = bytes.len().min(there + step);
        if let Some(end) = scanner.scan(&bytes[..there], &limits)? {
            return Ok(Some((http1::parse_head(&bytes[..end], ends, &limits)?, end)));
        }
    }
    Ok(None)
}

/// An HTTP request: it is read the same however it is cut, and nobody could read another length out of it.
pub(super) fn http(data: &[u8]) {
    let outcome = |step| {
        let read = read_http(data, step).map_err(|error| error.to_string())?;
        Ok::<_, String>(read.map(|(head, end)| HttpHead {
            meta: pairs(&head.meta),
            framing: head.framing,
            expects_continue: head.expects_continue,
            exchange: head.exchange,
            end,
        }))
    };
    let whole = outcome(data.len().max(1));
    for step in STEPS {
        assert_eq!(outcome(step), whole, "in pieces of {step}");
    }
    let head = match whole {
        Ok(Some(head)) => head,
        // What is not refused is within the limit, empty lines aside.
        Ok(None) => return assert!(data.len() <= limits().head + 4, "more is asked for than is allowed"),
        Err(_) => return,
    };
    let (text, rest) = data.split_at(head.end);
    check_head(text, &head);
    let body = match head.framing {
        Framing::Length(length) => &rest[..rest.len().min(usize::try_from(length).unwrap_or(usize::MAX))],
        Framing::Chunked => {
            chunked(rest);
            &[]
        }
    };
    let (head, _) = read_http(data, data.len()).unwrap().unwrap();
    requests(&head.meta, body, Front::Http);
}

/// Reads the lines of a head a second time, by the grammar of RFC 9112 and nothing else. Nobody could read another length
/// out of it, or another field.
fn check_head(text: &[u8], head: &HttpHead) {
    assert!(text.len() <= limits().head + 4);
    let text = text.strip_prefix(b"\r\n").unwrap_or(text);
    let text = text.strip_prefix(b"\r\n").unwrap_or(text).strip_suffix(b"\r\n\r\n").expect("the end of a head");
    let lines = super::response::split_lines(text);
    let odd = |b: &u8| matches!(b, b'\r' | b'\n' | 0);
    assert!(!lines.iter().any(|line| line.iter().any(odd)), "a bare CR or LF, or NUL");
    let (line, lines) = lines.split_first().expect("a request line");
    let words: Vec<_> = line.split(|&b| b == b' ').filter(|word| !word.is_empty()).collect();
    let version: &[u8] = if head.exchange.is_11 { b"HTTP/1.1" } else { b"HTTP/1.0" };
    let find = |wanted: &str| head.meta.iter().find(|(name, _)| name == wanted.as_bytes()).map(|(_, value)| &value[..]);
    assert_eq!(words, [find("REQUEST_METHOD").unwrap(), find("REQUEST_URI").unwrap(), version]);
    assert!(lines.len() <= limits().head_count);

    // As the meta-variables should be: those that say the same of themselves, joined.
    let mut fields = Pairs::new();
    for line in lines {
        let (name, value) = line.split_at(line.iter().position(|&b| b == b':').expect("a colon"));
        let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        assert!(!name.is_empty() && name.iter().all(token), "{:?}", String::from_utf8_lossy(name));
        let name = String::from_utf8(name.to_ascii_uppercase()).unwrap();
        if name.contains('_') || name == "PROXY" {
            continue;
        }
        let name = match &*name {
            "CONTENT-TYPE" | "CONTENT-LENGTH" => name.replace('-', "_"),
            name => format!("HTTP_{}", name.replace('-', "_")),
        };
        let value = value[1..].trim_ascii();
        match fields.iter_mut().find(|(known, _)| known == name.as_bytes()) {
            None => fields.push((name.into_bytes(), value.to_vec())),
            Some((_, known)) => {
                let once =
                    ["HTTP_HOST", "HTTP_TRANSFER_ENCODING", "CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_AUTHORIZATION"];
                assert!(!once.contains(&&*name), "{name} twice");
                let between: &[u8] = if name == "HTTP_COOKIE" { b"; " } else { b", " };
                *known = [known, between, value].concat();
            }
        }
    }
    let ours = |name: &[u8]| name.starts_with(b"HTTP_") || name == b"CONTENT_TYPE" || name == b"CONTENT_LENGTH";
    let read: Pairs = head.meta.iter().filter(|(name, _)| ours(name)).cloned().collect();
    assert_eq!(read, fields);

    let field = |wanted: &str| fields.iter().find(|(name, _)| name == wanted.as_bytes()).map(|(_, value)| &value[..]);
    assert!(field("HTTP_HOST").is_some() || !head.exchange.is_11);
    match (field("CONTENT_LENGTH"), field("HTTP_TRANSFER_ENCODING"), head.framing) {
        (None, None, Framing::Length(0)) => {}
        (Some(digits), None, Framing::Length(length)) => {
            assert!(digits.iter().all(u8::is_ascii_digit));
            assert_eq!(std::str::from_utf8(digits).unwrap().parse(), Ok(length));
        }
        (None, Some(coding), Framing::Chunked) => {
            assert!(head.exchange.is_11 && coding.eq_ignore_ascii_case(b"chunked"));
        }
        framings => panic!("{framings:?}"),
    }
}

/// What decoding came to: the message-body, and whether it is whole.
fn decode(data: &[u8], step: usize) -> (Vec<u8>, Outcome<()>) {
    let (mut decoder, mut body, mut at, mut there) = (Decoder::new(), Vec::new(), 0, 0);
    while there < data.len() {
        there = data.len().min(there + step);
        loop {
            let Ok((used, piece)) = decoder.next(&data[at..there]) else { return (Vec::new(), Outcome::Wrong) };
            at += used;
            match piece {
                Piece::Data(data) => body.extend_from_slice(data),
                Piece::Done => return (body, Outcome::Whole((), at)),
                Piece::More => break,
            }
        }
        assert_eq!(at, there, "what was not used would be lost");
    }
    (body, Outcome::More)
}

/// A message-body in chunks: however it is cut, and by a second reader.
pub(super) fn chunked(data: &[u8]) {
    let simply = decode_simply(data);
    for step in [data.len().max(1), STEPS[0], STEPS[1]] {
        assert_eq!(decode(data, step), simply, "in pieces of {step}");
    }
    let mut encoded = Vec::new();
    for piece in data.chunks(100) {
        push_chunk(&mut encoded, piece);
    }
    encoded.extend_from_slice(LAST_CHUNK);
    assert_eq!(decode(&encoded, 7), (data.to_vec(), Outcome::Whole((), encoded.len())));
}

/// The same line by line (RFC 9112 section 7.1), for who has all of it at hand.
fn decode_simply(data: &[u8]) -> (Vec<u8>, Outcome<()>) {
    let wrong = || (Vec::new(), Outcome::Wrong);
    let (mut body, mut at, mut extensions, mut trailers) = (Vec::new(), 0, 0, 0);
    let mut in_trailer = false;
    loop {
        let rest = &data[at..];
        let text = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
        let length = rest.iter().take_while(|b| text(b)).count();
        let (line, end) = rest.split_at(length);
        let size = String::from_utf8_lossy(line.split(|&b| b == b';').next().unwrap());
        if in_trailer {
            trailers += line.len();
        } else {
            extensions += line.iter().position(|&b| b == b';').map_or(0, |at| line.len() - at - 1);
            let may_grow = line.is_empty() && end.is_empty();
            let digits = size.bytes().all(|b| b.is_ascii_hexdigit());
            if !digits || size.len() > 15 || (size.is_empty() && !may_grow) {
                return wrong();
            }
        }
        if extensions > 4096 || trailers > 8192 || !(b"\r\n".starts_with(end) || end.starts_with(b"\r\n")) {
            return wrong();
        }
        if end.len() < 2 {
            return (body, Outcome::More);
        }
        at += line.len() + 2;
        let size = u64::from_str_radix(&size, 16).unwrap_or(0);
        if in_trailer && line.is_empty() {
            return (body, Outcome::Whole((), at));
        }
        in_trailer |= size == 0;
        if in_trailer {
            continue;
        }
        let chunk = &data[at..data.len().min(at.saturating_add(usize::try_from(size).unwrap()))];
        body.extend_from_slice(chunk);
        at += chunk.len();
        let end = &data[at..];
        if (chunk.len() as u64) < size || end.len() < 2 {
            return if b"\r\n".starts_with(end) { (body, Outcome::More) } else { wrong() };
        }
        if !end.starts_with(b"\r\n") {
            return wrong();
        }
        at += 2;
    }
}
