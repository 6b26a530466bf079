//! The checker: Wing and Gong's search for an order, with the memory of what was tried that Lowe added to it.
//!
//! Operations on sessions that have nothing to do with each other are searched apart. A renewal ties the new ID to the
//! old one: of the two just one is valid.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

/// A session ID, by number.
pub type Name = u32;

/// A version and what was saved under it.
pub type Seen = (u64, u64);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Create {
        id: Name,
        value: u64,
    },
    Load {
        id: Name,
    },
    Exists {
        id: Name,
    },
    Touch {
        id: Name,
    },
    /// Without a lock, if the version still is the expected one.
    Save {
        id: Name,
        expected: u64,
        value: u64,
    },
    /// Load and save under one lock.
    Update {
        id: Name,
        value: u64,
    },
    /// Adds one to the value.
    Count {
        id: Name,
    },
    Delete {
        id: Name,
    },
    /// The new ID is told to others only afterwards.
    Renew {
        id: Name,
        new: Name,
    },
}

/// What the answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// None: it may have happened or not, but not after the end.
    Unknown,
    /// It did not happen.
    Failed,
    /// It did happen, and that is all that was said.
    Done,
    /// What there was.
    Found(Option<Seen>),
    /// What there was, where no version is shown.
    Value(u64),
    Is(bool),
    Saved(u64),
    /// What was there before, and the version afterwards.
    Updated(Seen, u64),
    Conflict,
    Gone,
}

/// One operation, from its call to its return, on a clock that all share.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub process: u32,
    pub start: u64,
    pub end: u64,
    pub op: Op,
    pub answer: Answer,
}

/// A session: of all the IDs that it ever had one is valid, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Absent,
    Present { id: Name, version: u64, value: u64 },
}

impl State {
    fn seen(self, by: Name) -> Option<Seen> {
        match self {
            Self::Present { id, version, value } if id == by => Some((version, value)),
            _ => None,
        }
    }

    /// The state after an operation with this answer; `None` where it could not have been answered so.
    fn after(self, op: Op, answer: Answer) -> Option<Self> {
        let unchanged = |legal: bool| legal.then_some(self);
        let present = |id, version, value| Some(Self::Present { id, version, value });
        match op {
            Op::Create { id, value } => match answer {
                Answer::Done | Answer::Unknown if self == Self::Absent => present(id, 1, value),
                _ => None,
            },
            Op::Load { id } => match answer {
                Answer::Found(found) => unchanged(found == self.seen(id)),
                // A page of a session that is not there shows nothing, which is zero.
                Answer::Value(value) => unchanged(value == self.seen(id).map_or(0, |(_, value)| value)),
                _ => None,
            },
            Op::Exists { id } => unchanged(answer == Answer::Is(self.seen(id).is_some())),
            // One that finds the session is looked at apart, see `touches`.
            Op::Touch { id } => unchanged(answer == Answer::Is(false) && self.seen(id).is_none()),
            Op::Save { id, expected, value } => {
                let version = self.seen(id).map(|(version, _)| version);
                match answer {
                    Answer::Saved(new) if new != expected + 1 => None,
                    Answer::Saved(_) | Answer::Unknown if version == Some(expected) => present(id, expected + 1, value),
                    Answer::Conflict => unchanged(version.is_some_and(|version| version != expected)),
                    Answer::Gone => unchanged(version.is_none()),
                    _ => None,
                }
            }
            Op::Update { id, value } => match (answer, self.seen(id)) {
                (Answer::Updated(saw, new), Some(seen)) if saw == seen && new == seen.0 + 1 => present(id, new, value),
                (Answer::Unknown, Some((version, _))) => present(id, version + 1, value),
                (Answer::Gone, None) => Some(self),
                _ => None,
            },
            Op::Count { id } => match (answer, self.seen(id)) {
                (Answer::Value(new), Some((version, value))) if new == value + 1 => present(id, version + 1, new),
                (Answer::Unknown, Some((version, value))) => present(id, version + 1, value + 1),
                (Answer::Gone, None) => Some(self),
                _ => None,
            },
            Op::Delete { id } => match (answer, self.seen(id)) {
                (Answer::Is(true) | Answer::Done | Answer::Unknown, Some(_)) => Some(Self::Absent),
                (Answer::Is(false) | Answer::Done, None) => Some(self),
                _ => None,
            },
            Op::Renew { id, new } => match (answer, self.seen(id)) {
                (Answer::Found(Some(saw)), Some(seen)) if saw == seen => present(new, 1, seen.1),
                (Answer::Done | Answer::Unknown, Some((_, value))) => present(new, 1, value),
                (Answer::Gone, None) => Some(self),
                _ => None,
            },
        }
    }
}

impl Op {
    fn id(self) -> Name {
        match self {
            Self::Create { id, .. }
            | Self::Load { id }
            | Self::Exists { id }
            | Self::Touch { id }
            | Self::Save { id, .. }
            | Self::Update { id, .. }
            | Self::Count { id }
            | Self::Delete { id }
            | Self::Renew { id, .. } => id,
        }
    }
}

/// Checks a history; the error is the part of it for which there is no order, ready to be printed.
pub fn check(history: &[Event]) -> Result<(), String> {
    let mut first: BTreeMap<Name, Name> = BTreeMap::new();
    let mut renewals: Vec<&Event> = history.iter().filter(|event| matches!(event.op, Op::Renew { .. })).collect();
    // An ID is renewed only after it was handed out.
    renewals.sort_by_key(|event| event.start);
    for event in renewals {
        if let Op::Renew { id, new } = event.op {
            let root = *first.get(&id).unwrap_or(&id);
            first.insert(new, root);
        }
    }
    let mut sessions: BTreeMap<Name, Vec<Event>> = BTreeMap::new();
    for event in history.iter().filter(|event| event.answer != Answer::Failed) {
        let id = event.op.id();
        sessions.entry(*first.get(&id).unwrap_or(&id)).or_default().push(*event);
    }
    sessions.into_values().try_for_each(session)
}

/// The same for one session.
fn session(mut events: Vec<Event>) -> Result<(), String> {
    touches(&events)?;
    events.retain(|event| (event.answer, matches!(event.op, Op::Touch { .. })) != (Answer::Is(true), true));
    events.sort_by_key(|event| event.start);
    let mut search = Search {
        events: &events,
        done: vec![0; events.len().div_ceil(64)],
        tried: HashSet::new(),
        best: 0,
        at: Vec::new(),
    };
    if search.order() { Ok(()) } else { Err(search.report()) }
}

/// A touch looks at the name alone, so it may still find a session whose end has begun; not one whose end was told.
fn touches(events: &[Event]) -> Result<(), String> {
    for touch in events {
        let Event { op: Op::Touch { id }, answer: Answer::Is(true), start, .. } = *touch else { continue };
        let told = |end: &&Event| {
            let ends = matches!(end.op, Op::Delete { id: other } | Op::Renew { id: other, .. } if other == id);
            // Who finds it gone may have met an end that has only begun.
            let is_told = matches!(end.answer, Answer::Is(true) | Answer::Done | Answer::Found(_));
            ends && is_told && end.end < start
        };
        if let Some(end) = events.iter().find(told) {
            return Err(format!("touched after its end: {touch:?} after {end:?}"));
        }
    }
    Ok(())
}

struct Search<'a> {
    events: &'a [Event],
    done: Vec<u64>,
    /// What was done, and the state after it: whatever order led there, it leads nowhere.
    tried: HashSet<(Vec<u64>, State)>,
    /// The longest order so far, and what was next in it when it ended.
    best: usize,
    at: Vec<(State, Vec<usize>)>,
}

impl Search<'_> {
    fn is_done(&self, i: usize) -> bool {
        self.done[i / 64] >> (i % 64) & 1 == 1
    }

    fn flip(&mut self, i: usize) {
        self.done[i / 64] ^= 1 << (i % 64);
    }

    /// What can come next: called before any of the rest had returned.
    fn next(&self, latest: u64) -> Vec<usize> {
        let (mut next, mut first_end) = (Vec::new(), u64::MAX);
        for (i, event) in self.events.iter().enumerate() {
            if event.start > first_end {
                break;
            }
            // What was never answered need not have happened; but nothing happens after its end.
            if self.is_done(i) || event.answer == Answer::Unknown && event.end < latest {
                continue;
            }
            next.push(i);
            if event.answer != Answer::Unknown {
                first_end = first_end.min(event.end);
            }
        }
        next.retain(|&i| self.events[i].start <= first_end);
        next
    }

    fn order(&mut self) -> bool {
        let mut required = self.events.iter().filter(|event| event.answer != Answer::Unknown).count();
        let mut count = 0;
        // What was chosen, in which state, after what had been called last, and what else could be.
        let mut path: Vec<(usize, State, u64, Vec<usize>)> = Vec::new();
        let (mut state, mut latest) = (State::Absent, 0);
        let mut choices = self.next(latest);
        loop {
            if required == 0 {
                return true;
            }
            let Some(i) = choices.pop() else {
                let Some((i, before, earlier, rest)) = path.pop() else { return false };
                self.flip(i);
                required += usize::from(self.events[i].answer != Answer::Unknown);
                count -= 1;
                (state, latest, choices) = (before, earlier, rest);
                continue;
            };
            let event = &self.events[i];
            let Some(after) = state.after(event.op, event.answer) else { continue };
            self.flip(i);
            if !self.tried.insert((self.done.clone(), after)) {
                self.flip(i);
                continue;
            }
            required -= usize::from(event.answer != Answer::Unknown);
            count += 1;
            path.push((i, state, latest, choices));
            (state, latest) = (after, latest.max(event.start));
            choices = self.next(latest);
            if count > self.best {
                (self.best, self.at) = (count, Vec::new());
            }
            if count == self.best {
                self.at.push((state, choices.clone()));
            }
        }
    }

    fn report(&self) -> String {
        let mut text = format!("no order of these {} operations explains their answers:\n", self.events.len());
        let zero = self.events.first().map_or(0, |event| event.start);
        let line = |event: &Event| {
            let (start, end) = ((event.start - zero) / 1000, event.end.saturating_sub(zero) / 1000);
            format!("{start:>8}..{end:>8} us  process {}  {:?} -> {:?}", event.process, event.op, event.answer)
        };
        for event in self.events {
            let _ = writeln!(text, "{}", line(event));
        }
        let _ = writeln!(text, "the longest orders have {} of them, and end", self.best);
        for (state, next) in self.at.iter().take(3) {
            let _ = writeln!(text, "in {state:?}, where none of these can follow:");
            for &i in next {
                let _ = writeln!(text, "    {}", line(&self.events[i]));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Name = 1;
    const CREATE: Op = Op::Create { id: ID, value: 10 };
    const LOAD: Op = Op::Load { id: ID };
    const DELETE: Op = Op::Delete { id: ID };

    fn event(start: u64, end: u64, op: Op, answer: Answer) -> Event {
        Event { process: 0, start, end, op, answer }
    }

    fn save(expected: u64, value: u64) -> Op {
        Op::Save { id: ID, expected, value }
    }

    fn found(version: u64, value: u64) -> Answer {
        Answer::Found(Some((version, value)))
    }

    fn created(rest: &[Event]) -> Vec<Event> {
        [&[event(0, 1, CREATE, Answer::Done)], rest].concat()
    }

    #[track_caller]
    fn good(rest: &[Event]) {
        check(&created(rest)).unwrap();
    }

    #[track_caller]
    fn bad(rest: &[Event]) {
        check(&created(rest)).unwrap_err();
    }

    #[test]
    fn one_after_the_other() {
        good(&[
            event(2, 3, LOAD, found(1, 10)),
            event(4, 5, save(1, 20), Answer::Saved(2)),
            event(6, 7, save(1, 30), Answer::Conflict),
            event(8, 9, LOAD, found(2, 20)),
            event(10, 11, DELETE, Answer::Is(true)),
            event(12, 13, LOAD, Answer::Found(None)),
            event(14, 15, save(2, 40), Answer::Gone),
            event(16, 17, DELETE, Answer::Is(false)),
        ]);
    }

    #[test]
    fn a_stale_read_is_refused_unless_it_overlaps() {
        bad(&[event(2, 3, save(1, 20), Answer::Saved(2)), event(4, 5, LOAD, found(1, 10))]);
        good(&[event(2, 4, save(1, 20), Answer::Saved(2)), event(3, 5, LOAD, found(1, 10))]);
        // Two reads that overlap a save, the second of them after the first: the new one and then the old.
        bad(&[
            event(2, 20, save(1, 20), Answer::Saved(2)),
            event(3, 5, LOAD, found(2, 20)),
            event(6, 7, LOAD, found(1, 10)),
        ]);
        good(&[
            event(2, 20, save(1, 20), Answer::Saved(2)),
            event(3, 5, LOAD, found(1, 10)),
            event(6, 7, LOAD, found(2, 20)),
        ]);
    }

    #[test]
    fn a_lost_update_is_refused() {
        bad(&[event(2, 9, save(1, 20), Answer::Saved(2)), event(3, 8, save(1, 30), Answer::Saved(2))]);
        let update = |value| Op::Update { id: ID, value };
        bad(&[
            event(2, 9, update(20), Answer::Updated((1, 10), 2)),
            event(3, 8, update(30), Answer::Updated((1, 10), 2)),
        ]);
        good(&[
            event(2, 9, update(20), Answer::Updated((2, 30), 3)),
            event(3, 8, update(30), Answer::Updated((1, 10), 2)),
        ]);
    }

    #[test]
    fn what_nobody_saved_is_refused() {
        bad(&[event(2, 3, LOAD, found(2, 20))]);
        bad(&[event(2, 3, LOAD, found(1, 20))]);
        bad(&[event(2, 3, LOAD, Answer::Found(None))]);
        bad(&[event(2, 3, save(1, 20), Answer::Saved(3))]);
    }

    #[test]
    fn a_deleted_session_stays_deleted() {
        bad(&[event(2, 3, DELETE, Answer::Is(true)), event(4, 5, LOAD, found(1, 10))]);
        bad(&[event(2, 3, DELETE, Answer::Is(true)), event(4, 5, save(1, 20), Answer::Saved(2))]);
        bad(&[event(2, 9, DELETE, Answer::Is(true)), event(3, 8, DELETE, Answer::Is(true))]);
        good(&[event(2, 9, DELETE, Answer::Is(true)), event(3, 8, DELETE, Answer::Is(false))]);
        good(&[event(2, 9, DELETE, Answer::Is(true)), event(3, 8, save(1, 20), Answer::Saved(2))]);
    }

    #[test]
    fn who_was_killed_may_have_done_it_or_not_but_not_later() {
        let killed = event(2, 9, save(1, 20), Answer::Unknown);
        good(&[killed, event(10, 11, LOAD, found(1, 10))]);
        good(&[killed, event(10, 11, LOAD, found(2, 20))]);
        good(&[killed, event(3, 4, LOAD, found(1, 10)), event(10, 11, LOAD, found(2, 20))]);
        bad(&[killed, event(10, 11, LOAD, found(1, 10)), event(12, 13, LOAD, found(2, 20))]);
        bad(&[killed, event(10, 11, LOAD, found(2, 20)), event(12, 13, LOAD, found(1, 10))]);
        good(&[event(2, 9, DELETE, Answer::Unknown), event(10, 11, LOAD, Answer::Found(None))]);
        good(&[event(2, 9, DELETE, Answer::Unknown), event(10, 11, save(1, 20), Answer::Saved(2))]);
    }

    #[test]
    fn what_failed_has_not_happened() {
        let failed = event(2, 9, save(1, 20), Answer::Failed);
        good(&[failed, event(10, 11, LOAD, found(1, 10))]);
        bad(&[failed, event(10, 11, LOAD, found(2, 20))]);
    }

    #[test]
    fn a_renewal_leaves_one_valid_id() {
        let renew = event(2, 5, Op::Renew { id: ID, new: 2 }, found(1, 10));
        let load_new = |start, answer| event(start, start + 1, Op::Load { id: 2 }, answer);
        good(&[renew, load_new(6, found(1, 10)), event(8, 9, LOAD, Answer::Found(None))]);
        bad(&[renew, event(8, 9, LOAD, found(1, 10))]);
        bad(&[renew, load_new(6, Answer::Found(None))]);
        // A save between the copy and the end of the old one is lost.
        bad(&[event(3, 4, save(1, 20), Answer::Saved(2)), renew, load_new(6, found(1, 10))]);
        good(&[event(3, 4, save(1, 20), Answer::Gone), renew, load_new(6, found(1, 10))]);
    }

    #[test]
    fn a_touch_does_not_find_what_has_ended() {
        let touch = |start, there| event(start, start + 1, Op::Touch { id: ID }, Answer::Is(there));
        good(&[touch(2, true), event(4, 9, DELETE, Answer::Is(true)), touch(5, true), touch(10, false)]);
        bad(&[event(2, 3, DELETE, Answer::Is(true)), touch(4, true)]);
        bad(&[touch(2, false)]);
    }

    #[test]
    fn counts_are_told_once() {
        let count = |start, end, answer| event(start, end, Op::Count { id: ID }, answer);
        good(&[count(2, 5, Answer::Value(12)), count(3, 4, Answer::Value(11))]);
        bad(&[count(2, 3, Answer::Value(12)), count(4, 5, Answer::Value(11))]);
        bad(&[count(2, 5, Answer::Value(11)), count(3, 4, Answer::Value(11))]);
        bad(&[count(2, 3, Answer::Value(12))]);
        good(&[count(2, 3, Answer::Unknown), count(4, 5, Answer::Value(12))]);
    }

    #[test]
    fn sessions_do_not_disturb_each_other() {
        let other = Op::Create { id: 7, value: 70 };
        good(&[event(0, 9, other, Answer::Done), event(10, 11, Op::Load { id: 7 }, found(1, 70))]);
        bad(&[event(0, 9, other, Answer::Done), event(10, 11, Op::Load { id: 7 }, found(1, 10))]);
    }

    /// Many at once, with answers that fit one order only: without its memory the search would take for ever.
    #[test]
    fn a_search_among_many_ends_soon() {
        let update = |i: u64| event(2, 1000, Op::Update { id: ID, value: i }, Answer::Updated((i - 10, i - 1), i - 9));
        let mut history: Vec<Event> = (11..40).map(update).collect();
        good(&history);
        history.extend((0..12).map(|i| event(2, 1000, Op::Update { id: ID, value: 100 + i }, Answer::Unknown)));
        history.push(event(1001, 1002, LOAD, found(5, 5)));
        bad(&history);
    }
}
