//! Closing a connection so that the other side still reads what it was sent.
//!
//! A socket that is closed with unread bytes answers with a reset, and a reset discards the response. So the end is sent,
//! and what still comes is read and forgotten, for a while.

use std::io;
use std::time::{Duration, Instant};

use super::activity::Activity;
use super::buffers::Buffers;
use super::load::{Cargo, Errand, Load};
use super::patience::{Patience, Waited};
use super::stream::Stream;
use super::wire::{Page, Pen};
use crate::gateway::Limits;

/// How long, and for how many bytes, a client that was refused is listened to.
const TIME: Duration = Duration::from_secs(5);
pub(super) const BYTES: u64 = 64 << 20;

/// How often it reads before it lets others have their turn.
const READS: u32 = 64;

/// A connection that is being closed.
#[derive(Debug)]
pub(super) struct Lingering {
    pub(super) deadline: Instant,
    bytes: u64,
}

impl Lingering {
    /// Sends the end. `None` where the other side is gone.
    pub(super) fn begin(stream: &Stream, limits: &Limits) -> Option<Self> {
        let deadline = Instant::now() + TIME.min(limits.body_timeout);
        stream.shut().is_ok().then_some(Self { deadline, bytes: BYTES })
    }

    /// Reads what is there. Returns whether there may be more.
    pub(super) fn advance(&mut self, stream: &Stream, input: &mut [u8]) -> bool {
        for _ in 0..READS {
            match stream.read_now(input) {
                Ok(n) if n > 0 && self.bytes > n as u64 => self.bytes -= n as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => return false,
            }
        }
        Instant::now() < self.deadline
    }

    /// What another process needs to go on with it.
    pub(super) fn load(&self) -> Load<'static> {
        let left = self.deadline.saturating_duration_since(Instant::now()).as_micros();
        let state = Pen::default().number(u64::try_from(left).unwrap_or(0)).number(self.bytes).finish();
        Load { errand: Errand::Linger, state, descriptors: Vec::new() }
    }

    /// Goes on with one that came from another process.
    pub(super) fn of_cargo(cargo: &Cargo) -> Option<Self> {
        let mut page = Page(&cargo.state);
        let deadline = Instant::now().checked_add(Duration::from_micros(page.number()?))?;
        Some(Self { deadline, bytes: page.number()? })
    }
}

/// Closes a connection on which something was not read.
pub(super) fn linger(stream: &Stream, limits: &Limits, activity: &dyn Activity, buffers: &mut Buffers) {
    let Some(mut lingering) = Lingering::begin(stream, limits) else { return };
    let mut patience = Patience::new(activity);
    while lingering.advance(stream, &mut buffers.input) {
        match patience.wait(|until| stream.wait_readable(until)) {
            Waited::Ready => {}
            Waited::Slow if activity.hand_over(stream, &lingering.load()) => return,
            Waited::Slow => patience.refuse(),
            Waited::Alone => _ = stream.wait_readable(lingering.deadline),
        }
    }
}
