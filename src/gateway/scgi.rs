//! The head of an SCGI request: a netstring of `name NUL value NUL ...` (SCGI protocol, version 1).
//!
//! Stricter than the specification where a second reading of the same bytes is possible, and more lenient in one
//! point: `SCGI` may be missing, since nginx sends it only where it is configured. Where it stands does not matter
//! (lighttpd sends it last).
//!
//! A name that occurs twice is refused, as the specification says, since whoever reads the first value and whoever
//! reads the last one would see different requests. Only repeated header fields are joined, as the front server should
//! have done: nginx before 1.23 sends them as it got them.

use super::netstring::Netstring;
use super::{GatewayError, Limits, repeated};
use crate::message::{MetaVariables, TooMany};

/// The head of an SCGI request.
#[derive(Debug)]
pub(crate) struct Head {
    /// The meta-variables as they were sent, names unique.
    pub(crate) meta: MetaVariables,
    /// Bytes of message-body that follow the head.
    pub(crate) content_length: u64,
}

/// Reads the head of an SCGI request as its bytes arrive.
#[derive(Debug)]
pub(crate) struct HeadReader {
    netstring: Option<Netstring>,
    count_limit: usize,
}

impl HeadReader {
    /// A reader for one head within `limits`.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { netstring: Some(Netstring::new(limits.head)), count_limit: limits.head_count }
    }

    /// Takes the next bytes. Returns the head once it is complete, and how many of these bytes belong to it; what
    /// follows them is message-body. `None` asks for more.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Option<(Head, usize)>, GatewayError> {
        let Some(netstring) = &mut self.netstring else { return Err(GatewayError::Malformed("second head")) };
        let Some(used) = netstring.feed(bytes)? else { return Ok(None) };
        let block = self.netstring.take().map(Netstring::into_payload).unwrap_or_default();
        Ok(Some((self.head(block)?, used)))
    }

    /// How much memory the head takes so far.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn allocated(&self) -> usize {
        self.netstring.as_ref().map_or(0, Netstring::allocated)
    }

    fn head(&self, block: Vec<u8>) -> Result<Head, GatewayError> {
        let limit = self.count_limit;
        let meta = MetaVariables::from_block_within(block, limit)
            .map_err(|TooMany| GatewayError::HeadTooLarge { what: "meta-variables", limit })?
            .ok_or(GatewayError::Malformed("headers block"))?;
        let content_length = match meta.iter().next() {
            Some((b"CONTENT_LENGTH", value)) => content_length(value)?,
            _ => return Err(GatewayError::Malformed("CONTENT_LENGTH is not the first meta-variable")),
        };
        let meta = repeated::join(meta)?;
        if meta.get("SCGI").is_some_and(|version| version != b"1") {
            return Err(GatewayError::Malformed("SCGI"));
        }
        Ok(Head { meta, content_length })
    }
}

/// `CONTENT_LENGTH` as front servers write it. A leading zero is refused: none of them sends one, and there are
/// readers that take it for octal.
fn content_length(value: &[u8]) -> Result<u64, GatewayError> {
    match value {
        [b'0', _, ..] => None,
        _ => super::number::decimal(value),
    }
    .ok_or(GatewayError::Malformed("CONTENT_LENGTH"))
}

#[cfg(test)]
mod tests;
