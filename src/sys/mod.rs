//! The operating system: the only room with `unsafe` code.
//!
//! Each module wraps one thing that has no safe wrapper elsewhere. It knows nothing of sessions, messages or pools.

pub(crate) mod deadline;
pub(crate) mod descriptor;
pub(crate) mod environment;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod process;
pub(crate) mod pulse;
pub(crate) mod queue;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod start;
pub(crate) mod user;
