//! Memory that this process shares with the children it forks: words, changed atomically.

use std::io;
use std::ptr;
use std::sync::atomic::AtomicU64;

/// Maps `words` zeros, shared with every process forked from now on. They are never unmapped: who asks for them needs
/// them until the process ends.
pub(crate) fn words(words: usize) -> io::Result<&'static [AtomicU64]> {
    let length = words
        .checked_mul(size_of::<AtomicU64>())
        .filter(|&length| length > 0)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: an anonymous mapping at an address that the kernel chooses touches no memory in use.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is page-aligned, `length` bytes long, zeroed (a valid AtomicU64), and never unmapped; all
    // access to it, from any process, is through atomics.
    Ok(unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), words) })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn starts_with_zeros() {
        let words = super::words(1000).unwrap();
        assert!(words.iter().all(|word| word.load(Relaxed) == 0));
        words[999].store(7, Relaxed);
        assert_eq!(words[999].load(Relaxed), 7);
        assert!(super::words(0).is_err());
    }
}
