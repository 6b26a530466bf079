//! Stores: where sessions are kept. Each passes the contract suite of [`Store`](crate::session::Store).

#[cfg(test)]
mod contract;
mod directory;
mod memory;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use directory::check_session_file;
pub use directory::{DirectoryStore, Durability};
pub use memory::MemoryStore;
