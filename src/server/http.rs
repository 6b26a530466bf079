//! HTTP/1.1: any number of requests per connection.

use std::io;
use std::net::IpAddr;

use super::activity::Activity;
use super::buffers::Buffers;
use super::exchange::{Application, answer, linger, refusal};
use super::reception::{Received, Reception, Refusal, Step, Unserved};
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

/// Serves the requests that have arrived on an HTTP connection. It never waits for a request to begin: a connection
/// on which nothing has arrived, also a new one, is [`Next::Idle`]. A worker that stops may close one that was served
/// before; the request of a new one may be on its way.
pub(crate) fn serve_http(stream: Stream, host: &Host, activity: &dyn Activity, buffers: &mut Buffers) -> Next {
    serve(stream, host, activity, buffers)
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
    application: &dyn Application,
    activity: &dyn Activity,
    buffers: &mut Buffers,
) -> Next {
    buffers.clear();
    let mut in_a_row = 0;
    let next = loop {
        in_a_row += 1;
        match serve_one(&stream, application, activity, in_a_row == IN_A_ROW, buffers) {
            Left::Open => {}
            Left::Quiet => break Next::Idle(stream),
            Left::Closed => break Next::Close,
            Left::Unread => {
                linger(stream, application.limits(), buffers);
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
    application: &dyn Application,
    activity: &dyn Activity,
    is_last: bool,
    buffers: &mut Buffers,
) -> Left {
    if buffers.pending.is_empty() {
        match stream.read_now(&mut buffers.input) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Left::Quiet,
            Ok(0) | Err(_) => return Left::Closed,
            // Old clients send it after a form; it is not the beginning of anything.
            Ok(2) if buffers.input.starts_with(b"\r\n") => return Left::Quiet,
            Ok(n) => buffers.pending.extend_from_slice(&buffers.input[..n]),
        }
    }
    let limits = application.limits();
    let received = match receive(stream, &mut Reception::http(limits), limits, buffers) {
        Ok(received) => received,
        Err(Unserved::Gone) => return Left::Closed,
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
    let mut writer = stream.writer(limits.write_timeout);
    let result = reply::http(&mut writer, response, parts.as_deref(), exchange, buffers);
    activity.replied(&buffers.sent.to(client(parts.as_deref(), stream)));
    match result {
        Ok(true) => Left::Open,
        Ok(false) if !buffers.pending.is_empty() => Left::Unread,
        // The client may have sent another request before it read that this one was the last.
        Ok(false) => match stream.read_now(&mut buffers.input) {
            Ok(n) if n > 0 => Left::Unread,
            _ => Left::Closed,
        },
        Err(ReplyError::Write(_) | ReplyError::Body { announced: true }) => Left::Closed,
        Err(ReplyError::Body { announced: false }) => Left::Broken,
    }
}

/// Who asked, as far as it is known.
fn client(parts: Option<&RequestParts>, stream: &Stream) -> Option<IpAddr> {
    match parts {
        Some(parts) => parts.client_address,
        None => stream.peer().map(|peer| peer.ip()),
    }
}

/// Reads one request, of which some bytes may be in `buffers.pending`; what follows it is left there.
pub(super) fn receive(
    stream: &Stream,
    reception: &mut Reception,
    limits: &Limits,
    buffers: &mut Buffers,
) -> Result<Received, Unserved> {
    loop {
        match reception.advance(stream, limits, &mut buffers.input, &mut buffers.pending) {
            Step::Complete(received) => return Ok(received),
            // It is asked again also where nothing came: then it is refused.
            Step::Wait(until) => _ = stream.wait_readable(until),
            Step::Again => {}
            Step::Unserved(unserved) => return Err(unserved),
        }
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
    let response = refusal("http", error);
    let exchange = Exchange { keep_alive: false, ..exchange };
    let result = reply::http(&mut stream.writer(limits.write_timeout), response, None, exchange, buffers);
    activity.replied(&buffers.sent.to(client(None, stream)));
    match result {
        Ok(_) => Left::Unread,
        Err(_) => Left::Closed,
    }
}

#[cfg(test)]
mod tests;
