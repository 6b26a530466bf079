//! Who holds the locks of sessions and who waits for them, in all workers of the pool: so that one session cannot take it.
//!
//! Holder and waiters of one session together may occupy a share of the workers only. Who comes on top of that waits as
//! well while the lock changes hands quickly; once somebody has held it for [`LONG_HOLD`], those are sent away. Time in
//! which a holder gets no processor is no hold of its own making, and does not count.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::clock::now;
use super::scoreboard::{Count, LockState, Scoreboard, Slot};
use crate::session::{Happening, Id, Patience, Witness};
use crate::sys::log::log;
use crate::sys::pulse::{Pulse, pulse};

/// A lock that was held for so many milliseconds does not change hands quickly.
const LONG_HOLD: u64 = 50;
/// Milliseconds between two lines in the log.
const PAUSE: u64 = 1_000;

/// What a worker tells of its locks, and what it sees of those of others.
pub(super) struct Locks {
    board: Scoreboard,
    number: usize,
    slot: Slot,
    /// How many workers one session may occupy; half of all where nobody has said.
    most: Option<usize>,
    /// See [`View::alone`].
    alone: AtomicU64,
    /// When the log was told last that requests were sent away, and how many were since.
    said: AtomicU64,
    unsaid: AtomicU64,
}

impl Locks {
    pub(super) fn new(board: Scoreboard, number: usize, most: Option<usize>) -> Self {
        Self {
            board,
            number,
            slot: board.slot(number),
            most,
            alone: AtomicU64::new(0),
            said: AtomicU64::new(0),
            unsaid: AtomicU64::new(0),
        }
    }

    /// Counts a request that was sent away, and says so once a second at most.
    fn refused(&self) {
        self.slot.tally().add(Count::LockRefusals, 1);
        let count = self.unsaid.fetch_add(1, Relaxed) + 1;
        let (time, last) = (now(), self.said.load(Relaxed));
        if last == 0 || time.saturating_sub(last) >= PAUSE {
            self.said.store(time, Relaxed);
            self.unsaid.store(0, Relaxed);
            let (method, path) = self.slot.text();
            log!(
                "pid={} too many requests wait for one session, refused={count} method={method} path={path}",
                self.slot.pid()
            );
        }
    }

    fn most(&self) -> usize {
        // As many as there may be now: TTIN and TTOU change that.
        let (_, workers, _) = self.board.wanted();
        self.most.unwrap_or(workers / 2).max(1)
    }

    /// Whether worker `number`, which has held the lock `since` and for long by the clock, is to blame for that.
    fn look_at_holder(&self, number: usize, since: u64) -> Look {
        let slot = self.board.slot(number);
        let look = match pulse(slot.pid()) {
            Pulse::Gone => return Look::Dead,
            Pulse::Rests => Look::Slow,
            Pulse::Runs(total) => match LONG_HOLD.saturating_sub(slot.ran(since, total)) {
                0 => Look::Slow,
                left => Look::Wait(left),
            },
        };
        // It may have given it back just before, and rest from that.
        let (state, _, now) = slot.lock();
        if state == LockState::Holds && now == since { look } else { Look::Wait(LONG_HOLD) }
    }

    /// Whether one who waits for the same lock is awake: it may have got it, and not yet got to say so.
    fn has_woken(&self, others: &[Other], key: u64) -> bool {
        let mut waiting = others.iter().filter(|(_, (state, lock, _), _)| *state == LockState::Waits && *lock == key);
        waiting.any(|(number, ..)| matches!(pulse(self.board.slot(*number).pid()), Pulse::Runs(_)))
    }
}

/// What becomes of a waiter that has seen what the holder does.
enum Look {
    /// It goes.
    Slow,
    /// It waits, as the holder was kept from its work.
    Wait(u64),
    /// There is no such holder.
    Dead,
}

/// Another worker: its number, its [`Slot::lock`] and its [`Slot::left`].
type Other = (usize, (LockState, u64, u64), (u64, u64));

impl Witness for Locks {
    fn uses(&self, id: &Id) {
        self.slot.set_session(self.board.key(id));
    }

    fn waits(&self, id: &Id) {
        self.alone.store(0, Relaxed);
        self.slot.set_lock(LockState::Waits, self.board.key(id));
    }

    fn patience(&self) -> Patience {
        let (_, key, since) = self.slot.lock();
        let others = self.board.used().filter(|(number, _)| *number != self.number);
        let others: Vec<_> = others.map(|(number, slot)| (number, slot.lock(), slot.left())).collect();
        let view = View::of(&others, key, (since, self.number));
        let before = self.alone.load(Relaxed);
        let judge = |view: View| view.judge(now(), since, self.most(), before);
        let (mut verdict, mut alone) = judge(view);
        if verdict.is_none() {
            verdict = match view.held {
                Some((since, number)) => match self.look_at_holder(number, since) {
                    Look::Slow => None,
                    Look::Wait(time) => Some(time),
                    Look::Dead => {
                        (verdict, alone) = judge(View { held: None, ..view });
                        verdict
                    }
                },
                None => self.has_woken(&others, key).then_some(LONG_HOLD),
            };
        }
        self.alone.store(alone, Relaxed);
        verdict.map_or(Patience::GiveUp, |millis| Patience::Wait(Duration::from_millis(millis)))
    }

    fn holds(&self, id: &Id) {
        self.slot.set_lock(LockState::Holds, self.board.key(id));
    }

    fn leaves(&self) {
        self.slot.set_lock(LockState::None, 0);
    }

    fn note(&self, what: Happening) {
        let tally = self.slot.tally();
        match what {
            Happening::Committed => tally.add(Count::Commits, 1),
            Happening::Repeated => tally.add(Count::Conflicts, 1),
            Happening::Waited(time) => {
                tally.add(Count::LockWaits, 1);
                tally.add(Count::LockWaitMicros, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
            }
            Happening::TimedOut => tally.add(Count::LockTimeouts, 1),
            Happening::Refused => self.refused(),
        }
    }
}

/// What a waiter sees of the lock that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    /// How many came before it and wait, too.
    ahead: usize,
    /// Since when a worker of this pool holds the lock, and which.
    held: Option<(u64, usize)>,
    /// When one last gave it back.
    left: u64,
}

impl View {
    /// From what the others' slots say of the lock `key`; `mine` is since when this waiter waits, and its number.
    fn of(others: &[Other], key: u64, mine: (u64, usize)) -> Self {
        let mut view = Self { ahead: 0, held: None, left: 0 };
        for &(number, (state, lock, since), (left, at)) in others {
            if left == key {
                view.left = view.left.max(at);
            }
            match state {
                LockState::Waits if lock == key => view.ahead += usize::from((since, number) < mine),
                // One that was killed holds it until it is buried, but not really: the last one does.
                LockState::Holds if lock == key => view.held = view.held.max(Some((since, number))),
                _ => {}
            }
        }
        // Who gives the lock back says so before: a holder from before that is dead as well.
        view.held = view.held.filter(|&(since, _)| since >= view.left);
        view
    }

    /// For how many milliseconds a waiter may wait before it looks again that has waited `since`, where one session may
    /// have `most` workers; `None`: by the clock it is to go.
    ///
    /// `alone` is since when it has seen nobody hold the lock, 0 where it has seen somebody; the new one is returned,
    /// too. Either the lock is just changing hands then, or somebody has it who is not on the board: a CGI script,
    /// another pool, an administrator. That hold is as old as it can be for all that is known.
    fn judge(self, time: u64, since: u64, most: usize, alone: u64) -> (Option<u64>, u64) {
        let alone = match self.held {
            Some(_) => 0,
            None if alone == 0 => time,
            None => alone.max(self.left),
        };
        let occupied = self.ahead + 1;
        if occupied < most || (self.held.is_none() && occupied == most) {
            // Several may come at once and see each other late, and a holder appears after a moment without one: so
            // even who may stay looks again, but ever more rarely, as it loses its place in the kernel's queue by it.
            return (Some(LONG_HOLD.max(time.saturating_sub(since))), alone);
        }
        let long = time.saturating_sub(self.held.map_or(alone, |(since, _)| since));
        ((long < LONG_HOLD).then(|| LONG_HOLD - long), alone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7;
    const NOBODY: (LockState, u64, u64) = (LockState::None, 0, 0);

    fn holds(since: u64) -> (LockState, u64, u64) {
        (LockState::Holds, KEY, since)
    }

    fn waits(since: u64) -> (LockState, u64, u64) {
        (LockState::Waits, KEY, since)
    }

    /// What worker 5 sees that has waited since 100.
    fn view(others: &[Other]) -> View {
        View::of(others, KEY, (100, 5))
    }

    #[test]
    fn who_came_first_is_ahead() {
        let others = [
            (0, waits(99), (0, 0)),
            (1, waits(100), (0, 0)),
            (6, waits(100), (0, 0)),
            (7, waits(101), (0, 0)),
            (8, (LockState::Waits, KEY + 1, 5), (0, 0)),
            (9, (LockState::Holds, KEY + 1, 5), (KEY + 1, 9)),
        ];
        assert_eq!(view(&others), View { ahead: 2, held: None, left: 0 });
    }

    #[test]
    fn the_holder_is_the_last_one_that_is_not_known_to_be_dead() {
        assert_eq!(view(&[(0, holds(30), (0, 0)), (1, holds(80), (0, 0)), (2, holds(50), (0, 0))]).held, Some((80, 1)));
        // Another has held the lock since: the holder before it did not come to say that it has none.
        let stale = [(0, holds(30), (0, 0)), (1, NOBODY, (KEY, 31)), (2, NOBODY, (KEY, 20))];
        assert_eq!(view(&stale), View { ahead: 0, held: None, left: 31 });
        // It may have got it in the same millisecond.
        assert_eq!(view(&[(0, holds(30), (0, 0)), (1, NOBODY, (KEY, 30))]).held, Some((30, 0)));
        assert_eq!(view(&[(0, holds(30), (0, 0)), (1, NOBODY, (KEY + 1, 90))]).held, Some((30, 0)));
    }

    #[test]
    fn within_the_share_one_waits_and_looks_ever_more_rarely() {
        let view = |ahead| View { ahead, held: Some((10, 0)), left: 0 };
        assert_eq!(view(0).judge(1000, 1000, 2, 0), (Some(50), 0));
        assert_eq!(view(0).judge(1400, 1000, 2, 0), (Some(400), 0));
        assert_eq!(view(0).judge(1000, 1000, 1, 0), (None, 0));
        assert_eq!(view(6).judge(1000, 1000, 8, 0), (Some(50), 0));
        assert_eq!(view(7).judge(1000, 1000, 8, 0), (None, 0));
    }

    #[test]
    fn beyond_the_share_it_is_the_hold_that_counts() {
        let view = |held| View { ahead: 3, held: Some((held, 0)), left: 0 };
        assert_eq!(view(1000).judge(1000, 1000, 2, 0), (Some(50), 0));
        assert_eq!(view(1000).judge(1049, 1000, 2, 0), (Some(1), 0));
        assert_eq!(view(1000).judge(1050, 1000, 2, 0), (None, 0));
        // However long one has waited already, a new holder has its time.
        assert_eq!(view(8990).judge(9000, 1000, 2, 0), (Some(40), 0));
    }

    #[test]
    fn without_a_holder_on_the_board_ones_own_time_counts() {
        let view = |ahead, left| View { ahead, held: None, left };
        // The first look begins it, a lock that was given back meanwhile begins it anew.
        assert_eq!(view(2, 0).judge(1000, 900, 2, 0), (Some(50), 1000));
        assert_eq!(view(2, 0).judge(1030, 900, 2, 1000), (Some(20), 1000));
        assert_eq!(view(2, 1020).judge(1050, 900, 2, 1000), (Some(20), 1020));
        assert_eq!(view(2, 1020).judge(1070, 900, 2, 1020), (None, 1020));
        // The holder has no worker of this pool, so there is room for one waiter more.
        assert_eq!(view(1, 0).judge(1300, 1000, 2, 1000), (Some(300), 1000));
        assert_eq!(view(0, 0).judge(1000, 1000, 1, 0), (Some(50), 1000));
        let held = View { ahead: 2, held: Some((1040, 0)), left: 1030 };
        assert_eq!(held.judge(1050, 900, 2, 1000), (Some(40), 0));
    }

    /// A process that is not a worker, but lives like one; killed, whatever happens.
    struct Body(std::process::Child);

    impl Body {
        fn of(script: &str) -> Self {
            Self(std::process::Command::new("sh").arg("-c").arg(script).spawn().unwrap())
        }
    }

    impl Drop for Body {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Four workers; the first of them, which holds the lock of `id()`, is the process that runs `script`.
    fn four(script: &str) -> (Scoreboard, [Locks; 4], Body) {
        let board = Scoreboard::new(6).unwrap();
        board.set_wanted(4, 4, 4);
        let body = Body::of(script);
        let four = [0, 1, 2, 3].map(|number| {
            board.prepare(number, 0);
            board.slot(number).set_pid(body.0.id().into());
            Locks::new(board, number, None)
        });
        four[0].holds(&id());
        (board, four, body)
    }

    fn id() -> Id {
        Id::parse("00112233445566778899aabbccddeeff").unwrap()
    }

    /// What a waiter is told in the end, if it asks again whenever it may.
    fn ask(locks: &Locks, times: usize) -> Vec<Patience> {
        let mut told = Vec::new();
        while told.len() < times && told.last() != Some(&Patience::GiveUp) {
            told.push(locks.patience());
            if let Some(Patience::Wait(time)) = told.last() {
                assert!(*time <= Duration::from_millis(LONG_HOLD), "{told:?}");
                std::thread::sleep(*time);
            }
        }
        told
    }

    #[test]
    fn workers_see_each_other() {
        let (board, [holder, first, second, other], _body) = four("exec sleep 60");
        let another = Id::parse("ffeeddccbbaa99887766554433221100").unwrap();
        assert_eq!(holder.most(), 2);
        first.waits(&id());
        assert_eq!(first.patience(), Patience::Wait(Duration::from_millis(50)));
        second.waits(&id());
        other.waits(&another);
        let (state, key, _) = board.slot(2).lock();
        assert_eq!((state, key), (LockState::Waits, board.key(&id())));
        assert_ne!(key, board.slot(3).lock().1);
        // Once the holder has had its time the second waiter is one too many.
        assert_eq!(ask(&second, 10).last(), Some(&Patience::GiveUp));
        assert!(matches!(first.patience(), Patience::Wait(_)));
        assert!(matches!(other.patience(), Patience::Wait(_)));
        assert!(matches!(Locks::new(board, 2, Some(3)).patience(), Patience::Wait(_)));
        // The first gone, it is the second's turn to stay.
        first.leaves();
        assert!(matches!(second.patience(), Patience::Wait(_)));
        holder.leaves();
        assert_eq!(board.slot(0).left().0, board.key(&id()));
        assert_eq!((board.slot(0).lock().0, board.slot(1).left()), (LockState::None, (0, 0)));
        second.uses(&another);
        assert_eq!(board.slot(2).session(), board.key(&another));
    }

    #[test]
    fn a_holder_that_computes_is_slow_once_it_has_had_a_processor_for_that_long() {
        let (board, [_, first, second, _], body) = four("while :; do :; done");
        first.waits(&id());
        second.waits(&id());
        let told = ask(&second, 1000);
        assert_eq!(told.last(), Some(&Patience::GiveUp));
        // What it ran before anybody asked does not count.
        assert!(told.len() >= 3, "{told:?}");
        assert!(board.slot(0).ran(board.slot(0).lock().2, 1_000_000) > 900_000);
        drop(body);
    }

    #[test]
    fn a_dead_holder_holds_nothing() {
        let (_, [_, first, second, third], body) = four("exec sleep 60");
        drop(body);
        for waiter in [&first, &second, &third] {
            waiter.waits(&id());
        }
        std::thread::sleep(Duration::from_millis(LONG_HOLD));
        assert!(matches!(third.patience(), Patience::Wait(_)));
        // Others may hold it now, who are not on the board: they have their time.
        assert_eq!(ask(&third, 10).last(), Some(&Patience::GiveUp));
        assert!(matches!(second.patience(), Patience::Wait(_)));
    }

    #[test]
    fn who_was_woken_may_hold_the_lock() {
        let (_, [holder, first, second, third], _body) = four("while :; do :; done");
        holder.leaves();
        for waiter in [&first, &second, &third] {
            waiter.waits(&id());
        }
        assert!(ask(&third, 4).iter().all(|told| matches!(told, Patience::Wait(_))));
    }

    #[test]
    fn what_happens_is_counted() {
        let board = Scoreboard::new(1).unwrap();
        board.prepare(0, 0);
        let locks = Locks::new(board, 0, None);
        locks.note(Happening::Committed);
        locks.note(Happening::Waited(Duration::from_millis(2)));
        locks.note(Happening::Waited(Duration::from_millis(3)));
        for what in [Happening::Repeated, Happening::TimedOut, Happening::Refused] {
            locks.note(what);
        }
        let mut totals = super::super::scoreboard::Totals::default();
        totals.add(board.slot(0).tally());
        let counts = [Count::Commits, Count::LockWaits, Count::LockWaitMicros, Count::Conflicts, Count::LockTimeouts];
        assert_eq!(counts.map(|count| totals.of(count)), [1, 2, 5000, 1, 1]);
        assert_eq!(totals.of(Count::LockRefusals), 1);
    }
}
