//! One connected socket, with a deadline on whatever waits.
//!
//! The socket's flags are never changed: each call says that it must not wait, and where it would have to, poll(2)
//! waits with the time that is left. A request that is there at once costs one recv and one send.

use std::io::{self, Write};
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

    /// Reads what comes before `deadline`; 0 is the end, `TimedOut` that nothing came.
    pub(super) fn read(&self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            match self.read_now(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::IN, deadline)?,
                result => return result,
            }
        }
    }

    /// Waits until there is something to be read, or the end, but not beyond `deadline`. False where nothing came.
    pub(super) fn wait_readable(&self, deadline: Instant) -> bool {
        self.wait(PollFlags::IN, deadline).is_ok()
    }

    /// Whether something is there to be read, or comes within `time`.
    pub(super) fn is_readable_within(&self, time: Duration) -> bool {
        self.wait(PollFlags::IN, Instant::now() + time).is_ok()
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

    /// The stream as a writer whose every write must make progress within `timeout`.
    pub(super) fn writer(&self, timeout: Duration) -> Writer<'_> {
        Writer { stream: self, timeout }
    }

    /// Closes so that the other side still reads what it was sent: a socket that is closed with unread bytes answers
    /// with a reset, and a reset discards the response. Reads on for at most `time` and `bytes`.
    pub(super) fn linger(self, time: Duration, mut bytes: u64, buffer: &mut [u8]) {
        let deadline = Instant::now() + time;
        if rustix::net::shutdown(&self.fd, Shutdown::Write).is_err() {
            return;
        }
        while let Ok(n) = self.read(buffer, deadline)
            && n > 0
            && bytes > n as u64
            && Instant::now() < deadline
        {
            bytes -= n as u64;
        }
    }

    /// Closes so that the other side sees a failure and not the end of the response.
    pub(super) fn abort(self) {
        // Only TCP knows a reset; for the others closing early has to do.
        let _ = rustix::net::sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Writes to a [`Stream`].
pub(super) struct Writer<'a> {
    stream: &'a Stream,
    timeout: Duration,
}

impl Writer<'_> {
    fn write_before(&self, bytes: &[u8], deadline: &mut Option<Instant>) -> io::Result<usize> {
        loop {
            match self.stream.write_now(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The clock is asked only where there is something to wait for.
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.timeout);
                    self.stream.wait(PollFlags::OUT, deadline)?;
                }
                result => return result,
            }
        }
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_before(bytes, &mut None)
    }

    /// One deadline holds until 64 KiB have gone, so that a reader of one byte at a time does not keep a worker.
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let (mut deadline, mut progress) = (None, 0);
        while !bytes.is_empty() {
            let n = self.write_before(bytes, &mut deadline)?;
            bytes = &bytes[n..];
            progress += n;
            if progress >= PROGRESS {
                (deadline, progress) = (None, 0);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
