//! What a session file holds: seen without a lock, or under it.

use std::cell::Cell;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::{Errno, retry_on_intr};

use super::calls::{fill, headers, links, lock_error, modification_time, stat};
use super::place::{Place, check_file, io_error};
use super::slot::{self, HEADER, Header, Likely, Look, MAX_CAPACITY, MIN_CAPACITY, Side};
use crate::session::{Id, Millis, Record, StoreError, Stored, Version, is_over, now, over_from};
use crate::sys::lock;
use crate::sys::log::log;

/// What a file held when it was looked at.
pub(super) enum Found {
    /// A session.
    Session(At, Record),
    /// A session that has run out, and when.
    Over(At, Millis),
    /// A session that was deleted; its name may still be there.
    Deleted,
    /// No file, or one in which nothing was ever completed.
    Nothing,
}

/// Where a record is in its file.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) sequence: u64,
    pub(super) mark: u64,
    pub(super) side: Side,
    pub(super) capacity: usize,
    /// Whoever made the file grow may have died before that was on disk.
    pub(super) growing: bool,
}

impl Found {
    pub(super) fn into_stored(self) -> Option<Stored> {
        match self {
            Self::Session(at, record) => Some(Stored { record, version: Version(at.sequence) }),
            Self::Over(..) | Self::Deleted | Self::Nothing => None,
        }
    }
}

/// From slots of this capacity on, only the one that seems current is read: two small reads more, and far fewer bytes.
const LARGE: usize = 16 * 1024;

/// A buffer up to this size is kept from one look to the next: memory that is new each time costs more than reading into it.
const KEPT_SIZE: usize = 2 << 20;

/// The content of a file at one moment, as far as a reader without a lock can tell.
struct Image<'a> {
    look: Look<'a>,
    /// What was read into.
    buffer: &'a Arc<[u8]>,
    /// How much of it was filled.
    filled: usize,
    /// Where the current record's payload would begin in it.
    payload_at: usize,
    /// Of each slot.
    capacity: usize,
    links: u64,
    modified: Millis,
}

impl Image<'_> {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

/// Where a file is read to.
struct Buffer(Arc<[u8]>);

thread_local! {
    /// Two, since a request may look for a second time while it still has what it saw.
    static KEPT: Cell<[Option<Arc<[u8]>>; 2]> = const { Cell::new([None, None]) };
}

impl Buffer {
    fn new() -> Self {
        let mut kept = KEPT.take();
        // A record that is still in use has its values in there.
        let is_free = |buffer: &mut Option<Arc<[u8]>>| buffer.as_mut().is_some_and(|it| Arc::get_mut(it).is_some());
        let free = kept.iter_mut().position(is_free);
        let buffer = free.and_then(|free| kept[free].take());
        KEPT.set(kept);
        Self(buffer.unwrap_or_else(|| vec![0; 2 * MIN_CAPACITY].into()))
    }

    fn bytes(&mut self, length: usize) -> &mut [u8] {
        if self.0.len() < length {
            self.0 = vec![0; length].into();
        }
        &mut Arc::get_mut(&mut self.0).expect("nobody else has it yet")[..length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.len() <= KEPT_SIZE {
            let mut kept = KEPT.take();
            let place = usize::from(kept[0].is_some());
            kept[place] = Some(Arc::clone(&self.0));
            KEPT.set(kept);
        }
    }
}

/// Whose memory a record is to be in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// That of the buffer, which has more room than it takes: for as long as a request.
    Shared,
    /// Its own: for somebody who may collect many.
    Own,
}

/// Looks at a session without taking its lock.
pub(super) fn load(place: &Place, id: &Id, memory: Memory) -> Result<Option<Stored>, StoreError> {
    let Some(file) = place.open_file(id, OFlags::RDONLY)? else { return Ok(None) };
    let (mut buffer, mut before) = (Buffer::new(), None::<Vec<u8>>);
    // Saves of one session that take turns can each spoil a look, but not for long: between them the file rests.
    for _ in 0..16 {
        let image = read(place, id, &file, &mut buffer, before.is_none())?;
        let settled = before.as_deref() == Some(image.bytes());
        match image.look {
            Look::Current { header, payload, certain, .. } if certain || settled => {
                return match judge(header, payload, &image, memory) {
                    Judged::Good(record) => Ok(Some(Stored { record, version: Version(header.sequence) })),
                    Judged::Over => Ok(None),
                    Judged::Undecodable => look_locked(place, id, &file),
                };
            }
            Look::Blank => return Ok(None),
            Look::Foreign(found) => return Err(StoreError::Format { path: place.file_path(id), found }),
            Look::Bad if settled => return look_locked(place, id, &file),
            Look::Current { .. } | Look::Bad => before = Some(image.bytes().to_vec()),
        }
    }
    look_locked(place, id, &file)
}

/// The last resort of a reader: looks under the lock, where nothing moves.
fn look_locked(place: &Place, id: &Id, file: &File) -> Result<Option<Stored>, StoreError> {
    // Whoever holds the lock for longer than this is not saving all the time, so that looks without it settle again.
    let wait = Duration::from_millis(100);
    if !lock::exclusive(file, wait).map_err(|source| lock_error(place, id, source))? {
        return Err(StoreError::Locked);
    }
    Ok(look(place, id, file)?.into_stored())
}

/// Looks at a file whose lock is held. Damage is set aside.
pub(super) fn look(place: &Place, id: &Id, file: &File) -> Result<Found, StoreError> {
    let mut buffer = Buffer::new();
    let image = read(place, id, file, &mut buffer, true)?;
    if image.links == 0 {
        return Ok(Found::Deleted);
    }
    match image.look {
        Look::Current { header, .. } if header.tombstone => Ok(Found::Deleted),
        Look::Current { side, header, payload, growing, .. } => {
            let capacity = image.capacity;
            let at = At { sequence: header.sequence, mark: header.mark, side, capacity, growing };
            match judge(header, payload, &image, Memory::Shared) {
                Judged::Good(record) => Ok(Found::Session(at, record)),
                Judged::Over => {
                    Ok(Found::Over(at, over_from(image.modified, header.idle, header.ends).unwrap_or(Millis::MAX)))
                }
                Judged::Undecodable => set_aside(place, id),
            }
        }
        Look::Blank => Ok(Found::Nothing),
        Look::Foreign(found) => Err(StoreError::Format { path: place.file_path(id), found }),
        Look::Bad => set_aside(place, id),
    }
}

/// Whether the name of a session is there; not, once damage was set aside.
pub(super) fn is_named(place: &Place, id: &Id) -> bool {
    // Where that cannot be told it may be there.
    !matches!(place.stat_name(&*id.to_text()), Err(Errno::NOENT))
}

enum Judged {
    Good(Record),
    Over,
    Undecodable,
}

fn judge(header: Header, payload: &[u8], image: &Image<'_>, memory: Memory) -> Judged {
    if header.tombstone || image.links == 0 || is_over(now(), image.modified, header.idle, header.ends) {
        return Judged::Over;
    }
    let decoded = match memory {
        Memory::Shared => Record::decode_part(image.buffer, image.payload_at..image.payload_at + payload.len()),
        Memory::Own => Record::decode(payload),
    };
    match decoded {
        Ok(mut record) => {
            record.accessed = image.modified;
            Judged::Good(record)
        }
        Err(_) => Judged::Undecodable,
    }
}

/// Reads a file. `may_skip`: of a large one no more than what is current, where that can be told.
fn read<'a>(
    place: &Place,
    id: &Id,
    file: &File,
    buffer: &'a mut Buffer,
    may_skip: bool,
) -> Result<Image<'a>, StoreError> {
    let stat = stat(place, id, file)?;
    check_file(place, id, &stat)?;
    let (links, modified) = (links(&stat), modification_time(&stat));
    // No file of ours is larger, and none that is larger is read.
    let length = stat.st_size.cast_unsigned().min(2 * MAX_CAPACITY as u64 + 1) as usize;
    let failed = |error| io_error("read session file", &place.file_path(id), error);
    if may_skip
        && let Some(capacity) = slot::capacity_of(length as u64).filter(|&capacity| capacity >= LARGE)
        && let Some([a, b]) = headers(file, capacity).map_err(failed)?
        && let Some(likely) = Likely::of(id, capacity, &a, &b)
    {
        let offset = likely.side.offset(capacity) as u64;
        let filled = fill(file, buffer.bytes(likely.length), offset).map_err(failed)?;
        if let Some(header) = likely.prove(id, &buffer.0[..filled]) {
            let buffer = &buffer.0;
            let look = likely.look(header, capacity, &buffer[HEADER..filled]);
            return Ok(Image { look, buffer, filled, payload_at: HEADER, capacity, links, modified });
        }
    }
    // Shorter than it said: somebody cut it. What is there is judged as it is.
    let filled = fill(file, buffer.bytes(length), 0).map_err(failed)?;
    let (buffer, capacity) = (&buffer.0, filled / 2);
    let look = slot::look(id, &buffer[..filled]);
    let side = if let Look::Current { side, .. } = look { side } else { Side::A };
    let payload_at = side.offset(capacity) + HEADER;
    Ok(Image { look, buffer, filled, payload_at, capacity, links, modified })
}

/// Renames a damaged file, whose lock is held, to a name that is no session ID.
fn set_aside(place: &Place, id: &Id) -> Result<Found, StoreError> {
    let name = id.to_text();
    let aside = format!("damaged-{}-{}", &*name, now());
    match retry_on_intr(|| rustix::fs::renameat(&place.descriptor, &*name, &place.descriptor, &*aside)) {
        Ok(()) => log!(
            "session file damaged, set aside as {}",
            place.path.join(format!("damaged-{}…-{}", &name[..6], &aside[41..])).display()
        ),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(io_error("set aside damaged session file", &place.file_path(id), error)),
    }
    Ok(Found::Nothing)
}
