//! The storm: a worker is killed every 20 ms.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::DirectoryStore;

use crate::book::Book;
use crate::coat::{Coat, look_all_the_time};
use crate::kills::{Graves, check_growth, check_log, check_names, check_processes, kill_one, median};
use crate::support::process::{Proc, Signal, anonymous, descriptors};
use crate::support::visit::{Door, Visitor};
use crate::support::{TestDir, turn};
use crate::{Dice, seconds};

const EVERY: Duration = Duration::from_millis(20);
const WORKERS: usize = 8;
/// Half of them come in by HTTP, on connections that they keep, and half by SCGI.
const CLIENTS: u64 = 8;
/// The first of them is in every other request.
const SESSIONS: usize = 64;

#[test]
fn nothing_acknowledged_is_lost_and_nobody_waits_while_a_worker_is_killed_every_20_ms() {
    let _turn = turn();
    let length = seconds("CLOAKROOM_STORM", 60);
    let directory = TestDir::in_memory();
    let (sessions, socket) = (directory.join("sessions"), directory.join("socket"));
    let socket = format!("unix:{}", socket.display());
    let mut command = crate::support::process::demo();
    command.args(["--http", "127.0.0.1:0", "--scgi", &socket, "--workers", &WORKERS.to_string()]);
    // Nothing but workers are its children.
    command.args(["--sweep-every", "0"]).arg("--sessions").arg(&sessions);
    let mut pool = Proc::start(command);
    let doors = [Door::Http(pool.address("http")), Door::Scgi(pool.address("scgi"))];
    pool.line(&format!(" ready workers={WORKERS}"));
    let coats: Vec<Coat> = (0..SESSIONS).map(|_| Coat::new(&doors[0])).collect();
    let store = DirectoryStore::at(&sessions);
    let master = pool.pid();
    let before = descriptors(master);
    let (book, kills) = (Book::new(Duration::from_secs(1)), AtomicU64::new(0));
    let mut memory = Vec::new();
    thread::scope(|scope| {
        let (book, coats, doors, store, kills) = (&book, &coats, &doors, &store, &kills);
        let stopper = book.stopper();
        scope.spawn(move || book.watch_the_clock(master));
        scope.spawn(|| look_all_the_time(coats, book, store));
        for number in 0..CLIENTS {
            scope.spawn(move || visit(number, &doors[number as usize % 2], coats, book));
        }
        scope.spawn(move || {
            let mut dice = Dice::new(u64::from(master));
            let mut next = Instant::now();
            while book.goes_on() {
                kills.fetch_add(u64::from(kill_one(master, &mut dice)), Relaxed);
                // Those that this thread has come too late for are not made up for.
                next = (next + EVERY).max(Instant::now());
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let mut graves = Graves::default();
        while book.elapsed() < length && !book.has_failed() {
            thread::sleep(Duration::from_millis(200));
            graves.look(master, book);
            memory.extend(anonymous(master));
        }
        drop(stopper);
    });
    let kills = kills.into_inner();
    check_processes(&pool, WORKERS, before);
    for coat in &coats {
        coat.assert_is_free(&book, &doors[0]);
    }
    let counts = coats.iter().map(|coat| coat.check(&book, &store)).fold([0; 3], |sum, one| {
        let [a, b, c] = [0, 1, 2].map(|at| sum[at] + one[at]);
        [a, b, c]
    });
    if check_names(&book, &sessions) != SESSIONS {
        book.fail("files were made or lost");
    }
    // Where nothing has been warm for long, the first quarter would be all there is.
    let quarter = memory.len() / 4;
    let (early, late) = (median(memory[quarter..=2 * quarter].to_vec()), median(memory[3 * quarter..].to_vec()));
    check_growth(&book, "the master", early, late, 16);
    pool.signal(Signal::TERM);
    assert_eq!(pool.end(), 0);
    let log = pool.log();
    check_log(&book, &log);
    let seen = log.matches(" killed signal=9, respawning").count();
    let [acknowledged, counted, unknown] = counts;
    book.conclude(
        "storm",
        &format!(
            "{kills} kills ({seen} of workers that were alive); {acknowledged} counts acknowledged, {unknown} unknown, \
             {counted} there; the master's memory from {early} to {late} KiB"
        ),
    );
    assert!(u128::from(kills) * EVERY.as_millis() * 3 > length.as_millis(), "hardly a storm: {kills} kills");
    assert!(acknowledged > 10 * kills, "hardly any counts: {acknowledged}");
}

/// One who counts, on one session more than on the others.
fn visit(number: u64, door: &Door, coats: &[Coat], book: &Book) {
    let mut dice = Dice::new(number + 1);
    let mut visitor = Visitor::new(door);
    while book.goes_on() {
        let coat = &coats[if dice.roll(2) == 0 { 0 } else { dice.roll(coats.len()) }];
        match dice.roll(8) {
            0 => coat.read(book, &mut visitor),
            way => coat.count(book, &mut visitor, way),
        }
    }
}
