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

#[cfg(test)]
mod tests {
    #[test]
    fn is_for_tcp_only() {
        super::defer_accept(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), 1).unwrap();
        assert!(super::defer_accept(std::os::unix::net::UnixStream::pair().unwrap().0, 1).is_err());
    }
}
