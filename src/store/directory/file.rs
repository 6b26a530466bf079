//! Everything that is done to one session file under its lock.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{OFlags, Timespec};
use rustix::io::retry_on_intr;

use super::Durability;
use super::calls::{allocate, extend, lock_error, stat, sync, write, write_encoding};
use super::look::{At, Found, look};
use super::place::{Place, check_file, io_error};
use super::slot::{self, HEADER, Header, MAX_CAPACITY, Side};
use crate::session::{Guard, Id, Record, Saved, StoreError, Stored, Version};
use crate::sys::lock;
use crate::sys::log::log;

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
        let mut encoding = record.encode_after(HEADER);
        let capacity = capacity_for(encoding.len() - HEADER)?;
        let mark = draw_mark(place)?;
        let file = place.create_file(id)?;
        slot::seal(id, header(record, 1, mark), &mut encoding);
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
            write_encoding(place, id, &file, &encoding, 0)?;
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
        let mut encoding = record.encode_after(HEADER);
        let capacity = capacity_for(encoding.len() - HEADER)?;
        slot::seal(&self.id, header(record, at.sequence + 1, at.mark), &mut encoding);
        // Until the write is whole we do not know what is current.
        (self.at, self.looked) = (None, None);
        self.settle(at)?;
        let next = if capacity > at.capacity {
            self.grow(at, capacity)?
        } else {
            At { sequence: at.sequence + 1, side: at.side.other(), growing: false, ..at }
        };
        write_encoding(&self.place, &self.id, &self.file, &encoding, next.side.offset(next.capacity) as u64)?;
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
        let bytes = slot::tombstone(&self.id, at.sequence + 1, at.mark);
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

fn capacity_for(payload: usize) -> Result<usize, StoreError> {
    slot::capacity_for(payload).ok_or(StoreError::TooLarge { size: payload, limit: MAX_CAPACITY - HEADER })
}
