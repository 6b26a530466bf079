//! The memory store: sessions of one process, gone when it ends. Quixote's own, and a store for tests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::session::{Guard, Id, Record, Saved, Store, StoreError, Stored, Swept, Version, is_over, now, over_from};

/// A store that keeps sessions in the memory of this process: for tests, and for a server that serves alone
/// (`Host::serve_http`). It is not multiprocess safe, so the pool and CGI refuse it.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    sessions: Mutex<HashMap<Id, Entry>>,
    released: Condvar,
}

struct Entry {
    stored: Stored,
    locked: bool,
    /// Tells this entry from a later one of the same ID.
    number: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Id, Entry>> {
        // Nothing between lock and unlock leaves an entry half changed.
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_alive(entry: &Entry) -> bool {
    let record = &entry.stored.record;
    !is_over(now(), record.accessed, record.idle, record.ends)
}

impl Store for MemoryStore {
    fn load(&self, id: &Id) -> Result<Option<Stored>, StoreError> {
        Ok(self.sessions().get(id).filter(|entry| is_alive(entry)).map(|entry| entry.stored.clone()))
    }

    fn create(&self, id: &Id, record: &Record) -> Result<Version, StoreError> {
        let mut sessions = self.sessions();
        if sessions.contains_key(id) {
            return Err(StoreError::Exists);
        }
        let stored = Stored { record: Record { accessed: now(), ..record.clone() }, version: Version(1) };
        sessions.insert(*id, Entry { stored, locked: false, number: NUMBER.fetch_add(1, Ordering::Relaxed) });
        Ok(Version(1))
    }

    fn touch(&self, id: &Id) -> Result<bool, StoreError> {
        let mut sessions = self.sessions();
        let entry = sessions.get_mut(id).filter(|entry| is_alive(entry));
        Ok(entry.map(|entry| entry.stored.record.accessed = now()).is_some())
    }

    fn lock(&self, id: &Id, wait: Duration) -> Result<Option<Box<dyn Guard>>, StoreError> {
        let wait = wait.min(Duration::from_secs(100 * 365 * 24 * 3600));
        let deadline = Instant::now() + wait;
        let mut sessions = self.sessions();
        loop {
            match sessions.get_mut(id) {
                None => return Ok(None),
                Some(entry) if !is_alive(entry) => return Ok(None),
                Some(entry) if !entry.locked => {
                    entry.locked = true;
                    return Ok(Some(Box::new(Locked { store: self.clone(), id: *id, number: entry.number })));
                }
                Some(_) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError::Locked);
            }
            let waited = self.shared.released.wait_timeout(sessions, left);
            sessions = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn iter(&self) -> Result<Box<dyn Iterator<Item = Result<(Id, Stored), StoreError>> + '_>, StoreError> {
        let all: Vec<_> =
            self.sessions().iter().filter(|(_, e)| is_alive(e)).map(|(id, e)| Ok((*id, e.stored.clone()))).collect();
        Ok(Box::new(all.into_iter()))
    }

    fn setup(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn delete_old_sessions(&self, age: Option<Duration>) -> Result<Swept, StoreError> {
        let mut sessions = self.sessions();
        let now = now();
        let mut swept = Swept { complete: true, ..Swept::default() };
        sessions.retain(|_, entry| {
            let record = &entry.stored.record;
            let due = match age {
                Some(age) => Some(record.accessed.saturating_add(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))),
                None => over_from(record.accessed, record.idle, record.ends),
            };
            let overdue = due.and_then(|due| now.checked_sub(due)).filter(|_| !entry.locked);
            if let Some(overdue) = overdue {
                swept.count_deleted(Duration::from_millis(overdue));
            }
            overdue.is_none()
        });
        swept.remaining = sessions.len() as u64;
        Ok(swept)
    }

    /// Exclusive by the lock of the map, and over before any budget could be.
    fn sweep(&self, age: Option<Duration>, _budget: Option<Duration>) -> Result<Option<Swept>, StoreError> {
        self.delete_old_sessions(age).map(Some)
    }

    fn is_multiprocess_safe(&self) -> bool {
        false
    }

    fn is_thread_safe(&self) -> bool {
        true
    }
}

/// Numbers for entries: an ID may be used again in a test.
static NUMBER: AtomicU64 = AtomicU64::new(0);

struct Locked {
    store: MemoryStore,
    id: Id,
    number: u64,
}

impl Locked {
    fn with<T>(&self, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut sessions = self.store.sessions();
        sessions.get_mut(&self.id).filter(|entry| entry.number == self.number && is_alive(entry)).map(act)
    }
}

impl Guard for Locked {
    fn load(&mut self) -> Result<Option<Stored>, StoreError> {
        Ok(self.with(|entry| entry.stored.clone()))
    }

    fn save(&mut self, record: &Record, expected: Version) -> Result<Saved, StoreError> {
        let saved = self.with(|entry| {
            if entry.stored.version != expected {
                return Saved::Conflict;
            }
            let version = Version(expected.0 + 1);
            entry.stored = Stored { record: Record { accessed: now(), ..record.clone() }, version };
            Saved::Saved(version)
        });
        Ok(saved.unwrap_or(Saved::Gone))
    }

    fn delete(self: Box<Self>) -> Result<(), StoreError> {
        let mut sessions = self.store.sessions();
        if sessions.get(&self.id).is_some_and(|entry| entry.number == self.number) {
            sessions.remove(&self.id);
        }
        Ok(())
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Some(entry) = self.store.sessions().get_mut(&self.id).filter(|entry| entry.number == self.number) {
            entry.locked = false;
        }
        self.store.shared.released.notify_all();
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryStore({} sessions)", self.sessions().len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{Fixture, contract};
    use super::*;

    fn fixture() -> Fixture<MemoryStore> {
        let store = MemoryStore::new();
        Fixture { other: store.clone(), store, keep: Box::new(()) }
    }

    contract!(fixture);
}
