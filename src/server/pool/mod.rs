//! The pool: a master that forks workers and replaces them, and workers that serve.
//!
//! The master never touches a store or a random generator, and never reads from a connection: what it does not do
//! cannot go wrong in it. `docs/signals.md` is its manual.

mod attendant;
mod clock;
mod crew;
mod deadlines;
mod dock;
mod handoff;
mod journal;
mod locks;
mod master;
mod notify;
mod parking;
mod porter;
mod relay;
mod reload;
mod reminder;
mod reporter;
mod scoreboard;
mod shelf;
mod staff;
mod sweeper;
mod worker;

use std::time::Duration;

use attendant::Attendant;
use scoreboard::{Desk, Scoreboard};

pub(crate) use handoff::Handoff;
pub(crate) use reload::{Program, rehearse};
pub(crate) use reporter::Reporter;

use super::allow::Allow;
use super::listener::Listener;
use super::options::{AccessLog, AccessLogFormat, Workers};
use crate::host::Host;

/// What the pool is told.
#[derive(Clone, Debug)]
pub(crate) struct PoolOptions {
    pub(crate) workers: Workers,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_requests: u64,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) slow_request: Option<Duration>,
    /// How many workers may hold and wait for one session; `None`: half of them.
    pub(crate) max_per_session: Option<usize>,
    pub(crate) graceful_timeout: Duration,
    /// From where SCGI is taken over TCP.
    pub(crate) allow: Allow,
    /// Where each request is written down, and in which form.
    pub(crate) access_log: Option<(AccessLog, AccessLogFormat)>,
    /// What this process becomes at a reload.
    pub(crate) program: Program,
    pub(crate) sweep_every: Option<Duration>,
}

/// Whether a worker could open the access log. A file that is missing is made, as a worker would.
pub(crate) fn try_access_log(log: &AccessLog) -> std::io::Result<()> {
    journal::Journal::open(log, AccessLogFormat::default()).map(drop)
}

/// Serves until a signal says otherwise; returns the master's exit status. `handoff` is what the program has left that
/// this process was before.
///
/// # Errors
/// Where the system has no room for a pool at all: no pipe, no shared memory, no process.
pub(crate) fn run(
    host: &Host,
    listeners: &mut [Listener],
    mut reporter: Reporter,
    options: &PoolOptions,
    handoff: Option<Handoff>,
) -> std::io::Result<u8> {
    let result = master::run(host, listeners, &mut reporter, options, handoff);
    reporter.close();
    for listener in listeners {
        listener.remove_file();
    }
    result
}

/// Serves in this process, without workers: until it ends.
///
/// # Errors
/// Where the store cannot be set up, or the system has no room for an epoll.
pub(crate) fn serve_alone(host: &Host, listener: Listener) -> std::io::Result<()> {
    if let Some(store) = host.store() {
        store.setup().map_err(std::io::Error::other)?;
    }
    let board = Scoreboard::new(1)?;
    let desk = Desk::new(board.slot(0), u64::MAX - 1, None, None);
    let listeners = [listener];
    Attendant::new(host, &listeners, None, desk, board, None, None)?.serve(Duration::MAX);
    Ok(())
}
