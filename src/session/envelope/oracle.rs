//! The same encoding by serde and another crate, which know nothing of ours: for tests.

use std::collections::BTreeMap;

use ciborium::Value;
use serde::{Deserialize, Serialize};

use crate::session::Record;
use crate::session::codec::Encoded;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    u: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<String>,
    c: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    i: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    l: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    v: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    f: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    t: Vec<String>,
}

/// What the other crate writes.
pub(crate) fn write(record: &Record) -> Vec<u8> {
    let values = |map: &BTreeMap<String, Encoded>| {
        map.iter().map(|(key, value)| (key.clone(), Value::Bytes(value.as_bytes().to_vec()))).collect()
    };
    let plain = Plain {
        u: record.user.clone(),
        a: record.remote_address.map(|address| address.to_string()),
        c: record.created,
        i: record.idle,
        e: record.ends,
        l: record.lifetime,
        v: values(&record.values),
        f: values(&record.flash),
        t: record.tokens.clone(),
    };
    let mut bytes = Vec::new();
    ciborium::into_writer(&plain, &mut bytes).expect("a record can be written");
    bytes
}

/// Whether the other crate reads the same from these bytes.
pub(crate) fn reads(bytes: &[u8], record: &Record) -> bool {
    let Ok(plain) = ciborium::from_reader::<Plain, _>(bytes) else { return false };
    let same = |map: &BTreeMap<String, Encoded>, other: &BTreeMap<String, Value>| {
        map.len() == other.len()
            && map.iter().zip(other).all(|((key, value), (other_key, other))| {
                key == other_key && other.as_bytes().is_some_and(|other| other == value.as_bytes())
            })
    };
    plain.u == record.user
        && plain.a.map(|address| address.parse().ok()) == record.remote_address.map(Some)
        && (plain.c, plain.i, plain.e, plain.l) == (record.created, record.idle, record.ends, record.lifetime)
        && same(&record.values, &plain.v)
        && same(&record.flash, &plain.f)
        && plain.t == record.tokens
}
