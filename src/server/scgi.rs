//! SCGI: one request per connection.

use std::io;
use std::time::Instant;

use super::activity::Activity;
use super::body::{Collector, Pace};
use super::buffers::Buffers;
use super::exchange::{Application, answer, linger, refusal};
use super::reply::{self, ReplyError};
use super::stream::Stream;
use crate::gateway::{Front, GatewayError, Limits, scgi};
use crate::host::Host;
use crate::message::{Body, MetaVariables};

/// Serves the one request of an SCGI connection and closes it.
pub(crate) fn serve_scgi(stream: Stream, host: &Host, activity: &dyn Activity, buffers: &mut Buffers) {
    serve(stream, host, activity, buffers);
    buffers.clear();
}

/// A request that was read whole.
struct Received {
    meta: MetaVariables,
    body: Body,
    /// When its head was there.
    since: Instant,
    /// Bytes came that belong to nothing.
    surplus: bool,
}

fn serve(stream: Stream, application: &dyn Application, activity: &dyn Activity, buffers: &mut Buffers) {
    let limits = application.limits();
    let received = match receive(&stream, limits, activity, buffers) {
        Ok(Some(received)) => received,
        Ok(None) => return,
        Err(error) => return refuse(stream, &error, limits, activity, buffers),
    };
    let (parts, response) =
        match answer(received.meta, received.body, Front::Scgi, received.since, application, activity) {
            Ok(answer) => answer,
            Err(error) => return refuse(stream, &error, limits, activity, buffers),
        };
    let result = reply::cgi(&mut stream.writer(limits.write_timeout), response, parts.as_deref(), buffers);
    // The peer is the front server.
    activity.replied(&buffers.sent.to(parts.and_then(|parts| parts.client_address)));
    match result {
        Ok(()) if received.surplus => linger(stream, limits, buffers),
        Ok(()) | Err(ReplyError::Write(_) | ReplyError::Body { announced: true }) => {}
        // A front server would take the end of the connection for the end of the page.
        Err(ReplyError::Body { announced: false }) => stream.abort(),
    }
}

/// Reads the request. `None` where the client went, or never said a word.
fn receive(
    stream: &Stream,
    limits: &Limits,
    activity: &dyn Activity,
    buffers: &mut Buffers,
) -> Result<Option<Received>, GatewayError> {
    let deadline = Instant::now() + limits.head_timeout;
    let mut reader = scgi::HeadReader::new(limits);
    let mut is_first = true;
    let (head, rest) = loop {
        let n = match stream.read(&mut buffers.input, deadline) {
            Ok(0) if is_first => return Ok(None),
            Ok(0) => return Err(GatewayError::Malformed("connection ends within the head")),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::TimedOut && !is_first => {
                return Err(GatewayError::Timeout("request head"));
            }
            Err(_) => return Ok(None),
        };
        is_first = false;
        if let Some((head, used)) = reader.feed(&buffers.input[..n])? {
            break (head, used..n);
        }
    };
    activity.received(&head.meta);
    let length = head.content_length;
    let mut collector = Collector::new(Some(length), limits.body)?;
    let mut rest = &buffers.input[rest];
    let pace = Pace::new();
    loop {
        let missing = usize::try_from(length - collector.length()).unwrap_or(usize::MAX);
        collector.push(&rest[..rest.len().min(missing)])?;
        if collector.length() == length {
            let surplus = rest.len() > missing;
            return Ok(Some(Received { meta: head.meta, body: collector.finish()?, since: pace.started(), surplus }));
        }
        let n = match stream.read(&mut buffers.input, pace.deadline(limits, collector.length())) {
            Ok(0) => return Err(GatewayError::Malformed("connection ends within the message-body")),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(GatewayError::Timeout("message-body")),
            Err(_) => return Ok(None),
        };
        rest = &buffers.input[..n];
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
