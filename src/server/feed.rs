//! A feed: what is still to be sent of a response, on its way to the process that sends it.
//!
//! The worker that has the response writes it as it would write to the client: into a file that both have open, and what
//! is too much for that into a socket. At last it says what becomes of the connection. If it dies before, the other side
//! sees that the end is missing.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType};

/// The most that goes in one message.
pub(super) const PIECE: usize = 16 * 1024;

/// What becomes of a connection when all is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It waits for another request, of which some bytes may be there.
    Keep,
    /// It is closed.
    Close,
    /// It is closed when the other side has closed it: that may still be sending.
    Linger,
    /// It is closed so that the other side sees a failure.
    Abort,
}

impl End {
    const ALL: [Self; 4] = [Self::Keep, Self::Close, Self::Linger, Self::Abort];

    pub(super) fn code(self) -> u8 {
        self as u8
    }

    pub(super) fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.code() == code)
    }
}

/// The first byte of a message: what the others are.
const RESPONSE: u8 = b'r';
/// How much of the response is in the file.
const IN_FILE: u8 = b'f';
/// Bytes of the next request.
const PENDING: u8 = b'p';
const END: u8 = b'e';

/// The most that goes into the file: beyond it the worker waits for the client, as if there were no feed.
pub(crate) const STORED: u64 = 64 << 20;

/// The end of the worker.
#[derive(Debug)]
pub(super) struct Feed {
    fd: OwnedFd,
    /// Where the response goes, and how much of it is there; none once it was full, or where there cannot be one.
    file: Option<(File, u64)>,
    /// How long the other side may take for a message.
    timeout: Duration,
}

impl Feed {
    /// Both ends of one; the other is for [`Message::receive`].
    pub(super) fn pair(timeout: Duration, may_store: bool) -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (fd, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let file = if may_store { tempfile::tempfile().ok().map(|file| (file, 0)) } else { None };
        Ok((Self { fd, file, timeout }, other))
    }

    /// The file, for the other side.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|(file, _)| file.as_fd())
    }

    /// Sends a part of the response.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((file, length)) = &mut self.file {
            let new = *length + bytes.len() as u64;
            // Where the disk is full, what was written of it is as if it were not there.
            if new <= STORED && file.write_all_at(bytes, *length).is_ok() {
                *length = new;
                return self.put(IN_FILE, &new.to_ne_bytes());
            }
            self.file = None;
        }
        bytes.chunks(PIECE).try_for_each(|piece| self.put(RESPONSE, piece))
    }

    /// Ends it; what is pending are bytes of the next request.
    pub(super) fn end(&self, end: End, pending: &[u8]) -> io::Result<()> {
        pending.chunks(PIECE).try_for_each(|piece| self.put(PENDING, piece))?;
        self.put(END, &[end.code()])
    }

    fn put(&self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let slices = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(bytes)];
            let mut control = SendAncillaryBuffer::default();
            match rustix::net::sendmsg(&self.fd, &slices, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    let left = Timespec::try_from(left).ok();
                    let _ = poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], left.as_ref());
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Feed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What came through a feed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Response(&'a [u8]),
    /// So much of the response is in the file.
    InFile(u64),
    Pending(&'a [u8]),
    End(End),
    /// Whoever was to send it is gone.
    Lost,
    /// Nothing for the moment.
    Nothing,
}

/// Room for one message.
pub(crate) const ROOM: usize = PIECE + 1;

impl<'a> Message<'a> {
    /// Takes the next one, if one is there.
    pub(crate) fn receive(feed: impl AsFd, buffer: &'a mut [u8]) -> Self {
        let received = rustix::io::retry_on_intr(|| rustix::net::recv(&feed, &mut *buffer, RecvFlags::DONTWAIT));
        let n = match received {
            Ok((n, _)) => n,
            Err(Errno::AGAIN) => return Self::Nothing,
            Err(_) => return Self::Lost,
        };
        match buffer[..n].split_first() {
            Some((&RESPONSE, bytes)) => Self::Response(bytes),
            Some((&IN_FILE, length)) => length.try_into().map_or(Self::Lost, |it| Self::InFile(u64::from_ne_bytes(it))),
            Some((&PENDING, bytes)) => Self::Pending(bytes),
            Some((&END, &[code])) => End::of(code).map_or(Self::Lost, Self::End),
            _ => Self::Lost,
        }
    }
}
