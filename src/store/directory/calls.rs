//! The system calls on one session file: each made again where a signal interrupts it, and its failure named.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::place::{Place, io_error};
use super::slot::HEADER;
use crate::session::{Encoding, Id, Millis, StoreError};

/// Reads until `bytes` are full or the file is at its end. Returns how many there are.
pub(super) fn fill(file: &File, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::pread(file, &mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The headers of both slots; `None` where the file is too short for that.
pub(super) fn headers(file: &File, capacity: usize) -> Result<Option<[[u8; HEADER]; 2]>, Errno> {
    let (mut a, mut b) = ([0; HEADER], [0; HEADER]);
    let are_whole = fill(file, &mut a, 0)? == HEADER && fill(file, &mut b, capacity as u64)? == HEADER;
    Ok(are_whole.then_some([a, b]))
}

pub(super) fn stat(place: &Place, id: &Id, file: &File) -> Result<Stat, StoreError> {
    retry_on_intr(|| rustix::fs::fstat(file))
        .map_err(|error| io_error("inspect session file", &place.file_path(id), error))
}

/// How many names a file has. The type of the field is not the same on all architectures.
#[allow(clippy::useless_conversion)]
pub(super) fn links(stat: &Stat) -> u64 {
    stat.st_nlink.into()
}

/// The modification time, which is the time of last access of the session.
pub(super) fn modification_time(stat: &Stat) -> Millis {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(stat.st_mtime_nsec / 1_000_000)
}

/// Reserves space without changing what the file shows, so that no later save can find the disk full. `false`: this
/// file system cannot do that.
pub(super) fn allocate(place: &Place, id: &Id, file: &File, from: usize, length: usize) -> Result<bool, StoreError> {
    match retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from as u64, length as u64)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(io_error("allocate session file", &place.file_path(id), error)),
    }
}

pub(super) fn extend(place: &Place, id: &Id, file: &File, length: usize) -> Result<(), StoreError> {
    retry_on_intr(|| rustix::fs::ftruncate(file, length as u64))
        .map_err(|error| io_error("extend session file", &place.file_path(id), error))
}

pub(super) fn write(place: &Place, id: &Id, file: &File, bytes: &[u8], at: u64) -> Result<(), StoreError> {
    file.write_all_at(bytes, at).map_err(|source| write_error(place, id, source))
}

/// Writes all of it at one go, from wherever its pieces are.
pub(super) fn write_encoding(
    place: &Place,
    id: &Id,
    file: &File,
    encoding: &Encoding,
    mut at: u64,
) -> Result<(), StoreError> {
    if let Some(bytes) = encoding.as_slice() {
        return write(place, id, file, bytes, at);
    }
    let mut pieces: Vec<IoSlice<'_>> = encoding.pieces().map(IoSlice::new).collect();
    let mut left = &mut pieces[..];
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match rustix::io::pwritev(file, left, at) {
            Ok(0) => return Err(write_error(place, id, io::ErrorKind::WriteZero.into())),
            Ok(n) => {
                at += n as u64;
                IoSlice::advance_slices(&mut left, n);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(write_error(place, id, error.into())),
        }
    }
    Ok(())
}

fn write_error(place: &Place, id: &Id, source: io::Error) -> StoreError {
    StoreError::Io { verb: "write session file", path: place.file_path(id), source }
}

pub(super) fn sync(place: &Place, id: &Id, file: &File) -> Result<(), StoreError> {
    retry_on_intr(|| rustix::fs::fdatasync(file))
        .map_err(|error| io_error("sync session file", &place.file_path(id), error))
}

pub(super) fn lock_error(place: &Place, id: &Id, source: io::Error) -> StoreError {
    StoreError::Io { verb: "lock session file", path: place.file_path(id), source }
}
