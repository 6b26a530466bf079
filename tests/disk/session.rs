//! Sessions whose content tells which save it is of, and whether it is whole.

use ciborium::Value;
use cloakroom::session::{Id, Record};

/// The record of save `n` of this session, with so many bytes of padding that only this save has.
pub fn record(id: &Id, n: u64, size: usize) -> Record {
    let encoded = |value: Value| {
        let mut bytes = Vec::new();
        ciborium::into_writer(&value, &mut bytes).expect("encode");
        Value::Bytes(bytes)
    };
    let values = vec![
        ("counter".into(), encoded(Value::from(n))),
        ("keep".into(), encoded(Value::from(true))),
        ("pad".into(), encoded(padding(id, n, size).into())),
    ];
    let record = vec![
        ("c".into(), Value::from(1_700_000_000_000_u64)),
        ("e".into(), Value::from(u64::MAX)),
        ("v".into(), Value::Map(values)),
    ];
    let mut encoding = Vec::new();
    ciborium::into_writer(&Value::Map(record), &mut encoding).expect("encode");
    Record::decode(&encoding).expect("a record")
}

/// The record of a session that is over.
pub fn over() -> Record {
    let mut encoding = Vec::new();
    let record = vec![("c".into(), Value::from(1)), ("e".into(), Value::from(1))];
    ciborium::into_writer(&Value::Map(record), &mut encoding).expect("encode");
    Record::decode(&encoding).expect("a record")
}

fn padding(id: &Id, n: u64, size: usize) -> String {
    let mut pad = format!("{}-{n}-", &*id.to_text()).repeat(size / 34 + 1);
    pad.truncate(size);
    pad
}

/// Which save a record is of; `None` where it is not what any save wrote.
pub fn number(id: &Id, record: &Record) -> Option<u64> {
    let n = record.get::<u64>("counter").ok()??;
    let pad = record.get::<String>("pad").ok()??;
    (pad == padding(id, n, pad.len())).then_some(n)
}

/// Numbers that are the same each time (xorshift64*).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}
