//! What is kept of a session, and its encoding.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::codec::{CodecError, Encoded};
use super::envelope::{self, Encoding};
use super::expiry::Expiry;

/// Milliseconds since 1970, the time of records and session files.
pub(crate) type Millis = u64;

/// The present, by the system's clock.
pub(crate) fn now() -> Millis {
    millis(SystemTime::now())
}

pub(crate) fn millis(time: SystemTime) -> Millis {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A session as a store keeps it.
///
/// A store treats it as a whole: it [encodes](Self::encode) and [decodes](Self::decode) it, and asks when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(crate) user: Option<String>,
    pub(crate) remote_address: Option<IpAddr>,
    pub(crate) created: Millis,
    /// The last use. The store knows it better than the encoding: a touch does not rewrite the record.
    pub(crate) accessed: Millis,
    /// The idle timeout in seconds.
    pub(crate) idle: Option<u32>,
    /// The absolute end.
    pub(crate) ends: Option<Millis>,
    /// The absolute timeout, for when it starts anew.
    pub(crate) lifetime: Option<Millis>,
    pub(crate) values: BTreeMap<String, Encoded>,
    pub(crate) flash: BTreeMap<String, Encoded>,
    pub(crate) tokens: Vec<String>,
}

impl Record {
    /// An empty record, created now.
    pub(crate) fn new(now: Millis, remote_address: Option<IpAddr>, expiry: Expiry) -> Self {
        let mut record = Self { remote_address, created: now, accessed: now, ..Self::blank() };
        record.set_expiry(expiry, now);
        record
    }

    /// Of no time, and without timeouts.
    pub(super) fn blank() -> Self {
        Self {
            user: None,
            remote_address: None,
            created: 0,
            accessed: 0,
            idle: None,
            ends: None,
            lifetime: None,
            values: BTreeMap::new(),
            flash: BTreeMap::new(),
            tokens: Vec::new(),
        }
    }

    /// The timeouts from now on; the absolute one starts at `from`.
    pub(crate) fn set_expiry(&mut self, expiry: Expiry, from: Millis) {
        // An idle timeout below a second would be none in whole seconds, and one above 136 years is none.
        self.idle = expiry.idle.and_then(|idle| u32::try_from(idle.as_millis().div_ceil(1000)).ok());
        self.lifetime = expiry.absolute.map(|absolute| absolute.as_millis() as u64);
        self.restart(from);
    }

    /// Starts the absolute timeout anew.
    pub(crate) fn restart(&mut self, from: Millis) {
        self.ends = self.lifetime.map(|lifetime| from.saturating_add(lifetime));
    }

    /// The encoding, for a store to keep. The time of last access is not in it; see [`set_accessed`](Self::set_accessed).
    pub fn encode(&self) -> Vec<u8> {
        let encoding = self.encode_after(0);
        let mut bytes = Vec::with_capacity(encoding.len());
        encoding.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        bytes
    }

    /// The same in pieces, after so many bytes that are the caller's.
    pub(crate) fn encode_after(&self, room: usize) -> Encoding {
        Encoding::of(self, room)
    }

    /// Reads the encoding. Bytes that are not exactly one record are an error, never a panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        envelope::read(&bytes.into(), 0..bytes.len())
    }

    /// The same for a part of a buffer that the record then shares.
    pub(crate) fn decode_part(buffer: &Arc<[u8]>, part: Range<usize>) -> Result<Self, CodecError> {
        envelope::read(buffer, part)
    }

    /// Whether the session is over at `now`: idle for too long, or past its absolute end.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        is_over(millis(now), self.accessed, self.idle, self.ends)
    }

    /// The idle timeout, in whole seconds.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// The absolute end.
    pub fn ends(&self) -> Option<SystemTime> {
        self.ends.map(|ends| UNIX_EPOCH + Duration::from_millis(ends))
    }

    /// When the session was last used.
    pub fn accessed(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.accessed)
    }

    /// Tells the record when it was last saved or touched; a store does so after decoding.
    pub fn set_accessed(&mut self, accessed: SystemTime) {
        self.accessed = millis(accessed);
    }

    /// When the session was created.
    pub fn created(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.created)
    }

    /// Who is logged in.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The address that made the request in which the session was created.
    pub fn remote_address(&self) -> Option<IpAddr> {
        self.remote_address
    }

    /// The keys of the session's values.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// A session value, if it is there.
    ///
    /// # Errors
    /// Where it does not decode as a `T`.
    pub fn get<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, CodecError> {
        self.values.get(key).map(Encoded::get).transpose()
    }

    /// Whether it holds anything at all: a user, a value, a flash value or a form token. The default rule for what is
    /// kept.
    pub fn has_info(&self) -> bool {
        self.user.is_some() || !self.values.is_empty() || !self.flash.is_empty() || !self.tokens.is_empty()
    }
}

/// Whether a session last used at `accessed` is over at `now`.
pub(crate) fn is_over(now: Millis, accessed: Millis, idle: Option<u32>, ends: Option<Millis>) -> bool {
    over_from(accessed, idle, ends).is_some_and(|over| now >= over)
}

/// From when on a session last used at `accessed` is over, if it ever is.
pub(crate) fn over_from(accessed: Millis, idle: Option<u32>, ends: Option<Millis>) -> Option<Millis> {
    idle.map(|idle| accessed.saturating_add(u64::from(idle) * 1000)).into_iter().chain(ends).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_timeouts_are_in_force() {
        let second = |s: u64| UNIX_EPOCH + Duration::from_secs(s);
        let expiry = Expiry { idle: Some(Duration::from_secs(10)), absolute: Some(Duration::from_secs(25)) };
        let mut record = Record::new(0, None, expiry);
        assert!(!record.is_expired(second(9)));
        assert!(record.is_expired(second(10)));
        record.set_accessed(second(20));
        assert!(!record.is_expired(second(24)));
        assert!(record.is_expired(second(25)));
        assert!(!Record::new(0, None, Expiry::NEVER).is_expired(second(1 << 40)));
    }
}
