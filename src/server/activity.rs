//! What a connection tells the worker that serves it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode};

use super::load::Load;
use super::stream::Stream;
use crate::message::{Clock, MetaVariables};

/// A response that was sent, or as much of it as the client took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Who asked, as far as it is known.
    pub(crate) client: Option<IpAddr>,
    pub(crate) status: StatusCode,
    /// Bytes of the message-body.
    pub(crate) bytes: u64,
}

/// The seam between the connection modules (`scgi`, `http`) and the worker: the worker's scoreboard slot, access
/// counts and wish to stop, without the connections knowing that there is a pool.
pub(crate) trait Activity {
    /// A request has been read, its head at this time; also one that is refused, if it had a head.
    fn received(&self, _meta: &MetaVariables, _since: Instant) {}
    /// The application is about to be called for this request. From here to [`end`](Self::end) the request timeout
    /// runs; reading the request and writing the response are bounded by [`Limits`](crate::gateway::Limits) instead.
    fn begin(&self, method: &Method, path: &str);
    /// Who knows when the request that is about to begin must be answered.
    fn clock(&self) -> Option<Arc<dyn Clock>> {
        None
    }
    /// The application has answered and the session is committed.
    fn end(&self, status: StatusCode);
    /// A request has been answered, also one that was refused and is nobody's [`begin`](Self::begin).
    fn replied(&self, _reply: &Reply) {}
    /// Whether there is somebody to [hand over](Self::hand_over) to.
    fn has_porter(&self) -> bool {
        false
    }
    /// Whether there is room on the disk for what slow clients have still to be sent.
    fn may_store(&self) -> bool {
        true
    }
    /// Hands a connection to whoever waits for slow clients in the worker's place; it is theirs then. False where nobody
    /// takes it: it stays here.
    fn hand_over(&self, _stream: &Stream, _load: &Load<'_>) -> bool {
        false
    }
    /// Whether a persistent connection should be closed after this response: the worker is stopping or recycled.
    fn stopping(&self) -> bool;
}

/// No pool: one process that serves until it is told otherwise.
pub(crate) struct Alone;

impl Activity for Alone {
    fn begin(&self, _method: &Method, _path: &str) {}
    fn end(&self, _status: StatusCode) {}
    fn stopping(&self) -> bool {
        false
    }
}
