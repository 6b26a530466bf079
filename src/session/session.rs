//! The session that an application's callback works with.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::changes::{Change, Changes, Part};
use super::codec::{CodecError, Encoded};
use super::id::random_token;
use super::manager::SessionManager;
use super::record::Record;
use super::store::{Guard, StoreError, Version};
use super::{Access, Expiry, Id, SessionError};
use crate::message::RequestParts;

type Result<T, E = SessionError> = std::result::Result<T, E>;

/// The session of one request.
///
/// It is loaded at first access: a callback that never touches it costs no access to the store at all. What the
/// callback changes is saved after it returned `Ok`, before the first byte of the response leaves; after `Err` or a
/// panic nothing is. See [`Access`] for how requests that run at once are kept apart.
///
/// Values are kept under keys and may be of any serde type. Equal keys of different requests conflict, different keys
/// never do; [`add`](Self::add) and [`push`](Self::push) conflict with nothing.
#[allow(clippy::struct_excessive_bools)] // Each is a fact of its own; no two make a state.
pub struct Session {
    pub(super) manager: Option<Arc<SessionManager>>,
    pub(super) request: Arc<RequestParts>,
    pub(super) access: Access,
    pub(super) state: State,
    pub(super) guard: Option<Box<dyn Guard>>,
    pub(super) changes: Changes,
    pub(super) renew: bool,
    pub(super) flush: bool,
    /// The callback runs a second time.
    pub(super) second_run: bool,
    /// Somebody wanted to know something of it.
    pub(super) asked: bool,
}

/// How far the session has been opened.
pub(super) enum State {
    /// Not at all: the cookie has not been looked at.
    Unopened,
    /// Loaded, or found to be new.
    Open(Box<Open>),
}

/// An opened session.
pub(super) struct Open {
    /// What the store has; `None` for a new session.
    pub(super) stored: Option<Base>,
    /// The same with this request's changes, if there are any.
    pub(super) changed: Option<Record>,
}

impl Open {
    /// What the callback sees.
    pub(super) fn view(&self) -> &Record {
        self.changed.as_ref().or(self.stored.as_ref().map(|base| &base.record)).expect("a new session has a record")
    }

    fn view_mut(&mut self) -> &mut Record {
        let stored = &self.stored;
        self.changed
            .get_or_insert_with(|| stored.as_ref().map(|base| base.record.clone()).expect("a new session has a record"))
    }
}

/// The record that this request started from.
pub(super) struct Base {
    pub(super) id: Id,
    pub(super) record: Record,
    pub(super) version: Version,
}

impl Session {
    // ---- access

    /// How this request uses its session.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Sets how this request uses its session.
    ///
    /// # Errors
    /// After the first access, and for [`Access::Optimistic`] where the request has a message-body: it could not be
    /// read a second time.
    pub fn set_access(&mut self, access: Access) -> Result<()> {
        // The second run is exclusive, whatever the first one asked for.
        if self.second_run {
            return Ok(());
        }
        if matches!(self.state, State::Open(_)) || !self.changes.is_empty() || self.renew || self.flush {
            return Err(SessionError::TooLate);
        }
        if access == Access::Optimistic && self.access != access && self.request.has_body() {
            return Err(SessionError::NotRepeatable);
        }
        self.access = access;
        Ok(())
    }

    /// The ID, once the session is stored: a session that was made in this request has none yet.
    pub fn id(&mut self) -> Result<Option<Id>> {
        Ok(self.open()?.stored.as_ref().map(|base| base.id))
    }

    // ---- values

    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// Where it does not decode as a `T`.
    pub fn get<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        self.rely_on(|| Part::Value(key.into()));
        let value = self.open()?.view().values.get(key);
        value.map(Encoded::get).transpose().map_err(|source| value_error(key, source))
    }

    /// Whether `key` has a value.
    pub fn contains(&mut self, key: &str) -> Result<bool> {
        self.rely_on(|| Part::Value(key.into()));
        Ok(self.open()?.view().values.contains_key(key))
    }

    /// The keys that have a value. The request then relies on the whole session.
    pub fn keys(&mut self) -> Result<Vec<String>> {
        self.rely_on(|| Part::Everything);
        Ok(self.open()?.view().values.keys().cloned().collect())
    }

    /// Sets the value of `key`.
    pub fn insert<T: Serialize>(&mut self, key: &str, value: T) -> Result<()> {
        let value = Encoded::new(&value).map_err(|source| value_error(key, source))?;
        self.rely_and_change(|| Part::Value(key.into()), Change::Insert(key.into(), value))
    }

    /// Removes the value of `key` and gives it back.
    ///
    /// # Errors
    /// Where it does not decode as a `T`; it then stays.
    pub fn remove<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        let value = self.get(key)?;
        if value.is_some() {
            self.change(Change::Remove(key.into()))?;
        }
        Ok(value)
    }

    /// Removes all values and flash values. User, form tokens and ID stay; [`flush`](Self::flush) ends the session.
    pub fn clear(&mut self) -> Result<()> {
        self.rely_and_change(|| Part::Everything, Change::Clear)
    }

    /// Adds `n` to the number under `key`, which counts as 0 where there is none. Whatever others save meanwhile, this
    /// is applied to what is there at commit, so it never conflicts.
    ///
    /// # Errors
    /// Where the value is no number or the sum does not fit one; at commit, if the value became one by then.
    pub fn add(&mut self, key: &str, n: i64) -> Result<()> {
        self.change(Change::Add(key.into(), n))
    }

    /// Appends `item` to the list under `key`, which counts as empty where there is none. It never conflicts.
    ///
    /// # Errors
    /// Where the value is no list; at commit, if it became one by then.
    pub fn push<T: Serialize>(&mut self, key: &str, item: T) -> Result<()> {
        let item = Encoded::new(&item).map_err(|source| value_error(key, source))?;
        self.change(Change::Push(key.into(), item))
    }

    /// Sets a flash value: kept until it is [taken](Self::take_flash), such as a note for the next page.
    pub fn flash<T: Serialize>(&mut self, key: &str, value: T) -> Result<()> {
        let value = Encoded::new(&value).map_err(|source| value_error(key, source))?;
        self.rely_and_change(|| Part::Flash(key.into()), Change::Flash(key.into(), value))
    }

    /// Reads a flash value, which is gone after this request.
    ///
    /// # Errors
    /// Where it does not decode as a `T`; it then stays.
    pub fn take_flash<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        self.rely_on(|| Part::Flash(key.into()));
        let value = self.open()?.view().flash.get(key).map(Encoded::get).transpose();
        let value = value.map_err(|source| value_error(key, source))?;
        if value.is_some() {
            self.change(Change::TakeFlash(key.into()))?;
        }
        Ok(value)
    }

    // ---- user

    /// Who is logged in, as [`set_user`](Self::set_user) said.
    pub fn user(&mut self) -> Result<Option<&str>> {
        self.rely_on(|| Part::User);
        Ok(self.open()?.view().user.as_deref())
    }

    /// Logs a user in: sets the user, renews the ID (so that an ID planted before is worth nothing: session fixation)
    /// and starts the absolute timeout anew.
    pub fn set_user(&mut self, user: impl Into<String>) -> Result<()> {
        self.rely_and_change(|| Part::User, Change::User(Some(user.into())))?;
        self.change(Change::Restart(SystemTime::now()))?;
        self.cycle_id()
    }

    /// Makes the session one of nobody again and renews its ID. To end it altogether, [`flush`](Self::flush) it.
    pub fn remove_user(&mut self) -> Result<()> {
        self.rely_and_change(|| Part::User, Change::User(None))?;
        self.cycle_id()
    }

    // ---- life

    /// Ends the session: removed from the store at commit, its cookie taken back. What is set afterwards in the same
    /// request starts a new one.
    pub fn flush(&mut self) -> Result<()> {
        self.writable()?;
        // What was looked at before may be carried over, so it is still relied on.
        self.changes.forget_changes();
        self.renew = false;
        let manager = self.manager.clone().ok_or(SessionError::NoSession)?;
        let view = manager.new_record(&self.request);
        self.open()?.changed = Some(view);
        self.flush = true;
        Ok(())
    }

    /// Gives the session another ID at commit: the new record is complete before the old one is deleted.
    pub fn cycle_id(&mut self) -> Result<()> {
        self.writable()?;
        self.renew = true;
        Ok(())
    }

    /// Sets the timeouts of this session alone. The absolute one starts now.
    pub fn set_expiry(&mut self, expiry: Expiry) -> Result<()> {
        self.rely_and_change(|| Part::Expiry, Change::Expiry(expiry, SystemTime::now()))
    }

    /// Whether there is anything worth keeping: by the rule of `Host::has_info`, or if the session holds anything at
    /// all. One that has not is never stored.
    pub fn has_info(&mut self) -> Result<bool> {
        self.rely_on(|| Part::Everything);
        self.open()?;
        let manager = self.manager.clone().ok_or(SessionError::NoSession)?;
        Ok(manager.has_info(self.open()?.view()))
    }

    /// When the session was created.
    pub fn creation_time(&mut self) -> Result<SystemTime> {
        Ok(self.open()?.view().created())
    }

    /// When it was last used before this request, to the resolution of a touch (`Host::touch_resolution`).
    pub fn access_time(&mut self) -> Result<SystemTime> {
        Ok(self.open()?.view().accessed())
    }

    /// The address that made the request in which the session was created.
    pub fn remote_address(&mut self) -> Result<Option<IpAddr>> {
        Ok(self.open()?.view().remote_address())
    }

    // ---- form tokens

    /// Draws a token to be put into a form as a hidden field. At most 32 are outstanding; the oldest give way.
    pub fn create_form_token(&mut self) -> Result<String> {
        let token = random_token()?;
        self.change(Change::AddToken(token.clone()))?;
        Ok(token)
    }

    /// Whether `token` is outstanding.
    pub fn has_form_token(&mut self, token: &str) -> Result<bool> {
        self.rely_on(|| Part::Token(token.into()));
        Ok(self.open()?.view().tokens.iter().any(|t| t == token))
    }

    /// Takes `token` back; tells whether it was outstanding. Of two requests with the same token only one is told so.
    pub fn remove_form_token(&mut self, token: &str) -> Result<bool> {
        let there = self.has_form_token(token)?;
        if there {
            self.change(Change::RemoveToken(token.into()))?;
        }
        Ok(there)
    }

    /// How many form tokens are outstanding.
    pub fn form_token_count(&mut self) -> Result<usize> {
        self.rely_on(|| Part::Tokens);
        Ok(self.open()?.view().tokens.len())
    }

    // ---- inside

    /// The request looked at `part`, or means to replace it. Where nobody else can change it meanwhile, or nothing is saved,
    /// there is nothing to check at commit.
    fn rely_on(&mut self, part: impl FnOnce() -> Part) {
        if self.access == Access::Optimistic {
            self.changes.rely_on(part());
        }
    }

    fn rely_and_change(&mut self, part: impl FnOnce() -> Part, change: Change) -> Result<()> {
        self.open()?;
        self.rely_on(part);
        self.change(change)
    }

    fn change(&mut self, change: Change) -> Result<()> {
        self.writable()?;
        // Under a lock there is nothing to gain from not looking.
        if self.access == Access::Exclusive {
            self.open()?;
        }
        if let State::Open(open) = &mut self.state {
            change.apply(open.view_mut()).map_err(|(key, source)| SessionError::Value { key, source })?;
        }
        self.changes.push(change);
        Ok(())
    }

    fn writable(&self) -> Result<()> {
        match self.access {
            Access::ReadOnly => Err(SessionError::ReadOnly),
            Access::None => Err(SessionError::NoSession),
            Access::Optimistic | Access::Exclusive if self.manager.is_none() => Err(SessionError::NoSession),
            Access::Optimistic | Access::Exclusive => Ok(()),
        }
    }

    /// Loads the session if that has not been done: the first well-formed ID of the cookies that exists.
    pub(super) fn open(&mut self) -> Result<&mut Open> {
        self.asked = true;
        if matches!(self.state, State::Unopened) {
            let manager = match (&self.manager, self.access) {
                (None, _) | (_, Access::None) => return Err(SessionError::NoSession),
                (Some(manager), _) => manager.clone(),
            };
            let stored = self.find(&manager)?;
            let changed = if stored.is_none() { Some(manager.new_record(&self.request)) } else { None };
            let mut open = Box::new(Open { stored, changed });
            // Changes that needed no look so far.
            if !self.changes.is_empty() {
                self.changes.apply(open.view_mut()).map_err(|(key, source)| SessionError::Value { key, source })?;
            }
            self.state = State::Open(open);
        }
        match &mut self.state {
            State::Open(open) => Ok(open),
            State::Unopened => unreachable!("opened above"),
        }
    }

    fn find(&mut self, manager: &SessionManager) -> Result<Option<Base>> {
        let request = Arc::clone(&self.request);
        for id in manager.cookie.read(&request) {
            let stored = if self.access == Access::Exclusive {
                let Some(mut guard) = manager.lock(&id)? else { continue };
                let stored = guard.load()?;
                self.guard = stored.is_some().then_some(guard);
                stored
            } else {
                manager.store.load(&id)?
            };
            if let Some(stored) = stored {
                manager.uses(&id);
                return Ok(Some(Base { id, record: stored.record, version: stored.version }));
            }
        }
        Ok(None)
    }
}

fn value_error(key: &str, source: CodecError) -> SessionError {
    SessionError::Value { key: key.into(), source }
}

impl From<CodecError> for SessionError {
    fn from(error: CodecError) -> Self {
        Self::Store(StoreError::Encode(error))
    }
}

/// Nothing of its contents: they may be secrets.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("access", &self.access).finish_non_exhaustive()
    }
}
