//! A queue of connections between processes, kept by the kernel.
//!
//! It is a pair of connected sockets that the master makes before it forks. What is in it (`SCM_RIGHTS`) belongs to no
//! process: it survives whoever put it there.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use crate::server::listener::Listener;
use crate::server::load::{Cargo, Errand, Load};
use crate::server::stream::Stream;

/// The most descriptors that go with one message: the connection, its state, a file, a feed.
const DESCRIPTORS: usize = 4;
/// More state than any connection has.
const MOST: u64 = 4 << 20;

/// A connection that was put into a queue.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) stream: Stream,
    /// The number of the listener that it came through, the same in all processes of the pool.
    pub(super) listener: usize,
    /// Nothing has come on it yet: its first request is on the way.
    pub(super) fresh: bool,
    pub(super) cargo: Cargo,
}

/// Both ends of the queue, in the master and in every process that it forks.
#[derive(Debug)]
pub(super) struct Relay {
    give: OwnedFd,
    take: OwnedFd,
}

impl Relay {
    pub(super) fn new() -> io::Result<Self> {
        // Its messages stay apart, and unlike that of datagrams their number is only limited by the buffer: some 270.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (give, take) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok(Self { give, take })
    }

    /// Takes over what another program has [handed on](Self::ends).
    pub(super) fn adopt((give, take): (OwnedFd, OwnedFd)) -> Self {
        Self { give, take }
    }

    /// Both ends of the queue.
    pub(super) fn ends(&self) -> [&OwnedFd; 2] {
        [&self.give, &self.take]
    }

    /// Puts a connection into the queue; the caller closes its own descriptor and has taken it out of its epoll set,
    /// where the connection would stay otherwise for as long as it is open anywhere.
    ///
    /// # Errors
    /// Where the queue is full, or the system counts too many descriptors on their way: the connection stays.
    pub(super) fn put(&self, stream: &Stream, listener: usize, fresh: bool, load: &Load<'_>) -> Result<(), Errno> {
        let [high, low] = u16::try_from(listener).map_err(|_| Errno::OVERFLOW)?.to_be_bytes();
        let state = (!load.state.is_empty()).then(|| written(&load.state)).transpose()?;
        let bytes = [high, low, u8::from(fresh), u8::from(state.is_some()), load.errand.code()];
        let mut descriptors = vec![stream.as_fd()];
        descriptors.extend(state.as_ref().map(AsFd::as_fd));
        descriptors.extend(&load.descriptors);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Errno::OVERFLOW);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::sendmsg(&self.give, &[IoSlice::new(&bytes)], &mut control, flags)?;
        Ok(())
    }

    /// The next connection, `EAGAIN` if there is none; `None` if it was broken meanwhile.
    pub(super) fn take(&self, listeners: &[Listener]) -> Result<Option<Parcel>, Errno> {
        let mut bytes = [0; 5];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        rustix::io::retry_on_intr(|| rustix::net::recvmsg(&self.take, slices, &mut control, flags))?;
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let mut descriptors: Vec<OwnedFd> = rights.flatten().collect();
        // Without a free number for it the kernel has closed the connection, as the worker would have to do next.
        if descriptors.is_empty() {
            return Ok(None);
        }
        let descriptor = descriptors.remove(0);
        let [high, low, fresh, has_state, code] = bytes;
        let Some(errand) = Errand::of(code) else { return Ok(None) };
        let mut state = Vec::new();
        if has_state != 0 {
            if descriptors.is_empty() {
                return Ok(None);
            }
            let Ok(all) = read(descriptors.remove(0)) else { return Ok(None) };
            state = all;
        }
        let listener = usize::from(u16::from_be_bytes([high, low]));
        let local = listeners.get(listener).and_then(Listener::local);
        let peer = match local.map(|_| rustix::net::getpeername(&descriptor)) {
            None => None,
            Some(Ok(peer)) => peer.and_then(|peer| SocketAddr::try_from(peer).ok()),
            // It was reset, and there is nobody to answer.
            Some(Err(_)) => return Ok(None),
        };
        let stream = Stream::new(descriptor, peer, local);
        Ok(Some(Parcel { stream, listener, fresh: fresh != 0, cargo: Cargo { errand, state, descriptors } }))
    }

    /// Whether a connection is in the queue.
    pub(super) fn has_waiting(&self) -> bool {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.take, PollFlags::IN)], Some(&none)).is_ok_and(|ready| ready > 0)
    }

    /// The end that connections are put into.
    pub(super) fn entrance(&self) -> BorrowedFd<'_> {
        self.give.as_fd()
    }
}

/// The end that is readable while a connection is in the queue.
impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.take.as_fd()
    }
}

/// An unnamed file with these bytes.
fn written(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let mut file = File::from(memfd_create(c"cloakroom-connection", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?;
    Ok(file.into())
}

fn read(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(file);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}
