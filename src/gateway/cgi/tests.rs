use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::*;
use crate::gateway::location;
use crate::message::Body;

fn head(mut response: Response, method: &str) -> String {
    let parts = location::tests::parts(method, "/app/x?y", "/app", "example.org");
    complete(&mut response, &parts);
    let mut out = b"before".to_vec();
    let length = write_head(&mut out, &response, Some(&parts));
    assert_eq!(length, out.len() - 6);
    String::from_utf8(out[6..].to_vec()).unwrap()
}

#[test]
fn status_comes_first_and_content_length_once() {
    let mut response = Response::text("hello");
    for (name, value) in
        [("content-length", "99"), ("status", "500"), ("transfer-encoding", "chunked"), ("connection", "x")]
    {
        response.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    assert_eq!(
        head(response, "GET"),
        "Status: 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\r\n"
    );
    assert_eq!(head(Response::new(StatusCode::OK), "GET"), "Status: 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert!(head(Response::new(StatusCode::from_u16(799).unwrap()), "GET").starts_with("Status: 799 Unknown\r\n"));
}

#[test]
fn a_length_is_written_only_where_it_is_known_and_allowed() {
    let stream = || Response::stream("text/plain", &b"x"[..]);
    assert!(!head(stream(), "GET").contains("Content-Length"));
    assert!(!head(Response::text("x").with_status(StatusCode::NO_CONTENT), "GET").contains("Content-Length"));
    assert!(!head(Response::text("x").with_status(StatusCode::NOT_MODIFIED), "GET").contains("Content-Length"));
    assert!(head(Response::text("x"), "HEAD").contains("Content-Length: 1\r\n"));
    assert!(!head(Response::new(StatusCode::OK), "HEAD").contains("Content-Length"));
    assert!(!has_body(StatusCode::OK, Some(&Method::HEAD)));
    assert!(has_body(StatusCode::OK, Some(&Method::GET)));
    assert!(!has_body(StatusCode::NO_CONTENT, None));
}

/// Apache and lighttpd run a local redirect themselves, and the browser never sees its Set-Cookie.
#[test]
fn a_redirect_that_eats_the_cookie_is_not_sent() {
    let mut response = Response::redirect("/app/next").unwrap();
    *response.body_mut() = Body::empty();
    response.headers_mut().remove("content-type");
    response.headers_mut().append("set-cookie", HeaderValue::from_static("a=b"));
    response.headers_mut().append("set-cookie", HeaderValue::from_static("c=d"));
    assert_eq!(
        head(response, "POST"),
        "Status: 303 See Other\r\nLocation: http://example.org/app/next\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: 10\r\n\r\n"
    );
    let mut created = Response::new(StatusCode::CREATED);
    created.headers_mut().insert("location", HeaderValue::from_static("7"));
    assert!(head(created, "POST").contains("Location: http://example.org/app/7\r\nContent-Length: 0"));
}

#[test]
fn a_message_body_has_a_type() {
    let response = || Response::from(http::Response::new("x"));
    assert!(head(response(), "GET").contains("Content-Type: application/octet-stream\r\n"));
    assert!(!head(Response::new(StatusCode::OK), "GET").contains("Content-Type"));
}

#[test]
fn without_a_request_there_is_a_head_too() {
    let mut out = Vec::new();
    write_head(&mut out, &Response::text("x").with_status(StatusCode::BAD_REQUEST), None);
    assert!(out.starts_with(b"Status: 400 Bad Request\r\n"));
}
