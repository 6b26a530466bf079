//! One connected socket, with a deadline on whatever waits.
//!
//! The socket's flags are never changed: each call says that it must not wait, and where it would have to, poll(2)
//! waits with the time that is left. A request that is there at once costs one recv and one send.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

/// A slow reader must take this much within each write timeout.
const PROGRESS: usize = 64 * 1024;

/// A connected TCP or Unix stream socket; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: OwnedFd,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
}

impl Stream {
    /// A connected stream socket, blocking or not. `peer` is what accept(2) told and `local` the listener's address,
    /// both for TCP only.
    pub(crate) fn new(fd: impl Into<OwnedFd>, peer: Option<SocketAddr>, local: Option<SocketAddr>) -> Self {
        Self { fd: fd.into(), peer, local }
    }

    /// The other side's address, if this is TCP.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Our side's address, if this is TCP.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// What is there already; `WouldBlock` where nothing is.
    pub(super) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                result => return Ok(result?.1),
            }
        }
    }

    /// Writes what the kernel has room for; `WouldBlock` where it has none.
    pub(super) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Waits until there is something to be read, or the end, but not beyond `deadline`. False where nothing came.
    pub(super) fn wait_readable(&self, deadline: Instant) -> bool {
        self.wait(PollFlags::IN, deadline).is_ok()
    }

    /// Whether nothing can be sent any more.
    pub(super) fn is_gone(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.fd, PollFlags::empty())];
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut descriptors, Some(&none)).is_ok_and(|ready| ready > 0)
    }

    /// Whether something is there to be read, or comes within `time`.
    pub(super) fn is_readable_within(&self, time: Duration) -> bool {
        self.wait(PollFlags::IN, Instant::now() + time).is_ok()
    }

    /// Waits until something can be written, or fails with `TimedOut`.
    pub(super) fn wait_writable(&self, deadline: Instant) -> io::Result<()> {
        self.wait(PollFlags::OUT, deadline)
    }

    /// Waits until reading (`IN`) or writing (`OUT`) would not block, or fails with `TimedOut`.
    fn wait(&self, flags: PollFlags, deadline: Instant) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i32::MAX.into(), tv_nsec: 0 });
            match rustix::event::poll(&mut [PollFd::new(&self.fd, flags)], Some(&left)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends the end, and nothing more.
    pub(super) fn shut(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.fd, Shutdown::Write)?)
    }

    /// Closes so that the other side sees a failure and not the end of the response.
    pub(super) fn abort(self) {
        self.doom();
    }

    /// The same, as soon as it is closed.
    pub(super) fn doom(&self) {
        // Only TCP knows a reset; for the others closing early has to do.
        let _ = rustix::net::sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How far a write has come. One deadline holds until 64 KiB have gone, so that a reader of one byte at a time is not
/// waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The clock is asked only where there is something to wait for.
    deadline: Option<Instant>,
    bytes: usize,
}

impl Progress {
    /// So much was written.
    pub(super) fn note(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= PROGRESS {
            *self = Self::default();
        }
    }

    /// When more must have been written, where each write has `timeout`.
    pub(super) fn deadline(&mut self, timeout: Duration) -> Instant {
        *self.deadline.get_or_insert_with(|| Instant::now() + timeout)
    }
}
