//! The load: clients that ask without pause, and what they count.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crate::support::client::{http_request, read, scgi_request, send};
use crate::support::eventually;
use crate::support::visit::{Door, Visitor};

/// How many clients ask at once: enough that somebody always waits.
pub const MANY: usize = 8;
/// How many connections each of those has that keep them: one is used, the others are quiet meanwhile.
const KEPT: usize = 4;
/// A connection is kept for so many requests.
const MOST: u64 = 300;

/// How clients come in. All but `HttpKept` make a connection for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ScgiUnix,
    ScgiTcp,
    Http,
    HttpKept,
    /// By HTTP to nginx, which comes in by SCGI over a Unix socket.
    Nginx,
}

/// What the clients of one test have seen.
pub struct Tally {
    start: Instant,
    pub requests: AtomicU64,
    /// A kept connection was closed between two requests, as it may be at any time, and another one served.
    pub retries: AtomicU64,
    /// How long the longest request took, in microseconds.
    slowest: AtomicU64,
    failures: Mutex<Vec<String>>,
    /// What was done to the pool last.
    event: Mutex<String>,
    stop: AtomicBool,
}

/// Stops the clients, also when the test has failed.
pub struct Stopper<'t>(&'t Tally);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Relaxed);
    }
}

impl Tally {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            slowest: AtomicU64::new(0),
            failures: Mutex::default(),
            event: Mutex::new("the start".to_owned()),
            stop: AtomicBool::new(false),
        }
    }

    /// What is done to the pool now: failures name it.
    pub fn event(&self, text: String) {
        *self.event.lock().unwrap() = text;
    }

    pub fn fail(&self, error: &io::Error) {
        let event = self.event.lock().unwrap().clone();
        self.failures.lock().unwrap().push(format!("{:?} after {event}: {error}", self.start.elapsed()));
    }

    /// Has `count` clients ask until what is returned is dropped.
    pub fn clients<'s>(&'s self, scope: &'s Scope<'s, '_>, way: Way, address: &'s str, count: usize) -> Stopper<'s> {
        for number in 0..count {
            scope.spawn(move || {
                let mut client = Client::new(way, address, number);
                while !self.stop.load(Relaxed) {
                    if let Err(error) = self.count(&mut client) {
                        self.fail(&error);
                        // Not a hundred thousand times.
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        Stopper(self)
    }

    /// Waits until so many more requests are answered.
    #[track_caller]
    pub fn wait_for(&self, more: u64) {
        let before = self.requests.load(Relaxed);
        let event = self.event.lock().unwrap().clone();
        eventually(&format!("more requests are served after {event}"), || self.requests.load(Relaxed) > before + more);
    }

    /// One request of `client`, counted if it was answered.
    pub fn count(&self, client: &mut Client<'_>) -> io::Result<()> {
        let start = Instant::now();
        let done = client.ask();
        self.retries.fetch_add(std::mem::take(&mut client.retries), Relaxed);
        done?;
        self.requests.fetch_add(1, Relaxed);
        self.slowest.fetch_max(u64::try_from(start.elapsed().as_micros()).unwrap(), Relaxed);
        Ok(())
    }

    /// Says what was done, and fails where anything failed.
    #[track_caller]
    pub fn conclude(&self, title: &str, events: &str) {
        static TOTAL: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
        let failures = self.failures.lock().unwrap();
        let own = [self.requests.load(Relaxed), self.retries.load(Relaxed), failures.len() as u64];
        let total: Vec<u64> = TOTAL.iter().zip(own).map(|(total, own)| total.fetch_add(own, Relaxed) + own).collect();
        let seconds = self.start.elapsed().as_secs_f64();
        let slowest = self.slowest.load(Relaxed) / 1000;
        let counts = |of: &[u64]| format!("{} requests, {} retries, {} failures", of[0], of[1], of[2]);
        let (counted, total) = (counts(&own), counts(&total));
        // Not by eprintln!, of which the tests' harness shows nothing when all went well.
        let _ = writeln!(
            io::stderr(),
            "zero_drop: {title}: {events}, {counted} in {seconds:.1} s, the slowest in {slowest} ms; in all: {total}"
        );
        let shown = failures.iter().take(20).fold(String::new(), |mut text, failure| {
            let _ = write!(text, "\n{failure}");
            text
        });
        assert!(failures.is_empty(), "{} requests of {} failed:{shown}", failures.len(), own[0]);
    }
}

/// One client; what it asks, and so what it must be answered, is never the same.
pub struct Client<'a> {
    way: Way,
    address: &'a str,
    name: usize,
    asked: u64,
    visitors: Vec<Visitor>,
    retries: u64,
    /// When the last request was on its way.
    pub sent: Option<Instant>,
}

impl<'a> Client<'a> {
    pub fn new(way: Way, address: &'a str, name: usize) -> Self {
        Self { way, address, name, asked: 0, visitors: Vec::new(), retries: 0, sent: None }
    }

    /// One request. An error is whatever is not its whole answer.
    pub fn ask(&mut self) -> io::Result<()> {
        self.asked += 1;
        self.sent = None;
        let query = format!("{}.{}", self.name, self.asked);
        let (target, expected) = if self.asked.is_multiple_of(4) {
            (format!("/env?{query}"), format!("\nQUERY_STRING={query}\n"))
        } else {
            ("/hello".to_owned(), "Hello, world!\n".to_owned())
        };
        if self.way == Way::HttpKept {
            return self.ask_kept(&target, &expected);
        }
        let request = match self.way {
            Way::ScgiUnix | Way::ScgiTcp => scgi_request("GET", &target, b""),
            _ => http_request("GET", &target),
        };
        let connection = send(self.address, &request)?;
        self.sent = Some(Instant::now());
        let response = read(connection)?;
        let problem = |what| Err(io::Error::other(format!("{what} for {target}: {response:?}")));
        let Some((head, body)) = response.split_once("\r\n\r\n") else { return problem("no whole head") };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if !(head.starts_with("HTTP/1.1 200 ") || head.starts_with("Status: 200 ")) {
            problem("another status")
        } else if length != Some(&body.len().to_string()) {
            problem("another length")
        } else if !body.contains(&expected) {
            problem("another's answer")
        } else {
            Ok(())
        }
    }

    fn ask_kept(&mut self, target: &str, expected: &str) -> io::Result<()> {
        let place = self.asked as usize % KEPT;
        let door = || Visitor::new(&Door::Http(self.address.to_owned()));
        if self.visitors.len() < KEPT {
            self.visitors.resize_with(KEPT, door);
        }
        // The places take turns in beginning anew.
        if self.asked.is_multiple_of(MOST + 1) {
            self.visitors[place] = door();
        }
        let visitor = &mut self.visitors[place];
        let mut answer = visitor.ask("GET", target, "");
        if answer.is_err() && visitor.was_closed_before {
            self.retries += 1;
            answer = visitor.ask("GET", target, "");
        }
        let answer = answer?;
        if answer.status == 200 && answer.body.contains(expected) {
            Ok(())
        } else {
            Err(io::Error::other(format!("another answer for {target}: {answer:?}")))
        }
    }
}
