//! What an administrator does to a store and asks of a pool: functions that return data, for a tool to show.

mod status;
mod sweep;

pub use status::{StatusForm, status, watch_status};
pub use sweep::{AdminError, sweep};
