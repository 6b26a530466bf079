//! A session file as far as the protocol goes: three units of space, what is in them, and what a look at them tells.
//!
//! With slots of one unit A is unit 0 and B is unit 1; once the file has grown, A is units 0 and 1, and B begins at
//! unit 2. What a write does is two steps: first what it covers is torn, then it is there.

use crate::guards::Guard;

/// What a unit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    Blank,
    /// Half of something old and half of something new, with the sequence that was here before: the header may be the old
    /// one still, the new one already, or neither.
    Torn(u8),
    /// The middle of a value that an application made look like a slot, checksum and all; only the mark is not ours.
    Fake,
    Record(Record),
}

impl Unit {
    /// What it is while something is being written over it.
    pub fn torn(self) -> Self {
        match self {
            Self::Record(record) => Self::Torn(record.sequence),
            Self::Torn(before) => Self::Torn(before),
            Self::Blank | Self::Fake => Self::Torn(0),
        }
    }
}

/// A record: how often the session was saved, as the header says and as the payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub sequence: u8,
    pub value: u8,
    /// Larger than a slot of one unit.
    pub wide: bool,
    pub tombstone: bool,
}

/// The value of what nobody saved.
pub const NOWHERE: u8 = 99;

const FAKE: Record = Record { sequence: NOWHERE, value: NOWHERE, wide: false, tombstone: false };

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct File {
    /// Units of a slot; 0 for a file in the making.
    pub capacity: u8,
    pub units: [Unit; 3],
    /// Its name is in the directory.
    pub named: bool,
    /// Its link count is not 0; a file that was set aside has another name.
    pub linked: bool,
    /// It was used since the sweep's age began.
    pub fresh: bool,
}

/// As in `A=3 B=2*`: the saves in each slot, `*` a wide record, `+` a tombstone, `?` torn, `!` a fake.
impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, unit) in self.units.iter().enumerate() {
            let name = match i {
                0 => "A",
                _ if i == usize::from(self.capacity) => "B",
                _ => "-",
            };
            match unit {
                Unit::Blank => write!(f, "{name}=. ")?,
                Unit::Torn(_) => write!(f, "{name}=? ")?,
                Unit::Fake => write!(f, "{name}=! ")?,
                Unit::Record(Record { tombstone: true, .. }) => write!(f, "{name}=+ ")?,
                Unit::Record(record) => write!(f, "{name}={}{} ", record.value, if record.wide { "*" } else { "" })?,
            }
        }
        f.write_str(match (self.named, self.fresh) {
            (false, _) => "(no name)",
            (true, false) => "(old)",
            (true, true) => "",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Current { at: u8, record: Record, certain: bool },
    Blank,
    Bad,
}

impl File {
    pub const MISSING: Self = Self { capacity: 0, units: [Unit::Blank; 3], named: false, linked: false, fresh: true };

    /// A session with its first record.
    pub fn new() -> Self {
        let first = Record { sequence: 1, value: 0, wide: false, tombstone: false };
        Self {
            capacity: 1,
            units: [Unit::Record(first), Unit::Blank, Unit::Blank],
            named: true,
            linked: true,
            fresh: true,
        }
    }

    /// Who sees it at rest.
    pub fn look(&self, without: Option<Guard>) -> Look {
        look(self.capacity, self.units[0], self.units[usize::from(self.capacity)], without)
    }

    /// It has grown, and nothing was written since: by whoever made it grow, or by whoever comes after his death.
    pub fn is_growing(&self) -> bool {
        matches!(self.units, [Unit::Record(Record { wide: false, .. }), _, Unit::Blank]) && self.capacity == 2
    }

    /// Where the record goes that follows the one at `at`.
    pub fn other(&self, at: u8) -> u8 {
        if at == 0 { self.capacity } else { 0 }
    }

    /// Whether a record there reaches into the unit behind.
    pub fn covers_next(&self, at: u8, wide: bool) -> bool {
        wide && at == 0 && self.capacity == 2
    }
}

/// What the first bytes of a slot say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Blank,
    /// Nothing that could be believed.
    Odd,
    /// A record with this sequence.
    Is(u8),
    /// The header of what is just being written: later than this.
    After(u8),
}

impl Unit {
    /// All that its header may look like, read with this capacity.
    pub fn headers(self, capacity: u8, without: Option<Guard>) -> Vec<Header> {
        match self {
            Self::Blank => vec![Header::Blank],
            Self::Record(record) if record.wide && capacity == 1 => vec![Header::Odd],
            Self::Record(record) => vec![Header::Is(record.sequence)],
            Self::Fake if without == Some(Guard::Mark) => vec![Header::Is(NOWHERE)],
            Self::Fake => vec![Header::Odd],
            Self::Torn(0) => vec![Header::Odd, Header::After(0)],
            Self::Torn(before) => vec![Header::Odd, Header::Is(before), Header::After(before)],
        }
    }
}

/// Which of two slots is likely to be current by their headers, and its least sequence (`slot::Likely`).
pub fn likely(capacity: u8, a: Header, b: Header, without: Option<Guard>) -> Option<(u8, u8)> {
    match (a, b) {
        (Header::Is(a), _) if without == Some(Guard::BothHeaders) => Some((0, a)),
        (Header::Is(_), Header::After(b)) => Some((capacity, b)),
        (Header::Is(a), Header::Is(b)) if b > a => Some((capacity, b)),
        (Header::Is(a), Header::Is(_) | Header::Blank)
        | (Header::After(a), Header::Is(_) | Header::After(_) | Header::Blank) => Some((0, a)),
        _ => None,
    }
}

/// The record in the slot that was likely, if it proves so (`Likely::prove`).
pub fn prove(capacity: u8, unit: Unit, least: u8, without: Option<Guard>) -> Option<Record> {
    match unit {
        Unit::Record(record) => ((!record.wide || capacity == 2) && record.sequence >= least).then_some(record),
        Unit::Fake if without == Some(Guard::Mark) => Some(FAKE),
        Unit::Torn(_) if without == Some(Guard::Checksum) => Some(FAKE),
        _ => None,
    }
}

/// What two slots tell that were read with this capacity (`slot::look`).
pub fn look(capacity: u8, a: Unit, b: Unit, without: Option<Guard>) -> Look {
    if capacity == 0 {
        return Look::Blank;
    }
    let fits = |unit| match unit {
        Unit::Record(record) => (!record.wide || capacity == 2).then_some((record, true)),
        Unit::Fake => Some((FAKE, false)),
        Unit::Torn(_) if without == Some(Guard::Checksum) => Some((FAKE, true)),
        Unit::Torn(_) | Unit::Blank => None,
    };
    match (fits(a), fits(b)) {
        (Some((_, ours)), Some((_, also))) if ours != also && without != Some(Guard::Mark) => Look::Bad,
        (Some((a, _)), Some((b, _))) if b.sequence > a.sequence => {
            Look::Current { at: capacity, record: b, certain: true }
        }
        (Some((record, _)), other) => Look::Current { at: 0, record, certain: other.is_some() || b == Unit::Blank },
        (None, Some((record, _))) => Look::Current { at: capacity, record, certain: a == Unit::Blank },
        (None, None) if (a, b) == (Unit::Blank, Unit::Blank) => Look::Blank,
        (None, None) => Look::Bad,
    }
}
