//! The message-body of a request or a response.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;

/// A message-body: nothing, bytes, or something that is read as it is sent.
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Bytes(Bytes),
    Reader {
        reader: Box<dyn Read + Send>,
        length: Option<u64>,
    },
}

impl Body {
    /// No message-body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A message-body read from `reader` to its end. `length` is announced where it is known; a reader that yields
    /// more is cut there, and one that yields less breaks the connection, so that nobody takes half a body for whole.
    pub fn from_reader(reader: impl Read + Send + 'static, length: Option<u64>) -> Self {
        Self(Kind::Reader { reader: Box::new(reader), length })
    }

    /// Its length in bytes, where it is known before it is read.
    pub fn length(&self) -> Option<u64> {
        match &self.0 {
            Kind::Empty => Some(0),
            Kind::Bytes(bytes) => Some(bytes.len() as u64),
            Kind::Reader { length, .. } => *length,
        }
    }

    /// Whether it is known to be empty.
    pub fn is_empty(&self) -> bool {
        self.length() == Some(0)
    }

    /// All of it, if it is in memory already.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        static EMPTY: Bytes = Bytes::new();
        match &self.0 {
            Kind::Empty => Some(&EMPTY),
            Kind::Bytes(bytes) => Some(bytes),
            Kind::Reader { .. } => None,
        }
    }

    /// Reads all of it into memory.
    pub fn into_bytes(self) -> io::Result<Bytes> {
        match self.0 {
            Kind::Empty => Ok(Bytes::new()),
            Kind::Bytes(bytes) => Ok(bytes),
            Kind::Reader { mut reader, length } => {
                let mut all = Vec::with_capacity(length.unwrap_or(0).min(64 * 1024) as usize);
                reader.read_to_end(&mut all)?;
                Ok(all.into())
            }
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Empty => Ok(0),
            Kind::Bytes(bytes) => {
                let n = bytes.len().min(buffer.len());
                buffer[..n].copy_from_slice(&bytes.split_to(n));
                Ok(n)
            }
            Kind::Reader { reader, .. } => reader.read(buffer),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Kind::Empty } else { Kind::Bytes(bytes) })
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length() {
            Some(length) => write!(f, "Body({length} bytes)"),
            None => f.write_str("Body(of unknown length)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_same_whatever_it_is_made_of() {
        for body in [Body::from("abc"), Body::from(b"abc".to_vec()), Body::from_reader(&b"abc"[..], None)] {
            assert_eq!(body.into_bytes().unwrap(), "abc");
        }
        let mut text = String::new();
        Body::from("abc").read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        assert!(Body::from("").is_empty());
        assert!(!Body::from_reader(&b""[..], None).is_empty());
    }
}
