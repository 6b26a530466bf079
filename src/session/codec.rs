//! CBOR of session values: the only file that names the encoding's crate.
//!
//! What is decoded here has passed a length cap and a checksum already, see `store/directory/slot.rs`.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_cbor::Value;

/// A value that cannot be encoded, or bytes that do not decode as the type asked for.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CodecError(#[from] serde_cbor::Error);

impl CodecError {
    pub(super) fn new(what: &str) -> Self {
        Self(serde_cbor::Error::custom(what))
    }
}

/// Encodes any serde type as CBOR (RFC 8949).
fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    // Most values are numbers and short texts.
    let mut bytes = Vec::with_capacity(64);
    serde_cbor::to_writer(&mut bytes, &value)?;
    Ok(bytes)
}

/// Decodes one CBOR item; bytes after it are an error.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    Ok(serde_cbor::from_slice(bytes)?)
}

/// One session value, encoded. Equal values have equal bytes, which is what tells a conflict.
///
/// It is a part of what its record was read from, so that neither reading nor copying a record copies its values.
#[derive(Clone)]
pub(crate) struct Encoded {
    buffer: Arc<[u8]>,
    start: u32,
    end: u32,
}

impl Encoded {
    pub(crate) fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, CodecError> {
        let bytes = encode(value)?;
        // No store keeps one so large.
        let end = u32::try_from(bytes.len()).map_err(|_| CodecError::new("the value is larger than 4 GiB"))?;
        Ok(Self { buffer: bytes.into(), start: 0, end })
    }

    /// The part of `buffer` from `start` to `end`, which is an encoded value.
    pub(super) fn part_of(buffer: &Arc<[u8]>, start: u32, end: u32) -> Self {
        Self { buffer: Arc::clone(buffer), start, end }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.start as usize..self.end as usize]
    }

    pub(crate) fn get<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        decode(self.as_bytes())
    }

    /// This number and `n`; no number counts as 0.
    pub(crate) fn add(this: Option<&Self>, n: i64) -> Result<Self, CodecError> {
        let sum = match this.map(Self::get::<Value>).transpose()? {
            None => Value::Integer(n.into()),
            Some(Value::Integer(old)) => {
                let sum = old + i128::from(n);
                if sum < i128::from(i64::MIN) || sum > i128::from(u64::MAX) {
                    return Err(CodecError::new("the sum does not fit a 64-bit number"));
                }
                Value::Integer(sum)
            }
            #[allow(clippy::cast_precision_loss)]
            Some(Value::Float(old)) => Value::Float(old + n as f64),
            Some(_) => return Err(CodecError::new("the value is not a number")),
        };
        Self::new(&sum)
    }

    /// This list with `item` at its end; no list counts as an empty one.
    pub(crate) fn push(this: Option<&Self>, item: &Self) -> Result<Self, CodecError> {
        let mut list = match this.map(Self::get::<Value>).transpose()? {
            None => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(CodecError::new("the value is not a list")),
        };
        list.push(item.get()?);
        Self::new(&Value::Array(list))
    }
}

impl Eq for Encoded {}

impl PartialEq for Encoded {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

/// Its length only: values may be secrets.
impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} bytes)", self.as_bytes().len())
    }
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
    fn another_crate_writes_the_same_values() {
        fn same<T: Serialize + ?Sized>(value: &T) {
            let mut other = Vec::new();
            ciborium::into_writer(value, &mut other).unwrap();
            assert_eq!(encode(value).unwrap(), other);
        }
        for number in [0_i64, 23, 24, 255, 256, 65_535, 65_536, i64::MAX, -1, -24, -25, i64::MIN] {
            same(&number);
        }
        same("text ✓");
        same(&(true, None::<u8>, Some(1.5), 0.1, f64::INFINITY, 'x', ()));
        same(&vec!["a"; 30]);
        same(&std::collections::BTreeMap::from([("one", vec![1_u8]), ("two", vec![])]));
    }

    #[test]
    fn equal_values_have_equal_bytes() {
        assert_eq!(Encoded::new(&1_u8).unwrap(), Encoded::new(&1_i64).unwrap());
        assert_eq!(Encoded::add(None, 5).unwrap(), Encoded::new(&5_u32).unwrap());
    }
}
