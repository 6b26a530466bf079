//! The pool's clock: one that never jumps and stands still while the machine is suspended, the same in all processes.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time in milliseconds.
pub(super) fn now() -> u64 {
    now_micros() / 1000
}

/// The time in microseconds.
pub(super) fn now_micros() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_nsec.cast_unsigned() / 1000
}

/// `time` in milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds as the log writes them: in seconds.
pub(super) fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}
