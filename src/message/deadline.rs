//! When a request must be answered. Whoever serves it knows; here it is only asked.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// What a pool knows of the time that the request at work has.
pub(crate) trait Clock: Send + Sync {
    /// When it is over.
    fn deadline(&self) -> Option<Instant>;
    /// Puts that off.
    fn extend(&self, by: Duration);
}

/// The deadline of one request; without a clock there is none.
#[derive(Default)]
pub(crate) struct Deadline(OnceLock<Arc<dyn Clock>>);

impl Deadline {
    /// Sets who knows. Once; a second time changes nothing.
    pub(crate) fn set(&self, clock: Arc<dyn Clock>) {
        let _ = self.0.set(clock);
    }

    pub(super) fn at(&self) -> Option<Instant> {
        self.0.get()?.deadline()
    }

    pub(super) fn extend(&self, by: Duration) {
        if let Some(clock) = self.0.get() {
            clock.extend(by);
        }
    }
}
