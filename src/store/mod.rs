//! Stores: where sessions are kept. Each passes the contract suite of [`Store`](crate::session::Store).

#[cfg(test)]
mod contract;
mod directory;
mod memory;

pub use directory::{DirectoryStore, Durability};
pub use memory::MemoryStore;
