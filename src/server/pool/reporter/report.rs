//! What the reports say: numbers from the scoreboard, the listeners and `/proc`, before they have a form.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Pid;
use serde::Serialize;

use super::measure::{Measure, Usage};
use crate::server::listener::Listener;
use crate::server::pool::clock::{now, now_micros, seconds};
use crate::server::pool::scoreboard::{BOUNDS, Count, Event, LockState, Scoreboard, Slot, Slow, Totals, session_name};
use crate::server::pool::sweeper;
use crate::sys::queue;

/// How the pool is.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) pool: Pool,
    pub(super) workers: Workers,
    pub(super) listeners: Vec<Queue>,
    pub(super) slow_clients: SlowClients,
    pub(super) requests: Requests,
    pub(super) sessions: Sessions,
    /// Workers that ended, by reason.
    pub(super) exits: BTreeMap<&'static str, u64>,
    pub(super) reloads: Reloads,
    /// How often more workers were wanted than there may be.
    pub(super) exhausted: u64,
    /// Lines that could not be written to the access log.
    pub(super) access_log_lost_lines: u64,
    pub(super) sweep: Option<Sweep>,
    pub(super) locks: Vec<Lock>,
    pub(super) scoreboard: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub(super) struct Pool {
    /// The master's process.
    pub(super) pid: i32,
    /// When it was started, in seconds since 1970.
    pub(super) started: f64,
    pub(super) uptime_seconds: f64,
    pub(super) stopping: bool,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Workers {
    pub(super) min: usize,
    pub(super) max: usize,
    /// How many there should be now.
    pub(super) wanted: usize,
    pub(super) ready: usize,
    /// By state.
    pub(super) booting: usize,
    pub(super) idle: usize,
    pub(super) busy: usize,
    pub(super) transfer: usize,
    pub(super) leaving: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct Queue {
    pub(super) protocol: String,
    pub(super) address: String,
    /// `None` where the kernel does not tell.
    pub(super) waiting: Option<u32>,
    pub(super) limit: Option<u32>,
}

/// Who is slow, and held by the porter instead of a worker.
#[derive(Debug, Serialize)]
pub(super) struct SlowClients {
    /// Whose request is on its way in.
    pub(super) receiving: u64,
    /// Who is sent a response, or is waited for to close.
    pub(super) sending: u64,
    pub(super) handed_over_total: u64,
    /// Closed to have room for others.
    pub(super) dropped_total: u64,
    pub(super) porter_deaths_total: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Requests {
    pub(super) total: u64,
    pub(super) by_class: BTreeMap<&'static str, u64>,
    /// On the average since the pool was started.
    pub(super) per_second: f64,
    /// From the call of the application to its answer, of all together.
    pub(super) seconds: f64,
    /// How many took at most so many seconds; the last counts all.
    pub(super) histogram: Vec<Bucket>,
    pub(super) p50_seconds: Option<f64>,
    pub(super) p90_seconds: Option<f64>,
    pub(super) p99_seconds: Option<f64>,
    pub(super) slow: u64,
    pub(super) soft_timeouts: u64,
    /// SCGI connections from where none may come.
    pub(super) forbidden: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Bucket {
    /// `None`: infinitely many.
    pub(super) at_most_seconds: Option<f64>,
    pub(super) requests: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Sessions {
    pub(super) commits: u64,
    pub(super) conflicts: u64,
    pub(super) lock_waits: u64,
    pub(super) lock_wait_seconds: f64,
    pub(super) lock_timeouts: u64,
    pub(super) lock_refusals: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Reloads {
    pub(super) done: u64,
    pub(super) failed: u64,
}

/// What the sweeps did; the first five are the last one's.
#[derive(Debug, Serialize)]
pub(super) struct Sweep {
    pub(super) ago_seconds: f64,
    pub(super) deleted: u64,
    pub(super) remaining: u64,
    pub(super) lag_seconds: f64,
    pub(super) took_seconds: f64,
    pub(super) deleted_total: u64,
    pub(super) sweeps_total: u64,
    pub(super) failures_total: u64,
}

/// A session that somebody holds or waits for.
#[derive(Debug, Serialize)]
pub(super) struct Lock {
    pub(super) session: String,
    /// The numbers of workers.
    pub(super) holder: Option<usize>,
    pub(super) waiting: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It prepares itself.
    Booting,
    /// It waits for something to do.
    Idle,
    /// The application works on a request.
    Busy,
    /// It reads a request or writes a response.
    Transfer,
    /// It was told to leave.
    Leaving,
}

impl State {
    pub(super) const ALL: [Self; 5] = [Self::Booting, Self::Idle, Self::Busy, Self::Transfer, Self::Leaving];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Transfer => "transfer",
            Self::Leaving => "leaving",
        }
    }
}

/// A worker.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) worker: usize,
    pub(super) pid: u64,
    pub(super) state: State,
    pub(super) generation: u64,
    pub(super) age_seconds: f64,
    /// Requests that were answered in this place, by this worker and those before it.
    pub(super) requests: u64,
    pub(super) request: Option<Request>,
    pub(super) lock: Option<Held>,
    pub(super) usage: Usage,
}

/// The request that the application works on.
#[derive(Debug, Serialize)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// The session that it uses, if it does by now.
    pub(super) session: Option<String>,
    pub(super) age_seconds: f64,
}

/// What a worker has to do with a session's lock.
#[derive(Debug, Serialize)]
pub(super) struct Held {
    pub(super) state: &'static str,
    pub(super) session: String,
    pub(super) seconds: f64,
}

impl Report {
    /// Looks at everything.
    pub(super) fn new(board: Scoreboard, listeners: &[Listener], master: Pid, measure: &Measure) -> Self {
        let stopping = board.is_told_to_stop();
        let mut totals = Totals::default();
        let mut scoreboard = Vec::new();
        for (number, slot) in board.used() {
            totals.add(slot.tally());
            scoreboard.extend(row(number, slot, stopping, board, measure));
        }
        let (min, max, wanted) = board.wanted();
        let mut workers = Workers { min, max, wanted, ..Workers::default() };
        for row in &scoreboard {
            *match row.state {
                State::Booting => &mut workers.booting,
                State::Idle => &mut workers.idle,
                State::Busy => &mut workers.busy,
                State::Transfer => &mut workers.transfer,
                State::Leaving => &mut workers.leaving,
            } += 1;
        }
        workers.ready = workers.idle + workers.busy + workers.transfer;
        let started = seconds(board.since());
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let uptime_seconds = (unix - started).max(0.0);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pool: Pool { pid: master.as_raw_nonzero().get(), started, uptime_seconds, stopping },
            workers,
            listeners: listeners.iter().map(Queue::of).collect(),
            slow_clients: SlowClients {
                receiving: board.slow(Slow::Receiving),
                sending: board.slow(Slow::Sending),
                handed_over_total: board.slow(Slow::Handed),
                dropped_total: board.slow(Slow::Dropped),
                porter_deaths_total: board.slow(Slow::Deaths),
            },
            requests: Requests::of(&totals, board, uptime_seconds),
            sessions: Sessions {
                commits: totals.of(Count::Commits),
                conflicts: totals.of(Count::Conflicts),
                lock_waits: totals.of(Count::LockWaits),
                lock_wait_seconds: micros(totals.of(Count::LockWaitMicros)),
                lock_timeouts: totals.of(Count::LockTimeouts),
                lock_refusals: totals.of(Count::LockRefusals),
            },
            exits: exits(board),
            reloads: Reloads { done: board.events(Event::Reload), failed: board.events(Event::ReloadFailed) },
            exhausted: board.events(Event::Exhausted),
            access_log_lost_lines: totals.of(Count::LostLines),
            sweep: Sweep::of(board),
            locks: locks(&scoreboard),
            scoreboard,
        }
    }
}

/// Microseconds in seconds.
fn micros(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}

fn row(number: usize, slot: Slot, stopping: bool, board: Scoreboard, measure: &Measure) -> Option<Row> {
    let pid = slot.pid();
    if pid == 0 {
        return None;
    }
    let time = now();
    let since = |then: u64| seconds(time.saturating_sub(then));
    let work = slot.work();
    let state = match () {
        () if stopping || slot.is_leaving() => State::Leaving,
        () if !slot.is_ready() => State::Booting,
        () if work.is_some() => State::Busy,
        () if slot.idle_since().is_some() => State::Idle,
        () => State::Transfer,
    };
    let request = work.map(|work| {
        let (method, path) = slot.text();
        let session = Some(slot.session()).filter(|&key| key != 0).map(|key| session_name(board.salt(), key));
        Request { method, path, session, age_seconds: since(work.started) }
    });
    let lock = match slot.lock() {
        (LockState::None, ..) => None,
        (lock, key, then) => {
            Some(Held { state: lock.name(), session: session_name(board.salt(), key), seconds: since(then) })
        }
    };
    let mut totals = Totals::default();
    totals.add(slot.tally());
    Some(Row {
        worker: number,
        pid,
        state,
        generation: slot.generation(),
        age_seconds: since(slot.born()),
        requests: totals.requests(),
        request,
        lock,
        usage: measure.usage(pid, now_micros()),
    })
}

impl Queue {
    fn of(listener: &Listener) -> Self {
        let queue = queue::queue(listener);
        Self {
            protocol: listener.protocol.to_string(),
            address: listener.to_string(),
            waiting: queue.map(|queue| queue.waiting),
            limit: queue.map(|queue| queue.limit),
        }
    }
}

impl Requests {
    fn of(totals: &Totals, board: Scoreboard, uptime: f64) -> Self {
        let mut sum = 0;
        let bounds = BOUNDS.iter().map(|&bound| Some(micros(bound))).chain([None]);
        let histogram: Vec<Bucket> = bounds
            .zip(totals.buckets)
            .map(|(at_most_seconds, count)| {
                sum += count;
                Bucket { at_most_seconds, requests: sum }
            })
            .collect();
        // Those that the master has answered with 504, as their workers could not, are failures like the others.
        let timed_out = board.events(Event::TimedOut);
        let total = totals.requests() + timed_out;
        let mut classes = totals.classes;
        classes[4] += timed_out;
        Self {
            total,
            by_class: ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(classes).collect(),
            per_second: if uptime > 0.0 { count(total) / uptime } else { 0.0 },
            seconds: micros(totals.micros),
            p50_seconds: quantile(&histogram, 0.5),
            p90_seconds: quantile(&histogram, 0.9),
            p99_seconds: quantile(&histogram, 0.99),
            histogram,
            slow: totals.of(Count::Slow),
            soft_timeouts: board.events(Event::SoftTimeout),
            forbidden: totals.of(Count::Forbidden),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shares of counts, not counts")]
fn count(count: u64) -> f64 {
    count as f64
}

/// How long that share of the requests took at most, as near as the buckets tell: as if those in one bucket were spread
/// evenly. Above the last bound it is that.
fn quantile(histogram: &[Bucket], share: f64) -> Option<f64> {
    let total = histogram.last().map_or(0, |bucket| bucket.requests);
    if total == 0 {
        return None;
    }
    let rank = share * count(total);
    let (mut below, mut lower) = (0, 0.0);
    for bucket in histogram {
        let Some(upper) = bucket.at_most_seconds else { break };
        if count(bucket.requests) >= rank {
            return Some(lower + (upper - lower) * (rank - count(below)) / count(bucket.requests - below));
        }
        (below, lower) = (bucket.requests, upper);
    }
    Some(lower)
}

fn exits(board: Scoreboard) -> BTreeMap<&'static str, u64> {
    let name = |event| match event {
        Event::Crashed => Some("crashed"),
        Event::TimedOut => Some("timed_out"),
        Event::Recycled => Some("recycled"),
        Event::Reloaded => Some("reloaded"),
        Event::Idle => Some("idle"),
        Event::Overdue => Some("overdue"),
        Event::BootFailed => Some("boot_failed"),
        Event::Reload | Event::ReloadFailed | Event::Exhausted | Event::SoftTimeout => None,
    };
    Event::ALL.into_iter().filter_map(|event| Some((name(event)?, board.events(event)))).collect()
}

impl Sweep {
    fn of(board: Scoreboard) -> Option<Self> {
        let report = sweeper::Report::new(board.sweep());
        let [sweeps_total, failures_total, deleted_total] = report.totals();
        report.last().map(|last| Self {
            ago_seconds: seconds(now().saturating_sub(last.finished)),
            deleted: last.deleted,
            remaining: last.remaining,
            lag_seconds: seconds(last.lag),
            took_seconds: seconds(last.took),
            deleted_total,
            sweeps_total,
            failures_total,
        })
    }
}

/// Who holds and who waits, session by session.
fn locks(rows: &[Row]) -> Vec<Lock> {
    let mut locks: BTreeMap<&str, (Option<usize>, Vec<usize>)> = BTreeMap::new();
    for row in rows {
        let Some(held) = &row.lock else { continue };
        let (holder, waiting) = locks.entry(&held.session).or_default();
        if held.state == LockState::Holds.name() {
            *holder = Some(row.worker);
        } else {
            waiting.push(row.worker);
        }
    }
    let lock = |(session, (holder, waiting)): (&str, _)| Lock { session: session.to_owned(), holder, waiting };
    locks.into_iter().map(lock).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::Ordering::{Relaxed, Release};

    use http::{Method, StatusCode};

    use super::*;
    use crate::server::activity::Activity as _;
    use crate::server::pool::scoreboard::Desk;

    /// A pool of three: one holds a session, one waits for it, one is gone.
    pub(in crate::server::pool::reporter) fn report() -> Report {
        let board = Scoreboard::new(3).unwrap();
        board.set_wanted(1, 8, 3);
        for number in 0..3 {
            board.prepare(number, 0);
        }
        let pid = u64::from(std::process::id());
        let slots = [0, 1].map(|number| board.slot(number));
        for slot in slots {
            slot.set_ready();
            slot.set_pid(pid);
        }
        let desk = Desk::new(slots[0], u64::MAX, None, None);
        for (status, count) in [(StatusCode::OK, 3), (StatusCode::NOT_FOUND, 1)] {
            for _ in 0..count {
                desk.begin(&Method::GET, "/");
                desk.end(status);
            }
        }
        desk.begin(&Method::GET, "/<b>\u{1b}[2J\u{202e}&\"'");
        // It has not begun its request yet.
        slots[1].busy();
        slots[0].set_lock(LockState::Holds, 77);
        slots[1].set_lock(LockState::Waits, 77);
        slots[0].tally().add(Count::LockWaits, 2);
        slots[0].tally().add(Count::LockWaitMicros, 1_500_000);
        board.note(Event::Crashed);
        board.set_slow(Slow::Receiving, 6);
        board.set_slow(Slow::Sending, 2);
        (0..9).for_each(|_| board.note_slow(Slow::Handed));
        board.sweep()[1].store(5, Relaxed);
        board.sweep()[0].store(now(), Release);
        let measure = Measure::default();
        Report::new(board, &[], rustix::process::getpid(), &measure)
    }

    #[test]
    fn counts_states_and_locks() {
        let report = report();
        assert_eq!((report.workers.min, report.workers.max, report.workers.wanted), (1, 8, 3));
        assert_eq!((report.workers.ready, report.workers.busy, report.workers.transfer), (2, 1, 1));
        assert_eq!(report.scoreboard.len(), 2);
        assert_eq!((report.requests.total, report.requests.by_class["4xx"]), (4, 1));
        assert_eq!(report.exits["crashed"], 1);
        let slow = &report.slow_clients;
        assert_eq!((slow.receiving, slow.sending, slow.handed_over_total, slow.dropped_total), (6, 2, 9, 0));
        let [lock] = &report.locks[..] else { panic!("{report:?}") };
        assert_eq!((lock.holder, &lock.waiting[..]), (Some(0), &[1][..]));
        assert!(lock.session.len() == 12 && lock.session.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!((report.sessions.lock_wait_seconds - 1.5).abs() < 1e-9);
        assert_eq!(report.sweep.as_ref().unwrap().deleted, 5);
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(json["scoreboard"][0]["state"], "busy");
        assert_eq!(json["requests"]["histogram"][15]["at_most_seconds"], serde_json::Value::Null);
    }

    #[test]
    fn quantiles_are_within_their_bucket() {
        let histogram = |counts: [u64; 3]| {
            let mut sum = 0;
            let bucket = |(at_most_seconds, count): (Option<f64>, u64)| {
                sum += count;
                Bucket { at_most_seconds, requests: sum }
            };
            [Some(1.0), Some(2.0), None].into_iter().zip(counts).map(bucket).collect::<Vec<_>>()
        };
        assert_eq!(quantile(&histogram([0, 0, 0]), 0.5), None);
        assert_eq!(quantile(&histogram([10, 0, 0]), 0.5), Some(0.5));
        assert_eq!(quantile(&histogram([5, 5, 0]), 0.75), Some(1.5));
        assert_eq!(quantile(&histogram([0, 0, 3]), 0.5), Some(2.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
