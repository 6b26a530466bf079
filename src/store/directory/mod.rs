//! The directory store: one file per session, the file name is the session ID, shared by any number of processes.
//!
//! `slot` is the format, `look` what a file holds, `file` what is done to it, by `calls`; `place` is the directory,
//! `sweep` goes through all of it, `position` is how far a sweep has come.
//! The protocol and its argument are in `src/docs/file-format.md`.

mod calls;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
mod hostile;
mod look;
mod place;
mod position;
mod slot;
mod sweep;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use self::file::Locked;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::hostile::check_session_file;
use self::look::Memory;
use self::place::Place;
use crate::session::{Guard, Id, Record, Store, StoreError, Stored, Swept, Version};

/// What an acknowledged save survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The death of any process, at any instant. After a power cut a session is intact, older or absent.
    #[default]
    Process,
    /// A power cut as well: data is on disk before a save, a creation or a deletion is acknowledged.
    Power,
}

/// A store that keeps each session in a file of its own, safe for any number of processes and threads on one machine.
///
/// A session's file is written in place, in two slots of which one is always whole, so a reader needs no lock and a
/// process that is killed, or a disk that is full, costs no session. Locks are flock(2) on the session's own file: the
/// kernel frees them when their holder dies.
///
/// The directory must belong to the user that the process runs as, and nobody else may write to it or list it, as the
/// names in it are the session IDs. It is created (not its parents) with mode 0700 where it is missing. NFS, CIFS and FUSE
/// are refused, as their locks are not reliable.
#[derive(Clone)]
pub struct DirectoryStore {
    path: PathBuf,
    durability: Durability,
    any_file_system: bool,
    place: Arc<OnceLock<Arc<Place>>>,
}

impl DirectoryStore {
    /// A store in this directory. Nothing is opened before it is first used.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), durability: Durability::default(), any_file_system: false, place: Arc::default() }
    }

    /// What an acknowledged save survives; [`Durability::Process`] unless said otherwise.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Does not refuse file systems whose locks are not known to be reliable.
    #[must_use]
    pub fn on_any_file_system(mut self) -> Self {
        self.any_file_system = true;
        self
    }

    fn place(&self) -> Result<&Arc<Place>, StoreError> {
        if let Some(place) = self.place.get() {
            return Ok(place);
        }
        // Two threads may both open it; one of the two is kept.
        let place = Arc::new(Place::open(&self.path)?);
        Ok(self.place.get_or_init(|| place))
    }
}

impl Store for DirectoryStore {
    fn load(&self, id: &Id) -> Result<Option<Stored>, StoreError> {
        look::load(self.place()?, id, Memory::Shared)
    }

    fn create(&self, id: &Id, record: &Record) -> Result<Version, StoreError> {
        Locked::create(self.place()?, id, record, self.durability)
    }

    fn delete(&self, id: &Id) -> Result<bool, StoreError> {
        match Locked::open(self.place()?, id, self.durability, Duration::from_secs(30))? {
            Some(mut locked) => locked.delete(),
            None => Ok(false),
        }
    }

    fn touch(&self, id: &Id) -> Result<bool, StoreError> {
        file::touch(self.place()?, id)
    }

    fn lock(&self, id: &Id, wait: Duration) -> Result<Option<Box<dyn Guard>>, StoreError> {
        let Some(mut locked) = Locked::open(self.place()?, id, self.durability, wait)? else { return Ok(None) };
        Ok(locked.exists()?.then(|| Box::new(locked) as Box<dyn Guard>))
    }

    fn iter(&self) -> Result<Box<dyn Iterator<Item = Result<(Id, Stored), StoreError>> + '_>, StoreError> {
        Ok(Box::new(sweep::sessions(self.place()?.clone())?))
    }

    fn setup(&self) -> Result<(), StoreError> {
        let place = self.place()?;
        if self.any_file_system { Ok(()) } else { place.check_file_system() }
    }

    fn delete_old_sessions(&self, age: Option<Duration>) -> Result<Swept, StoreError> {
        sweep::whole(self.place()?, age)
    }

    fn sweep(&self, age: Option<Duration>, budget: Option<Duration>) -> Result<Option<Swept>, StoreError> {
        sweep::alone(self.place()?, age, budget)
    }

    fn is_multiprocess_safe(&self) -> bool {
        true
    }

    fn is_thread_safe(&self) -> bool {
        true
    }
}

impl std::fmt::Debug for DirectoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectoryStore")
            .field("path", &self.path)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}
