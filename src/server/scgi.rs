//! SCGI: one request per connection.

use std::io;

use super::activity::Activity;
use super::buffers::Buffers;
use super::departure::Departure;
use super::exchange::{Application, answer, refusal};
use super::feed::End;
use super::linger::linger;
use super::reception::{Begun, Received, Reception, Refusal, Unserved, receive};
use super::reply::{self, ReplyError};
use super::stream::Stream;
use crate::gateway::{Front, GatewayError, Limits};
use crate::host::Host;

/// Serves the one request of an SCGI connection and closes it. `begun` is one that somebody else has begun to read.
pub(crate) fn serve_scgi(
    stream: Stream,
    begun: Option<Begun>,
    host: &Host,
    activity: &dyn Activity,
    buffers: &mut Buffers,
) {
    serve(stream, begun, host, activity, buffers);
    buffers.clear();
}

fn serve(
    stream: Stream,
    begun: Option<Begun>,
    application: &dyn Application,
    activity: &dyn Activity,
    buffers: &mut Buffers,
) {
    buffers.pending.clear();
    let limits = application.limits();
    let begun = begun.map(|begun| begun.go_on(&mut buffers.pending));
    let mut reception = begun.unwrap_or_else(|| Reception::scgi(limits));
    let received = match receive(&stream, &mut reception, limits, activity, buffers) {
        Ok(received) => received,
        Err(Unserved::Gone | Unserved::HandedOver) => return,
        Err(Unserved::Refused(Refusal { error, head, .. })) => {
            head.inspect(|(meta, since)| activity.received(meta, *since));
            return refuse(&stream, &error, limits, activity, buffers);
        }
    };
    let Received { meta, body, since, .. } = received;
    activity.received(&meta, since);
    let (parts, response) = match answer(meta, body, Front::Scgi, since, application, activity) {
        Ok(answer) => answer,
        Err(error) => return refuse(&stream, &error, limits, activity, buffers),
    };
    let mut departure = Departure::new(&stream, limits.write_timeout, activity);
    let result = reply::cgi(&mut departure, response, parts.as_deref(), buffers);
    // The peer is the front server.
    activity.replied(&buffers.sent.to(parts.and_then(|parts| parts.client_address)));
    let end = match result {
        // Bytes came that belong to nothing.
        Ok(()) if !buffers.pending.is_empty() => End::Linger,
        Ok(()) | Err(ReplyError::Write(_) | ReplyError::Body { announced: true }) => End::Close,
        // A front server would take the end of the connection for the end of the page.
        Err(ReplyError::Body { announced: false }) => End::Abort,
    };
    if departure.end(end, &mut buffers.pending) {
        return;
    }
    match end {
        End::Linger => linger(&stream, limits, activity, buffers),
        End::Abort => stream.abort(),
        End::Close | End::Keep => {}
    }
}

fn refuse(stream: &Stream, error: &GatewayError, limits: &Limits, activity: &dyn Activity, buffers: &mut Buffers) {
    let mut departure = Departure::new(stream, limits.write_timeout, activity);
    let result = refuse_to(&mut departure, error, buffers);
    activity.replied(&buffers.sent.to(None));
    let end = if result.is_ok() { End::Linger } else { End::Close };
    if !departure.end(end, &mut buffers.pending) && result.is_ok() {
        linger(stream, limits, activity, buffers);
    }
}

/// Says why a request is refused.
pub(super) fn refuse_to(
    sink: &mut dyn io::Write,
    error: &GatewayError,
    buffers: &mut Buffers,
) -> Result<(), ReplyError> {
    reply::cgi(sink, refusal("scgi", error), None, buffers)
}

#[cfg(test)]
mod tests;
