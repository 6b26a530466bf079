//! A worker: one process that serves one request at a time until it is told to leave.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::PoolOptions;
use super::attendant::Attendant;
use super::dock::Dock;
use super::journal::Journal;
use super::locks::Locks;
use super::reminder::{self, WorkClock};
use super::scoreboard::{Desk, Scoreboard, Slot};
use super::shelf::Shelf;
use crate::host::Host;
use crate::server::listener::Listener;
use crate::session::StoreError;
use crate::sys::log::log;
use crate::sys::process::{id, signal_when_parent_dies};
use crate::sys::signal::{Action, Blocked, Signal, Signals, leave_within};

/// What a worker exits with when it could not be made ready, and trying again may help.
pub(super) const EXIT_BOOT: i32 = 3;
/// The same where somebody has to change the configuration.
pub(super) const EXIT_BOOT_CONFIGURATION: i32 = 5;

/// What a worker needs, as it was in the master when it forked.
pub(super) struct Setting<'a> {
    pub(super) host: &'a Host,
    pub(super) listeners: &'a [Listener],
    pub(super) board: Scoreboard,
    pub(super) shelf: &'a Arc<Shelf>,
    pub(super) dock: &'a Arc<Dock>,
    pub(super) number: usize,
    pub(super) master: rustix::process::Pid,
    /// One byte goes here when the worker is ready.
    pub(super) ready: &'a OwnedFd,
    pub(super) options: &'a PoolOptions,
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(super) struct Failure {
    error: crate::error::Error,
    /// Trying again cannot help: somebody has to change the configuration.
    pub(super) lasting: bool,
}

/// Prepares what a worker needs before it serves.
pub(super) fn set_up(host: &Host) -> Result<(), Failure> {
    let Some(store) = host.store() else { return Ok(()) };
    store.setup().map_err(|error| {
        let lasting = matches!(error, StoreError::Untrusted { .. } | StoreError::Unsuitable { .. });
        Failure { error: error.into(), lasting }
    })
}

/// The life of a worker; returns its exit status. `blocked` holds signals back until there are handlers for them.
pub(super) fn run(setting: &Setting<'_>, blocked: Blocked) -> i32 {
    let slot = setting.board.slot(setting.number);
    let signals = match prepare(setting, slot) {
        Ok(Some(signals)) => signals,
        // The master died while it forked.
        Ok(None) => return 0,
        Err(error) => {
            refuse(setting, slot, &error);
            // The handlers may still be the master's, and write to its pipe: what is held back stays so to the end.
            std::mem::forget(blocked);
            return EXIT_BOOT;
        }
    };
    drop(blocked);
    if let Err(failure) = set_up(setting.host) {
        refuse(setting, slot, &failure.error);
        return if failure.lasting { EXIT_BOOT_CONFIGURATION } else { EXIT_BOOT };
    }
    let options = setting.options;
    setting.host.set_witness(Arc::new(Locks::new(setting.board, setting.number, options.max_per_session)));
    let clock = Arc::new(WorkClock { slot, hard: options.request_timeout });
    let mut desk = Desk::new(slot, request_limit(options.max_requests), options.slow_request, Some(clock));
    desk.use_dock(Arc::clone(setting.dock));
    if let Some((log, format)) = &options.access_log {
        match Journal::open(log, *format) {
            Ok(journal) => desk.keep_journal(journal, setting.board.salt()),
            Err(error) => {
                refuse(setting, slot, &crate::error::Error::message(format!("open access log {log}: {error}")));
                return EXIT_BOOT_CONFIGURATION;
            }
        }
    }
    let shelf = Some(Arc::clone(setting.shelf));
    let master = Some((&signals, setting.ready));
    let allow = Some(options.allow.clone());
    let attendant = Attendant::new(setting.host, setting.listeners, allow, desk, setting.board, master, shelf);
    let mut attendant = match attendant {
        Ok(attendant) => attendant,
        Err(error) => {
            refuse(setting, slot, &error.into());
            return EXIT_BOOT;
        }
    };
    if options.soft_timeout.is_some()
        && let Some(hook) = setting.host.soft_timeout_hook()
        && let Err(error) = reminder::start(slot, Arc::clone(hook))
    {
        refuse(setting, slot, &error.into());
        return EXIT_BOOT;
    }
    slot.set_ready();
    // A full pipe wakes the master as well as one byte more would.
    let _ = rustix::io::write(setting.ready, b".");
    attendant.serve(options.graceful_timeout);
    0
}

/// Says why this worker cannot start, in the log and on the scoreboard.
fn refuse(setting: &Setting<'_>, slot: Slot, error: &crate::error::Error) {
    log!("worker={} pid={} cannot start: {error}", setting.number, id().as_raw_nonzero());
    slot.set_reason(&error.to_string());
}

/// Takes leave of the master's signals and makes sure that this process ends when it should.
fn prepare(setting: &Setting<'_>, slot: Slot) -> Result<Option<Signals>, crate::error::Error> {
    slot.set_pid(u64::from(id().as_raw_nonzero().get().cast_unsigned()));
    slot.deadline().watch();
    let signals = Signals::install(&[
        (Signal::TERM, Action::Leave),
        (Signal::QUIT, Action::Leave),
        (Signal::USR2, Action::GiveUp),
        // Ctrl-C reaches the whole foreground group: the master's INT means the same.
        (Signal::INT, Action::Default),
        (Signal::CHILD, Action::Default),
        // For the master only; a terminal or a careless script may send them to all.
        (Signal::HUP, Action::Nothing),
        (Signal::USR1, Action::Reopen),
        (Signal::TTIN, Action::Nothing),
        (Signal::TTOU, Action::Nothing),
        (Signal::PIPE, Action::Ignore),
    ])?;
    // A little later than the master would kill it: this is for the time after the master. Without a timer to be had
    // (RLIMIT_SIGPENDING) it is the application's patience alone that counts then.
    let _ = leave_within(setting.options.graceful_timeout.saturating_add(Duration::from_secs(2)));
    Ok(signal_when_parent_dies(setting.master, Signal::TERM).then_some(signals))
}

/// How many requests a worker serves: up to a tenth more than asked for, so that not all workers leave together. The
/// process ID is random enough for that.
fn request_limit(max_requests: u64) -> u64 {
    if max_requests == 0 {
        return u64::MAX - 1;
    }
    let pid = u64::from(id().as_raw_nonzero().get().cast_unsigned());
    let spread = max_requests / 10 + 1;
    max_requests.saturating_add(pid.wrapping_mul(0x9e37_79b9_7f4a_7c15) % spread)
}

#[cfg(test)]
mod tests {
    use super::request_limit;

    #[test]
    fn the_request_limit_varies_by_a_tenth() {
        assert_eq!(request_limit(1), 1);
        assert!((100..=110).contains(&request_limit(100)));
        assert!(request_limit(0) > 1 << 60);
        assert!(request_limit(u64::MAX) > 1 << 60);
    }
}
