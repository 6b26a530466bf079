use super::*;
use crate::session::Expiry;

fn full() -> Record {
    let mut record = Record::new(1_700_000_000_000, "192.0.2.1".parse().ok(), Expiry::default());
    record.user = Some("ada".into());
    record.values.insert("visits".into(), Encoded::new(&3).unwrap());
    record.flash.insert("note".into(), Encoded::new("saved").unwrap());
    record.tokens.push("t".into());
    record.accessed = 0;
    record
}

/// Records of all sizes that a head can tell, and of all addresses that are written by hand.
fn many() -> Vec<Record> {
    let empty = Record { accessed: 0, ..Record::new(5, None, Expiry::NEVER) };
    let mut all = vec![full(), empty.clone()];
    for byte in [0, 9, 10, 99, 100, 255] {
        let remote_address = format!("{byte}.1.20.{byte}").parse().ok();
        all.push(Record { remote_address, ..empty.clone() });
    }
    all.push(Record { remote_address: "2001:db8::1".parse().ok(), ..full() });
    for number in [0, 23, 24, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
        let idle = u32::try_from(number).ok();
        all.push(Record { created: number, ends: Some(number), lifetime: Some(number), idle, ..empty.clone() });
    }
    for length in [0, 23, 24, 255, 256, LARGE - 4, LARGE - 3, LARGE, 65_535, 65_536] {
        let (text, count) = ("x".repeat(length), length.min(300));
        let mut record = Record { user: Some(text.clone()), ..full() };
        record.tokens = vec![text.clone(); 2];
        record.values = (0..count).map(|n| (format!("{n}{text}"), Encoded::new(&n).unwrap())).collect();
        record.flash.insert("long".into(), Encoded::new(&text).unwrap());
        record.values.insert("long".into(), Encoded::new(&text).unwrap());
        all.push(record);
    }
    // More large values than are left where they are.
    let large = Encoded::new(&"y".repeat(LARGE)).unwrap();
    let values = (0..PIECES + 5).map(|n| (n.to_string(), large.clone())).collect();
    all.push(Record { values, ..full() });
    all
}

#[test]
fn another_crate_writes_the_same_and_reads_the_same() {
    for record in many() {
        let bytes = record.encode();
        assert!(bytes == oracle::write(&record), "{record:?}");
        assert!(oracle::reads(&bytes, &record), "{record:?}");
        assert_eq!(Record::decode(&bytes).unwrap(), record);
    }
}

#[test]
fn the_pieces_are_the_encoding_behind_what_is_the_callers() {
    for record in many() {
        let mut encoding = record.encode_after(7);
        assert_eq!(encoding.first_mut()[..7], [0; 7]);
        let bytes: Vec<u8> = encoding.pieces().flatten().copied().collect();
        assert!(bytes[7..] == record.encode());
        assert_eq!(encoding.len(), bytes.len());
        let values = record.values.values().chain(record.flash.values());
        let large = values.filter(|value| value.as_bytes().len() >= LARGE).count();
        assert_eq!(encoding.large.len(), large.min(PIECES));
        assert_eq!(encoding.as_slice().is_some(), large == 0);
    }
}

#[test]
fn what_is_read_is_a_part_of_its_buffer() {
    let record = full();
    let buffer: Arc<[u8]> = [b"before".as_slice(), &record.encode(), b"behind"].concat().into();
    let read = Record::decode_part(&buffer, 6..buffer.len() - 6).unwrap();
    assert_eq!(read, record);
    assert!(buffer.as_ptr_range().contains(&read.values["visits"].as_bytes().as_ptr()));
    assert!(Record::decode_part(&buffer, 6..buffer.len()).is_err());
    assert!(Record::decode_part(&buffer, 6..buffer.len() + 1).is_err());
}

#[test]
fn every_truncation_and_every_flipped_bit_is_an_error_or_a_record() {
    let bytes = full().encode();
    for end in 0..bytes.len() {
        assert!(Record::decode(&bytes[..end]).is_err());
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            // What is not refused, the other crate reads as well.
            if let Ok(record) = Record::decode(&damaged) {
                assert!(oracle::reads(&damaged, &record), "{damaged:x?}");
            }
        }
    }
}

/// As `file-format.md` says, for whoever reads a file by that page.
#[test]
fn the_address_is_text() {
    let bytes = full().encode();
    let text = b"\x61a\x69192.0.2.1";
    assert!(bytes.windows(text.len()).any(|window| window == text), "{bytes:x?}");
}

#[test]
fn what_is_no_record_is_refused_and_says_why() {
    for (bytes, why) in [
        // {"c": 0, "v": {"k": h'01', "k": h'02'}}
        (&b"\xa2\x61c\x00\x61v\xa2\x61k\x41\x01\x61k\x41\x02"[..], "repeated key"),
        (b"\xa2\x61c\x00\x61c\x00", "repeated field"),
        (b"\xa2\x61c\x00\x61x\x00", "unknown field"),
        (b"\xa2\x61c\x00\x62cc\x00", "unknown field"),
        (b"\xa0", "no time of creation"),
        (b"\xa1\x61c\x00\x00", "bytes after the record"),
        (b"\xbf\x61c\x00\xff", "indefinite length"),
        (b"\x81\x00", "unexpected type"),
        (b"\xa1\x61c\x20", "unexpected type"),
        (b"\xa2\x61c\x00\x61a\x61x", "not an address"),
        (b"\xa2\x61c\x00\x61u\x61\xff", "not UTF-8"),
        (b"\xa2\x61c\x00\x61i\x1b\0\0\0\x01\0\0\0\0", "idle timeout out of range"),
        // Of lengths that nobody could keep nothing is believed.
        (b"\xa2\x61c\x00\x61u\x7b\xff\xff\xff\xff\xff\xff\xff\xff", "ends too early"),
        (b"\xa2\x61c\x00\x61t\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "ends too early"),
        (b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x61c\x00", "ends too early"),
        (b"", "ends too early"),
    ] {
        assert_eq!(Record::decode(bytes).unwrap_err().to_string(), why, "{bytes:x?}");
    }
}
