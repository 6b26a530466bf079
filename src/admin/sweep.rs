//! The sweep: deletes sessions that are over.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::session::{Store as _, StoreError, Swept};
use crate::store::DirectoryStore;

/// Why something could not be done to a store, or asked of a pool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// There is no such directory. It is not created, as a store would do: more likely its name is mistyped.
    #[error("open session directory {path}")]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// Why it cannot be opened.
        #[source]
        source: io::Error,
    },
    /// No pool answers there.
    #[error("ask the pool at {address} how it is")]
    NoStatus {
        /// Where it was asked.
        address: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// What a pool has answered could not be shown.
    #[error("show the status")]
    Show(#[source] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Deletes the sessions in `directory` that were last used at least `idle` ago; without it, those that are over by
/// their own timeouts. A session that is in use is left as it is. With a `budget` it ends when that time is over, and the
/// next one goes on from there. `None`: another process is sweeping this directory now.
///
/// Meant to run beside any number of processes that serve the same sessions, and as the user that they run as.
///
/// ```no_run
/// # use std::time::Duration;
/// match cloakroom::admin::sweep("/var/lib/counter/sessions", Some(Duration::from_secs(30 * 60)), None)? {
///     Some(swept) => println!("{} are gone, {} remain", swept.deleted, swept.remaining),
///     None => println!("somebody else is at it"),
/// }
/// # Ok::<(), cloakroom::admin::AdminError>(())
/// ```
pub fn sweep(
    directory: impl AsRef<Path>,
    idle: Option<Duration>,
    budget: Option<Duration>,
) -> Result<Option<Swept>, AdminError> {
    let path = directory.as_ref();
    // Opened like a file, as only that is tried again where a signal comes.
    std::fs::File::open(path.join(".")).map_err(|source| AdminError::NoDirectory { path: path.to_owned(), source })?;
    let store = DirectoryStore::at(path);
    store.setup()?;
    Ok(store.sweep(idle, budget)?)
}
