//! The contract of a store: what keeps records under IDs.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::codec::CodecError;
use super::{Id, Record};

/// A number that grows with every save of a record. The version check is what makes an update exact; locks only spare
/// the losers a second try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

/// A record as it was loaded.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// Its version.
    pub version: Version,
}

/// The outcome of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a save that met a conflict has saved nothing"]
pub enum Saved {
    /// The record was saved under this version.
    Saved(Version),
    /// The stored version is not the expected one; nothing was saved.
    Conflict,
    /// The session was deleted meanwhile; nothing was saved, and nothing was brought back.
    Gone,
}

/// The outcome of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Sessions that were deleted.
    pub deleted: u64,
    /// Sessions that were looked at and remain: all that there are, if one sweep without a budget looked at all.
    pub remaining: u64,
    /// Whether the end was reached: no session is left that this sweep, or those that it went on from, did not look at.
    pub complete: bool,
    /// How far the sweeps are behind: for how long that one of the deleted sessions had been over (or older than the
    /// age) that had been so for the longest time. Not much more than the time between two sweeps, if they get by. Zero
    /// where none was deleted.
    pub lag: Duration,
}

impl Swept {
    /// Counts a session that was deleted, `overdue` after it could have been.
    pub(crate) fn count_deleted(&mut self, overdue: Duration) {
        self.deleted += 1;
        self.lag = self.lag.max(overdue);
    }
}

/// The lock of one session, held until it is dropped.
pub trait Guard {
    /// The record under the lock; `None` if the session does not exist or is over. (Rules as for [`Store::load`].)
    fn load(&mut self) -> Result<Option<Stored>, StoreError>;

    /// Saves under the lock. (Rules as for [`Store::save`].)
    fn save(&mut self, record: &Record, expected: Version) -> Result<Saved, StoreError>;

    /// Deletes the session and gives the lock back. (Rules as for [`Store::delete`].)
    fn delete(self: Box<Self>) -> Result<(), StoreError>;
}

/// A store: keeps records under IDs, for one process or for any number of them.
///
/// The rules are numbered; the contract suite has one test for each, named after it, and every store passes all.
///
/// 1. A constructor does no I/O. A store opens what it needs once per process, at first use, after fork.
/// 2. [`load`](Self::load) gives the record of the last acknowledged save, whole.
/// 3. `load` never waits for the holder of a lock.
/// 4. Missing, expired and damaged records are all `None`; a damaged one is also logged and set aside, once.
/// 5. `Err` is for failures of the system only, and a failure is never `None`.
/// 6. [`create`](Self::create) fails with [`StoreError::Exists`] where the ID exists, and leaves what is there.
/// 7. [`save`](Self::save) with the current version saves and gives a greater one.
/// 8. `save` with another version is a `Conflict` and changes nothing.
/// 9. `save` of a deleted session is `Gone`: it is never brought back.
/// 10. An unknown ID creates nothing: not by `load`, `save`, `delete`, `touch`, `exists` or `lock`.
/// 11. [`delete`](Self::delete) is final and tells whether there was a session.
/// 12. [`touch`](Self::touch) renews the time of last access, changes neither record nor version, and takes no lock.
/// 13. [`lock`](Self::lock) excludes every other `lock`, `save` and `delete` of this ID in every process that shares the
///     store, and none of any other ID.
/// 14. `lock` gives up after its waiting time with [`StoreError::Locked`]; the holder is not disturbed.
/// 15. A lock ends with its guard, and with its holder's process however that ends.
/// 16. `lock` of an ID that does not exist, or that is deleted while one waits, is `None`.
/// 17. [`iter`](Self::iter) gives every session that exists throughout, once; one that comes or goes meanwhile may be
///     missing, and is no error.
/// 18. [`delete_old_sessions`](Self::delete_old_sessions) deletes what was last used at least that long ago, or, without
///     an age, what is over by its own timeouts; never a session whose lock is held; and counts what remains.
/// 19. [`setup`](Self::setup) may be called any number of times, by any number of processes, and destroys nothing.
/// 20. The two flags are true answers.
/// 21. [`sweep`](Self::sweep) deletes what `delete_old_sessions` deletes; of all that share the store only one is at it
///     at a time, and whoever comes meanwhile is told so with `None`, at once.
/// 22. `sweep` with a budget ends when that time is over, a little late at most. Those that follow go on where it ended,
///     whichever process they are in, until one is `complete`; each gets on, however small its budget.
pub trait Store: Send + Sync {
    /// The record of a session and its version.
    fn load(&self, id: &Id) -> Result<Option<Stored>, StoreError>;

    /// Keeps a new record under a new ID.
    fn create(&self, id: &Id, record: &Record) -> Result<Version, StoreError>;

    /// Saves a record if the stored version is still `expected`, else changes nothing.
    fn save(&self, id: &Id, record: &Record, expected: Version) -> Result<Saved, StoreError> {
        match self.lock(id, LOCK_WAIT)? {
            Some(mut guard) => guard.save(record, expected),
            None => Ok(Saved::Gone),
        }
    }

    /// Deletes a session; tells whether there was one.
    fn delete(&self, id: &Id) -> Result<bool, StoreError> {
        match self.lock(id, LOCK_WAIT)? {
            Some(guard) => guard.delete().map(|()| true),
            None => Ok(false),
        }
    }

    /// Renews the time of last access; tells whether there was a session.
    fn touch(&self, id: &Id) -> Result<bool, StoreError>;

    /// Whether a session exists that is not over.
    fn exists(&self, id: &Id) -> Result<bool, StoreError> {
        Ok(self.load(id)?.is_some())
    }

    /// The lock of a session, waited for at most `wait`. One request may ask several times, and first without waiting.
    fn lock(&self, id: &Id, wait: Duration) -> Result<Option<Box<dyn Guard>>, StoreError>;

    /// All sessions that are not over, for administration.
    #[allow(clippy::type_complexity, clippy::iter_not_returning_iterator)]
    fn iter(&self) -> Result<Box<dyn Iterator<Item = Result<(Id, Stored), StoreError>> + '_>, StoreError>;

    /// Prepares the store, and checks that it can be relied on. Each worker of a pool calls it once before it serves.
    fn setup(&self) -> Result<(), StoreError>;

    /// Deletes sessions that were last used at least `age` ago; without an age, those that are over by their own
    /// timeouts.
    fn delete_old_sessions(&self, age: Option<Duration>) -> Result<Swept, StoreError>;

    /// The same for housekeeping, which may be started from anywhere and at any time: one at a time, and within
    /// `budget` if there is one. `None`: somebody else is sweeping now.
    fn sweep(&self, age: Option<Duration>, budget: Option<Duration>) -> Result<Option<Swept>, StoreError>;

    /// Whether any number of processes may use the store at once.
    fn is_multiprocess_safe(&self) -> bool;

    /// Whether any number of threads may use this value at once.
    fn is_thread_safe(&self) -> bool;
}

/// How long `save` and `delete` wait for the lock when they are called without one.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// What can go wrong in a store. Every variant is a failure of the system or of the set-up; "no such session" is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A system call failed.
    #[error("{verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what; a session ID is shortened, as it is a secret.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The lock was not granted in time.
    #[error("session is in use: lock not granted in time")]
    Locked,
    /// The ID exists already.
    #[error("session ID exists already")]
    Exists,
    /// The record is larger than a store can keep.
    #[error("session of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Bytes of the encoded record.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Something in the store is not what this system made: a link, a foreign owner, a loose mode. It is left as it is.
    #[error("refuse {path}: {reason}")]
    Untrusted {
        /// What is refused.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The place cannot be relied on, such as a file system without proper locks.
    #[error("cannot keep sessions in {path}: {reason}")]
    Unsuitable {
        /// The place.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A session file of a format that only a newer version reads.
    #[error("{path}: session file of format {found}, newer than this program knows")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
    },
    /// The record could not be encoded.
    #[error("encode session")]
    Encode(#[from] CodecError),
}
