//! What is done to the pool while clients ask.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use crate::load::{Tally, Way};
use crate::process::{Place, Process};
use crate::site::{Front, Plan, start_server};
use crate::support::eventually;
use crate::support::process::{Proc, Signal, anonymous, children, demo, demo_at, descriptors, state};
use crate::support::turn;

const WORKERS: usize = 4;
const EVENTS: usize = 100;
const SWAPS: usize = 20;
/// A wave replaces the whole crew.
const WAVES: usize = 100;
/// How many requests a worker serves in them.
const SHARE: &str = "20";

/// A test goes on, when its events are over, until so many requests were made.
fn least_requests() -> u64 {
    if std::env::var_os("CLOAKROOM_ZERO_DROP").is_some_and(|scale| scale == "full") { 20_000 } else { 0 }
}

/// A pool, and perhaps nginx in front of it.
pub struct Pool {
    pub proc: Proc,
    /// Where clients come in.
    pub address: String,
    _nginx: Option<Process>,
    // The last to go.
    _place: Place,
}

impl Pool {
    /// The demo, ready.
    pub fn start(way: Way, workers: usize, more: &[&str]) -> Self {
        Self::of(demo(), way, workers, more, Place::new())
    }

    fn of(mut program: Command, way: Way, workers: usize, more: &[&str], place: Place) -> Self {
        let unix = format!("unix:{}", place.path("scgi.sock").display());
        let (protocol, address) = match way {
            Way::ScgiUnix | Way::Nginx => ("scgi", &*unix),
            Way::ScgiTcp => ("scgi", "127.0.0.1:0"),
            Way::Http | Way::HttpKept => ("http", "127.0.0.1:0"),
        };
        // The user that nginx runs as is not in our group.
        program.args([&format!("--{protocol}"), address, "--socket-mode", "0666"]);
        program.args(["--workers", &workers.to_string()]).arg("--sessions").arg(place.path("sessions")).args(more);
        let proc = Proc::start(program);
        let mut address = proc.address(protocol);
        proc.line(&format!("ready workers={workers}"));
        let nginx = (way == Way::Nginx).then(|| start_server(Front::NginxScgi, Plan::default(), &place, |file| file));
        let nginx = nginx.map(|(front, nginx)| {
            address = front.to_string();
            nginx
        });
        Self { proc, address, _nginx: nginx, _place: place }
    }
}

/// Who asks meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    pub way: Way,
    pub count: usize,
}

/// Has clients ask while `event` is made to happen `events` times, and then looks at what is left.
fn storm(clients: Clients, title: &str, mut pool: Pool, events: usize, mut event: impl FnMut(&Proc)) {
    let Clients { way, count } = clients;
    let tally = Tally::new();
    let master = pool.proc.pid();
    let before = descriptors(master);
    let (mut done, mut early) = (0, 0);
    thread::scope(|scope| {
        let stopper = tally.clients(scope, way, &pool.address, count);
        tally.wait_for(100);
        while done < events || tally.requests.load(Relaxed) < least_requests() {
            tally.event(format!("the start of {title} {done}"));
            event(&pool.proc);
            done += 1;
            if done <= events / 10 {
                // The most of several looks: one may fall into the moment in which the process becomes the new program.
                early = memory(master).max(early);
            }
        }
        tally.event(format!("the last of {done} {title}"));
        tally.wait_for(100);
        drop(stopper);
    });
    let late = memory(master);
    tally.conclude(
        &format!("{way:?} x {count}, {title}"),
        &format!("{done} {title}, the master's memory from {early} to {late} KiB"),
    );
    eventually("the crew is complete", || {
        let crew = children(master);
        crew.len() == wanted(&pool.proc.log()) && crew.iter().all(|&pid| state(pid).is_some_and(|state| state != 'Z'))
    });
    // A program that is being tried out has some.
    eventually(&format!("the master has {before} descriptors again"), || descriptors(master) == before);
    assert!(late * 10 <= early * 11, "the master has grown: {early} KiB, {late} KiB");
    pool.proc.signal(Signal::TERM);
    assert_eq!(pool.proc.end(), 0);
    let log = pool.proc.log();
    let accident =
        log.lines().find(|line| ["respawning", "killed", "cannot", "failed"].iter().any(|w| line.contains(w)));
    assert_eq!(accident, None, "{log}");
}

pub fn reloads(clients: Clients) {
    let _turn = turn();
    let pool = Pool::start(clients.way, WORKERS, &[]);
    storm(clients, "reloads", pool, EVENTS, reload);
}

/// One event is one worker that has served its share and is replaced.
pub fn waves(clients: Clients) {
    let _turn = turn();
    let pool = Pool::start(clients.way, WORKERS, &["--max-requests", SHARE]);
    storm(clients, "recycled workers", pool, WAVES * WORKERS, |proc| {
        proc.line_of_worker(" exited status=0");
    });
}

/// One event is a new program in the place of the old one.
pub fn swaps(clients: Clients) {
    let _turn = turn();
    let place = Place::new();
    let (program, next) = (place.path("demo"), place.path("demo.new"));
    copy_demo(&program);
    let pool = Pool::of(demo_at(&program), clients.way, WORKERS, &[], place);
    storm(clients, "new programs", pool, SWAPS, |proc| {
        copy_demo(&next);
        fs::rename(&next, &program).unwrap();
        reload(proc);
        let wanted = fs::metadata(&program).unwrap().ino();
        for pid in children(proc.pid()).into_iter().chain([proc.pid()]) {
            let running = fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino();
            assert_eq!(running, wanted, "process {pid} runs the old program:\n{}", proc.log());
        }
    });
}

/// One event is one worker more, and one less again.
pub fn more_and_fewer(clients: Clients) {
    let _turn = turn();
    let pool = Pool::start(clients.way, WORKERS, &[]);
    storm(clients, "times more and fewer workers", pool, EVENTS, |proc| {
        proc.signal(Signal::TTIN);
        proc.line(&format!("TTIN: workers={}", WORKERS + 1));
        proc.ready(1);
        proc.signal(Signal::TTOU);
        proc.line(&format!("TTOU: workers={WORKERS}"));
        proc.line_of_worker(" exited status=0");
    });
}

/// One event is a reload, and one worker more and one less before it is over, of a crew that is recycled, too.
pub fn all_at_once(clients: Clients) {
    let _turn = turn();
    let pool = Pool::start(clients.way, WORKERS, &["--max-requests", "50"]);
    storm(clients, "reloads that are disturbed", pool, EVENTS, |proc| {
        proc.signal(Signal::HUP);
        // Signals of one kind that come together are one.
        for (signal, name) in [(Signal::TTIN, "TTIN"), (Signal::TTOU, "TTOU")] {
            proc.signal(signal);
            proc.line(&format!(" {name}: workers="));
        }
        // Some get as far as this, before the next begins.
        proc.line_of_worker(" exited status=0");
    });
}

/// How many workers the pool has said last that there should be.
fn wanted(log: &str) -> usize {
    let said = log.lines().rev().find_map(|line| line.split_once(" workers=")).unwrap().1;
    said.parse().unwrap()
}

fn reload(proc: &Proc) {
    proc.signal(Signal::HUP);
    proc.line(" reloaded");
}

/// A copy, not a link: the file is to be another one.
fn copy_demo(to: &Path) {
    fs::copy(demo().get_program(), to).unwrap();
}

/// What the master has in memory, in KiB.
fn memory(pid: u32) -> u64 {
    let mut memory = None;
    // There is none in the moment in which it becomes the new program.
    eventually("the master has memory", || {
        memory = anonymous(pid);
        memory.is_some()
    });
    memory.unwrap()
}
