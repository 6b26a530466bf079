//! Memory that this process shares with the children it forks, and with the program that it becomes by execve(2): words,
//! changed atomically.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};

/// Shared words, and the descriptor by which they can be handed on.
#[derive(Debug)]
pub(crate) struct Shared {
    fd: OwnedFd,
    words: &'static [AtomicU64],
}

impl Shared {
    /// Maps `words` zeros, shared with every process forked from now on. They are never unmapped: who asks for them needs
    /// them until the process ends.
    pub(crate) fn new(words: usize) -> io::Result<Self> {
        let length = words.checked_mul(size_of::<AtomicU64>()).filter(|&length| length > 0);
        let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let fd = memfd_create(c"cloakroom", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, length as u64)?;
        // Nobody who has it can cut it short, which would end all the others (SIGBUS).
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(fd, length)
    }

    /// Takes over what another program has made with [`new`](Self::new).
    ///
    /// # Errors
    /// Where the descriptor is none of those.
    pub(crate) fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not shared memory of this program");
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| wrong())?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(wrong());
        }
        let length = usize::try_from(fstat(&fd)?.st_size).map_err(|_| wrong())?;
        if length == 0 || length % size_of::<AtomicU64>() != 0 {
            return Err(wrong());
        }
        Self::map(fd, length)
    }

    fn map(fd: OwnedFd, length: usize) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        // SAFETY: a mapping at an address that the kernel chooses touches no memory in use.
        let address = unsafe {
            libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = length / size_of::<AtomicU64>();
        // SAFETY: the mapping is page-aligned, `length` bytes long, never unmapped, and its file is sealed against
        // shrinking; any bytes are a valid AtomicU64; all access to it, from any process, is through atomics.
        let words = unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), words) };
        Ok(Self { fd, words })
    }

    /// The words.
    pub(crate) fn words(&self) -> &'static [AtomicU64] {
        self.words
    }
}

/// What a program that takes it over [adopts](Shared::adopt).
impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn starts_with_zeros_and_is_seen_by_who_adopts_it() {
        let shared = Shared::new(1000).unwrap();
        assert!(shared.words().iter().all(|word| word.load(Relaxed) == 0));
        shared.words()[999].store(7, Relaxed);
        let other = Shared::adopt(shared.fd.try_clone().unwrap()).unwrap();
        assert_eq!((other.words().len(), other.words()[999].load(Relaxed)), (1000, 7));
        assert!(Shared::new(0).is_err());
    }

    #[test]
    fn nothing_else_is_adopted() {
        assert!(Shared::adopt(tempfile::tempfile().unwrap().into()).is_err());
        let loose = memfd_create(c"loose", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&loose, 4096).unwrap();
        assert!(Shared::adopt(loose).is_err());
    }
}
