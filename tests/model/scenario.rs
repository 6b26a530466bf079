//! Who does what, what is remembered of it, and what must never be.

use crate::file::{File, Look, Record, Unit};
use crate::guards::Guard;

/// What a process does.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Saves so many times, each record wide or not; with the lock from the start or with a look before it.
    Saver {
        wide: &'static [bool],
        optimistic: bool,
    },
    /// Loads without a lock, of a large file only what is likely to be current where that proves to be so.
    Reader {
        skips: bool,
    },
    Deleter,
    /// Gives the session another ID.
    Renewer,
    /// Deletes what was not used since its age began.
    Sweeper,
    /// Sets the time without a lock.
    Toucher,
    Creator,
}

impl Role {
    fn name(&self) -> &'static str {
        match self {
            Self::Saver { optimistic: true, .. } => "optimistic saver",
            Self::Saver { .. } => "saver",
            Self::Reader { skips: false } => "reader",
            Self::Reader { skips: true } => "reader of one slot",
            Self::Deleter => "deleter",
            Self::Renewer => "renewer",
            Self::Sweeper => "sweeper",
            Self::Toucher => "toucher",
            Self::Creator => "creator",
        }
    }

    /// `n` for each narrow record, `W` for each wide one.
    fn saves(&self) -> String {
        let Self::Saver { wide, .. } = self else { return String::new() };
        " ".chars().chain(wide.iter().map(|&wide| if wide { 'W' } else { 'n' })).collect()
    }
}

/// Where a process is: what it does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    Open,
    Snapshot,
    Lock,
    Look,
    SyncCurrent,
    Copy,
    Copied,
    SyncCopy,
    Extend,
    SyncLength,
    Write,
    Cover,
    Written,
    SyncSave,
    Answer,
    Unlock,
    // A reader.
    Size,
    HeaderA,
    HeaderB,
    Prove,
    SlotA,
    SlotB,
    LookLocked,
    // A deletion, and the end of a renewal.
    Create,
    Complete,
    Bury,
    Buried,
    SyncTombstone,
    Unlink,
    SyncDirectory,
    // A sweep.
    Stat,
    Glance,
    TryLock,
    Judge,
    Time,
    Sweep,
    // A creation.
    Make,
    Hold,
    Length,
    First,
    FirstWritten,
    SyncFirst,
    LinkCount,
    Done,
}

/// A process and what it remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub at: At,
    pub saves: u8,
    pub record: Record,
    pub slot: u8,
    /// What anybody had been told when a read began.
    pub told: u8,
    pub gone: bool,
    pub capacity: u8,
    pub linked: bool,
    pub a: Unit,
    pub before: Option<(u8, Unit, Unit)>,
    pub looks: u8,
}

const NOTHING: Record = Record { sequence: 0, value: 0, wide: false, tombstone: false };

impl Process {
    pub fn new(at: At, saves: u8) -> Self {
        Self {
            at,
            saves,
            record: NOTHING,
            slot: 0,
            told: 0,
            gone: false,
            capacity: 0,
            linked: false,
            a: Unit::Blank,
            before: None,
            looks: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub file: File,
    /// What a power cut leaves; the same as `file` where there is none to come.
    pub disk: File,
    pub lock: Option<u8>,
    pub processes: [Process; 3],
    /// The file of a new ID, if it is complete: the value in it.
    pub new: Option<u8>,
    /// How many saves were acknowledged.
    pub acknowledged: u8,
    /// The highest value that anybody was told, by a save or, where there is no power cut, by a read.
    pub told: u8,
    pub created: bool,
    /// Its end has begun: until that is acknowledged it may have come or not.
    pub ending: bool,
    /// The end was acknowledged, or somebody found the session gone.
    pub ended: bool,
    pub kills: u8,
    pub hours: u8,
}

/// What may happen to whom.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub roles: [Option<Role>; 3],
    /// How many processes may be killed.
    pub kills: u8,
    /// How often the session grows old.
    pub hours: u8,
    /// Whether there may be a power cut, and if so, whether `Durability::Power` is to hold.
    pub cut: Option<bool>,
}

/// Who does what, and what is then; or who does what must not be.
pub type Step = Result<(usize, &'static str, State), (usize, String)>;

// Who is no process.
pub const KERNEL: usize = 3;
pub const TIME: usize = 4;
pub const POWER: usize = 5;
pub const EVERYBODY: usize = 6;

impl Scenario {
    pub fn first(&self) -> State {
        let creation = self.roles.iter().any(|role| matches!(role, Some(Role::Creator)));
        let file = if creation { File::MISSING } else { File::new() };
        let start = |role: Option<Role>| match role {
            None => Process::new(At::Done, 0),
            Some(Role::Saver { wide, .. }) => Process::new(At::Open, wide.len() as u8),
            Some(Role::Reader { .. } | Role::Deleter | Role::Renewer) => Process::new(At::Open, 0),
            Some(Role::Sweeper | Role::Toucher) => Process::new(At::Stat, 0),
            Some(Role::Creator) => Process::new(At::Make, 0),
        };
        State {
            file,
            disk: file,
            lock: None,
            processes: self.roles.map(start),
            new: None,
            acknowledged: 0,
            told: 0,
            created: !creation,
            ending: false,
            ended: false,
            kills: self.kills,
            hours: self.hours,
        }
    }

    pub fn power(&self) -> bool {
        self.cut == Some(true)
    }

    pub fn most(&self) -> u8 {
        let saves = |role: &Option<Role>| match role {
            Some(Role::Saver { wide, .. }) => wide.len() as u8,
            _ => 0,
        };
        self.roles.iter().map(saves).sum()
    }

    pub fn has(&self, is: impl Fn(&Role) -> bool) -> bool {
        self.roles.iter().flatten().any(is)
    }

    /// What must never be, whoever looks.
    pub fn bad(&self, state: &State, without: Option<Guard>) -> Option<String> {
        let file = &state.file;
        let alive = if file.named {
            match file.look(without) {
                Look::Current { record, .. } if record.tombstone => None,
                Look::Current { record, .. } => Some(record.value),
                Look::Blank | Look::Bad if !state.created => None,
                Look::Blank | Look::Bad => return Some("there is no good slot".into()),
            }
        } else {
            None
        };
        let least = state.acknowledged.max(state.told);
        if let Some(value) = alive {
            if state.ended {
                return Some("a session is there after its end was told".into());
            }
            if value < least {
                return Some(format!("somebody was told of save {least}, and it is lost: {value}"));
            }
            if value > self.most() {
                return Some("what nobody saved".into());
            }
        } else if state.created && !state.ending {
            return Some("the session is not there, and nobody ended it".into());
        }
        if self.has(|role| matches!(role, Role::Renewer))
            && !self.has(|role| matches!(role, Role::Deleter | Role::Sweeper))
            && alive.is_none()
            && state.new.is_none_or(|value| value < least)
        {
            return Some("neither the old ID nor the new one has all that was told".into());
        }
        None
    }

    pub fn title(&self) -> String {
        let roles = self.roles.iter().flatten().map(|role| role.name().to_owned() + &role.saves());
        let kind = match self.cut {
            None => "",
            Some(true) => " at `Power`",
            Some(false) => " at `Process`",
        };
        roles.collect::<Vec<_>>().join(", ") + kind
    }

    /// The name of process `i`, or of what is none.
    pub fn who(&self, i: usize) -> String {
        match self.roles.get(i) {
            Some(Some(role)) => format!("{} {i}", role.name()),
            _ => ["the kernel", "time", "a power cut", "everybody"][i - KERNEL].to_owned(),
        }
    }
}

impl State {
    /// Somebody was told this value.
    pub fn tell(&mut self, value: u8) {
        self.told = self.told.max(value);
    }

    /// What a power cut may undo, as nobody acknowledged it, is nothing that was told for good.
    pub fn told_gone(&mut self, scenario: &Scenario) {
        self.ended |= scenario.cut.is_none();
    }

    pub fn free(&mut self, i: usize) {
        if self.lock == Some(i as u8) {
            self.lock = None;
        }
    }
}
