//! The same through the demo: visitors count, read, log in and log out while workers of the pool, or CGI scripts, are killed.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Figures;
use crate::check::{Answer, Event, Name, Op};
use crate::random::Random;
use crate::support::process::{Proc, Signal, children, send};
use crate::support::visit::{self, Door, Visitor};
use crate::support::{PATIENCE, TestDir, turn};
use crate::worker::time;

const VISITORS: u32 = 8;
/// Sessions of a history.
const SESSIONS: usize = 2;
const WORKERS: usize = 8;
/// A pool takes its time to replace workers that die young, so each has so many to lose.
const KILLS: usize = 24;
const HISTORIES_OF_A_POOL: usize = 8;

/// The cookies that everybody is to use, and the numbers of all there were.
#[derive(Default)]
struct Board {
    current: [String; SESSIONS],
    names: BTreeMap<String, Name>,
}

impl Board {
    fn name(&mut self, cookie: &str) -> Name {
        let next = self.names.len() as Name;
        *self.names.entry(cookie.to_owned()).or_insert(next)
    }
}

struct Site {
    door: Door,
    /// Under CGI there is none.
    pool: Option<Proc>,
    _directory: TestDir,
}

impl Site {
    fn cgi() -> Self {
        let directory = TestDir::new();
        Self { door: Door::Cgi(directory.join("sessions")), pool: None, _directory: directory }
    }

    fn pool() -> Self {
        let directory = TestDir::new();
        let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
        let (address, sessions) = (format!("unix:{}", path("socket")), path("sessions"));
        let workers = (WORKERS + KILLS).to_string();
        let process = Proc::demo(["--scgi", &address, "--sessions", &sessions, "--workers", &workers]);
        let address = process.address("scgi");
        process.line(&format!(" ready workers={workers}"));
        Self { door: Door::Scgi(address), pool: Some(process), _directory: directory }
    }

    /// One history, in which so many workers are killed; of the scripts each visitor kills some of his own.
    fn record(&self, seed: u64, kills: usize) -> Vec<Event> {
        let board = Mutex::new(Board::default());
        let mut history = Vec::new();
        for at in 0..SESSIONS {
            history.push(keep(&self.door, &board, at, VISITORS));
        }
        let (done, master) = (AtomicBool::new(false), self.pool.as_ref().map(Proc::pid));
        thread::scope(|scope| {
            let visit = |number| Visit {
                door: &self.door,
                board: &board,
                number,
                random: Random::new(seed ^ u64::from(number + 1) << 48),
                history: Vec::new(),
            };
            let visits: Vec<_> = (0..VISITORS).map(visit).map(|visit| scope.spawn(move || visit.work())).collect();
            let done = &done;
            let killer = scope.spawn(move || {
                let Some(master) = master else { return };
                let mut random = Random::new(!seed);
                for _ in 0..kills {
                    // Not to wait for anything, but to hit them at work.
                    thread::sleep(Duration::from_micros(random.below(8000)));
                    let workers = children(master);
                    if done.load(Ordering::Relaxed) || workers.is_empty() {
                        break;
                    }
                    let running = workers.iter().copied().find(|pid| is_running(*pid));
                    send(running.unwrap_or(workers[random.below(workers.len() as u64) as usize]), Signal::KILL);
                }
            });
            history.extend(visits.into_iter().flat_map(|visit| visit.join().expect("a visitor failed")));
            done.store(true, Ordering::Relaxed);
            killer.join().expect("the killer failed");
        });
        let mut board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
        for cookie in board.current.clone() {
            let start = time();
            let n = Visitor::with(&self.door, &cookie).get("/read").ok().number("Counter");
            let (op, answer) = (Op::Load { id: board.name(&cookie) }, Answer::Value(n));
            history.push(Event { process: VISITORS, start, end: time(), op, answer });
        }
        history
    }
}

/// A new session takes this place on the board. Where no answer came there may be one, of which nobody knows the ID; the
/// place must not stay with one that has ended, as who logs in there gets a new one, and cannot tell.
fn keep(door: &Door, board: &Mutex<Board>, at: usize, process: u32) -> Event {
    let began = Instant::now();
    let (cookie, start, end) = loop {
        assert!(began.elapsed() < PATIENCE, "no answer");
        let mut visitor = Visitor::new(door);
        let start = time();
        let answer = visitor.ask("GET", "/keep", "");
        if let (Ok(_), Some(cookie)) = (answer, visitor.cookie) {
            break (cookie, start, time());
        }
    };
    let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
    board.current[at].clone_from(&cookie);
    let op = Op::Create { id: board.name(&cookie), value: 0 };
    Event { process, start, end, op, answer: Answer::Done }
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('R'))
}

struct Visit<'a> {
    door: &'a Door,
    board: &'a Mutex<Board>,
    number: u32,
    random: Random,
    history: Vec<Event>,
}

impl Visit<'_> {
    fn work(mut self) -> Vec<Event> {
        let count = 10 + self.random.below(10);
        for _ in 0..count {
            self.operate();
        }
        self.history
    }

    fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn operate(&mut self) {
        let at = self.random.below(SESSIONS as u64) as usize;
        let (cookie, id) = {
            let mut board = self.board();
            let cookie = board.current[at].clone();
            let id = board.name(&cookie);
            (cookie, id)
        };
        let mut visitor = Visitor::with(self.door, &cookie);
        let by = if self.random.below(2) == 0 { "GET" } else { "POST" };
        // Who logs in where the session is gone gets a new one, and cannot tell; so each session has one visitor who ends it.
        match self.random.below(if at == self.number as usize { 36 } else { 24 }) {
            0..16 => drop(self.ask(&mut visitor, by, "/counter", "", Op::Count { id }, |answer| {
                let kept = answer.body.contains("Every request counts exactly once");
                if kept { Answer::Value(answer.number("Counter")) } else { Answer::Gone }
            })),
            16..24 => {
                let read = |answer: &visit::Answer| Answer::Value(answer.number("Counter"));
                self.ask(&mut visitor, "GET", "/read", "", Op::Load { id }, read);
            }
            24..27 => {
                self.ask(&mut visitor, by, "/logout", "", Op::Delete { id }, |_| Answer::Done);
                self.history.push(keep(self.door, self.board, at, self.number));
            }
            _ => self.log_in(&mut visitor, at, &cookie, id),
        }
    }

    fn request(&mut self, visitor: &mut Visitor, by: &str, target: &str, form: &str) -> io::Result<visit::Answer> {
        if !matches!(self.door, Door::Cgi(_)) || self.random.below(8) > 0 {
            return visitor.ask(by, target, form);
        }
        let mut script = visitor.start_script(by, target, form)?;
        // Not to wait for anything, but to hit it at work.
        thread::sleep(Duration::from_micros(self.random.below(20_000)));
        script.0.kill()?;
        script.answer()
    }

    /// One request. One that nobody answered may have been served or not: nothing of it happens after its connection was
    /// closed, as its process is gone. One that was refused has changed nothing.
    fn ask(
        &mut self,
        visitor: &mut Visitor,
        by: &str,
        target: &str,
        form: &str,
        op: Op,
        read: impl Fn(&visit::Answer) -> Answer,
    ) -> Option<visit::Answer> {
        let start = time();
        let answer = self.request(visitor, by, target, form).ok();
        let end = time();
        let known = match &answer {
            None => Answer::Unknown,
            Some(answer) if answer.status >= 400 => Answer::Failed,
            Some(answer) => read(answer),
        };
        self.history.push(Event { process: self.number, start, end, op, answer: known });
        answer.filter(|answer| answer.status < 400)
    }

    /// Logs in, which renews the ID; everybody is told the new one.
    fn log_in(&mut self, visitor: &mut Visitor, at: usize, cookie: &str, id: Name) {
        let Ok(form) = visitor.ask("GET", "/login", "") else { return };
        let Some((_, token)) = form.body.split_once("name=\"form_token\" value=\"") else { return };
        let token = token.split_once('"').expect("a quoted token").0;
        // Until it is known it has a number of its own.
        let new = self.board().name(&format!("after {cookie} by {}", self.history.len()));
        let form = format!("name=ada&form_token={token}");
        let answer = self.ask(visitor, "POST", "/login", &form, Op::Renew { id, new }, |_| Answer::Done);
        match answer.and_then(|answer| answer.set_cookie) {
            Some(cookie) => {
                let mut board = self.board();
                board.names.insert(cookie.clone(), new);
                board.current[at] = cookie;
            }
            // Nobody knows its ID, if it has another.
            None => self.history.push(keep(self.door, self.board, at, self.number)),
        }
    }
}

#[test]
fn histories_of_a_pool_whose_workers_are_killed_are_linearizable() {
    let _turn = turn();
    let seeds: Vec<u64> = crate::seeds(40, 1).collect();
    let mut figures = Figures::new();
    for seeds in seeds.chunks(HISTORIES_OF_A_POOL) {
        let site = Site::pool();
        for &seed in seeds {
            figures.check(seed, &site.record(seed, KILLS / HISTORIES_OF_A_POOL));
        }
    }
    figures.print("a pool");
}

#[test]
fn histories_of_cgi_scripts_of_which_some_are_killed_are_linearizable() {
    let _turn = turn();
    let mut figures = Figures::new();
    let site = Site::cgi();
    for seed in crate::seeds(4, 10) {
        figures.check(seed, &site.record(seed, 0));
    }
    figures.print("CGI scripts");
}
