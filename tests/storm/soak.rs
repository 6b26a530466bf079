//! The soak: all that a pool goes through, together and for a long time, and then nothing has grown and nothing is left.
//!
//! It goes in cycles. In the first two thirds of each, workers are killed, one for every hundred requests, and the program
//! is reloaded every few seconds. Then it is calm, after one more reload, so that all processes are of the same age when
//! they are looked at, at the first third of the calm and at its end: what grows with requests shows between these two,
//! what grows with kills and reloads from cycle to cycle.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::DirectoryStore;

use crate::book::Book;
use crate::coat::{Coat, look_all_the_time};
use crate::kills::{Graves, check_growth, check_log, check_names, check_processes, is_nice, kill_one};
use crate::support::client::http;
use crate::support::process::{Proc, Signal, anonymous, children, demo, descriptors};
use crate::support::visit::{Door, Visitor};
use crate::support::{TestDir, turn};
use crate::visits::Guests;
use crate::{Dice, seconds};

const WORKERS: usize = 4;
/// It is not the time that counts here, and on a machine with other work there are many processes for few processors.
const PATIENCE: Duration = Duration::from_secs(5);
const CLIENTS: usize = 10;
/// Each client has so many sessions that stay; one more is everybody's.
const OWN: usize = 10;
/// Each client has a visitor, and asks for some things besides, once in this time: a thousand requests a second in all.
const PACE: Duration = Duration::from_millis(125);
const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// A kill for so many requests.
const KILL_ONE_IN: u64 = 100;
/// Kills that are to be made up for after a calm come no faster than this.
const KILL_EVERY: Duration = Duration::from_millis(20);
/// One that long goes on until it has made a million requests and a hundred thousand sessions.
const FULL: Duration = Duration::from_secs(1800);
const MANY: [u64; 2] = [1_000_000, 100_000];

/// By so much, in KiB, a heap may grow at a time: that of the reporter does not know yet how large a page can be.
const HEAP: u64 = 128;
/// What a creation has left that was killed is removed by a sweep after this time.
const LEFT_OVER: Duration = Duration::from_secs(60);

struct Soak<'s> {
    pool: &'s Proc,
    book: &'s Book,
    directory: &'s Path,
    status: &'s str,
    calm: &'s AtomicBool,
    descriptors: usize,
    /// What may come and go, in KiB: more of it where nothing has been warm for long.
    slack: u64,
    graves: Graves,
    reloads: u64,
    reloads_killed: u64,
    /// Of each calm, at its first third and at its end.
    snapshots: Vec<[Snapshot; 2]>,
}

/// What the processes have, all of the same age. Memory in KiB.
#[derive(Clone, Copy, Debug)]
struct Snapshot {
    master: u64,
    worker: u64,
    reporter: u64,
    /// Descriptors of the worker with the most, but for its connections.
    descriptors: usize,
    sockets: usize,
}

#[test]
fn nothing_grows_and_nothing_is_left_behind() {
    let _turn = turn();
    let length = seconds("CLOAKROOM_SOAK", 20);
    let directory = TestDir::in_memory();
    let temporary = directory.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let sessions = directory.join("sessions");
    let mut command = demo();
    command.args(["--http", "127.0.0.1:0", "--scgi", &format!("unix:{}", directory.join("socket").display())]);
    command.args(["--status", "127.0.0.1:0", "--workers", &WORKERS.to_string(), "--sweep-every", "2"]);
    command.arg("--sessions").arg(&sessions).arg("--access-log").arg(log_file(directory.path()));
    command.env("TMPDIR", &temporary);
    let mut pool = Proc::start(command);
    let doors = [Door::Http(pool.address("http")), Door::Scgi(pool.address("scgi"))];
    let status = pool.address("status");
    pool.line(&format!(" ready workers={WORKERS}"));
    let coats: Vec<Coat> = (0..=OWN * CLIENTS).map(|_| Coat::new(&doors[0])).collect();
    let store = DirectoryStore::at(&sessions);
    let master = pool.pid();
    let (book, calm, kills) = (Book::new(PATIENCE), AtomicBool::new(false), AtomicU64::new(0));
    let guests = Guests { long: (length.as_secs() / 10).clamp(4, 20), ..Guests::default() };
    let asked = [const { AtomicU64::new(0) }; 2];
    // The reporter is made when it is first looked after, and its pipe is there from then on.
    http(&status, "/health").unwrap();
    let mut soak = Soak {
        pool: &pool,
        book: &book,
        directory: directory.path(),
        status: &status,
        calm: &calm,
        descriptors: descriptors(master),
        slack: if length >= FULL / 10 { 16 } else { 160 },
        graves: Graves::default(),
        reloads: 0,
        reloads_killed: 0,
        snapshots: Vec::new(),
    };
    thread::scope(|scope| {
        let (book, coats, doors, store, guests) = (&book, &coats, &doors, &store, &guests);
        let (calm, kills, status, asked) = (&calm, &kills, &*status, &asked);
        let stopper = book.stopper();
        scope.spawn(move || book.watch_the_clock(master));
        scope.spawn(|| look_all_the_time(coats, book, store));
        scope.spawn(|| ask_how_it_is(status, book, asked));
        for number in 0..CLIENTS {
            let own = &coats[1 + number * OWN..][..OWN];
            scope.spawn(move || live(number, &doors[number % 2], own, &coats[0], book, guests));
        }
        scope.spawn(move || {
            let mut dice = Dice::new(u64::from(master));
            while book.goes_on() {
                let due = (book.answered.load(Relaxed) + book.unknown.load(Relaxed)) / KILL_ONE_IN;
                if !calm.load(Relaxed) && kills.load(Relaxed) < due {
                    kills.fetch_add(u64::from(kill_one(master, &mut dice)), Relaxed);
                }
                thread::sleep(KILL_EVERY);
            }
        });
        let cycles = u32::try_from(length.as_secs() / 60).unwrap().max(2);
        let is_done = || {
            length < FULL
                || [&book.answered, &guests.sessions].iter().zip(MANY).all(|(count, many)| count.load(Relaxed) >= many)
        };
        for cycle in 0.. {
            soak.cycle(length / cycles * cycle, length / cycles);
            if book.has_failed() || (cycle + 1 >= cycles && is_done()) {
                break;
            }
        }
        drop(stopper);
    });
    let Soak { reloads, reloads_killed, snapshots, descriptors: before, slack, .. } = soak;
    finish(&book, &coats, &doors[0], &store, &sessions, &guests);
    check_processes(&pool, WORKERS + 1, before);
    judge(&book, &snapshots, slack);
    let sweeps = swept(&status);
    pool.signal(Signal::TERM);
    assert_eq!(pool.end(), 0);
    check_log(&book, &pool.log());
    check_litter(&book, &temporary);
    let [created, logins, logouts] =
        [&guests.sessions, &guests.logins, &guests.logouts].map(|count| count.load(Relaxed));
    let [said, unsaid] = asked.map(AtomicU64::into_inner);
    let list = |what: fn(&[Snapshot; 2]) -> String| snapshots.iter().map(what).collect::<Vec<_>>().join(" ");
    let workers = list(|[early, late]| format!("{}-{}", early.worker, late.worker));
    let others = list(|[_, late]| format!("{}/{}", late.master, late.reporter));
    let open = list(|[_, late]| format!("{}+{}", late.descriptors, late.sockets));
    book.conclude(
        "soak",
        &format!(
            "{kills} kills, {reloads} reloads and {reloads_killed} more whose new program was killed; {created} sessions, \
             {logins} logins, {logouts} logouts, {sweeps}; status asked {said} times, {unsaid} without an answer; in the \
             calms a worker has {workers} KiB and {open} descriptors, master/reporter {others} KiB",
            kills = kills.into_inner(),
        ),
    );
    assert!(unsaid * 10 <= said, "hardly any answers of the status: {said} and {unsaid} without one");
}

impl Soak<'_> {
    /// One cycle, which begins at `start` and has `length`.
    fn cycle(&mut self, start: Duration, length: Duration) {
        let calm = start + length * 2 / 3;
        while self.book.elapsed() < calm && !self.book.has_failed() {
            self.reload();
            self.until((self.book.elapsed() + RELOAD_EVERY).min(calm));
        }
        self.calm.store(true, Relaxed);
        // One kill may still be on its way, which makes this reload fail.
        thread::sleep(2 * KILL_EVERY);
        if !self.reload() && !self.reload() {
            self.book.fail("a reload failed in the calm");
        }
        self.until(start + length * 7 / 9);
        let early = self.look();
        self.until(start + length);
        let late = self.look();
        self.snapshots.extend(early.zip(late).map(|(early, late)| [early, late]));
        self.rotate();
        self.calm.store(false, Relaxed);
    }

    /// False where the program that was tried out has been killed.
    fn reload(&mut self) -> bool {
        self.pool.signal(Signal::HUP);
        let line = self.pool.line("reload");
        let is_done = line.ends_with(" reloaded");
        *(if is_done { &mut self.reloads } else { &mut self.reloads_killed }) += 1;
        is_done
    }

    /// Waits, and looks at what there is meanwhile.
    fn until(&mut self, time: Duration) {
        while self.book.elapsed() < time && !self.book.has_failed() {
            thread::sleep(Duration::from_millis(250).min(time.saturating_sub(self.book.elapsed())));
            self.graves.look(self.pool.pid(), self.book);
            for pid in children(self.pool.pid()).into_iter().chain([self.pool.pid()]) {
                self.check_links(pid);
            }
        }
    }

    /// No process has a file open that is not in the test's directory.
    fn check_links(&self, pid: u32) {
        for link in links(pid) {
            let is_known = ["socket:", "pipe:", "anon_inode:", "/memfd:", "/dev/null", "/proc/"]
                .iter()
                .any(|known| link.to_string_lossy().starts_with(known));
            if !is_known && !link.starts_with(self.directory) {
                self.book.fail(format_args!("process {pid} has {} open", link.display()));
            }
        }
    }

    /// What the processes have now; `None` where one of them is not there.
    fn look(&self) -> Option<Snapshot> {
        let master = self.pool.pid();
        let report = http(self.status, "/status.json").ok()?;
        let report: serde_json::Value = serde_json::from_str(report.split_once("\r\n\r\n")?.1).ok()?;
        let rows = report["scoreboard"].as_array()?;
        let workers: Vec<u32> = rows.iter().filter_map(|row| row["pid"].as_u64()?.try_into().ok()).collect();
        let reporter = children(master).into_iter().find(|pid| !workers.contains(pid) && !is_nice(*pid))?;
        let now = descriptors(master);
        if now != self.descriptors {
            self.book.fail(format_args!("the master has {now} descriptors, and had {}", self.descriptors));
        }
        let is_socket = |link: &PathBuf| link.to_string_lossy().starts_with("socket:");
        let most = |count: &dyn Fn(&PathBuf) -> bool| {
            workers.iter().map(|&pid| links(pid).iter().filter(|link| count(link)).count()).max().unwrap_or(0)
        };
        Some(Snapshot {
            master: anonymous(master)?,
            worker: mean(workers.iter().filter_map(|&pid| anonymous(pid))),
            reporter: anonymous(reporter)?,
            descriptors: most(&|link| !is_socket(link) && !link.starts_with(self.directory)),
            sockets: most(&is_socket),
        })
    }

    /// The access log begins anew.
    fn rotate(&self) {
        let log = log_file(self.directory);
        std::fs::remove_file(&log).expect("remove the access log");
        self.pool.signal(Signal::USR1);
    }
}

fn log_file(directory: &Path) -> PathBuf {
    directory.join("access.log")
}

/// What the descriptors of a process lead to, but for its first three.
fn links(pid: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let others = entries.filter(|entry| !["0", "1", "2"].iter().any(|name| entry.file_name() == *name));
    others.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect()
}

/// A client: a visitor who comes and goes, then some requests on sessions that stay.
fn live(number: usize, door: &Door, own: &[Coat], common: &Coat, book: &Book, guests: &Guests) {
    let mut dice = Dice::new(number as u64 + 1);
    let mut visitor = Visitor::new(door);
    let mut next = Instant::now();
    while book.goes_on() {
        guests.visit(book, &mut visitor, &mut dice);
        for _ in 0..6 {
            let coat = &own[dice.roll(own.len())];
            match dice.roll(8) {
                0 => common.count(book, &mut visitor, dice.roll(4)),
                1 => coat.read(book, &mut visitor),
                2 => {
                    let bytes = [0, 100, 3000, 20_000, 60_000][dice.roll(5)];
                    coat.fill(book, &mut visitor, if dice.roll(2) == 0 { "GET" } else { "POST" }, bytes);
                }
                3 => drop(book.ask(&mut visitor, "GET", "/hello", "")),
                way => coat.count(book, &mut visitor, way),
            }
        }
        next = (next + PACE).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Asks for the status all the time; counts answers, and none.
fn ask_how_it_is(status: &str, book: &Book, counts: &[AtomicU64; 2]) {
    for path in ["/status.json", "/metrics", "/health", "/", "/status"].into_iter().cycle() {
        if !book.goes_on() {
            return;
        }
        let answer = http(status, path).unwrap_or_default();
        // Who was killed meanwhile has said nothing, or not all.
        let is_whole = answer.starts_with("HTTP/1.1 ") && (path != "/status.json" || answer.ends_with('}'));
        counts[usize::from(!is_whole)].fetch_add(1, Relaxed);
        thread::sleep(Duration::from_millis(60));
    }
}

/// Waits until what is short-lived is gone; then there is what stays, whole, and no lock is held.
fn finish(book: &Book, coats: &[Coat], door: &Door, store: &DirectoryStore, sessions: &Path, guests: &Guests) {
    let deadline = Instant::now() + Duration::from_secs(guests.long).max(LEFT_OVER) + crate::support::PATIENCE;
    while check_names(book, sessions) > coats.len() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    let left = check_names(book, sessions);
    if left != coats.len() {
        book.fail(format_args!("{left} sessions are there that should be {}", coats.len()));
    }
    for coat in coats {
        coat.assert_is_free(book, door);
        coat.check(book, store);
    }
}

/// Nothing is left in memory, nor among temporary files.
fn check_litter(book: &Book, temporary: &Path) {
    for (what, place) in [("cloakroom", Path::new("/dev/shm")), ("", temporary)] {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            let path = entry.path();
            // A directory there is a test's.
            if entry.file_name().to_string_lossy().contains(what) && (place == temporary || !path.is_dir()) {
                book.fail(format_args!("left behind: {}", path.display()));
            }
        }
    }
}

/// From the early moments of a calm to the late ones, and from the early cycles to the late ones.
fn judge(book: &Book, snapshots: &[[Snapshot; 2]], slack: u64) {
    if snapshots.len() < 2 {
        book.fail("hardly any process was looked at");
    }
    // The first is for warming up, where there are enough.
    let snapshots = if snapshots.len() > 2 { &snapshots[1..] } else { snapshots };
    let compare = |name, what: fn(&Snapshot) -> u64, slack| {
        let of = |part: &[[Snapshot; 2]], at: usize| mean(part.iter().map(|calm| what(&calm[at])));
        check_growth(book, &format!("{name}, within a calm,"), of(snapshots, 0), of(snapshots, 1), slack);
        let part = snapshots.len().div_ceil(3);
        let (early, late) = (&snapshots[..part], &snapshots[snapshots.len() - part..]);
        check_growth(book, name, of(early, 1), of(late, 1), slack);
    };
    compare("the master", |one| one.master, slack);
    compare("a worker", |one| one.worker, slack);
    compare("the reporter", |one| one.reporter, HEAP);
    compare("the descriptors of a worker", |one| one.descriptors as u64, 0);
    // All of those that clients keep may be with one.
    compare("the sockets of a worker", |one| one.sockets as u64, CLIENTS as u64);
}

fn mean(figures: impl Iterator<Item = u64>) -> u64 {
    let (sum, count) = figures.fold((0, 0), |(sum, count), figure| (sum + figure, count + 1));
    sum / u64::max(count, 1)
}

/// What the sweeps have done since the pool was started.
fn swept(status: &str) -> String {
    let metrics = http(status, "/metrics").unwrap_or_default();
    let of = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or("?").to_owned()
    };
    format!(
        "{} sweeps that deleted {} sessions",
        of("cloakroom_sweeps_total"),
        of("cloakroom_sweep_deleted_sessions_total")
    )
}
