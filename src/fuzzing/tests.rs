//! Without libFuzzer: every prefix of what real servers have sent, and mutations of it.
//!
//! `CLOAKROOM_MUTATIONS` says how many mutations there are in all; the usual number takes about ten seconds in a debug build.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::http::read_http;
use super::request::read_scgi;
use super::{TARGETS, target};

/// What front servers (nginx, Apache, lighttpd, with the files in deploy/) and curl have sent, byte by byte, and what
/// libFuzzer has found worth keeping.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut all: Vec<_> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("read {}: {error}", directory.display()))
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{target} has no corpus");
    all
}

fn captured(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = corpus(target);
    all.retain(|(name, _)| name.ends_with(target));
    assert!(all.len() >= 9, "what the servers sent is missing");
    all
}

/// How long one input may take. Far from a hang, and far above what a busy machine makes of some microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `run` on each of `count` inputs. A second thread looks at the clock, so that a hang is a failure, too.
fn try_all(
    what: &str,
    count: u64,
    input: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
    run: impl Fn(&[u8]) + Send + 'static,
) {
    let input = Arc::new(input);
    let (done, steps) = channel();
    let thread = std::thread::spawn({
        let input = Arc::clone(&input);
        move || {
            for number in 0..count {
                run(&input(number));
                done.send(()).expect("the test goes on");
            }
        }
    });
    let mut number = 0;
    let why = loop {
        match steps.recv_timeout(PATIENCE) {
            Ok(()) => number += 1,
            Err(RecvTimeoutError::Timeout) => break "hangs",
            Err(RecvTimeoutError::Disconnected) if thread.join().is_ok() => return assert_eq!(number, count),
            Err(RecvTimeoutError::Disconnected) => break "fails",
        }
    };
    panic!("{what} {why}: input {number}: b\"{}\"", input(number).escape_ascii());
}

#[test]
fn the_corpus_passes() {
    for (name, run) in TARGETS {
        let seeds = corpus(name);
        try_all(name, seeds.len() as u64, move |number| seeds[number as usize].1.clone(), run);
    }
}

/// Gives every prefix of every captured request to the target, and to `read`, which says whether it found a head.
fn try_prefixes(name: &'static str, read: fn(&[u8]) -> Option<usize>) {
    for (file, bytes) in captured(name) {
        let whole = bytes.clone();
        try_all(&file, 1, move |_| whole.clone(), move |bytes| assert!(read(bytes).is_some(), "no request"));
        let end = read(&bytes).expect("seen just now");
        let run = move |prefix: &[u8]| {
            assert_eq!(read(prefix).is_some(), prefix.len() >= end, "where the head ends");
            target(name)(prefix);
        };
        try_all(&file, bytes.len() as u64, move |at| bytes[..at as usize].to_vec(), run);
    }
}

#[test]
fn every_prefix_of_what_front_servers_send_asks_for_more() {
    try_prefixes("scgi", |bytes| read_scgi(bytes, bytes.len().max(1)).expect("no error").map(|(_, end)| end));
    try_prefixes("http", |bytes| read_http(bytes, bytes.len().max(1)).expect("no error").map(|(_, end)| end));
}

/// Mutations in an ordinary run.
const USUAL: u64 = 100_000;

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// A generator that needs no more than to be the same each time: xorshift64*.
struct Random(u64);

impl Random {
    /// For input `number`: each has its own, so that a failure is repeated without those before it.
    fn of(number: u64) -> Self {
        let mut random = Self((number + 1).wrapping_mul(SEED));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Bytes that mean something somewhere.
const TELLING: &[&[u8]] = &[
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b":",
    b",",
    b";",
    b"=",
    b"%",
    b"%2e%2e",
    b"%0a",
    b"%00",
    b"/",
    b"/../",
    b"..",
    b"\"",
    b"\\",
    b" ",
    b"\t",
    b"0",
    b"9",
    b"-",
    b"+",
    b"_",
    b"65537",
    b"4294967296",
    b"18446744073709551616",
    b"ffffffffffffffff",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"CONTENT_LENGTH\x005\0",
    b"HTTP_PROXY\0x\0",
    b"\xff",
    b"\x7f",
    b"\xc3\x28",
    b"session=",
    b"sess%69on=",
    b"--",
    b"0\r\n\r\n",
    b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x81",
];

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(20)).min(bytes.len());
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            5 => {
                let from = random.below(other.len() + 1);
                let until = (from + random.below(60)).min(other.len());
                bytes.splice(at..end, other[from..until].iter().copied());
            }
            // Past one limit or another.
            6 if random.below(4) == 0 => {
                let piece = bytes[at..end].repeat(1 << random.below(10));
                bytes.splice(at..end, piece);
            }
            _ => {
                let word = TELLING[random.below(TELLING.len())];
                bytes.splice(at..(at + random.below(3)).min(bytes.len()), word.iter().copied());
            }
        }
    }
}

/// A head whose length is right again, so that what is behind the length is reached, too.
fn mend_netstring(bytes: &mut Vec<u8>) {
    let Some(colon) = bytes.iter().position(|&b| b == b':') else { return };
    let Some(comma) = bytes.windows(2).rposition(|window| window == b"\0,") else { return };
    if colon <= comma {
        let length = (comma - colon).to_string().into_bytes();
        bytes.splice(..colon, length);
    }
}

/// Input `number` of this target: the same in each run.
fn input(name: &str, seeds: &[(String, Vec<u8>)], number: u64) -> Vec<u8> {
    let mut random = Random::of(number);
    let mut bytes = seeds[random.below(seeds.len())].1.clone();
    let other = &seeds[random.below(seeds.len())].1;
    mutate(&mut bytes, other, &mut random);
    // Extensions and trailers have limits beyond the others.
    bytes.truncate(if name == "chunked" { 12_000 } else { 4096 });
    if name == "scgi" && number.is_multiple_of(2) {
        mend_netstring(&mut bytes);
    }
    bytes
}

/// Tries this target's share of the mutations.
fn try_mutations(name: &'static str) {
    let all: u64 = std::env::var("CLOAKROOM_MUTATIONS").map_or(USUAL, |text| text.parse().expect("a number"));
    let count = all / TARGETS.len() as u64;
    let seeds = corpus(name);
    let started = Instant::now();
    try_all(&format!("{name} of seed {SEED:#x}"), count, move |number| input(name, &seeds, number), target(name));
    eprintln!("{name}: {count} mutations in {:.1} s", started.elapsed().as_secs_f64());
}

macro_rules! mutations {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            super::try_mutations(stringify!($name));
        }
    )* };
}

/// One test for each target, that they may run side by side.
mod mutations_are_read_or_refused {
    mutations! { scgi http chunked cgi cookie form response session_file }

    #[test]
    fn no_target_is_left_out() {
        let names = ["scgi", "http", "chunked", "cgi", "cookie", "form", "response", "session_file"];
        assert_eq!(super::TARGETS.map(|(name, _)| name), names);
    }
}
