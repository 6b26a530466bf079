//! CBOR: the only file that names the encoding's crate.
//!
//! What is decoded here has passed a length cap and a checksum already, see `store/directory/slot.rs`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_cbor::Value;

/// A value that cannot be encoded, or bytes that do not decode as the type asked for.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CodecError(#[from] serde_cbor::Error);

/// Encodes any serde type as CBOR (RFC 8949).
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode_sized(value, 0)
}

/// The same, for what is about so long.
pub(crate) fn encode_sized<T: Serialize + ?Sized>(value: &T, about: usize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(about);
    serde_cbor::to_writer(&mut bytes, &value)?;
    Ok(bytes)
}

/// Decodes one CBOR item; bytes after it are an error.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    Ok(serde_cbor::from_slice(bytes)?)
}

/// One session value, encoded. Equal values have equal bytes, which is what tells a conflict.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Encoded(Box<[u8]>);

impl Encoded {
    pub(crate) fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, CodecError> {
        Ok(Self(encode(value)?.into()))
    }

    /// Bytes of its encoding.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        decode(&self.0)
    }

    /// This number and `n`; no number counts as 0.
    pub(crate) fn add(this: Option<&Self>, n: i64) -> Result<Self, CodecError> {
        let overflow = || serde_cbor::Error::custom("the sum does not fit a 64-bit number");
        let sum = match this.map(Self::get::<Value>).transpose()? {
            None => Value::Integer(n.into()),
            Some(Value::Integer(old)) => {
                let sum = old + i128::from(n);
                if sum < i128::from(i64::MIN) || sum > i128::from(u64::MAX) {
                    return Err(overflow().into());
                }
                Value::Integer(sum)
            }
            #[allow(clippy::cast_precision_loss)]
            Some(Value::Float(old)) => Value::Float(old + n as f64),
            Some(_) => return Err(serde_cbor::Error::custom("the value is not a number").into()),
        };
        Self::new(&sum)
    }

    /// This list with `item` at its end; no list counts as an empty one.
    pub(crate) fn push(this: Option<&Self>, item: &Self) -> Result<Self, CodecError> {
        let mut list = match this.map(Self::get::<Value>).transpose()? {
            None => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(serde_cbor::Error::custom("the value is not a list").into()),
        };
        list.push(item.get()?);
        Self::new(&Value::Array(list))
    }
}

/// Its length only: values may be secrets.
impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} bytes)", self.0.len())
    }
}

impl Serialize for Encoded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Encoded;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an encoded value")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Encoded, E> {
                Ok(Encoded(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// A map of encoded values in which a repeated key is an error, where serde would keep the last one.
pub(super) fn unique_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Encoded>, D::Error> {
    struct Unique;
    impl<'de> Visitor<'de> for Unique {
        type Value = BTreeMap<String, Encoded>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of encoded values")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = entries.next_entry()? {
                if map.insert(key, value).is_some() {
                    return Err(A::Error::custom("repeated key"));
                }
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_an_error() {
        let mut bytes = encode(&7).unwrap();
        assert_eq!(decode::<u64>(&bytes).unwrap(), 7);
        bytes.push(0);
        assert!(decode::<u64>(&bytes).is_err());
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        let value = Encoded::new("text").unwrap();
        assert!(value.get::<u64>().is_err());
        assert_eq!(value.get::<String>().unwrap(), "text");
    }

    #[test]
    fn numbers_add_and_lists_grow() {
        let one = Encoded::add(None, 1).unwrap();
        assert_eq!(Encoded::add(Some(&one), -3).unwrap().get::<i64>().unwrap(), -2);
        let half = Encoded::new(&0.5).unwrap();
        assert!((Encoded::add(Some(&half), 1).unwrap().get::<f64>().unwrap() - 1.5).abs() < 1e-9);
        let most = Encoded::new(&u64::MAX).unwrap();
        assert!(Encoded::add(Some(&most), 1).is_err());
        assert!(Encoded::add(Some(&Encoded::new("x").unwrap()), 1).is_err());
        let list = Encoded::push(None, &one).unwrap();
        let list = Encoded::push(Some(&list), &most).unwrap();
        assert_eq!(list.get::<Vec<u64>>().unwrap(), [1, u64::MAX]);
        assert!(Encoded::push(Some(&one), &one).is_err());
    }

    #[test]
    fn equal_values_have_equal_bytes() {
        assert_eq!(Encoded::new(&1_u8).unwrap(), Encoded::new(&1_i64).unwrap());
        assert_eq!(Encoded::add(None, 5).unwrap(), Encoded::new(&5_u32).unwrap());
    }
}
