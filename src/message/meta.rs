//! The meta-variables of a request (RFC 3875 section 4.1), as bytes.
//!
//! CGI fills them from the environment, SCGI from the headers block, HTTP from a request head; from here on the three
//! do not differ.

use std::fmt;

/// Meta-variables: names and values in the order they came, values as bytes.
///
/// The names are unique: whoever fills it decides what a repeated name means.
#[derive(Clone, Default)]
pub struct MetaVariables {
    /// `name NUL value NUL ...`
    bytes: Vec<u8>,
    index: Vec<Variable>,
}

/// There are more meta-variables than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// Where one is.
#[derive(Clone, Copy)]
struct Variable {
    /// Names that differ here are not the same.
    mark: u32,
    name: u32,
    /// Where its name ends, and after one byte its value begins.
    middle: u32,
    end: u32,
}

impl Variable {
    fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.name as usize..self.middle as usize]
    }

    fn value(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.middle as usize + 1..self.end as usize]
    }
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
        Self::from_block_within(bytes, usize::MAX).ok().flatten()
    }

    /// The same with at most so many: the index of a block of empty values would take five times the block's memory.
    pub(crate) fn from_block_within(bytes: Vec<u8>, most: usize) -> Result<Option<Self>, TooMany> {
        if u32::try_from(bytes.len()).is_err() {
            return Ok(None);
        }
        let mut index: Vec<Variable> = Vec::with_capacity(32);
        let (mut at, mut middle) = (0, None);
        let mut verdict = Ok(true);
        each_nul(&bytes, |end| {
            match middle.take() {
                None if end == at => verdict = Ok(false),
                None => middle = Some(end),
                Some(_) if index.len() == most => verdict = Err(TooMany),
                Some(middle) => {
                    let mark = mark(&bytes[at..middle]);
                    index.push(Variable { mark, name: at as u32, middle: middle as u32, end: end as u32 });
                    at = end + 1;
                }
            }
            verdict == Ok(true)
        });
        Ok((verdict? && at == bytes.len()).then_some(Self { bytes, index }))
    }

    /// Appends a meta-variable.
    ///
    /// # Panics
    /// If all names and values together pass 4 GiB; callers limit them long before.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        let at = |bytes: &[u8]| u32::try_from(bytes.len()).expect("meta-variables are limited");
        let start = at(&self.bytes);
        self.bytes.extend_from_slice(name);
        let middle = at(&self.bytes);
        self.bytes.push(0);
        self.bytes.extend_from_slice(value);
        let end = at(&self.bytes);
        self.bytes.push(0);
        self.index.push(Variable { mark: mark(name), name: start, middle, end });
    }

    /// The value of `name`, if it is set. Names are compared exactly, as RFC 3875 writes them: in capitals.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        // Of a name that is known when this is compiled so is its mark.
        self.find(mark(name.as_bytes()), name)
    }

    fn find(&self, mark: u32, name: &str) -> Option<&[u8]> {
        let is_it = |variable: &&Variable| variable.mark == mark && variable.name(&self.bytes) == name.as_bytes();
        self.index.iter().find(is_it).map(|variable| variable.value(&self.bytes))
    }

    /// The value of `name` as text, if it is set and is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// All of them, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.index.iter().map(|variable| (variable.name(&self.bytes), variable.value(&self.bytes)))
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
        // Where each name has one of 2048 places of its own, as in most requests, nothing has to be sorted.
        let mut taken = [0_u64; 32];
        let is_taken = |variable: &Variable| {
            let place = variable.mark >> 21;
            let (word, bit) = ((place / 64) as usize, 1 << (place % 64));
            let before = taken[word];
            taken[word] |= bit;
            before & bit != 0
        };
        if !self.index.iter().any(is_taken) {
            return None;
        }
        let mut names: Vec<&[u8]> = self.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }

    /// Removes every meta-variable of this name.
    pub(crate) fn remove(&mut self, name: &str) {
        let (bytes, mark) = (&self.bytes, mark(name.as_bytes()));
        self.index.retain(|variable| variable.mark != mark || variable.name(bytes) != name.as_bytes());
    }
}

/// By the length and the end of a name, which is where names differ.
#[inline]
fn mark(name: &[u8]) -> u32 {
    let end = match name.last_chunk::<8>() {
        Some(end) => u64::from_le_bytes(*end),
        None => name.iter().fold(0, |end, &byte| end << 8 | u64::from(byte)),
    };
    ((end ^ (name.len() as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// Tells where the NULs are, until that is of no interest: eight bytes at a time, since names and values are too short for
/// anything that must be prepared.
fn each_nul(bytes: &[u8], mut found: impl FnMut(usize) -> bool) {
    const LOW: u64 = u64::from_le_bytes([0x7f; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        // The upper bit of each byte that is zero, and no other.
        let mut zeros = !(((word & LOW) + LOW) | word | LOW);
        while zeros != 0 {
            if !found(at + (zeros.trailing_zeros() / 8) as usize) {
                return;
            }
            zeros &= zeros - 1;
        }
        at += 8;
    }
    for (i, _) in rest.iter().enumerate().filter(|&(_, &byte)| byte == 0) {
        if !found(at + i) {
            return;
        }
    }
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
    fn every_nul_is_found_and_no_other_byte() {
        let nuls = |bytes: &[u8]| {
            let mut all = Vec::new();
            each_nul(bytes, |at| {
                all.push(at);
                true
            });
            all
        };
        for length in 0..40 {
            for byte in [1, 0x7f, 0x80, 0xff] {
                for at in 0..length {
                    let mut bytes = vec![byte; length];
                    bytes[at] = 0;
                    assert_eq!(nuls(&bytes), [at]);
                    bytes[length - 1] = 0;
                    assert_eq!(nuls(&bytes).last(), Some(&(length - 1)));
                    assert_eq!(nuls(&bytes).len(), if at == length - 1 { 1 } else { 2 });
                }
            }
            assert_eq!(nuls(&vec![0; length]), (0..length).collect::<Vec<_>>());
            let mut first = None;
            each_nul(&vec![0; length], |at| first.replace(at).is_some());
            assert_eq!(first, (length > 0).then_some(0));
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
