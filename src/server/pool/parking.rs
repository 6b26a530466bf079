//! A worker's quiet connections, and the thread that gives them away while the worker is busy.
//!
//! A worker that serves somebody does not look at what arrives on the others. After [`PATIENCE`] a watcher thread puts
//! them on the [`Shelf`] for a worker that is idle. The worker starts the watcher's timer when it turns to a connection
//! while it holds others, so a pool without quiet connections has neither the thread nor the system call.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::shelf::{Quiet, Shelf};
use crate::server::stream::Stream;
use crate::sys::log::log;
use crate::sys::process::id;
use crate::sys::signal::Blocked;

/// How many connections a worker keeps for another request: also those of its colleagues, while they are busy.
const MAX_PARKED: usize = 256;
/// How long a worker may be busy before it gives them away. Longer than most requests take, as giving away costs more
/// than waiting for those; too short for a person to notice.
const PATIENCE: Duration = Duration::from_millis(5);

/// What epoll calls a parked connection: its descriptor's number.
fn token(stream: &Stream) -> u64 {
    u64::from(stream.as_fd().as_raw_fd().cast_unsigned())
}

/// The parked connections of this worker.
pub(super) struct Parking {
    lot: Arc<Lot>,
    /// Where they can be given to; none where the worker is alone.
    shelf: Option<Arc<Shelf>>,
    /// The watcher's timer, once there is a watcher.
    watch: Option<Arc<Watch>>,
}

/// What the worker and its watcher share.
struct Lot {
    /// The worker's; every parked connection is in it.
    epoll: OwnedFd,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The longest quiet first.
    parked: VecDeque<Parked>,
    /// The worker does not wait for events.
    busy: bool,
    /// The timer runs.
    armed: bool,
}

struct Parked {
    quiet: Quiet,
    since: Instant,
}

impl Parking {
    /// No connections yet; `epoll` reports what happens on them by the token that [`resume`](Self::resume) takes.
    pub(super) fn new(epoll: OwnedFd, shelf: Option<Arc<Shelf>>) -> Self {
        Self { lot: Arc::new(Lot { epoll, inner: Mutex::default() }), shelf, watch: None }
    }

    pub(super) fn epoll(&self) -> &OwnedFd {
        &self.lot.epoll
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lot.lock().parked.is_empty()
    }

    /// Whether the first request is on the way on one of them.
    pub(super) fn expects(&self) -> bool {
        self.lot.lock().parked.iter().any(|parked| parked.quiet.fresh)
    }

    /// Keeps a connection; in the place of the longest quiet one where there are too many.
    pub(super) fn park(&mut self, quiet: Quiet) {
        self.start_watcher();
        let mut inner = self.lot.lock();
        if inner.parked.len() == MAX_PARKED {
            inner.parked.pop_front();
        }
        if self.lot.watch(&quiet).is_ok() {
            inner.parked.push_back(Parked { quiet, since: Instant::now() });
        }
    }

    /// Takes out the connection that epoll has reported, if it was not given away since.
    pub(super) fn resume(&self, event: u64) -> Option<Quiet> {
        let mut inner = self.lot.lock();
        let found = inner.parked.iter().position(|parked| token(&parked.quiet.stream) == event)?;
        // It stays in the set and is not reported again: most come back in a moment.
        Some(inner.parked.remove(found)?.quiet)
    }

    /// Since when the longest quiet one has been so.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lot.lock().parked.front().map(|parked| parked.since)
    }

    /// Closes those that have been quiet for `time`.
    pub(super) fn close_stale(&self, time: Duration) {
        let now = Instant::now();
        let mut inner = self.lot.lock();
        while inner.parked.front().is_some_and(|parked| parked.since + time <= now) {
            inner.parked.pop_front();
        }
    }

    /// Closes the longer quiet half: the others may be about to send their first request.
    pub(super) fn close_half(&self) {
        let mut inner = self.lot.lock();
        let half = inner.parked.len().div_ceil(2);
        inner.parked.drain(..half);
    }

    /// The worker turns to a connection: from now on those that are parked wait for it.
    pub(super) fn busy(&self) {
        let mut inner = self.lot.lock();
        inner.busy = true;
        if let Some(watch) = &self.watch
            && !inner.armed
            && !inner.parked.is_empty()
        {
            inner.armed = watch.set(PATIENCE).is_ok();
        }
    }

    /// The worker waits for events. The timer is left to run out: it is one system call less.
    pub(super) fn idle(&self) {
        self.lot.lock().busy = false;
    }

    /// Puts all of them on the shelf, as far as they fit.
    pub(super) fn give_away(&self) {
        if let Some(shelf) = &self.shelf {
            self.lot.give_away(&mut self.lot.lock(), shelf);
        }
    }

    /// Puts a connection that is not parked on the shelf; where that cannot be, it is closed.
    pub(super) fn pass_on(&self, quiet: &Quiet) {
        if let Some(shelf) = &self.shelf {
            let _ = shelf.put(quiet);
        }
    }

    fn start_watcher(&mut self) {
        let Some(to) = self.shelf.as_ref().filter(|_| self.watch.is_none()) else { return };
        match Watch::start(Arc::clone(&self.lot), Arc::clone(to)) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                log!("pid={} cannot share quiet connections: {error}", id().as_raw_nonzero());
                self.shelf = None;
            }
        }
    }
}

impl Lot {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a connection reported, once: one that was resumed, and perhaps handed to another process, is silent until it is
    /// watched again.
    fn watch(&self, quiet: &Quiet) -> Result<(), Errno> {
        let data = epoll::EventData::new_u64(token(&quiet.stream));
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ONESHOT;
        match epoll::modify(&self.epoll, &quiet.stream, data, flags) {
            // It was not here before.
            Err(Errno::NOENT) => epoll::add(&self.epoll, &quiet.stream, data, flags),
            other => other,
        }
    }

    fn give_away(&self, inner: &mut Inner, to: &Shelf) {
        while let Some(parked) = inner.parked.pop_front() {
            // It must leave the set first: what is in a set goes by the open connection and not by the descriptor, so
            // its events would come here after it was closed, too.
            let put = epoll::delete(&self.epoll, &parked.quiet.stream).and_then(|()| to.put(&parked.quiet));
            if put.is_err() {
                if self.watch(&parked.quiet).is_ok() {
                    inner.parked.push_front(parked);
                }
                break;
            }
        }
    }
}

/// The watcher's timer.
struct Watch {
    timer: OwnedFd,
}

impl Watch {
    /// Starts the thread; it ends with the process.
    fn start(lot: Arc<Lot>, to: Arc<Shelf>) -> io::Result<Arc<Self>> {
        let watch = Arc::new(Self { timer: timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)? });
        let its = Arc::clone(&watch);
        // Signals are the main thread's: a thread starts with those held back that its maker has held back.
        let blocked = Blocked::all();
        let builder = thread::Builder::new().name("watcher".to_owned()).stack_size(64 << 10);
        builder.spawn(move || its.run(&lot, &to))?;
        drop(blocked);
        Ok(watch)
    }

    /// Has the timer expire after `time`, and again each time as much later; 0 stops it.
    fn set(&self, time: Duration) -> Result<(), Errno> {
        let time = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        let new = Itimerspec { it_interval: time, it_value: time };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &new).map(drop)
    }

    fn run(&self, lot: &Lot, to: &Shelf) {
        let mut expirations = [0; 8];
        while rustix::io::retry_on_intr(|| rustix::io::read(&self.timer, &mut expirations)).is_ok() {
            let mut inner = lot.lock();
            if !inner.busy || inner.parked.is_empty() {
                // The worker starts it again, and both do so under the lock.
                inner.armed = self.set(Duration::ZERO).is_err();
            } else if to.is_wanted() {
                lot.give_away(&mut inner, to);
            }
        }
    }
}
