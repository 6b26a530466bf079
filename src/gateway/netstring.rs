//! Netstrings (`5:hello,`), read as the bytes arrive.
//!
//! Written by hand since the length comes from outside: every digit is checked, and so is the sum, before a byte is
//! allocated for the payload.

use super::GatewayError;

/// More digits than this are refused whatever the limit is: 10 digits overflow a 32-bit `usize`.
const DIGITS: u8 = 9;

/// Payloads are given memory as they arrive, from this much on, so that a length alone costs its sender as much as us.
const FIRST: usize = 64 * 1024;

/// Reads one netstring.
#[derive(Debug)]
pub(crate) struct Netstring {
    limit: usize,
    state: State,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Length { digits: u8, length: usize },
    Payload { missing: usize },
    Comma,
    Done,
}

impl Netstring {
    /// A reader of one netstring with at most `limit` bytes of payload.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, state: State::Length { digits: 0, length: 0 }, payload: Vec::new() }
    }

    /// Takes the next bytes. Returns how many of them belong to the netstring once it is complete; `None` asks for
    /// more, after all of them were used. After its end it uses nothing.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, GatewayError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Done => return Ok(Some(at)),
                State::Payload { missing: 0 } => self.state = State::Comma,
                _ if at == bytes.len() => return Ok(None),
                State::Length { digits, length } => {
                    self.state = self.length(bytes[at], digits, length)?;
                    at += 1;
                }
                State::Payload { missing } => {
                    let piece = &bytes[at..bytes.len().min(at.saturating_add(missing))];
                    self.payload.extend_from_slice(piece);
                    at += piece.len();
                    self.state = State::Payload { missing: missing - piece.len() };
                }
                State::Comma if bytes[at] == b',' => {
                    self.state = State::Done;
                    at += 1;
                }
                State::Comma => return Err(GatewayError::Malformed("netstring does not end in a comma")),
            }
        }
    }

    fn length(&mut self, byte: u8, digits: u8, length: usize) -> Result<State, GatewayError> {
        match byte {
            b'0'..=b'9' if digits == 1 && length == 0 => {
                Err(GatewayError::Malformed("netstring length has a leading zero"))
            }
            b'0'..=b'9' if digits == DIGITS => Err(GatewayError::Malformed("netstring length has too many digits")),
            b'0'..=b'9' => Ok(State::Length { digits: digits + 1, length: length * 10 + usize::from(byte - b'0') }),
            b':' if digits == 0 => Err(GatewayError::Malformed("netstring without a length")),
            b':' if length > self.limit => Err(GatewayError::HeadTooLarge { what: "bytes", limit: self.limit }),
            b':' => {
                self.payload.reserve_exact(length.min(FIRST));
                Ok(State::Payload { missing: length })
            }
            _ => Err(GatewayError::Malformed("netstring length is no number")),
        }
    }

    /// The payload, so far.
    pub(crate) fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// How much memory it holds.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn allocated(&self) -> usize {
        self.payload.capacity()
    }
}
