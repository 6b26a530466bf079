//! How many connections wait in a listener's queue: `TCP_INFO` for TCP, `sock_diag` for Unix sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, send, socket_with, sockopt};

/// A listener's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Connections that are established and wait for accept(2).
    pub(crate) waiting: u32,
    /// How many there may be.
    pub(crate) limit: u32,
}

/// The queue of a listening socket; `None` where the kernel does not tell, as where a sandbox forbids netlink.
pub(crate) fn queue(listener: impl AsFd) -> Option<Queue> {
    let listener = listener.as_fd();
    match sockopt::socket_domain(listener).ok()? {
        AddressFamily::INET | AddressFamily::INET6 => tcp(listener).ok(),
        AddressFamily::UNIX => unix(listener),
        _ => None,
    }
}

/// The first words of `struct tcp_info`: eight small fields, four that say nothing here, unacked, sacked. Of a listener
/// the last two are its queue and the queue's limit.
const INFO_WORDS: usize = 8;

fn tcp(listener: BorrowedFd<'_>) -> io::Result<Queue> {
    let mut info = [0u32; INFO_WORDS];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the pointers are to live variables, and the kernel writes at most
    // `length` bytes, which are that many of `info`; any bytes are valid numbers.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast::<libc::c_void>(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < size_of_val(&info) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Queue { waiting: info[6], limit: info[7] })
}

/// `linux/sock_diag.h`, `linux/unix_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;
const HEADER: usize = 16;
const MESSAGE: usize = 16;

fn unix(listener: BorrowedFd<'_>) -> Option<Queue> {
    let inode = u32::try_from(rustix::fs::fstat(listener).ok()?.st_ino).ok()?;
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG)).ok()?;
    send(&socket, &question(inode), SendFlags::DONTWAIT).ok()?;
    let mut answer = [0u8; 512];
    // The kernel has answered before send returns.
    let (length, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
    rqlen(answer.get(..length)?, inode)
}

/// `struct nlmsghdr` and `struct unix_diag_req`: the queue of the one socket with this inode.
fn question(inode: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    bytes.extend_from_slice(&40u32.to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    // The sequence number and the sender, of which the kernel makes nothing here.
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[libc::AF_UNIX as u8, 0, 0, 0]);
    // In any state, with this inode, its queue, whatever its cookie.
    for word in [u32::MAX, inode, UDIAG_SHOW_RQLEN, u32::MAX, u32::MAX] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// The queue in an answer: `struct nlmsghdr`, `struct unix_diag_msg`, attributes.
fn rqlen(answer: &[u8], inode: u32) -> Option<Queue> {
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    if half(4)? != SOCK_DIAG_BY_FAMILY || word(HEADER + 4)? != inode {
        return None;
    }
    let mut at = HEADER + MESSAGE;
    loop {
        let length = usize::from(half(at)?);
        if half(at + 2)? == UNIX_DIAG_RQLEN {
            return Some(Queue { waiting: word(at + 4)?, limit: word(at + 8)? });
        }
        if length < 4 {
            return None;
        }
        at += length.next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn counts_who_waits_on_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 7).unwrap();
        assert_eq!(queue(&listener), Some(Queue { waiting: 0, limit: 7 }));
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(queue(&listener).unwrap().waiting, 3);
        listener.accept().unwrap();
        assert_eq!(queue(&listener).unwrap().waiting, 2);
        drop(clients);
    }

    #[test]
    fn counts_who_waits_on_a_unix_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 7).unwrap();
        let clients: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
        // A kernel without unix_diag, or a sandbox, says nothing.
        if let Some(queue) = queue(&listener) {
            assert_eq!(queue, Queue { waiting: 3, limit: 7 });
        }
        drop(clients);
    }

    #[test]
    fn other_sockets_and_answers_have_no_queue() {
        assert_eq!(queue(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()), None);
        for length in 0..44 {
            assert_eq!(rqlen(&vec![0; length], 0), None, "{length}");
        }
        let mut answer = question(5);
        answer.extend_from_slice(&[0; 64]);
        answer[HEADER + 4..][..4].copy_from_slice(&5u32.to_ne_bytes());
        assert_eq!(rqlen(&answer, 6), None);
        // An attribute that says it is shorter than its own head.
        answer[HEADER + MESSAGE..][..4].copy_from_slice(&[0, 0, 9, 0]);
        assert_eq!(rqlen(&answer, 5), None);
    }
}
