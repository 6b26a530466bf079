//! The contract, and what only the directory store promises.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::super::contract::{Fixture, contract};
use super::slot::HEADER;
use super::*;
use crate::session::{Encoded, Expiry, Saved, Version, now};
use crate::sys::lock;

mod notes;
mod verdicts;

const WAIT: Duration = Duration::from_secs(20);
/// What a sweep says that found no session.
const NOTHING: Swept = Swept { deleted: 0, remaining: 0, complete: true, lag: Duration::ZERO };

fn fixture() -> Fixture<DirectoryStore> {
    let temporary = tempfile::tempdir().unwrap();
    // Both are made before the directory is there: a constructor that did I/O would fail.
    let path = temporary.path().join("sessions");
    let (store, other) = (DirectoryStore::at(&path), DirectoryStore::at(&path));
    assert!(!path.exists());
    Fixture { store, other, keep: Box::new(temporary) }
}

contract!(fixture);

mod at_power_durability {
    use super::*;

    fn fixture() -> Fixture<DirectoryStore> {
        let Fixture { store, other, keep } = super::fixture();
        let power = Durability::Power;
        Fixture { store: store.durability(power), other: other.durability(power), keep }
    }

    contract!(fixture);
}

fn store() -> (DirectoryStore, tempfile::TempDir) {
    let temporary = tempfile::tempdir().unwrap();
    (DirectoryStore::at(temporary.path().join("sessions")), temporary)
}

fn record(size: usize) -> Record {
    let mut record = Record::new(now(), None, Expiry::NEVER);
    record.values.insert("pad".into(), Encoded::new(&"x".repeat(size)).unwrap());
    record
}

fn create(store: &DirectoryStore, size: usize) -> (Id, PathBuf) {
    let id = Id::generate().unwrap();
    store.create(&id, &record(size)).unwrap();
    (id, store.path.join(&*id.to_text()))
}

fn size_of(store: &DirectoryStore, id: &Id) -> Option<usize> {
    let stored = store.load(id).unwrap()?;
    Some(stored.record.get::<String>("pad").unwrap().unwrap().len())
}

fn save(store: &DirectoryStore, id: &Id, size: usize) {
    let version = store.load(id).unwrap().unwrap().version;
    let saved = store.save(id, &record(size), version).unwrap();
    assert!(matches!(saved, Saved::Saved(_)), "{saved:?}");
}

fn names(path: &Path) -> Vec<String> {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_file_is_made_closed_and_is_never_another_one() {
    let (store, _keep) = store();
    let (id, path) = create(&store, 10);
    let first = fs::metadata(&path).unwrap();
    assert_eq!((first.len(), first.mode() & 0o7777), (4096, 0o600));
    assert_eq!(fs::metadata(&store.path).unwrap().mode() & 0o7777, 0o700);
    for size in [20, 1500, 10, 1900, 3000, 5, 70_000, 100] {
        save(&store, &id, size);
        assert_eq!(size_of(&store, &id), Some(size));
    }
    let last = fs::metadata(&path).unwrap();
    assert_eq!(last.ino(), first.ino());
    assert_eq!(last.len(), 2 * 131_072);
    assert_eq!(names(&store.path).len(), 1);
}

#[test]
fn space_is_allocated_at_creation_and_growth() {
    let (store, _keep) = store();
    let (id, path) = create(&store, 10);
    assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 4096);
    save(&store, &id, 60_000);
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.blocks() * 512 >= metadata.len(), "{} of {}", metadata.blocks() * 512, metadata.len());
}

/// From either side, and by more than one doubling.
#[test]
fn growth_keeps_the_record_whichever_slot_it_is_in() {
    for saves in 0..2 {
        let (store, _keep) = store();
        let (id, _) = create(&store, 10);
        for _ in 0..saves {
            save(&store, &id, 11);
        }
        save(&store, &id, 40_000);
        assert_eq!(size_of(&store, &id), Some(40_000));
        save(&store, &id, 12);
        save(&store, &id, 13);
        assert_eq!(size_of(&store, &id), Some(13));
    }
}

#[test]
fn every_truncation_gives_the_record_or_is_set_aside() {
    let (store, _keep) = store();
    for length in (0..4096).step_by(61).chain([2047, 2048, 2049, 4095]) {
        let (id, path) = create(&store, 10);
        save(&store, &id, 20);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        assert_eq!(size_of(&store, &id), None, "{length}");
        // The answer does not change, and the second question costs nothing but an absent file (or an empty one).
        assert_eq!(size_of(&store, &id), None);
        assert_eq!(path.exists(), length == 0, "{length}");
        assert!(store.lock(&id, WAIT).unwrap().is_none());
    }
}

#[test]
fn every_damaged_byte_gives_the_old_record_or_the_new_one() {
    let (store, _keep) = store();
    let (id, path) = create(&store, 10);
    save(&store, &id, 20);
    let good = fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for at in (0..160).chain(2048..2208) {
        file.write_all_at(&[good[at] ^ 0x40], at as u64).unwrap();
        let found = size_of(&store, &id);
        let expected: &[Option<usize>] = if at < 2048 { &[Some(20)] } else { &[Some(10), Some(20)] };
        assert!(expected.contains(&found), "byte {at}: {found:?}");
        file.write_all_at(&good[at..=at], at as u64).unwrap();
    }
    assert_eq!(size_of(&store, &id), Some(20));
}

#[test]
fn a_torn_slot_heals_with_the_next_save() {
    let (store, _keep) = store();
    let (id, path) = create(&store, 10);
    save(&store, &id, 20);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // A save into A that was killed halfway.
    file.write_all_at(&[0xaa; 40], 0).unwrap();
    assert_eq!(size_of(&store, &id), Some(20));
    save(&store, &id, 30);
    assert_eq!(size_of(&store, &id), Some(30));
}

#[test]
fn damage_is_set_aside_once_under_a_name_that_is_no_id() {
    let (store, _keep) = store();
    let (id, path) = create(&store, 10);
    fs::write(&path, vec![0x55; 4096]).unwrap();
    assert_eq!(size_of(&store, &id), None);
    let left = names(&store.path);
    assert_eq!(left.len(), 1);
    assert!(left[0].starts_with("damaged-") && Id::parse(&left[0]).is_none());
    assert_eq!(fs::read(store.path.join(&left[0])).unwrap(), vec![0x55; 4096]);
    assert_eq!(store.iter().unwrap().count(), 0);
    // Kept for a week.
    assert_eq!(store.delete_old_sessions(Some(Duration::ZERO)).unwrap(), NOTHING);
    assert_eq!(names(&store.path), left);
    let week = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
    OpenOptions::new().write(true).open(store.path.join(&left[0])).unwrap().set_modified(week).unwrap();
    store.delete_old_sessions(None).unwrap();
    assert!(names(&store.path).is_empty());
}

#[test]
fn a_session_under_another_ones_name_is_not_handed_out() {
    let (store, _keep) = store();
    let (_, path) = create(&store, 10);
    let stolen = Id::generate().unwrap();
    fs::copy(&path, store.path.join(&*stolen.to_text())).unwrap();
    assert_eq!(size_of(&store, &stolen), None);
}

#[test]
fn a_file_that_was_never_completed_is_no_session_and_is_swept_after_a_minute() {
    let (store, _keep) = store();
    store.setup().unwrap();
    for length in [0, 4096] {
        let id = Id::generate().unwrap();
        let path = store.path.join(&*id.to_text());
        let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        file.set_len(length).unwrap();
        assert_eq!(size_of(&store, &id), None);
        assert!(store.lock(&id, WAIT).unwrap().is_none());
        store.delete_old_sessions(Some(Duration::ZERO)).unwrap();
        assert!(path.exists(), "swept while it may still be in the making");
        file.set_modified(SystemTime::now() - Duration::from_secs(61)).unwrap();
        store.delete_old_sessions(Some(Duration::ZERO)).unwrap();
        assert!(!path.exists());
    }
}

#[test]
fn idle_time_counts_from_the_last_touch() {
    let (store, _keep) = store();
    let id = Id::generate().unwrap();
    let mut record = record(1);
    record.set_expiry(Expiry { idle: Some(Duration::from_secs(100)), absolute: None }, now());
    store.create(&id, &record).unwrap();
    let file = OpenOptions::new().write(true).open(store.path.join(&*id.to_text())).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(99)).unwrap();
    assert!(store.exists(&id).unwrap());
    file.set_modified(SystemTime::now() - Duration::from_secs(101)).unwrap();
    assert!(!store.exists(&id).unwrap());
    store.touch(&id).unwrap();
    assert!(store.exists(&id).unwrap());
}

#[test]
fn what_is_not_ours_is_refused_at_once_and_left_alone() {
    let (store, keep) = store();
    store.setup().unwrap();
    let target = keep.path().join("target");
    fs::write(&target, "precious").unwrap();
    let place = |name: &str| store.path.join(name);
    let id = |n: u8| Id::parse(&format!("{n:032x}")).unwrap();
    symlink(&target, place(&id(1).to_text())).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, place(&id(2).to_text()), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fs::create_dir(place(&id(3).to_text())).unwrap();
    fs::hard_link(&target, place(&id(4).to_text())).unwrap();
    std::os::unix::net::UnixListener::bind(place(&id(5).to_text())).unwrap();
    let (loose, _) = create(&store, 10);
    fs::set_permissions(place(&loose.to_text()), Permissions::from_mode(0o644)).unwrap();
    for id in [id(1), id(2), id(3), id(4), id(5), loose] {
        let start = Instant::now();
        assert!(matches!(store.load(&id), Err(StoreError::Untrusted { .. })), "{:?}", store.load(&id));
        assert!(matches!(store.lock(&id, WAIT), Err(StoreError::Untrusted { .. })));
        assert!(matches!(store.create(&id, &record(1)), Err(StoreError::Exists)));
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    let before = names(&store.path).len();
    assert_eq!(store.delete_old_sessions(Some(Duration::ZERO)).unwrap().deleted, 0);
    assert_eq!(names(&store.path).len(), before);
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn a_directory_that_others_may_write_to_or_list_is_refused() {
    let (store, _keep) = store();
    fs::create_dir(&store.path).unwrap();
    for (mode, reason) in [
        (0o700, None),
        (0o711, None),
        (0o755, Some("others may list the session IDs")),
        (0o740, Some("others may list the session IDs")),
        (0o770, Some("others may write to it")),
        (0o707, Some("others may write to it")),
    ] {
        fs::set_permissions(&store.path, Permissions::from_mode(mode)).unwrap();
        let fresh = DirectoryStore::at(&store.path);
        assert_eq!(fresh.setup().is_ok(), reason.is_none(), "{mode:o}");
        if let Some(reason) = reason {
            let error = fresh.load(&Id::generate().unwrap()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}

#[test]
fn an_unusable_path_is_an_error_that_names_it() {
    let (_, keep) = store();
    let missing_parent = DirectoryStore::at(keep.path().join("a/b"));
    let error = missing_parent.setup().unwrap_err().to_string();
    assert!(error.starts_with("create session directory") && error.ends_with("a/b"), "{error}");
    let file = keep.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DirectoryStore::at(&file).load(&Id::generate().unwrap()).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[test]
fn a_record_too_large_changes_nothing() {
    let (store, _keep) = store();
    let (id, path) = create(&store, 10);
    let version = store.load(&id).unwrap().unwrap().version;
    assert!(matches!(store.save(&id, &record(5 << 20), version), Err(StoreError::TooLarge { .. })));
    assert!(matches!(store.create(&Id::generate().unwrap(), &record(5 << 20)), Err(StoreError::TooLarge { .. })));
    assert_eq!(size_of(&store, &id), Some(10));
    assert_eq!(fs::metadata(path).unwrap().len(), 4096);
    assert_eq!(names(&store.path).len(), 1);
}

#[test]
fn messages_do_not_show_an_id() {
    let (store, _keep) = store();
    let (id, path) = create(&store, 10);
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let text = format!("{0} {0:?}", store.load(&id).unwrap_err());
    assert!(!text.contains(&id.to_text()[..8]), "{text}");
}

/// One file that is not ours must not keep all the others for ever.
#[test]
fn a_foreign_file_does_not_stop_a_sweep() {
    let (store, _keep) = store();
    let mut over = record(1);
    over.ends = Some(1);
    for _ in 0..20 {
        store.create(&Id::generate().unwrap(), &over).unwrap();
    }
    let (_, loose) = create(&store, 10);
    fs::set_permissions(&loose, Permissions::from_mode(0o644)).unwrap();
    let swept = store.delete_old_sessions(None).unwrap();
    assert_eq!((swept.deleted, swept.remaining), (20, 1));
    assert_eq!(names(&store.path).len(), 1);
}

#[test]
fn damage_that_a_sweep_meets_is_no_session() {
    let (store, _keep) = store();
    let (_, path) = create(&store, 10);
    fs::write(&path, vec![0x55; 4096]).unwrap();
    assert_eq!(store.delete_old_sessions(None).unwrap(), NOTHING);
}

/// The lock is the directory's own. It is not that of the sessions: requests go on.
#[test]
fn a_sweep_leaves_the_directory_to_who_has_its_lock() {
    let (store, _keep) = store();
    let (id, _) = create(&store, 10);
    let directory = fs::File::open(&store.path).unwrap();
    assert!(crate::sys::lock::try_exclusive(&directory).unwrap());
    assert_eq!(store.sweep(Some(Duration::ZERO), None).unwrap(), None);
    assert_eq!(store.sweep(Some(Duration::ZERO), Some(Duration::ZERO)).unwrap(), None);
    save(&store, &id, 20);
    drop(directory);
    let swept = store.sweep(Some(Duration::ZERO), None).unwrap().unwrap();
    assert_eq!((swept.deleted, swept.complete), (1, true));
}

/// A sweep has the lowest priority, and so would everybody who waited for a lock that it holds.
#[test]
fn a_sweep_takes_no_lock_of_a_session_that_is_not_over() {
    let (store, _keep) = store();
    let (id, path) = create(&store, 10);
    save(&store, &id, 20);
    // What would be looked at as a whole, under the lock, would be found to be damaged there.
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"damage", HEADER as u64).unwrap();
    file.write_all_at(b"damage", 2048 + HEADER as u64).unwrap();
    let swept = store.sweep(None, None).unwrap().unwrap();
    assert_eq!((swept.deleted, swept.remaining), (0, 1));
    assert!(path.exists(), "looked at under the lock");
    assert_eq!(size_of(&store, &id), None);
    assert!(!path.exists());
}

/// The header that is not current may say that the session is over, or was deleted: then only a look can tell.
#[test]
fn a_header_that_is_not_current_ends_no_session_and_keeps_none() {
    let (store, _keep) = store();
    let ended = Record { ends: Some(1), ..record(10) };
    let both = [(record(10), ended.clone(), 1), (ended, record(10), 0)];
    for (old, new, deleted) in both {
        let id = Id::generate().unwrap();
        let path = store.path.join(&*id.to_text());
        store.create(&id, &record(10)).unwrap();
        let mut guard = store.lock(&id, WAIT).unwrap().unwrap();
        // The lock's holder remembers where it is, whatever the file says of its end.
        let Saved::Saved(version) = guard.save(&old, Version(1)).unwrap() else { panic!() };
        assert!(matches!(guard.save(&new, version).unwrap(), Saved::Saved(_)));
        drop(guard);
        assert_eq!(store.sweep(None, None).unwrap().unwrap().deleted, deleted);
        assert_eq!(path.exists(), deleted == 0);
    }
}

/// How long the session that was over for the longest time had been so.
#[test]
fn a_sweep_tells_how_far_it_lags() {
    let (store, _keep) = store();
    let ago = |path: &Path, seconds| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    };
    let near = |lag: Duration, seconds: u64| (seconds..seconds + 20).contains(&lag.as_secs());
    for (idle, unused) in [(100, 400), (100, 150), (1000, 5)] {
        let (id, mut record) = (Id::generate().unwrap(), record(1));
        record.set_expiry(Expiry { idle: Some(Duration::from_secs(idle)), absolute: None }, now());
        store.create(&id, &record).unwrap();
        ago(&store.path.join(&*id.to_text()), unused);
    }
    let swept = store.sweep(None, None).unwrap().unwrap();
    assert!((swept.deleted, swept.remaining) == (2, 1) && near(swept.lag, 300), "{swept:?}");
    for unused in [700, 200, 5] {
        ago(&create(&store, 1).1, unused);
    }
    let swept = store.sweep(Some(Duration::from_secs(100)), None).unwrap().unwrap();
    assert!((swept.deleted, swept.remaining) == (2, 2) && near(swept.lag, 600), "{swept:?}");
    assert_eq!(store.sweep(None, None).unwrap().unwrap().lag, Duration::ZERO);
}

/// The position is a number, and whatever stands there instead is none.
#[test]
fn what_stands_in_place_of_a_position_does_no_harm() {
    let position = |store: &DirectoryStore| store.path.join("sweep-position");
    let plant: [fn(&Path, &Path); 8] = [
        |path, _| fs::write(path, "garbage").unwrap(),
        |path, _| fs::write(path, "").unwrap(),
        |path, _| fs::write(path, vec![b'1'; 1 << 20]).unwrap(),
        // No position of any directory, or behind its end.
        |path, _| fs::write(path, "9223372036854775807\n").unwrap(),
        |path, target| symlink(target, path).unwrap(),
        |path, target| fs::hard_link(target, path).unwrap(),
        |path, _| {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        },
        |path, _| fs::create_dir(path).unwrap(),
    ];
    for (n, plant) in plant.into_iter().enumerate() {
        let (store, keep) = store();
        let target = keep.path().join("target");
        fs::write(&target, "precious").unwrap();
        let over = Record { ends: Some(1), ..record(1) };
        for _ in 0..10 {
            store.create(&Id::generate().unwrap(), &over).unwrap();
            create(&store, 1);
        }
        plant(&position(&store), &target);
        let (mut deleted, mut turns) = (0, 0);
        // Two passes: one may begin anywhere.
        for _ in 0..2 {
            loop {
                turns += 1;
                let swept = store.sweep(None, Some(Duration::ZERO)).unwrap().unwrap();
                deleted += swept.deleted;
                if swept.complete {
                    break;
                }
                assert!(turns < 100, "{n}: it does not get on");
            }
        }
        assert_eq!(deleted, 10, "{n}");
        assert!(!position(&store).exists(), "{n}");
        assert_eq!(store.iter().unwrap().count(), 10, "{n}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious", "{n}");
    }
}

/// A directory that is not empty is somebody's, and stays; the sweep does what it can.
#[test]
fn a_position_that_cannot_be_kept_is_no_failure() {
    let (store, _keep) = store();
    create(&store, 1);
    create(&store, 1);
    let blocked = store.path.join("sweep-position");
    fs::create_dir_all(blocked.join("more")).unwrap();
    assert!(!store.sweep(None, Some(Duration::ZERO)).unwrap().unwrap().complete);
    assert!(store.sweep(None, None).unwrap().unwrap().complete);
    assert!(blocked.join("more").exists());
    assert_eq!(store.iter().unwrap().count(), 2);
}

/// A pass is killed, or the directory changes under it: nothing is lost but time.
#[test]
fn a_position_survives_what_happens_to_the_directory() {
    let (store, _keep) = store();
    let all: Vec<Id> = (0..300).map(|_| create(&store, 1).0).collect();
    let over = Record { ends: Some(1), ..record(1) };
    let step = || store.sweep(None, Some(Duration::ZERO)).unwrap().unwrap();
    (0..100).for_each(|_| assert!(!step().complete));
    assert!(store.path.join("sweep-position").exists());
    assert_eq!(store.iter().unwrap().count(), 300);
    // Much of what was passed goes, and much that is over comes.
    all.iter().step_by(2).for_each(|id| assert!(store.delete(id).unwrap()));
    (0..200).for_each(|_| _ = store.create(&Id::generate().unwrap(), &over).unwrap());
    let mut deleted = 0;
    for _ in 0..2 {
        deleted +=
            std::iter::from_fn(|| Some(step())).take_while(|swept| !swept.complete).map(|s| s.deleted).sum::<u64>();
    }
    // What came behind the position in the first pass, the rest in the second; but the last of each, which is complete.
    assert!((198..=200).contains(&deleted), "{deleted}");
    assert_eq!(store.iter().unwrap().count(), 150);
    // A sweep without a budget goes through all, wherever the others are.
    assert!(!step().complete);
    let swept = store.sweep(None, None).unwrap().unwrap();
    assert_eq!((swept.remaining, swept.complete), (150, true));
    assert!(!store.path.join("sweep-position").exists());
}

/// A touch may come at any time, and takes no lock.
#[test]
fn a_session_that_ran_out_and_was_deleted_is_not_brought_back_by_a_touch() {
    let (store, _keep) = store();
    let id = Id::generate().unwrap();
    let mut record = record(1);
    record.set_expiry(Expiry { idle: Some(Duration::from_secs(100)), absolute: None }, now());
    store.create(&id, &record).unwrap();
    let file = OpenOptions::new().write(true).open(store.path.join(&*id.to_text())).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(101)).unwrap();
    assert!(!store.delete(&id).unwrap());
    assert!(!store.touch(&id).unwrap());
    assert!(!store.exists(&id).unwrap());
    assert!(names(&store.path).is_empty());
}

/// A sweep leaves no tombstone: the link count alone tells who waited for the lock.
#[test]
fn a_session_that_was_swept_while_its_lock_was_waited_for_is_gone() {
    let (store, _keep) = store();
    let (id, path) = create(&store, 10);
    let file = File::open(&path).unwrap();
    assert!(lock::try_exclusive(&file).unwrap());
    let inode = format!(":{} ", file.metadata().unwrap().ino());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| store.save(&id, &record(11), Version(1)).unwrap());
        let waits = |line: &str| line.contains("-> FLOCK") && line.contains(&inode);
        let began = Instant::now();
        while !fs::read_to_string("/proc/locks").unwrap().lines().any(waits) {
            assert!(began.elapsed() < WAIT, "nobody waits");
            std::thread::yield_now();
        }
        fs::remove_file(&path).unwrap();
        drop(file);
        assert_eq!(waiter.join().unwrap(), Saved::Gone);
    });
}

/// Runs the rest of a test in a process of its own, as a file size limit is the process's. False there.
fn in_a_child(test: &str) -> bool {
    if std::env::var_os("CLOAKROOM_TEST_CHILD").is_some() {
        return false;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let name = format!("store::directory::tests::{test}");
    let output = child.args(["--exact", &name]).env("CLOAKROOM_TEST_CHILD", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{} {said}", output.status);
    true
}

fn limit_files_to(size: u64) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Fsize, Rlimit { current: Some(size), maximum: None }).unwrap();
}

#[test]
fn a_growth_beyond_the_file_size_limit_is_an_error_and_changes_nothing() {
    if in_a_child("a_growth_beyond_the_file_size_limit_is_an_error_and_changes_nothing") {
        return;
    }
    let (store, _keep) = store();
    let (id, _) = create(&store, 10);
    save(&store, &id, 11);
    let mut guard = store.lock(&id, WAIT).unwrap().unwrap();
    limit_files_to(8192);
    assert!(matches!(guard.save(&record(100_000), Version(2)), Err(StoreError::Io { .. })));
    assert_eq!(size_of(&store, &id), Some(11));
    assert!(matches!(guard.save(&record(12), Version(2)).unwrap(), Saved::Saved(_)));
}

/// A large value is written from where it is, in one call that may be cut anywhere: in the header, in the value, behind it.
#[test]
fn a_large_record_that_is_written_in_part_leaves_the_old_one() {
    if in_a_child("a_large_record_that_is_written_in_part_leaves_the_old_one") {
        return;
    }
    let (store, _keep) = store();
    let (id, path) = create(&store, 20_000);
    assert_eq!(fs::metadata(&path).unwrap().len(), 2 * 32_768);
    let mut version = Version(1);
    for cut in [1, 63, 64, 70, 100, 10_000, 20_063] {
        limit_files_to(32_768 + cut);
        let failed = store.save(&id, &record(20_001), version);
        assert!(matches!(failed, Err(StoreError::Io { verb: "write session file", .. })), "{cut}: {failed:?}");
        assert_eq!(size_of(&store, &id), Some(20_000), "{cut}");
    }
    limit_files_to(u64::MAX);
    for size in [20_001, 20_002, 25_000] {
        let Saved::Saved(next) = store.save(&id, &record(size), version).unwrap() else { panic!() };
        version = next;
        assert_eq!(size_of(&store, &id), Some(size));
    }
}
