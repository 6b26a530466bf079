//! The contract suite: one test for each numbered rule of [`Store`], run by every store.
//!
//! What takes several processes is in `tests/multiprocess.rs`; here are threads, which the stores cannot tell from them.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::session::{Expiry, Id, Record, Saved, Store, StoreError, Version, now};

/// A fresh store for one rule, and what must stay alive as long.
pub(super) struct Fixture<S> {
    pub(super) store: S,
    /// Another view of the same store, as another process has it.
    pub(super) other: S,
    #[allow(dead_code)]
    pub(super) keep: Box<dyn std::any::Any + Send + Sync>,
}

/// Declares one test for each rule, in the module that calls it.
macro_rules! contract {
    ($make:expr) => {
        $crate::store::contract::contract!(@ $make;
            rule_01_a_constructor_does_no_io
            rule_02_load_gives_the_last_acknowledged_save
            rule_03_load_does_not_wait_for_a_lock
            rule_04_missing_and_expired_are_none
            rule_05_a_failure_is_an_error
            rule_06_create_fails_where_the_id_exists
            rule_07_save_gives_a_greater_version
            rule_08_save_with_another_version_is_a_conflict
            rule_09_a_deleted_session_is_not_brought_back
            rule_10_an_unknown_id_creates_nothing
            rule_11_delete_is_final_and_tells
            rule_12_touch_renews_and_changes_nothing_else
            rule_13_lock_excludes_the_same_id_only
            rule_14_lock_gives_up_in_time
            rule_15_a_lock_ends_with_its_guard
            rule_16_lock_of_a_missing_session_is_none
            rule_17_iter_gives_every_session_once
            rule_18_sweep_deletes_what_is_old_and_not_in_use
            rule_19_setup_destroys_nothing
            rule_20_the_flags_are_true
            rule_21_one_sweep_at_a_time
            rule_22_a_sweep_within_a_budget_is_continued
        );
    };
    (@ $make:expr; $($rule:ident)*) => {
        $(#[test] fn $rule() { $crate::store::contract::$rule(&$make()); })*
    };
}
pub(crate) use contract;

const WAIT: Duration = Duration::from_secs(20);

fn record(user: &str) -> Record {
    let mut record = Record::new(now(), None, Expiry::NEVER);
    record.user = Some(user.into());
    record
}

fn id() -> Id {
    Id::generate().unwrap()
}

/// A session that ended long ago.
fn over<S: Store>(f: &Fixture<S>) -> Id {
    let (id, mut record) = (id(), record("ada"));
    record.ends = Some(1);
    f.store.create(&id, &record).unwrap();
    id
}

/// A session of `ada`.
fn stored<S: Store>(f: &Fixture<S>) -> Id {
    let id = id();
    f.store.create(&id, &record("ada")).unwrap();
    id
}

fn user<S: Store>(store: &S, id: &Id) -> Option<String> {
    store.load(id).unwrap().map(|stored| stored.record.user.unwrap())
}

fn version<S: Store>(store: &S, id: &Id) -> Version {
    store.load(id).unwrap().unwrap().version
}

fn ids<S: Store>(store: &S) -> Vec<Id> {
    let mut ids: Vec<Id> = store.iter().unwrap().map(|session| session.unwrap().0).collect();
    ids.sort_unstable();
    ids
}

pub(super) fn rule_01_a_constructor_does_no_io<S: Store>(f: &Fixture<S>) {
    // The fixture made its stores before the place they name could be used: see `Fixture` of each store. That both
    // work now, and agree, is the proof.
    let id = stored(f);
    assert_eq!(user(&f.other, &id).as_deref(), Some("ada"));
}

pub(super) fn rule_02_load_gives_the_last_acknowledged_save<S: Store>(f: &Fixture<S>) {
    let id = stored(f);
    assert_eq!(user(&f.store, &id).as_deref(), Some("ada"));
    for n in 0..10 {
        // Growing and shrinking.
        let name = "x".repeat((n * 1717) % 6000);
        let Saved::Saved(_) = f.store.save(&id, &record(&name), version(&f.store, &id)).unwrap() else { panic!() };
        assert_eq!(user(&f.other, &id), Some(name));
    }
}

pub(super) fn rule_03_load_does_not_wait_for_a_lock<S: Store + Sync>(f: &Fixture<S>) {
    let id = stored(f);
    let _guard = f.store.lock(&id, WAIT).unwrap().unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(user(&f.other, &id).as_deref(), Some("ada"));
        assert!(f.other.exists(&id).unwrap());
    }
    // The holder would hold it for ever: any waiting at all would not have come back.
    assert!(start.elapsed() < WAIT);
}

pub(super) fn rule_04_missing_and_expired_are_none<S: Store>(f: &Fixture<S>) {
    assert!(f.store.load(&id()).unwrap().is_none());
    let over = id();
    let mut record = record("ada");
    record.ends = Some(1);
    f.store.create(&over, &record).unwrap();
    assert!(f.store.load(&over).unwrap().is_none());
    assert!(!f.store.exists(&over).unwrap());
    assert!(f.store.lock(&over, WAIT).unwrap().is_none());
    assert_eq!(f.store.save(&over, &record, Version(1)).unwrap(), Saved::Gone);
}

pub(super) fn rule_05_a_failure_is_an_error<S: Store>(f: &Fixture<S>) {
    // A record that no store can keep; what fails in each store's own way is in its own tests.
    let id = stored(f);
    let mut huge = record("ada");
    huge.values.insert("k".into(), crate::session::Encoded::new(&"x".repeat(64 << 20)).unwrap());
    let failed = |result: Result<(), StoreError>| match result {
        Err(StoreError::TooLarge { size, limit }) => assert!(size > limit),
        // A store without a limit keeps it.
        Ok(()) => assert_eq!(f.store.load(&id).unwrap().unwrap().version, Version(2)),
        Err(other) => panic!("{other}"),
    };
    failed(f.store.save(&id, &huge, Version(1)).map(|_| ()));
    assert_eq!(user(&f.other, &id).as_deref(), Some("ada"));
}

pub(super) fn rule_06_create_fails_where_the_id_exists<S: Store>(f: &Fixture<S>) {
    let id = stored(f);
    assert!(matches!(f.other.create(&id, &record("eve")), Err(StoreError::Exists)));
    assert_eq!(user(&f.store, &id).as_deref(), Some("ada"));
}

pub(super) fn rule_07_save_gives_a_greater_version<S: Store>(f: &Fixture<S>) {
    let id = stored(f);
    let mut last = version(&f.store, &id);
    for _ in 0..5 {
        let Saved::Saved(next) = f.other.save(&id, &record("bob"), last).unwrap() else { panic!() };
        assert!(next > last);
        assert_eq!(version(&f.store, &id), next);
        last = next;
    }
    let mut guard = f.store.lock(&id, WAIT).unwrap().unwrap();
    let Saved::Saved(next) = guard.save(&record("cid"), last).unwrap() else { panic!() };
    let Saved::Saved(after) = guard.save(&record("dan"), next).unwrap() else { panic!() };
    assert!(after > next && next > last);
    assert_eq!(guard.load().unwrap().unwrap().record.user.as_deref(), Some("dan"));
}

pub(super) fn rule_08_save_with_another_version_is_a_conflict<S: Store>(f: &Fixture<S>) {
    let id = stored(f);
    let old = version(&f.store, &id);
    let Saved::Saved(current) = f.store.save(&id, &record("bob"), old).unwrap() else { panic!() };
    assert_eq!(f.other.save(&id, &record("eve"), old).unwrap(), Saved::Conflict);
    let mut guard = f.other.lock(&id, WAIT).unwrap().unwrap();
    assert_eq!(guard.save(&record("eve"), Version(current.0 + 1)).unwrap(), Saved::Conflict);
    drop(guard);
    assert_eq!(user(&f.store, &id).as_deref(), Some("bob"));
    assert_eq!(version(&f.store, &id), current);
}

pub(super) fn rule_09_a_deleted_session_is_not_brought_back<S: Store>(f: &Fixture<S>) {
    let id = stored(f);
    let seen = version(&f.store, &id);
    assert!(f.other.delete(&id).unwrap());
    assert_eq!(f.store.save(&id, &record("eve"), seen).unwrap(), Saved::Gone);
    f.store.touch(&id).unwrap();
    assert_eq!(user(&f.other, &id), None);
    assert_eq!(ids(&f.other), []);
}

pub(super) fn rule_10_an_unknown_id_creates_nothing<S: Store>(f: &Fixture<S>) {
    let id = id();
    assert!(f.store.load(&id).unwrap().is_none());
    assert_eq!(f.store.save(&id, &record("eve"), Version(1)).unwrap(), Saved::Gone);
    assert!(!f.store.delete(&id).unwrap());
    f.store.touch(&id).unwrap();
    assert!(!f.store.exists(&id).unwrap());
    assert!(f.store.lock(&id, WAIT).unwrap().is_none());
    assert_eq!(ids(&f.store), []);
}

pub(super) fn rule_11_delete_is_final_and_tells<S: Store>(f: &Fixture<S>) {
    let (one, two) = (stored(f), stored(f));
    assert!(f.store.delete(&one).unwrap());
    assert!(!f.other.delete(&one).unwrap());
    f.store.lock(&two, WAIT).unwrap().unwrap().delete().unwrap();
    assert!(f.other.load(&two).unwrap().is_none());
    assert_eq!(ids(&f.store), []);
}

pub(super) fn rule_12_touch_renews_and_changes_nothing_else<S: Store>(f: &Fixture<S>) {
    let id = stored(f);
    let before = f.store.load(&id).unwrap().unwrap();
    let guard = f.store.lock(&id, WAIT).unwrap().unwrap();
    // The clock of a store may be as coarse as a kernel tick.
    let deadline = Instant::now() + WAIT;
    let after = loop {
        f.other.touch(&id).unwrap();
        let after = f.store.load(&id).unwrap().unwrap();
        if after.record.accessed > before.record.accessed || Instant::now() > deadline {
            break after;
        }
    };
    drop(guard);
    assert!(after.record.accessed > before.record.accessed);
    assert_eq!(after.version, before.version);
    assert_eq!(Record { accessed: before.record.accessed, ..after.record }, before.record);
}

pub(super) fn rule_13_lock_excludes_the_same_id_only<S: Store + Sync>(f: &Fixture<S>) {
    let (id, free) = (stored(f), stored(f));
    let mut guard = f.store.lock(&id, WAIT).unwrap().unwrap();
    drop(f.other.lock(&free, WAIT).unwrap().unwrap());
    let (done, order) = mpsc::channel();
    thread::scope(|scope| {
        let other = &f.other;
        let waiter = done.clone();
        scope.spawn(move || {
            let saved = other.save(&id, &record("bob"), Version(2)).unwrap();
            waiter.send("saver").unwrap();
            assert!(matches!(saved, Saved::Saved(_)), "{saved:?}");
        });
        assert!(order.recv_timeout(Duration::from_millis(30)).is_err(), "a save passed a lock");
        let Saved::Saved(_) = guard.save(&record("holder"), Version(1)).unwrap() else { panic!() };
        done.send("holder").unwrap();
        drop(guard);
    });
    assert_eq!(order.try_iter().collect::<Vec<_>>(), ["holder", "saver"]);
    assert_eq!(user(&f.store, &id).as_deref(), Some("bob"));
}

pub(super) fn rule_14_lock_gives_up_in_time<S: Store>(f: &Fixture<S>) {
    let id = stored(f);
    let mut guard = f.store.lock(&id, WAIT).unwrap().unwrap();
    let start = Instant::now();
    assert!(matches!(f.other.lock(&id, Duration::from_millis(50)), Err(StoreError::Locked)));
    assert!(start.elapsed() >= Duration::from_millis(50) && start.elapsed() < WAIT);
    let Saved::Saved(_) = guard.save(&record("bob"), Version(1)).unwrap() else { panic!() };
}

pub(super) fn rule_15_a_lock_ends_with_its_guard<S: Store + Sync>(f: &Fixture<S>) {
    let id = stored(f);
    for _ in 0..50 {
        let guard = f.store.lock(&id, WAIT).unwrap().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| f.other.lock(&id, WAIT).unwrap().is_some());
            drop(guard);
            assert!(waiter.join().unwrap());
        });
    }
}

pub(super) fn rule_16_lock_of_a_missing_session_is_none<S: Store + Sync>(f: &Fixture<S>) {
    assert!(f.store.lock(&id(), WAIT).unwrap().is_none());
    let id = stored(f);
    let guard = f.store.lock(&id, WAIT).unwrap().unwrap();
    let (done, answers) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..4 {
            let (done, other) = (done.clone(), &f.other);
            scope.spawn(move || done.send(other.lock(&id, WAIT).unwrap().is_none()).unwrap());
        }
        assert!(answers.recv_timeout(Duration::from_millis(30)).is_err(), "a waiter passed a lock");
        guard.delete().unwrap();
    });
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), [true; 4], "a waiter was given a deleted session");
}

pub(super) fn rule_17_iter_gives_every_session_once<S: Store>(f: &Fixture<S>) {
    let mut all: Vec<Id> = (0..200).map(|_| stored(f)).collect();
    all.sort_unstable();
    assert_eq!(ids(&f.other), all);
    // Every other one goes meanwhile, and others come; who was there all the time is seen.
    let (stay, go): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(n, _)| n % 2 == 0);
    let (mut seen, mut go) = (Vec::new(), go.into_iter());
    for session in f.store.iter().unwrap() {
        seen.push(session.unwrap().0);
        if let Some((_, id)) = go.next() {
            f.other.delete(id).unwrap();
            stored(f);
        }
    }
    seen.sort_unstable();
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "seen twice");
    assert!(stay.iter().all(|(_, id)| seen.binary_search(id).is_ok()), "not seen");
}

pub(super) fn rule_18_sweep_deletes_what_is_old_and_not_in_use<S: Store>(f: &Fixture<S>) {
    over(f);
    let (fresh, held) = (stored(f), stored(f));
    let swept = f.other.delete_old_sessions(None).unwrap();
    assert_eq!((swept.deleted, swept.remaining, swept.complete), (1, 2, true));
    // Over since a millisecond after the epoch began.
    assert!(swept.lag > Duration::from_secs(365 * 24 * 3600), "{swept:?}");
    let swept = f.other.delete_old_sessions(Some(Duration::from_secs(60))).unwrap();
    assert_eq!((swept.deleted, swept.remaining, swept.lag), (0, 2, Duration::ZERO));
    let guard = f.store.lock(&held, WAIT).unwrap().unwrap();
    let swept = f.other.delete_old_sessions(Some(Duration::ZERO)).unwrap();
    assert_eq!((swept.deleted, swept.remaining), (1, 1));
    assert!(!f.store.exists(&fresh).unwrap());
    assert!(f.store.exists(&held).unwrap());
    drop(guard);
    let swept = f.other.delete_old_sessions(Some(Duration::ZERO)).unwrap();
    assert_eq!((swept.deleted, swept.remaining), (1, 0));
}

pub(super) fn rule_19_setup_destroys_nothing<S: Store>(f: &Fixture<S>) {
    f.store.setup().unwrap();
    let id = stored(f);
    f.store.setup().unwrap();
    f.other.setup().unwrap();
    assert_eq!(user(&f.other, &id).as_deref(), Some("ada"));
}

pub(super) fn rule_20_the_flags_are_true<S: Store + Sync>(f: &Fixture<S>) {
    if !f.store.is_thread_safe() {
        return;
    }
    let id = stored(f);
    let add = |store: &S| {
        let mut guard = store.lock(&id, WAIT).unwrap().unwrap();
        let mut stored = guard.load().unwrap().unwrap();
        let sum = crate::session::Encoded::add(stored.record.values.get("n"), 1).unwrap();
        stored.record.values.insert("n".into(), sum);
        let Saved::Saved(_) = guard.save(&stored.record, stored.version).unwrap() else { panic!() };
    };
    thread::scope(|scope| {
        for n in 0..8 {
            let store = if n % 2 == 0 { &f.store } else { &f.other };
            scope.spawn(move || (0..200).for_each(|_| add(store)));
        }
    });
    let n: u64 = f.store.load(&id).unwrap().unwrap().record.get("n").unwrap().unwrap();
    assert_eq!(n, 1600);
}

pub(super) fn rule_21_one_sweep_at_a_time<S: Store + Sync>(f: &Fixture<S>) {
    const OVER: u64 = 200;
    let keep = stored(f);
    for _ in 0..OVER {
        over(f);
    }
    // Whoever is at it, each is deleted, and counted, once.
    let seen = thread::scope(|scope| {
        let sweeps: Vec<_> = (0..4).map(|n| if n % 2 == 0 { &f.store } else { &f.other }).collect();
        let sweep = |store: &S| store.sweep(None, None).unwrap().map_or(0, |swept| swept.deleted);
        let sweeps: Vec<_> = sweeps.into_iter().map(|store| scope.spawn(move || sweep(store))).collect();
        sweeps.into_iter().map(|sweep| sweep.join().unwrap()).sum::<u64>()
    });
    assert_eq!(seen, OVER);
    let swept = f.other.sweep(None, None).unwrap().expect("nobody else is sweeping");
    assert_eq!((swept.deleted, swept.remaining, swept.complete), (0, 1, true));
    // With an age, and of a session that is in use, as without.
    let guard = f.store.lock(&keep, WAIT).unwrap().unwrap();
    assert_eq!(f.other.sweep(Some(Duration::ZERO), None).unwrap().unwrap().deleted, 0);
    drop(guard);
    assert_eq!(f.other.sweep(Some(Duration::ZERO), None).unwrap().unwrap().deleted, 1);
}

pub(super) fn rule_22_a_sweep_within_a_budget_is_continued<S: Store>(f: &Fixture<S>) {
    let keep: Vec<Id> = (0..20).map(|_| stored(f)).collect();
    for _ in 0..20 {
        over(f);
    }
    let (mut deleted, mut remaining) = (0, 0);
    for turn in 0.. {
        // No time at all. In turn from two processes, as it were.
        let store = if turn % 2 == 0 { &f.store } else { &f.other };
        let swept = store.sweep(None, Some(Duration::ZERO)).unwrap().unwrap();
        (deleted, remaining) = (deleted + swept.deleted, remaining + swept.remaining);
        if swept.complete {
            break;
        }
        assert!(turn < 100, "it does not get on");
    }
    assert_eq!((deleted, remaining), (20, 20));
    assert!(keep.iter().all(|id| f.store.exists(id).unwrap()));
    // With time enough one sweep is all.
    let swept = f.store.sweep(None, Some(WAIT)).unwrap().unwrap();
    assert_eq!((swept.deleted, swept.remaining, swept.complete), (0, 20, true));
}
