use proptest::prelude::*;

use super::*;
use crate::message::Body;

fn limits() -> Limits {
    Limits { head: 500, head_count: 60, ..Limits::default() }
}

/// Scans in pieces of `step` and parses.
fn read(bytes: &[u8], step: usize) -> Result<Option<(Head, usize)>, GatewayError> {
    let limits = limits();
    let mut scanner = HeadScanner::default();
    let mut end = 0;
    while end < bytes.len() {
        end = bytes.len().min(end + step);
        if let Some(length) = scanner.scan(&bytes[..end], &limits)? {
            return Ok(Some((parse_head(&bytes[..length], Ends::default(), &limits)?, bytes.len() - length)));
        }
    }
    Ok(None)
}

fn head(text: &str) -> Result<Head, u16> {
    let whole = |step| read(text.as_bytes(), step).map_err(|error| error.status().as_u16());
    let (outcome, in_bytes) = (whole(10_000), whole(1));
    assert_eq!(format!("{outcome:?}"), format!("{in_bytes:?}"), "{text:?}");
    outcome.map(|head| head.unwrap_or_else(|| panic!("incomplete: {text:?}")).0)
}

fn get(fields: &str) -> Result<Head, u16> {
    head(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
}

fn field(fields: &str, name: &str) -> Option<String> {
    get(fields).unwrap().meta.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
}

#[test]
fn a_head_becomes_meta_variables() {
    let ends = Ends { peer: Some("192.0.2.1:4711".parse().unwrap()), local: Some("[::1]:8080".parse().unwrap()) };
    let bytes =
        b"POST /a%20b?c=d?e#f HTTP/1.1\r\nHost: example.org\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\
                  X-Forwarded-For: 1.1.1.1\r\nx-empty:\r\n\r\n";
    let head = parse_head(bytes, ends, &Limits::default()).unwrap();
    for (name, value) in [
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/a%20b?c=d?e#f"),
        ("QUERY_STRING", "c=d?e"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REMOTE_ADDR", "192.0.2.1"),
        ("REMOTE_PORT", "4711"),
        ("SERVER_ADDR", "::1"),
        ("SERVER_NAME", "[::1]"),
        ("SERVER_PORT", "8080"),
        ("HTTP_HOST", "example.org"),
        ("CONTENT_TYPE", "text/plain"),
        ("CONTENT_LENGTH", "3"),
        ("HTTP_X_FORWARDED_FOR", "1.1.1.1"),
        ("HTTP_X_EMPTY", ""),
    ] {
        assert_eq!(head.meta.get_str(name), Some(value), "{name}");
    }
    assert_eq!(head.meta.len(), 14);
    assert_eq!(head.framing, Framing::Length(3));
    let anywhere = Ends { peer: None, local: Some("0.0.0.0:81".parse().unwrap()) };
    let head = parse_head(bytes, anywhere, &Limits::default()).unwrap();
    assert_eq!(head.meta.get_str("SERVER_NAME"), Some("localhost"));
    assert_eq!((head.meta.get("REMOTE_ADDR"), head.meta.get_str("SERVER_PORT")), (None, Some("81")));
}

#[test]
fn every_prefix_asks_for_more_and_what_follows_is_left() {
    let whole = b"\r\nGET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\nGET /next";
    let length = whole.len() - 9;
    for end in 1..length {
        assert!(read(&whole[..end], 1000).unwrap().is_none(), "{end}");
    }
    for step in 1..whole.len() {
        assert_eq!(read(whole, step).unwrap().unwrap().1, 9, "{step}");
    }
}

#[test]
fn malformed_heads_are_refused() {
    for wrong in [
        "GET / HTTP/1.1\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\tfolded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n\r\n",
        "GET / HTTP/1.1\r\n: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA b: c\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / x HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /\r\n\r\n",
        "GET\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: h\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
        "GET / http/1.1\r\nHost: h\r\n\r\n",
        "GET /\r HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: h\r\n\r\n",
        "GET / HTTP/11\r\nHost: h\r\n\r\n",
    ] {
        assert_eq!(head(wrong).err(), Some(400), "{wrong:?}");
    }
    assert!(head("GET / HTTP/1.0\r\n\r\n").is_ok(), "HTTP/1.0 has no Host");
}

#[test]
fn other_versions_are_named_as_such() {
    for version in ["1.2", "2.0", "0.9", "3.0"] {
        assert_eq!(head(&format!("GET / HTTP/{version}\r\nHost: h\r\n\r\n")).err(), Some(505), "{version}");
    }
    assert_eq!(head("PRI * HTTP/2.0\r\n\r\n").err(), Some(505));
    assert_eq!(head("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n").err(), Some(501));
}

#[test]
fn long_heads_are_refused_before_they_end() {
    let error = |bytes: &[u8], step| read(bytes, step).err().map(|error| error.status().as_u16());
    for step in [1, 100, 10_000] {
        assert_eq!(error(&[b'G'; 501], step), Some(414));
        assert_eq!(error(&[b"GET /", &[b'a'; 600][..], b" HTTP/1.1\r\n"].concat(), step), Some(414));
        assert_eq!(error(&[b"GET / HTTP/1.1\r\nA: ", &[b'a'; 500][..]].concat(), step), Some(431));
        assert_eq!(error(&[b"GET / HTTP/1.1\r\n", &b"A: b\r\n".repeat(100)[..]].concat(), step), Some(431));
    }
    assert_eq!(error(&[b'G'; 500], 500), None);
    // Both too long and malformed: the answer is the same however it arrives.
    for step in [1, 100, 10_000] {
        assert_eq!(error(&[b"GET / HTTP/1.1\r\nA: ", &[b'a'; 500][..], b"\n"].concat(), step), Some(431));
    }
    let many = |n: usize| get(&"A:\r\n".repeat(n - 1)).err();
    assert_eq!(many(10), None);
    assert_eq!(many(60), None, "more than fit in the array on the stack");
    assert_eq!(many(61), Some(431));
    let few = Limits { head_count: 2, ..Limits::default() };
    let three = b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\nC: d\r\n\r\n";
    assert_eq!(parse_head(three, Ends::default(), &few).unwrap_err().status(), 431);
}

#[test]
fn lengths_that_two_servers_could_read_differently_are_refused() {
    assert_eq!(get("").unwrap().framing, Framing::Length(0));
    assert_eq!(get("Content-Length: 5\r\n").unwrap().framing, Framing::Length(5));
    assert_eq!(get("Content-Length: 005 \r\n").unwrap().framing, Framing::Length(5));
    assert_eq!(get("Transfer-Encoding: Chunked\r\n").unwrap().framing, Framing::Chunked);
    for wrong in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\ncontent-length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Content-Type: a/b\r\nContent-Type: c/d\r\n",
    ] {
        assert_eq!(get(wrong).err(), Some(400), "{wrong:?}");
    }
    for unknown in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "xchunked", "chunked;q=1", ""] {
        assert_eq!(get(&format!("Transfer-Encoding: {unknown}\r\n")).err(), Some(501), "{unknown}");
    }
    assert_eq!(head("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").err(), Some(400));
}

#[test]
fn names_that_collide_are_dropped() {
    assert_eq!(field("X-Foo: proxy\r\nX_Foo: client\r\n", "HTTP_X_FOO").as_deref(), Some("proxy"));
    assert_eq!(field("X_Foo: client\r\n", "HTTP_X_FOO"), None);
    assert_eq!(field("Proxy: http://evil\r\n", "HTTP_PROXY"), None);
    assert_eq!(field("Content_Length: 5\r\n", "CONTENT_LENGTH"), None);
    assert_eq!(get("Transfer_Encoding: chunked\r\n").unwrap().framing, Framing::Length(0));
}

#[test]
fn repeated_fields_are_joined() {
    assert_eq!(field("Accept: a\r\nX: y\r\naccept: b\r\nACCEPT: c\r\n", "HTTP_ACCEPT").as_deref(), Some("a, b, c"));
    assert_eq!(field("Cookie: a=b\r\nCookie: c=d\r\n", "HTTP_COOKIE").as_deref(), Some("a=b; c=d"));
    assert!(get("Accept: a\r\nAccept: b\r\n").unwrap().meta.first_repeated_name().is_none());
}

#[test]
fn expectations_and_persistence() {
    let expects = |fields: &str| get(fields).map(|head| head.expects_continue);
    assert_eq!(expects("Content-Length: 5\r\nExpect: 100-Continue\r\n"), Ok(true));
    assert_eq!(expects("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"), Ok(true));
    assert_eq!(expects("Expect: 100-continue\r\n"), Ok(false), "there is nothing to wait for");
    assert_eq!(expects("Content-Length: 5\r\n"), Ok(false));
    assert_eq!(expects("Expect: 200-ok\r\n"), Err(417));
    let stays = |text: &str| head(text).unwrap().exchange.keep_alive;
    assert!(stays("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert!(!stays("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n"));
    assert!(!stays("GET / HTTP/1.1\r\nHost: h\r\nConnection: x\r\nConnection: close\r\n\r\n"));
    assert!(!stays("GET / HTTP/1.0\r\n\r\n"));
    assert!(stays("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    assert!(!stays("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"));
}

fn response_head(response: &Response, exchange: Exchange) -> (String, Delivery, bool) {
    let mut out = Vec::new();
    let (delivery, keep_alive) = write_head(&mut out, response, exchange, SystemTime::UNIX_EPOCH);
    (String::from_utf8(out).unwrap(), delivery, keep_alive)
}

const KEPT: Exchange = Exchange { is_11: true, is_head: false, keep_alive: true };
const OLD: Exchange = Exchange { is_11: false, is_head: false, keep_alive: true };
const HEAD: Exchange = Exchange { is_11: true, is_head: true, keep_alive: true };

#[test]
fn a_response_head_says_where_the_message_body_ends() {
    let text = Response::text("hello");
    let expected = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain; charset=utf-8\r\n\
                    Content-Length: 5\r\n\r\n";
    assert_eq!(response_head(&text, KEPT), (expected.to_owned(), Delivery::Length(5), true));
    let (head, delivery, keep_alive) = response_head(&text, Exchange::BROKEN);
    assert!(head.ends_with("Connection: close\r\n\r\n") && delivery == Delivery::Length(5) && !keep_alive);
    assert!(response_head(&text, OLD).0.ends_with("Connection: keep-alive\r\n\r\n"));

    let stream = || Response::stream("text/plain", &b"x"[..]);
    let (head, delivery, keep_alive) = response_head(&stream(), KEPT);
    assert!(head.ends_with("Transfer-Encoding: chunked\r\n\r\n") && !head.contains("Content-Length"));
    assert_eq!((delivery, keep_alive), (Delivery::Chunked, true));
    let (head, delivery, keep_alive) = response_head(&stream(), OLD);
    assert!(head.ends_with("Connection: close\r\n\r\n") && !head.contains("chunked"));
    assert_eq!((delivery, keep_alive), (Delivery::ToEnd, false));
}

#[test]
fn some_responses_have_no_message_body() {
    for status in [100, 101, 204, 304] {
        let response = Response::text("x").with_status(status.try_into().unwrap());
        let (head, delivery, keep_alive) = response_head(&response, KEPT);
        assert!(!head.contains("Content-Length") && !head.contains("chunked"), "{status}");
        assert_eq!((delivery, keep_alive), (Delivery::None, status >= 200), "{status}");
    }
    let (head, delivery, keep_alive) = response_head(&Response::text("hello"), HEAD);
    assert!(head.contains("Content-Length: 5\r\n"));
    assert_eq!((delivery, keep_alive), (Delivery::None, true));
    assert!(!response_head(&Response::new(http::StatusCode::OK), HEAD).0.contains("Content-Length"));
    assert!(response_head(&Response::new(http::StatusCode::OK), KEPT).0.contains("Content-Length: 0\r\n"));
}

#[test]
fn the_application_may_close_but_not_frame() {
    let mut response = Response::text("x");
    for (name, value) in
        [("connection", "x, close"), ("content-length", "7"), ("transfer-encoding", "gzip"), ("date", "d")]
    {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    let (head, _, keep_alive) = response_head(&response, KEPT);
    assert!(!keep_alive);
    assert_eq!(head.matches("Connection").count() + head.matches("Date: d").count(), 2);
    assert_eq!((head.matches("Content-Length").count(), head.matches("Transfer").count()), (1, 0));
    assert_eq!(Body::empty().length(), Some(0));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1..50_usize) {
        let _ = read(&bytes, step);
    }

    #[test]
    fn a_mutated_head_is_read_the_same_however_it_is_cut(at in 0..80_usize, byte: u8, step in 1..80_usize) {
        let mut head = b"POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\nA: b\r\n\r\n".to_vec();
        let at = at % head.len();
        head[at] = byte;
        let outcome = |step| read(&head, step).map(|head| head.map(|(head, rest)| (format!("{head:?}"), rest)))
            .map_err(|error| error.to_string());
        prop_assert_eq!(outcome(step), outcome(1000));
    }
}
