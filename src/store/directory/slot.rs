//! One slot of a session file: 64 bytes of header, then the payload. `src/docs/file-format.md` has it byte by byte.
//!
//! Pure: bytes in, a verdict out. Every input gives one, without a panic.

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::session::{Encoding, Id, Millis};

/// Bytes of a slot's header.
pub(super) const HEADER: usize = 64;
/// The smallest slot; two of them fill one page.
pub(super) const MIN_CAPACITY: usize = 2048;
/// The largest slot, and so the largest record with its header.
pub(super) const MAX_CAPACITY: usize = 4 << 20;

const MAGIC: [u8; 4] = *b"CLKR";
const FORMAT: u16 = 1;
const TOMBSTONE: u16 = 1;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sequence: u64,
    /// Drawn when the file is made, and the same in both slots. Where a file is growing, a reader may look for a slot
    /// in the middle of a value; what an application keeps there cannot pass for one, as nobody is told the mark.
    pub(super) mark: u64,
    /// The session was deleted.
    pub(super) tombstone: bool,
    /// The absolute end.
    pub(super) ends: Option<Millis>,
    /// The idle timeout in seconds, from the file's modification time on.
    pub(super) idle: Option<u32>,
}

/// The verdict on one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot<'a> {
    /// A complete record or tombstone of this session.
    Good(Header, &'a [u8]),
    /// Never written.
    Blank,
    /// Whole, but of a format that this program does not know.
    Foreign(u16),
    /// Anything else: a save that did not finish, one that is going on, or damage.
    Bad,
}

/// The capacity that a record with a payload of this many bytes needs, if there is one so large.
pub(super) fn capacity_for(payload: usize) -> Option<usize> {
    let needed = payload.checked_add(HEADER)?.checked_next_power_of_two()?.max(MIN_CAPACITY);
    (needed <= MAX_CAPACITY).then_some(needed)
}

/// The capacity of a file of this length, if a session file can have it.
pub(super) fn capacity_of(length: u64) -> Option<usize> {
    let capacity = usize::try_from(length / 2).ok()?;
    (length.is_multiple_of(2) && capacity.is_power_of_two() && (MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity))
        .then_some(capacity)
}

/// Completes a slot: its header goes before the record's encoding, which leaves [`HEADER`] bytes for it.
pub(super) fn seal(id: &Id, header: Header, encoding: &mut Encoding) {
    let length = encoding.len() - HEADER;
    encoding.first_mut()[..HEADER].copy_from_slice(&unsealed(id, header, length));
    if encoding.as_slice().is_some() {
        return sign(encoding.first_mut());
    }
    let mut hash = Xxh3Default::new();
    let mut pieces = encoding.pieces();
    hash.update(&pieces.next().expect("the header")[8..]);
    pieces.for_each(|piece| hash.update(piece));
    let checksum = hash.digest();
    encoding.first_mut()[..8].copy_from_slice(&checksum.to_le_bytes());
}

/// The slot that says that the session was deleted.
pub(super) fn tombstone(id: &Id, sequence: u64, mark: u64) -> [u8; HEADER] {
    let mut bytes = unsealed(id, Header { sequence, mark, tombstone: true, ends: None, idle: None }, 0);
    sign(&mut bytes);
    bytes
}

/// Puts the checksum of a slot's bytes in its place.
fn sign(bytes: &mut [u8]) {
    let checksum = xxh3_64(&bytes[8..]);
    bytes[..8].copy_from_slice(&checksum.to_le_bytes());
}

/// A header without its checksum.
fn unsealed(id: &Id, header: Header, length: usize) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(8, &MAGIC);
    put(12, &FORMAT.to_le_bytes());
    put(14, &(if header.tombstone { TOMBSTONE } else { 0 }).to_le_bytes());
    put(16, id.as_bytes());
    put(32, &header.sequence.to_le_bytes());
    put(40, &header.ends.map_or(0, |ends| ends.max(1)).to_le_bytes());
    put(48, &header.idle.map_or(0, |idle| idle.max(1)).to_le_bytes());
    put(52, &u32::try_from(length).expect("capacity is limited").to_le_bytes());
    put(56, &header.mark.to_le_bytes());
    bytes
}

/// A slot with any payload.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn encode(id: &Id, header: Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&unsealed(id, header, payload.len()), payload].concat();
    sign(&mut bytes);
    bytes
}

/// Judges the bytes of one slot.
pub(super) fn decode<'a>(id: &Id, bytes: &'a [u8]) -> Slot<'a> {
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else { return Slot::Bad };
    if header.iter().all(|&b| b == 0) {
        return Slot::Blank;
    }
    let length = u32::from_le_bytes(field(header, 52)) as usize;
    let Some(payload) = rest.get(..length) else { return Slot::Bad };
    if header[8..12] != MAGIC || xxh3_64(&bytes[8..HEADER + length]) != u64::from_le_bytes(field(header, 0)) {
        return Slot::Bad;
    }
    let format = u16::from_le_bytes(field(header, 12));
    if format != FORMAT {
        return Slot::Foreign(format);
    }
    let flags = u16::from_le_bytes(field(header, 14));
    // A file under another session's name would hand out somebody else's coat.
    if header[16..32] != *id.as_bytes() || flags & !TOMBSTONE != 0 {
        return Slot::Bad;
    }
    Slot::Good(fields(header), payload)
}

fn fields(header: &[u8]) -> Header {
    Header {
        sequence: u64::from_le_bytes(field(header, 32)),
        tombstone: u16::from_le_bytes(field(header, 14)) & TOMBSTONE != 0,
        ends: Some(u64::from_le_bytes(field(header, 40))).filter(|&ends| ends != 0),
        idle: Some(u32::from_le_bytes(field(header, 48))).filter(|&idle| idle != 0),
        mark: u64::from_le_bytes(field(header, 56)),
    }
}

/// What the header of a slot says of itself, unproven: enough to decide whether the file is worth a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glance {
    Header(Header),
    Blank,
    /// Nothing that could be believed.
    Odd,
}

/// Glances at the first [`HEADER`] bytes of a slot.
pub(super) fn glance(id: &Id, header: &[u8; HEADER]) -> Glance {
    if header.iter().all(|&b| b == 0) {
        Glance::Blank
    } else if header[8..12] != MAGIC || header[12..14] != FORMAT.to_le_bytes() || header[16..32] != *id.as_bytes() {
        Glance::Odd
    } else {
        Glance::Header(fields(header))
    }
}

/// The slot that is current as far as the headers of both can tell, and what proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Likely {
    pub(super) side: Side,
    /// Bytes of its header and payload.
    pub(super) length: usize,
    /// What its header says.
    header: Header,
    /// The other slot is blank.
    is_alone: bool,
}

impl Likely {
    /// `None` where only a look at the whole file can tell.
    pub(super) fn of(id: &Id, capacity: usize, a: &[u8; HEADER], b: &[u8; HEADER]) -> Option<Self> {
        let (side, header, is_alone) = match (glance(id, a), glance(id, b)) {
            (Glance::Header(x), Glance::Header(y)) if x.mark != y.mark => return None,
            (Glance::Header(x), Glance::Header(y)) if y.sequence > x.sequence => (Side::B, y, false),
            (Glance::Header(x), Glance::Header(_)) => (Side::A, x, false),
            (Glance::Header(x), Glance::Blank) => (Side::A, x, true),
            _ => return None,
        };
        let bytes = if side == Side::A { a } else { b };
        let length = HEADER + u32::from_le_bytes(field(bytes, 52)) as usize;
        (length <= capacity).then_some(Self { side, length, header, is_alone })
    }

    /// The header of `slot`, read after both headers, if that is the current one. Its payload is the rest.
    pub(super) fn prove(&self, id: &Id, slot: &[u8]) -> Option<Header> {
        match decode(id, slot) {
            Slot::Good(header, payload) if HEADER + payload.len() == slot.len() => {
                (header.mark == self.header.mark && header.sequence >= self.header.sequence).then_some(header)
            }
            _ => None,
        }
    }

    /// What a look at the whole file would tell, now that it is proven.
    pub(super) fn look<'a>(&self, header: Header, capacity: usize, payload: &'a [u8]) -> Look<'a> {
        let growing = is_growing(self.side, self.is_alone, payload, capacity);
        Look::Current { side: self.side, header, payload, certain: true, growing }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes")
}

/// Which of the two slots, A at the start of the file or B in its middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    A,
    B,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Where the slot begins in a file with slots of this capacity.
    pub(super) fn offset(self, capacity: usize) -> usize {
        match self {
            Self::A => 0,
            Self::B => capacity,
        }
    }
}

/// What a look at a whole file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look<'a> {
    /// The current record is this one. `certain`: the other slot is good or blank, so one look is enough; else a save
    /// that died cannot be told from saves that race past, and only an equal second look makes it certain. `growing`: the
    /// file has grown, and nothing was written since.
    Current { side: Side, header: Header, payload: &'a [u8], certain: bool, growing: bool },
    /// Nothing was ever completed here.
    Blank,
    /// A format that this program does not know.
    Foreign(u16),
    /// No good slot, and not blank.
    Bad,
}

/// Whether a file has grown and nothing was written since: a new one is as large as its first record needs, so one that is
/// larger has grown. `is_alone`: the other slot is blank.
fn is_growing(side: Side, is_alone: bool, payload: &[u8], capacity: usize) -> bool {
    side == Side::A && is_alone && capacity_for(payload.len()) != Some(capacity)
}

/// Looks at the bytes of a whole file.
pub(super) fn look<'a>(id: &Id, file: &'a [u8]) -> Look<'a> {
    let Some(capacity) = capacity_of(file.len() as u64) else {
        return if file.iter().all(|&b| b == 0) { Look::Blank } else { Look::Bad };
    };
    let (a, b) = (decode(id, &file[..capacity]), decode(id, &file[capacity..]));
    let (side, slot, other) = match (a, b) {
        (Slot::Foreign(format), _) | (_, Slot::Foreign(format)) => return Look::Foreign(format),
        // One of the two is no slot of this file: its length was read before a growth, and the slots after it.
        (Slot::Good(x, _), Slot::Good(y, _)) if x.mark != y.mark => return Look::Bad,
        (Slot::Good(x, _), Slot::Good(y, _)) if y.sequence > x.sequence => (Side::B, b, a),
        (Slot::Good(..), _) => (Side::A, a, b),
        (_, Slot::Good(..)) => (Side::B, b, a),
        (Slot::Blank, Slot::Blank) => return Look::Blank,
        _ => return Look::Bad,
    };
    let Slot::Good(header, payload) = slot else { return Look::Bad };
    let growing = is_growing(side, other == Slot::Blank, payload, capacity);
    Look::Current { side, header, payload, certain: other != Slot::Bad, growing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Id {
        Id::parse("00112233445566778899aabbccddeeff").unwrap()
    }

    fn header(sequence: u64) -> Header {
        Header { sequence, mark: 5, tombstone: false, ends: Some(7), idle: None }
    }

    fn file(a: Option<(u64, &[u8])>, b: Option<(u64, &[u8])>) -> Vec<u8> {
        let mut file = vec![0; 2 * MIN_CAPACITY];
        for (slot, at) in [(a, 0), (b, MIN_CAPACITY)] {
            if let Some((sequence, payload)) = slot {
                let bytes = encode(&id(), header(sequence), payload);
                file[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        file
    }

    fn current(file: &[u8]) -> Option<(Side, u64, &[u8], bool)> {
        match look(&id(), file) {
            Look::Current { side, header, payload, certain, .. } => Some((side, header.sequence, payload, certain)),
            _ => None,
        }
    }

    #[test]
    fn capacities_are_powers_of_two_from_a_half_page_on() {
        assert_eq!(capacity_for(0), Some(2048));
        assert_eq!(capacity_for(2048 - HEADER), Some(2048));
        assert_eq!(capacity_for(2048 - HEADER + 1), Some(4096));
        assert_eq!(capacity_for(MAX_CAPACITY - HEADER), Some(MAX_CAPACITY));
        assert_eq!(capacity_for(MAX_CAPACITY - HEADER + 1), None);
        assert_eq!(capacity_for(usize::MAX), None);
        assert_eq!(capacity_of(4096), Some(2048));
        for length in [0, 1, 2048, 4095, 4097, 6144, u64::MAX] {
            assert_eq!(capacity_of(length), None, "{length}");
        }
    }

    /// What only the headers and the current slot tell is what the whole file tells.
    #[test]
    fn what_is_likely_and_proven_is_what_a_whole_look_tells() {
        const CAPACITY: usize = 4 * MIN_CAPACITY;
        let slot = |header: Header, payload: usize| encode(&id(), header, &vec![header.sequence as u8; payload]);
        let with = |mut slot: Vec<u8>, at: usize, byte: u8| {
            slot[at] ^= byte;
            slot
        };
        let mut slots =
            vec![vec![], slot(Header { tombstone: true, ..header(9) }, 0), slot(Header { mark: 6, ..header(7) }, 9)];
        for sequence in 1..=4 {
            for payload in [0, 100, MIN_CAPACITY, CAPACITY - HEADER] {
                let good = slot(header(sequence), payload);
                // Checksum, magic, format, ID, sequence, length, and, where there is one, payload.
                slots.extend([0, 8, 12, 16, 32, 52].map(|at| with(good.clone(), at, 1)));
                slots.extend((payload > 0).then(|| with(good.clone(), HEADER + payload - 1, 1)));
                slots.push(good);
            }
        }
        let mut foreign = slot(header(3), 5);
        foreign[12] = 2;
        sign(&mut foreign);
        slots.push(foreign);
        let mut proven = 0;
        for a in &slots {
            for b in &slots {
                let mut file = vec![0; 2 * CAPACITY];
                file[..a.len()].copy_from_slice(a);
                file[CAPACITY..CAPACITY + b.len()].copy_from_slice(b);
                let (first, second) =
                    (file[..HEADER].try_into().unwrap(), file[CAPACITY..][..HEADER].try_into().unwrap());
                let Some(likely) = Likely::of(&id(), CAPACITY, &first, &second) else { continue };
                let bytes = &file[likely.side.offset(CAPACITY)..][..likely.length];
                let Some(header) = likely.prove(&id(), bytes) else { continue };
                proven += 1;
                let Look::Current { side, payload, growing, .. } = look(&id(), &file) else {
                    panic!("{likely:?}: {:?}", look(&id(), &file));
                };
                let whole = Look::Current { side, header, payload, certain: true, growing };
                assert_eq!(likely.look(header, CAPACITY, &bytes[HEADER..]), whole);
            }
        }
        // All of what is usual: two good slots, or one and a blank one.
        assert!(proven >= 16 * 16 + 16, "{proven}");
    }

    #[test]
    fn the_good_slot_with_the_higher_sequence_is_current() {
        assert_eq!(current(&file(Some((1, b"one")), None)), Some((Side::A, 1, &b"one"[..], true)));
        assert_eq!(current(&file(Some((1, b"one")), Some((2, b"two")))), Some((Side::B, 2, &b"two"[..], true)));
        assert_eq!(current(&file(Some((3, b"three")), Some((2, b"two")))), Some((Side::A, 3, &b"three"[..], true)));
        assert_eq!(look(&id(), &file(None, None)), Look::Blank);
        assert_eq!(look(&id(), b""), Look::Blank);
    }

    #[test]
    fn a_file_that_has_grown_is_told_from_a_new_one() {
        let growing = |a: &[u8], b: Option<&[u8]>, capacity: usize| {
            let mut bytes = vec![0; 2 * capacity];
            for (sequence, payload, at) in [(1, Some(a), 0), (2, b, capacity)] {
                let slot = payload.map_or(Vec::new(), |payload| encode(&id(), header(sequence), payload));
                bytes[at..at + slot.len()].copy_from_slice(&slot);
            }
            matches!(look(&id(), &bytes), Look::Current { growing: true, .. })
        };
        let (narrow, wide) = (&[1; MIN_CAPACITY - HEADER][..], &[1; MIN_CAPACITY][..]);
        assert!(!growing(narrow, None, MIN_CAPACITY) && !growing(wide, None, 2 * MIN_CAPACITY));
        assert!(growing(narrow, None, 2 * MIN_CAPACITY) && growing(wide, None, 4 * MIN_CAPACITY));
        assert!(!growing(narrow, Some(narrow), 2 * MIN_CAPACITY));
    }

    /// Scoreboard row: whatever byte is changed, a reader sees one of the two records whole, or says that it cannot.
    #[test]
    fn no_flipped_bit_makes_another_record() {
        let good = file(Some((1, b"old record")), Some((2, b"new record")));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                match current(&bytes) {
                    Some((Side::A, 1, b"old record", certain)) => assert!(!certain),
                    Some((Side::B, 2, b"new record", _)) => {}
                    other => panic!("byte {at} bit {bit}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn no_truncation_makes_another_record() {
        let good = file(Some((1, b"old record")), Some((2, b"new record")));
        for end in 1..good.len() {
            assert_eq!(current(&good[..end]), None, "{end}");
        }
    }

    #[test]
    fn a_torn_save_leaves_the_old_record() {
        let old = file(Some((1, b"old record")), Some((2, b"new record")));
        let next = encode(&id(), header(3), b"newest record, a bit longer");
        for cut in 1..next.len() {
            let mut bytes = old.clone();
            bytes[..cut].copy_from_slice(&next[..cut]);
            assert!(matches!(current(&bytes), Some((Side::B, 2, b"new record", _))), "{cut}");
        }
    }

    #[test]
    fn another_sessions_file_is_not_ours() {
        let other = Id::parse("ffffffffffffffffffffffffffffffff").unwrap();
        assert_eq!(look(&other, &file(Some((1, b"coat")), None)), Look::Bad);
    }

    /// A reader that took the length before a growth sees the old A, and where B was the middle of a value.
    #[test]
    fn a_value_cannot_pass_for_a_slot() {
        let mut bytes = file(Some((3, b"old record")), None);
        let forged = encode(&id(), Header { mark: 6, ..header(1000) }, b"user: admin");
        bytes[MIN_CAPACITY..MIN_CAPACITY + forged.len()].copy_from_slice(&forged);
        assert_eq!(look(&id(), &bytes), Look::Bad);
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let mut bytes = encode(&id(), header(1), b"x");
        bytes[12] = 2;
        sign(&mut bytes);
        assert_eq!(decode(&id(), &bytes), Slot::Foreign(2));
    }

    #[test]
    fn a_glance_believes_only_this_sessions_header() {
        let good: [u8; HEADER] = encode(&id(), header(1), b"")[..].try_into().unwrap();
        assert_eq!(glance(&id(), &good), Glance::Header(header(1)));
        assert_eq!(glance(&id(), &[0; HEADER]), Glance::Blank);
        for at in [8, 12, 13, 16, 31] {
            let mut bytes = good;
            bytes[at] ^= 1;
            assert_eq!(glance(&id(), &bytes), Glance::Odd, "{at}");
        }
    }

    #[test]
    fn header_fields_come_back() {
        for header in [
            Header { sequence: u64::MAX, mark: 0, tombstone: true, ends: None, idle: None },
            Header { sequence: 0, mark: u64::MAX, tombstone: false, ends: Some(u64::MAX), idle: Some(u32::MAX) },
        ] {
            assert_eq!(decode(&id(), &encode(&id(), header, b"p")), Slot::Good(header, b"p"));
        }
    }
}
