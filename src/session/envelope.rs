//! The encoding of a record: one CBOR map (RFC 8949), as `file-format.md` has it.
//!
//! By hand, as nearly every request reads one: values stay where they are, and a large one is written from there. What is
//! read here has passed a length cap and a checksum already, see `store/directory/slot.rs`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use super::codec::{CodecError, Encoded};
use super::record::Record;

/// The major types that occur, in the upper three bits of an item's first byte.
const NUMBER: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;

/// Values from this length on are not copied into an encoding.
const LARGE: usize = 2048;
/// More pieces than one call writes would not be worth their bookkeeping.
const PIECES: usize = 100;

/// An encoded record, in pieces to be put one after the other.
#[derive(Debug)]
pub(crate) struct Encoding {
    /// All but the large values.
    bytes: Vec<u8>,
    /// Large values, and before which of the bytes each one stands.
    large: Vec<(usize, Encoded)>,
}

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What outgrew this is given back.
const SPARE_SIZE: usize = 64 * 1024;

impl Drop for Encoding {
    fn drop(&mut self) {
        if self.bytes.capacity() <= SPARE_SIZE {
            SPARE.set(std::mem::take(&mut self.bytes));
        }
    }
}

impl Encoding {
    /// After so many bytes that are the caller's.
    pub(super) fn of(record: &Record, room: usize) -> Self {
        let values = || record.values.iter().chain(&record.flash);
        let length = |bytes: usize| if bytes < LARGE { bytes } else { 0 };
        let about: usize = values().map(|(key, value)| key.len() + length(value.as_bytes().len()) + 18).sum();
        let mut bytes = SPARE.take();
        bytes.clear();
        bytes.reserve(room + about + 160 + 34 * record.tokens.len());
        bytes.resize(room, 0);
        let mut encoding = Self { bytes, large: Vec::new() };
        encoding.record(record);
        encoding
    }

    /// The bytes before the encoding that are the caller's, and what stands with them in one piece.
    pub(crate) fn first_mut(&mut self) -> &mut [u8] {
        let end = self.large.first().map_or(self.bytes.len(), |(at, _)| *at);
        &mut self.bytes[..end]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.large.iter().map(|(_, value)| value.as_bytes().len()).sum::<usize>()
    }

    /// All of it, if it is in one piece.
    pub(crate) fn as_slice(&self) -> Option<&[u8]> {
        self.large.is_empty().then_some(&self.bytes[..])
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.large.iter().map(|(at, _)| *at));
        let ends = self.large.iter().map(|(at, _)| *at).chain(std::iter::once(self.bytes.len()));
        let values = self.large.iter().map(|(_, value)| value.as_bytes()).chain(std::iter::once(&[][..]));
        starts.zip(ends).zip(values).flat_map(|((start, end), value)| [&self.bytes[start..end], value])
    }

    fn record(&mut self, record: &Record) {
        let Record { user, remote_address, created, accessed: _, idle, ends, lifetime, values, flash, tokens } = record;
        let present = [
            user.is_some(),
            remote_address.is_some(),
            idle.is_some(),
            ends.is_some(),
            lifetime.is_some(),
            !values.is_empty(),
            !flash.is_empty(),
            !tokens.is_empty(),
        ];
        self.head(MAP, 1 + present.into_iter().filter(|&present| present).count() as u64);
        if let Some(user) = user {
            self.field(b'u');
            self.text(user);
        }
        if let Some(address) = remote_address {
            self.field(b'a');
            self.address(*address);
        }
        self.field(b'c');
        self.head(NUMBER, *created);
        for (name, number) in [(b'i', idle.map(u64::from)), (b'e', *ends), (b'l', *lifetime)] {
            if let Some(number) = number {
                self.field(name);
                self.head(NUMBER, number);
            }
        }
        for (name, map) in [(b'v', values), (b'f', flash)] {
            if !map.is_empty() {
                self.field(name);
                self.head(MAP, map.len() as u64);
                for (key, value) in map {
                    self.text(key);
                    self.value(value);
                }
            }
        }
        if !tokens.is_empty() {
            self.field(b't');
            self.head(LIST, tokens.len() as u64);
            for token in tokens {
                self.text(token);
            }
        }
    }

    fn field(&mut self, name: u8) {
        self.bytes.extend_from_slice(&[TEXT << 5 | 1, name]);
    }

    /// Type and length of an item, or a number, in as few bytes as it takes.
    fn head(&mut self, major: u8, n: u64) {
        let be = n.to_be_bytes();
        let (info, rest) = match n {
            0..24 => (n as u8, &be[8..]),
            24..0x100 => (0x18, &be[7..]),
            0x100..0x1_0000 => (0x19, &be[6..]),
            0x1_0000..0x1_0000_0000 => (0x1a, &be[4..]),
            _ => (0x1b, &be[..]),
        };
        self.bytes.push(major << 5 | info);
        self.bytes.extend_from_slice(rest);
    }

    fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn value(&mut self, value: &Encoded) {
        let bytes = value.as_bytes();
        self.head(BYTES, bytes.len() as u64);
        if bytes.len() >= LARGE && self.large.len() < PIECES {
            self.large.push((self.bytes.len(), value.clone()));
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// As text: a tagged list of numbers is nothing that a reader of the file would know.
    fn address(&mut self, address: IpAddr) {
        let IpAddr::V4(address) = address else { return self.text(&address.to_string()) };
        // In nearly each record, and the machinery of `format!` costs more than all the rest of a small one.
        let start = self.bytes.len();
        self.bytes.push(TEXT << 5);
        for (i, byte) in address.octets().into_iter().enumerate() {
            if i > 0 {
                self.bytes.push(b'.');
            }
            if byte >= 100 {
                self.bytes.push(b'0' + byte / 100);
            }
            if byte >= 10 {
                self.bytes.push(b'0' + byte / 10 % 10);
            }
            self.bytes.push(b'0' + byte % 10);
        }
        // At most 15, which fits the first byte.
        self.bytes[start] |= (self.bytes.len() - start - 1) as u8;
    }
}

/// Reads one record from that part of `buffer`, which its values then share. Bytes after it are an error.
pub(super) fn read(buffer: &Arc<[u8]>, part: Range<usize>) -> Result<Record, CodecError> {
    if u32::try_from(part.end).is_err() {
        return Err(CodecError::new("longer than 4 GiB"));
    }
    let bytes = buffer.get(part.clone()).ok_or_else(short)?;
    let mut reader = Reader { buffer, bytes, offset: part.start, at: 0 };
    let record = reader.record()?;
    if reader.at == bytes.len() { Ok(record) } else { Err(CodecError::new("bytes after the record")) }
}

struct Reader<'a> {
    buffer: &'a Arc<[u8]>,
    bytes: &'a [u8],
    /// Of `bytes` in `buffer`.
    offset: usize,
    at: usize,
}

impl<'a> Reader<'a> {
    fn record(&mut self) -> Result<Record, CodecError> {
        let mut created = None;
        let mut record = Record::blank();
        let mut seen = 0_u32;
        for _ in 0..self.head(MAP)? {
            let name = self.name()?;
            let bit = 1 << (name - b'a');
            if seen & bit != 0 {
                return Err(CodecError::new("repeated field"));
            }
            seen |= bit;
            match name {
                b'u' => record.user = Some(self.text()?.to_owned()),
                b'a' => {
                    let address = self.text()?.parse().map_err(|_| CodecError::new("not an address"))?;
                    record.remote_address = Some(address);
                }
                b'c' => created = Some(self.head(NUMBER)?),
                b'i' => {
                    let idle = u32::try_from(self.head(NUMBER)?);
                    record.idle = Some(idle.map_err(|_| CodecError::new("idle timeout out of range"))?);
                }
                b'e' => record.ends = Some(self.head(NUMBER)?),
                b'l' => record.lifetime = Some(self.head(NUMBER)?),
                b'v' => record.values = self.values()?,
                b'f' => record.flash = self.values()?,
                b't' => {
                    for _ in 0..self.head(LIST)? {
                        let token = self.text()?.to_owned();
                        record.tokens.push(token);
                    }
                }
                _ => return Err(CodecError::new("unknown field")),
            }
        }
        record.created = created.ok_or_else(|| CodecError::new("no time of creation"))?;
        Ok(record)
    }

    fn values(&mut self) -> Result<BTreeMap<String, Encoded>, CodecError> {
        let mut map = BTreeMap::new();
        for _ in 0..self.head(MAP)? {
            let key = self.text()?.to_owned();
            let value = self.piece(BYTES)?;
            let [start, end] = [value.start, value.end].map(|at| (self.offset + at) as u32);
            match map.entry(key) {
                Entry::Vacant(entry) => entry.insert(Encoded::part_of(self.buffer, start, end)),
                Entry::Occupied(_) => return Err(CodecError::new("repeated key")),
            };
        }
        Ok(map)
    }

    /// The name of a field, which is one letter.
    fn name(&mut self) -> Result<u8, CodecError> {
        let &[head, name] = self.bytes[self.at..].first_chunk().ok_or_else(short)?;
        self.at += 2;
        if head == TEXT << 5 | 1 && name.is_ascii_lowercase() {
            Ok(name)
        } else {
            Err(CodecError::new("unknown field"))
        }
    }

    /// The head of an item that must be of this type. Lengths are definite, as they are written.
    fn head(&mut self, major: u8) -> Result<u64, CodecError> {
        let first = *self.bytes.get(self.at).ok_or_else(short)?;
        self.at += 1;
        if first >> 5 != major {
            return Err(CodecError::new("unexpected type"));
        }
        match first & 31 {
            n @ 0..24 => Ok(n.into()),
            0x18 => self.number::<1>(),
            0x19 => self.number::<2>(),
            0x1a => self.number::<4>(),
            0x1b => self.number::<8>(),
            _ => Err(CodecError::new("indefinite length")),
        }
    }

    fn number<const N: usize>(&mut self) -> Result<u64, CodecError> {
        let bytes: [u8; N] = *self.bytes[self.at..].first_chunk().ok_or_else(short)?;
        self.at += N;
        Ok(bytes.into_iter().fold(0, |n, byte| n << 8 | u64::from(byte)))
    }

    fn text(&mut self) -> Result<&'a str, CodecError> {
        let piece = self.piece(TEXT)?;
        std::str::from_utf8(&self.bytes[piece]).map_err(|_| CodecError::new("not UTF-8"))
    }

    /// Where the bytes of a string are.
    fn piece(&mut self, major: u8) -> Result<Range<usize>, CodecError> {
        let length = usize::try_from(self.head(major)?).map_err(|_| short())?;
        let start = self.at;
        let end = start.checked_add(length).filter(|&end| end <= self.bytes.len()).ok_or_else(short)?;
        self.at = end;
        Ok(start..end)
    }
}

fn short() -> CodecError {
    CodecError::new("ends too early")
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod oracle;
#[cfg(test)]
mod tests;
