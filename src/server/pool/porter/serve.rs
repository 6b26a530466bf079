//! The porter's own process: an epoll loop over all slow clients.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::client::{Client, Help, Next};
use super::{Setting, patience};
use crate::message::MetaVariables;
use crate::server::activity::{Activity, Reply};
use crate::server::buffers::Buffers;
use crate::server::pool::dock::STORED;
use crate::server::pool::journal::Journal;
use crate::server::pool::scoreboard::Slow;
use crate::sys::log::log;
use crate::sys::process::{id, signal_when_parent_dies};
use crate::sys::signal::{Action, Blocked, Signal, Signals, asked_to_leave, leave_within};

/// How many slow clients there may be, where there are descriptors for so many.
const MOST: u64 = 2048;
/// What each may need: the connection, a file, a feed.
const DESCRIPTORS: u64 = 3;
/// And what else is open.
const OTHERS: u64 = 128;
/// How long the porter stays when it has nothing to do.
const IDLE: Duration = Duration::from_secs(60);
/// How often it tries again what there was no room for.
const RETRY: Duration = Duration::from_millis(10);

/// What an event belongs to: the signals, the dock, or a client: twice its number, and one more if it is the feed.
const SIGNALS: u64 = u64::MAX;
const DOCK: u64 = u64::MAX - 1;

/// The life of the porter; returns its exit status. `blocked` holds signals back until there are handlers for them.
pub(super) fn run(setting: &Setting<'_>, blocked: Blocked) -> i32 {
    let signals = Signals::install(&[
        (Signal::TERM, Action::Leave),
        (Signal::QUIT, Action::Leave),
        (Signal::USR1, Action::Reopen),
        // Ctrl-C reaches the whole foreground group; its end is the master's to say.
        (Signal::INT, Action::Nothing),
        (Signal::HUP, Action::Nothing),
        (Signal::USR2, Action::Nothing),
        (Signal::TTIN, Action::Nothing),
        (Signal::TTOU, Action::Nothing),
        (Signal::CHILD, Action::Default),
        (Signal::PIPE, Action::Ignore),
    ]);
    let Ok(signals) = signals else {
        // The handlers may still be the master's, and write to its pipe: what is held back stays so to the end.
        std::mem::forget(blocked);
        return 1;
    };
    // A little later than the master would kill it: this is for the time after the master.
    let time = Duration::from_millis(patience(setting.options)).saturating_add(Duration::from_secs(2));
    let _ = leave_within(time);
    if !signal_when_parent_dies(setting.master, Signal::TERM) {
        return 1;
    }
    drop(blocked);
    // As ps(1) and top(1) show it.
    let _ = rustix::thread::set_name(c"porter");
    let journal = setting.options.access_log.as_ref().map(|(log, format)| Journal::open(log, *format)).transpose();
    let journal = journal.unwrap_or_else(|error| {
        log!("porter pid={} cannot open the access log: {error}", id().as_raw_nonzero());
        None
    });
    match Porter::new(setting, &signals, journal) {
        Ok(mut porter) => porter.serve(),
        Err(error) => {
            log!("porter pid={} cannot serve: {error}", id().as_raw_nonzero());
            return 1;
        }
    }
    0
}

/// Writes down what is refused.
struct Clerk {
    journal: Option<Journal>,
}

impl Activity for Clerk {
    fn received(&self, meta: &MetaVariables, since: Instant) {
        if let Some(journal) = &self.journal {
            journal.note(meta, since);
        }
    }

    fn replied(&self, reply: &Reply) {
        if let Some(journal) = &self.journal {
            journal.write(reply, None);
        }
    }

    fn begin(&self, _method: &Method, _path: &str) {}
    fn end(&self, _status: StatusCode) {}
    fn stopping(&self) -> bool {
        false
    }
}

struct Porter<'a> {
    setting: &'a Setting<'a>,
    signals: &'a Signals,
    clerk: Clerk,
    epoll: OwnedFd,
    buffers: Buffers,
    clients: HashMap<u64, Held>,
    /// When to look at whom.
    deadlines: BTreeSet<(Instant, u64)>,
    /// Those for whom there was no room on the shelf.
    shelving: BTreeSet<u64>,
    next: u64,
    most: usize,
    receiving: u64,
    stored: u64,
}

/// A client, and what epoll and the clock look at for it.
struct Held {
    client: Client,
    /// `None`: it is not in the set.
    interest: Option<epoll::EventFlags>,
    is_fed: bool,
    deadline: Option<Instant>,
}

impl<'a> Porter<'a> {
    fn new(setting: &'a Setting<'a>, signals: &'a Signals, journal: Option<Journal>) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, signals, epoll::EventData::new_u64(SIGNALS), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &**setting.dock, epoll::EventData::new_u64(DOCK), epoll::EventFlags::IN)?;
        Ok(Self {
            setting,
            signals,
            clerk: Clerk { journal },
            epoll,
            buffers: Buffers::new(),
            clients: HashMap::new(),
            deadlines: BTreeSet::new(),
            shelving: BTreeSet::new(),
            next: 0,
            most: room(),
            receiving: 0,
            stored: 0,
        })
    }

    fn serve(&mut self) {
        let mut idle_since = Instant::now();
        loop {
            if asked_to_leave() && self.leave() {
                return;
            }
            if !self.clients.is_empty() {
                idle_since = Instant::now();
            } else if idle_since.elapsed() >= IDLE {
                // The master sees what is left on the dock from now on.
                return;
            }
            let events = self.wait(idle_since + IDLE);
            let mut is_left = false;
            for token in events {
                match token {
                    // The flag has been set by the handler; what is in the pipe only woke us up.
                    SIGNALS => while self.signals.next().is_some() {},
                    DOCK => is_left = true,
                    token => self.attend(token / 2),
                }
            }
            if let Some(journal) = &self.clerk.journal {
                journal.reopen_if_asked();
            }
            if is_left {
                self.take();
            }
            self.look_at_the_clock();
            self.publish();
        }
    }

    /// What has happened; waits for it until `until`, a deadline, or a signal.
    fn wait(&self, until: Instant) -> Vec<u64> {
        let mut until = self.deadlines.first().map_or(until, |(deadline, _)| until.min(*deadline));
        if !self.shelving.is_empty() {
            until = until.min(Instant::now() + RETRY);
        }
        // A millisecond more, since epoll counts in those and must not wake too early.
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let mut events: [epoll::Event; 64] = std::array::from_fn(|_| epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        });
        // EINTR: a signal came, and its flag is set.
        let count = epoll::wait(&self.epoll, &mut events[..], Timespec::try_from(left).ok().as_ref()).unwrap_or(0);
        // The structs are packed, so no references into them.
        events[..count].iter().map(|event| { event.data }.u64()).collect()
    }

    /// Takes what is on the dock.
    fn take(&mut self) {
        for _ in 0..64 {
            // First the word, then the hand: who leaves looks at the dock and then at this.
            self.setting.board.set_slow(Slow::Receiving, self.receiving + 1);
            let parcel = match self.setting.dock.take(self.setting.listeners) {
                Ok(Some(parcel)) => parcel,
                Ok(None) => continue,
                Err(_) => return,
            };
            if parcel.listener >= self.setting.listeners.len() {
                continue;
            }
            let limits = self.setting.host.current_limits();
            let Some(client) = Client::of_cargo(parcel.stream, parcel.listener, parcel.cargo, limits) else { continue };
            self.make_room();
            let number = self.next;
            self.next += 1;
            self.go_on(number, Held { client, interest: None, is_fed: false, deadline: None });
        }
    }

    /// Closes a connection where there are too many.
    fn make_room(&mut self) {
        if self.clients.len() < self.most {
            return;
        }
        let first = self.clients.iter().min_by_key(|(_, held)| held.client.rank()).map(|(&number, _)| number);
        if let Some(held) = first.and_then(|number| self.take_out(number)) {
            self.setting.board.note_slow(Slow::Dropped);
            self.forget(&held);
        }
    }

    /// Something has happened to a client.
    fn attend(&mut self, number: u64) {
        if let Some(held) = self.take_out(number) {
            self.go_on(number, held);
        }
    }

    fn take_out(&mut self, number: u64) -> Option<Held> {
        let held = self.clients.remove(&number)?;
        self.receiving -= u64::from(held.client.is_receiving());
        self.stored -= held.client.stored();
        self.shelving.remove(&number);
        if let Some(deadline) = held.deadline {
            self.deadlines.remove(&(deadline, number));
        }
        Some(held)
    }

    /// Does what can be done for a client, and keeps it if there is more to come.
    fn go_on(&mut self, number: u64, mut held: Held) {
        let board = self.setting.board;
        let desk = Help {
            limits: self.setting.host.current_limits(),
            activity: &self.clerk,
            protocol: self.setting.listeners[held.client.listener].protocol,
            stopping: board.is_told_to_stop(),
            room: STORED.saturating_sub(self.stored).saturating_sub(held.client.stored()),
        };
        self.buffers.clear();
        let (interest, deadline) = match held.client.advance(&desk, &mut self.buffers) {
            Next::Wait(interest, deadline) => (Some(interest), deadline),
            Next::Close => return self.forget(&held),
            Next::Shelve => {
                // It must leave the set first: its events would come here after it was closed, too.
                self.forget(&held);
                (held.interest, held.is_fed) = (None, false);
                if self.shelve(&held) {
                    return;
                }
                self.shelving.insert(number);
                (None, None)
            }
        };
        if self.watch(number, &mut held, interest).is_err() {
            return self.forget(&held);
        }
        held.deadline = deadline;
        self.deadlines.extend(deadline.map(|deadline| (deadline, number)));
        self.receiving += u64::from(held.client.is_receiving());
        self.stored += held.client.stored();
        self.clients.insert(number, held);
    }

    fn shelve(&self, held: &Held) -> bool {
        let Client { stream, listener, .. } = &held.client;
        self.setting.shelf.put_loaded(stream, *listener, false, &held.client.load()).is_ok()
    }

    /// Has epoll look at a client for what it waits for.
    fn watch(&self, number: u64, held: &mut Held, interest: Option<epoll::EventFlags>) -> Result<(), Errno> {
        let data = |token| epoll::EventData::new_u64(token);
        match (held.interest, interest) {
            (Some(before), Some(now)) if before != now => {
                epoll::modify(&self.epoll, &held.client.stream, data(2 * number), now)?;
            }
            (None, Some(now)) => epoll::add(&self.epoll, &held.client.stream, data(2 * number), now)?,
            _ => {}
        }
        held.interest = interest;
        let feed = held.client.feed();
        match (held.is_fed, feed) {
            (false, Some((feed, true))) => {
                epoll::add(&self.epoll, feed, data(2 * number + 1), epoll::EventFlags::IN)?;
            }
            (true, Some((feed, false))) => epoll::delete(&self.epoll, feed)?,
            // One that has ended is closed, and with that out of the set.
            _ => {}
        }
        held.is_fed = matches!(feed, Some((_, true)));
        Ok(())
    }

    /// Takes a client out of the set.
    fn forget(&self, held: &Held) {
        if held.interest.is_some() {
            let _ = epoll::delete(&self.epoll, &held.client.stream);
        }
        if held.is_fed
            && let Some((feed, _)) = held.client.feed()
        {
            let _ = epoll::delete(&self.epoll, feed);
        }
    }

    /// Whose time is over, and who waits for the shelf.
    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        while let Some(&(deadline, number)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            self.attend(number);
        }
        while let Some(number) = self.shelving.pop_first() {
            self.attend(number);
            if self.shelving.contains(&number) {
                // There is still no room.
                break;
            }
        }
    }

    /// Says on the scoreboard how many there are: after what is no more here is where it goes.
    fn publish(&self) {
        self.setting.board.set_slow(Slow::Receiving, self.receiving);
        self.setting.board.set_slow(Slow::Stored, self.stored);
        self.setting.board.set_slow(Slow::Sending, self.clients.len() as u64 - self.receiving);
    }

    /// It was told to leave. Returns whether it is time.
    fn leave(&mut self) -> bool {
        let board = self.setting.board;
        if !board.is_stopping() {
            // Another one goes on with what is here.
            self.put_back();
            return true;
        }
        if board.is_told_to_stop() {
            // The workers are gone: nobody would serve what is still received.
            let received: Vec<u64> =
                self.clients.iter().filter(|(_, held)| held.client.is_receiving()).map(|(&number, _)| number).collect();
            for number in received {
                if let Some(held) = self.take_out(number) {
                    self.forget(&held);
                }
            }
        }
        // Without a master the workers go on as well, until nothing is left.
        self.clients.is_empty() && !self.setting.dock.has_waiting()
    }

    /// Leaves all clients on the dock. The time for that is the kernel's to end, see `leave_within`.
    fn put_back(&mut self) {
        for (_, held) in std::mem::take(&mut self.clients) {
            self.forget(&held);
            let Client { stream, listener, .. } = &held.client;
            while self.setting.dock.put_back(stream, *listener, &held.client.load()).is_err() {
                wait_for_room(self.setting.dock.entrance());
            }
        }
    }
}

/// The queue is full until the next porter has taken something; or the system counts too many descriptors on their way.
fn wait_for_room(entrance: BorrowedFd<'_>) {
    let time = |millis: i64| Timespec { tv_sec: 0, tv_nsec: millis * 1_000_000 };
    if poll(&mut [PollFd::new(&entrance, PollFlags::OUT)], Some(&time(100))).is_ok_and(|ready| ready > 0) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How many clients there may be. As many descriptors are asked for as may be had.
fn room() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (descriptors.saturating_sub(OTHERS) / DESCRIPTORS).clamp(1, MOST) as usize
}
