//! One session file: looking at it without a lock, and everything that is done to it under its lock.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FallocateFlags, OFlags, Stat, Timespec};
use rustix::io::{Errno, retry_on_intr};

use super::Durability;
use super::place::{Place, check_file, io_error};
use super::slot::{self, HEADER, Header, Likely, Look, MAX_CAPACITY, MIN_CAPACITY, Side};
use crate::session::{Guard, Id, Millis, Record, Saved, StoreError, Stored, Version, is_over, now, over_from};
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

/// From slots of this capacity on, only the one that seems current is read: two small reads more, and far fewer bytes.
const LARGE: usize = 16 * 1024;

/// The content of a file at one moment, as far as a reader without a lock can tell.
struct Image<'a> {
    look: Look<'a>,
    /// All bytes that were read.
    bytes: &'a [u8],
    /// Of each slot.
    capacity: usize,
    links: u64,
    modified: Millis,
}

/// Where a file is read to: memory that is kept from one look to the next, as long as no large session needed more.
struct Scratch(Vec<u8>);

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Scratch {
    fn new() -> Self {
        Self(KEPT.take())
    }

    fn bytes(&mut self, length: usize) -> &mut [u8] {
        if self.0.len() < length {
            self.0.resize(length, 0);
        }
        &mut self.0[..length]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.len() <= 16 * MIN_CAPACITY {
            KEPT.set(std::mem::take(&mut self.0));
        }
    }
}

/// Looks at a session without taking its lock.
pub(super) fn load(place: &Place, id: &Id) -> Result<Option<Stored>, StoreError> {
    let Some(file) = place.open_file(id, OFlags::RDONLY)? else { return Ok(None) };
    let (mut scratch, mut before) = (Scratch::new(), None::<Vec<u8>>);
    // Saves of one session that take turns can each spoil a look, but not for long: between them the file rests.
    for _ in 0..16 {
        let image = read(place, id, &file, &mut scratch, before.is_none())?;
        let settled = before.as_deref() == Some(image.bytes);
        match image.look {
            Look::Current { header, payload, certain, .. } if certain || settled => {
                return match judge(header, payload, &image) {
                    Judged::Good(record) => Ok(Some(Stored { record, version: Version(header.sequence) })),
                    Judged::Over => Ok(None),
                    Judged::Undecodable => look_locked(place, id, &file),
                };
            }
            Look::Blank => return Ok(None),
            Look::Foreign(found) => return Err(StoreError::Format { path: place.file_path(id), found }),
            Look::Bad if settled => return look_locked(place, id, &file),
            Look::Current { .. } | Look::Bad => before = Some(image.bytes.to_vec()),
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
    let mut scratch = Scratch::new();
    let image = read(place, id, file, &mut scratch, true)?;
    if image.links == 0 {
        return Ok(Found::Deleted);
    }
    match image.look {
        Look::Current { header, .. } if header.tombstone => Ok(Found::Deleted),
        Look::Current { side, header, payload, growing, .. } => {
            let capacity = image.capacity;
            let at = At { sequence: header.sequence, mark: header.mark, side, capacity, growing };
            match judge(header, payload, &image) {
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

fn judge(header: Header, payload: &[u8], image: &Image<'_>) -> Judged {
    if header.tombstone || image.links == 0 || is_over(now(), image.modified, header.idle, header.ends) {
        return Judged::Over;
    }
    match Record::decode(payload) {
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
    scratch: &'a mut Scratch,
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
        && let Some(likely) = glance(id, file, capacity).map_err(failed)?
    {
        let offset = likely.side.offset(capacity) as u64;
        let filled = fill(file, scratch.bytes(likely.length), offset).map_err(failed)?;
        if let Some(header) = likely.prove(id, &scratch.0[..filled]) {
            let bytes = &scratch.0[..filled];
            let look = likely.look(header, capacity, &bytes[HEADER..]);
            return Ok(Image { look, bytes, capacity, links, modified });
        }
    }
    let bytes = scratch.bytes(length);
    // Shorter than it said: somebody cut it. What is there is judged as it is.
    let filled = fill(file, bytes, 0).map_err(failed)?;
    let bytes = &bytes[..filled];
    Ok(Image { look: slot::look(id, bytes), bytes, capacity: filled / 2, links, modified })
}

/// Which slot seems current, by the headers of both.
fn glance(id: &Id, file: &File, capacity: usize) -> Result<Option<Likely>, Errno> {
    let (mut a, mut b) = ([0; HEADER], [0; HEADER]);
    let is_whole = fill(file, &mut a, 0)? == HEADER && fill(file, &mut b, capacity as u64)? == HEADER;
    Ok(if is_whole { Likely::of(id, capacity, &a, &b) } else { None })
}

/// Reads until `bytes` are full or the file is at its end. Returns how many there are.
fn fill(file: &File, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
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

pub(super) fn stat(place: &Place, id: &Id, file: &File) -> Result<Stat, StoreError> {
    retry_on_intr(|| rustix::fs::fstat(file))
        .map_err(|error| io_error("inspect session file", &place.file_path(id), error))
}

/// How many names a file has. The type of the field is not the same on all architectures.
#[allow(clippy::useless_conversion)]
fn links(stat: &Stat) -> u64 {
    stat.st_nlink.into()
}

/// The modification time, which is the time of last access of the session.
pub(super) fn modification_time(stat: &Stat) -> Millis {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(stat.st_mtime_nsec / 1_000_000)
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

/// A session file whose lock is held; dropping it closes the file, which gives the lock back.
pub(super) struct Locked {
    place: Arc<Place>,
    durability: Durability,
    id: Id,
    file: File,
    /// Where the current record is, once that is known.
    at: Option<At>,
    /// The current record is known to be on disk.
    on_disk: bool,
    /// A look that has not been handed out yet.
    looked: Option<Found>,
}

/// Where a record is in its file.
#[derive(Clone, Copy)]
pub(super) struct At {
    sequence: u64,
    mark: u64,
    side: Side,
    capacity: usize,
    /// Whoever made the file grow may have died before that was on disk.
    growing: bool,
}

impl Found {
    fn into_stored(self) -> Option<Stored> {
        match self {
            Self::Session(at, record) => Some(Stored { record, version: Version(at.sequence) }),
            Self::Over(..) | Self::Deleted | Self::Nothing => None,
        }
    }
}

impl Locked {
    /// Opens and locks a session's file. `None` if there is none, or it was deleted while we waited.
    pub(super) fn open(
        place: &Arc<Place>,
        id: &Id,
        durability: Durability,
        wait: Duration,
    ) -> Result<Option<Self>, StoreError> {
        let Some(file) = place.open_file(id, OFlags::RDWR)? else { return Ok(None) };
        if !lock::exclusive(&file, wait).map_err(|source| lock_error(place, id, source))? {
            return Err(StoreError::Locked);
        }
        Ok(Some(Self { place: place.clone(), durability, id: *id, file, at: None, on_disk: false, looked: None }))
    }

    /// Whether there is a session in the file; the look is kept for the load that follows.
    pub(super) fn exists(&mut self) -> Result<bool, StoreError> {
        let found = self.look()?;
        let exists = matches!(found, Found::Session(..));
        self.looked = Some(found);
        Ok(exists)
    }

    /// Looks at what the file holds, and remembers where. While the lock is held nobody else changes that.
    fn look(&mut self) -> Result<Found, StoreError> {
        if let Some(found) = self.looked.take() {
            return Ok(found);
        }
        let found = look(&self.place, &self.id, &self.file)?;
        self.at = match found {
            Found::Session(at, _) => Some(at),
            Found::Over(..) | Found::Deleted | Found::Nothing => None,
        };
        Ok(found)
    }

    fn current(&mut self) -> Result<Option<At>, StoreError> {
        if self.at.is_none() {
            self.look()?;
        }
        Ok(self.at)
    }

    /// Creates the file of a new session with its first record.
    pub(super) fn create(
        place: &Place,
        id: &Id,
        record: &Record,
        durability: Durability,
    ) -> Result<Version, StoreError> {
        let payload = record.encode()?;
        let capacity = slot::capacity_for(payload.len()).ok_or_else(|| too_large(payload.len()))?;
        let mark = draw_mark(place)?;
        let file = place.create_file(id)?;
        let bytes = slot::encode(id, header(record, 1, mark), &payload);
        let written = (|| {
            // Held so that no sweep takes the file for a left-over before its first record is complete. Nobody else
            // knows the ID, so only a sweep that is looking just now can have it.
            if !lock::exclusive(&file, Duration::from_secs(1)).map_err(|source| lock_error(place, id, source))? {
                return Err(StoreError::Locked);
            }
            if !allocate(place, id, &file, 0, 2 * capacity)? {
                // A file system without reservations: zeros take the space as well.
                write(place, id, &file, &vec![0; 2 * capacity], 0)?;
            }
            extend(place, id, &file, 2 * capacity)?;
            write(place, id, &file, &bytes, 0)?;
            if durability == Durability::Power {
                sync(place, id, &file)?;
                place.sync()?;
            }
            // Whoever was stopped for a minute on the way here may have lost the file to a sweep.
            if stat(place, id, &file)?.st_nlink > 0 { Ok(Version(1)) } else { Err(StoreError::Locked) }
        })();
        if written.is_err() {
            // Nobody was told of it; if it cannot be removed either, the sweep will.
            let _ = place.unlink(id);
        }
        written
    }

    /// Writes `record` into the slot that is not current.
    pub(super) fn save(&mut self, record: &Record, expected: Version) -> Result<Saved, StoreError> {
        let Some(at) = self.current()? else { return Ok(Saved::Gone) };
        if at.sequence != expected.0 {
            return Ok(Saved::Conflict);
        }
        let payload = record.encode()?;
        let capacity = slot::capacity_for(payload.len()).ok_or_else(|| too_large(payload.len()))?;
        let bytes = slot::encode(&self.id, header(record, at.sequence + 1, at.mark), &payload);
        // Until the write is whole we do not know what is current.
        (self.at, self.looked) = (None, None);
        self.settle(at)?;
        let next = if capacity > at.capacity {
            self.grow(at, capacity)?
        } else {
            At { sequence: at.sequence + 1, side: at.side.other(), growing: false, ..at }
        };
        write(&self.place, &self.id, &self.file, &bytes, next.side.offset(next.capacity) as u64)?;
        if self.durability == Durability::Power {
            sync(&self.place, &self.id, &self.file)?;
            self.on_disk = true;
        }
        self.at = Some(next);
        Ok(Saved::Saved(Version(next.sequence)))
    }

    /// Puts on disk what whoever died between a write and its sync left in memory alone, before more is written: the slot to
    /// be overwritten may be the only one on disk. At either durability that goes for the new length of the file.
    fn settle(&mut self, at: At) -> Result<(), StoreError> {
        let on_disk = std::mem::take(&mut self.on_disk);
        if at.growing || self.durability == Durability::Power && !on_disk {
            sync(&self.place, &self.id, &self.file)?;
        }
        Ok(())
    }

    /// Makes room for a larger record, which then goes into the new B. At every instant A or the old B is good.
    fn grow(&self, at: At, capacity: usize) -> Result<At, StoreError> {
        let Self { place, id, file, .. } = self;
        // First the space, beyond the end and so not seen by anybody: where the disk is full, nothing has changed. Where
        // space cannot be reserved, a later save may find the disk full, and then leaves the old record as it is.
        allocate(place, id, file, 2 * at.capacity, 2 * capacity - 2 * at.capacity)?;
        if at.side == Side::B {
            let mut current = vec![0; at.capacity];
            file.read_exact_at(&mut current, at.capacity as u64).map_err(|source| StoreError::Io {
                verb: "read session file",
                path: place.file_path(id),
                source,
            })?;
            write(place, id, file, &current, 0)?;
            if self.durability == Durability::Power {
                // Only now may the old B stop being a slot.
                sync(place, id, file)?;
            }
        }
        extend(place, id, file, 2 * capacity)?;
        // At either durability: a power cut must not bring the old length back once A has become wide.
        sync(place, id, file)?;
        Ok(At { sequence: at.sequence + 1, side: Side::B, capacity, growing: false, ..at })
    }

    /// Deletes the session: tombstone, to disk, unlink. Whoever has the file open reads that it is gone.
    /// Also one that has run out, as a touch could bring it back; that is no session, and so the answer is `false`.
    pub(super) fn delete(&mut self) -> Result<bool, StoreError> {
        let (at, existed) = match self.at {
            // Looked at before, and perhaps saved since.
            Some(at) => (at, true),
            None => match self.look()? {
                Found::Session(at, _) => (at, true),
                Found::Over(at, _) => (at, false),
                Found::Deleted | Found::Nothing => return Ok(false),
            },
        };
        let header = Header { sequence: at.sequence + 1, mark: at.mark, tombstone: true, ends: None, idle: None };
        let bytes = slot::encode(&self.id, header, &[]);
        self.at = None;
        self.settle(at)?;
        let put = || write(&self.place, &self.id, &self.file, &bytes, at.side.other().offset(at.capacity) as u64);
        put()?;
        // At either durability: a power cut may bring the name back, but never the session.
        if sync(&self.place, &self.id, &self.file).is_err() {
            // From here on the session is gone for everybody, and whoever deletes it is to be able to rely on that. What a
            // failed sync did not write may pass for written ever after, unless it is written anew.
            put()?;
            sync(&self.place, &self.id, &self.file)?;
        }
        // The session is deleted. A name that cannot be removed is left to the sweep.
        let removed = self.place.unlink(&self.id);
        let removed =
            removed.and_then(|()| if self.durability == Durability::Power { self.place.sync() } else { Ok(()) });
        if let Err(error) = removed {
            log!("session deleted, but not its file: {}", crate::error::Error::from(error));
        }
        Ok(existed)
    }
}

impl Guard for Locked {
    fn load(&mut self) -> Result<Option<Stored>, StoreError> {
        Ok(self.look()?.into_stored())
    }

    fn save(&mut self, record: &Record, expected: Version) -> Result<Saved, StoreError> {
        Locked::save(self, record, expected)
    }

    fn delete(mut self: Box<Self>) -> Result<(), StoreError> {
        Locked::delete(&mut self).map(|_| ())
    }
}

/// Sets the time of last access without a lock. A file that is gone stays gone, and one that is not ours is left alone.
pub(super) fn touch(place: &Place, id: &Id) -> Result<bool, StoreError> {
    let Some(file) = place.open_file(id, OFlags::RDONLY)? else { return Ok(false) };
    let stat = stat(place, id, &file)?;
    check_file(place, id, &stat)?;
    let at = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let times = rustix::fs::Timestamps {
        last_access: at(rustix::fs::UTIME_OMIT),
        last_modification: at(rustix::fs::UTIME_NOW),
    };
    match retry_on_intr(|| rustix::fs::futimens(&file, &times)) {
        Ok(()) => Ok(stat.st_nlink > 0),
        Err(error) => Err(io_error("touch session file", &place.file_path(id), error)),
    }
}

fn draw_mark(place: &Place) -> Result<u64, StoreError> {
    let random = Id::generate().map_err(|error| StoreError::Io {
        verb: "draw random numbers for a file in",
        path: place.path.clone(),
        source: std::io::Error::other(error),
    })?;
    Ok(u64::from_le_bytes(std::array::from_fn(|i| random.as_bytes()[i])))
}

fn header(record: &Record, sequence: u64, mark: u64) -> Header {
    Header { sequence, mark, tombstone: false, ends: record.ends, idle: record.idle }
}

/// Reserves space without changing what the file shows, so that no later save can find the disk full. `false`: this
/// file system cannot do that.
fn allocate(place: &Place, id: &Id, file: &File, from: usize, length: usize) -> Result<bool, StoreError> {
    match retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from as u64, length as u64)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(io_error("allocate session file", &place.file_path(id), error)),
    }
}

fn extend(place: &Place, id: &Id, file: &File, length: usize) -> Result<(), StoreError> {
    retry_on_intr(|| rustix::fs::ftruncate(file, length as u64))
        .map_err(|error| io_error("extend session file", &place.file_path(id), error))
}

fn write(place: &Place, id: &Id, file: &File, bytes: &[u8], at: u64) -> Result<(), StoreError> {
    file.write_all_at(bytes, at).map_err(|source| StoreError::Io {
        verb: "write session file",
        path: place.file_path(id),
        source,
    })
}

fn sync(place: &Place, id: &Id, file: &File) -> Result<(), StoreError> {
    retry_on_intr(|| rustix::fs::fdatasync(file))
        .map_err(|error| io_error("sync session file", &place.file_path(id), error))
}

fn too_large(size: usize) -> StoreError {
    StoreError::TooLarge { size, limit: MAX_CAPACITY - slot::HEADER }
}

fn lock_error(place: &Place, id: &Id, source: std::io::Error) -> StoreError {
    StoreError::Io { verb: "lock session file", path: place.file_path(id), source }
}
