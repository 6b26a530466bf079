//! A store that does what few do: IDs that are taken, locks that are lost, deletions that fail.

use std::io;

use super::*;
use crate::session::{Guard, Record, Saved, StoreError, Stored, Swept, Version};

/// A store in memory that goes wrong so many times before it works.
#[derive(Clone, Default)]
struct Unsteady {
    inner: MemoryStore,
    taken: Arc<AtomicU32>,
    lost: Arc<AtomicU32>,
    stuck: Arc<AtomicU32>,
}

struct UnsteadyGuard {
    guard: Box<dyn Guard>,
    store: Unsteady,
}

/// Whether it goes wrong this time.
fn strikes(times: &AtomicU32) -> bool {
    times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

impl Guard for UnsteadyGuard {
    fn load(&mut self) -> Result<Option<Stored>, StoreError> {
        self.guard.load()
    }

    fn save(&mut self, record: &Record, expected: Version) -> Result<Saved, StoreError> {
        if strikes(&self.store.lost) { Ok(Saved::Conflict) } else { self.guard.save(record, expected) }
    }

    fn delete(self: Box<Self>) -> Result<(), StoreError> {
        if strikes(&self.store.stuck) {
            let source = io::Error::other("disk on fire");
            return Err(StoreError::Io { verb: "write", path: "/session".into(), source });
        }
        self.guard.delete()
    }
}

impl Store for Unsteady {
    fn load(&self, id: &Id) -> Result<Option<Stored>, StoreError> {
        self.inner.load(id)
    }

    fn create(&self, id: &Id, record: &Record) -> Result<Version, StoreError> {
        if strikes(&self.taken) { Err(StoreError::Exists) } else { self.inner.create(id, record) }
    }

    fn touch(&self, id: &Id) -> Result<bool, StoreError> {
        self.inner.touch(id)
    }

    fn lock(&self, id: &Id, wait: Duration) -> Result<Option<Box<dyn Guard>>, StoreError> {
        let guard = self.inner.lock(id, wait)?;
        Ok(guard.map(|guard| Box::new(UnsteadyGuard { guard, store: self.clone() }) as Box<dyn Guard>))
    }

    fn iter(&self) -> Result<Box<dyn Iterator<Item = Result<(Id, Stored), StoreError>> + '_>, StoreError> {
        self.inner.iter()
    }

    fn setup(&self) -> Result<(), StoreError> {
        self.inner.setup()
    }

    fn delete_old_sessions(&self, age: Option<Duration>) -> Result<Swept, StoreError> {
        self.inner.delete_old_sessions(age)
    }

    fn sweep(&self, age: Option<Duration>, budget: Option<Duration>) -> Result<Option<Swept>, StoreError> {
        self.inner.sweep(age, budget)
    }

    fn is_multiprocess_safe(&self) -> bool {
        false
    }

    fn is_thread_safe(&self) -> bool {
        true
    }
}

fn unsteady() -> (Site, Unsteady) {
    let store = Unsteady::default();
    let sessions = store.clone();
    (site_with(|host| host.sessions(sessions)), store)
}

#[test]
fn an_id_that_is_taken_is_drawn_anew() {
    let (site, store) = unsteady();
    store.taken.store(3, Ordering::SeqCst);
    site.get(count);
    assert_eq!(store.taken.load(Ordering::SeqCst), 0);
    assert!(store.exists(&site.id().unwrap()).unwrap());
    assert_eq!(store.iter().unwrap().count(), 1);
}

#[test]
fn a_login_never_takes_over_the_session_of_an_id_that_is_taken() {
    let (site, store) = unsteady();
    site.get(count);
    let before = site.id();
    store.taken.store(1, Ordering::SeqCst);
    site.post(|session| Ok(session.set_user("ada")?));
    assert_ne!(site.id(), before);
    assert_eq!(
        site.get(|session| Ok((session.user()?.map(str::to_owned), session.get("n")?))),
        (Some("ada".to_owned()), Some(1))
    );
    assert_eq!(store.iter().unwrap().count(), 1);
}

#[test]
fn a_request_whose_lock_was_lost_runs_again_if_it_may_and_fails_otherwise() {
    let (site, store) = unsteady();
    site.get(count);
    store.lost.store(1, Ordering::SeqCst);
    assert_eq!(site.get(count), 2);
    store.lost.store(1, Ordering::SeqCst);
    let response = site.request("POST", |_, session| count(session).map(|_| Response::text("x")));
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!response.headers().contains_key(SET_COOKIE));
    assert_eq!(site.get(count), 3, "neither lost nor counted twice");
}

#[test]
fn a_login_whose_old_session_cannot_be_ended_leaves_no_new_one() {
    let (site, store) = unsteady();
    site.get(count);
    let before = site.id().unwrap();
    store.stuck.store(1, Ordering::SeqCst);
    let response = site.request("POST", |_, session| Ok(session.set_user("ada").map(|()| Response::text("x"))?));
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!response.headers().contains_key(SET_COOKIE));
    let left: Vec<Id> = store.iter().unwrap().map(|entry| entry.unwrap().0).collect();
    assert_eq!(left, [before]);
    assert_eq!(site.get(|session| Ok(session.user()?.map(str::to_owned))), None);
}
