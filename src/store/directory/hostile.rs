//! What must hold for a session file of any bytes.

use super::slot::{self, HEADER, Header, Look, MIN_CAPACITY};
use crate::session::Id;

const OLD: &[u8] = b"old record";
const NEW: &[u8] = b"new record, a bit longer";

fn id() -> Id {
    Id::parse("00112233445566778899aabbccddeeff").expect("an ID")
}

/// Reads session files made of `data`; `record` is given the payload of every slot that passes.
pub(crate) fn check_session_file(data: &[u8], record: &mut dyn FnMut(&[u8])) {
    if let Look::Current { payload, .. } = slot::look(&id(), data) {
        record(payload);
    }
    damaged(data);
    whole(data, record);
}

/// A good file in which `data` replaces bytes: two of place and one of value each. It is the old record, the new one, or
/// none, and never another.
fn damaged(data: &[u8]) {
    let header = |sequence| Header { sequence, mark: 5, tombstone: false, ends: None, idle: Some(60) };
    let mut file = vec![0; 2 * MIN_CAPACITY];
    for (at, bytes) in [(0, slot::encode(&id(), header(1), OLD)), (MIN_CAPACITY, slot::encode(&id(), header(2), NEW))] {
        file[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    for edit in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % file.len();
        file[at] = edit[2];
    }
    if let Look::Current { header, payload, .. } = slot::look(&id(), &file) {
        assert!((header.sequence, payload) == (1, OLD) || (header.sequence, payload) == (2, NEW));
        assert!((header.mark, header.tombstone, header.ends, header.idle) == (5, false, None, Some(60)));
    }
}

/// A slot that was completed: 32 bytes of `data` are its header, what follows is the payload. Only who can write to the
/// directory gets so far.
fn whole(data: &[u8], record: &mut dyn FnMut(&[u8])) {
    let Some((fields, payload)) = data.split_at_checked(32) else { return };
    let payload = &payload[..payload.len().min(MIN_CAPACITY - HEADER)];
    let number = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("8 bytes"));
    let header = Header {
        sequence: number(0),
        mark: number(8),
        tombstone: number(16) & 1 == 1,
        ends: Some(number(16) >> 1).filter(|&ends| ends != 0),
        idle: u32::try_from(number(24)).ok().filter(|&idle| idle != 0),
    };
    let mut file = slot::encode(&id(), header, payload);
    file.resize(2 * MIN_CAPACITY, 0);
    match slot::look(&id(), &file) {
        Look::Current { header: read, payload: bytes, certain, .. } => {
            assert!(read == header && bytes == payload && certain);
            record(bytes);
        }
        other => panic!("a good slot is {other:?}"),
    }
}
