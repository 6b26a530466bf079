//! HTTP/1.1: any number of requests per connection.

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use super::activity::Activity;
use super::body::{Collector, Pace};
use super::buffers::Buffers;
use super::exchange::{Application, answer, linger, refusal};
use super::reply::{self, ReplyError};
use super::stream::Stream;
use crate::gateway::http1::chunked::{Decoder, Piece};
use crate::gateway::http1::{self, CONTINUE, Ends, Exchange, Framing, Head, HeadScanner};
use crate::gateway::{Front, GatewayError, Limits};
use crate::host::Host;
use crate::message::{Body, RequestParts};

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

/// A request that was not read: refused, or its client went.
enum Unserved {
    Refused(GatewayError, Exchange),
    Gone,
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
    let (head, body, since) = match receive(stream, limits, activity, buffers) {
        Ok(received) => received,
        Err(Unserved::Gone) => return Left::Closed,
        Err(Unserved::Refused(error, exchange)) => return refuse(stream, &error, exchange, limits, activity, buffers),
    };
    let mut exchange = head.exchange;
    let (parts, response) = match answer(head.meta, body, Front::Http, since, application, activity) {
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

/// Reads one request, of which some bytes are in `buffers.pending`; what follows it is left there. Also says when its
/// head was there.
fn receive(
    stream: &Stream,
    limits: &Limits,
    activity: &dyn Activity,
    buffers: &mut Buffers,
) -> Result<(Head, Body, Instant), Unserved> {
    let mut head = receive_head(stream, limits, buffers)?;
    activity.received(&head.meta);
    let (body, since) = receive_body(stream, &mut head, limits, buffers)?;
    Ok((head, body, since))
}

/// Reads one request head, of which some bytes may be there.
fn receive_head(stream: &Stream, limits: &Limits, buffers: &mut Buffers) -> Result<Head, Unserved> {
    let broken = |error| Unserved::Refused(error, Exchange::BROKEN);
    let deadline = Instant::now() + limits.head_timeout;
    let mut scanner = HeadScanner::default();
    let length = loop {
        if let Some(length) = scanner.scan(&buffers.pending, limits).map_err(broken)? {
            break length;
        }
        match stream.read(&mut buffers.input, deadline) {
            Ok(0) => return Err(broken(GatewayError::Malformed("connection ends within the head"))),
            Ok(n) => buffers.pending.extend_from_slice(&buffers.input[..n]),
            Err(error) => return Err(unserved(&error, "request head", Exchange::BROKEN)),
        }
    };
    let ends = Ends { peer: stream.peer(), local: stream.local() };
    let head = http1::parse_head(&buffers.pending[..length], ends, limits).map_err(broken)?;
    buffers.pending.drain(..length);
    Ok(head)
}

/// Reads the message-body of a request; says, too, when that began.
fn receive_body(
    stream: &Stream,
    head: &mut Head,
    limits: &Limits,
    buffers: &mut Buffers,
) -> Result<(Body, Instant), Unserved> {
    let exchange = head.exchange;
    let refused = |error| Unserved::Refused(error, exchange);
    let announced = if let Framing::Length(length) = head.framing { Some(length) } else { None };
    let mut collector = Collector::new(announced, limits.body).map_err(refused)?;
    // Who has begun to send does not wait.
    if head.expects_continue && buffers.pending.is_empty() {
        let mut writer = stream.writer(limits.write_timeout);
        io::Write::write_all(&mut writer, CONTINUE).map_err(|_| Unserved::Gone)?;
    }
    let mut decoder = Decoder::new();
    let pace = Pace::new();
    loop {
        let used = match announced {
            Some(length) => take(&buffers.pending, length, &mut collector),
            None => take_chunks(&buffers.pending, &mut decoder, &mut collector),
        };
        let (used, is_complete) = used.map_err(refused)?;
        buffers.pending.drain(..used);
        if is_complete {
            break;
        }
        match stream.read(&mut buffers.input, pace.deadline(limits, collector.length())) {
            Ok(0) => return Err(refused(GatewayError::Malformed("connection ends within the message-body"))),
            Ok(n) => buffers.pending.extend_from_slice(&buffers.input[..n]),
            Err(error) => return Err(unserved(&error, "message-body", exchange)),
        }
    }
    if head.framing == Framing::Chunked {
        // Decoded, it is a message-body like every other (RFC 9112 section 7.1.3).
        head.meta.remove("HTTP_TRANSFER_ENCODING");
        head.meta.remove("HTTP_TRAILER");
        head.meta.push("CONTENT_LENGTH", collector.length().to_string());
    }
    let body = collector.finish().map_err(refused)?;
    Ok((body, pace.started()))
}

fn unserved(error: &io::Error, what: &'static str, exchange: Exchange) -> Unserved {
    if error.kind() == io::ErrorKind::TimedOut {
        Unserved::Refused(GatewayError::Timeout(what), exchange)
    } else {
        Unserved::Gone
    }
}

/// Takes what belongs to a message-body of `length` bytes. Returns how much that was, and whether it is complete.
fn take(pending: &[u8], length: u64, collector: &mut Collector) -> Result<(usize, bool), GatewayError> {
    let missing = usize::try_from(length - collector.length()).unwrap_or(usize::MAX);
    let used = pending.len().min(missing);
    collector.push(&pending[..used])?;
    Ok((used, collector.length() == length))
}

/// Takes what belongs to a message-body in chunks.
fn take_chunks(
    pending: &[u8],
    decoder: &mut Decoder,
    collector: &mut Collector,
) -> Result<(usize, bool), GatewayError> {
    let mut used = 0;
    loop {
        let (n, piece) = decoder.next(&pending[used..])?;
        used += n;
        match piece {
            Piece::Data(data) => collector.push(data)?,
            Piece::More => return Ok((used, false)),
            Piece::Done => return Ok((used, true)),
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
