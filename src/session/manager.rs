//! The session manager: opens the session of a request and commits it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::changes::Changes;
use super::record::{self, Record};
use super::session::{Base, Open, State};
use super::store::{Guard, Saved, Store, StoreError, Stored};
use super::witness::{self, Happening, Witness};
use super::{Access, CookiePolicy, Expiry, Id, Session, SessionError};
use crate::message::RequestParts;

/// The rule of what is kept; see `Host::has_info`.
pub(crate) type HasInfo = dyn Fn(&Record) -> bool + Send + Sync;

/// What all sessions of an application have in common.
pub(crate) struct SessionManager {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cookie: CookiePolicy,
    pub(crate) expiry: Expiry,
    pub(crate) has_info: Option<Arc<HasInfo>>,
    /// How long a request waits for a session's lock.
    pub(crate) lock_timeout: Duration,
    /// A session is touched at most once in this time.
    pub(crate) touch_resolution: Duration,
    /// Set in a worker of a pool, before its first request.
    pub(crate) witness: OnceLock<Arc<dyn Witness>>,
}

/// What a commit asks of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieChange {
    /// Nothing.
    Keep,
    /// Hand out this ID, kept for so long if cookies are persistent.
    HandOut(Id, Duration),
    /// Take the cookie back.
    Revoke,
}

/// The outcome of a commit.
pub(crate) enum Commit {
    /// All is saved.
    Done(CookieChange),
    /// Something that the request relied on has changed. Nothing is saved; the callback is to run again with this
    /// session, which already holds the lock.
    Again(Box<Session>),
}

/// A lock, and what is there under it.
type Locked = (Box<dyn Guard>, Stored);

impl SessionManager {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            cookie: CookiePolicy::default(),
            expiry: Expiry::default(),
            has_info: None,
            lock_timeout: Duration::from_secs(30),
            touch_resolution: Duration::from_secs(10),
            witness: OnceLock::new(),
        }
    }

    pub(super) fn has_info(&self, record: &Record) -> bool {
        match &self.has_info {
            Some(rule) => rule(record),
            None => record.has_info(),
        }
    }

    pub(super) fn new_record(&self, request: &RequestParts) -> Record {
        Record::new(record::now(), request.client_address, self.expiry)
    }

    pub(super) fn lock(&self, id: &Id) -> Result<Option<Box<dyn Guard>>, SessionError> {
        witness::lock(&*self.store, id, self.lock_timeout, self.witness.get())
    }

    fn note(&self, what: Happening) {
        if let Some(witness) = self.witness.get() {
            witness.note(what);
        }
    }

    pub(super) fn uses(&self, id: &Id) {
        if let Some(witness) = self.witness.get() {
            witness.uses(id);
        }
    }
}

impl Session {
    /// The session of a request, not opened yet. Without a manager, any access is an error.
    pub(crate) fn new(manager: Option<Arc<SessionManager>>, request: Arc<RequestParts>, access: Access) -> Self {
        Self {
            manager,
            request,
            access,
            state: State::Unopened,
            guard: None,
            changes: Changes::default(),
            renew: false,
            flush: false,
            second_run: false,
            asked: false,
        }
    }

    /// Whether the callback looked at the session: its response then depends on the cookie.
    pub(crate) fn was_used(&self) -> bool {
        self.asked || self.is_changed()
    }

    fn is_changed(&self) -> bool {
        !self.changes.is_empty() || self.renew || self.flush
    }

    /// Saves what the callback did. Called before the first byte of the response leaves; gives the lock back.
    pub(crate) fn commit(mut self) -> Result<Commit, SessionError> {
        let Some(manager) = self.manager.clone() else { return Ok(Commit::Done(CookieChange::Keep)) };
        if !self.is_changed() {
            return self.touch(&manager).map(Commit::Done);
        }
        if matches!(self.state, State::Unopened) {
            // Changes that need no look at what is there: one look, under the lock, does for both.
            self.access = Access::Exclusive;
            self.open()?;
        }
        let State::Open(open) = std::mem::replace(&mut self.state, State::Unopened) else {
            unreachable!("opened above")
        };
        let Open { stored, changed } = *open;
        let Some(base) = stored else { return commit_new(&manager, changed.as_ref()).map(Commit::Done) };

        // From here on under the lock.
        let (guard, current) = match self.guard.take() {
            Some(guard) => (guard, None),
            None => match lock_current(&manager, &base.id)? {
                Some((guard, current)) => (guard, Some(current)),
                // Logged out meanwhile, or renewed: the request is to see that.
                None if self.flush => return commit_flushed(&manager, changed.as_ref()).map(Commit::Done),
                None => return Ok(Commit::Again(Box::new(self.again(None)))),
            },
        };
        let others = current.filter(|current| current.version != base.version);
        let is_void = others.as_ref().is_some_and(|current| !self.changes.hold(&base.record, &current.record));
        let others = others.map(|Stored { record, version }| Base { id: base.id, record, version });
        if is_void {
            return Ok(Commit::Again(Box::new(self.again(others.map(|base| (guard, base))))));
        }
        if self.flush {
            // First the new record, as in a renewal: where it cannot be kept, the old session stays as it was.
            let change = commit_flushed(&manager, changed.as_ref())?;
            delete_replaced(&manager, guard, change)?;
            // What replaces it was counted.
            if change == CookieChange::Revoke {
                manager.note(Happening::Committed);
            }
            return Ok(Commit::Done(change));
        }
        match others {
            None => self.save(&manager, guard, base, changed),
            // What others have saved meanwhile, with the changes of this request.
            Some(base) => {
                let mut changed = base.record.clone();
                self.changes.apply(&mut changed).map_err(|(key, source)| SessionError::Value { key, source })?;
                self.save(&manager, guard, base, Some(changed))
            }
        }
    }

    /// Saves `changed` in place of `current`; `None`: it is the same.
    fn save(
        self,
        manager: &SessionManager,
        mut guard: Box<dyn Guard>,
        current: Base,
        changed: Option<Record>,
    ) -> Result<Commit, SessionError> {
        let Base { id, record: current, version } = current;
        let changed = changed.filter(|changed| *changed != current);
        let record = changed.as_ref().unwrap_or(&current);
        if !manager.has_info(record) {
            guard.delete()?;
            manager.note(Happening::Committed);
            return Ok(Commit::Done(CookieChange::Revoke));
        }
        if self.renew {
            // First the new record, then the old one's end: a crash between leaves the old session as it was.
            let change = create(manager, record)?;
            delete_replaced(manager, guard, change)?;
            manager.note(Happening::Committed);
            return Ok(Commit::Done(change));
        }
        if changed.is_none() {
            drop(guard);
            return touch_if_due(manager, &id, record).map(Commit::Done);
        }
        match guard.save(record, version)? {
            Saved::Saved(_) => {
                manager.note(Happening::Committed);
                Ok(Commit::Done(refreshed(manager, id, record)))
            }
            // The lock was lost, as a lease of a network store can be.
            Saved::Conflict | Saved::Gone if self.access == Access::Optimistic => {
                drop(guard);
                Ok(Commit::Again(Box::new(self.again(None))))
            }
            Saved::Conflict | Saved::Gone => Err(SessionError::Conflict),
        }
    }

    /// The same request's session for the second run of its callback: exclusive, and with the lock where there is one.
    fn again(self, locked: Option<(Box<dyn Guard>, Base)>) -> Session {
        if let Some(manager) = &self.manager {
            manager.note(Happening::Repeated);
        }
        let mut session = Session::new(self.manager, self.request, Access::Exclusive);
        session.second_run = true;
        if let Some((guard, base)) = locked {
            session.guard = Some(guard);
            session.state = State::Open(Box::new(Open { stored: Some(base), changed: None }));
        }
        session
    }

    fn touch(mut self, manager: &SessionManager) -> Result<CookieChange, SessionError> {
        self.guard = None;
        match &self.state {
            State::Open(open) => match &open.stored {
                Some(base) => touch_if_due(manager, &base.id, &base.record),
                None => Ok(CookieChange::Keep),
            },
            State::Unopened => Ok(CookieChange::Keep),
        }
    }
}

/// The lock of a session and what is there now; `None` where it is gone.
fn lock_current(manager: &SessionManager, id: &Id) -> Result<Option<Locked>, SessionError> {
    let Some(mut guard) = manager.lock(id)? else { return Ok(None) };
    Ok(guard.load()?.map(|stored| (guard, stored)))
}

/// A session that the store does not have: kept if there is something to keep.
fn commit_new(manager: &SessionManager, record: Option<&Record>) -> Result<CookieChange, SessionError> {
    let Some(record) = record.filter(|record| manager.has_info(record)) else { return Ok(CookieChange::Keep) };
    let change = create(manager, record)?;
    manager.note(Happening::Committed);
    Ok(change)
}

/// What was set after a flush; without any, the cookie is taken back.
fn commit_flushed(manager: &SessionManager, record: Option<&Record>) -> Result<CookieChange, SessionError> {
    Ok(match commit_new(manager, record)? {
        CookieChange::Keep => CookieChange::Revoke,
        change => change,
    })
}

fn touch_if_due(manager: &SessionManager, id: &Id, record: &Record) -> Result<CookieChange, SessionError> {
    // With a short idle timeout the resolution must be shorter still, or a busy session would end.
    let idle = record.idle_timeout().unwrap_or(Duration::MAX);
    let resolution = manager.touch_resolution.min(idle / 10);
    if u128::from(record::now().saturating_sub(record.accessed)) < resolution.as_millis() {
        return Ok(CookieChange::Keep);
    }
    // One that ended meanwhile stays ended: somebody may have been told so.
    if record.is_expired(std::time::SystemTime::now()) || !manager.store.touch(id)? {
        return Ok(CookieChange::Keep);
    }
    Ok(refreshed(manager, *id, record))
}

/// A persistent cookie is handed out again when its session is refreshed, so that both live as long.
fn refreshed(manager: &SessionManager, id: Id, record: &Record) -> CookieChange {
    if manager.cookie.is_persistent() { CookieChange::HandOut(id, lifetime(record)) } else { CookieChange::Keep }
}

fn create(manager: &SessionManager, record: &Record) -> Result<CookieChange, SessionError> {
    loop {
        let id = Id::generate()?;
        match manager.store.create(&id, record) {
            Ok(_) => {
                manager.uses(&id);
                return Ok(CookieChange::HandOut(id, lifetime(record)));
            }
            // Once in 2^64 sessions; a store that says so for ever is no store.
            Err(StoreError::Exists) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Deletes a session that another one replaces. Where that fails the request does, so nobody is told of the other one:
/// it must not stay, logged in as somebody perhaps.
fn delete_replaced(manager: &SessionManager, guard: Box<dyn Guard>, by: CookieChange) -> Result<(), SessionError> {
    guard.delete().map_err(|error| {
        if let CookieChange::HandOut(id, _) = by {
            // If not this either, it runs out by its timeouts.
            let _ = manager.store.delete(&id);
        }
        error.into()
    })
}

/// How long a session can live if it is not used again.
fn lifetime(record: &Record) -> Duration {
    let absolute = record.ends.map(|ends| Duration::from_millis(ends.saturating_sub(record::now())));
    // Without limits: as long as user agents keep a cookie (RFC 6265bis: 400 days).
    let life = [record.idle_timeout(), absolute].into_iter().flatten().min();
    life.unwrap_or(Duration::from_secs(400 * 24 * 3600))
}
