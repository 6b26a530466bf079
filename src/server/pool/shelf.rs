//! The shelf: a queue of connections between the workers, kept by the kernel.
//!
//! It is a pair of connected sockets that the master makes before it forks. Whoever is busy puts the quiet connections
//! that it holds on the shelf (`SCM_RIGHTS`), and an idle worker takes them. A connection on it belongs to no process:
//! it survives whoever put it there.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use super::scoreboard::Scoreboard;
use crate::server::listener::Listener;
use crate::server::stream::Stream;

/// An open HTTP connection on which everything that was read is answered.
pub(super) struct Quiet {
    pub(super) stream: Stream,
    /// The number of the listener that it came through, the same in all workers.
    pub(super) listener: usize,
    /// Nothing has come on it yet: its first request is on the way.
    pub(super) fresh: bool,
}

/// Both ends of the queue, in the master and in every worker.
#[derive(Debug)]
pub(super) struct Shelf {
    give: OwnedFd,
    take: OwnedFd,
    board: Scoreboard,
}

impl Shelf {
    pub(super) fn new(board: Scoreboard) -> io::Result<Self> {
        // Its messages stay apart, and unlike that of datagrams their number is only limited by the buffer: some 270.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (give, take) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok(Self { give, take, board })
    }

    /// Takes over what another program has [handed on](Self::ends).
    pub(super) fn adopt((give, take): (OwnedFd, OwnedFd), board: Scoreboard) -> Self {
        Self { give, take, board }
    }

    /// Both ends of the queue.
    pub(super) fn ends(&self) -> [&OwnedFd; 2] {
        [&self.give, &self.take]
    }

    /// Whether somebody is there to take what would be put on it.
    pub(super) fn is_wanted(&self) -> bool {
        self.board.has_idle()
    }

    /// Puts a connection on the shelf; the caller closes its own descriptor and has taken it out of its epoll set, where
    /// the connection would stay otherwise for as long as it is open anywhere.
    ///
    /// # Errors
    /// Where the shelf is full, or the system counts too many descriptors on their way: the connection stays.
    pub(super) fn put(&self, quiet: &Quiet) -> Result<(), Errno> {
        let [high, low] = u16::try_from(quiet.listener).map_err(|_| Errno::OVERFLOW)?.to_be_bytes();
        let bytes = [high, low, u8::from(quiet.fresh)];
        let descriptors = [quiet.stream.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::sendmsg(&self.give, &[IoSlice::new(&bytes)], &mut control, flags)?;
        self.note();
        Ok(())
    }

    /// Takes a connection, if one is there. That costs a system call only where one was put since it was last empty.
    pub(super) fn take(&self, listeners: &[Listener]) -> Option<Quiet> {
        if !self.board.is_shelf_used() {
            return None;
        }
        let taken = self.receive(listeners).or_else(|errno| {
            if errno != Errno::AGAIN {
                return Err(errno);
            }
            // Somebody may put one there before the mark is gone: so another look after it.
            self.board.set_shelf_used(false);
            self.receive(listeners).inspect(|_| self.note())
        });
        taken.ok()?
    }

    /// Remembers that something is on the shelf.
    pub(super) fn note(&self) {
        self.board.set_shelf_used(true);
    }

    /// Has the kernel wake somebody else for what is on the shelf: it may have woken the caller, who will not take it.
    pub(super) fn pass_on(&self, listeners: &[Listener]) {
        self.note();
        if let Some(quiet) = self.take(listeners) {
            let _ = self.put(&quiet);
        }
    }

    /// The next connection; `None` if it was broken meanwhile.
    fn receive(&self, listeners: &[Listener]) -> Result<Option<Quiet>, Errno> {
        let mut bytes = [0; 3];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        rustix::io::retry_on_intr(|| rustix::net::recvmsg(&self.take, slices, &mut control, flags))?;
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        // Without a free number for it the kernel has closed the connection, as the worker would have to do next.
        let Some(descriptor) = descriptor else { return Ok(None) };
        let [high, low, fresh] = bytes;
        let listener = usize::from(u16::from_be_bytes([high, low]));
        let local = listeners.get(listener).and_then(Listener::local);
        let peer = match local.map(|_| rustix::net::getpeername(&descriptor)) {
            None => None,
            Some(Ok(peer)) => peer.and_then(|peer| SocketAddr::try_from(peer).ok()),
            // It was reset, and there is nobody to answer.
            Some(Err(_)) => return Ok(None),
        };
        Ok(Some(Quiet { stream: Stream::new(descriptor, peer, local), listener, fresh: fresh != 0 }))
    }
}

/// The end that is readable while a connection is on the shelf.
impl AsFd for Shelf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.take.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::server::listener::Protocol;

    #[test]
    fn what_was_put_on_it_is_taken_in_order() {
        let shelf = Shelf::new(Scoreboard::new(1).unwrap()).unwrap();
        let bound = TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners = [Listener::from_fd(bound.try_clone().unwrap().into(), Protocol::Http).unwrap()];
        assert!(shelf.take(&listeners).is_none());
        let mut clients = Vec::new();
        for i in 0..3u8 {
            let mut client = TcpStream::connect(bound.local_addr().unwrap()).unwrap();
            client.write_all(&[i]).unwrap();
            let accepted = bound.accept().unwrap().0;
            let quiet = Quiet { stream: Stream::new(accepted, None, None), listener: 0, fresh: i == 1 };
            shelf.put(&quiet).unwrap();
            clients.push(client);
        }
        for (i, client) in (0..3u8).zip(&mut clients) {
            let quiet = shelf.take(&listeners).unwrap();
            assert_eq!((quiet.listener, quiet.fresh), (0, i == 1));
            assert_eq!(quiet.stream.peer(), Some(client.local_addr().unwrap()));
            assert_eq!(quiet.stream.local(), Some(bound.local_addr().unwrap()));
            let mut byte = [9];
            quiet.stream.read_now(&mut byte).unwrap();
            assert_eq!(byte, [i]);
            drop(quiet);
            // Nobody else has it open.
            assert_eq!(client.read(&mut byte).unwrap(), 0);
        }
        assert!(shelf.take(&listeners).is_none());
        assert!(!shelf.board.is_shelf_used());
    }

    #[test]
    fn a_full_shelf_says_so_and_loses_nothing() {
        let shelf = Shelf::new(Scoreboard::new(1).unwrap()).unwrap();
        let (_client, stream) = UnixStream::pair().unwrap();
        let quiet = Quiet { stream: Stream::new(stream, None, None), listener: 0, fresh: false };
        let mut put = 0;
        while shelf.put(&quiet).is_ok() {
            put += 1;
        }
        assert!(put > 100, "{put}");
        let taken = std::iter::from_fn(|| shelf.take(&[])).count();
        assert_eq!(taken, put);
        shelf.put(&quiet).unwrap();
        shelf.pass_on(&[]);
        assert!(shelf.take(&[]).is_some());
    }
}
