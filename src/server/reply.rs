//! Responses on their way out: head and the first of the message-body in one write.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use http::StatusCode;

use super::buffers::{Buffers, PIECE, Sent};
use super::exchange::plain;
use crate::gateway::http1::{self, Delivery, Exchange};
use crate::gateway::{cgi, http1::chunked};
use crate::message::{Body, RequestParts, Response};
use crate::sys::log::log;

/// Why a response did not get out.
#[derive(Debug)]
pub(crate) enum ReplyError {
    /// The client is gone or too slow. It is nobody's fault, and the session is committed.
    Write(io::Error),
    /// The message-body failed or was shorter than announced; what was sent of it is not a response. `announced` is
    /// whether the other side can tell.
    Body {
        /// A length or the last chunk is missing to whoever reads it.
        announced: bool,
    },
}

/// Writes a CGI response (also SCGI) to `sink`. `parts` is the request, if one could be read.
pub(crate) fn cgi(
    sink: &mut dyn Write,
    mut response: Response,
    parts: Option<&RequestParts>,
    buffers: &mut Buffers,
) -> Result<(), ReplyError> {
    let method = parts.map(|parts| &parts.method);
    if let Some(parts) = parts {
        cgi::complete(&mut response, parts);
    }
    let head = |response: &Response, output: &mut Vec<u8>| {
        output.clear();
        let length = cgi::write_head(output, response, parts);
        if length > cgi::FRONT_BUFFER {
            log!("response: head of {length} bytes; nginx refuses more than {} by default", cgi::FRONT_BUFFER);
        }
        match response.body().length() {
            _ if !cgi::has_body(response.status(), method) => Delivery::None,
            Some(length) => Delivery::Length(length),
            None => Delivery::ToEnd,
        }
    };
    // Before anything of the message-body is read, while its length is still the whole one.
    let mut delivery = head(&response, &mut buffers.output);
    let first = first_piece(&mut response, delivery, &mut buffers.piece).unwrap_or_else(|| {
        response = plain(StatusCode::INTERNAL_SERVER_ERROR);
        delivery = head(&response, &mut buffers.output);
        0
    });
    buffers.sent = Sent { status: response.status(), bytes: 0 };
    deliver(sink, response.into_http().into_body(), delivery, first, buffers)
}

/// Writes an HTTP/1.1 response to `sink`. Returns whether the connection stays.
pub(crate) fn http(
    sink: &mut dyn Write,
    mut response: Response,
    parts: Option<&RequestParts>,
    exchange: Exchange,
    buffers: &mut Buffers,
) -> Result<bool, ReplyError> {
    if let Some(parts) = parts {
        cgi::complete(&mut response, parts);
    }
    let head = |response: &Response, output: &mut Vec<u8>| {
        output.clear();
        http1::write_head(output, response, exchange, SystemTime::now())
    };
    let (mut delivery, mut keep_alive) = head(&response, &mut buffers.output);
    let first = first_piece(&mut response, delivery, &mut buffers.piece).unwrap_or_else(|| {
        response = plain(StatusCode::INTERNAL_SERVER_ERROR);
        (delivery, keep_alive) = head(&response, &mut buffers.output);
        0
    });
    buffers.sent = Sent { status: response.status(), bytes: 0 };
    deliver(sink, response.into_http().into_body(), delivery, first, buffers)?;
    Ok(keep_alive)
}

/// Reads the first piece of a streamed message-body before the head is sent: it saves a write, and for a message-body
/// that fails at once (`None`) there is still the response 500.
fn first_piece(response: &mut Response, delivery: Delivery, piece: &mut Vec<u8>) -> Option<usize> {
    if delivery == Delivery::None || response.body().as_bytes().is_some() {
        return Some(0);
    }
    piece.resize(PIECE, 0);
    read(response.body_mut(), piece).inspect_err(|error| log!("response: read message-body: {error}")).ok()
}

/// Sends the head in `buffers.output`, and the message-body of which `first` bytes are in `buffers.piece`.
fn deliver(
    sink: &mut dyn Write,
    mut body: Body,
    delivery: Delivery,
    first: usize,
    buffers: &mut Buffers,
) -> Result<(), ReplyError> {
    let Buffers { output, piece, sent, .. } = buffers;
    if delivery == Delivery::None {
        return sink.write_all(output).map_err(ReplyError::Write);
    }
    if let Some(bytes) = body.as_bytes() {
        let (now, later) = bytes.split_at(bytes.len().min(PIECE));
        output.extend_from_slice(now);
        sink.write_all(output).map_err(ReplyError::Write)?;
        sent.bytes = now.len() as u64;
        if !later.is_empty() {
            sink.write_all(later).map_err(ReplyError::Write)?;
            sent.bytes += later.len() as u64;
        }
        return Ok(());
    }
    let mut left = if let Delivery::Length(length) = delivery { length } else { u64::MAX };
    let mut n = first;
    loop {
        // More than was announced would be taken for the next response.
        n = n.min(usize::try_from(left).unwrap_or(usize::MAX));
        left -= n as u64;
        match delivery {
            Delivery::Chunked if n == 0 => output.extend_from_slice(chunked::LAST_CHUNK),
            Delivery::Chunked => chunked::push_chunk(output, &piece[..n]),
            _ => output.extend_from_slice(&piece[..n]),
        }
        if !output.is_empty() {
            sink.write_all(output).map_err(ReplyError::Write)?;
            output.clear();
            sent.bytes += n as u64;
        }
        if left == 0 || (n == 0 && !matches!(delivery, Delivery::Length(_))) {
            return Ok(());
        }
        if n == 0 {
            log!("response: message-body is shorter than announced");
            return Err(ReplyError::Body { announced: true });
        }
        n = read(&mut body, piece).map_err(|error| {
            log!("response: read message-body: {error}");
            ReplyError::Body { announced: delivery != Delivery::ToEnd }
        })?;
    }
}

/// Reads from the application's reader. If it panics that is its failure and not the worker's.
fn read(body: &mut Body, piece: &mut [u8]) -> io::Result<usize> {
    match catch_unwind(AssertUnwindSafe(|| body.next_piece(piece))) {
        // A reader that claims more than it was given room for is as wrong as one that panics.
        Ok(Ok(n)) if n > piece.len() => Err(io::Error::other("reader returned more than it was asked for")),
        Ok(result) => result,
        Err(_) => Err(io::Error::other("reader panicked")),
    }
}

#[cfg(test)]
mod tests;
