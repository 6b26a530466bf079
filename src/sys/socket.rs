//! Socket options that have no safe wrapper.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Has the kernel keep the connections of a listening TCP socket to itself until something has been sent on them; one
/// on which nothing comes is handed over after about `seconds`, as if this had not been set.
pub(crate) fn defer_accept(listener: impl AsFd, seconds: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let descriptor = listener.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call; the pointer is to a live c_int, of which the length is given.
    let result = unsafe {
        libc::setsockopt(
            descriptor,
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast::<libc::c_void>(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has a listening TCP socket ignore whoever wants to connect from now on, as if the packet had been lost; those that are
/// connected, or about to be, stay. So its queue can be emptied, and nobody is in it when it is closed: who comes later
/// tries again, a second later, and then finds nobody listening.
pub(crate) fn refuse_new(listener: impl AsFd) -> io::Result<()> {
    // Classic BPF over a TCP segment: of the flags SYN and ACK (at 13) only SYN is set: drop it; else take all of it.
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 13),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, 0x12),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 0x02),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    let descriptor = listener.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call; the pointers are to live values of the given length, which the
    // kernel copies.
    let result = unsafe {
        libc::setsockopt(
            descriptor,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast::<libc::c_void>(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn who_is_connected_stays_and_who_comes_later_does_not_get_in() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let address = listener.local_addr().unwrap();
            let mut early = TcpStream::connect(address).unwrap();
            super::refuse_new(&listener).unwrap();
            assert!(TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err());
            early.write_all(b"x").unwrap();
            let mut byte = [0];
            listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
            drop(listener);
            let refused = TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn is_for_tcp_only() {
        super::defer_accept(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), 1).unwrap();
        assert!(super::defer_accept(std::os::unix::net::UnixStream::pair().unwrap().0, 1).is_err());
    }
}
