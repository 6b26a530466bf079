//! The message-body of a request or a response.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;

use super::MessageError;

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
        /// What is still to come, where that is known.
        left: Option<u64>,
    },
}

impl Body {
    /// No message-body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A message-body read from `reader` to its end. `length`, in bytes, is announced where it is known; a reader that
    /// yields more is cut there, and one that yields less breaks the connection, so that nobody takes half a body for
    /// whole: reading it fails with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
    pub fn from_reader(reader: impl Read + Send + 'static, length: Option<u64>) -> Self {
        Self(Kind::Reader { reader: Box::new(reader), left: length })
    }

    /// The message-body of a request: exactly `length` bytes of `reader`, or, where no length was announced, all of
    /// them up to `limit`. What passes `limit` bytes fails with [`MessageError::BodyTooLarge`] inside the
    /// [`io::Error`], see [`MessageError::from_body`]; where the length says so, before the first byte is read.
    pub(crate) fn limited(reader: impl Read + Send + 'static, length: Option<u64>, limit: u64) -> Self {
        match length {
            Some(0) => Self::empty(),
            Some(length) if length <= limit => Self::from_reader(reader, Some(length)),
            Some(length) => {
                Self::from_reader(Limited { reader: io::empty(), left: 0, limit, over: true }, Some(length))
            }
            None => Self::from_reader(Limited { reader, left: limit, limit, over: false }, None),
        }
    }

    /// Reads the next piece into `buffer`, for whoever sends it: 0 bytes mean that it is complete.
    ///
    /// Never more than the announced length in all; fails where less than that comes, and the connection must then be
    /// broken off, since its length has been sent already.
    pub(crate) fn next_piece(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Its length in bytes, where it is known before it is read; once reading has begun, what is left of it.
    pub fn length(&self) -> Option<u64> {
        match &self.0 {
            Kind::Empty => Some(0),
            Kind::Bytes(bytes) => Some(bytes.len() as u64),
            Kind::Reader { left, .. } => *left,
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
    ///
    /// # Errors
    /// Where it cannot be read, ends before its announced length, or (the message-body of a request) passes its limit.
    pub fn into_bytes(mut self) -> io::Result<Bytes> {
        match self.0 {
            Kind::Empty => Ok(Bytes::new()),
            Kind::Bytes(bytes) => Ok(bytes),
            Kind::Reader { left, .. } => {
                // An announced length is a claim, so it does not decide how much memory is taken.
                let mut all = Vec::with_capacity(left.unwrap_or(0).min(64 * 1024) as usize);
                self.read_to_end(&mut all)?;
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
            Kind::Reader { reader, left: None } => reader.read(buffer),
            Kind::Reader { reader, left: Some(left) } => {
                let most = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
                if most == 0 {
                    return Ok(0);
                }
                let n = reader.read(&mut buffer[..most])?;
                if n == 0 {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "message-body ends before its announced length",
                    ));
                }
                *left -= n as u64;
                Ok(n)
            }
        }
    }
}

/// A reader that fails past a limit instead of ending there: a body cut in silence would look whole.
struct Limited<R> {
    reader: R,
    left: u64,
    limit: u64,
    over: bool,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 && !self.over {
            // At the limit exactly: only one byte more tells whether it is passed.
            match self.reader.read(&mut [0])? {
                0 => return Ok(0),
                _ => self.over = true,
            }
        }
        if self.over {
            return Err(io::Error::other(MessageError::BodyTooLarge { limit: self.limit }));
        }
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let n = self.reader.read(&mut buffer[..most])?;
        self.left -= n as u64;
        Ok(n)
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

    #[test]
    fn an_announced_length_is_exact() {
        let read = |length| Body::from_reader(&b"abcde"[..], Some(length)).into_bytes();
        assert_eq!(read(5).unwrap(), "abcde");
        assert_eq!(read(3).unwrap(), "abc");
        assert_eq!(read(0).unwrap(), "");
        assert_eq!(read(6).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        let mut body = Body::from_reader(&b"abcde"[..], Some(4));
        let mut buffer = [0; 3];
        assert_eq!(body.next_piece(&mut buffer).unwrap(), 3);
        assert_eq!(body.length(), Some(1));
        assert_eq!(body.next_piece(&mut buffer).unwrap(), 1);
        assert_eq!(body.next_piece(&mut buffer).unwrap(), 0);
        assert_eq!(body.next_piece(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn an_interrupted_read_is_repeated() {
        struct Interrupted(bool);
        impl Read for Interrupted {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 = !self.0;
                if self.0 { Err(io::ErrorKind::Interrupted.into()) } else { (&b"x"[..]).read(buffer) }
            }
        }
        let mut body = Body::from_reader(Interrupted(false), Some(2));
        let mut buffer = [0; 8];
        assert_eq!(body.next_piece(&mut buffer).unwrap(), 1);
        assert_eq!(body.next_piece(&mut buffer).unwrap(), 1);
        assert_eq!(body.next_piece(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_limit_fails_and_never_cuts() {
        let read = |text: &'static str, length, limit| {
            Body::limited(text.as_bytes(), length, limit).into_bytes().map_err(MessageError::from_body)
        };
        assert_eq!(read("abc", None, 3).unwrap(), "abc");
        assert_eq!(read("abc", None, u64::MAX).unwrap(), "abc");
        assert_eq!(read("abcd", Some(3), 3).unwrap(), "abc");
        assert_eq!(read("abcd", Some(0), 0).unwrap(), "");
        assert_eq!(read("", None, 0).unwrap(), "");
        assert!(matches!(read("abcd", None, 3), Err(MessageError::BodyTooLarge { limit: 3 })));
        assert!(matches!(read("a", None, 0), Err(MessageError::BodyTooLarge { limit: 0 })));
        assert!(matches!(read("abcd", Some(4), 3), Err(MessageError::BodyTooLarge { limit: 3 })));
        assert!(matches!(read("abc", Some(u64::MAX), 3), Err(MessageError::BodyTooLarge { limit: 3 })));
        let short = read("ab", Some(3), 3).unwrap_err();
        assert!(matches!(short, MessageError::Body(e) if e.kind() == io::ErrorKind::UnexpectedEof));

        // Past the limit it fails again and again, and never ends as if it were whole.
        let mut body = Body::limited(&b"abcd"[..], None, 2);
        let mut buffer = [0; 8];
        assert_eq!(body.read(&mut buffer).unwrap(), 2);
        for _ in 0..3 {
            let error = body.read(&mut buffer).unwrap_err();
            assert!(matches!(MessageError::within(&error), Some(MessageError::BodyTooLarge { limit: 2 })));
        }
    }
}
