//! Power cuts: what may be on disk by then, and what must be there afterwards.

use crate::file::{File, Look, NOWHERE, Unit};
use crate::scenario::{KERNEL, Scenario, State, Step};

impl Scenario {
    /// The worst that a power cut could leave now, if that is bad: of each unit that is not on disk the old, the new or
    /// half of both; of length and name the old or the new.
    pub fn cut_now(&self, state: &State) -> Option<String> {
        let (file, disk) = (&state.file, &state.disk);
        let ways = |i: usize| {
            if file.units[i] == disk.units[i] {
                vec![file.units[i]]
            } else {
                vec![disk.units[i], file.units[i], Unit::Torn(0)]
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

    pub fn bad_after_cut(&self, state: &State, after: &File) -> Option<String> {
        // A file at rest: the second look is the same as the first.
        let found = match after.look(None) {
            Look::Current { record, .. } if after.named && !record.tombstone => Some(record.value),
            _ => None,
        };
        match found {
            Some(NOWHERE) => Some("what nobody saved is read back".into()),
            Some(_) if state.ended => Some("an acknowledged end is undone".into()),
            Some(value) if self.power() && value < state.acknowledged.max(state.told) => {
                Some("an acknowledged save is lost".into())
            }
            None if self.power() && state.created && state.new.is_none() && !state.ending => {
                Some("the session is lost".into())
            }
            _ => None,
        }
    }
}

/// The kernel writes to disk what it likes, when it likes.
pub fn write_back(state: &State, steps: &mut Vec<Step>) {
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
