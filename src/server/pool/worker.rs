//! A worker: one process that serves one request at a time until it is told to leave.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::scoreboard::{Desk, Scoreboard, Slot};
use crate::host::Host;
use crate::server::buffers::Buffers;
use crate::server::http::{Next, serve_http};
use crate::server::listener::{Listener, Protocol};
use crate::server::scgi::serve_scgi;
use crate::server::stream::Stream;
use crate::sys::deadline::Answer;
use crate::sys::log::log;
use crate::sys::process::{id, signal_when_parent_dies};
use crate::sys::signal::{Action, Blocked, Signal, Signals, asked_to_leave, leave_within};

/// What a worker exits with when it could not be made ready.
pub(super) const EXIT_BOOT: i32 = 3;

/// How many quiet HTTP connections a worker keeps for another request.
const MAX_PARKED: usize = 64;
/// How long the last workers of a pool go on taking connections that wait in the queue.
const MAX_DRAIN: Duration = Duration::from_secs(5);
/// The same where others go on serving.
const MAX_LOOK: Duration = Duration::from_secs(1);
/// How long a worker stays away from the listeners when the system is out of descriptors or memory.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// What an event belongs to: the signals, a listener, or a parked connection (its descriptor's number).
const SIGNALS: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

/// What a worker needs, as it was in the master when it forked.
pub(super) struct Setting<'a> {
    pub(super) host: &'a Host,
    pub(super) listeners: &'a [Listener],
    pub(super) board: Scoreboard,
    pub(super) number: usize,
    pub(super) master: rustix::process::Pid,
    /// One byte goes here when the worker is ready.
    pub(super) ready: &'a OwnedFd,
    pub(super) max_requests: u64,
    pub(super) graceful_timeout: Duration,
}

/// The life of a worker; returns its exit status. `blocked` holds signals back until there are handlers for them.
pub(super) fn run(setting: &Setting<'_>, blocked: Blocked) -> i32 {
    let slot = setting.board.slot(setting.number);
    let signals = match prepare(setting, slot) {
        Ok(Some(signals)) => signals,
        // The master died while it forked.
        Ok(None) => return 0,
        Err(error) => return refuse(setting, slot, &error),
    };
    drop(blocked);
    if let Some(store) = setting.host.store()
        && let Err(error) = store.setup()
    {
        return refuse(setting, slot, &crate::Error::from(error));
    }
    let mut worker = match Worker::new(setting, slot, &signals) {
        Ok(worker) => worker,
        Err(error) => return refuse(setting, slot, &error.into()),
    };
    slot.set_ready();
    // A full pipe wakes the master as well as one byte more would.
    let _ = rustix::io::write(setting.ready, b".");
    worker.serve();
    0
}

fn refuse(setting: &Setting<'_>, slot: Slot, error: &crate::Error) -> i32 {
    log!("worker={} pid={} cannot start: {error}", setting.number, id().as_raw_nonzero());
    slot.set_reason(&error.to_string());
    EXIT_BOOT
}

/// Takes leave of the master's signals and makes sure that this process ends when it should.
fn prepare(setting: &Setting<'_>, slot: Slot) -> Result<Option<Signals>, crate::Error> {
    slot.deadline().watch();
    let signals = Signals::install(&[
        (Signal::TERM, Action::Leave),
        (Signal::QUIT, Action::Leave),
        (Signal::USR2, Action::GiveUp),
        // Ctrl-C reaches the whole foreground group: the master's INT means the same.
        (Signal::INT, Action::Default),
        (Signal::CHILD, Action::Default),
        // For the master only; a terminal or a careless script may send them to all.
        (Signal::HUP, Action::Nothing),
        (Signal::USR1, Action::Nothing),
        (Signal::TTIN, Action::Nothing),
        (Signal::TTOU, Action::Nothing),
        (Signal::PIPE, Action::Ignore),
    ])?;
    // A little later than the master would kill it: this is for the time after the master.
    leave_within(setting.graceful_timeout.saturating_add(Duration::from_secs(2)))?;
    Ok(signal_when_parent_dies(setting.master, Signal::TERM).then_some(signals))
}

/// A quiet HTTP connection.
struct Parked {
    stream: Stream,
    since: Instant,
}

struct Worker<'a> {
    setting: &'a Setting<'a>,
    signals: &'a Signals,
    desk: Desk,
    buffers: Buffers,
    epoll: OwnedFd,
    /// The longest quiet first.
    parked: Vec<Parked>,
    /// Until when the listeners are left alone.
    exhausted: Option<Instant>,
    exhaustion_logged: bool,
}

impl<'a> Worker<'a> {
    fn new(setting: &'a Setting<'a>, slot: Slot, signals: &'a Signals) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, signals, epoll::EventData::new_u64(SIGNALS), epoll::EventFlags::IN)?;
        for listener in setting.listeners {
            // A connection wakes one worker, not all.
            let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
            epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), flags)?;
        }
        Ok(Self {
            setting,
            signals,
            desk: Desk::new(slot, request_limit(setting.max_requests)),
            buffers: Buffers::new(),
            epoll,
            parked: Vec::new(),
            exhausted: None,
            exhaustion_logged: false,
        })
    }

    fn serve(&mut self) {
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
        self.drain();
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
        let listeners = self.setting.listeners;
        for listener in listeners {
            match listener.accept() {
                Ok(stream) => {
                    self.attend(stream, listener.protocol);
                    served = true;
                    if self.desk.is_spent() {
                        break;
                    }
                }
                Err(Errno::AGAIN) => {}
                // The client has left, or a signal came: the next one, please.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => served = true,
                Err(errno) => {
                    // EMFILE, ENFILE, ENOBUFS, ENOMEM. Parked connections are what can be given back.
                    self.parked.clear();
                    self.exhausted = Some(Instant::now() + EXHAUSTED);
                    if !self.exhaustion_logged {
                        self.exhaustion_logged = true;
                        let (number, pid) = (self.setting.number, id().as_raw_nonzero());
                        log!("worker={number} pid={pid} cannot accept on {listener}: {errno}; trying again");
                    }
                    return false;
                }
            }
        }
        served
    }

    /// Serves what has arrived on a connection.
    fn attend(&mut self, stream: Stream, protocol: Protocol) {
        let client = stream.as_fd().as_raw_fd();
        match protocol {
            Protocol::Scgi => {
                self.desk.attend(client, Answer::Cgi);
                serve_scgi(stream, self.setting.host, &self.desk, &mut self.buffers);
            }
            Protocol::Http => {
                self.desk.attend(client, Answer::Http);
                if let Next::Idle(stream) = serve_http(stream, self.setting.host, &self.desk, &mut self.buffers) {
                    self.park(stream);
                }
            }
        }
        self.desk.quiet();
    }

    fn park(&mut self, stream: Stream) {
        if self.is_leaving() {
            return;
        }
        if self.parked.len() == MAX_PARKED {
            self.parked.remove(0);
        }
        let data = epoll::EventData::new_u64(stream.as_fd().as_raw_fd() as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        if epoll::add(&self.epoll, &stream, data, flags).is_ok() {
            self.parked.push(Parked { stream, since: Instant::now() });
        }
    }

    /// Waits for a connection, a parked one that goes on, or a signal; `None`: as long as it takes. Returns how many
    /// parked connections went on.
    fn wait(&mut self, time: Option<Duration>) -> usize {
        let keep = self.setting.host.current_limits().keep_alive_timeout;
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
                SIGNALS => while self.signals.next().is_some() {},
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
        let found = self.parked.iter().position(|parked| parked.stream.as_fd().as_raw_fd() as u64 == descriptor);
        let Some(found) = found else { return };
        let stream = self.parked.remove(found).stream;
        // It is served like a new one; what it says from now on is read there.
        if epoll::delete(&self.epoll, &stream).is_ok() {
            self.attend(stream, Protocol::Http);
        }
    }

    /// The end: requests that have been sent already are still answered.
    fn drain(&mut self) {
        // A parked connection on which a request is waiting is served, the others are closed.
        while !self.parked.is_empty() && self.wait(Some(Duration::ZERO)) > 0 {}
        self.parked.clear();
        let last = self.setting.board.is_last();
        if !last && !asked_to_leave() {
            // Recycled: whoever takes this worker's place looks at the listeners before anything else.
            return;
        }
        // Where nobody serves after us, whoever waits in a queue would get a reset: so they are emptied, but not for
        // ever. Where others serve, the kernel may have woken just this worker for a connection, so one look is due;
        // if connections keep coming, then the others are awake, too.
        let (time, rounds) =
            if last { (MAX_DRAIN.min(self.setting.graceful_timeout / 2), usize::MAX) } else { (MAX_LOOK, 64) };
        let until = Instant::now() + time;
        let mut round = 0;
        while self.accept_round() && round < rounds && Instant::now() < until {
            round += 1;
        }
    }
}

/// How many requests a worker serves: up to a tenth more than asked for, so that not all workers leave together. The
/// process ID is random enough for that.
fn request_limit(max_requests: u64) -> u64 {
    if max_requests == 0 {
        return u64::MAX - 1;
    }
    let pid = u64::from(id().as_raw_nonzero().get().cast_unsigned());
    let spread = max_requests / 10 + 1;
    max_requests.saturating_add(pid.wrapping_mul(0x9e37_79b9_7f4a_7c15) % spread)
}

#[cfg(test)]
mod tests {
    use super::request_limit;

    #[test]
    fn the_request_limit_varies_by_a_tenth() {
        assert_eq!(request_limit(1), 1);
        assert!((100..=110).contains(&request_limit(100)));
        assert!(request_limit(0) > 1 << 60);
        assert!(request_limit(u64::MAX) > 1 << 60);
    }
}
