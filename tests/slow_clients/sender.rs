//! Requests that come in pieces, with a pause longer than a worker waits between them.

use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::site::{Doors, PAUSE, Site, WAYS, Way};
use crate::support::turn;

/// What is answered when `pieces` come with a pause before each but the first.
fn answer(doors: &Doors, way: Way, pieces: &[&[u8]]) -> String {
    let mut client = doors.connect(way).expect("connect");
    for (i, piece) in pieces.iter().enumerate() {
        if i > 0 {
            thread::sleep(PAUSE);
        }
        // Who is refused before the last of them may find the connection closed.
        if client.send(piece).is_err() {
            break;
        }
    }
    String::from_utf8_lossy(&client.rest().expect("an answer")).into_owned()
}

/// The same without what is never the same.
fn without_date(answer: &str) -> String {
    answer.lines().filter(|line| !line.starts_with("Date: ")).collect::<Vec<_>>().join("\n")
}

/// Cuts `request` everywhere and sees that it is answered as it is whole. `waits`: up to there it is not complete.
#[track_caller]
fn cut_everywhere(site: &Site, way: Way, request: &[u8], waits: usize) {
    let whole = without_date(&answer(&site.doors, way, &[request]));
    assert!(whole.contains("\n\n"), "{whole}");
    let (before, doors) = (site.slow()[2], &site.doors);
    thread::scope(|scope| {
        let some = |first: usize| {
            let answers = (1..request.len()).skip(first).step_by(8);
            answers.map(|at| (at, answer(doors, way, &[&request[..at], &request[at..]]))).collect::<Vec<_>>()
        };
        // Some at once, as each takes its time.
        let threads: Vec<_> = (0..8).map(|first| scope.spawn(move || some(first))).collect();
        for (at, answer) in threads.into_iter().flat_map(|thread| thread.join().expect("answered")) {
            assert_eq!(without_date(&answer), whole, "{way:?} cut at {at}");
        }
    });
    let handed = site.slow()[2] - before;
    assert!(handed as usize >= waits * 9 / 10, "only {handed} of {waits} went to the porter");
}

#[test]
fn a_request_is_answered_as_a_whole_one_wherever_it_is_cut() {
    let _turn = turn();
    let site = Site::new(2, &[]);
    for way in WAYS {
        for request in [way.request("GET", "/hello?a=b", b""), way.request("POST", "/slow?ms=0", b"0123456789")] {
            cut_everywhere(&site, way, &request, request.len() - 1);
        }
    }
    let head = b"POST /slow HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\
        Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n\r\n";
    let chunks = b"5;x=y\r\nms=1&\r\n0B\r\nwrite=hello\r\n0\r\nX-Sum: 1\r\n\r\n";
    let chunked = [&head[..], chunks].concat();
    assert!(answer(&site.doors, Way::Http, &[&chunked]).ends_with("\r\n\r\nhello: 1\n"));
    cut_everywhere(&site, Way::Http, &chunked, chunked.len() - 1);
    // What stands behind a request is the next one.
    let first = b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let two = [&first[..], b"GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"].concat();
    assert_eq!(answer(&site.doors, Way::Http, &[&two]).matches("HTTP/1.1 200 OK").count(), 2);
    cut_everywhere(&site, Way::Http, &two, two.len() - 2);
    // Also what is refused.
    let twice = b"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n";
    cut_everywhere(&site, Way::Http, twice, twice.len() - 1);
    let unknown = b"34:CONTENT_LENGTH\x000\x00SCGI\x002\x00A\x00b\x00CC\x00dd\x00,";
    cut_everywhere(&site, Way::Scgi, unknown, unknown.len() - 1);
    assert_eq!(site.slow()[4], 0, "a porter died");
    let lines = site.access_log();
    let requests = |target: &str| lines.iter().filter(|line| line["target"] == target).count();
    assert_eq!(
        requests("/hello?a=b"),
        WAYS.iter().map(|way| way.request("GET", "/hello?a=b", b"").len()).sum::<usize>()
    );
    let refused = lines.iter().filter(|line| line["status"] == 400).count();
    assert_eq!(refused, twice.len() + unknown.len(), "one line for each");
}

#[test]
fn large_bodies_arrive_whole_however_slowly() {
    let _turn = turn();
    let site = Site::new(2, &[]);
    for length in [1_000, 70_000, 300_000] {
        let file: Vec<u8> = (0..length).map(|at: u32| (at % 253) as u8).collect();
        let digits = Sha256::digest(&file).iter().flat_map(|byte| [byte >> 4, byte & 15]).collect::<Vec<u8>>();
        let sum: String = digits.into_iter().filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
        let head = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
        let body = [head.as_bytes(), &file, b"\r\n--xyz--\r\n"].concat();
        let pieces: Vec<&[u8]> = body.chunks(body.len() / 7).collect();
        let fields = "Content-Type: multipart/form-data; boundary=xyz\r\nConnection: close\r\n";
        let announced = format!("POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
        let chunked = format!("POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n{fields}\r\n");
        let in_chunks: Vec<Vec<u8>> = pieces
            .iter()
            .map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
            .chain([b"0\r\n\r\n".to_vec()])
            .collect();
        let variables = format!(
            "CONTENT_LENGTH\0{}\0SCGI\x001\0REQUEST_METHOD\0POST\0REQUEST_URI\0/upload\0SERVER_NAME\0h\0SERVER_PORT\x0080\0\
             SERVER_PROTOCOL\0HTTP/1.1\0CONTENT_TYPE\0multipart/form-data; boundary=xyz\0",
            body.len()
        );
        let scgi = format!("{}:{variables},", variables.len());
        for (way, head, body) in [
            (Way::Http, &announced, pieces.clone()),
            (Way::Http, &chunked, in_chunks.iter().map(Vec::as_slice).collect()),
            (Way::Scgi, &scgi, pieces.clone()),
        ] {
            let all: Vec<&[u8]> = [head.as_bytes()].into_iter().chain(body).collect();
            let answer = answer(&site.doors, way, &all);
            assert!(answer.contains(&sum), "{way:?} {length}: {answer}");
        }
    }
    assert!(site.slow()[2] >= 9, "{:?}", site.slow());
}

#[test]
fn a_client_that_waits_is_told_to_continue_once() {
    let _turn = turn();
    let site = Site::new(1, &[]);
    let head =
        b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    for at in [20, head.len() - 1, head.len()] {
        let mut client = site.doors.connect(Way::Http).expect("connect");
        client.send(&head[..at]).expect("send");
        thread::sleep(PAUSE);
        client.send(&head[at..]).expect("send");
        let mut said = [0; 100];
        let n = client.read(&mut said).expect("an answer");
        assert_eq!(&said[..n], b"HTTP/1.1 100 Continue\r\n\r\n");
        for byte in b"abc" {
            thread::sleep(PAUSE);
            client.send(&[*byte]).expect("send");
        }
        let answer = String::from_utf8(client.rest().expect("an answer")).expect("text");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("100 Continue"), "{answer}");
    }
}

#[test]
fn who_says_nothing_more_keeps_nobody_from_leaving_and_is_told_at_its_deadline() {
    let _turn = turn();
    let site = Site::new(1, &[]);
    let began = Instant::now();
    let heads: Vec<_> = WAYS
        .into_iter()
        .flat_map(|way| [way, way, way])
        .map(|way| {
            let mut client = site.doors.connect(way).expect("connect");
            client.send(&way.request("GET", "/hello", b"")[..5]).expect("send");
            (way, client)
        })
        .collect();
    // Nothing at all, which only a Unix socket lets a worker see.
    let mut silent = site.doors.connect(Way::Scgi).expect("connect");
    let mut gone = site.doors.connect(Way::Scgi).expect("connect");
    gone.send(b"70:CONTENT").expect("send");
    site.wait_for_slow("all are with the porter", |slow| slow[0] == 8);
    drop(gone);
    site.wait_for_slow("who goes is forgotten", |slow| slow[0] == 7);
    for (way, mut client) in heads {
        let answer = String::from_utf8(client.rest().expect("an answer")).expect("text");
        let took = began.elapsed();
        assert!(answer.starts_with(&way.status_line(408)), "{answer}");
        assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(14), "{took:?}");
    }
    assert_eq!(silent.rest().expect("the end"), b"");
    site.proc.line("http: refused with 408: request head did not arrive in time");
    site.wait_for_slow("nobody is left", |slow| slow[0] + slow[1] == 0);
    assert_eq!(site.access_log().iter().filter(|line| line["status"] == 408).count(), 6);
}
