//! The witness: whoever is told what requests do with sessions and their locks, and says how long one may wait.
//!
//! Under CGI, and wherever a process serves alone, there is none. A worker of a pool has one that knows of all workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::store::{Guard, Saved, Store, StoreError, Stored, Version};
use super::{Id, Record, SessionError};

/// How much longer a request may wait for the lock of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// So long; then it is to ask again.
    Wait(Duration),
    /// Too many wait already.
    GiveUp,
}

/// What happens to the sessions of requests, for who counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A session was saved, created or deleted at the end of a request.
    Committed,
    /// A request is run again, since its session has changed.
    Repeated,
    /// A wait for a lock is over, however it ended.
    Waited(Duration),
    /// It ended with the lock timeout.
    TimedOut,
    /// It was refused.
    Refused,
}

/// Told by the one request that is at work what it does. It has to do with at most one lock at a time.
pub(crate) trait Witness: Send + Sync {
    /// The request uses this session, or has made it.
    fn uses(&self, id: &Id);

    /// The request is about to ask for the lock of this session, and to wait for it where it must.
    fn waits(&self, id: &Id);

    /// How much longer it may wait.
    fn patience(&self) -> Patience;

    /// The request has got the lock of this session.
    fn holds(&self, id: &Id);

    /// The request waits no longer, or gives the lock back in a moment.
    fn leaves(&self);

    /// Something happened.
    fn note(&self, what: Happening);
}

/// The lock of a session, waited for as long as timeout and witness allow; `None` where there is no such session.
pub(super) fn lock(
    store: &dyn Store,
    id: &Id,
    timeout: Duration,
    witness: Option<&Arc<dyn Witness>>,
) -> Result<Option<Box<dyn Guard>>, SessionError> {
    let Some(witness) = witness else {
        return store.lock(id, timeout).map_err(|error| match error {
            StoreError::Locked => SessionError::LockTimeout,
            other => other.into(),
        });
    };
    let guard = wait(store, id, timeout, &**witness)?;
    Ok(guard.map(|guard| Box::new(Seen::new(guard, id, Arc::clone(witness))) as Box<dyn Guard>))
}

fn wait(
    store: &dyn Store,
    id: &Id,
    timeout: Duration,
    witness: &dyn Witness,
) -> Result<Option<Box<dyn Guard>>, SessionError> {
    let mut waiting = Waiting::new(witness, id);
    // Nearly always nobody is there.
    let mut patience = Patience::Wait(Duration::ZERO);
    let mut left = timeout;
    loop {
        let time = match patience {
            Patience::Wait(time) => time.min(left),
            // It may have become free at this moment.
            Patience::GiveUp => Duration::ZERO,
        };
        match store.lock(id, time) {
            Err(StoreError::Locked) => {}
            other => {
                waiting.is_granted = matches!(other, Ok(Some(_)));
                return Ok(other?);
            }
        }
        if patience == Patience::GiveUp {
            witness.note(Happening::Refused);
            return Err(SessionError::TooManyWaiters);
        }
        let since = *waiting.since.get_or_insert_with(Instant::now);
        left = timeout.saturating_sub(since.elapsed());
        if left.is_zero() {
            witness.note(Happening::TimedOut);
            return Err(SessionError::LockTimeout);
        }
        patience = witness.patience();
    }
}

/// A wait that its witness knows of until it ends, be it by a panic of the store. Who finds the lock free has not waited,
/// but is seen to come: somebody who gets it and is kept from saying so must not look like nobody.
struct Waiting<'a> {
    witness: &'a dyn Witness,
    /// Since when somebody else is known to hold the lock.
    since: Option<Instant>,
    /// Who waited holds the lock, and is about to say so: nobody is to see it do neither.
    is_granted: bool,
}

impl<'a> Waiting<'a> {
    fn new(witness: &'a dyn Witness, id: &Id) -> Self {
        witness.waits(id);
        Self { witness, since: None, is_granted: false }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.since {
            self.witness.note(Happening::Waited(since.elapsed()));
        }
        if !self.is_granted {
            self.witness.leaves();
        }
    }
}

/// A lock that its witness knows of, as long as it is held and not longer: `leaves` comes first.
struct Seen {
    /// Taken when it is used up.
    guard: Option<Box<dyn Guard>>,
    witness: Arc<dyn Witness>,
}

impl Seen {
    fn new(guard: Box<dyn Guard>, id: &Id, witness: Arc<dyn Witness>) -> Self {
        witness.holds(id);
        Self { guard: Some(guard), witness }
    }

    fn guard(&mut self) -> &mut dyn Guard {
        &mut **self.guard.as_mut().expect("used up only with this")
    }
}

impl Guard for Seen {
    fn load(&mut self) -> Result<Option<Stored>, StoreError> {
        self.guard().load()
    }

    fn save(&mut self, record: &Record, expected: Version) -> Result<Saved, StoreError> {
        self.guard().save(record, expected)
    }

    fn delete(mut self: Box<Self>) -> Result<(), StoreError> {
        let guard = self.guard.take();
        drop(self);
        guard.expect("used up only here").delete()
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.witness.leaves();
    }
}
