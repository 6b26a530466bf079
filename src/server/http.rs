//! HTTP/1.1: any number of requests per connection.

use std::io;
use std::net::IpAddr;

use super::activity::Activity;
use super::buffers::Buffers;
use super::departure::Departure;
use super::exchange::{Application, answer, refusal};
use super::feed::End;
use super::linger::linger;
use super::reception::{Begun, Received, Reception, Refusal, Unserved, receive};
use super::reply::{self, ReplyError};
use super::stream::Stream;
use crate::gateway::http1::Exchange;
use crate::gateway::{Front, GatewayError, Limits};
use crate::host::Host;
use crate::message::RequestParts;

/// Requests of one connection that are served in a row. A client that always has another one there must not keep the
/// worker from its listeners.
const IN_A_ROW: u32 = 1000;

/// What becomes of a connection.
pub(crate) enum Next {
    /// It is closed.
    Close,
    /// It is open and quiet: wait until it is readable, then serve it again, or drop it after
    /// [`Limits::keep_alive_timeout`](crate::gateway::Limits). Nothing was read that is not answered.
    Idle(Stream),
}

/// Serves the request that has arrived on an HTTP connection, and those that came along with it. It never waits for a
/// request to begin: a connection on which nothing has arrived, also a new one, is [`Next::Idle`]. A worker that stops
/// may close one that was served before; the request of a new one may be on its way.
///
/// `begun` is a request that somebody else has begun to read.
pub(crate) fn serve_http(
    stream: Stream,
    begun: Option<Begun>,
    host: &Host,
    activity: &dyn Activity,
    buffers: &mut Buffers,
) -> Next {
    serve(stream, begun, host, activity, buffers)
}

/// How one request left the connection.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Open,
    Quiet,
    Closed,
    /// To be closed, but with a client that may still be sending.
    Unread,
    /// To be closed so that the other side sees a failure.
    Broken,
}

/// The same for anything that answers.
pub(super) fn serve(
    stream: Stream,
    begun: Option<Begun>,
    application: &dyn Application,
    activity: &dyn Activity,
    buffers: &mut Buffers,
) -> Next {
    buffers.clear();
    let mut begun = begun.map(|begun| begun.go_on(&mut buffers.pending));
    let mut in_a_row = 0;
    let next = loop {
        in_a_row += 1;
        match serve_one(&stream, begun.take(), application, activity, in_a_row == IN_A_ROW, buffers) {
            // Hardly anybody is that quick, so it is not looked whether more is there; whoever stops looks once more.
            Left::Open if buffers.pending.is_empty() && !activity.stopping() => break Next::Idle(stream),
            Left::Open => {}
            Left::Quiet => break Next::Idle(stream),
            Left::Closed => break Next::Close,
            Left::Unread => {
                linger(&stream, application.limits(), activity, buffers);
                break Next::Close;
            }
            Left::Broken => {
                stream.abort();
                break Next::Close;
            }
        }
    };
    buffers.clear();
    next
}

fn serve_one(
    stream: &Stream,
    begun: Option<Reception>,
    application: &dyn Application,
    activity: &dyn Activity,
    is_last: bool,
    buffers: &mut Buffers,
) -> Left {
    if begun.is_none() && buffers.pending.is_empty() {
        match stream.read_now(&mut buffers.input) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Left::Quiet,
            Ok(0) | Err(_) => return Left::Closed,
            // Old clients send it after a form; it is not the beginning of anything.
            Ok(2) if buffers.input.starts_with(b"\r\n") => return Left::Quiet,
            Ok(n) => buffers.pending.extend_from_slice(&buffers.input[..n]),
        }
    }
    let limits = application.limits();
    let mut reception = begun.unwrap_or_else(|| Reception::http(limits));
    let received = match receive(stream, &mut reception, limits, activity, buffers) {
        Ok(received) => received,
        Err(Unserved::Gone | Unserved::HandedOver) => return Left::Closed,
        Err(Unserved::Refused(Refusal { error, exchange, head })) => {
            head.inspect(|(meta, since)| activity.received(meta, *since));
            return refuse(stream, &error, exchange, limits, activity, buffers);
        }
    };
    let Received { meta, body, mut exchange, since } = received;
    activity.received(&meta, since);
    let (parts, response) = match answer(meta, body, Front::Http, since, application, activity) {
        Ok(answer) => answer,
        Err(error) => return refuse(stream, &error, exchange, limits, activity, buffers),
    };
    exchange.keep_alive &= !is_last && !activity.stopping();
    let mut departure = Departure::new(stream, limits.write_timeout, activity);
    let result = reply::http(&mut departure, response, parts.as_deref(), exchange, buffers);
    activity.replied(&buffers.sent.to(client(parts.as_deref(), stream)));
    let end = match result {
        Ok(true) => End::Keep,
        Ok(false) if !buffers.pending.is_empty() => End::Linger,
        Ok(false) | Err(ReplyError::Write(_) | ReplyError::Body { announced: true }) => End::Close,
        Err(ReplyError::Body { announced: false }) => End::Abort,
    };
    let is_whole = result.is_ok();
    if departure.end(end, &mut buffers.pending) {
        return Left::Closed;
    }
    match end {
        End::Keep => Left::Open,
        End::Linger => Left::Unread,
        End::Abort => Left::Broken,
        // The client may have sent another request before it read that this one was the last.
        End::Close if is_whole && stream.read_now(&mut buffers.input).is_ok_and(|n| n > 0) => Left::Unread,
        End::Close => Left::Closed,
    }
}

/// Who asked, as far as it is known.
fn client(parts: Option<&RequestParts>, stream: &Stream) -> Option<IpAddr> {
    match parts {
        Some(parts) => parts.client_address,
        None => stream.peer().map(|peer| peer.ip()),
    }
}

fn refuse(
    stream: &Stream,
    error: &GatewayError,
    exchange: Exchange,
    limits: &Limits,
    activity: &dyn Activity,
    buffers: &mut Buffers,
) -> Left {
    let mut departure = Departure::new(stream, limits.write_timeout, activity);
    let result = refuse_to(&mut departure, error, exchange, buffers);
    activity.replied(&buffers.sent.to(client(None, stream)));
    let end = if result.is_ok() { End::Linger } else { End::Close };
    let is_away = departure.end(end, &mut buffers.pending);
    if is_away || result.is_err() { Left::Closed } else { Left::Unread }
}

/// Says why a request is refused, and that the connection is closed.
pub(super) fn refuse_to(
    sink: &mut dyn io::Write,
    error: &GatewayError,
    exchange: Exchange,
    buffers: &mut Buffers,
) -> Result<(), ReplyError> {
    let exchange = Exchange { keep_alive: false, ..exchange };
    reply::http(sink, refusal("http", error), None, exchange, buffers).map(drop)
}

#[cfg(test)]
mod tests;
