//! A response on its way out of the porter: what is in the file of its feed goes first, then what comes through it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use crate::server::feed::{End, Message, ROOM};
use crate::server::load::{Cargo, Errand, Load};
use crate::server::stream::{Progress, Stream};
use crate::server::wire::{Page, Pen};

/// What is sent at once out of the file, and what waits in memory behind it.
const IN_MEMORY: usize = 32 * 1024;
/// How many messages, or pieces, go before it is others' turn.
const TURN: usize = 16;

/// A response that is being sent.
#[derive(Debug)]
pub(super) struct Dispatch {
    /// What goes next, from `sent` on.
    memory: Vec<u8>,
    sent: usize,
    /// What goes after it.
    file: Option<Stored>,
    /// And what goes after that, as it came by the feed.
    late: Vec<u8>,
    /// Where more comes from.
    feed: Option<OwnedFd>,
    /// What becomes of the connection; `None` while more comes.
    end: Option<End>,
    /// What has come of the next request.
    pending: Vec<u8>,
    progress: Progress,
}

/// The file that whoever has the response writes it to.
#[derive(Debug)]
struct Stored {
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
            let mut dispatch = Self::of(Some(descriptors.next()?));
            dispatch.file = descriptors.next().map(|file| Stored { file: file.into(), at: 0, length: 0 });
            return Some(dispatch);
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
            dispatch.file = Some(Stored { file: descriptors.next()?.into(), at, length });
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
        if let Some(stored) = &self.file {
            pen.number(stored.at).number(stored.length);
            descriptors.push(stored.file.as_fd());
        }
        pen.flag(self.feed.is_some());
        descriptors.extend(self.feed.as_ref().map(AsFd::as_fd));
        Load { errand: Errand::Send, state: pen.finish(), descriptors }
    }

    /// Where more comes from, and whether there is room for it.
    pub(super) fn feed(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.feed.as_ref().map(|feed| (feed.as_fd(), self.has_room()))
    }

    fn in_memory(&self) -> usize {
        self.memory.len() - self.sent
    }

    fn has_room(&self) -> bool {
        self.late.len() + ROOM <= IN_MEMORY
    }

    /// Bytes of its file.
    pub(super) fn stored(&self) -> u64 {
        self.file.as_ref().map_or(0, |stored| stored.length)
    }

    /// Takes what has come by the feed.
    pub(super) fn take(&mut self, buffer: &mut Vec<u8>) {
        buffer.resize(ROOM, 0);
        for _ in 0..TURN {
            let Some(feed) = self.feed.as_ref().filter(|_| self.has_room()) else { return };
            match (Message::receive(feed, buffer), &mut self.file) {
                (Message::Nothing, _) => return,
                (Message::Response(bytes), _) => self.late.extend_from_slice(bytes),
                (Message::InFile(length), Some(stored)) if length >= stored.length => stored.length = length,
                (Message::Pending(bytes), _) => self.pending.extend_from_slice(bytes),
                (Message::End(end), _) => (self.end, self.feed) = (Some(end), None),
                (Message::Lost | Message::InFile(_), _) => self.fail(),
            }
        }
    }

    /// The rest does not come: what is here is sent, and the other side sees that it is not all.
    fn fail(&mut self) {
        (self.end, self.feed) = (Some(End::Abort), None);
    }

    /// Takes the next piece out of the file, or what has come after it.
    fn refill(&mut self) -> io::Result<()> {
        self.sent = 0;
        match &mut self.file {
            Some(stored) if stored.at < stored.length => {
                let n = (stored.length - stored.at).min(IN_MEMORY as u64) as usize;
                self.memory.resize(n, 0);
                stored.file.read_exact_at(&mut self.memory, stored.at)?;
                stored.at += n as u64;
            }
            _ => self.memory = std::mem::take(&mut self.late),
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
