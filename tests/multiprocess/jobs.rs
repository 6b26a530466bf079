//! What the processes of the bare store's tests do. Each reports in lines that start with `@`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, SystemTime};

use cloakroom::DirectoryStore;
use cloakroom::session::{Id, Saved, Store};
use rustix::time::{ClockId, clock_gettime};

use crate::coat::{Coat, WAIT, coat, from_argument, increment_locked, increment_optimistic};

pub fn run(job: &str, store: &DirectoryStore, arguments: &[&str]) {
    let ids = || from_argument(arguments[0]);
    let number = |at: usize| arguments[at].parse::<u64>().expect("a number");
    match job {
        "increment-locked" => increment(&ids(), number(1), |id| increment_locked(store, id, 40)),
        "increment-optimistic" => increment(&ids(), number(1), |id| increment_optimistic(store, id, 40)),
        "several-saves-per-lock" => several_saves_per_lock(store, &ids(), number(1)),
        "save-until-gone-locked" => save_until_gone(store, &ids(), true),
        "save-until-gone-optimistic" => save_until_gone(store, &ids(), false),
        "delete" => delete(store, &ids()),
        "save-until-killed" => save_until_killed(store, &ids()),
        "live-and-die-until-killed" => live_and_die_until_killed(store),
        "write-all-sizes" => write_all_sizes(store, &ids(), number(1), &Acknowledged::open(arguments[2])),
        "write-growing" => write_growing(store, &ids(), number(1), &Acknowledged::open(arguments[2])),
        "write-past-readers" => write_past_readers(store, &ids(), number(1), &Acknowledged::open(arguments[2])),
        "read" => read(store, &ids(), number(1), &Acknowledged::open(arguments[2])),
        "use-at-the-edge" => use_at_the_edge(store, arguments[2], &ids(), number(1)),
        "stay-awake" => stay_awake(store, &ids(), Duration::from_millis(number(1)), Duration::from_millis(number(2))),
        "sweep-while-counting" => {
            let ids = ids();
            let counted = |id| coat(store, id).expect("there").n;
            let age = Some(Duration::from_secs(600));
            sweep(store, age, || ids.iter().map(counted).sum::<u64>() >= number(1));
        }
        "sweep-for" => {
            let until = time() + number(0) * 1_000_000;
            sweep(store, None, || time() >= until);
        }
        _ => panic!("no such job: {job}"),
    }
}

fn increment(ids: &[Id], count: u64, one: impl Fn(&Id) -> Option<u64>) {
    for i in 0..count {
        one(&ids[i as usize % ids.len()]).expect("a session that nobody deletes");
    }
}

/// A request may save more than once under one lock.
fn several_saves_per_lock(store: &DirectoryStore, ids: &[Id], count: u64) {
    for i in 0..count {
        let mut guard = store.lock(&ids[i as usize % ids.len()], WAIT).expect("lock").expect("there");
        let mut stored = guard.load().expect("load").expect("there");
        for _ in 0..3 {
            let n = Coat::of(&stored.record).n + 1;
            stored.record = Coat { n, size: (n as usize * 997) % 5000 }.record();
            let Saved::Saved(version) = guard.save(&stored.record, stored.version).expect("save") else {
                panic!("not saved under the lock");
            };
            stored.version = version;
        }
    }
}

/// A clock that all processes share, in nanoseconds.
fn time() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Saves each session until it is gone; reports when the last save began that was acknowledged, and the number of
/// saves.
fn save_until_gone(store: &DirectoryStore, ids: &[Id], locked: bool) {
    for id in ids {
        let (mut last, mut count) = (0, 0);
        loop {
            let began;
            let saved = if locked {
                let Some(mut guard) = store.lock(id, WAIT).expect("lock") else { break };
                let stored = guard.load().expect("load").expect("locked, so it is there");
                began = time();
                let n = Coat::of(&stored.record).n + 1;
                guard.save(&Coat { n, size: 40 }.record(), stored.version).expect("save")
            } else {
                let Some(stored) = store.load(id).expect("load") else { break };
                began = time();
                let n = Coat::of(&stored.record).n + 1;
                store.save(id, &Coat { n, size: 40 }.record(), stored.version).expect("save")
            };
            match saved {
                Saved::Saved(_) => (last, count) = (began, count + 1),
                Saved::Conflict => assert!(!locked, "a conflict under the lock"),
                Saved::Gone => break,
            }
        }
        // Once gone, gone for whatever this process tries.
        store.touch(id).expect("touch");
        assert!(store.lock(id, WAIT).expect("lock").is_none(), "locked a deleted session");
        assert_eq!(coat(store, id), None, "brought back");
        println!("@{last} {count}");
    }
}

/// Deletes each session once it is well used; reports when that was acknowledged, and whether it was us.
fn delete(store: &DirectoryStore, ids: &[Id]) {
    for id in ids {
        while coat(store, id).is_some_and(|coat| coat.n < 14) {
            std::thread::yield_now();
        }
        let was_us = store.delete(id).expect("delete");
        println!("@{} {was_us}", time());
    }
}

/// Increments, growing and shrinking the record, and reports each save once it is acknowledged.
fn save_until_killed(store: &DirectoryStore, ids: &[Id]) {
    let mut random = std::process::id() as usize;
    loop {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (random >> 33) % ids.len();
        let size = [10, 1500, 3000, 20_000][(random >> 50) % 4];
        let n = if random >> 60 & 1 == 0 {
            increment_locked(store, &ids[at], size)
        } else {
            increment_optimistic(store, &ids[at], size)
        };
        println!("@{at} {}", n.expect("a session that nobody deletes"));
    }
}

/// Creates, saves and deletes sessions, and reports each step: before a deletion, and after everything.
fn live_and_die_until_killed(store: &DirectoryStore) {
    loop {
        let id = Id::generate().expect("an ID");
        let text = id.to_text();
        store.create(&id, &Coat { n: 0, size: 100 }.record()).expect("create");
        println!("@created {}", &*text);
        // Grows from either slot.
        for (n, size) in [(1, 100), (2, 3000), (3, 20_000), (4, 20)] {
            increment_locked(store, &id, size).expect("there");
            println!("@saved {} {n}", &*text);
        }
        if text.as_bytes()[0].is_multiple_of(2) {
            println!("@deleting {}", &*text);
            assert!(store.delete(&id).expect("delete"));
            println!("@deleted {}", &*text);
        }
    }
}

/// How many saves of each session have been acknowledged, shared between processes.
struct Acknowledged(File);

impl Acknowledged {
    fn open(path: &str) -> Self {
        Self(OpenOptions::new().read(true).write(true).open(path).expect("open the shared counts"))
    }

    fn get(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 8 * at as u64).expect("read the shared counts");
        u64::from_le_bytes(bytes)
    }

    /// Only under the session's lock, so that it never goes back.
    fn set(&self, at: usize, n: u64) {
        self.0.write_all_at(&n.to_le_bytes(), 8 * at as u64).expect("write the shared counts");
    }
}

fn write_all_sizes(store: &DirectoryStore, ids: &[Id], until: u64, acknowledged: &Acknowledged) {
    for at in (0..ids.len()).cycle() {
        let mut guard = store.lock(&ids[at], WAIT).expect("lock").expect("there");
        let stored = guard.load().expect("load").expect("there");
        let n = Coat::of(&stored.record).n + 1;
        if n > until {
            break;
        }
        let size = [100, 65_536, 1900, 9000, 300, 33_000][n as usize % 6];
        let saved = guard.save(&Coat { n, size }.record(), stored.version).expect("save");
        assert!(matches!(saved, Saved::Saved(_)));
        acknowledged.set(at, n);
    }
}

/// One session after the other grows, at each save or every other, so from either slot.
fn write_growing(store: &DirectoryStore, ids: &[Id], until: u64, acknowledged: &Acknowledged) {
    for (at, id) in ids.iter().enumerate() {
        loop {
            let mut guard = store.lock(id, WAIT).expect("lock").expect("there");
            let stored = guard.load().expect("load").expect("there");
            let n = Coat::of(&stored.record).n + 1;
            if n > until {
                break;
            }
            let size = 1500 << (n - n % (at as u64 % 3 + 1)).min(7);
            let saved = guard.save(&Coat { n, size }.record(), stored.version).expect("save");
            assert!(matches!(saved, Saved::Saved(_)));
            acknowledged.set(at, n);
        }
    }
}

/// Many saves under one lock, in a file so long that a reader needs the time of several for one look: it may then meet
/// an old record in slot A, before those saves, and a half-written one in slot B, after them.
fn write_past_readers(store: &DirectoryStore, ids: &[Id], until: u64, acknowledged: &Acknowledged) {
    // Made before, so that from now on there is nothing but saves.
    let long = Coat { n: 1, size: 3_000_000 }.record();
    // Three, so that the two slots never get the same bytes twice running: else a half-written one would be whole.
    let short = [2, 3, 4].map(|n| Coat { n, size: 60_000 }.record());
    let mut saves = 0;
    while saves < until {
        let mut guard = store.lock(&ids[0], WAIT).expect("lock").expect("there");
        let mut version = guard.load().expect("load").expect("there").version;
        for _ in 0..1000 {
            let record = if saves == 0 { &long } else { &short[saves as usize % 3] };
            let Saved::Saved(next) = guard.save(record, version).expect("save") else {
                panic!("not saved under the lock");
            };
            version = next;
            saves += 1;
            acknowledged.set(0, saves);
        }
    }
}

/// Reads without a lock, as fast as it can, what the writers are at, until they are done; reports how many reads there
/// were.
fn read(store: &DirectoryStore, ids: &[Id], until: u64, acknowledged: &Acknowledged) {
    let mut reads = 0_u64;
    for (at, id) in ids.iter().enumerate() {
        loop {
            let before = acknowledged.get(at);
            let stored = store.load(id).expect("load").expect("a session that is there all the time");
            Coat::of(&stored.record);
            // A session is created with version 1, and each save adds one.
            let saves = stored.version.0 - 1;
            assert!(saves >= before, "read save {saves} after save {before} had been acknowledged");
            reads += 1;
            if before >= until {
                break;
            }
        }
    }
    println!("@{reads}");
}

/// Uses sessions that look unused for an hour whenever nobody holds their lock for a save: a sweep that does not respect
/// the lock, or does not look again under it, takes them away.
fn use_at_the_edge(store: &DirectoryStore, directory: &str, ids: &[Id], count: u64) {
    for i in 0..count {
        let id = &ids[i as usize % ids.len()];
        let mut guard = store.lock(id, WAIT).expect("lock").expect("swept while in use");
        let file =
            File::options().write(true).open(format!("{directory}/{}", &*id.to_text())).expect("swept under lock");
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("set the time");
        let stored = guard.load().expect("load").expect("swept under the lock");
        assert!(store.exists(id).expect("exists"), "swept under the lock");
        let n = Coat::of(&stored.record).n + 1;
        let saved = guard.save(&Coat { n, size: 40 }.record(), stored.version).expect("save");
        assert!(matches!(saved, Saved::Saved(_)), "{saved:?}: swept under the lock");
        drop(guard);
        assert!(store.exists(id).expect("exists"), "swept right after it was saved");
    }
}

/// Touches sessions with an idle timeout often enough, for longer than that timeout. Where this process was not let run
/// in time it does not complain.
fn stay_awake(store: &DirectoryStore, ids: &[Id], idle: Duration, duration: Duration) {
    let begin = time();
    let mut touched: Vec<u64> = vec![begin; ids.len()];
    let mut checked = 0;
    while Duration::from_nanos(time() - begin) < duration {
        for (id, touched) in ids.iter().zip(&mut touched) {
            let before = time();
            let there = store.exists(id).expect("exists");
            let slept = Duration::from_nanos(time() - *touched);
            if slept > idle / 2 {
                *touched = u64::MAX / 2;
            } else {
                assert!(there, "swept {slept:?} after a touch");
                checked += 1;
                store.touch(id).expect("touch");
                *touched = before;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("@{checked}");
}

/// Sweeps again and again until that is enough; reports how many sessions it deleted.
fn sweep(store: &DirectoryStore, age: Option<Duration>, enough: impl Fn() -> bool) {
    let mut deleted = 0;
    while !enough() {
        deleted += store.delete_old_sessions(age).expect("sweep").deleted;
    }
    println!("@{deleted}");
}
