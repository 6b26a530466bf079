//! A slow client of the porter's.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::epoll::EventFlags;

use super::dispatch::{self, Dispatch};
use crate::gateway::{GatewayError, Limits};
use crate::server::activity::{Activity, Reply};
use crate::server::buffers::Buffers;
use crate::server::feed::End;
use crate::server::linger::Lingering;
use crate::server::listener::Protocol;
use crate::server::load::{Cargo, Errand, Load};
use crate::server::reception::{Begun, Reception, Refusal, Step, Unserved};
use crate::server::stream::Stream;
use crate::server::{http, scgi};

/// A connection, and what is to be done with it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) listener: usize,
    work: Work,
    /// When it was taken.
    pub(super) since: Instant,
}

#[derive(Debug)]
enum Work {
    Receive(Begun),
    Send(Dispatch),
    Linger(Lingering),
    /// It waits for a worker: for a request that is complete, or for another one.
    Shelve(Option<Begun>),
}

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Wait(EventFlags, Option<Instant>),
    /// To be put on the shelf.
    Shelve,
    /// It is closed.
    Close,
}

/// What a client has to do with its porter.
pub(super) struct Help<'a> {
    pub(super) limits: &'a Limits,
    pub(super) activity: &'a dyn Activity,
    pub(super) protocol: Protocol,
    /// The pool stops: nobody waits for another request.
    pub(super) stopping: bool,
    /// How many bytes files may still take.
    pub(super) room: u64,
}

impl Client {
    /// `None` for what cannot be read.
    pub(super) fn of_cargo(stream: Stream, listener: usize, cargo: Cargo, limits: &Limits) -> Option<Self> {
        let work = match cargo.errand {
            Errand::Keep => Work::Shelve(None),
            Errand::Receive => Work::Receive(Begun::of_cargo(cargo, limits)?),
            Errand::Send => Work::Send(Dispatch::of_cargo(cargo)?),
            Errand::Linger => Work::Linger(Lingering::of_cargo(&cargo)?),
        };
        Some(Self { stream, listener, work, since: Instant::now() })
    }

    /// What another process needs to go on with it.
    pub(super) fn load(&self) -> Load<'_> {
        match &self.work {
            Work::Receive(begun) | Work::Shelve(Some(begun)) => begun.reception.load(&begun.pending),
            Work::Send(dispatch) => dispatch.load(),
            Work::Linger(lingering) => lingering.load(),
            Work::Shelve(None) => Load::KEEP,
        }
    }

    /// Whether a request of it is still to be served.
    pub(super) fn is_receiving(&self) -> bool {
        matches!(self.work, Work::Receive(_) | Work::Shelve(Some(_)))
    }

    /// Who is closed first where there are too many: the lower, the sooner.
    pub(super) fn rank(&self) -> (u8, Instant) {
        let rank = match self.work {
            // It has been answered.
            Work::Linger(_) | Work::Shelve(None) => 0,
            Work::Receive(_) => 1,
            Work::Send(_) | Work::Shelve(Some(_)) => 2,
        };
        (rank, self.since)
    }

    /// Bytes of it in files.
    pub(super) fn stored(&self) -> u64 {
        match &self.work {
            Work::Receive(begun) | Work::Shelve(Some(begun)) => begun.reception.stored(),
            Work::Send(dispatch) => dispatch.stored(),
            Work::Linger(_) | Work::Shelve(None) => 0,
        }
    }

    /// Where more of its response comes from, and whether there is room for it.
    pub(super) fn feed(&self) -> Option<(BorrowedFd<'_>, bool)> {
        if let Work::Send(dispatch) = &self.work { dispatch.feed() } else { None }
    }

    /// Does what can be done now.
    pub(super) fn advance(&mut self, help: &Help<'_>, buffers: &mut Buffers) -> Next {
        loop {
            match &mut self.work {
                Work::Receive(_) => {
                    if let Some(next) = self.receive(help, buffers) {
                        return next;
                    }
                }
                Work::Send(dispatch) => {
                    dispatch.take(&mut buffers.piece);
                    let flags = EventFlags::OUT;
                    match dispatch.send(&self.stream, help.limits.write_timeout) {
                        dispatch::State::Sending(deadline) => return Next::Wait(flags, Some(deadline)),
                        // That the client is gone is all that it can say now.
                        dispatch::State::Starving if self.stream.is_gone() => return Next::Close,
                        dispatch::State::Starving => return Next::Wait(EventFlags::empty(), None),
                        dispatch::State::Lost => return Next::Close,
                        dispatch::State::Done(end) => {
                            if !self.end(end, help, buffers) {
                                return Next::Close;
                            }
                        }
                    }
                }
                Work::Linger(lingering) => {
                    let stays = lingering.advance(&self.stream, &mut buffers.input);
                    let next = Next::Wait(EventFlags::IN, Some(lingering.deadline));
                    return if stays { next } else { Next::Close };
                }
                Work::Shelve(None) if help.stopping => return Next::Close,
                Work::Shelve(_) => return Next::Shelve,
            }
        }
    }

    /// Goes on reading its request. `None` where it has turned to something else.
    fn receive(&mut self, help: &Help<'_>, buffers: &mut Buffers) -> Option<Next> {
        let Work::Receive(begun) = &mut self.work else { return None };
        let before = begun.reception.stored();
        let step = begun.reception.advance(&self.stream, help.limits, &mut buffers.input, &mut begun.pending);
        let unserved = match step {
            Step::Complete => {
                let Work::Receive(begun) = std::mem::replace(&mut self.work, Work::Shelve(None)) else { return None };
                self.work = Work::Shelve(Some(begun));
                return None;
            }
            _ if begun.reception.stored().saturating_sub(before) > help.room => {
                let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
                begun.reception.refuse(GatewayError::Storage(full))
            }
            Step::Wait(deadline) => return Some(Next::Wait(EventFlags::IN, Some(deadline))),
            // There is more, and others have their turn first.
            Step::Again => return Some(Next::Wait(EventFlags::IN, None)),
            Step::Unserved(unserved) => unserved,
        };
        let Unserved::Refused(refusal) = unserved else { return Some(Next::Close) };
        self.work = Work::Send(self.refuse(refusal, help, buffers));
        None
    }

    /// Answers that its request is refused.
    fn refuse(&self, refusal: Refusal, help: &Help<'_>, buffers: &mut Buffers) -> Dispatch {
        let Refusal { error, exchange, head } = refusal;
        if let Some((meta, since)) = &head {
            help.activity.received(meta, *since);
        }
        let mut answer = Vec::new();
        // Writing to a Vec does not fail.
        let _ = match help.protocol {
            Protocol::Http => http::refuse_to(&mut answer, &error, exchange, buffers),
            Protocol::Scgi => scgi::refuse_to(&mut answer, &error, buffers),
        };
        let client = self.stream.peer().map(|peer| peer.ip()).filter(|_| help.protocol == Protocol::Http);
        let Reply { status, bytes, .. } = buffers.sent.to(client);
        help.activity.replied(&Reply { client, status, bytes });
        Dispatch::whole(answer, End::Linger, Vec::new())
    }

    /// All is sent. False where the connection is to be closed.
    fn end(&mut self, end: End, help: &Help<'_>, buffers: &mut Buffers) -> bool {
        let Work::Send(dispatch) = std::mem::replace(&mut self.work, Work::Shelve(None)) else { return false };
        match end {
            End::Keep => {
                let pending = dispatch.into_pending();
                if !pending.is_empty() {
                    self.work = Work::Receive(Begun { reception: Reception::http(help.limits), pending });
                }
                true
            }
            End::Linger => self.linger(help),
            // It may have sent another request before it read that this one was the last.
            End::Close if help.protocol == Protocol::Http => {
                self.stream.read_now(&mut buffers.input).is_ok_and(|n| n > 0) && self.linger(help)
            }
            End::Close => false,
            End::Abort => {
                self.stream.doom();
                false
            }
        }
    }

    fn linger(&mut self, help: &Help<'_>) -> bool {
        match Lingering::begin(&self.stream, help.limits) {
            Some(lingering) => {
                self.work = Work::Linger(lingering);
                true
            }
            None => false,
        }
    }
}
