//! SCGI: one request per connection.

use super::activity::Activity;
use super::buffers::Buffers;
use super::stream::Stream;
use crate::host::Host;

/// Serves the one request of an SCGI connection and closes it.
pub(crate) fn serve_scgi(_stream: Stream, _host: &Host, _activity: &dyn Activity, _buffers: &mut Buffers) {}
