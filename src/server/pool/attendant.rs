//! The loop of a worker: listeners, parked connections, signals.
//!
//! While connections come one after the other, each costs no system call but accept and what serving it needs: the
//! listener is tried first, and only when it has no connection does epoll wait. Else epoll is asked first.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering::SeqCst, fence};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::parking::Parking;
use super::relay::Parcel;
use super::scoreboard::{Count, Desk, Scoreboard};
use super::shelf::{Quiet, Shelf};
use crate::host::Host;
use crate::server::allow::Allow;
use crate::server::buffers::Buffers;
use crate::server::http::{Next, serve_http};
use crate::server::listener::{Listener, Protocol};
use crate::server::load::Errand;
use crate::server::reception::Begun;
use crate::server::scgi::serve_scgi;
use crate::sys::deadline::Answer;
use crate::sys::log::log;
use crate::sys::process::id;
use crate::sys::signal::{Signals, asked_to_leave};

/// How long the last workers of a pool go on taking connections where still others come.
const MAX_DRAIN: Duration = Duration::from_secs(5);
/// The same where others go on serving.
const MAX_LOOK: Duration = Duration::from_secs(1);
/// How long the first request on a connection may be on its way when the worker leaves.
const FRESH: Duration = Duration::from_millis(200);
/// How long a worker waits in place for the first request on a Unix socket's connection: to park it costs more.
const AT_ONCE: Duration = Duration::from_millis(1);
/// After so many connections in a row that were there already, the next one is taken to be there, too. Where it is not,
/// accept has made a socket in vain, which costs as much as ten questions.
const SURE: u32 = 8;
/// So much time a worker may give away for each connection that it serves, so that others who want the processor for long
/// cost a connection no more than that.
const GIFT: Duration = Duration::from_micros(250);
/// Saved up to so much.
const GIFTS: Duration = Duration::from_millis(5);
/// How often a worker that leaves looks whether slow clients are still to be heard of.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a worker stays away from the listeners when the system is out of descriptors or memory.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// What an event belongs to: the signals, a listener, the shelf, or a parked connection (a number that is smaller).
const SIGNALS: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;
const SHELF: u64 = u64::MAX - 2;

/// Serves connections, one at a time.
#[allow(clippy::struct_excessive_bools)] // Each is a fact of its own; no two make a state.
pub(super) struct Attendant<'a> {
    host: &'a Host,
    listeners: &'a [Listener],
    /// Who may speak SCGI; `None`: everybody who gets here.
    allow: Option<Allow>,
    desk: Desk,
    board: Scoreboard,
    /// How the master speaks to this worker, and it to the master.
    master: Option<(&'a Signals, &'a OwnedFd)>,
    buffers: Buffers,
    parking: Parking,
    /// Where connections come from that others hold and cannot serve now.
    shelf: Option<Arc<Shelf>>,
    /// The listeners are left to others.
    closed: bool,
    /// Until when the listeners are left alone.
    exhausted: Option<Instant>,
    exhaustion_logged: bool,
    /// The worker has served its share and said so.
    wishes_to_leave: bool,
    /// It had nothing to do before the connection that comes next.
    was_idle: bool,
    /// How much time it may give away.
    gift: Duration,
}

impl<'a> Attendant<'a> {
    pub(super) fn new(
        host: &'a Host,
        listeners: &'a [Listener],
        allow: Option<Allow>,
        desk: Desk,
        board: Scoreboard,
        master: Option<(&'a Signals, &'a OwnedFd)>,
        shelf: Option<Arc<Shelf>>,
    ) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        if let Some((signals, _)) = master {
            epoll::add(&epoll, signals, epoll::EventData::new_u64(SIGNALS), epoll::EventFlags::IN)?;
        }
        // A connection wakes one worker, not all.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        for listener in listeners {
            epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), flags)?;
        }
        if let Some(shelf) = &shelf {
            epoll::add(&epoll, shelf, epoll::EventData::new_u64(SHELF), flags)?;
        }
        Ok(Self {
            host,
            listeners,
            allow,
            desk,
            board,
            master,
            buffers: Buffers::new(),
            parking: Parking::new(epoll, shelf.clone()),
            shelf,
            closed: false,
            exhausted: None,
            exhaustion_logged: false,
            wishes_to_leave: false,
            was_idle: true,
            gift: Duration::ZERO,
        })
    }

    /// Serves until the worker is told to leave; then what has been sent already is answered, within
    /// `graceful_timeout`.
    pub(super) fn serve(&mut self, graceful_timeout: Duration) {
        // How many connections were there already, one after the other.
        let mut in_a_row = 0;
        while !asked_to_leave() {
            let is_sure = in_a_row >= SURE && self.listeners.len() == 1;
            let mut served = if is_sure { self.round() } else { self.wait(Some(Duration::ZERO)) };
            in_a_row = if served { in_a_row.saturating_add(1) } else { 0 };
            if asked_to_leave() {
                break;
            }
            if !served {
                self.give_way();
                served = self.wait(None);
            } else if is_sure && !self.parking.is_empty() {
                self.wait(Some(Duration::ZERO));
            }
            if served {
                self.gift = GIFTS.min(self.gift + GIFT);
            }
        }
        self.drain(graceful_timeout);
    }

    /// Lets somebody else have this processor, if he wants it: often that is the front server or a client, who connects in
    /// a moment, and to go on then costs much less than to fall asleep and be woken.
    fn give_way(&mut self) {
        if !self.gift.is_zero() {
            let before = Instant::now();
            std::thread::yield_now();
            self.gift = self.gift.saturating_sub(before.elapsed());
        }
    }

    /// Wakes the master up.
    fn call(&self) {
        if let Some((_, master)) = self.master {
            // A full pipe wakes it as well as one byte more would.
            let _ = rustix::io::write(master, b".");
        }
    }

    /// Takes one connection from each listener and one from the shelf, and serves them. False where there was none.
    fn round(&mut self) -> bool {
        if let Some(until) = self.exhausted {
            if Instant::now() < until {
                return false;
            }
            self.exhausted = None;
        }
        let mut served = false;
        let listeners = if self.closed { &[] } else { self.listeners };
        for (number, listener) in listeners.iter().enumerate() {
            match listener.accept() {
                Ok(stream) => {
                    served = true;
                    if self.allow.as_mut().is_none_or(|allow| allow.admits(listener.protocol, stream.peer())) {
                        self.attend(Quiet { stream, listener: number, fresh: true }, None);
                    } else {
                        self.desk.slot().tally().add(Count::Forbidden, 1);
                    }
                }
                Err(Errno::AGAIN) => {}
                // The client has left, or a signal came: the next one, please.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => served = true,
                Err(errno) => {
                    // EMFILE, ENFILE, ENOBUFS, ENOMEM. Parked connections are what can be given back.
                    self.parking.close_half();
                    self.exhausted = Some(Instant::now() + EXHAUSTED);
                    if !self.exhaustion_logged {
                        self.exhaustion_logged = true;
                        log!("pid={} cannot accept on {listener}: {errno}; trying again", id().as_raw_nonzero());
                    }
                    return false;
                }
            }
        }
        if let Some(parcel) = self.shelf.as_ref().and_then(|shelf| shelf.take(self.listeners)) {
            self.unpack(parcel);
            served = true;
        }
        served
    }

    /// Serves a connection from the shelf.
    fn unpack(&mut self, parcel: Parcel) {
        let Parcel { stream, listener, fresh, cargo } = parcel;
        if listener >= self.listeners.len() {
            return;
        }
        let quiet = Quiet { stream, listener, fresh };
        match cargo.errand {
            Errand::Keep => self.attend(quiet, None),
            // What cannot be read is closed.
            Errand::Receive => {
                if let Some(begun) = Begun::of_cargo(cargo, self.host.current_limits()) {
                    self.attend(quiet, Some(begun));
                }
            }
            Errand::Send | Errand::Linger => {}
        }
    }

    /// Serves what has arrived on a connection; `begun` of it was read by somebody else.
    fn attend(&mut self, connection: Quiet, begun: Option<Begun>) {
        // Whoever comes from now on may have to wait.
        if std::mem::take(&mut self.was_idle) {
            self.desk.slot().busy();
            // Two that turn to connections at once must not both take the other for idle: each first says that it is
            // busy, and then looks.
            fence(SeqCst);
            if self.master.is_some() && !self.board.has_idle() && self.board.call() {
                self.call();
            }
        }
        self.parking.busy();
        let Quiet { stream, listener, fresh } = connection;
        let client = stream.as_fd().as_raw_fd();
        match self.listeners[listener].protocol {
            Protocol::Scgi => {
                self.desk.attend(client, listener, Answer::Cgi);
                serve_scgi(stream, begun, self.host, &self.desk, &mut self.buffers);
            }
            Protocol::Http => {
                self.desk.attend(client, listener, Answer::Http);
                let before = self.desk.served();
                let mut next = serve_http(stream, begun, self.host, &self.desk, &mut self.buffers);
                let is_fresh = |desk: &Desk| fresh && desk.served() == before;
                if let Next::Idle(stream) = next {
                    let unix = self.listeners[listener].local().is_none();
                    next = if unix && is_fresh(&self.desk) && stream.is_readable_within(AT_ONCE) {
                        serve_http(stream, None, self.host, &self.desk, &mut self.buffers)
                    } else {
                        Next::Idle(stream)
                    };
                }
                if let Next::Idle(stream) = next {
                    self.park(Quiet { stream, listener, fresh: is_fresh(&self.desk) });
                }
            }
        }
        self.desk.quiet();
        if self.desk.is_spent() && !self.wishes_to_leave {
            // It goes on until another one is ready in its place.
            self.wishes_to_leave = true;
            self.desk.slot().wish_to_leave();
            self.call();
        }
    }

    fn park(&mut self, quiet: Quiet) {
        // Where nobody goes on, what has come on it by now is still answered, see `drain`.
        if quiet.fresh || !asked_to_leave() || self.board.is_stopping() {
            self.parking.park(quiet);
        } else {
            // Told to leave after the response has promised that the connection stays: it does, with somebody else.
            self.parking.pass_on(&quiet);
        }
    }

    /// Waits for a connection, a parked one that goes on, or a signal, and serves it; `None`: as long as it takes.
    /// False where there was nothing to serve.
    fn wait(&mut self, time: Option<Duration>) -> bool {
        let keep = self.host.current_limits().keep_alive_timeout;
        let timeout = time.or_else(|| {
            let next = [self.parking.oldest().map(|since| since + keep), self.exhausted].into_iter().flatten().min();
            next.map(|next| {
                // A millisecond more, since epoll counts in those and must not wake too early.
                let mut left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                if self.exhausted.is_some() {
                    // The listeners stay readable meanwhile, so epoll would not wait for them.
                    std::thread::sleep(left.min(EXHAUSTED));
                    left = Duration::ZERO;
                }
                left
            })
        });
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        let mut events: [epoll::Event; 16] = std::array::from_fn(|_| epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        });
        let mut wait = || epoll::wait(self.parking.epoll(), &mut events[..], timeout.as_ref());
        let count = if time.is_none() {
            self.parking.idle();
            self.desk.slot().while_idle(wait)
        } else {
            wait()
        };
        // EINTR: a signal came, and it is in the pipe or the flag by now.
        let count = count.unwrap_or(0);
        self.desk.reopen_journal();
        // The structs are packed, so no references into them.
        let tokens = events[..count].iter().map(|event| { event.data }.u64());
        let mut is_called = false;
        for token in tokens.clone() {
            match token {
                // The flag has been set by the handler; what is in the pipe only woke us up.
                SIGNALS => while self.master.is_some_and(|(signals, _)| signals.next().is_some()) {},
                LISTENER => is_called = true,
                SHELF => {
                    is_called = true;
                    self.shelf.iter().for_each(|shelf| shelf.note());
                }
                _ => {}
            }
        }
        self.was_idle |= time.is_none();
        // What everybody waits for goes first, as the kernel may have woken only this worker for it. What is parked
        // here can still be given away if that takes long.
        let mut served = is_called && self.round();
        for token in tokens.filter(|&token| token < SHELF) {
            if let Some(quiet) = self.parking.resume(token) {
                self.attend(quiet, None);
                served = true;
            }
        }
        self.parking.close_stale(keep);
        served
    }

    /// The end: requests that have been sent already are still answered.
    fn drain(&mut self, graceful_timeout: Duration) {
        let end = Instant::now().checked_add(graceful_timeout).unwrap_or_else(|| Instant::now() + MAX_DRAIN);
        let (last, stopping) = (self.board.is_last(), self.board.is_stopping());
        if !stopping && let Some(shelf) = self.shelf.take() {
            // The others go on with what is quiet here.
            let _ = epoll::delete(self.parking.epoll(), &shelf);
            self.parking.give_away();
            shelf.pass_on(self.listeners);
        }
        // Where nobody serves after us, whoever waits in a queue would get a reset: so they are emptied. Where others
        // serve, the kernel may have woken just this worker for a connection, so one look is due; if connections keep
        // coming, then the others are awake, too.
        let (time, rounds) = match last {
            true if self.board.is_sealed() => (graceful_timeout, usize::MAX),
            true => (MAX_DRAIN.min(graceful_timeout / 2), usize::MAX),
            false => (MAX_LOOK, 64),
        };
        let until = Instant::now() + time;
        let mut round = 0;
        while self.round() && round < rounds && Instant::now() < until {
            round += 1;
        }
        // The kernel may hold connections that are as fresh as those that are parked.
        let deferred = last && self.listeners.iter().any(Listener::is_deferred);
        if deferred {
            // The others may be readable for ever: nobody can connect to them any more.
            for listener in self.listeners.iter().filter(|listener| !listener.is_deferred()) {
                let _ = epoll::delete(self.parking.epoll(), listener);
            }
        } else {
            self.close();
        }
        // A parked connection on which a request is waiting is served, and so is, where nobody else will, one on the
        // shelf. One that was accepted just now gets a moment for its first request; the others are closed.
        let until = Instant::now() + FRESH.min(graceful_timeout / 2);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let fresh = !left.is_zero() && (deferred || self.parking.expects());
            if left.is_zero() {
                self.close();
            }
            // In this order: the porter puts a request on the shelf before it says that it has it no more.
            let slow = stopping && Instant::now() < end && self.desk.expects_slow();
            let time = match (fresh, slow) {
                (true, true) => left.min(GLANCE),
                (true, false) => left,
                (false, true) => GLANCE,
                (false, false) => Duration::ZERO,
            };
            if !self.wait(Some(time)) && !fresh && !slow {
                break;
            }
        }
    }

    /// Leaves the listeners to others.
    fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            for listener in self.listeners {
                let _ = epoll::delete(self.parking.epoll(), listener);
            }
        }
    }
}
