use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::super::activity::Alone;
use super::super::exchange::support::{Counter, Echo, client};
use super::*;

const CLOSE: &str = "Connection: close\r\n";

fn get(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes()
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}").into_bytes()
}

/// Serves until the connection is closed, waiting like a worker where it is idle.
fn exchange_with(pieces: Vec<Vec<u8>>, counter: &Counter) -> String {
    let (mut stream, thread) = client(pieces);
    let (echo, mut buffers) = (Echo::new(), Buffers::new());
    let deadline = Instant::now() + Duration::from_secs(1);
    while let Next::Idle(idle) = serve(stream, None, &echo, counter, &mut buffers) {
        if Instant::now() > deadline {
            break;
        }
        stream = idle;
        std::thread::sleep(Duration::from_millis(1));
    }
    String::from_utf8(thread.join().unwrap()).unwrap()
}

fn exchange(pieces: Vec<Vec<u8>>) -> String {
    exchange_with(pieces, &Counter::default())
}

fn status(bytes: &[u8]) -> String {
    let response = exchange(vec![bytes.to_vec()]);
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
    assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
    response[9..12].to_owned()
}

#[test]
fn a_quiet_connection_is_not_waited_for() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let (echo, counter, mut buffers) = (Echo::new(), Counter::default(), Buffers::new());
    let started = Instant::now();
    let stream = Stream::new(server, None, None);
    let Next::Idle(stream) = serve(stream, None, &echo, &counter, &mut buffers) else { panic!("closed") };
    client.write_all(&get("/a", "")).unwrap();
    let Next::Idle(stream) = serve(stream, None, &echo, &counter, &mut buffers) else { panic!("closed") };
    client.write_all(b"\r\n").unwrap();
    let Next::Idle(stream) = serve(stream, None, &echo, &counter, &mut buffers) else { panic!("closed") };
    assert!(started.elapsed() < Duration::from_millis(100));
    assert_eq!(counter.begun.take(), ["GET /a"]);
    let mut response = [0; 1000];
    let n = client.read(&mut response).unwrap();
    assert!(response[..n].ends_with(b"\r\n\r\nGET /a 0\n"));
    counter.stopping.set(true);
    assert!(
        matches!(serve(stream, None, &echo, &counter, &mut buffers), Next::Idle(_)),
        "its request may be on its way"
    );
}

#[test]
fn who_leaves_is_closed() {
    let (client, server) = UnixStream::pair().unwrap();
    drop(client);
    let next = serve(Stream::new(server, None, None), None, &Echo::new(), &Counter::default(), &mut Buffers::new());
    assert!(matches!(next, Next::Close));
}

#[test]
fn pipelined_requests_are_answered_in_order_however_they_are_cut() {
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    let whole = [
        get("/a", ""),
        post("Content-Length: 3\r\n", "xyz"),
        post("Transfer-Encoding: chunked\r\n", chunks),
        get("/d", CLOSE),
    ]
    .concat();
    for cut in [0, 1, 17, 30, whole.len() / 3, whole.len() / 2, whole.len() - 70, whole.len() - 1] {
        let counter = Counter::default();
        let response = exchange_with(vec![whole[..cut].to_vec(), whole[cut..].to_vec()], &counter);
        assert_eq!(counter.begun.take(), ["GET /a", "POST /", "POST /", "GET /d"], "{cut}");
        assert_eq!(counter.ended.get(), 4);
        let expected = ["GET /a 0\n", "POST / 3\nxyz", "POST / 3\nabc", "GET /d 0\n"];
        let mut at = 0;
        for expected in expected {
            at += response[at..].find(expected).unwrap_or_else(|| panic!("{expected} in {response}"));
        }
        assert_eq!(response.matches("Connection: close").count(), 1);
        assert!(response.ends_with("GET /d 0\n"));
    }
}

#[test]
fn nothing_is_served_after_close() {
    let counter = Counter::default();
    exchange_with(vec![[get("/a", CLOSE), get("/b", "")].concat()], &counter);
    assert_eq!(counter.begun.take(), ["GET /a"]);
}

#[test]
fn a_stopping_worker_closes_after_the_response() {
    let counter = Counter::default();
    counter.stopping.set(true);
    let response = exchange_with(vec![get("/a", "")], &counter);
    assert!(response.contains("Connection: close\r\n") && response.ends_with("GET /a 0\n"));
}

#[test]
fn a_connection_cannot_keep_the_worker_for_ever() {
    let counter = Counter::default();
    exchange_with(vec![get("/a", "").repeat(IN_A_ROW as usize + 5)], &counter);
    assert_eq!(counter.ended.get(), IN_A_ROW);
}

#[test]
fn http_1_0_is_closed_unless_it_asks_to_stay() {
    let response = exchange(vec![b"GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.0\r\n\r\n".to_vec()]);
    assert!(response.contains("Connection: close") && !response.contains("/b"));
    let stays = b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n";
    let response = exchange(vec![stays.to_vec()]);
    assert!(response.contains("Connection: keep-alive") && response.ends_with("GET /b 0\n"));
    let response = exchange(vec![b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec()]);
    assert!(response.contains("Connection: close") && !response.contains("chunked"));
    assert_eq!(response.split_once("\r\n\r\n").unwrap().1.len(), 100_000);
}

#[test]
fn a_client_that_waits_is_told_to_continue() {
    let fields = "Content-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n";
    let response = exchange(vec![post(fields, ""), b"abc".to_vec()]);
    assert!(response.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("POST / 3\nabc"));
    let response = exchange(vec![post(fields, "abc")]);
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert_eq!(status(&post("Content-Length: 300000\r\nExpect: 100-continue\r\n", "")), "413");
    assert_eq!(status(&post("Expect: wonders\r\n", "")), "417");
}

#[test]
fn refused_requests_close_the_connection() {
    assert_eq!(status(&post("Content-Length: 300000\r\n", &"x".repeat(300_000))), "413");
    let chunks = format!("{}0\r\n\r\n", format!("8000\r\n{}\r\n", "x".repeat(0x8000)).repeat(8));
    assert_eq!(status(&post("Transfer-Encoding: chunked\r\n", &chunks)), "413");
    assert_eq!(status(&post("Transfer-Encoding: chunked\r\n", "\r\n\r\n")), "400");
    assert_eq!(status(&post("Transfer-Encoding: gzip\r\n", "")), "501");
    assert_eq!(status(&post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "abc")), "400");
    assert_eq!(status(&[b"GET /", &vec![b'a'; 70_000][..]].concat()), "414");
    assert_eq!(status(&get("/", &format!("A: {}\r\n", "a".repeat(70_000)))), "431");
    assert_eq!(status(b"GET / HTTP/2.0\r\n\r\n"), "505");
    assert_eq!(status(&get("/../x", "")), "404");
    assert_eq!(status(&get("/%00", "")), "400");
}

#[test]
fn slow_senders_are_told_so() {
    assert_eq!(status(b"GET / HT"), "408");
    assert_eq!(status(&post("Content-Length: 3\r\n", "a")), "408");
    assert_eq!(status(&post("Transfer-Encoding: chunked\r\n", "3\r\nab")), "408");
}

#[test]
fn a_body_in_chunks_is_like_every_other_for_the_application() {
    let (stream, thread) =
        client(vec![post("Transfer-Encoding: chunked\r\nTrailer: X\r\n", "3;a\r\nabc\r\n0\r\nX: y\r\n\r\n")]);
    std::thread::sleep(Duration::from_millis(20));
    let mut buffers = Buffers::new();
    let limits = Echo::new().limits;
    let Received { meta, body, .. } =
        receive(&stream, &mut Reception::http(&limits), &limits, &Alone, &mut buffers).unwrap();
    assert_eq!(meta.get("CONTENT_LENGTH"), Some(&b"3"[..]));
    assert_eq!((meta.get("HTTP_TRANSFER_ENCODING"), meta.get("HTTP_TRAILER")), (None, None));
    assert_eq!(body.into_bytes().unwrap(), "abc");
    drop(stream);
    thread.join().unwrap();
}

#[test]
fn head_has_the_same_head_and_no_body() {
    let request = b"HEAD /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_vec();
    let response = exchange(vec![request]);
    assert!(response.contains("Content-Length: 3000000\r\n") && response.ends_with("\r\n\r\n"));
    let response = exchange(vec![b"HEAD /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_vec()]);
    assert!(response.ends_with("\r\n\r\n") && !response.contains("chunked"));
}

#[test]
fn streams_come_in_chunks_and_a_failed_one_has_no_last_chunk() {
    // One more x is in `text/plain`.
    let response = exchange(vec![get("/stream", CLOSE)]);
    assert!(response.contains("Transfer-Encoding: chunked\r\n") && response.ends_with("\r\n0\r\n\r\n"));
    assert_eq!(response.matches('x').count(), 1 + 100_000);
    let response = exchange(vec![get("/fails", "")]);
    assert!(response.starts_with("HTTP/1.1 200 ") && !response.ends_with("0\r\n\r\n"));
    let response = exchange(vec![get("/short", "")]);
    assert!(response.contains("Content-Length: 100000\r\n"));
    assert_eq!(response.matches('x').count(), 1 + 70_000);
    let response = exchange(vec![get("/known", CLOSE)]);
    assert_eq!(response.split_once("\r\n\r\n").unwrap().1.len(), 100_000);
    for path in ["/panics", "/empty"] {
        let response = exchange(vec![[get(path, ""), get("/next", CLOSE)].concat()]);
        assert!(response.starts_with("HTTP/1.1 500 ") && response.ends_with("GET /next 0\n"), "{response}");
    }
}

#[test]
fn a_large_response_is_written_whole() {
    let response = exchange(vec![get("/big", CLOSE)]);
    assert_eq!(response.split_once("\r\n\r\n").unwrap().1.len(), 3_000_000);
}
