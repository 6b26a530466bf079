//! The shelf: a queue of connections for the workers.
//!
//! Whoever is busy puts the quiet connections that it holds on the shelf, the porter those on which a request has
//! arrived, and an idle worker takes them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::relay::{Parcel, Relay};
use super::scoreboard::Scoreboard;
use crate::server::listener::Listener;
use crate::server::load::Load;
use crate::server::stream::Stream;

/// An open HTTP connection on which everything that was read is answered.
pub(super) struct Quiet {
    pub(super) stream: Stream,
    /// The number of the listener that it came through, the same in all workers.
    pub(super) listener: usize,
    /// Nothing has come on it yet: its first request is on the way.
    pub(super) fresh: bool,
}

/// The queue, in the master and in every process of the pool.
#[derive(Debug)]
pub(super) struct Shelf {
    relay: Relay,
    board: Scoreboard,
}

impl Shelf {
    pub(super) fn new(board: Scoreboard) -> io::Result<Self> {
        Ok(Self { relay: Relay::new()?, board })
    }

    /// Takes over what another program has [handed on](Self::ends).
    pub(super) fn adopt(ends: (OwnedFd, OwnedFd), board: Scoreboard) -> Self {
        Self { relay: Relay::adopt(ends), board }
    }

    /// Both ends of the queue.
    pub(super) fn ends(&self) -> [&OwnedFd; 2] {
        self.relay.ends()
    }

    /// Whether somebody is there to take what would be put on it.
    pub(super) fn is_wanted(&self) -> bool {
        self.board.has_idle()
    }

    /// Puts a quiet connection on the shelf, see [`Relay::put`].
    pub(super) fn put(&self, quiet: &Quiet) -> Result<(), Errno> {
        self.put_loaded(&quiet.stream, quiet.listener, quiet.fresh, &Load::KEEP)
    }

    /// Puts a connection on the shelf with what belongs to it.
    pub(super) fn put_loaded(
        &self,
        stream: &Stream,
        listener: usize,
        fresh: bool,
        load: &Load<'_>,
    ) -> Result<(), Errno> {
        self.relay.put(stream, listener, fresh, load)?;
        self.note();
        Ok(())
    }

    /// Takes a connection, if one is there. That costs a system call only where one was put since it was last empty.
    pub(super) fn take(&self, listeners: &[Listener]) -> Option<Parcel> {
        if !self.board.is_shelf_used() {
            return None;
        }
        let taken = self.relay.take(listeners).or_else(|errno| {
            if errno != Errno::AGAIN {
                return Err(errno);
            }
            // Somebody may put one there before the mark is gone: so another look after it.
            self.board.set_shelf_used(false);
            self.relay.take(listeners).inspect(|_| self.note())
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
        if let Some(parcel) = self.take(listeners) {
            let Parcel { stream, listener, fresh, cargo } = parcel;
            let _ = self.put_loaded(&stream, listener, fresh, &cargo.load());
        }
    }
}

/// The end that is readable while a connection is on the shelf.
impl AsFd for Shelf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.relay.as_fd()
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
