//! Guides. Each is a page of its own; the texts are in `src/docs` of the repository.

#[doc = include_str!("deploy.md")]
pub mod deploy {}
#[doc = include_str!("file-format.md")]
pub mod file_format {}
#[doc = include_str!("fork-safety.md")]
pub mod fork_safety {}
#[doc = include_str!("performance.md")]
pub mod performance {}
#[doc = include_str!("reliability.md")]
pub mod reliability {}
#[doc = include_str!("signals.md")]
pub mod signals {}
#[doc = include_str!("status.md")]
pub mod status {}
#[doc = include_str!("threat-model.md")]
pub mod threat_model {}
