//! The worker's own view of its slot: what connections tell it.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::name::session_name;
use super::slot::Slot;
use super::tally::Count;
use crate::message::{Clock, MetaVariables};
use crate::server::activity::{Activity, Reply};
use crate::server::load::Load;
use crate::server::pool::clock::now_micros;
use crate::server::pool::dock::Dock;
use crate::server::pool::journal::Journal;
use crate::server::stream::Stream;
use crate::sys::deadline::{Answer, Words};
use crate::sys::log::log;
use crate::sys::process::id;
use crate::sys::signal;

/// What a worker tells of itself while it serves.
pub(in crate::server::pool) struct Desk {
    slot: Slot,
    words: Words,
    client: Cell<RawFd>,
    /// The number of the listener that the connection came through.
    listener: Cell<usize>,
    /// Where slow clients are left.
    dock: Option<Arc<Dock>>,
    answer: Cell<Answer>,
    busy: Cell<bool>,
    served: Cell<u64>,
    /// When the request at work began, in microseconds.
    began: Cell<u64>,
    /// How many requests this worker serves before it leaves.
    limit: u64,
    /// Requests that take longer are named in the log.
    slow: Duration,
    clock: Option<Arc<dyn Clock>>,
    /// Where each request is written down, and what the names of sessions are made with.
    journal: Option<(Journal, u64)>,
}

impl Desk {
    pub(in crate::server::pool) fn new(
        slot: Slot,
        limit: u64,
        threshold: Option<Duration>,
        clock: Option<Arc<dyn Clock>>,
    ) -> Self {
        Self {
            slot,
            words: slot.deadline(),
            client: Cell::new(-1),
            listener: Cell::new(0),
            dock: None,
            answer: Cell::new(Answer::Cgi),
            busy: Cell::new(false),
            served: Cell::new(0),
            began: Cell::new(0),
            limit,
            slow: threshold.unwrap_or(Duration::MAX),
            clock,
            journal: None,
        }
    }

    /// Writes each request down; `salt` is what the names of sessions are made with.
    pub(in crate::server::pool) fn keep_journal(&mut self, journal: Journal, salt: u64) {
        self.journal = Some((journal, salt));
    }

    /// Opens the access log anew, if the master has asked for it.
    pub(in crate::server::pool) fn reopen_journal(&self) {
        if let Some((journal, _)) = &self.journal {
            journal.reopen_if_asked();
        }
    }

    /// Slow clients are left there.
    pub(in crate::server::pool) fn use_dock(&mut self, dock: Arc<Dock>) {
        self.dock = Some(dock);
    }

    /// Whether a request may still come from a slow client.
    pub(in crate::server::pool) fn expects_slow(&self) -> bool {
        self.dock.as_ref().is_some_and(|dock| dock.is_expecting())
    }

    /// From now on requests come from this connection, which stays open until [`quiet`](Self::quiet).
    pub(in crate::server::pool) fn attend(&self, client: RawFd, listener: usize, answer: Answer) {
        self.client.set(client);
        self.listener.set(listener);
        self.answer.set(answer);
        if let Some((journal, _)) = &self.journal {
            journal.forget();
        }
    }

    /// The connection is served.
    pub(in crate::server::pool) fn quiet(&self) {
        if self.busy.replace(false) {
            self.words.end(self.served.get());
        }
    }

    /// How many requests the worker has served.
    pub(in crate::server::pool) fn served(&self) -> u64 {
        self.served.get()
    }

    /// Whether the worker has served as many requests as it should.
    pub(in crate::server::pool) fn is_spent(&self) -> bool {
        self.served.get() >= self.limit
    }

    /// The worker's slot.
    pub(in crate::server::pool) fn slot(&self) -> Slot {
        self.slot
    }
}

impl Activity for Desk {
    fn received(&self, meta: &MetaVariables, since: Instant) {
        if let Some((journal, _)) = &self.journal {
            // Of the request before this one.
            self.slot.set_session(0);
            journal.note(meta, since);
        }
    }

    fn replied(&self, reply: &Reply) {
        let Some((journal, salt)) = &self.journal else { return };
        let session = self.slot.session();
        let session = (session != 0).then(|| session_name(*salt, session));
        if !journal.write(reply, session.as_deref()) {
            self.slot.tally().add(Count::LostLines, 1);
        }
    }

    fn clock(&self) -> Option<Arc<dyn Clock>> {
        self.clock.clone()
    }

    fn begin(&self, method: &Method, path: &str) {
        self.quiet();
        let number = self.served.get() + 1;
        self.served.set(number);
        self.busy.set(true);
        let time = now_micros();
        self.began.set(time);
        self.slot.begin(time / 1000);
        self.slot.set_text(method.as_str(), path);
        let answer = match self.answer.get() {
            Answer::Http if *method == Method::HEAD => Answer::HttpHead,
            answer => answer,
        };
        self.words.begin(number, self.client.get(), answer);
    }

    fn end(&self, status: StatusCode) {
        self.quiet();
        let micros = now_micros().saturating_sub(self.began.get());
        self.slot.tally().request(status, micros);
        if Duration::from_micros(micros) > self.slow {
            self.slot.tally().add(Count::Slow, 1);
            let (method, path) = self.slot.text();
            let age = Duration::from_micros(micros).as_secs_f64();
            log!(
                "pid={} slow method={method} path={path} age={age:.3}s status={}",
                id().as_raw_nonzero(),
                status.as_str()
            );
        }
    }

    fn has_porter(&self) -> bool {
        self.dock.as_ref().is_some_and(|dock| dock.is_attended())
    }

    fn may_store(&self) -> bool {
        self.dock.as_ref().is_some_and(|dock| dock.has_room())
    }

    fn hand_over(&self, stream: &Stream, load: &Load<'_>) -> bool {
        self.dock.as_ref().is_some_and(|dock| dock.leave(stream, self.listener.get(), load))
    }

    fn stopping(&self) -> bool {
        signal::asked_to_leave()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::TEXT_BYTES;
    use super::super::{Scoreboard, Totals};
    use super::*;

    #[test]
    fn a_slot_tells_what_its_worker_does() {
        let board = Scoreboard::new(3).unwrap();
        let (slot, other) = (board.slot(1), board.slot(2));
        board.prepare(1, 0);
        assert!(!slot.is_ready() && !slot.has_worked());
        slot.set_ready();
        let desk = Desk::new(slot, 2, None, None);
        desk.attend(7, 0, Answer::Http);
        desk.begin(&Method::HEAD, "/slow");
        assert_eq!(slot.work().map(|work| work.number), Some(1));
        assert_eq!(slot.text(), ("HEAD".to_owned(), "/slow".to_owned()));
        slot.extend(500);
        assert_eq!(slot.work().map(|work| work.extension), Some(500));
        assert!(!desk.is_spent());
        desk.end(StatusCode::OK);
        assert_eq!(slot.work(), None);
        assert!(slot.has_worked());
        desk.begin(&Method::GET, &"/é".repeat(500));
        assert_eq!(slot.work().map(|work| work.extension), Some(0));
        let (method, path) = slot.text();
        assert_eq!(method, "GET");
        assert!(path.starts_with("/é/é") && path.len() <= TEXT_BYTES);
        assert!(desk.is_spent() && !desk.stopping());
        desk.quiet();
        assert_eq!(slot.work(), None);
        assert!(!other.is_ready());
        assert_eq!(other.text(), (String::new(), String::new()));
        let mut totals = Totals::default();
        board.used().for_each(|(_, slot)| totals.add(slot.tally()));
        assert_eq!((totals.requests(), totals.classes[1]), (1, 1));
        // Another worker in the same place goes on counting.
        slot.while_idle(|| assert!(board.has_idle()));
        assert!(!board.has_idle());
        board.prepare(1, 1);
        let mut again = Totals::default();
        board.used().for_each(|(_, slot)| again.add(slot.tally()));
        assert_eq!(totals, again);
        assert!(!slot.is_ready() && !slot.has_worked());
    }
}
