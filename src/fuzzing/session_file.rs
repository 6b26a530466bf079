//! A session file, and the record within.

use crate::session::{Record, oracle};
use crate::store::check_session_file;

/// The file as it is, a good file that these bytes damage, and a slot with a right checksum around them; in all of them
/// the record that is read.
pub(super) fn session_file(data: &[u8]) {
    check_session_file(data, &mut record);
    record(data);
}

/// A record is refused, or is the same after it was written again.
fn record(bytes: &[u8]) {
    let Ok(record) = Record::decode(bytes) else { return };
    assert!(Record::decode(&[bytes, &[0]].concat()).is_err(), "what follows a record is no part of it");
    let again = record.encode();
    assert_eq!(Record::decode(&again).expect("what was written can be read"), record);
    // Another crate writes the same bytes, and reads the same from them.
    assert_eq!(again, oracle::write(&record));
    assert!(oracle::reads(&again, &record) && oracle::reads(bytes, &record));
    for key in record.keys() {
        let _ = record.get::<String>(key);
        let _ = record.get::<Vec<u8>>(key);
        let _ = record.get::<std::collections::BTreeMap<String, Option<f64>>>(key);
    }
    let _ = (record.has_info(), record.ends(), record.created(), record.idle_timeout(), record.accessed());
    let _ = record.is_expired(std::time::SystemTime::now());
}
