//! Responses that are read slowly.

use std::thread;
use std::time::{Duration, Instant};

use crate::site::{Client, PAUSE, Site, WAYS, Way, pattern};
use crate::support::turn;

/// More than the kernel takes for a client that does not read.
const LARGE: usize = 12 << 20;

/// Reads to the end of the connection, with pauses at first.
fn read_slowly(client: &mut Client) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..5 {
        thread::sleep(PAUSE);
        let mut piece = [0; 1000];
        let n = client.read(&mut piece).expect("more");
        all.extend_from_slice(&piece[..n]);
    }
    all.extend(client.rest().expect("the rest"));
    all
}

/// The message-body of a response, decoded.
fn body(response: &[u8]) -> Vec<u8> {
    let at = response.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let (head, mut body) = (String::from_utf8_lossy(&response[..at]), &response[at..]);
    if !head.contains("Transfer-Encoding: chunked") {
        return body.to_vec();
    }
    let mut all = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").expect("a size");
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).expect("text"), 16).expect("a size");
        body = &body[end + 2..];
        if size == 0 {
            assert_eq!(body, b"\r\n");
            return all;
        }
        all.extend_from_slice(&body[..size]);
        body = &body[size + 2..];
    }
}

#[test]
fn a_slow_reader_gets_every_byte_and_no_worker_waits_for_it() {
    let _turn = turn();
    let site = Site::new(1, &[]);
    let expected = pattern(LARGE);
    for way in WAYS {
        for kind in ["bytes", "file", "stream"] {
            let before = site.slow()[2];
            let mut client = site.doors.connect(way).expect("connect");
            client.narrow();
            client.send(&way.request("GET", &format!("/large?bytes={LARGE}&as={kind}"), b"")).expect("send");
            site.wait_for_slow("the porter sends", |slow| slow[1] == 1 && slow[2] == before + 1);
            // The only worker has time.
            let mut other = site.doors.connect(way).expect("connect");
            other.send(&way.request("GET", "/hello", b"")).expect("send");
            assert!(String::from_utf8_lossy(&other.rest().expect("an answer")).ends_with("Hello, world!\n"));
            let got = body(&read_slowly(&mut client));
            assert!(got == expected, "{way:?} {kind}: {} bytes of {LARGE}", got.len());
            site.wait_for_slow("all is sent", |slow| slow[1] == 0);
        }
    }
    let lines = site.access_log();
    let large: Vec<_> = lines.iter().filter(|line| line["target"].as_str().unwrap().starts_with("/large")).collect();
    assert_eq!(large.len(), 6, "one line for each");
    assert!(large.iter().all(|line| line["bytes"] == LARGE), "{large:?}");
}

#[test]
fn a_connection_goes_on_after_a_slow_response() {
    let _turn = turn();
    let site = Site::new(1, &[]);
    for (kind, pipelined) in [("bytes", false), ("stream", false), ("bytes", true), ("stream", true)] {
        let before = site.slow()[2];
        let mut client = site.doors.connect(Way::Http).expect("connect");
        client.narrow();
        let first = format!("GET /large?bytes={LARGE}&as={kind} HTTP/1.1\r\nHost: h\r\n\r\n");
        let second = "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let both = format!("{first}{second}");
        client.send(if pipelined { both.as_bytes() } else { first.as_bytes() }).expect("send");
        site.wait_for_slow("the porter sends", |slow| slow[2] > before);
        let mut all = Vec::new();
        let is_whole = |all: &[u8]| all.len() > LARGE && (kind == "bytes" || all.ends_with(b"\r\n0\r\n\r\n"));
        let mut piece = vec![0; 1 << 20];
        while !pipelined && !is_whole(&all) {
            let n = client.read(&mut piece).expect("more");
            assert!(n > 0, "closed after {} bytes", all.len());
            all.extend_from_slice(&piece[..n]);
            // The head comes before the message-body and makes it a little longer than that.
            let at = all.windows(4).position(|four| four == b"\r\n\r\n").map_or(usize::MAX / 2, |at| at + 4);
            if kind == "bytes" && all.len() >= at + LARGE {
                break;
            }
        }
        if !pipelined {
            assert!(body(&all) == pattern(LARGE));
            site.wait_for_slow("all is sent", |slow| slow[1] == 0);
            all.clear();
            client.send(second.as_bytes()).expect("send");
        }
        all.extend(client.rest().expect("the rest"));
        let tail = String::from_utf8_lossy(&all[all.len().saturating_sub(200)..]).into_owned();
        assert!(tail.contains("HTTP/1.1 200 OK") && tail.ends_with("Hello, world!\n"), "{kind} {pipelined}: {tail}");
    }
}

#[test]
fn what_comes_late_comes_at_once() {
    let _turn = turn();
    let site = Site::new(1, &[]);
    for way in WAYS {
        // The last byte comes a second later than the others, which the client has by then: the application's pause
        // keeps nothing back that is there.
        let mut client = site.doors.connect(way).expect("connect");
        client.narrow();
        let request = way.request("GET", &format!("/large?bytes={LARGE}&as=stream&pause=1500"), b"");
        client.send(&request).expect("send");
        site.wait_for_slow("the porter sends", |slow| slow[1] == 1);
        let began = Instant::now();
        let (mut count, mut piece, mut late) = (0, vec![0; 1 << 20], None);
        loop {
            let n = client.read(&mut piece).expect("more");
            if n == 0 {
                break;
            }
            count += n;
            if count >= LARGE && late.is_none() {
                late = Some(began.elapsed());
            }
        }
        let (almost, took) = (late.expect("almost all"), began.elapsed());
        assert!(took.saturating_sub(almost) > Duration::from_millis(300), "{way:?}: {almost:?}, {took:?}");
    }
}

#[test]
fn a_reader_that_goes_is_forgotten_and_its_worker_goes_on() {
    let _turn = turn();
    let site = Site::new(1, &[]);
    for way in WAYS {
        let before = site.slow()[2];
        let mut client = site.doors.connect(way).expect("connect");
        client.narrow();
        // More than the porter keeps for one: the worker waits for the rest.
        client.send(&way.request("GET", "/large?bytes=100000000&as=stream", b"")).expect("send");
        site.wait_for_slow("the porter sends", |slow| slow[1] == 1 && slow[2] > before);
        drop(client);
        site.wait_for_slow("nobody is left", |slow| slow[1] == 0);
        let mut other = site.doors.connect(way).expect("connect");
        other.send(&way.request("GET", "/hello", b"")).expect("send");
        assert!(String::from_utf8_lossy(&other.rest().expect("an answer")).ends_with("Hello, world!\n"));
    }
}
