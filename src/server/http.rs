//! HTTP/1.1: any number of requests per connection.

use super::activity::Activity;
use super::buffers::Buffers;
use super::stream::Stream;
use crate::host::Host;

/// What becomes of a connection.
pub(crate) enum Next {
    /// It is closed.
    Close,
    /// It is open and quiet: wait until it is readable, then serve it again, or drop it after
    /// [`Limits::keep_alive_timeout`](crate::gateway::Limits).
    Idle(Stream),
}

/// Serves the requests that have arrived on an HTTP connection.
pub(crate) fn serve_http(stream: Stream, _host: &Host, _activity: &dyn Activity, _buffers: &mut Buffers) -> Next {
    Next::Idle(stream)
}
