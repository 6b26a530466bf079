//! The chunked transfer coding (RFC 9112 section 7.1), read as the bytes arrive.
//!
//! Written by hand: httparse takes an empty size for zero and has no bounds.

use std::io::Write as _;

use crate::gateway::GatewayError;

/// Hexadecimal digits of a size: 2^60 bytes are enough for anybody, and cannot overflow.
const DIGITS: u8 = 15;

/// Bytes of chunk extensions in one message-body. Nobody sends any but who wants to keep a server busy
/// (CVE-2023-39326).
const EXTENSIONS: usize = 4 * 1024;

/// Bytes of trailer fields, all of which are discarded.
const TRAILERS: usize = 8 * 1024;

/// Reads a message-body in chunks.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    extensions: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataEnd,
    /// In a trailer line, or in the empty one that ends them all.
    Trailer {
        is_empty: bool,
    },
    TrailerEnd {
        is_empty: bool,
    },
    Done,
}

/// What the next bytes were.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Message-body.
    Data(&'a [u8]),
    /// All were used, and more are needed.
    More,
    /// The message-body has ended.
    Done,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { state: State::Size { digits: 0, size: 0 }, extensions: 0, trailers: 0 }
    }

    /// Takes bytes up to the next piece. Returns how many it took, and the piece.
    pub(crate) fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, Piece<'a>), GatewayError> {
        for (at, &byte) in bytes.iter().enumerate() {
            if let State::Data { left } = self.state {
                let rest = &bytes[at..];
                let data = &rest[..rest.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
                let left = left - data.len() as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                return Ok((at + data.len(), Piece::Data(data)));
            }
            if matches!(self.state, State::Done) {
                return Ok((at, Piece::Done));
            }
            self.state = self.step(byte)?;
        }
        let piece = if matches!(self.state, State::Done) { Piece::Done } else { Piece::More };
        Ok((bytes.len(), piece))
    }

    /// Its state as numbers, for another process.
    pub(crate) fn to_numbers(&self) -> [u64; 5] {
        let (state, digits, value) = match self.state {
            State::Size { digits, size } => (0, digits, size),
            State::Extension { size } => (1, 0, size),
            State::SizeEnd { size } => (2, 0, size),
            State::Data { left } => (3, 0, left),
            State::DataCr => (4, 0, 0),
            State::DataEnd => (5, 0, 0),
            State::Trailer { is_empty } => (6, 0, is_empty.into()),
            State::TrailerEnd { is_empty } => (7, 0, is_empty.into()),
            State::Done => (8, 0, 0),
        };
        [state, digits.into(), value, self.extensions as u64, self.trailers as u64]
    }

    /// The same again; `None` for numbers that are no state.
    pub(crate) fn from_numbers([state, digits, value, extensions, trailers]: [u64; 5]) -> Option<Self> {
        let digits = u8::try_from(digits).ok().filter(|&digits| digits <= DIGITS)?;
        if value >> (4 * DIGITS) != 0 {
            return None;
        }
        let state = match (state, value) {
            (0, size) => State::Size { digits, size },
            (1, size) => State::Extension { size },
            (2, size) => State::SizeEnd { size },
            (3, left) if left > 0 => State::Data { left },
            (4, _) => State::DataCr,
            (5, _) => State::DataEnd,
            (6, is_empty) => State::Trailer { is_empty: is_empty != 0 },
            (7, is_empty) => State::TrailerEnd { is_empty: is_empty != 0 },
            (8, _) => State::Done,
            _ => return None,
        };
        Some(Self { state, extensions: usize::try_from(extensions).ok()?, trailers: usize::try_from(trailers).ok()? })
    }

    fn step(&mut self, byte: u8) -> Result<State, GatewayError> {
        let text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        match (self.state, byte) {
            (State::Size { digits, size }, _) if byte.is_ascii_hexdigit() => {
                if digits == DIGITS {
                    return Err(GatewayError::Malformed("chunk size has too many digits"));
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                Ok(State::Size { digits: digits + 1, size: size << 4 | u64::from(digit) })
            }
            (State::Size { digits: 0, .. }, _) => Err(GatewayError::Malformed("chunk without a size")),
            (State::Size { size, .. }, b';') => Ok(State::Extension { size }),
            (State::Size { size, .. } | State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Extension { size }, _) if text => {
                self.extensions += 1;
                if self.extensions > EXTENSIONS {
                    return Err(GatewayError::Malformed("chunk extensions are too long"));
                }
                Ok(State::Extension { size })
            }
            (State::SizeEnd { size: 0 } | State::TrailerEnd { is_empty: false }, b'\n') => {
                Ok(State::Trailer { is_empty: true })
            }
            (State::SizeEnd { size }, b'\n') => Ok(State::Data { left: size }),
            (State::DataCr, b'\r') => Ok(State::DataEnd),
            (State::DataEnd, b'\n') => Ok(State::Size { digits: 0, size: 0 }),
            (State::Trailer { is_empty }, b'\r') => Ok(State::TrailerEnd { is_empty }),
            (State::Trailer { .. }, _) if text => {
                self.trailers += 1;
                if self.trailers > TRAILERS {
                    return Err(GatewayError::Malformed("trailer fields are too long"));
                }
                Ok(State::Trailer { is_empty: false })
            }
            (State::TrailerEnd { is_empty: true }, b'\n') => Ok(State::Done),
            _ => Err(GatewayError::Malformed("chunk")),
        }
    }
}

/// Appends a chunk to `out`. An empty one is left out: it would be the last.
pub(crate) fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        // Writing to a Vec does not fail.
        let _ = write!(out, "{:x}\r\n", data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// The chunk that ends a message-body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes all of `bytes`, cut into pieces of `step`. Returns the data and what was left over.
    fn decode(bytes: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, GatewayError> {
        let (mut decoder, mut data, mut at) = (Decoder::new(), Vec::new(), 0);
        while at < bytes.len() {
            let (used, piece) = decoder.next(&bytes[at..bytes.len().min(at + step)])?;
            at += used;
            match piece {
                Piece::Data(piece) => data.extend_from_slice(piece),
                Piece::More => {}
                Piece::Done => return Ok(Some((data, bytes.len() - at))),
            }
        }
        Ok(None)
    }

    #[test]
    fn reads_chunks_however_they_are_cut() {
        let body =
            b"5\r\nhello\r\n1;name=\"value\"\r\n,\r\n00A\r\n wonderful\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\nGET";
        for step in 1..body.len() {
            assert_eq!(decode(body, step).unwrap(), Some((b"hello, wonderful".to_vec(), 3)), "{step}");
        }
        for end in 0..body.len() - 3 {
            assert_eq!(decode(&body[..end], usize::MAX / 2).unwrap(), None, "{end}");
        }
    }

    #[test]
    fn goes_on_from_its_numbers() {
        let body = b"5\r\nhello\r\n1;a=b\r\n,\r\n0\r\nX-Sum: 1\r\n\r\n";
        for cut in 0..body.len() {
            let (mut decoder, mut data, mut at) = (Decoder::new(), Vec::new(), 0);
            while at < body.len() {
                if at >= cut {
                    decoder = Decoder::from_numbers(decoder.to_numbers()).unwrap();
                }
                let (used, piece) = decoder.next(&body[at..=at]).unwrap();
                at += used;
                match piece {
                    Piece::Data(piece) => data.extend_from_slice(piece),
                    Piece::More => {}
                    Piece::Done => assert_eq!(at, body.len()),
                }
            }
            assert_eq!(data, b"hello,");
        }
        for wrong in [[9, 0, 0, 0, 0], [0, 16, 0, 0, 0], [3, 0, 0, 0, 0], [2, 0, u64::MAX, 0, 0]] {
            assert!(Decoder::from_numbers(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_chunk() {
        for wrong in [
            &b"\r\n"[..],
            b";a\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b" 1\r\n",
            b"0x1\r\n",
            b"1_0\r\n",
            b"1 \r\n",
            b"1\n",
            b"1\r1",
            b"1\r\nab",
            b"1\r\na\n",
            b"1\r\na\r\r",
            b"0\n",
            b"0\r\n\n",
            b"0\r\nA: b\n",
            b"0\r\nA\0",
            b"1;a\n",
            b"1;a\0",
            b"1;\x7f",
            b"0\r\n\r\r",
            b"1000000000000000\r\n",
            b"ffffffffffffffff\r\n",
            b"0000000000000001\r\n",
        ] {
            assert!(decode(wrong, 100).is_err(), "{:?}", wrong.escape_ascii().to_string());
            assert!(decode(wrong, 1).is_err(), "{:?}", wrong.escape_ascii().to_string());
        }
        // 2^60 - 1 is a size, if not one that any limit allows.
        assert_eq!(decode(b"fffffffffffffff\r\na", 100).unwrap(), None);
    }

    #[test]
    fn extensions_and_trailers_are_bounded_in_all() {
        let many = b"1;aaaaaaaaaaaaaaa\r\nb\r\n".repeat(EXTENSIONS / 15 + 1);
        assert!(decode(&many, usize::MAX / 2).is_err());
        let long = [b"1;".to_vec(), vec![b'a'; EXTENSIONS + 1]].concat();
        assert!(decode(&long, usize::MAX / 2).is_err());
        let trailers = [b"0\r\n".to_vec(), b"A: b\r\n".repeat(TRAILERS / 4 + 1)].concat();
        assert!(decode(&trailers, usize::MAX / 2).is_err());
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut out = Vec::new();
        push_chunk(&mut out, b"");
        push_chunk(&mut out, &[7; 300]);
        assert!(out.starts_with(b"12c\r\n"));
        out.extend_from_slice(LAST_CHUNK);
        assert_eq!(decode(&out, 1000).unwrap(), Some((vec![7; 300], 0)));
    }
}
