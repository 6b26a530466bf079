//! The worker's side of its deadlines: what the application is told of them, and how it puts them off.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::clock::{millis, now};
use super::scoreboard::Slot;
use crate::host::{Late, SoftTimeoutHook};
use crate::message::Clock;
use crate::sys::deadline::ring_at_soft_deadline;
use crate::sys::log::log;
use crate::sys::process::id;
use crate::sys::signal::Blocked;

/// The time that the request at work has.
pub(super) struct WorkClock {
    pub(super) slot: Slot,
    /// `--request-timeout`.
    pub(super) hard: Option<Duration>,
}

impl Clock for WorkClock {
    fn deadline(&self) -> Option<Instant> {
        let work = self.slot.work()?;
        let due = work.started.saturating_add(work.extension).saturating_add(millis(self.hard?));
        let left = Duration::from_millis(due.saturating_sub(now()));
        Instant::now().checked_add(left)
    }

    fn extend(&self, by: Duration) {
        self.slot.extend(millis(by));
    }
}

/// Starts the thread that calls `hook` when the master says that the request at work takes long. It ends with the
/// process.
pub(super) fn start(slot: Slot, hook: Arc<SoftTimeoutHook>) -> io::Result<()> {
    let bell = ring_at_soft_deadline()?;
    // Signals are the main thread's: a thread starts with those held back that its maker has held back.
    let blocked = Blocked::all();
    thread::Builder::new().name("reminder".to_owned()).stack_size(256 << 10).spawn(move || {
        let mut count = [0; 8];
        while rustix::io::retry_on_intr(|| rustix::io::read(bell, &mut count)).is_ok() {
            // It may have ended since.
            let Some(work) = slot.work().filter(|work| work.number == slot.told()) else { continue };
            let (method, path) = slot.text();
            let age = Duration::from_millis(now().saturating_sub(work.started));
            let late = Late { method, path, age };
            if catch_unwind(AssertUnwindSafe(|| hook(&late))).is_err() {
                log!("pid={} the hook of the soft timeout panicked", id().as_raw_nonzero());
            }
        }
    })?;
    drop(blocked);
    Ok(())
}
