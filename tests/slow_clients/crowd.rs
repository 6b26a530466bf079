//! A thousand slow clients at once, and what others see of them.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::site::{Client, Doors, Site, WAYS, Way};
use crate::support::process::porter;
use crate::support::turn;
use crate::support::visit::{Door, Visitor};

const CLIENTS: usize = 1000;
/// A response that no kernel takes whole for a client that does not read.
const RESPONSE: usize = 4 << 20;
/// What each may cost the porter in memory, on the average: of readers 32 KiB wait there, and a message more.
const MEMORY: u64 = 32 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Sends its head, a byte a second.
    Head,
    /// Sends its message-body so.
    Body,
    /// Reads so.
    Reader,
}

struct Slow {
    kind: Kind,
    way: Way,
    client: Client,
    /// What it has still to send.
    rest: Vec<u8>,
    began: Instant,
    got: Vec<u8>,
    /// How long it was until the end of the connection.
    ended: Option<Duration>,
}

impl Slow {
    fn new(doors: &Doors, number: usize) -> io::Result<Self> {
        let kind = [Kind::Head, Kind::Body, Kind::Reader][number % 3];
        let way = WAYS[number / 3 % 2];
        let mut client = doors.connect(way)?;
        let mut rest = match kind {
            Kind::Head => way.request("GET", "/hello", b""),
            Kind::Body => way.request("POST", "/slow", &[b'x'; 1000]),
            Kind::Reader => way.request("GET", &format!("/large?bytes={RESPONSE}"), b""),
        };
        let at_once = match kind {
            Kind::Head => 1,
            Kind::Body => rest.len() - 999,
            Kind::Reader => rest.len(),
        };
        if kind == Kind::Reader {
            client.narrow();
        }
        client.send(&rest[..at_once])?;
        rest.drain(..at_once);
        client.set_nonblocking();
        Ok(Self { kind, way, client, rest, began: Instant::now(), got: Vec::new(), ended: None })
    }

    /// Does what it does once a second.
    fn tick(&mut self) {
        if self.ended.is_some() {
            return;
        }
        if self.kind == Kind::Reader {
            let mut byte = [0];
            match self.client.read(&mut byte) {
                Ok(1) => self.got.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => self.ended = Some(self.began.elapsed()),
            }
            return;
        }
        if let Some(byte) = self.rest.first().copied() {
            // Where the other side has closed, the answer tells.
            let _ = self.client.send(&[byte]);
            self.rest.remove(0);
        }
        let mut piece = [0; 1000];
        loop {
            match self.client.read(&mut piece) {
                Ok(n) if n > 0 => self.got.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                _ => return self.ended = Some(self.began.elapsed()),
            }
        }
    }
}

/// How long the requests of others take until `stop`.
fn others(doors: &[Door], stop: &AtomicBool) -> Vec<Duration> {
    let one = |door: &Door| {
        let (mut visitor, mut times) = (Visitor::new(door), Vec::new());
        visitor.get("/keep");
        while !stop.load(Ordering::Relaxed) {
            for (method, target) in [("GET", "/hello"), ("POST", "/counter"), ("GET", "/read")] {
                let began = Instant::now();
                visitor.ask(method, target, "").expect("an answer").ok();
                times.push(began.elapsed());
            }
            // As people do, it looks at what came; the next request comes when it comes.
            thread::sleep(Duration::from_millis(20));
        }
        times
    };
    thread::scope(|scope| {
        let visitors: Vec<_> = doors.iter().map(|door| scope.spawn(move || one(door))).collect();
        visitors.into_iter().flat_map(|visitor| visitor.join().expect("served")).collect()
    })
}

fn percentile(times: &mut [Duration], of_100: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * of_100 / 100).min(times.len() - 1)]
}

/// Memory of a process that no other has, in bytes.
fn private(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("memory");
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>() * 1024
}

/// Whether this process, and those that it starts, may have so many descriptors.
fn may_have(descriptors: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= descriptors) {
        return true;
    }
    let current = limit.maximum.map_or(descriptors, |maximum| maximum.min(descriptors));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
    current >= descriptors
}

#[test]
fn a_thousand_slow_clients_are_nothing_to_others() {
    let _turn = turn();
    // The porter has three for each.
    if !may_have(3 * CLIENTS as u64 + 200) {
        println!("skipped: no {} descriptors to be had (ulimit -Hn)", 3 * CLIENTS + 200);
        return;
    }
    let site = Site::new(4, &[]);
    let doors = [
        Door::Http(site.doors.http.clone()),
        Door::Scgi(site.doors.scgi.clone()),
        Door::Http(site.doors.http.clone()),
        Door::Scgi(site.doors.scgi.clone()),
    ];
    let alone = AtomicBool::new(false);
    // What they take when nobody else is there is their own work, on this machine and at this time.
    let mut before = thread::scope(|scope| {
        let times = scope.spawn(|| others(&doors, &alone));
        thread::sleep(Duration::from_secs(2));
        alone.store(true, Ordering::Relaxed);
        times.join().expect("served")
    });
    let (own, own_worst) = (percentile(&mut before, 99), percentile(&mut before, 100));
    let workers: Vec<u64> = site.workers.iter().map(|pid| private(*pid)).collect();
    let done = AtomicBool::new(false);
    let began = Instant::now();
    let (crowd, mut times, memory, peak) = thread::scope(|scope| {
        let times = scope.spawn(|| others(&doors, &done));
        let mut crowd = Vec::new();
        for number in 0..CLIENTS {
            crowd.push(Slow::new(&site.doors, number).expect("connect"));
            // Within four seconds: a queue of large responses would keep others waiting whoever reads them.
            if number % 25 == 0 {
                thread::sleep(Duration::from_millis(100));
            }
        }
        let (mut memory, mut peak) = (0, [0; 5]);
        let mut slow = [1; 5];
        let sends = |slow: &Slow| slow.kind != Kind::Reader && slow.ended.is_none();
        while (crowd.iter().any(sends) || slow[1] > 0) && began.elapsed() < Duration::from_secs(90) {
            let next = Instant::now() + Duration::from_secs(1);
            crowd.iter_mut().for_each(Slow::tick);
            slow = site.slow();
            if slow[0] + slow[1] >= peak[0] + peak[1] {
                peak = slow;
            }
            memory = memory.max(porter(site.proc.pid()).map_or(0, private));
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        done.store(true, Ordering::Relaxed);
        (crowd, times.join().expect("served"), memory, peak)
    });
    // What a reader has in its own kernel it can still read, so only the server's side tells when it was closed.
    let took = began.elapsed();
    let (half, most, worst) = (percentile(&mut times, 50), percentile(&mut times, 99), percentile(&mut times, 100));
    println!(
        "{CLIENTS} slow clients, at most {} receiving and {} sending; others: {} requests, median {half:?}, p99 {most:?}, \
         slowest {worst:?}; p99 without them {own:?}, slowest {own_worst:?}; porter {} KiB, {} bytes for each",
        peak[0],
        peak[1],
        times.len(),
        memory / 1024,
        memory / CLIENTS as u64
    );
    assert!(times.len() >= 500, "too few to tell");
    assert!(most < Duration::from_millis(100) + own, "p99 {most:?}, without slow clients {own:?}");
    // Some responses are taken whole by the kernel, some heads are over by the time that the last client has come.
    assert!(peak[0] + peak[1] >= CLIENTS as u64 * 7 / 10, "the porter had {peak:?}");
    assert!(memory < CLIENTS as u64 * MEMORY, "the porter has taken {memory} bytes");
    for (before, pid) in workers.iter().zip(&site.workers) {
        let grown = private(*pid).saturating_sub(*before);
        // Its own buffers, and what one large response leaves behind.
        assert!(grown < 8 << 20, "worker {pid} has grown by {grown} bytes");
    }
    for slow in crowd {
        if slow.kind == Kind::Reader {
            continue;
        }
        let ended = slow.ended.unwrap_or_else(|| panic!("{:?} {:?} was never closed", slow.kind, slow.way));
        let text = String::from_utf8_lossy(&slow.got);
        assert!(text.starts_with(&slow.way.status_line(408)), "{:?} {:?}: {text}", slow.kind, slow.way);
        let due = if slow.kind == Kind::Head { 10 } else { 30 };
        // A second of the test's clock, and what a crowded machine takes.
        let range = Duration::from_secs(due - 1)..Duration::from_secs(due + 12);
        assert!(range.contains(&ended), "{:?} {:?}: {ended:?}", slow.kind, slow.way);
    }
    assert!(took < Duration::from_secs(60), "readers were closed after {took:?}");
    site.wait_for_slow("nobody is left", |slow| slow[0] + slow[1] == 0);
    assert_eq!((site.slow()[3], site.slow()[4]), (0, 0));
}
