//! A reader, who takes no lock unless it has to.

use crate::file::{Look, NOWHERE, Unit, likely, look, prove};
use crate::guards::Guard;
use crate::scenario::{At, Process, Role, Scenario, State, Step};

impl Scenario {
    pub fn read(&self, state: &State, i: usize, without: Option<Guard>, steps: &mut Vec<Step>) {
        let (file, process) = (&state.file, state.processes[i]);
        let mut next = *state;
        let me = &mut next.processes[i];
        let (what, found) = match process.at {
            At::Size => {
                let skips = matches!(self.roles[i], Some(Role::Reader { skips: true }));
                // It looks again at the whole file.
                let first = if skips && file.capacity > 0 && me.looks == 0 { At::HeaderA } else { At::SlotA };
                (me.at, me.capacity, me.linked) = (first, file.capacity, file.linked);
                ("asks for the length", None)
            }
            At::HeaderA => {
                (me.at, me.a) = (At::HeaderB, file.units[0]);
                ("reads the header of A", None)
            }
            At::HeaderB => {
                let b = file.units[usize::from(process.capacity)];
                for a in process.a.headers(process.capacity, without) {
                    for b in b.headers(process.capacity, without) {
                        let mut next = *state;
                        let me = &mut next.processes[i];
                        me.a = Unit::Blank;
                        match likely(process.capacity, a, b, without) {
                            Some((slot, least)) => (me.at, me.slot, me.record.sequence) = (At::Prove, slot, least),
                            None => me.at = At::SlotA,
                        }
                        steps.push(Ok((i, "reads the header of B", next)));
                    }
                }
                return;
            }
            At::Prove => {
                let unit = file.units[usize::from(process.slot)];
                let proven = prove(process.capacity, unit, process.record.sequence, without);
                (me.at, me.slot, me.record.sequence) = (At::SlotA, 0, 0);
                ("reads the likely slot", proven.map(Some))
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
                Some(_) if process.gone => Some("reads a session whose end had been told before".to_owned()),
                Some(record) if record.value < process.told => {
                    Some(format!("reads {} after somebody was told {}", record.value, process.told))
                }
                Some(_) => None,
            };
            if let Some(bad) = bad {
                steps.push(Err((i, bad)));
                return;
            }
            match record {
                Some(record) if !record.tombstone && linked => {
                    if self.cut.is_none() {
                        next.tell(record.value);
                    }
                }
                _ => next.told_gone(self),
            }
            next.processes[i] = Process::new(At::Done, 0);
        }
        steps.push(Ok((i, what, next)));
    }
}
