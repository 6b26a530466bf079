//! How many workers there should be, and which of them are to be replaced: arithmetic, without processes.

use serde::{Deserialize, Serialize};

use super::clock::now;
use super::crew::{Crew, Member};
use super::scoreboard::{Event, Scoreboard};
use crate::server::options::{MAX_WORKERS, Workers};

/// How many workers there should be.
#[derive(Debug)]
pub(super) struct Staff {
    /// As `--workers` has it.
    said: Workers,
    /// What `TTIN` and `TTOU` have made of that.
    range: Workers,
    /// How many there should be now.
    target: usize,
    /// How long a worker may have nothing to do, where there may be fewer, in milliseconds.
    idle_timeout: u64,
}

/// How many workers there were, for the next program.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Headcount {
    said: [usize; 2],
    range: [usize; 2],
    target: usize,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// Start a worker, as so many are missing.
    Spawn(usize),
    /// Tell the worker with this number to leave, for this reason.
    Retire(rustix::process::Pid, Event),
}

impl Staff {
    pub(super) fn new(range: Workers, idle_timeout: u64) -> Self {
        // One at least at the start, also where there may be none: a pool that cannot start says so then.
        let target = if range.is_elastic() { range.min.max(1) } else { range.max };
        Self { said: range, range, target, idle_timeout }
    }

    /// Goes on after a reload. What `TTIN` and `TTOU` have done holds as long as `--workers` says the same.
    pub(super) fn resume(&mut self, before: Headcount) {
        let [min, max] = before.range;
        if before.said == [self.said.min, self.said.max] && min <= max && (1..=MAX_WORKERS).contains(&max) {
            self.range = Workers { min, max };
        }
        self.settle(before.target);
    }

    /// What the next program goes on with.
    pub(super) fn count(&self) -> Headcount {
        let pair = |workers: Workers| [workers.min, workers.max];
        Headcount { said: pair(self.said), range: pair(self.range), target: self.target }
    }

    /// As many as there were, as far as there may be so many.
    fn settle(&mut self, target: usize) {
        self.target = target.clamp(self.range.min, self.range.max);
    }

    pub(super) fn target(&self) -> usize {
        self.target
    }

    pub(super) fn range(&self) -> Workers {
        self.range
    }

    /// Whether there may be more workers than there are.
    pub(super) fn can_grow(&self) -> bool {
        self.range.is_elastic() && self.target < self.range.max
    }

    /// One more, since everybody is busy. False where there may be no more.
    pub(super) fn grow(&mut self) -> bool {
        let can = self.can_grow();
        self.target += usize::from(can);
        can
    }

    /// One more or one less, since the operator says so. An elastic pool has its limits moved.
    pub(super) fn change(&mut self, more: bool) {
        let max = if more { (self.range.max + 1).min(MAX_WORKERS) } else { (self.range.max - 1).max(1) };
        // MIN is what it was as soon as there is room for it again.
        let min = if self.said.is_elastic() { self.said.min.min(max) } else { max };
        self.range = Workers { min, max };
        self.settle(self.target);
    }

    fn is_fixed(&self) -> bool {
        !self.range.is_elastic()
    }

    /// What makes the crew what it should be: nobody too few or too many, nobody of an older generation, nobody who has
    /// served its share. Whoever is replaced leaves only when its successor is ready.
    pub(super) fn next_step(&mut self, crew: &Crew, board: Scoreboard, generation: u64) -> Step {
        let time = now();
        if let Some(member) = self.bored(crew, board, time) {
            self.target -= 1;
            return Step::Retire(member.pid, Event::Idle);
        }
        let is_old = |member: &&Member| member.generation < generation;
        let is_spent = |member: &&Member| member.slot(board).is_some_and(|slot| slot.wishes_to_leave());
        let staying = crew.staying().count();
        let ready = crew.staying().filter(|member| member.ready).count();
        let replaced = crew.staying().any(|member| is_old(&member) || is_spent(&member));
        // One worker more than usual while somebody is to be replaced: the next that takes a place.
        let wanted = self.target + usize::from(replaced && self.target > 0);
        if staying > wanted || (replaced && ready > self.target) {
            // Who is idle is missed least.
            let idle = |member: &&Member| member.slot(board).is_some_and(|slot| slot.work().is_none());
            let leaves = |reason| move |member: &Member| Step::Retire(member.pid, reason);
            let old = || crew.staying().filter(is_old);
            return old()
                .max_by_key(idle)
                .map(leaves(Event::Reloaded))
                .or_else(|| crew.staying().filter(is_spent).max_by_key(idle).map(leaves(Event::Recycled)))
                .or_else(|| crew.staying().last().map(leaves(Event::Idle)))
                .unwrap_or(Step::Rest);
        }
        if staying < wanted { Step::Spawn(wanted - staying) } else { Step::Rest }
    }

    /// Who has had nothing to do for too long, where there may be fewer: the longest.
    fn bored<'a>(&self, crew: &'a Crew, board: Scoreboard, time: u64) -> Option<&'a Member> {
        let (member, since) = self.longest_idle(crew, board)?;
        (time >= since.saturating_add(self.idle_timeout)).then_some(member)
    }

    fn longest_idle<'a>(&self, crew: &'a Crew, board: Scoreboard) -> Option<(&'a Member, u64)> {
        if self.is_fixed() || self.target <= self.range.min {
            return None;
        }
        let idle = |member: &'a Member| Some((member, member.slot(board)?.idle_since()?));
        crew.staying().filter_map(idle).min_by_key(|(_, since)| *since)
    }

    /// When to look whether somebody has been idle for too long.
    pub(super) fn wake(&self, crew: &Crew, board: Scoreboard) -> u64 {
        if self.is_fixed() || self.target <= self.range.min {
            return u64::MAX;
        }
        // Those that are busy now can be overdue then at the earliest.
        let since = self.longest_idle(crew, board).map_or_else(now, |(_, since)| since);
        since.saturating_add(self.idle_timeout).max(now() + 1)
    }
}

/// How long respawning waits when workers die as soon as they are there, and when that is enough.
#[derive(Default)]
pub(super) struct Backoff {
    delay: u64,
    until: u64,
    /// How many places stay empty until then.
    held: usize,
    /// How many have died like that in a row.
    row: u32,
}

impl Backoff {
    const FIRST: u64 = 50;
    const LAST: u64 = 5_000;
    /// After so long without a fast death the first delay is the first again.
    const FORGOTTEN: u64 = 10_000;

    /// A worker died fast: its place stays empty for a while. Returns how many did so in a row.
    pub(super) fn hold(&mut self, time: u64) -> u32 {
        self.held += 1;
        self.row += 1;
        if time < self.until {
            return self.row;
        }
        let forgotten = time.saturating_sub(self.until) > Self::FORGOTTEN;
        self.delay = if forgotten || self.delay == 0 { Self::FIRST } else { (2 * self.delay).min(Self::LAST) };
        self.until = time + self.delay;
        self.row
    }

    /// A worker was killed by somebody else as soon as it was there: its place stays empty for the shortest time, and
    /// nothing follows from it.
    pub(super) fn hold_briefly(&mut self, time: u64) {
        self.held += 1;
        if time >= self.until {
            self.until = time + Self::FIRST;
        }
    }

    /// Whether waiting longer makes no sense.
    pub(super) fn is_exhausted(&self) -> bool {
        self.delay == Self::LAST
    }

    /// A worker lives.
    pub(super) fn relax(&mut self) {
        (self.row, self.delay) = (0, self.delay.min(Self::LAST / 2));
    }

    /// Lets the places go that were held long enough, whether or not somebody is still wanted there.
    pub(super) fn release(&mut self, time: u64) {
        if time >= self.until {
            self.held = 0;
        }
    }

    /// Whether one of `missing` places may be filled now.
    pub(super) fn allows(&self, missing: usize) -> bool {
        missing > self.held
    }

    /// When places are to be [released](Self::release).
    pub(super) fn wake(&self) -> u64 {
        if self.held > 0 { self.until } else { u64::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_limit_and_is_forgotten() {
        let mut backoff = Backoff::default();
        let mut time = 1_000_000;
        let mut delays = Vec::new();
        for _ in 0..9 {
            backoff.hold(time);
            backoff.release(time);
            assert!(!backoff.allows(1));
            // Others that die meanwhile wait as well, but do not make it longer.
            backoff.hold(time);
            assert!(!backoff.allows(2));
            // A place that became free in peace is filled at once.
            assert!(backoff.allows(3));
            delays.push(backoff.wake() - time);
            time = backoff.wake();
            backoff.release(time);
            assert!(backoff.allows(1));
            // Nothing is left to wake up for.
            assert_eq!(backoff.wake(), u64::MAX);
        }
        assert_eq!(delays, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.hold(time + 20_000), 19);
        assert_eq!(backoff.wake() - time - 20_000, 50);
        backoff.relax();
        assert_eq!(backoff.hold(time + 20_000), 1);
    }

    #[test]
    fn who_was_killed_by_somebody_else_is_missed_for_the_shortest_time_however_often() {
        let mut backoff = Backoff::default();
        let mut time = 1_000_000;
        for _ in 0..100 {
            backoff.hold_briefly(time);
            backoff.hold_briefly(time + 49);
            backoff.release(time + 49);
            assert!(!backoff.allows(2) && backoff.allows(3));
            time += 50;
            assert_eq!(backoff.wake(), time);
            backoff.release(time);
            assert!(backoff.allows(1) && !backoff.is_exhausted());
        }
        // One that dies of itself is the first, then; and who is killed meanwhile waits no longer than it.
        assert_eq!(backoff.hold(time), 1);
        backoff.hold_briefly(time + 10);
        assert_eq!(backoff.wake(), time + 50);
        assert_eq!(backoff.hold(time + 50), 2);
        backoff.hold_briefly(time + 60);
        assert_eq!(backoff.wake(), time + 150);
    }

    /// A crew of these generations, all ready, in slots 0, 1, ...
    fn crew(board: Scoreboard, generations: &[u64]) -> Crew {
        let mut crew = Crew::default();
        for (number, &generation) in generations.iter().enumerate() {
            board.prepare(number, generation);
            let pid = rustix::process::Pid::from_raw(1000 + i32::try_from(number).unwrap()).unwrap();
            let mut member = Member::new(number, pid, generation, 0);
            member.ready = true;
            crew.push(member);
        }
        crew
    }

    fn retired(step: &Step) -> Option<(i32, Event)> {
        if let Step::Retire(pid, reason) = step { Some((pid.as_raw_nonzero().get(), *reason)) } else { None }
    }

    #[test]
    fn a_fixed_number_is_kept() {
        let board = Scoreboard::new(9).unwrap();
        let mut staff = Staff::new(Workers::fixed(2), 10);
        assert_eq!(staff.next_step(&crew(board, &[0]), board, 0), Step::Spawn(1));
        assert_eq!(staff.next_step(&crew(board, &[0, 0]), board, 0), Step::Rest);
        assert_eq!(retired(&staff.next_step(&crew(board, &[0, 0, 0]), board, 0)), Some((1002, Event::Idle)));
        assert!(!staff.grow());
        staff.change(true);
        assert_eq!(staff.next_step(&crew(board, &[0, 0]), board, 0), Step::Spawn(1));
        for _ in 0..5 {
            staff.change(false);
        }
        assert_eq!(staff.target(), 1);
    }

    #[test]
    fn limits_are_moved_and_kept_within_their_own() {
        for (said, steps, expected) in [
            ("511", "+++", "512"),
            ("2", "---+", "2"),
            ("511..512", "+", "511..512"),
            ("2..3", "--", "1"),
            ("2..3", "--++", "2..3"),
            ("0..1", "-", "0..1"),
            ("1..2", "-+", "1..2"),
        ] {
            let mut staff = Staff::new(said.parse().unwrap(), 10);
            steps.chars().for_each(|step| staff.change(step == '+'));
            assert_eq!(staff.range().to_string(), expected, "{said} {steps}");
            assert!((staff.range.min..=staff.range.max).contains(&staff.target));
        }
    }

    #[test]
    fn a_reload_keeps_what_ttin_and_ttou_did_unless_another_number_is_said() {
        for (before, steps, after, expected, target) in [
            ("4", "-", "4", "3", 3),
            ("4", "+", "4", "5", 5),
            ("4", "+", "2", "2", 2),
            ("4", "-", "6", "6", 6),
            ("1..8", "++", "1..8", "1..10", 7),
            ("1..8", "", "1..3", "1..3", 3),
            ("1..8", "", "4", "4", 4),
            ("9", "", "1..8", "1..8", 8),
            ("0..2", "", "0..9", "0..9", 2),
        ] {
            let mut old = Staff::new(before.parse().unwrap(), 10);
            steps.chars().for_each(|step| old.change(step == '+'));
            (0..6).for_each(|_| _ = old.grow());
            let mut new = Staff::new(after.parse().unwrap(), 10);
            new.resume(old.count());
            assert_eq!(
                (new.range().to_string().as_str(), new.target()),
                (expected, target),
                "{before} {steps} {after}"
            );
        }
        // A program that did not say how many there were, or says nonsense.
        let mut staff = Staff::new(Workers::fixed(3), 10);
        staff.resume(Headcount::default());
        staff.resume(Headcount { said: [3, 3], range: [9, 0], target: 700 });
        assert_eq!((staff.range(), staff.target()), (Workers::fixed(3), 3));
    }

    #[test]
    fn who_is_replaced_leaves_when_its_successor_is_ready() {
        let board = Scoreboard::new(9).unwrap();
        let mut staff = Staff::new(Workers::fixed(2), 10);
        assert_eq!(staff.next_step(&crew(board, &[0, 0]), board, 1), Step::Spawn(1));
        let mut three = crew(board, &[0, 0, 1]);
        three.iter_mut().last().unwrap().ready = false;
        assert_eq!(staff.next_step(&three, board, 1), Step::Rest);
        three.iter_mut().last().unwrap().ready = true;
        let step = staff.next_step(&three, board, 1);
        assert!(matches!(retired(&step), Some((1000 | 1001, Event::Reloaded))), "{step:?}");
        // The same for one that has served its share.
        let two = crew(board, &[1, 1]);
        board.slot(0).wish_to_leave();
        assert_eq!(staff.next_step(&two, board, 1), Step::Spawn(1));
        let three = crew(board, &[1, 1, 1]);
        board.slot(0).wish_to_leave();
        assert_eq!(retired(&staff.next_step(&three, board, 1)), Some((1000, Event::Recycled)));
    }

    #[test]
    fn an_elastic_number_stays_within_its_limits() {
        let board = Scoreboard::new(9).unwrap();
        let mut staff = Staff::new(Workers { min: 0, max: 2 }, 1_000_000_000);
        assert_eq!(staff.target(), 1);
        assert!(staff.grow() && !staff.grow());
        assert_eq!(staff.target(), 2);
        let two = crew(board, &[0, 0]);
        assert_eq!(staff.next_step(&two, board, 0), Step::Rest);
        let mut staff = Staff { idle_timeout: 0, ..staff };
        board.slot(1).while_idle(|| {
            assert_eq!(retired(&staff.next_step(&two, board, 0)), Some((1001, Event::Idle)));
        });
        assert_eq!(staff.target(), 1);
        let one = crew(board, &[0]);
        board.slot(0).while_idle(|| assert!(retired(&staff.next_step(&one, board, 0)).is_some()));
        assert_eq!((staff.target(), staff.next_step(&Crew::default(), board, 0)), (0, Step::Rest));
        assert!(staff.grow());
        assert_eq!(staff.next_step(&Crew::default(), board, 0), Step::Spawn(1));
        // Nobody leaves for that below the least.
        let mut staff = Staff::new(Workers { min: 1, max: 2 }, 0);
        board.slot(0).while_idle(|| assert_eq!(staff.next_step(&one, board, 0), Step::Rest));
    }
}
