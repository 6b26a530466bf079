//! What clients ask, what becomes of it, and how long they wait.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::process::children;
use crate::support::visit::{Answer, Visitor};

/// How often it is measured who has to wait for a processor.
const TURN: Duration = Duration::from_millis(5);

/// What became of a request.
pub enum Reply {
    /// It was served: this is its whole answer.
    Done(Answer),
    /// It was turned away, and has changed nothing.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// The records of one test.
pub struct Book {
    start: Instant,
    /// Nobody may wait longer, whoever was killed meanwhile.
    longest: Duration,
    /// How long each answered request took, in microseconds.
    times: Mutex<Vec<u32>>,
    pub answered: AtomicU64,
    pub refused: AtomicU64,
    pub unknown: AtomicU64,
    /// Sessions looked at without a lock.
    pub looks: AtomicU64,
    /// For how many microseconds a process had to wait for a processor, the test or one of the pool's, whichever had to for
    /// longest: on a machine that is busy with other things that is nobody's fault.
    starved: AtomicU64,
    failures: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// Tells all to stop, also when the test has failed.
pub struct Stopper<'b>(&'b Book);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Relaxed);
    }
}

impl Book {
    pub fn new(longest: Duration) -> Self {
        Self {
            start: Instant::now(),
            longest,
            times: Mutex::default(),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            looks: AtomicU64::new(0),
            starved: AtomicU64::new(0),
            failures: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    pub fn stopper(&self) -> Stopper<'_> {
        Stopper(self)
    }

    pub fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn fail(&self, what: impl std::fmt::Display) {
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < 1000 {
            failures.push(format!("{:.3} s: {what}", self.start.elapsed().as_secs_f64()));
        }
    }

    /// Whether anything has failed so far.
    pub fn has_failed(&self) -> bool {
        !self.failures.lock().unwrap().is_empty()
    }

    /// One request. Whatever is neither an answer, nor a refusal, nor a connection that was cut is a failure.
    pub fn ask(&self, visitor: &mut Visitor, method: &str, target: &str, form: &str) -> Reply {
        let (start, starved) = (Instant::now(), self.starved.load(Relaxed));
        let answer = visitor.ask(method, target, form);
        let took = start.elapsed();
        let excused = || Duration::from_micros(self.starved.load(Relaxed) - starved);
        if took > self.longest + excused() {
            // It is known a turn later.
            thread::sleep(10 * TURN);
        }
        let excused = excused();
        if took > self.longest + excused {
            self.fail(format_args!(
                "{method} {target} waited for {took:?} ({excused:?} without a processor): {answer:?}"
            ));
        }
        match answer {
            Ok(answer) if answer.status == 503 && answer.retry_after.is_some() => {
                self.refused.fetch_add(1, Relaxed);
                Reply::Refused
            }
            Ok(answer) => {
                self.answered.fetch_add(1, Relaxed);
                self.times.lock().unwrap().push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
                if answer.status >= 400 {
                    self.fail(format_args!("{method} {target}: {answer:?}"));
                }
                Reply::Done(answer)
            }
            Err(_) => {
                self.unknown.fetch_add(1, Relaxed);
                Reply::Unknown
            }
        }
    }

    /// Measures until the end for how long the processes of the pool of `master`, or this one, are kept from working.
    pub fn watch_the_clock(&self, master: u32) {
        let mut before = HashMap::new();
        while self.goes_on() {
            let start = Instant::now();
            thread::sleep(TURN);
            let mut late = start.elapsed().saturating_sub(2 * TURN);
            let now: HashMap<u32, Duration> =
                children(master).into_iter().chain([master]).filter_map(|pid| Some((pid, run_delay(pid)?))).collect();
            for (pid, delay) in &now {
                late = late.max(delay.saturating_sub(before.get(pid).copied().unwrap_or_default()));
            }
            before = now;
            let late = late.min(start.elapsed());
            self.starved.fetch_add(u64::try_from(late.as_micros()).unwrap(), Relaxed);
        }
    }

    /// Says what was done, and fails where anything failed.
    #[track_caller]
    pub fn conclude(&self, title: &str, events: &str) {
        let mut times = std::mem::take(&mut *self.times.lock().unwrap());
        times.sort_unstable();
        let part = |of_1000: usize| times.get(times.len() * of_1000 / 1000).or(times.last()).copied().unwrap_or(0);
        let millis = |micros: u32| f64::from(micros) / 1000.0;
        let slow = times.iter().filter(|&&micros| Duration::from_micros(micros.into()) > self.longest).count();
        let [answered, refused, unknown, looks, starved] =
            [&self.answered, &self.refused, &self.unknown, &self.looks, &self.starved].map(|count| count.load(Relaxed));
        let failures = self.failures.lock().unwrap();
        say(&format!(
            "{title}: {events}; {answered} requests answered, {refused} refused, {unknown} cut off, {looks} looks without \
             a lock, {} failures in {:.1} s; p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, slowest {:.1} ms, {slow} above {:?} ({:.1} s without a processor)",
            failures.len(),
            self.start.elapsed().as_secs_f64(),
            millis(part(500)),
            millis(part(990)),
            millis(part(999)),
            millis(part(1000)),
            self.longest,
            Duration::from_micros(starved).as_secs_f64(),
        ));
        let shown: Vec<&str> = failures.iter().take(20).map(String::as_str).collect();
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), shown.join("\n"));
    }
}

/// Says something that is to be seen when all went well, too; of eprintln! the tests' harness shows nothing then.
pub fn say(what: &str) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// For how long a process could have run and had no processor, since it was started.
fn run_delay(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    stat.split(' ').nth(1)?.parse().ok().map(Duration::from_nanos)
}
