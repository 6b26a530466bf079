//! The edge: sessions that are used just before they would be over, while sweeps look for what is over every 10 ms.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::book::{Book, Reply};
use crate::kills::{check_log, check_names};
use crate::support::client::http;
use crate::support::process::{Proc, Signal, demo};
use crate::support::visit::{Door, Visitor};
use crate::support::{TestDir, turn};
use crate::{Dice, seconds};

/// After so long unused a session is over.
const IDLE: Duration = Duration::from_secs(1);
/// How exact that is: the kernel's clock for files goes by ticks of at most 10 ms, and sessions count in milliseconds.
const BLUR: Duration = Duration::from_millis(12);
const CLIENTS: usize = 4;
/// A request that takes its time.
const SLOW: &str = "/slow?ms=20&write=slow";
/// Of each client.
const SESSIONS: usize = 60;

/// Somebody with a session, or without.
struct Guest {
    cookie: Option<String>,
    /// How often it has counted, and its other count.
    count: u64,
    slow: u64,
    /// Between these two it used its session last.
    asked: Instant,
    answered: Instant,
    /// That was certainly in time: else it may have been answered, and the session over before it was renewed.
    is_sure: bool,
}

#[derive(Default)]
struct Figures {
    /// Uses in the last tenth of a session's time, of all uses in time.
    at_the_edge: AtomicU64,
    in_time: AtomicU64,
    too_late: AtomicU64,
    /// Where nobody can tell.
    unclear: AtomicU64,
}

#[test]
fn no_session_is_removed_that_was_used_in_time_while_a_sweep_comes_every_10_ms() {
    let _turn = turn();
    // A fifth of the storm, where nobody has said for how long.
    let length = seconds("CLOAKROOM_STORM", 12);
    let directory = TestDir::in_memory();
    let sessions = directory.join("sessions");
    let mut command = demo();
    command.args(["--http", "127.0.0.1:0", "--status", "127.0.0.1:0", "--workers", "4", "--sweep-every", "0.01"]);
    command.arg("--sessions").arg(&sessions);
    let mut pool = Proc::start(command);
    let (door, status) = (Door::Http(pool.address("http")), pool.address("status"));
    pool.line(" ready workers=4");
    let (book, figures) = (Book::new(Duration::from_secs(1)), Figures::default());
    let master = pool.pid();
    thread::scope(|scope| {
        let (book, figures, door) = (&book, &figures, &door);
        let stopper = book.stopper();
        scope.spawn(move || book.watch_the_clock(master));
        for number in 0..CLIENTS {
            scope.spawn(move || serve_guests(number, door, book, figures));
        }
        while book.elapsed() < length && !book.has_failed() {
            thread::sleep(Duration::from_millis(100));
        }
        drop(stopper);
    });
    // What nobody uses any more goes.
    crate::support::eventually("all are over, and swept", || check_names(&book, &sessions) == 0);
    let metrics = http(&status, "/metrics").unwrap();
    let metric = |name: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
    };
    let (sweeps, swept) = (metric("cloakroom_sweeps_total"), metric("cloakroom_sweep_deleted_sessions_total"));
    pool.signal(Signal::TERM);
    assert_eq!(pool.end(), 0);
    check_log(&book, &pool.log());
    let Figures { at_the_edge, in_time, too_late, unclear } = figures;
    let [edge, in_time, late, unclear] = [at_the_edge, in_time, too_late, unclear].map(AtomicU64::into_inner);
    book.conclude(
        "edge",
        &format!(
            "{sweeps} sweeps deleted {swept} sessions; {in_time} uses in time, {edge} of them in the last tenth, {late} too \
             late, {unclear} just at the end"
        ),
    );
    let least = length.as_secs();
    assert!(sweeps > 2 * least && edge > 5 * least && late > least && swept > least, "hardly anything was shown");
}

fn serve_guests(number: usize, door: &Door, book: &Book, figures: &Figures) {
    let mut dice = Dice::new(number as u64 + 1);
    let mut visitor = Visitor::new(door);
    let now = Instant::now();
    let mut guests: Vec<Guest> = (0..SESSIONS)
        .map(|_| Guest { cookie: None, count: 0, slow: 0, asked: now, answered: now, is_sure: false })
        .collect();
    let mut agenda: BinaryHeap<_> = (0..SESSIONS).map(|at| Reverse((now, at))).collect();
    while let Some(Reverse((time, at))) = agenda.pop() {
        if !book.goes_on() {
            return;
        }
        thread::sleep(time.saturating_duration_since(Instant::now()));
        guests[at].come(book, &mut visitor, &mut dice, figures);
        // From well before the edge to a little beyond it.
        let pause = Duration::from_millis(800 + dice.roll(260) as u64);
        agenda.push(Reverse((guests[at].asked + pause, at)));
    }
}

impl Guest {
    /// Uses its session, and knows whether it has to be there.
    fn come(&mut self, book: &Book, visitor: &mut Visitor, dice: &mut Dice, figures: &Figures) {
        visitor.cookie.clone_from(&self.cookie);
        let asked = Instant::now();
        let (method, path) = match dice.roll(5) {
            _ if self.cookie.is_none() => ("GET", "/keep?idle=1"),
            0 => ("POST", "/counter"),
            1 => ("GET", "/counter"),
            // Both of these renew it without a lock.
            2 => ("GET", "/read"),
            3 => ("GET", "/check"),
            // It holds the lock, over the end perhaps.
            _ => ("POST", SLOW),
        };
        let Reply::Done(answer) = book.ask(visitor, method, path, "") else {
            return book.fail(format_args!("no answer to {method} {path}"));
        };
        let answered = Instant::now();
        // The least and the most time for which it can have been unused when it was looked for.
        let (least, most) = (asked - self.answered, answered - self.asked);
        (self.asked, self.answered) = (asked, answered);
        if self.cookie.is_none() {
            (self.cookie, self.count, self.slow, self.is_sure) = (visitor.cookie.clone(), 0, 0, true);
            return;
        }
        let (in_time, too_late) = (self.is_sure && most + BLUR < IDLE, least > IDLE + BLUR);
        // An empty counter reads the same as no session.
        let (is_there, can_tell) = match path {
            "/counter" => (answer.body.contains("Every request counts exactly once"), true),
            "/read" => (answer.number("Counter") > 0, self.count > 0),
            SLOW => (answer.number("slow") > 1, self.slow > 0),
            _ => (!answer.body.contains("session_id: None"), true),
        };
        // What was saved was renewed, however late it was.
        self.is_sure = in_time || (is_there && (path == "/counter" || path == SLOW));
        match path {
            "/counter" if is_there => {
                self.count += 1;
                if answer.number("Counter") != self.count {
                    book.fail(format_args!("{method} {path} is not count {}: {}", self.count, answer.body));
                }
            }
            SLOW if is_there || in_time => self.slow = answer.number("slow"),
            _ => {}
        }
        if is_there {
            if too_late {
                book.fail(format_args!("{method} {path} found it after {least:?} at least"));
            }
        } else if can_tell {
            if in_time {
                book.fail(format_args!("{method} {path} after {most:?} at most: the session was removed"));
            }
            self.cookie = None;
        }
        let figure = if in_time {
            figures.at_the_edge.fetch_add(u64::from(most > IDLE * 9 / 10), Relaxed);
            &figures.in_time
        } else if too_late {
            &figures.too_late
        } else {
            &figures.unclear
        };
        figure.fetch_add(1, Relaxed);
    }
}
