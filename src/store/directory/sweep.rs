//! Going through the whole directory: the sweep, and iteration for administration. Memory does not grow with the number
//! of sessions.

use std::ffi::CStr;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::file::{self, Found, modification_time};
use super::place::{Place, io_error};
use crate::session::{Id, Millis, StoreError, Stored, Swept, now};
use crate::sys::lock;
use crate::sys::log::log;

/// A file in which no record was ever completed is a left-over after this long; damaged ones are kept for a week.
const LEFT_OVER: Duration = Duration::from_secs(60);
const DAMAGED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Deletes what was last used at least `age` ago; without an age, what is over by its own timeouts.
pub(super) fn sweep(place: &Place, age: Option<Duration>) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    for name in names(place)? {
        let name = name?;
        let Some(id) = name.to_str().ok().and_then(Id::parse) else {
            remove_old_damage(place, &name)?;
            continue;
        };
        let outcome = sweep_one(place, &id, age).unwrap_or_else(|error| {
            // One file that is not ours must not keep all the others.
            log!("sweep: {}", crate::error::Error::from(error));
            Outcome::Kept
        });
        match outcome {
            Outcome::Deleted => swept.deleted += 1,
            Outcome::Kept => swept.remaining += 1,
            Outcome::Vanished => {}
        }
    }
    Ok(swept)
}

enum Outcome {
    Deleted,
    Kept,
    /// Somebody else deleted it, or it never was a session.
    Vanished,
}

fn sweep_one(place: &Place, id: &Id, age: Option<Duration>) -> Result<Outcome, StoreError> {
    // Most files are told by their time alone, without being opened.
    let unused = |modified: Millis| Duration::from_millis(now().saturating_sub(modified));
    let due = |modified: Millis| unused(modified) >= age.unwrap_or(Duration::ZERO);
    match rustix::fs::statat(&place.descriptor, &*id.to_text(), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(Outcome::Vanished),
        Err(error) => return Err(io_error("inspect session file", &place.file_path(id), error)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => return Ok(Outcome::Kept),
        Ok(stat) if !due(modification_time(&stat)) => return Ok(Outcome::Kept),
        Ok(_) => {}
    }
    let Some(file) = place.open_file(id, OFlags::RDONLY)? else { return Ok(Outcome::Vanished) };
    let locked = lock::try_exclusive(&file);
    if !locked.map_err(|source| StoreError::Io { verb: "lock session file", path: place.file_path(id), source })? {
        // In use.
        return Ok(Outcome::Kept);
    }
    // Again, as only under the lock it stays true.
    let stat = |file: &File| {
        rustix::fs::fstat(file).map_err(|error| io_error("inspect session file", &place.file_path(id), error))
    };
    let before = stat(&file)?;
    if before.st_nlink == 0 {
        return Ok(Outcome::Vanished);
    }
    let modified = modification_time(&before);
    let delete = match file::look(place, id, &file)? {
        Found::Session(..) => age.is_some() && due(modified),
        Found::Over(_) | Found::Deleted => true,
        Found::Nothing if !file::is_named(place, id) => return Ok(Outcome::Vanished),
        Found::Nothing => unused(modified) >= LEFT_OVER,
    };
    if !delete {
        return Ok(Outcome::Kept);
    }
    // A touch takes no lock: one that came while we looked has renewed the session.
    if modification_time(&stat(&file)?) != modified {
        return Ok(Outcome::Kept);
    }
    place.unlink(id)?;
    Ok(Outcome::Deleted)
}

fn remove_old_damage(place: &Place, name: &CStr) -> Result<(), StoreError> {
    if !name.to_bytes().starts_with(b"damaged-") {
        return Ok(());
    }
    match rustix::fs::statat(&place.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if now().saturating_sub(modification_time(&stat)) >= DAMAGED.as_millis() as Millis => {
            match rustix::fs::unlinkat(&place.descriptor, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(io_error("delete damaged session file in", &place.path, error)),
            }
        }
        _ => Ok(()),
    }
}

/// Every session that is not over.
pub(super) fn sessions(
    place: Arc<Place>,
) -> Result<impl Iterator<Item = Result<(Id, Stored), StoreError>>, StoreError> {
    let names = names(&place)?;
    Ok(names.filter_map(move |name| match name {
        Err(error) => Some(Err(error)),
        Ok(name) => {
            let id = Id::parse(name.to_str().ok()?)?;
            file::load(&place, &id).transpose().map(|stored| Ok((id, stored?)))
        }
    }))
}

fn names(place: &Place) -> Result<impl Iterator<Item = Result<std::ffi::CString, StoreError>> + use<>, StoreError> {
    let path = place.path.clone();
    let error = move |error| io_error("list session directory", &path, error);
    // A descriptor of its own, as the place in the listing belongs to the descriptor.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let descriptor = rustix::fs::openat(&place.descriptor, c".", flags, Mode::empty()).map_err(&error)?;
    let entries = Dir::new(descriptor).map_err(&error)?;
    Ok(entries.map(move |entry| entry.map(|entry| entry.file_name().to_owned()).map_err(&error)))
}
