//! Each process takes one system call at a time, in every order, and any of them may be killed before each.

use crate::file::{File, Look, Record, Unit};
use crate::guards::Guard;
use crate::power::write_back;
use crate::scenario::{At, EVERYBODY, POWER, Process, Role, Scenario, State, Step, TIME};

impl Scenario {
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
                    Role::Reader { .. } => At::Size,
                    Role::Saver { optimistic: true, .. } => At::Snapshot,
                    _ => At::Lock,
                };
                next.processes[i] = Process { at: then, ..Process::new(then, process.saves) };
                if matches!(role, Role::Reader { .. }) {
                    next.processes[i].told = state.acknowledged.max(state.told);
                    next.processes[i].gone = state.ended;
                }
                if then == At::Done {
                    next.processes[i] = Process::new(At::Done, 0);
                    if state.created {
                        next.told_gone(self);
                    }
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
                        next.told_gone(self);
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
                        let then = after_look(file, at, wide, without);
                        me(&mut next, if self.settles(file, without) { At::SyncCurrent } else { then });
                    }
                    Role::Deleter => me(&mut next, self.end(file, without)),
                    Role::Renewer if removed(Guard::NewBeforeOld) => me(&mut next, self.end(file, without)),
                    Role::Renewer => me(&mut next, At::Create),
                    _ => unreachable!("takes no lock so"),
                }
            }
            At::Copy => {
                what = "begins to copy B to A";
                next.file.units[0] = file.units[0].torn();
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
                    At::SyncCurrent => after_look(file, process.slot, process.record.wide, without),
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
                next.file.units[usize::from(at)] = file.units[usize::from(at)].torn();
                let covers = file.covers_next(at, process.record.wide);
                if covers {
                    next.file.units[1] = file.units[1].torn();
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
            At::Answer if matches!(role, Role::Saver { .. }) => {
                what = "is told that it is saved";
                if state.ended || !file.linked {
                    steps.push(Err((i, "a save is acknowledged after the session's end".into())));
                    return;
                }
                if !removed(Guard::WriteBeforeAnswer) {
                    next.acknowledged += 1;
                }
                next.tell(process.record.value);
                me(&mut next, At::Unlock);
            }
            At::Answer => {
                what = "is told that it is done";
                next.ended = true;
                me(&mut next, At::Unlock);
            }
            At::Unlock => {
                what = "gives the lock back";
                next.free(i);
                let left = process.saves.saturating_sub(1);
                next.processes[i] = Process::new(if left > 0 { At::Open } else { At::Done }, left);
            }
            At::Size | At::HeaderA | At::HeaderB | At::Prove | At::SlotA | At::SlotB | At::LookLocked => {
                return self.read(state, i, without, steps);
            }
            At::Create => {
                what = "creates the new file";
                me(&mut next, At::Complete);
            }
            At::Complete => {
                what = "has the new record complete";
                next.new = Some(process.record.value);
                me(&mut next, if removed(Guard::NewBeforeOld) { At::Answer } else { self.end(file, without) });
            }
            At::Bury => {
                what = "begins to write a tombstone";
                next.ending = true;
                let at = file.other(process.slot);
                next.file.units[usize::from(at)] = file.units[usize::from(at)].torn();
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
                let failed = if removed(Guard::Tombstone) { None } else { Some(next) };
                (next.file.named, next.file.linked) = (false, false);
                let then = match role {
                    Role::Renewer if removed(Guard::NewBeforeOld) => At::Create,
                    _ if self.power() => At::SyncDirectory,
                    _ => At::Answer,
                };
                if let Some(mut failed) = failed {
                    // The session has ended all the same; its name is left to the sweep.
                    me(&mut failed, then);
                    steps.push(Ok((i, "cannot unlink", failed)));
                }
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

    /// Whether something is to be on disk before more is written.
    fn settles(&self, file: &File, without: Option<Guard>) -> bool {
        self.power() && without != Some(Guard::SyncCurrent)
            || self.cut.is_some() && file.is_growing() && without != Some(Guard::SyncGrown)
    }

    /// How the end of a session begins.
    fn end(&self, file: &File, without: Option<Guard>) -> At {
        match without {
            Some(Guard::Tombstone) => At::Unlink,
            _ if self.settles(file, without) => At::SyncCurrent,
            _ => At::Bury,
        }
    }
}

/// How a save goes on when it knows where the current record is.
fn after_look(file: &File, at: u8, wide: bool, without: Option<Guard>) -> At {
    match (wide && file.capacity == 1, at) {
        (false, _) => At::Write,
        (true, 1) if without != Some(Guard::Copy) => At::Copy,
        (true, _) => At::Extend,
    }
}
