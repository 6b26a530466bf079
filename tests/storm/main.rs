//! Storms: pools whose workers are killed all the time, and a soak, which is everything at once for a long time. Whatever
//! happens to workers, what was acknowledged is there, nobody waits, and nothing is left over.
//!
//! `CLOAKROOM_STORM` and `CLOAKROOM_SOAK` say for how many seconds they go on: `tests/storm/run` and `tests/soak`. What was
//! done is printed, whatever becomes of it. Tests take turns, so that each has the machine to itself.
#![allow(missing_docs, unreachable_pub)]

mod book;
mod coat;
mod crash;
mod edge;
mod kills;
mod soak;
mod storm;
#[path = "../support/mod.rs"]
mod support;
mod visits;

/// For how long a test goes on.
fn seconds(variable: &str, otherwise: u64) -> std::time::Duration {
    let seconds = std::env::var(variable).ok().map(|seconds| seconds.parse().expect("a number of seconds"));
    std::time::Duration::from_secs(seconds.unwrap_or(otherwise))
}

/// Numbers that are random enough, the same for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}
