//! Conditional requests (RFC 9110 section 13), and message-bodies that must not be sent.

use http::header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use http::header::{HeaderValue, LAST_MODIFIED};
use http::{Method, StatusCode};

use super::{Body, RequestParts, Response};

/// Whether the client has this response already: GET or HEAD, answered with 200, and the validators say so (RFC 9110
/// section 13.2.2). If-Modified-Since counts only where there is no If-None-Match.
pub(crate) fn not_modified(request: &RequestParts, response: &Response) -> bool {
    if !matches!(request.method, Method::GET | Method::HEAD) || response.status() != StatusCode::OK {
        return false;
    }
    if let Some(tags) = request.meta.get("HTTP_IF_NONE_MATCH") {
        return matches_tag(tags, response.headers().get(ETAG).map(HeaderValue::as_bytes));
    }
    let Some(modified) = response.headers().get(LAST_MODIFIED) else { return false };
    let date = |text: &str| httpdate::parse_http_date(text.trim_matches([' ', '\t'])).ok();
    // What is no date, or more than one, is ignored (section 13.1.3).
    match (request.meta.get_str("HTTP_IF_MODIFIED_SINCE").and_then(date), modified.to_str().ok().and_then(date)) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// Makes `response` what may be sent as an answer to `request`.
///
/// * It becomes 304 where the client has it already.
/// * 1xx, 204, 205 and 304 lose their message-body and its Content-Length (RFC 9110 sections 6.4.1 and 8.6); 304 also
///   loses the other fields that describe a message-body (section 15.4.5) and keeps the rest, cookies among them.
/// * HEAD loses the message-body; its length, where it is known, stays as the header field Content-Length, which the
///   codecs send as it is for HEAD.
pub(crate) fn finish(request: &RequestParts, response: &mut Response) {
    if not_modified(request, response) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let status = response.status();
    let is_not_modified = status == StatusCode::NOT_MODIFIED;
    if is_not_modified {
        for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE] {
            response.headers_mut().remove(name);
        }
    }
    if is_not_modified
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT)
    {
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::empty();
    } else if request.method == Method::HEAD {
        // An application that answers HEAD by itself, without a message-body, knows the length better.
        match response.body().length() {
            Some(0) if response.headers().contains_key(CONTENT_LENGTH) => {}
            Some(length) => {
                response.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            None => {}
        }
        *response.body_mut() = Body::empty();
    }
}

/// Whether `tags`, the value of If-None-Match, names `tag` by weak comparison (RFC 9110 sections 8.8.3.2 and 13.1.2).
///
/// What is malformed matches nothing, and neither does anything after it.
fn matches_tag(tags: &[u8], tag: Option<&[u8]>) -> bool {
    if tags.trim_ascii() == b"*" {
        return true;
    }
    let Some((tag, _)) = tag.and_then(opaque_tag) else { return false };
    let mut rest = tags;
    loop {
        // Empty elements of a list are allowed (section 5.6.1.2).
        while let [b' ' | b'\t' | b',', after @ ..] = rest {
            rest = after;
        }
        let Some((candidate, after)) = opaque_tag(rest) else { return false };
        if candidate == tag {
            return true;
        }
        rest = after.trim_ascii_start();
        if !rest.starts_with(b",") {
            return false;
        }
    }
}

/// The opaque part of the entity-tag that `text` begins with, and what follows it. Commas inside belong to it.
fn opaque_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"W/").unwrap_or(text).strip_prefix(b"\"")?;
    let end = text.iter().position(|b| !matches!(b, 0x21 | 0x23..=0x7e | 0x80..))?;
    (text[end] == b'"').then(|| (&text[..end], &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use http::header::SET_COOKIE;

    use super::*;
    use crate::message::Request;

    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn response(etag: &str, modified: &str) -> Response {
        let mut response = Response::text("hello");
        if !etag.is_empty() {
            response.headers_mut().insert(ETAG, etag.parse().unwrap());
        }
        if !modified.is_empty() {
            response.headers_mut().insert(LAST_MODIFIED, modified.parse().unwrap());
        }
        response
    }

    fn check(method: &str, headers: &[(&str, &str)], response: &Response) -> bool {
        not_modified(&Request::test(method, "/", headers, "").into_parts().0, response)
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let is = |tags: &str, etag: &str| check("GET", &[("If-None-Match", tags)], &response(etag, ""));
        for (tags, etag) in [
            (r#""a""#, r#""a""#),
            (r#"W/"a""#, r#""a""#),
            (r#""a""#, r#"W/"a""#),
            (r#""x", W/"a" ,"b""#, r#"W/"a""#),
            (r#", ,"a""#, r#""a""#),
            (r#""a,b""#, r#""a,b""#),
            (r#""""#, r#""""#),
            ("*", r#""a""#),
            (" * ", ""),
        ] {
            assert!(is(tags, etag), "{tags} {etag}");
        }
        for (tags, etag) in [
            (r#""b""#, r#""a""#),
            ("a", r#""a""#),
            (r#""a"#, r#""a""#),
            (r#"w/"a""#, r#""a""#),
            (r#""x,"a"""#, r#""a""#),
            (r#""x" "a""#, r#""a""#),
            (r#""a""#, ""),
            (r#""a""#, "a"),
            ("", r#""a""#),
        ] {
            assert!(!is(tags, etag), "{tags} {etag}");
        }
    }

    #[test]
    fn if_modified_since_counts_seconds() {
        let is = |since: &str, modified: &str| check("GET", &[("If-Modified-Since", since)], &response("", modified));
        assert!(is(OLD, OLD));
        assert!(is(NEW, OLD));
        assert!(is("Sunday, 06-Nov-94 08:49:37 GMT", OLD));
        assert!(!is(OLD, NEW));
        assert!(!is(NEW, ""));
        assert!(!is("yesterday", OLD));
        assert!(!is(&format!("{NEW}, {NEW}"), OLD));
        assert!(!is(NEW, "never"));
    }

    #[test]
    fn if_none_match_goes_first() {
        let both = |tag, since| [("If-None-Match", tag), ("If-Modified-Since", since)];
        assert!(!check("GET", &both(r#""b""#, NEW), &response(r#""a""#, OLD)));
        assert!(check("GET", &both(r#""a""#, OLD), &response(r#""a""#, NEW)));
        assert!(!check("GET", &both("garbage", NEW), &response("", OLD)));
    }

    #[test]
    fn only_get_and_head_answered_with_200() {
        for (method, status, expected) in
            [("GET", 200, true), ("HEAD", 200, true), ("POST", 200, false), ("GET", 404, false), ("GET", 206, false)]
        {
            let response = response("\"a\"", OLD).with_status(StatusCode::from_u16(status).unwrap());
            assert_eq!(check(method, &[("If-None-Match", "*")], &response), expected, "{method} {status}");
            assert_eq!(check(method, &[("If-Modified-Since", NEW)], &response), expected, "{method} {status}");
        }
    }

    fn finished(method: &str, headers: &[(&str, &str)], mut response: Response) -> Response {
        finish(&Request::test(method, "/", headers, "").into_parts().0, &mut response);
        response
    }

    #[test]
    fn a_304_keeps_what_updates_a_cache_and_cookies() {
        let mut response = response("\"a\"", OLD);
        for name in [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_LANGUAGE] {
            response.headers_mut().insert(name, HeaderValue::from_static("5"));
        }
        response.set_cookie(("a", "1")).unwrap();
        let response = finished("GET", &[("If-None-Match", "\"a\"")], response);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert!(response.body().is_empty());
        let mut names: Vec<_> = response.headers().keys().collect();
        names.sort_by_key(|name| name.as_str());
        assert_eq!(names, [ETAG, LAST_MODIFIED, SET_COOKIE]);
    }

    #[test]
    fn no_body_where_none_may_be() {
        for status in [100, 103, 204, 205, 304] {
            let mut response = Response::text("hello").with_status(StatusCode::from_u16(status).unwrap());
            response.headers_mut().insert(CONTENT_LENGTH, 5.into());
            let response = finished("GET", &[], response);
            assert!(response.body().is_empty(), "{status}");
            assert!(!response.headers().contains_key(CONTENT_LENGTH), "{status}");
        }
        let response = finished("GET", &[], Response::text("hello").with_status(StatusCode::NOT_FOUND));
        assert_eq!(response.body().length(), Some(5));
    }

    #[test]
    fn head_announces_what_get_would_send() {
        let response = finished("HEAD", &[], Response::text("hello"));
        assert_eq!(response.headers()[CONTENT_LENGTH], "5");
        assert!(response.body().is_empty());
        assert!(response.headers().contains_key(CONTENT_TYPE));

        let response = finished("HEAD", &[], Response::stream("text/plain", &b"hello"[..]));
        assert!(!response.headers().contains_key(CONTENT_LENGTH));
        assert!(response.body().is_empty());

        let mut own = Response::new(StatusCode::OK);
        own.headers_mut().insert(CONTENT_LENGTH, 77.into());
        assert_eq!(finished("HEAD", &[], own).headers()[CONTENT_LENGTH], "77");
        assert_eq!(finished("HEAD", &[], Response::new(StatusCode::OK)).headers()[CONTENT_LENGTH], "0");
    }
}
