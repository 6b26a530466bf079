//! A sweep, a touch, and a creation, which nobody but a sweep can meet.

use crate::file::{Look, Record, Unit};
use crate::guards::Guard;
use crate::scenario::{At, Process, Role, Scenario, State, Step};

impl Scenario {
    pub fn sweep(&self, state: &State, i: usize, without: Option<Guard>, steps: &mut Vec<Step>) {
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
                (next.file.named, next.file.linked, next.ending) = (false, false, true);
                leave(&mut next);
                "unlinks"
            }
        };
        steps.push(Ok((i, what, next)));
    }

    pub fn create(&self, state: &State, i: usize, without: Option<Guard>, steps: &mut Vec<Step>) {
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
                (next.file.units[0], next.file.fresh) = (Unit::Torn(0), true);
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
