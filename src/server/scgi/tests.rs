use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::super::activity::Alone;
use super::super::exchange::support::{Counter, Echo, client};
use super::*;

fn request(path: &str, length: usize) -> Vec<u8> {
    let block = format!("CONTENT_LENGTH\0{length}\0SCGI\x001\0REQUEST_METHOD\0POST\0REQUEST_URI\0{path}\0");
    format!("{}:{block},", block.len()).into_bytes()
}

fn exchange(pieces: Vec<Vec<u8>>) -> (String, Counter) {
    let (stream, thread) = client(pieces);
    let counter = Counter::default();
    serve(stream, None, &Echo::new(), &counter, &mut Buffers::new());
    (String::from_utf8(thread.join().unwrap()).unwrap(), counter)
}

#[test]
fn a_request_is_answered_however_it_is_cut() {
    let whole = [request("/a", 5), b"hello".to_vec()].concat();
    for cut in [0, 1, 3, 20, whole.len() - 6, whole.len() - 5, whole.len() - 4, whole.len() - 1] {
        let (response, counter) = exchange(vec![whole[..cut].to_vec(), whole[cut..].to_vec()]);
        assert!(response.starts_with("Status: 200 OK\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\nPOST /a 5\nhello"), "{response}");
        assert_eq!((counter.begun.take(), counter.ended.get()), (vec!["POST /a".to_owned()], 1));
    }
}

#[test]
fn a_large_body_arrives_whole() {
    let (response, _) = exchange(vec![request("/", 150_000), vec![b'y'; 150_000]]);
    assert!(response.contains("POST / 150000\nyyy"), "{response}");
}

#[test]
fn a_body_past_the_limit_is_refused_at_once_and_its_sender_reads_why() {
    let (response, counter) = exchange(vec![[request("/", 3_000_000), vec![b'y'; 3_000_000]].concat()]);
    assert!(response.starts_with("Status: 413 Payload Too Large\r\n"), "{response}");
    assert!(counter.begun.take().is_empty());
}

#[test]
fn over_tcp_a_refused_sender_reads_the_response_and_no_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&[request("/", 3_000_000), vec![b'y'; 3_000_000]].concat()).unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).unwrap();
        response
    });
    let (socket, peer) = listener.accept().unwrap();
    let mut echo = Echo::new();
    echo.limits.body_timeout = Duration::from_secs(5);
    serve(Stream::new(socket, Some(peer), Some(address)), None, &echo, &Alone, &mut Buffers::new());
    assert!(thread.join().unwrap().starts_with("Status: 413 "));
}

#[test]
fn slow_senders_are_told_so_and_silent_ones_nothing() {
    assert!(exchange(vec![b"70:CONTENT".to_vec()]).0.starts_with("Status: 408 "));
    assert!(exchange(vec![request("/", 5)]).0.starts_with("Status: 408 "));
    assert_eq!(exchange(vec![]).0, "");
}

#[test]
fn a_trickle_does_not_prolong_the_head() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        for &byte in &request("/", 0) {
            std::thread::sleep(Duration::from_millis(20));
            if client.write_all(&[byte]).is_err() {
                break;
            }
        }
    });
    let started = Instant::now();
    let mut buffers = Buffers::new();
    let limits = Echo::new().limits;
    let stream = Stream::new(server, None, None);
    let result = receive(&stream, &mut Reception::scgi(&limits), &limits, &Alone, &mut buffers);
    let Err(Unserved::Refused(refusal)) = result else { panic!("{result:?}") };
    assert!(matches!(refusal.error, GatewayError::Timeout(_)));
    assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
    thread.join().unwrap();
}

#[test]
fn who_leaves_in_the_middle_is_not_served() {
    for part in [&b"70:CONTENT"[..], &request("/", 5)[..]] {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(part).unwrap();
        drop(client);
        let counter = Counter::default();
        serve(Stream::new(server, None, None), None, &Echo::new(), &counter, &mut Buffers::new());
        assert!(counter.begun.take().is_empty());
    }
}

#[test]
fn a_second_request_on_the_connection_is_never_parsed() {
    let (response, counter) = exchange(vec![[request("/a", 0), request("/b", 0)].concat()]);
    assert_eq!(response.matches("Status:").count(), 1);
    assert_eq!(counter.begun.take(), ["POST /a"]);
}

#[test]
fn malformed_and_outside_requests_are_refused_in_cgi_form() {
    let (response, _) = exchange(vec![b"+24:x".to_vec()]);
    assert!(response.starts_with("Status: 400 Bad Request\r\nContent-Type: text/plain"), "{response}");
    assert!(response.ends_with("\r\n\r\n400 Bad Request\n"), "{response}");
    assert!(exchange(vec![request("/../x", 0)]).0.starts_with("Status: 404 "));
    assert!(exchange(vec![request("/%", 0)]).0.starts_with("Status: 400 "));
    let long = format!("{}:", 1 << 20);
    assert!(exchange(vec![long.into_bytes()]).0.starts_with("Status: 431 "));
}

#[test]
fn streamed_bodies_are_cut_at_their_length_and_failures_shown_where_possible() {
    let body = |path| {
        let response = exchange(vec![request(path, 0)]).0;
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    };
    let (head, all) = body("/stream");
    assert!(!head.contains("Content-Length") && !head.contains("Transfer-Encoding"));
    assert_eq!(all.len(), 100_000);
    let (head, all) = body("/known");
    assert!(head.contains("Content-Length: 100000"));
    assert_eq!(all.len(), 100_000);
    assert!(body("/short").1.len() < 100_000);
    assert!(body("/empty").0.starts_with("Status: 500 "));
    assert!(body("/panics").0.starts_with("Status: 500 "));
    assert_eq!(body("/big").1.len(), 3_000_000);
}

#[test]
fn a_reader_that_fails_ends_in_a_reset_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(&request("/fails", 0)).unwrap();
    let (socket, peer) = listener.accept().unwrap();
    serve(Stream::new(socket, Some(peer), None), None, &Echo::new(), &Alone, &mut Buffers::new());
    assert!(client.read_to_end(&mut Vec::new()).is_err(), "half a page must not look like one");
}

#[test]
fn a_client_that_does_not_read_is_left() {
    let (mut client, server) = UnixStream::pair().unwrap();
    client.write_all(&request("/big", 0)).unwrap();
    let started = Instant::now();
    serve(Stream::new(server, None, None), None, &Echo::new(), &Alone, &mut Buffers::new());
    assert!(started.elapsed() < Duration::from_secs(2));
}
