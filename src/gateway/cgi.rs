//! Response heads as CGI (RFC 3875 section 6) and SCGI want them.
//!
//! `Status` always comes first: without it nginx, Apache and lighttpd each guess differently from `Location` and the
//! conditional header fields of the request.

use std::io::Write as _;

use super::fields;
pub(crate) use super::fields::{complete, has_body};
use crate::message::{RequestParts, Response};

/// What nginx takes of a response head unless it is configured otherwise (`scgi_buffer_size`, one page); a longer one
/// is answered with 502.
pub(crate) const FRONT_BUFFER: usize = 4096;

/// Appends the response head to `out` and returns its length, to be held against [`FRONT_BUFFER`].
///
/// `parts` is the request, if one could be read; [`complete`] should have seen the response before.
pub(crate) fn write_head(out: &mut Vec<u8>, response: &Response, parts: Option<&RequestParts>) -> usize {
    let start = out.len();
    let status = response.status();
    out.extend_from_slice(b"Status: ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(fields::reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    fields::push_fields(out, response.headers());
    let is_head = parts.is_some_and(|parts| parts.method == http::Method::HEAD);
    let length = if is_head { fields::length_for_head(response) } else { response.body().length() };
    if let Some(length) = length
        && fields::has_length(status)
    {
        // Writing to a Vec does not fail.
        let _ = write!(out, "Content-Length: {length}\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.len() - start
}

#[cfg(test)]
mod tests;
