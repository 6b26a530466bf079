//! What is kept of a session, and its encoding.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError, Encoded};
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none", with = "address")]
    pub(crate) remote_address: Option<IpAddr>,
    #[serde(rename = "c")]
    pub(crate) created: Millis,
    /// The last use. The store knows it better than the encoding: a touch does not rewrite the record.
    #[serde(skip)]
    pub(crate) accessed: Millis,
    /// The idle timeout in seconds.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<u32>,
    /// The absolute end.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub(crate) ends: Option<Millis>,
    /// The absolute timeout, for when it starts anew.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub(crate) lifetime: Option<Millis>,
    #[serde(rename = "v", default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "codec::unique_map")]
    pub(crate) values: BTreeMap<String, Encoded>,
    #[serde(rename = "f", default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "codec::unique_map")]
    pub(crate) flash: BTreeMap<String, Encoded>,
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tokens: Vec<String>,
}

impl Record {
    /// An empty record, created now.
    pub(crate) fn new(now: Millis, remote_address: Option<IpAddr>, expiry: Expiry) -> Self {
        let mut record = Self {
            user: None,
            remote_address,
            created: now,
            accessed: now,
            idle: None,
            ends: None,
            lifetime: None,
            values: BTreeMap::new(),
            flash: BTreeMap::new(),
            tokens: Vec::new(),
        };
        record.set_expiry(expiry, now);
        record
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
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        // Asked for once, and not again as it grows.
        let values = self.values.iter().chain(&self.flash).map(|(key, value)| key.len() + value.len() + 8);
        codec::encode_sized(self, 128 + values.sum::<usize>() + 24 * self.tokens.len())
    }

    /// Reads the encoding. Bytes that are not exactly one record are an error, never a panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
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

/// An address as text: serde would write it as a tagged list of numbers.
mod address {
    use std::net::IpAddr;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    // The signature is serde's.
    #[allow(clippy::ref_option)]
    pub(super) fn serialize<S: Serializer>(address: &Option<IpAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Some).map_err(|_| D::Error::custom("not an address"))
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

    fn full() -> Record {
        let mut record = Record::new(1_700_000_000_000, "192.0.2.1".parse().ok(), Expiry::default());
        record.user = Some("ada".into());
        record.values.insert("visits".into(), Encoded::new(&3).unwrap());
        record.flash.insert("note".into(), Encoded::new("saved").unwrap());
        record.tokens.push("t".into());
        record.accessed = 0;
        record
    }

    #[test]
    fn encodes_and_decodes() {
        let record = full();
        assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
        let empty = Record { accessed: 0, ..Record::new(5, None, Expiry::NEVER) };
        assert_eq!(Record::decode(&empty.encode().unwrap()).unwrap(), empty);
    }

    #[test]
    fn the_encoding_is_the_one_that_an_independent_crate_writes() {
        let record = full();
        let mut other = Vec::new();
        ciborium::into_writer(&record, &mut other).unwrap();
        assert_eq!(record.encode().unwrap(), other);
        let back: Record = ciborium::from_reader(&record.encode().unwrap()[..]).unwrap();
        assert_eq!(back, record);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_an_error_or_a_record() {
        let bytes = full().encode().unwrap();
        for end in 0..bytes.len() {
            assert!(Record::decode(&bytes[..end]).is_err());
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let _ = Record::decode(&damaged);
            }
        }
    }

    /// As `file-format.md` says, for whoever reads a file by that page.
    #[test]
    fn the_address_is_text() {
        let bytes = full().encode().unwrap();
        let text = b"\x61a\x69192.0.2.1";
        assert!(bytes.windows(text.len()).any(|window| window == text), "{bytes:x?}");
    }

    #[test]
    fn a_repeated_key_is_an_error() {
        // {"c": 0, "v": {"k": h'01', "k": h'02'}}
        let bytes = b"\xa2\x61c\x00\x61v\xa2\x61k\x41\x01\x61k\x41\x02";
        assert!(Record::decode(bytes).unwrap_err().to_string().contains("repeated key"));
        let twice = b"\xa2\x61c\x00\x61c\x00";
        assert!(Record::decode(twice).is_err());
    }

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
