//! File descriptors that are not ours by construction: stdout, and those inherited from whoever started us or was this
//! process before.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};

/// Where systemd's inherited descriptors start.
const FIRST_INHERITED: RawFd = 3;

/// Takes stdout away from everybody else: returns it, close-on-exec, and puts stderr in its place. A stray `println!`,
/// or a child process that writes to its stdout, then ends up in the log instead of in the response.
pub(crate) fn take_stdout() -> io::Result<File> {
    let stdout = fcntl_dupfd_cloexec(io::stdout(), FIRST_INHERITED)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(stdout.into())
}

/// Lets go of what whoever started this process may be waiting for the end of: stdin, stdout, and stderr unless that is
/// a file.
pub(crate) fn let_go_of_stdio() -> io::Result<()> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(io::stderr())?.st_mode);
    if kind != rustix::fs::FileType::RegularFile {
        rustix::stdio::dup2_stderr(&nothing)?;
    }
    Ok(())
}

/// Takes over `count` descriptors from 3 on, as `LISTEN_FDS` counts them, and sets close-on-exec.
///
/// The caller has checked that they are meant for this process (`LISTEN_PID`). They are taken once only.
pub(crate) fn take_inherited(count: usize) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::other("inherited descriptors are taken already"));
    }
    let last = RawFd::try_from(count).map_err(io::Error::other)?.saturating_add(FIRST_INHERITED);
    let descriptors = FIRST_INHERITED..last;
    for number in descriptors.clone() {
        // SAFETY: borrowed for this call only; if it is not open, fcntl says so.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let flags = fcntl_getfd(descriptor)?;
        fcntl_setfd(descriptor, flags | FdFlags::CLOEXEC)?;
    }
    // SAFETY: each is open, as checked above; who started this process handed them over for it to own, and nobody
    // else in it takes them: this runs at most once.
    Ok(descriptors.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
}

/// Whether a descriptor is to stay open over execve(2).
pub(crate) fn keep(descriptor: BorrowedFd<'_>, keep: bool) -> io::Result<()> {
    Ok(fcntl_setfd(descriptor, if keep { FdFlags::empty() } else { FdFlags::CLOEXEC })?)
}

/// Takes over a descriptor that was left open for this program, which was told its number, and sets close-on-exec. Each
/// is to be taken once.
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    if number < FIRST_INHERITED {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a descriptor that can be handed on"));
    }
    // SAFETY: borrowed for this call only; if it is not open, fcntl says so.
    let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
    if flags.contains(FdFlags::CLOEXEC) {
        // Whatever this is, it was not left open by another program: somebody in this one has it.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a descriptor that was handed on"));
    }
    // SAFETY: it is open, and was left so by the program that told its number and that is gone; nothing in this process
    // has it, as all that this process opens is closed on exec. Taken once, it has that mark, too.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    Ok(descriptor)
}
