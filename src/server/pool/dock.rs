//! The dock: a queue of connections for the porter, from workers that would have to wait for their clients.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::relay::{Parcel, Relay};
use super::scoreboard::{Scoreboard, Slow};
use crate::server::listener::Listener;
use crate::server::load::Load;
use crate::server::stream::Stream;

/// Bytes that all files of requests and responses may have together, more or less: who looks at that looks before it
/// writes.
pub(super) const STORED: u64 = 2 << 30;

/// The queue, in the master and in every process of the pool.
#[derive(Debug)]
pub(super) struct Dock {
    relay: Relay,
    board: Scoreboard,
}

impl Dock {
    pub(super) fn new(relay: Relay, board: Scoreboard) -> Self {
        Self { relay, board }
    }

    /// The queue itself, to be handed on.
    pub(super) fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Whether what is left here is seen to: not where the pool stops, or no porter can be started.
    pub(super) fn is_attended(&self) -> bool {
        !self.board.is_told_to_stop() && self.board.slow(Slow::Missing) == 0
    }

    /// Whether more may be stored for slow clients.
    pub(super) fn has_room(&self) -> bool {
        self.board.slow(Slow::Stored) < STORED
    }

    /// Leaves a connection here; the caller closes its own descriptor. False where that cannot be: the queue is full,
    /// the system counts too many descriptors on their way, or there is no memory.
    pub(super) fn leave(&self, stream: &Stream, listener: usize, load: &Load<'_>) -> bool {
        let left = !self.board.is_stopping() && self.relay.put(stream, listener, false, load).is_ok();
        if left {
            self.board.note_slow(Slow::Handed);
        }
        left
    }

    /// By a porter that leaves: leaves a connection for the next one.
    pub(super) fn put_back(&self, stream: &Stream, listener: usize, load: &Load<'_>) -> Result<(), Errno> {
        self.relay.put(stream, listener, false, load)
    }

    /// By the porter: the next one, see [`Relay::take`].
    pub(super) fn take(&self, listeners: &[Listener]) -> Result<Option<Parcel>, Errno> {
        self.relay.take(listeners)
    }

    /// Whether a connection is here.
    pub(super) fn has_waiting(&self) -> bool {
        self.relay.has_waiting()
    }

    /// Whether a request may still come from a slow client.
    pub(super) fn is_expecting(&self) -> bool {
        // In this order: whoever takes one out says first that it has it.
        self.relay.has_waiting() || self.board.slow(Slow::Receiving) > 0
    }

    /// Where connections are left, to wait for room there.
    pub(super) fn entrance(&self) -> BorrowedFd<'_> {
        self.relay.entrance()
    }
}

/// The end that is readable while a connection is here.
impl AsFd for Dock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.relay.as_fd()
    }
}
