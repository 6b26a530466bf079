//! A response on its way out of the porter: what came through the feed waits in memory, beyond that in a file.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use crate::server::feed::{End, Message, ROOM};
use crate::server::load::{Cargo, Errand, Load};
use crate::server::stream::{Progress, Stream};
use crate::server::wire::{Page, Pen};

/// What waits in memory.
const IN_MEMORY: usize = 32 * 1024;
/// What waits in the file of one response: beyond it whoever has the response waits, as it would for the client.
pub(super) const IN_FILE: u64 = 64 << 20;
/// How many messages, or pieces, go before it is others' turn.
const TURN: usize = 16;

/// A response that is being sent.
#[derive(Debug)]
pub(super) struct Dispatch {
    /// What goes next, from `sent` on.
    memory: Vec<u8>,
    sent: usize,
    /// What goes after it.
    file: Option<Overflow>,
    /// And what goes after that, as the file could not take it.
    late: Vec<u8>,
    /// Where more comes from.
    feed: Option<OwnedFd>,
    /// What becomes of the connection; `None` while more comes.
    end: Option<End>,
    /// What has come of the next request.
    pending: Vec<u8>,
    progress: Progress,
    /// The file cannot take more for the moment.
    is_full: bool,
}

#[derive(Debug)]
struct Overflow {
    file: File,
    /// From here on it is still to be sent.
    at: u64,
    length: u64,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The client is to take more, before this time.
    Sending(Instant),
    /// All that came is sent: more is to come.
    Starving,
    /// All is sent.
    Done(End),
    /// The client is gone, or has not taken enough in time.
    Lost,
}

impl Dispatch {
    /// What another process has begun to send.
    pub(super) fn of_cargo(cargo: Cargo) -> Option<Self> {
        let mut descriptors = cargo.descriptors.into_iter();
        if cargo.state.is_empty() {
            return Some(Self::of(Some(descriptors.next()?)));
        }
        let mut page = Page(&cargo.state);
        let mut dispatch = Self::of(None);
        dispatch.memory = page.bytes()?.to_vec();
        dispatch.late = page.bytes()?.to_vec();
        dispatch.pending = page.bytes()?.to_vec();
        dispatch.end = match page.number()? {
            0 => None,
            code => Some(End::of(u8::try_from(code - 1).ok()?)?),
        };
        if page.flag()? {
            let (at, length) = (page.number()?, page.number()?);
            dispatch.file = Some(Overflow { file: descriptors.next()?.into(), at, length });
        }
        if page.flag()? {
            dispatch.feed = Some(descriptors.next()?);
        }
        Some(dispatch)
    }

    fn of(feed: Option<OwnedFd>) -> Self {
        Self {
            memory: Vec::new(),
            sent: 0,
            file: None,
            late: Vec::new(),
            feed,
            end: None,
            pending: Vec::new(),
            progress: Progress::default(),
            is_full: false,
        }
    }

    /// These bytes, and then this end.
    pub(super) fn whole(bytes: Vec<u8>, end: End, pending: Vec<u8>) -> Self {
        Self { memory: bytes, end: Some(end), pending, ..Self::of(None) }
    }

    /// What another porter needs to go on with it. The time that the client has for the next 64 KiB begins anew.
    pub(super) fn load(&self) -> Load<'_> {
        let mut pen = Pen::default();
        pen.bytes(&self.memory[self.sent..]).bytes(&self.late).bytes(&self.pending);
        pen.number(self.end.map_or(0, |end| u64::from(end.code()) + 1));
        let mut descriptors = Vec::new();
        pen.flag(self.file.is_some());
        if let Some(overflow) = &self.file {
            pen.number(overflow.at).number(overflow.length);
            descriptors.push(overflow.file.as_fd());
        }
        pen.flag(self.feed.is_some());
        descriptors.extend(self.feed.as_ref().map(AsFd::as_fd));
        Load { errand: Errand::Send, state: pen.finish(), descriptors }
    }

    /// Where more comes from, and whether there is room for it.
    pub(super) fn feed(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.feed.as_ref().map(|feed| (feed.as_fd(), self.has_room()))
    }

    fn in_file(&self) -> u64 {
        self.file.as_ref().map_or(0, |overflow| overflow.length - overflow.at)
    }

    fn in_memory(&self) -> usize {
        self.memory.len() - self.sent
    }

    fn has_room(&self) -> bool {
        let in_memory = self.in_file() == 0 && self.in_memory() + ROOM <= IN_MEMORY;
        self.late.is_empty() && (in_memory || !self.is_full)
    }

    /// Bytes of its file.
    pub(super) fn stored(&self) -> u64 {
        self.file.as_ref().map_or(0, |overflow| overflow.length)
    }

    /// Takes what has come by the feed. `most`: how many bytes its file may have, beside its own limit.
    pub(super) fn take(&mut self, most: u64, buffer: &mut Vec<u8>) {
        buffer.resize(ROOM, 0);
        for _ in 0..TURN {
            self.is_full = self.stored() >= IN_FILE.min(most);
            let Some(feed) = &self.feed else { return };
            if !self.has_room() {
                return;
            }
            match Message::receive(feed, buffer) {
                Message::Nothing => return,
                Message::Response(bytes) => {
                    if self.push(bytes).is_err() {
                        // No room on the disk, or no descriptor: whoever has the rest waits until the client has taken
                        // what is here.
                        self.late.extend_from_slice(bytes);
                    }
                }
                Message::Pending(bytes) => self.pending.extend_from_slice(bytes),
                Message::End(end) => (self.end, self.feed) = (Some(end), None),
                Message::Lost => self.fail(),
            }
        }
    }

    /// The rest does not come: what is here is sent, and the other side sees that it is not all.
    fn fail(&mut self) {
        (self.end, self.feed) = (Some(End::Abort), None);
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.in_file() == 0 && self.in_memory() + bytes.len() <= IN_MEMORY {
            self.memory.drain(..self.sent);
            self.sent = 0;
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        let overflow = match &mut self.file {
            Some(overflow) => overflow,
            none => none.insert(Overflow { file: tempfile::tempfile()?, at: 0, length: 0 }),
        };
        overflow.file.write_all_at(bytes, overflow.length)?;
        overflow.length += bytes.len() as u64;
        Ok(())
    }

    /// Takes the next piece out of the file.
    fn refill(&mut self) -> io::Result<()> {
        self.sent = 0;
        let Some(overflow) = &mut self.file else {
            self.memory = std::mem::take(&mut self.late);
            return Ok(());
        };
        let n = (overflow.length - overflow.at).min(IN_MEMORY as u64) as usize;
        self.memory.resize(n, 0);
        overflow.file.read_exact_at(&mut self.memory, overflow.at)?;
        overflow.at += n as u64;
        if overflow.at == overflow.length {
            // Its space is given back at once.
            self.file = None;
            self.is_full = false;
        }
        Ok(())
    }

    /// Sends what the client takes.
    pub(super) fn send(&mut self, stream: &Stream, timeout: Duration) -> State {
        for _ in 0..TURN {
            if self.in_memory() == 0 {
                self.memory.clear();
                if self.refill().is_err() {
                    return State::Lost;
                }
                if self.in_memory() == 0 {
                    self.progress = Progress::default();
                    self.memory.shrink_to(0);
                    return self.end.map_or(State::Starving, State::Done);
                }
            }
            match stream.write_now(&self.memory[self.sent..]) {
                Ok(n) => {
                    self.sent += n;
                    self.progress.note(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return State::Lost,
            }
        }
        let deadline = self.progress.deadline(timeout);
        if Instant::now() < deadline { State::Sending(deadline) } else { State::Lost }
    }

    /// What has come of the next request.
    pub(super) fn into_pending(self) -> Vec<u8> {
        self.pending
    }
}
