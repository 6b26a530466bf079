//! Memory that a worker uses for one connection after the other.

/// How many bytes one read takes at most, and one piece of a streamed message-body.
pub(super) const PIECE: usize = 64 * 1024;

/// What outgrew this is given back after the connection.
const KEPT: usize = 4 * PIECE;

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
}

impl Buffers {
    /// Buffers for one worker.
    pub(crate) fn new() -> Self {
        Self { input: vec![0; 16 * 1024].into(), ..Self::for_script() }
    }

    /// Buffers for a process that serves one request and reads no socket: every page that is not touched is time saved.
    pub(crate) fn for_script() -> Self {
        Self { input: Box::default(), pending: Vec::new(), output: Vec::new(), piece: Vec::new() }
    }

    /// Forgets what was in them, and gives back what one large request made them grow to.
    pub(super) fn clear(&mut self) {
        for buffer in [&mut self.pending, &mut self.output] {
            buffer.clear();
            buffer.shrink_to(KEPT);
        }
    }
}
