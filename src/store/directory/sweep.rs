//! Going through the whole directory: the sweep, and iteration for administration. Memory does not grow with the number
//! of sessions.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, flock};
use rustix::io::{Errno, retry_on_intr};

use super::calls::{self, modification_time};
use super::look::{self, Found, Memory};
use super::place::{Place, check_file, io_error};
use super::position;
use super::slot::{self, Glance};
use crate::session::{Id, Millis, StoreError, Stored, Swept, is_over, now, over_from};
use crate::sys::lock;
use crate::sys::log::log;

/// A file in which no record was ever completed is a left-over after this long; damaged ones are kept for a week.
const LEFT_OVER: Duration = Duration::from_secs(60);
const DAMAGED: Duration = Duration::from_secs(7 * 24 * 3600);
/// For how long at most a sweep relies on what an earlier one has noted on a file.
const NOTED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Deletes what was last used at least `age` ago; without an age, what is over by its own timeouts.
pub(super) fn whole(place: &Place, age: Option<Duration>) -> Result<Swept, StoreError> {
    let mut names = Names::open(place)?;
    let mut swept = Swept::default();
    while let Some(entry) = names.next()? {
        sweep_name(place, &entry.name, age, &mut swept);
    }
    swept.complete = true;
    Ok(swept)
}

/// The same if nobody else does so at this moment, for at most `budget`; with one it begins where the last ended.
pub(super) fn alone(
    place: &Place,
    age: Option<Duration>,
    budget: Option<Duration>,
) -> Result<Option<Swept>, StoreError> {
    let start = Instant::now();
    let mut names = Names::open(place)?;
    // The lock is the directory's own, so that no other file is needed for it. The kernel frees it with its holder.
    if !names.lock()? {
        return Ok(None);
    }
    let mut swept = Swept::default();
    if budget.is_some()
        && let Some(position) = position::read(place)
    {
        names.go_to(position)?;
    }
    while let Some(entry) = names.next()? {
        sweep_name(place, &entry.name, age, &mut swept);
        if budget.is_some_and(|budget| start.elapsed() >= budget) {
            position::write(place, entry.next);
            return Ok(Some(swept));
        }
    }
    position::forget(place);
    swept.complete = true;
    Ok(Some(swept))
}

fn sweep_name(place: &Place, name: &CStr, age: Option<Duration>, swept: &mut Swept) {
    let Some(id) = name.to_str().ok().and_then(Id::parse) else { return remove_old_damage(place, name) };
    let outcome = sweep_one(place, &id, age).unwrap_or_else(|error| {
        // One file that is not ours must not keep all the others.
        log!("sweep: {}", crate::error::Error::from(error));
        Outcome::Kept
    });
    match outcome {
        Outcome::Deleted { overdue } => swept.count_deleted(overdue),
        Outcome::Kept => swept.remaining += 1,
        Outcome::Vanished => {}
    }
}

enum Outcome {
    /// This long after it could have been.
    Deleted {
        overdue: Duration,
    },
    Kept,
    /// Somebody else deleted it, or it never was a session.
    Vanished,
}

fn sweep_one(place: &Place, id: &Id, age: Option<Duration>) -> Result<Outcome, StoreError> {
    let since = |time: Millis| Duration::from_millis(now().saturating_sub(time));
    // Most files are told by their time alone, without being opened.
    let due = |modified: Millis| since(modified) >= age.unwrap_or(Duration::ZERO);
    match place.stat_name(id.to_text().as_c_str()) {
        Err(Errno::NOENT) => return Ok(Outcome::Vanished),
        Err(error) => return Err(io_error("inspect session file", &place.file_path(id), error)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => return Ok(Outcome::Kept),
        Ok(stat) if !due(modification_time(&stat)) => return Ok(Outcome::Kept),
        Ok(stat) if age.is_none() && is_noted_alive(&stat) => return Ok(Outcome::Kept),
        Ok(_) => {}
    }
    let Some(file) = place.open_file(id, OFlags::RDONLY)? else { return Ok(Outcome::Vanished) };
    let stat = |file: &File| calls::stat(place, id, file);
    // The others are told by what they say of themselves, without their lock: a sweep runs with the lowest priority
    // that there is, and whoever waited for a lock that it holds would wait with that priority.
    let first = stat(&file)?;
    let promising = match glance(place, id, &file, &first)? {
        Seems::Alive { until } => {
            if age.is_none() {
                note_alive(&file, &first, until);
            }
            age.is_some()
        }
        // In the making.
        Seems::Blank => since(modification_time(&first)) >= LEFT_OVER,
        Seems::Otherwise => true,
    };
    if !promising {
        return Ok(Outcome::Kept);
    }
    let locked = lock::try_exclusive(&file);
    if !locked.map_err(|source| StoreError::Io { verb: "lock session file", path: place.file_path(id), source })? {
        // In use.
        return Ok(Outcome::Kept);
    }
    // Again, as only under the lock it stays true.
    let before = stat(&file)?;
    if before.st_nlink == 0 {
        return Ok(Outcome::Vanished);
    }
    let modified = modification_time(&before);
    let overdue = match (look::look(place, id, &file)?, age) {
        (Found::Session(..), None) => None,
        (Found::Session(..), Some(age)) => since(modified).checked_sub(age),
        (Found::Over(..), Some(age)) => Some(since(modified).saturating_sub(age)),
        (Found::Over(_, from), None) => Some(since(from)),
        (Found::Deleted, _) => Some(Duration::ZERO),
        (Found::Nothing, _) if !look::is_named(place, id) => return Ok(Outcome::Vanished),
        (Found::Nothing, _) => (since(modified) >= LEFT_OVER).then_some(Duration::ZERO),
    };
    let Some(overdue) = overdue else { return Ok(Outcome::Kept) };
    // A touch takes no lock: one that came while we looked has renewed the session.
    if modification_time(&stat(&file)?) != modified {
        return Ok(Outcome::Kept);
    }
    place.unlink(id)?;
    Ok(Outcome::Deleted { overdue })
}

/// What a file says of itself when its headers are read without a lock: a guess, to save the lock and the rest.
enum Seems {
    /// Whichever slot is current, the session is not over, and will not be before then.
    Alive { until: Millis },
    /// Nothing was completed in it.
    Blank,
    /// Over, deleted, damaged, half written, or of another time: only a look can tell.
    Otherwise,
}

fn glance(place: &Place, id: &Id, file: &File, stat: &Stat) -> Result<Seems, StoreError> {
    check_file(place, id, stat)?;
    if stat.st_size == 0 {
        return Ok(Seems::Blank);
    }
    let Some(capacity) = slot::capacity_of(stat.st_size.cast_unsigned()) else { return Ok(Seems::Otherwise) };
    let (modified, mut blanks, mut until) = (modification_time(stat), 0, Millis::MAX);
    // Cut just now, or unreadable: the look will say so.
    let Ok(Some(headers)) = calls::headers(file, capacity) else { return Ok(Seems::Otherwise) };
    for header in headers {
        match slot::glance(id, &header) {
            Glance::Blank => blanks += 1,
            Glance::Header(header) if !header.tombstone && !is_over(now(), modified, header.idle, header.ends) => {
                until = until.min(over_from(modified, header.idle, header.ends).unwrap_or(Millis::MAX));
            }
            Glance::Header(_) | Glance::Odd => return Ok(Seems::Otherwise),
        }
    }
    Ok(if blanks == 2 { Seems::Blank } else { Seems::Alive { until } })
}

/// Notes on the file until when its session is not over, so that the next sweep need not open it: as its access time, which
/// nobody else has a use for. Whoever changes that makes the sweep look again.
fn note_alive(file: &File, stat: &Stat, until: Millis) {
    let until = until.min(now().saturating_add(NOTED.as_millis() as Millis)) / 1000;
    let times = Timestamps {
        last_access: Timespec { tv_sec: until.cast_signed(), tv_nsec: tag(stat) },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    let _ = retry_on_intr(|| rustix::fs::futimens(file, &times));
}

/// Whether a sweep has noted that the session is not over before some time that is still to come.
fn is_noted_alive(stat: &Stat) -> bool {
    let until = u64::try_from(stat.st_atime).unwrap_or(0).saturating_mul(1000);
    let now = now();
    // A year: of a clock that was wrong nothing stays for ever.
    let is_near = (now..now + 12 * NOTED.as_millis() as Millis).contains(&until);
    is_near && stat.st_atime_nsec == tag(stat).cast_unsigned()
}

/// What makes a note that of one modification time: whoever saves or touches the session, or sets its time, makes it void.
fn tag(stat: &Stat) -> i64 {
    let time = stat.st_mtime.cast_unsigned().wrapping_mul(1_000_000_007) ^ stat.st_mtime_nsec;
    (time.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).cast_signed() % 1_000_000_000
}

/// What was set aside is kept for a week. Nothing else is removed by that name, and nothing keeps the sweep from the rest.
fn remove_old_damage(place: &Place, name: &CStr) {
    if !name.to_bytes().starts_with(b"damaged-") {
        return;
    }
    let failed = |verb, error| log!("sweep: {}", crate::error::Error::from(io_error(verb, &place.path, error)));
    let stat = match place.stat_name(name) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return,
        Err(error) => return failed("inspect damaged session file in", error),
    };
    let is_old = now().saturating_sub(modification_time(&stat)) >= DAMAGED.as_millis() as Millis;
    if !is_old || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return;
    }
    match retry_on_intr(|| rustix::fs::unlinkat(&place.descriptor, name, AtFlags::empty())) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => failed("delete damaged session file in", error),
    }
}

/// Every session that is not over.
pub(super) fn sessions(
    place: Arc<Place>,
) -> Result<impl Iterator<Item = Result<(Id, Stored), StoreError>>, StoreError> {
    let mut names = Names::open(&place)?;
    let entries = std::iter::from_fn(move || names.next().transpose());
    Ok(entries.filter_map(move |entry| match entry {
        Err(error) => Some(Err(error)),
        Ok(entry) => {
            let id = Id::parse(entry.name.to_str().ok()?)?;
            look::load(&place, &id, Memory::Own).transpose().map(|stored| Ok((id, stored?)))
        }
    }))
}

/// The names in the directory.
struct Names {
    /// A descriptor of our own, as the place in a listing belongs to the descriptor, and the lock does as well.
    directory: Dir,
    /// Where the next entry is.
    position: i64,
    path: PathBuf,
}

struct Entry {
    name: CString,
    /// Where the entry after it is.
    next: i64,
}

impl Names {
    fn open(place: &Place) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&place.descriptor, c".", flags, Mode::empty());
        let directory = retry_on_intr(open).and_then(Dir::new);
        let directory = directory.map_err(|error| io_error("list session directory", &place.path, error))?;
        Ok(Self { directory, position: 0, path: place.path.clone() })
    }

    /// Takes the directory's lock, unless somebody has it.
    fn lock(&self) -> Result<bool, StoreError> {
        let lock = || self.directory.fd().and_then(|fd| flock(fd, FlockOperation::NonBlockingLockExclusive));
        match retry_on_intr(lock) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(io_error("lock session directory", &self.path, error)),
        }
    }

    /// Goes on at a place that an entry named, or at the start if the directory does not know it.
    fn go_to(&mut self, position: i64) -> Result<(), StoreError> {
        self.position = position;
        match self.directory.seek(position).or_else(|_| self.directory.seek(0)) {
            Ok(()) => Ok(()),
            Err(error) => Err(io_error("list session directory", &self.path, error)),
        }
    }

    fn next(&mut self) -> Result<Option<Entry>, StoreError> {
        match self.directory.read() {
            None => Ok(None),
            Some(Ok(entry)) => {
                self.position = entry.offset();
                Ok(Some(Entry { name: entry.file_name().to_owned(), next: self.position }))
            }
            // After an error it gives nothing more before it has been told where to go on.
            Some(Err(Errno::INTR)) => {
                self.go_to(self.position)?;
                self.next()
            }
            Some(Err(error)) => Err(io_error("list session directory", &self.path, error)),
        }
    }
}
