//! What an administrator does to a store: functions that return data, for a tool to show.

mod sweep;

pub use sweep::{AdminError, sweep};
