//! Who does what: each process one system call at a time, in every order, and any of them may be killed before each.

use crate::file::{File, Look, NOWHERE, Record, Unit, look};
use crate::guards::Guard;

/// What a process does.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Saves so many times, each record wide or not; with the lock from the start or with a look before it.
    Saver {
        wide: &'static [bool],
        optimistic: bool,
    },
    /// Loads without a lock.
    Reader,
    Deleter,
    /// Gives the session another ID.
    Renewer,
    /// Deletes what was not used since its age began.
    Sweeper,
    /// Sets the time without a lock.
    Toucher,
    Creator,
}

/// Where a process is: what it does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
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
struct Process {
    at: At,
    saves: u8,
    record: Record,
    slot: u8,
    /// What had been acknowledged when a read began.
    acknowledged: u8,
    gone: bool,
    capacity: u8,
    linked: bool,
    a: Unit,
    before: Option<(u8, Unit, Unit)>,
    looks: u8,
}

const NOTHING: Record = Record { sequence: 0, value: 0, wide: false, tombstone: false };

impl Process {
    fn new(at: At, saves: u8) -> Self {
        Self {
            at,
            saves,
            record: NOTHING,
            slot: 0,
            acknowledged: 0,
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
    disk: File,
    lock: Option<u8>,
    processes: [Process; 3],
    /// The file of a new ID, if it is complete: the value in it.
    new: Option<u8>,
    acknowledged: u8,
    created: bool,
    /// Its end has begun: until that is acknowledged it may have come or not.
    ending: bool,
    /// The end was acknowledged.
    ended: bool,
    kills: u8,
    hours: u8,
}

/// What may happen to whom.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub roles: [Option<Role>; 3],
    /// How many processes may be killed.
    pub kills: u8,
    /// How often the session grows old.
    pub hours: u8,
    /// Whether there may be a power cut, and if so, whether `Durability::Power` is to hold.
    pub cut: Option<bool>,
}

/// Who does what, and what is then; or who does what must not be.
type Step = Result<(usize, &'static str, State), (usize, String)>;

// Who is no process.
const KERNEL: usize = 3;
const TIME: usize = 4;
const POWER: usize = 5;
const EVERYBODY: usize = 6;

impl Scenario {
    pub fn first(&self) -> State {
        let creation = self.roles.iter().any(|role| matches!(role, Some(Role::Creator)));
        let file = if creation { File::MISSING } else { File::new() };
        let start = |role: Option<Role>| match role {
            None => Process::new(At::Done, 0),
            Some(Role::Saver { wide, .. }) => Process::new(At::Open, wide.len() as u8),
            Some(Role::Reader | Role::Deleter | Role::Renewer) => Process::new(At::Open, 0),
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
            created: !creation,
            ending: false,
            ended: false,
            kills: self.kills,
            hours: self.hours,
        }
    }

    fn power(&self) -> bool {
        self.cut == Some(true)
    }

    fn most(&self) -> u8 {
        let saves = |role: &Option<Role>| match role {
            Some(Role::Saver { wide, .. }) => wide.len() as u8,
            _ => 0,
        };
        self.roles.iter().map(saves).sum()
    }

    fn has(&self, is: impl Fn(&Role) -> bool) -> bool {
        self.roles.iter().flatten().any(is)
    }

    /// What must never be, whoever looks.
    pub fn bad(&self, state: &State, without: Option<Guard>) -> Option<String> {
        let file = &state.file;
        let may_end = self.has(|role| matches!(role, Role::Deleter | Role::Sweeper | Role::Renewer));
        let alive = if !file.named {
            None
        } else {
            match file.look(without) {
                Look::Current { record, .. } if record.tombstone => None,
                Look::Current { record, .. } => Some(record.value),
                Look::Blank | Look::Bad if !state.created => None,
                Look::Blank | Look::Bad => return Some("there is no good slot".into()),
            }
        };
        if let Some(value) = alive {
            if state.ended {
                return Some("a session is there after its end was acknowledged".into());
            }
            if value < state.acknowledged {
                return Some(format!("save {} was acknowledged and is lost: {value}", state.acknowledged));
            }
            if value > self.most() {
                return Some("what nobody saved".into());
            }
        } else if state.created && !may_end {
            return Some("the session is not there, and nobody ended it".into());
        }
        if self.has(|role| matches!(role, Role::Renewer))
            && !self.has(|role| matches!(role, Role::Deleter | Role::Sweeper))
            && alive.is_none()
            && state.new.is_none_or(|value| value < state.acknowledged)
        {
            return Some("neither the old ID nor the new one has all that was acknowledged".into());
        }
        None
    }

    pub fn steps(&self, state: &State, without: Option<Guard>) -> Vec<Step> {
        let mut steps = Vec::new();
        for i in 0..3 {
            self.process(state, i, without, &mut steps);
        }
        if steps.is_empty() && state.processes.iter().any(|process| process.at != At::Done) {
            steps.push(Err((EVERYBODY, "everybody waits for a lock whose holder is gone".into())));
        }
        if state.kills > 0 {
            for i in 0..3 {
                if state.processes[i].at != At::Done {
                    let mut next = *state;
                    next.kills -= 1;
                    if without != Some(Guard::FreedByDeath) {
                        next.free(i);
                    }
                    next.processes[i] = Process::new(At::Done, 0);
                    steps.push(Ok((i, "is killed", next)));
                }
            }
        }
        if state.hours > 0 && state.file.named && state.file.fresh {
            let mut next = *state;
            next.hours -= 1;
            next.file.fresh = false;
            steps.push(Ok((TIME, "passes", next)));
        }
        if self.cut.is_some() {
            write_back(state, &mut steps);
            if let Some(bad) = self.cut_now(state) {
                steps.push(Err((POWER, bad)));
            }
        }
        steps
    }

    /// The name of process `i`, or of what is none.
    pub fn who(&self, i: usize) -> String {
        let role = match *self.roles.get(i).unwrap_or(&None) {
            Some(Role::Saver { optimistic: true, .. }) => "optimistic saver",
            Some(Role::Saver { .. }) => "saver",
            Some(Role::Reader) => "reader",
            Some(Role::Deleter) => "deleter",
            Some(Role::Renewer) => "renewer",
            Some(Role::Sweeper) => "sweeper",
            Some(Role::Toucher) => "toucher",
            Some(Role::Creator) => "creator",
            None => return ["the kernel", "time", "a power cut", "everybody"][i - KERNEL].to_owned(),
        };
        format!("{role} {i}")
    }

    /// The worst that a power cut could leave now, if that is bad: of each unit that is not on disk the old, the new or
    /// half of both; of length and name the old or the new.
    fn cut_now(&self, state: &State) -> Option<String> {
        let (file, disk) = (&state.file, &state.disk);
        let ways = |i: usize| {
            if file.units[i] == disk.units[i] {
                vec![file.units[i]]
            } else {
                vec![disk.units[i], file.units[i], Unit::Torn]
            }
        };
        for a in ways(0) {
            for b in ways(1) {
                for c in ways(2) {
                    for capacity in [disk.capacity, file.capacity] {
                        for named in [disk.named, file.named] {
                            let after = File { capacity, units: [a, b, c], named, linked: named, fresh: true };
                            if let Some(bad) = self.bad_after_cut(state, &after) {
                                return Some(format!("{bad}; left: {after}"));
                            }
                        }
                    }
                }
            }
        }
        None
    }

    fn bad_after_cut(&self, state: &State, after: &File) -> Option<String> {
        // A file at rest: the second look is the same as the first.
        let found = match after.look(None) {
            Look::Current { record, .. } if after.named && !record.tombstone => Some(record.value),
            _ => None,
        };
        match found {
            Some(NOWHERE) => Some("what nobody saved is read back".into()),
            Some(_) if state.ended => Some("an acknowledged end is undone".into()),
            Some(value) if self.power() && value < state.acknowledged => Some("an acknowledged save is lost".into()),
            None if self.power() && state.created && state.new.is_none() && !state.ending => {
                Some("the session is lost".into())
            }
            _ => None,
        }
    }

    /// What process `i` can do next.
    #[allow(clippy::too_many_lines)] // One table.
    fn process(&self, state: &State, i: usize, without: Option<Guard>, steps: &mut Vec<Step>) {
        let (Some(role), process) = (self.roles[i], state.processes[i]) else { return };
        let removed = |guard| without == Some(guard);
        let file = &state.file;
        let mut next = *state;
        let me = |next: &mut State, at| next.processes[i].at = at;
        let what;
        match process.at {
            At::Done => return,
            At::Open => {
                what = "opens";
                let then = match role {
                    _ if !file.named => At::Done,
                    Role::Reader => At::Size,
                    Role::Saver { optimistic: true, .. } => At::Snapshot,
                    _ => At::Lock,
                };
                next.processes[i] = Process { at: then, ..Process::new(then, process.saves) };
                next.processes[i].acknowledged = state.acknowledged;
                next.processes[i].gone = state.ended;
                if !matches!(role, Role::Reader) {
                    (next.processes[i].acknowledged, next.processes[i].gone) = (0, false);
                }
                if then == At::Done {
                    next.processes[i] = Process::new(At::Done, 0);
                }
            }
            // As a read without a lock gives it; that those are right is what the readers show.
            At::Snapshot => {
                what = "loads";
                match file.look(without) {
                    Look::Current { record, .. } if !record.tombstone && file.linked => {
                        next.processes[i].record = record;
                        me(&mut next, At::Lock);
                    }
                    _ => next.processes[i] = Process::new(At::Done, 0),
                }
            }
            At::Lock => {
                if state.lock.is_some() && !removed(Guard::Lock) {
                    return;
                }
                what = "has the lock";
                next.lock = Some(i as u8);
                me(&mut next, At::Look);
            }
            At::Look => {
                what = "looks under the lock";
                let (at, record) = match file.look(without) {
                    Look::Current { at, record, .. }
                        if !record.tombstone && (file.linked || removed(Guard::LinkCount)) =>
                    {
                        (at, record)
                    }
                    _ => {
                        next.free(i);
                        next.processes[i] = Process::new(At::Done, 0);
                        steps.push(Ok((i, "finds it gone", next)));
                        return;
                    }
                };
                next.processes[i].slot = at;
                let base = process.record;
                next.processes[i].record = record;
                match role {
                    Role::Saver { wide, optimistic } => {
                        if optimistic && base.sequence != record.sequence && !removed(Guard::Version) {
                            next.free(i);
                            next.processes[i] = Process::new(At::Open, process.saves);
                            steps.push(Ok((i, "meets a conflict", next)));
                            return;
                        }
                        let value = if optimistic { base.value } else { record.value };
                        let wide = wide[wide.len() - usize::from(process.saves)];
                        next.processes[i].record =
                            Record { sequence: record.sequence + 1, value: value + 1, wide, tombstone: false };
                        let then = self.after_look(file, at, wide, without);
                        // Where nothing is to be synced, the next step is the one after it.
                        let sync = self.power() && !removed(Guard::SyncCurrent);
                        me(&mut next, if sync { At::SyncCurrent } else { then });
                    }
                    Role::Deleter => me(&mut next, self.end(without)),
                    Role::Renewer if removed(Guard::NewBeforeOld) => me(&mut next, self.end(without)),
                    Role::Renewer => me(&mut next, At::Create),
                    _ => unreachable!("takes no lock so"),
                }
            }
            At::Copy => {
                what = "begins to copy B to A";
                next.file.units[0] = Unit::Torn;
                me(&mut next, At::Copied);
            }
            At::Copied => {
                what = "has copied B to A";
                next.file.units[0] = file.units[1];
                me(&mut next, if self.power() && !removed(Guard::SyncCopy) { At::SyncCopy } else { At::Extend });
            }
            At::Extend => {
                what = "sets the new length";
                next.file.capacity = 2;
                next.processes[i].slot = 0;
                let sync = self.cut.is_some() && !removed(Guard::SyncLength);
                me(&mut next, if sync { At::SyncLength } else { At::Write });
            }
            At::SyncCurrent | At::SyncCopy | At::SyncLength | At::SyncSave | At::SyncTombstone | At::SyncFirst => {
                what = "fdatasync";
                (next.disk.units, next.disk.capacity) = (file.units, file.capacity);
                let then = match process.at {
                    At::SyncCurrent if !matches!(role, Role::Saver { .. }) => At::Bury,
                    At::SyncCurrent => self.after_look(file, process.slot, process.record.wide, without),
                    At::SyncCopy => At::Extend,
                    At::SyncLength => At::Write,
                    At::SyncSave => At::Answer,
                    At::SyncTombstone => At::Unlink,
                    _ if removed(Guard::SyncDirectory) => At::LinkCount,
                    _ => At::SyncDirectory,
                };
                me(&mut next, then);
            }
            At::Write => {
                what = "begins to write";
                let at = if removed(Guard::OtherSlot) { process.slot } else { file.other(process.slot) };
                next.file.units[usize::from(at)] = Unit::Torn;
                let covers = file.covers_next(at, process.record.wide);
                if covers {
                    next.file.units[1] = Unit::Torn;
                }
                next.file.fresh = true;
                next.processes[i].slot = at;
                if removed(Guard::WriteBeforeAnswer) {
                    next.acknowledged += 1;
                }
                me(&mut next, if covers { At::Cover } else { At::Written });
            }
            At::Cover => {
                what = "writes on";
                next.file.units[1] = Unit::Fake;
                me(&mut next, At::Written);
            }
            At::Written => {
                what = "has written";
                next.file.units[usize::from(process.slot)] = Unit::Record(process.record);
                me(&mut next, if self.power() && !removed(Guard::SyncSave) { At::SyncSave } else { At::Answer });
            }
            At::Answer => match role {
                Role::Saver { .. } => {
                    what = "is told that it is saved";
                    if state.ended || !file.linked {
                        steps.push(Err((i, "a save is acknowledged after the session's end".into())));
                        return;
                    }
                    if !removed(Guard::WriteBeforeAnswer) {
                        next.acknowledged += 1;
                    }
                    me(&mut next, At::Unlock);
                }
                _ => {
                    what = "is told that it is done";
                    next.ended = true;
                    me(&mut next, At::Unlock);
                }
            },
            At::Unlock => {
                what = "gives the lock back";
                next.free(i);
                let left = process.saves.saturating_sub(1);
                next.processes[i] = Process::new(if left > 0 { At::Open } else { At::Done }, left);
            }
            At::Size | At::SlotA | At::SlotB | At::LookLocked => return self.read(state, i, without, steps),
            At::Create => {
                what = "creates the new file";
                me(&mut next, At::Complete);
            }
            At::Complete => {
                what = "has the new record complete";
                next.new = Some(process.record.value);
                me(&mut next, if removed(Guard::NewBeforeOld) { At::Answer } else { self.end(without) });
            }
            At::Bury => {
                what = "begins to write a tombstone";
                next.ending = true;
                let at = file.other(process.slot);
                next.file.units[usize::from(at)] = Unit::Torn;
                next.file.fresh = true;
                next.processes[i].slot = at;
                me(&mut next, At::Buried);
            }
            At::Buried => {
                what = "has written a tombstone";
                let tombstone =
                    Record { sequence: process.record.sequence + 1, value: 0, wide: false, tombstone: true };
                next.file.units[usize::from(process.slot)] = Unit::Record(tombstone);
                let sync = self.cut.is_some() && !removed(Guard::SyncTombstone);
                me(&mut next, if sync { At::SyncTombstone } else { At::Unlink });
            }
            At::Unlink => {
                what = "unlinks";
                next.ending = true;
                (next.file.named, next.file.linked) = (false, false);
                let then = match role {
                    Role::Renewer if removed(Guard::NewBeforeOld) => At::Create,
                    _ if self.power() => At::SyncDirectory,
                    _ => At::Answer,
                };
                me(&mut next, then);
            }
            At::SyncDirectory => {
                what = "fsync of the directory";
                next.disk.named = file.named;
                me(&mut next, if matches!(role, Role::Creator) { At::LinkCount } else { At::Answer });
            }
            At::Stat | At::Glance | At::TryLock | At::Judge | At::Time | At::Sweep => {
                return self.sweep(state, i, without, steps);
            }
            At::Make | At::Hold | At::Length | At::First | At::FirstWritten | At::LinkCount => {
                return self.create(state, i, without, steps);
            }
        }
        steps.push(Ok((i, what, next)));
    }

    /// How the end of a session begins.
    fn end(&self, without: Option<Guard>) -> At {
        match without {
            Some(Guard::Tombstone) => At::Unlink,
            _ if self.power() && without != Some(Guard::SyncCurrent) => At::SyncCurrent,
            _ => At::Bury,
        }
    }

    /// How a save goes on when it knows where the current record is.
    fn after_look(&self, file: &File, at: u8, wide: bool, without: Option<Guard>) -> At {
        match (wide && file.capacity == 1, at) {
            (false, _) => At::Write,
            (true, 1) if without != Some(Guard::Copy) => At::Copy,
            (true, _) => At::Extend,
        }
    }

    fn read(&self, state: &State, i: usize, without: Option<Guard>, steps: &mut Vec<Step>) {
        let (file, process) = (&state.file, state.processes[i]);
        let mut next = *state;
        let me = &mut next.processes[i];
        let (what, found) = match process.at {
            At::Size => {
                (me.at, me.capacity, me.linked) = (At::SlotA, file.capacity, file.linked);
                ("asks for the length", None)
            }
            At::SlotA => {
                (me.at, me.a) = (At::SlotB, file.units[0]);
                ("reads slot A", None)
            }
            At::SlotB => {
                let look_now = (process.capacity, process.a, file.units[usize::from(process.capacity)]);
                let settled = process.before == Some(look_now) || without == Some(Guard::SecondLook);
                match look(look_now.0, look_now.1, look_now.2, without) {
                    Look::Current { record, certain, .. } if certain || settled => ("reads slot B", Some(Some(record))),
                    Look::Blank => ("reads slot B", Some(None)),
                    Look::Bad if settled => {
                        me.at = At::LookLocked;
                        ("reads slot B", None)
                    }
                    Look::Current { .. } | Look::Bad => {
                        (me.at, me.a, me.before, me.looks) = (At::Size, Unit::Blank, Some(look_now), process.looks + 1);
                        if me.looks == 3 {
                            me.at = At::LookLocked;
                        }
                        ("reads slot B, and has to look again", None)
                    }
                }
            }
            _ => {
                if state.lock.is_some() && without != Some(Guard::Lock) {
                    return;
                }
                me.linked = file.linked;
                match file.look(without) {
                    Look::Current { record, .. } => ("looks under the lock", Some(Some(record))),
                    Look::Blank | Look::Bad => ("looks under the lock", Some(None)),
                }
            }
        };
        if let Some(record) = found {
            let linked = next.processes[i].linked;
            let bad = match record {
                Some(record) if record.tombstone || !linked => None,
                None if !linked => None,
                None => Some("takes a good session for none".to_owned()),
                Some(record) if record.value == NOWHERE => Some("reads what nobody saved".to_owned()),
                Some(_) if process.gone => Some("reads a session whose end was acknowledged before".to_owned()),
                Some(record) if record.value < process.acknowledged => {
                    Some(format!("reads {} after {} was acknowledged", record.value, process.acknowledged))
                }
                Some(_) => None,
            };
            if let Some(bad) = bad {
                steps.push(Err((i, bad)));
                return;
            }
            next.processes[i] = Process::new(At::Done, 0);
        }
        steps.push(Ok((i, what, next)));
    }

    fn sweep(&self, state: &State, i: usize, without: Option<Guard>, steps: &mut Vec<Step>) {
        let (file, at) = (&state.file, state.processes[i].at);
        let mut next = *state;
        let leave = |next: &mut State| {
            next.free(i);
            next.processes[i] = Process::new(At::Done, 0);
        };
        let what = match at {
            At::Stat if matches!(self.roles[i], Some(Role::Toucher)) => {
                // Between a sweep's last look at the time and its unlink it comes too late, and is not told so.
                let late = state.processes.iter().any(|process| process.at == At::Sweep);
                next.file.fresh = file.fresh || file.named && !late;
                leave(&mut next);
                "touches"
            }
            At::Stat | At::Glance if !file.named || file.fresh => {
                leave(&mut next);
                "leaves it"
            }
            At::Stat => {
                next.processes[i].at = At::Glance;
                "sees by its time that it is old"
            }
            At::Glance => {
                next.processes[i].at = At::TryLock;
                "opens and glances"
            }
            At::TryLock if state.lock.is_some() && without != Some(Guard::SweepLock) => {
                leave(&mut next);
                "finds it in use"
            }
            At::TryLock => {
                if without != Some(Guard::SweepLock) {
                    next.lock = Some(i as u8);
                }
                next.processes[i].at = if without == Some(Guard::SweepLook) { At::Sweep } else { At::Judge };
                "has the lock"
            }
            At::Judge if !file.linked || file.fresh => {
                leave(&mut next);
                "leaves it after a look under the lock"
            }
            At::Judge => match file.look(without) {
                Look::Bad => {
                    next.file.named = false;
                    leave(&mut next);
                    "sets it aside as damaged"
                }
                Look::Current { .. } | Look::Blank => {
                    next.processes[i].at = At::Time;
                    "looks under the lock"
                }
            },
            At::Time if file.fresh && without != Some(Guard::SweepTime) => {
                leave(&mut next);
                "sees that it was touched meanwhile"
            }
            At::Time => {
                next.processes[i].at = At::Sweep;
                "looks at the time once more"
            }
            _ => {
                let alive = matches!(file.look(without), Look::Current { record, .. } if !record.tombstone);
                if file.named && file.fresh && alive {
                    steps.push(Err((i, "sweeps a session that was used".into())));
                    return;
                }
                (next.file.named, next.file.linked) = (false, false);
                leave(&mut next);
                "unlinks"
            }
        };
        steps.push(Ok((i, what, next)));
    }

    fn create(&self, state: &State, i: usize, without: Option<Guard>, steps: &mut Vec<Step>) {
        let (file, at) = (&state.file, state.processes[i].at);
        let mut next = *state;
        let first = Record { sequence: 1, value: 0, wide: false, tombstone: false };
        let (what, then) = match at {
            At::Make => {
                (next.file.named, next.file.linked, next.file.fresh) = (true, true, true);
                ("makes the file", if without == Some(Guard::CreateLock) { At::Length } else { At::Hold })
            }
            At::Hold if state.lock.is_some() => return,
            At::Hold => {
                next.lock = Some(i as u8);
                ("has the lock", At::Length)
            }
            At::Length => {
                (next.file.capacity, next.file.fresh) = (1, true);
                ("sets the length", At::First)
            }
            At::First => {
                (next.file.units[0], next.file.fresh) = (Unit::Torn, true);
                ("begins to write", At::FirstWritten)
            }
            At::FirstWritten => {
                next.file.units[0] = Unit::Record(first);
                ("has written", if self.power() { At::SyncFirst } else { At::LinkCount })
            }
            _ if !file.linked && without != Some(Guard::CreateLinkCount) => {
                next.free(i);
                ("finds that the file is gone, and says so", At::Done)
            }
            _ if !file.named => {
                steps.push(Err((i, "a creation is acknowledged, and there is no file".into())));
                return;
            }
            _ => {
                next.created = true;
                ("is told that it is created", At::Unlock)
            }
        };
        next.processes[i].at = then;
        steps.push(Ok((i, what, next)));
    }
}

impl State {
    fn free(&mut self, i: usize) {
        if self.lock == Some(i as u8) {
            self.lock = None;
        }
    }
}

/// The kernel writes to disk what it likes, when it likes.
fn write_back(state: &State, steps: &mut Vec<Step>) {
    let mut push = |next| steps.push(Ok((KERNEL, "writes something back", next)));
    for unit in 0..3 {
        if state.disk.units[unit] != state.file.units[unit] {
            let mut next = *state;
            next.disk.units[unit] = state.file.units[unit];
            push(next);
        }
    }
    if state.disk.capacity != state.file.capacity {
        let mut next = *state;
        next.disk.capacity = state.file.capacity;
        push(next);
    }
    if state.disk.named != state.file.named {
        let mut next = *state;
        next.disk.named = state.file.named;
        push(next);
    }
}
