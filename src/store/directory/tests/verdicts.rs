//! Files that are whole and yet cannot be read, or cannot be judged in time.

use rustix::fs::{FlockOperation, flock};

use super::super::slot::{self, Header};
use super::*;
use crate::session::StoreError;

/// The checksum anew, after a change of the slot that begins at `at`.
fn seal(bytes: &mut [u8], at: usize) {
    let length = u32::from_le_bytes(bytes[at + 52..at + 56].try_into().unwrap()) as usize;
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[at + 8..at + HEADER + length]);
    bytes[at..at + 8].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn a_file_of_a_newer_format_is_an_error_and_left_alone() {
    // In the slot that is current, in the other one, in both.
    for newer in [&[0][..], &[2048], &[0, 2048]] {
        let (store, _keep) = store();
        let (id, path) = create(&store, 10);
        save(&store, &id, 20);
        let mut bytes = fs::read(&path).unwrap();
        for &at in newer {
            bytes[at + 12] = 2;
            seal(&mut bytes, at);
        }
        fs::write(&path, &bytes).unwrap();
        let refused = |error| matches!(error, StoreError::Format { found: 2, .. });
        assert!(refused(store.load(&id).unwrap_err()));
        assert!(refused(store.lock(&id, WAIT).and_then(|guard| guard.unwrap().load()).unwrap_err()));
        assert!(refused(store.delete(&id).unwrap_err()));
        assert!(refused(store.iter().unwrap().next().unwrap().unwrap_err()));
        let swept = store.delete_old_sessions(Some(Duration::ZERO)).unwrap();
        assert_eq!((swept.deleted, swept.remaining), (0, 1));
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_whole_slot_whose_record_cannot_be_read_is_set_aside() {
    let (store, _keep) = store();
    for locked in [false, true] {
        let (id, path) = create(&store, 10);
        let header = Header { sequence: 7, mark: 1, tombstone: false, ends: None, idle: None };
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&slot::encode(&id, header, b"\xff no record"), 0)
            .unwrap();
        if locked {
            assert!(store.lock(&id, WAIT).unwrap().is_none());
        } else {
            assert!(store.load(&id).unwrap().is_none());
        }
        assert!(!path.exists());
        let aside = names(&store.path);
        assert!(aside.iter().any(|name| name.starts_with(&format!("damaged-{}", &*id.to_text()))), "{aside:?}");
    }
}

/// Whether it is damage or a save that goes on can be told under the lock only.
#[test]
fn a_damaged_file_whose_lock_is_held_is_in_use_and_nobody_waits_long() {
    let (store, _keep) = store();
    let (id, path) = create(&store, 10);
    fs::write(&path, vec![0x55; 4096]).unwrap();
    let holder = fs::File::open(&path).unwrap();
    flock(&holder, FlockOperation::LockExclusive).unwrap();
    let since = Instant::now();
    assert!(matches!(store.load(&id), Err(StoreError::Locked)));
    assert!(since.elapsed() < WAIT / 2);
    assert!(path.exists());
    drop(holder);
    assert!(store.load(&id).unwrap().is_none());
    assert!(!path.exists());
}

#[test]
fn a_sweep_by_age_takes_what_is_over_by_itself_as_well() {
    let (store, _keep) = store();
    let id = Id::generate().unwrap();
    let expiry = Expiry { idle: Some(Duration::from_secs(100)), absolute: None };
    store.create(&id, &Record::new(now(), None, expiry)).unwrap();
    let past = SystemTime::now() - Duration::from_secs(300);
    fs::File::open(store.path.join(&*id.to_text())).unwrap().set_modified(past).unwrap();
    let swept = store.delete_old_sessions(Some(Duration::from_secs(200))).unwrap();
    assert_eq!((swept.deleted, swept.remaining), (1, 0));
    assert!((99..=102).contains(&swept.lag.as_secs()), "{swept:?}");
}
