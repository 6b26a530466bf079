//! How far a sweep with a budget has come: a number in a small file, for the next one to go on from. It is there only
//! while a pass is not complete.
//!
//! The number is a position in the directory's listing as the kernel gives it; file systems that NFS can export keep
//! those valid. A wrong one costs nothing but a pass that leaves something to the next: nothing else is believed, and
//! whatever stands there instead is no position. Only who holds the directory's lock is here.

use std::fs::File;
use std::io::Write as _;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::place::{Place, distrust, io_error};
use crate::session::StoreError;
use crate::sys::log::log;

const NAME: &std::ffi::CStr = c"sweep-position";
/// The largest number has 19 digits, and a line end follows.
const LONGEST: usize = 20;

/// Where to go on, if that is known.
pub(super) fn read(place: &Place) -> Option<i64> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(retry_on_intr(|| rustix::fs::openat(&place.descriptor, NAME, flags, Mode::empty())).ok()?);
    let stat = retry_on_intr(|| rustix::fs::fstat(&file)).ok()?;
    if distrust(place, &stat).is_some() {
        return None;
    }
    let mut text = [0; LONGEST + 1];
    let length = retry_on_intr(|| rustix::io::pread(&file, &mut text, 0)).ok()?;
    parse(&text[..length])
}

fn parse(text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"\n").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Keeps where to go on. Where that cannot be done the next sweep begins at the start.
pub(super) fn write(place: &Place, position: i64) {
    let keep = || {
        // Made anew each time, so that it does not matter what was there.
        remove(place)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let error = |source| StoreError::Io { verb: "keep position of the sweep in", path: place.path.clone(), source };
        let file = retry_on_intr(|| rustix::fs::openat(&place.descriptor, NAME, flags, Mode::RUSR | Mode::WUSR));
        let mut file = File::from(file.map_err(|errno| error(errno.into()))?);
        file.write_all(format!("{position}\n").as_bytes()).map_err(error)
    };
    if let Err(error) = keep() {
        log!("sweep: {}", crate::error::Error::from(error));
    }
}

/// A pass is complete: there is nothing to go on with.
pub(super) fn forget(place: &Place) {
    if let Err(error) = remove(place) {
        log!("sweep: {}", crate::error::Error::from(error));
    }
}

fn remove(place: &Place) -> Result<(), StoreError> {
    let unlink = |flags| retry_on_intr(|| rustix::fs::unlinkat(&place.descriptor, NAME, flags));
    let removed = match unlink(AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Nothing of ours; an empty one is no loss.
        Err(Errno::ISDIR) => unlink(AtFlags::REMOVEDIR),
        Err(error) => Err(error),
    };
    removed.map_err(|error| io_error("delete position of the sweep in", &place.path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_number_and_a_line_end() {
        assert_eq!(parse(b"0\n"), Some(0));
        assert_eq!(parse(b"9223372036854775807\n"), Some(i64::MAX));
        for bad in
            [&b""[..], b"\n", b"7", b"-1\n", b"+1\n", b" 1\n", b"1\n\n", b"9223372036854775808\n", b"0x1\n", b"1\n2\n"]
        {
            assert_eq!(parse(bad), None, "{}", bad.escape_ascii());
        }
        assert_eq!(parse(&[b'1'; LONGEST + 1]), None);
    }
}
