//! The loop of a worker: listeners, parked connections, signals.
//!
//! While connections come one after the other, each costs no system call but accept and what serving it needs: the
//! listeners are tried first, and only when none has a connection does epoll wait.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::scoreboard::{Desk, Scoreboard};
use crate::host::Host;
use crate::server::buffers::Buffers;
use crate::server::http::{Next, serve_http};
use crate::server::listener::{Listener, Protocol};
use crate::server::scgi::serve_scgi;
use crate::server::stream::Stream;
use crate::sys::deadline::Answer;
use crate::sys::log::log;
use crate::sys::process::id;
use crate::sys::signal::{Signals, asked_to_leave};

/// How many quiet HTTP connections a worker keeps for another request.
const MAX_PARKED: usize = 64;
/// How long the last workers of a pool go on taking connections that wait in the queue.
const MAX_DRAIN: Duration = Duration::from_secs(5);
/// The same where others go on serving.
const MAX_LOOK: Duration = Duration::from_secs(1);
/// How long the first request on a connection may be on its way when the worker leaves.
const FRESH: Duration = Duration::from_millis(200);
/// How long a worker stays away from the listeners when the system is out of descriptors or memory.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// What an event belongs to: the signals, a listener, or a parked connection (its descriptor's number).
const SIGNALS: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

/// A quiet HTTP connection.
struct Parked {
    stream: Stream,
    since: Instant,
    /// It was accepted and nothing has come on it yet: its first request is on the way.
    fresh: bool,
}

/// What epoll calls a parked connection.
fn token(stream: &Stream) -> u64 {
    u64::from(stream.as_fd().as_raw_fd().cast_unsigned())
}

/// Serves connections, one at a time.
pub(super) struct Attendant<'a> {
    host: &'a Host,
    listeners: &'a [Listener],
    desk: Desk,
    board: Scoreboard,
    signals: Option<&'a Signals>,
    buffers: Buffers,
    epoll: OwnedFd,
    /// The longest quiet first.
    parked: Vec<Parked>,
    /// Until when the listeners are left alone.
    exhausted: Option<Instant>,
    exhaustion_logged: bool,
}

impl<'a> Attendant<'a> {
    pub(super) fn new(
        host: &'a Host,
        listeners: &'a [Listener],
        desk: Desk,
        board: Scoreboard,
        signals: Option<&'a Signals>,
    ) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        if let Some(signals) = signals {
            epoll::add(&epoll, signals, epoll::EventData::new_u64(SIGNALS), epoll::EventFlags::IN)?;
        }
        for listener in listeners {
            // A connection wakes one worker, not all.
            let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
            epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), flags)?;
        }
        Ok(Self {
            host,
            listeners,
            desk,
            board,
            signals,
            buffers: Buffers::new(),
            epoll,
            parked: Vec::new(),
            exhausted: None,
            exhaustion_logged: false,
        })
    }

    /// Serves until the worker is told to leave or has served its share; then what has been sent already is answered,
    /// for half of `graceful_timeout` at most.
    pub(super) fn serve(&mut self, graceful_timeout: Duration) {
        while !self.is_leaving() {
            let served = self.accept_round();
            if self.is_leaving() {
                break;
            }
            // As long as connections come and none is parked, there is nothing to ask the kernel for.
            if !served {
                self.wait(None);
            } else if !self.parked.is_empty() {
                self.wait(Some(Duration::ZERO));
            }
        }
        self.drain(graceful_timeout);
    }

    fn is_leaving(&self) -> bool {
        asked_to_leave() || self.desk.is_spent()
    }

    /// Takes one connection from each listener and serves it. False where there was none.
    fn accept_round(&mut self) -> bool {
        if let Some(until) = self.exhausted {
            if Instant::now() < until {
                return false;
            }
            self.exhausted = None;
        }
        let mut served = false;
        let listeners = self.listeners;
        for listener in listeners {
            match listener.accept() {
                Ok(stream) => {
                    self.attend(stream, listener.protocol, true);
                    served = true;
                    if self.desk.is_spent() {
                        break;
                    }
                }
                Err(Errno::AGAIN) => {}
                // The client has left, or a signal came: the next one, please.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => served = true,
                Err(errno) => {
                    // EMFILE, ENFILE, ENOBUFS, ENOMEM. Parked connections are what can be given back, the longest quiet
                    // first: the others may be about to send their first request.
                    self.parked.drain(..self.parked.len().div_ceil(2));
                    self.exhausted = Some(Instant::now() + EXHAUSTED);
                    if !self.exhaustion_logged {
                        self.exhaustion_logged = true;
                        log!("pid={} cannot accept on {listener}: {errno}; trying again", id().as_raw_nonzero());
                    }
                    return false;
                }
            }
        }
        served
    }

    /// Serves what has arrived on a connection; `fresh`: it is the first that could.
    fn attend(&mut self, stream: Stream, protocol: Protocol, fresh: bool) {
        let client = stream.as_fd().as_raw_fd();
        let before = self.desk.served();
        match protocol {
            Protocol::Scgi => {
                self.desk.attend(client, Answer::Cgi);
                serve_scgi(stream, self.host, &self.desk, &mut self.buffers);
            }
            Protocol::Http => {
                self.desk.attend(client, Answer::Http);
                if let Next::Idle(stream) = serve_http(stream, self.host, &self.desk, &mut self.buffers) {
                    self.park(stream, fresh && self.desk.served() == before);
                }
            }
        }
        self.desk.quiet();
    }

    fn park(&mut self, stream: Stream, fresh: bool) {
        if self.is_leaving() && !fresh {
            return;
        }
        if self.parked.len() == MAX_PARKED {
            self.parked.remove(0);
        }
        let data = epoll::EventData::new_u64(token(&stream));
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        if epoll::add(&self.epoll, &stream, data, flags).is_ok() {
            self.parked.push(Parked { stream, since: Instant::now(), fresh });
        }
    }

    /// Waits for a connection, a parked one that goes on, or a signal; `None`: as long as it takes. Returns how many
    /// parked connections went on.
    fn wait(&mut self, time: Option<Duration>) -> usize {
        let keep = self.host.current_limits().keep_alive_timeout;
        let next = [self.parked.first().map(|parked| parked.since + keep), self.exhausted].into_iter().flatten().min();
        let time = match (time, next) {
            (None, Some(next)) => {
                // A millisecond more, since epoll counts in those and must not wake too early.
                let mut left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                if self.exhausted.is_some() {
                    // The listeners stay readable meanwhile, so epoll would not wait for them.
                    std::thread::sleep(left.min(EXHAUSTED));
                    left = Duration::ZERO;
                }
                Some(left)
            }
            (time, _) => time,
        };
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        let mut events: [epoll::Event; 16] = std::array::from_fn(|_| epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        });
        // EINTR: a signal came, and it is in the pipe or the flag by now.
        let count = epoll::wait(&self.epoll, &mut events[..], time.as_ref()).unwrap_or(0);
        let mut resumed = 0;
        for event in &events[..count] {
            // The struct is packed, so no reference into it.
            let data = event.data;
            match data.u64() {
                // The flag has been set by the handler; what is in the pipe only woke us up.
                SIGNALS => while self.signals.is_some_and(|signals| signals.next().is_some()) {},
                LISTENER => {}
                descriptor => {
                    resumed += 1;
                    self.resume(descriptor);
                }
            }
        }
        let now = Instant::now();
        let stale = self.parked.iter().take_while(|parked| parked.since + keep <= now).count();
        self.parked.drain(..stale);
        resumed
    }

    /// Serves a parked connection that has become readable.
    fn resume(&mut self, descriptor: u64) {
        let found = self.parked.iter().position(|parked| token(&parked.stream) == descriptor);
        let Some(found) = found else { return };
        let Parked { stream, fresh, .. } = self.parked.remove(found);
        // It is served like a new one; what it says from now on is read there.
        if epoll::delete(&self.epoll, &stream).is_ok() {
            self.attend(stream, Protocol::Http, fresh);
        }
    }

    /// The end: requests that have been sent already are still answered.
    fn drain(&mut self, graceful_timeout: Duration) {
        let last = self.board.is_last();
        // Recycled: whoever takes this worker's place looks at the listeners before anything else.
        if last || asked_to_leave() {
            // Where nobody serves after us, whoever waits in a queue would get a reset: so they are emptied, but not
            // for ever. Where others serve, the kernel may have woken just this worker for a connection, so one look
            // is due; if connections keep coming, then the others are awake, too.
            let (time, rounds) = if last { (MAX_DRAIN.min(graceful_timeout / 2), usize::MAX) } else { (MAX_LOOK, 64) };
            let until = Instant::now() + time;
            let mut round = 0;
            while self.accept_round() && round < rounds && Instant::now() < until {
                round += 1;
            }
        }
        for listener in self.listeners {
            let _ = epoll::delete(&self.epoll, listener);
        }
        // A parked connection on which a request is waiting is served. One that was accepted just now gets a moment
        // for its first request; the others are closed.
        let until = Instant::now() + FRESH;
        while !self.parked.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let hopeful = !left.is_zero() && self.parked.iter().any(|parked| parked.fresh);
            if self.wait(Some(if hopeful { left } else { Duration::ZERO })) == 0 && !hopeful {
                break;
            }
        }
    }
}
