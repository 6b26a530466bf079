//! What the response heads of CGI and HTTP have in common.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::location::absolute_location;
use super::number::decimal;
use crate::message::{Body, RequestParts, Response};

/// Fields that only the codec itself writes: those of the connection, and those that say where the message-body ends.
/// A second `Content-Length` or `Status` would let two readers see two responses.
fn is_written_by_codec(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "content-length"
            | "keep-alive"
            | "proxy-connection"
            | "status"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Makes a response fit to be sent whatever the transport: an absolute `Location`, and a `Content-Type` for a
/// message-body. A redirect is given a short message-body, since a CGI response that is a `Location` and nothing else
/// is one that the server is free to answer in its own words (RFC 3875 section 6.2.3).
pub(crate) fn complete(response: &mut Response, parts: &RequestParts) {
    let status = response.status();
    if let Some(location) = response.headers().get(header::LOCATION) {
        match HeaderValue::from_bytes(&absolute_location(location.as_bytes(), parts)) {
            Ok(location) => response.headers_mut().insert(header::LOCATION, location),
            Err(_) => response.headers_mut().remove(header::LOCATION),
        };
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED && response.body().is_empty() {
            *response.body_mut() = Body::from(format!("{}\n", reason(status)));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        }
    }
    if !response.body().is_empty() && !response.headers().contains_key(header::CONTENT_TYPE) {
        let octets = HeaderValue::from_static("application/octet-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, octets);
    }
}

/// Whether a message-body may follow (RFC 9110 section 6.4.1).
pub(crate) fn has_body(status: StatusCode, method: Option<&Method>) -> bool {
    method != Some(&Method::HEAD) && has_length(status)
}

/// Whether a Content-Length may be written: a response to HEAD may have one without the message-body.
pub(super) fn has_length(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// The length that a response to HEAD announces: what GET would have, as far as that is known. An empty message-body
/// says nothing of it, since it is rather one that was left out for HEAD's sake.
pub(super) fn length_for_head(response: &Response) -> Option<u64> {
    let field = response.headers().get(header::CONTENT_LENGTH).and_then(|value| decimal(value.as_bytes()));
    field.or_else(|| response.body().length().filter(|length| *length > 0))
}

pub(super) fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Unknown")
}

/// Writes the application's fields.
pub(super) fn push_fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        if !is_written_by_codec(name) {
            push_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// The bytes that a name may have (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        token[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let more = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < more.len() {
        token[more[at] as usize] = true;
        at += 1;
    }
    token
};

/// Writes one field, or nothing where it has a byte that could end it: `http` checks its values, but whoever made
/// this one may have gone around that.
pub(crate) fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let token = |b: &u8| TOKEN[usize::from(*b)];
    let text = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
    if name.is_empty() || !name.iter().all(token) || !value.iter().all(text) {
        return;
    }
    // Names are case-insensitive; capitals are what people who read a transcript expect.
    let start = out.len();
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    let mut starts_word = true;
    for byte in &mut out[start..] {
        if starts_word {
            byte.make_ascii_uppercase();
        }
        starts_word = *byte == b'-';
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_that_ends_a_field_is_written() {
        for byte in 0..=255_u8 {
            for at in 0..3 {
                for in_name in [false, true] {
                    let mut word = *b"abc";
                    word[at] = byte;
                    let mut out = Vec::new();
                    if in_name {
                        push_field(&mut out, &word, b"v");
                    } else {
                        push_field(&mut out, b"n", &word);
                    }
                    if out.is_empty() {
                        assert!(in_name || byte == 0x7f || byte < b' ', "{byte:#x}");
                        continue;
                    }
                    let line = out.strip_suffix(b"\r\n").unwrap();
                    assert!(!line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "{byte:#x}");
                    assert_eq!(line.split(|&b| b == b':').count(), 2 + usize::from(!in_name && byte == b':'));
                }
            }
        }
    }

    #[test]
    fn names_are_written_in_capitals() {
        let mut out = Vec::new();
        push_field(&mut out, b"set-cookie", b"a=b");
        assert_eq!(out, b"Set-Cookie: a=b\r\n");
    }

    #[test]
    fn fields_of_the_connection_are_the_codecs_own() {
        let mut headers = HeaderMap::new();
        for name in [
            "connection",
            "content-length",
            "keep-alive",
            "proxy-connection",
            "status",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "x-kept",
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        let mut out = Vec::new();
        push_fields(&mut out, &headers);
        assert_eq!(out, b"X-Kept: 1\r\n");
    }
}
