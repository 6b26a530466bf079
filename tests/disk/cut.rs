//! Power cuts: a file system is shut down while sessions are created, saved and deleted, and is mounted again. What was only
//! in memory is lost then, as by a power cut; what the store has acknowledged is held against what is left.
//!
//! ```text
//! tests/power-cut 200        so many cuts of each file system, at each durability
//! ```

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cloakroom::session::{Id, Saved, Store};
use cloakroom::{DirectoryStore, Durability, StoreError};

use super::mount::{Disk, Kind, has_loop_devices, isolated};
use super::session::{Numbers, number, record};

const SESSIONS: usize = 50;
const THREADS: usize = 4;

/// What was asked of one session, and what was acknowledged.
struct Ticket {
    id: Id,
    tried: u64,
    /// 0: not even its creation.
    acknowledged: u64,
    logout: Logout,
    /// Its last update was acknowledged when the power was going already.
    too_late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Logout {
    No,
    Tried,
    Acknowledged,
}

#[derive(Default, Debug)]
struct Tally {
    updates: u64,
    logouts: u64,
    /// Acknowledged while the power was going, and lost; see `work`.
    late: u64,
    /// Sessions that came back older than acknowledged, and that did not come back.
    older: u64,
    absent: u64,
    undone: u64,
    wrong: Vec<String>,
}

fn cycles() -> u64 {
    std::env::var("CLOAKROOM_POWER_CUTS").ok().map_or(5, |cycles| cycles.parse().expect("a number of power cuts"))
}

/// Cuts the power of the disk that is mounted here. `log`: what the file system's log has got is still written, but no data.
fn cut(mount: &Path, log: bool) {
    /// `FS_IOC_SHUTDOWN`, and its flags of linux/fs.h.
    const SHUTDOWN: libc::c_ulong = 0x8004_587d;
    const LOG_FLUSH: u32 = 1;
    const NO_LOG_FLUSH: u32 = 2;
    let directory = std::fs::File::open(mount).expect("open the mount point");
    let how = if log { LOG_FLUSH } else { NO_LOG_FLUSH };
    // SAFETY: the call reads one u32 at the address, which lives as long as the call.
    let done = unsafe { libc::ioctl(directory.as_raw_fd(), SHUTDOWN, &raw const how) };
    assert_eq!(done, 0, "shut down: {}", std::io::Error::last_os_error());
}

impl Ticket {
    fn new() -> Self {
        Self { id: Id::generate().expect("an ID"), tried: 0, acknowledged: 0, logout: Logout::No, too_late: false }
    }

    fn create(&mut self, store: &DirectoryStore, size: usize, progress: &Progress) -> Result<(), StoreError> {
        self.tried = 1;
        store.create(&self.id, &record(&self.id, 1, size))?;
        self.acknowledged = 1;
        self.too_late = progress.is_cutting.load(Ordering::SeqCst);
        Ok(())
    }

    fn save(&mut self, store: &DirectoryStore, size: usize, progress: &Progress) -> Result<(), StoreError> {
        let mut guard = store.lock(&self.id, Duration::from_secs(20))?.expect("a session");
        let version = guard.load()?.expect("a session").version;
        self.tried += 1;
        let saved = guard.save(&record(&self.id, self.tried, size), version)?;
        assert!(matches!(saved, Saved::Saved(_)), "{saved:?}");
        self.acknowledged = self.tried;
        self.too_late = progress.is_cutting.load(Ordering::SeqCst);
        Ok(())
    }

    fn delete(&mut self, store: &DirectoryStore, progress: &Progress) -> Result<(), StoreError> {
        self.logout = Logout::Tried;
        assert!(store.delete(&self.id)?);
        self.logout = Logout::Acknowledged;
        self.too_late = progress.is_cutting.load(Ordering::SeqCst);
        Ok(())
    }
}

/// How far it all is.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicU64,
    is_cutting: AtomicBool,
}

/// Works with its sessions until the power goes; gives all that it ever had.
///
/// A power cut is one instant, and the call that stands for it is not: in its course ext4 was seen to let an fdatasync that
/// was under way return without an error and without its data. So what is acknowledged only after the call has begun is told
/// apart from what was acknowledged before.
fn work(store: &DirectoryStore, mut tickets: Vec<Ticket>, progress: &Progress, seed: u64) -> Vec<Ticket> {
    let mut numbers = Numbers::new(seed);
    let mut step = |tickets: &mut Vec<Ticket>| -> Result<(), StoreError> {
        let at = numbers.below(tickets.len() as u64) as usize;
        // Most stay small; now and then one grows.
        let size = if numbers.below(20) == 0 { numbers.below(20_000) } else { numbers.below(1700) } as usize;
        let ticket = &mut tickets[at];
        if ticket.tried == 0 {
            return ticket.create(store, size, progress);
        }
        if ticket.logout != Logout::No {
            // Somebody else in place of who has left.
            tickets.push(Ticket::new());
            let last = tickets.len() - 1;
            tickets.swap(at, last);
            return tickets[at].create(store, size, progress);
        }
        match numbers.below(20) {
            0 => ticket.delete(store, progress),
            // A new ID: the new session first, then the old one's end.
            1 => {
                let mut renewed = Ticket::new();
                let done = renewed.create(store, size, progress).and_then(|()| ticket.delete(store, progress));
                tickets.push(renewed);
                done
            }
            2 => store.touch(&ticket.id).map(|_| ()),
            _ => ticket.save(store, size, progress),
        }
    };
    loop {
        match step(&mut tickets) {
            Ok(()) => {
                progress.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            // The power has gone, and this is how it shows.
            Err(StoreError::Io { .. }) => return tickets,
            Err(error) => panic!("{error}"),
        }
    }
}

/// One power cut.
fn cycle(disk: &mut Disk, durability: Durability, cycle: u64, tally: &mut Tally) {
    let directory = disk.join(&format!("sessions-{cycle}"));
    let mut numbers = Numbers::new(cycle + 1);
    let store = DirectoryStore::at(&directory).durability(durability);
    let mut hands: Vec<Vec<Ticket>> = (0..THREADS).map(|_| Vec::new()).collect();
    for i in 0..SESSIONS {
        hands[i % THREADS].push(Ticket::new());
    }
    // Where the store need not sync, half of the cuts find sessions that are on disk already, and that can come back.
    if durability == Durability::Process && cycle.is_multiple_of(2) {
        for ticket in hands.iter_mut().flatten() {
            ticket.create(&store, 500, &Progress::default()).expect("create");
        }
        rustix::fs::syncfs(std::fs::File::open(&directory).expect("open")).expect("sync");
    }
    let limit = numbers.below(600);
    // And in half of them others sync what is theirs, so that a part of ours is on disk.
    let others = durability == Durability::Process && numbers.below(2) == 0;
    let progress = Progress::default();
    let tickets: Vec<Ticket> = thread::scope(|scope| {
        let (store, progress) = (&store, &progress);
        let workers = hands
            .into_iter()
            .enumerate()
            .map(|(i, hand)| scope.spawn(move || work(store, hand, progress, cycle * THREADS as u64 + i as u64)));
        let workers: Vec<_> = workers.collect();
        let mut synced = !others;
        let done = || progress.acknowledged.load(Ordering::Relaxed);
        while done() < limit && !workers.iter().any(thread::ScopedJoinHandle::is_finished) {
            if !synced && done() > limit / 2 {
                let file = std::fs::File::create(disk.join("of-others")).expect("create");
                file.sync_all().expect("sync");
                synced = true;
            }
            thread::yield_now();
        }
        progress.is_cutting.store(true, Ordering::SeqCst);
        cut(&disk.path(), numbers.below(2) == 0);
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    drop(store);
    disk.remount();

    // As it was found; then it has to work again.
    let store = DirectoryStore::at(&directory).durability(durability);
    for mut ticket in tickets {
        let text = ticket.id.to_text();
        let mut wrong = |what: String| {
            tally.wrong.push(format!(
                "cycle {cycle}, session {}…: {what}; {} tried, {} acknowledged, logout: {:?}",
                &text[..6],
                ticket.tried,
                ticket.acknowledged,
                ticket.logout
            ));
        };
        tally.updates += ticket.acknowledged;
        tally.logouts += u64::from(ticket.logout == Logout::Acknowledged);
        match store.load(&ticket.id) {
            Err(error) => wrong(format!("{error}: {:?}", std::error::Error::source(&error))),
            Ok(None) => {
                if ticket.logout == Logout::No && ticket.acknowledged > 0 {
                    // Whose creation is not known to have been acknowledged in time may be absent.
                    *(if ticket.too_late && ticket.acknowledged == 1 { &mut tally.late } else { &mut tally.absent }) +=
                        1;
                }
            }
            Ok(Some(stored)) => match number(&ticket.id, &stored.record) {
                _ if ticket.logout == Logout::Acknowledged => {
                    *(if ticket.too_late { &mut tally.late } else { &mut tally.undone }) += 1;
                }
                Some(n) if n <= ticket.tried => {
                    if n < ticket.acknowledged {
                        let is_late = ticket.too_late && n + 1 == ticket.acknowledged;
                        *(if is_late { &mut tally.late } else { &mut tally.older }) += 1;
                    }
                    ticket.save(&store, 1000, &Progress::default()).expect("save after the power cut");
                    let stored = store.load(&ticket.id).expect("load").expect("a session");
                    assert_eq!(number(&ticket.id, &stored.record), Some(ticket.tried));
                }
                n => wrong(format!("read back as {n:?}")),
            },
        }
    }
    store.delete_old_sessions(None).expect("sweep after the power cut");
    drop(store);
    std::fs::remove_dir_all(directory)
        .or_else(|error| match error.kind() {
            // Not even the directory is there.
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
        .expect("remove the sessions");
}

#[track_caller]
fn cut_again_and_again(test: &str, kind: Kind, durability: Durability) {
    isolated(test, || {
        if !has_loop_devices(test) {
            return;
        }
        let (cycles, mut tally, mut disk) = (cycles(), Tally::default(), Disk::new(kind));
        for number in 0..cycles {
            cycle(&mut disk, durability, number, &mut tally);
        }
        eprintln!("{test}: {cycles} power cuts, {tally:?}");
        assert!(tally.wrong.is_empty(), "read back wrong");
        assert_eq!(tally.undone, 0, "logouts were undone");
        assert!(tally.updates > 0 && (cycles < 5 || tally.logouts > 0), "nothing was tried");
        match durability {
            Durability::Power => assert_eq!((tally.older, tally.absent), (0, 0), "acknowledged updates were lost"),
            // Else these were no power cuts.
            Durability::Process => assert!(cycles < 5 || tally.older + tally.absent > 0, "nothing was ever lost"),
        }
    });
}

macro_rules! power_cuts {
    ($($name:ident $kind:expr;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            #[ignore = "needs mkfs.ext4, mkfs.xfs and mount (Debian: e2fsprogs, xfsprogs, mount): run tests/run"]
            fn durability_power() {
                cut_again_and_again(concat!("cut::", stringify!($name), "::durability_power"), $kind, Durability::Power);
            }

            #[test]
            #[ignore = "needs mkfs.ext4, mkfs.xfs and mount (Debian: e2fsprogs, xfsprogs, mount): run tests/run"]
            fn durability_process() {
                let test = concat!("cut::", stringify!($name), "::durability_process");
                cut_again_and_again(test, $kind, Durability::Process);
            }
        }
    )* };
}

power_cuts! {
    ext4 Kind::Image(64, &["mkfs.ext4", "-q"], "rw");
    ext4_noauto_da_alloc Kind::Image(64, &["mkfs.ext4", "-q"], "noauto_da_alloc");
    xfs Kind::Image(320, &["mkfs.xfs", "-q"], "rw");
}
