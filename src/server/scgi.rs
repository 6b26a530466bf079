//! SCGI: one request per connection.

use super::activity::Activity;
use super::buffers::Buffers;
use super::exchange::{Application, answer, linger, refusal};
use super::http::receive;
use super::reception::{Received, Reception, Refusal, Unserved};
use super::reply::{self, ReplyError};
use super::stream::Stream;
use crate::gateway::{Front, GatewayError, Limits};
use crate::host::Host;

/// Serves the one request of an SCGI connection and closes it.
pub(crate) fn serve_scgi(stream: Stream, host: &Host, activity: &dyn Activity, buffers: &mut Buffers) {
    serve(stream, host, activity, buffers);
    buffers.clear();
}

fn serve(stream: Stream, application: &dyn Application, activity: &dyn Activity, buffers: &mut Buffers) {
    buffers.pending.clear();
    let limits = application.limits();
    let received = match receive(&stream, &mut Reception::scgi(limits), limits, buffers) {
        Ok(received) => received,
        Err(Unserved::Gone) => return,
        Err(Unserved::Refused(Refusal { error, head, .. })) => {
            head.inspect(|(meta, since)| activity.received(meta, *since));
            return refuse(stream, &error, limits, activity, buffers);
        }
    };
    let Received { meta, body, since, .. } = received;
    activity.received(&meta, since);
    let (parts, response) = match answer(meta, body, Front::Scgi, since, application, activity) {
        Ok(answer) => answer,
        Err(error) => return refuse(stream, &error, limits, activity, buffers),
    };
    let result = reply::cgi(&mut stream.writer(limits.write_timeout), response, parts.as_deref(), buffers);
    // The peer is the front server.
    activity.replied(&buffers.sent.to(parts.and_then(|parts| parts.client_address)));
    match result {
        // Bytes came that belong to nothing.
        Ok(()) if !buffers.pending.is_empty() => linger(stream, limits, buffers),
        Ok(()) | Err(ReplyError::Write(_) | ReplyError::Body { announced: true }) => {}
        // A front server would take the end of the connection for the end of the page.
        Err(ReplyError::Body { announced: false }) => stream.abort(),
    }
}

fn refuse(stream: Stream, error: &GatewayError, limits: &Limits, activity: &dyn Activity, buffers: &mut Buffers) {
    let response = refusal("scgi", error);
    let result = reply::cgi(&mut stream.writer(limits.write_timeout), response, None, buffers);
    activity.replied(&buffers.sent.to(None));
    if result.is_ok() {
        linger(stream, limits, buffers);
    }
}

#[cfg(test)]
mod tests;
