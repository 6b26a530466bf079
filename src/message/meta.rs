//! The meta-variables of a request (RFC 3875 section 4.1), as bytes.
//!
//! CGI fills them from the environment, SCGI from the headers block, HTTP from a request head; from here on the three
//! do not differ.

use std::fmt;
use std::ops::Range;

/// Meta-variables: names and values in the order they came, values as bytes.
///
/// The names are unique: whoever fills it decides what a repeated name means.
#[derive(Clone, Default)]
pub struct MetaVariables {
    bytes: Vec<u8>,
    index: Vec<(Range<u32>, Range<u32>)>,
}

impl MetaVariables {
    /// No meta-variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a block of `name NUL value NUL ...`, the form in which SCGI sends them, without copying it.
    ///
    /// Returns `None` where the block does not end in NUL, has a name without a value or an empty name, or is longer
    /// than 4 GiB. Repeated names are kept; see [`first_repeated_name`](Self::first_repeated_name).
    pub fn from_block(bytes: Vec<u8>) -> Option<Self> {
        u32::try_from(bytes.len()).ok()?;
        let mut index = Vec::with_capacity(32);
        let mut ends = memchr::memchr_iter(0, &bytes);
        let mut at = 0;
        while let Some(middle) = ends.next() {
            let end = ends.next()?;
            if middle == at {
                return None;
            }
            index.push((at as u32..middle as u32, middle as u32 + 1..end as u32));
            at = end + 1;
        }
        if at != bytes.len() {
            return None;
        }
        Some(Self { bytes, index })
    }

    /// Appends a meta-variable.
    ///
    /// # Panics
    /// If all names and values together pass 4 GiB; callers limit them long before.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let at = |bytes: &[u8]| u32::try_from(bytes.len()).expect("meta-variables are limited");
        let start = at(&self.bytes);
        self.bytes.extend_from_slice(name.as_ref());
        let middle = at(&self.bytes);
        self.bytes.extend_from_slice(value.as_ref());
        let end = at(&self.bytes);
        self.index.push((start..middle, middle..end));
    }

    /// The value of `name`, if it is set. Names are compared exactly, as RFC 3875 writes them: in capitals.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
    }

    /// The value of `name` as text, if it is set and is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// All of them, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let slice = |range: &Range<u32>| &self.bytes[range.start as usize..range.end as usize];
        self.index.iter().map(move |(name, value)| (slice(name), slice(value)))
    }

    /// All of them in the form that [`from_block`](Self::from_block) takes. For what came with a request: neither its
    /// names nor its values have a NUL.
    pub(crate) fn to_block(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(self.bytes.len() + 2 * self.index.len());
        for (name, value) in self.iter() {
            for part in [name, value] {
                block.extend_from_slice(part);
                block.push(0);
            }
        }
        block
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// A name that occurs more than once, if there is one.
    pub fn first_repeated_name(&self) -> Option<&[u8]> {
        // Where each name has a place of its own, as in most requests, nothing has to be sorted.
        let mut taken = [0_u64; 32];
        let is_taken = |name: &[u8]| {
            let (word, bit) = place(name);
            let before = taken[word];
            taken[word] |= bit;
            before & bit != 0
        };
        if !self.iter().map(|(name, _)| name).any(is_taken) {
            return None;
        }
        let mut names: Vec<&[u8]> = self.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }

    /// Removes every meta-variable of this name.
    pub(crate) fn remove(&mut self, name: &str) {
        let bytes = &self.bytes;
        self.index.retain(|(n, _)| &bytes[n.start as usize..n.end as usize] != name.as_bytes());
    }
}

/// One of 2048 places, by the length and the end of a name, which is where names differ.
fn place(name: &[u8]) -> (usize, u64) {
    let end = match name.last_chunk::<8>() {
        Some(end) => u64::from_le_bytes(*end),
        None => name.iter().fold(0, |end, &byte| end << 8 | u64::from(byte)),
    };
    let place = (end ^ (name.len() as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53;
    ((place / 64) as usize, 1 << (place % 64))
}

/// Names only: values may be secrets.
impl fmt::Debug for MetaVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_in_place() {
        let meta =
            MetaVariables::from_block(b"CONTENT_LENGTH\x000\x00PATH_INFO\x00/\xe9\x00EMPTY\x00\x00".to_vec()).unwrap();
        assert_eq!(meta.get("PATH_INFO"), Some(&b"/\xe9"[..]));
        assert_eq!(meta.get_str("PATH_INFO"), None);
        assert_eq!(meta.get("EMPTY"), Some(&b""[..]));
        assert_eq!(meta.get("NONE"), None);
        assert_eq!(meta.len(), 3);
        assert_eq!(meta.to_block(), b"CONTENT_LENGTH\x000\x00PATH_INFO\x00/\xe9\x00EMPTY\x00\x00");
    }

    #[test]
    fn a_broken_block_is_refused() {
        for block in [&b"A"[..], b"A\0", b"A\0b", b"\0b\0", b"A\0b\0C\0"] {
            assert!(MetaVariables::from_block(block.to_vec()).is_none(), "{block:?}");
        }
    }

    #[test]
    fn a_repeated_name_is_found_wherever_it_is() {
        // More names than places: some share one.
        let mut meta = MetaVariables::new();
        for number in 0..3000 {
            meta.push(format!("N{number}"), "");
        }
        assert_eq!(meta.first_repeated_name(), None);
        for name in ["N0", "N1500", "N2999"] {
            meta.push(name, "");
            assert_eq!(meta.first_repeated_name(), Some(name.as_bytes()));
            meta.remove(name);
        }
        for short in ["", "A", "AB", "HTTP_XY", "HTTP_XYZ"] {
            let mut meta = MetaVariables::new();
            meta.push(short, "1");
            meta.push("OTHER", "1");
            assert_eq!(meta.first_repeated_name(), None);
            meta.push(short, "2");
            assert_eq!(meta.first_repeated_name(), Some(short.as_bytes()));
        }
    }

    #[test]
    fn debug_shows_no_values() {
        let mut meta = MetaVariables::new();
        meta.push("HTTP_COOKIE", "secret");
        assert!(!format!("{meta:?}").contains("secret"));
        assert_eq!(meta.first_repeated_name(), None);
        meta.push("HTTP_COOKIE", "other");
        assert_eq!(meta.first_repeated_name(), Some(&b"HTTP_COOKIE"[..]));
        meta.remove("HTTP_COOKIE");
        assert_eq!(meta.get("HTTP_COOKIE"), None);
    }
}
