//! Memory that a worker uses for one connection after the other.

use std::net::IpAddr;

use http::StatusCode;

use super::activity::Reply;

/// How many bytes one read takes at most, and one piece of a streamed message-body.
pub(super) const PIECE: usize = 64 * 1024;

/// What outgrew this is given back after the connection.
const KEPT: usize = 4 * PIECE;

/// What was last sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) status: StatusCode,
    /// Bytes of the message-body that the other side took.
    pub(super) bytes: u64,
}

impl Sent {
    /// Who it was sent to.
    pub(super) fn to(self, client: Option<IpAddr>) -> Reply {
        Reply { client, status: self.status, bytes: self.bytes }
    }
}

/// Buffers of one worker, used for one connection after the other. Nothing in them outlives the request that it was
/// read for.
pub(crate) struct Buffers {
    /// What one recv takes.
    pub(super) input: Box<[u8]>,
    /// Bytes of an HTTP connection that are not used up yet.
    pub(super) pending: Vec<u8>,
    /// A response head and the first of its message-body.
    pub(super) output: Vec<u8>,
    /// A piece of a streamed message-body; empty until the first one.
    pub(super) piece: Vec<u8>,
    pub(super) sent: Sent,
}

impl Buffers {
    /// Buffers for one worker.
    pub(crate) fn new() -> Self {
        Self { input: vec![0; 16 * 1024].into(), ..Self::for_script() }
    }

    /// Buffers for a process that serves one request and reads no socket: every page that is not touched is time saved.
    pub(crate) fn for_script() -> Self {
        Self {
            input: Box::default(),
            pending: Vec::new(),
            output: Vec::new(),
            piece: Vec::new(),
            sent: Sent::default(),
        }
    }

    /// Forgets what was in them, and gives back what one large request made them grow to.
    pub(super) fn clear(&mut self) {
        for buffer in [&mut self.pending, &mut self.output] {
            buffer.clear();
            buffer.shrink_to(KEPT);
        }
    }
}
