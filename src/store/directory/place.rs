//! The directory itself: opened once per process, checked before it is trusted.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use crate::session::{Id, StoreError};
use crate::sys::signal;

/// The open directory. Everything in it is named relative to its descriptor.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) descriptor: OwnedFd,
    pub(super) owner: u32,
}

impl Place {
    /// Opens the directory, creating it (not its parents) if it is missing, and checks that it is ours alone.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        // A file that may not become so large is to be an error, not the end of the process.
        signal::ignore_file_size();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |more| retry_on_intr(|| rustix::fs::open(path, flags | more, Mode::empty()));
        let owner = rustix::process::geteuid().as_raw();
        let unsuitable = |reason| StoreError::Unsuitable { path: path.to_owned(), reason };
        let descriptor = match open(OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => {
                match retry_on_intr(|| rustix::fs::mkdir(path, Mode::RWXU)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(io_error("create session directory", path, error)),
                }
                open(OFlags::NOFOLLOW)
            }
            // A link is followed where we or root made it. Whoever else may write beside the directory could lead us to
            // any other one of ours.
            Err(Errno::LOOP | Errno::NOTDIR) => match link_owner(path) {
                Some(theirs) if theirs != owner && theirs != 0 => {
                    return Err(unsuitable(format!("it is a link that user {theirs} has made")));
                }
                _ => open(OFlags::empty()),
            },
            result => result,
        }
        .map_err(|error| io_error("open session directory", path, error))?;
        let stat = retry_on_intr(|| rustix::fs::fstat(&descriptor))
            .map_err(|error| io_error("inspect session directory", path, error))?;
        if stat.st_uid != owner {
            let theirs = stat.st_uid;
            return Err(unsuitable(format!(
                "the directory belongs to user {theirs}, this process runs as user {owner}"
            )));
        }
        if stat.st_mode & 0o022 != 0 {
            let mode = stat.st_mode & 0o7777;
            return Err(unsuitable(format!("others may write to it (mode {mode:04o}); chmod 700 it")));
        }
        if stat.st_mode & 0o044 != 0 {
            // The names in it are the session IDs, and whoever has an ID has the session.
            let mode = stat.st_mode & 0o7777;
            return Err(unsuitable(format!("others may list the session IDs in it (mode {mode:04o}); chmod 700 it")));
        }
        Ok(Self { path: path.to_owned(), descriptor, owner })
    }

    /// Refuses file systems whose locks do not do what the store relies on (flock(2), NFS and CIFS details).
    pub(super) fn check_file_system(&self) -> Result<(), StoreError> {
        let kind = retry_on_intr(|| rustix::fs::fstatfs(&self.descriptor))
            .map_err(|error| io_error("inspect file system of", &self.path, error))?
            .f_type;
        match unreliable_file_system(kind.cast_unsigned() & 0xffff_ffff) {
            None => Ok(()),
            Some(reason) => Err(StoreError::Unsuitable {
                path: self.path.clone(),
                reason: format!(
                    "{reason}; use a local file system, or DirectoryStore::on_any_file_system if you know better"
                ),
            }),
        }
    }

    /// Opens the file of a session; `None` if there is none.
    pub(super) fn open_file(&self, id: &Id, access: OFlags) -> Result<Option<File>, StoreError> {
        // NOFOLLOW against planted links, NONBLOCK against planted FIFOs.
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let name = id.to_text();
        let open =
            |flags| retry_on_intr(|| rustix::fs::openat(&self.descriptor, name.as_c_str(), flags, Mode::empty()));
        // NOATIME: a read that follows a write would write an access time. Only the owner may do that; who is not is refused
        // in a moment, for a better reason.
        let opened = match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags),
            other => other,
        };
        match opened {
            Ok(descriptor) => Ok(Some(File::from(descriptor))),
            Err(Errno::NOENT) => Ok(None),
            Err(error @ (Errno::LOOP | Errno::ISDIR | Errno::NXIO)) => {
                Err(StoreError::Untrusted { path: self.file_path(id), reason: format!("not a regular file ({error})") })
            }
            Err(error) => Err(io_error("open session file", &self.file_path(id), error)),
        }
    }

    /// Creates the file of a session, which must not exist.
    pub(super) fn create_file(&self, id: &Id) -> Result<File, StoreError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let open = || rustix::fs::openat(&self.descriptor, id.to_text().as_c_str(), flags, Mode::RUSR | Mode::WUSR);
        match retry_on_intr(open) {
            Ok(descriptor) => Ok(File::from(descriptor)),
            Err(Errno::EXIST) => Err(StoreError::Exists),
            Err(error) => Err(io_error("create session file", &self.file_path(id), error)),
        }
    }

    pub(super) fn unlink(&self, id: &Id) -> Result<(), StoreError> {
        match retry_on_intr(|| rustix::fs::unlinkat(&self.descriptor, id.to_text().as_c_str(), AtFlags::empty())) {
            // Somebody else was first; what counts is that it is gone.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io_error("delete session file", &self.file_path(id), error)),
        }
    }

    /// What stands under a name, links not followed.
    pub(super) fn stat_name(&self, name: impl rustix::path::Arg + Copy) -> rustix::io::Result<Stat> {
        retry_on_intr(|| rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// Makes creations and deletions in the directory survive a power cut.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        retry_on_intr(|| rustix::fs::fsync(&self.descriptor))
            .map_err(|error| io_error("sync session directory", &self.path, error))
    }

    /// The path of a session's file for messages: without most of its ID, which is a secret.
    pub(super) fn file_path(&self, id: &Id) -> PathBuf {
        self.path.join(format!("{}…", &id.to_text()[..6]))
    }
}

/// Whose link this is, if it is one.
fn link_owner(path: &Path) -> Option<u32> {
    let stat = rustix::fs::lstat(path).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::Symlink).then_some(stat.st_uid)
}

/// Tells whether a file is one that this system made.
pub(super) fn check_file(place: &Place, id: &Id, stat: &Stat) -> Result<(), StoreError> {
    distrust(place, stat).map_or(Ok(()), |reason| Err(StoreError::Untrusted { path: place.file_path(id), reason }))
}

/// Why a file cannot be one that this system made.
pub(super) fn distrust(place: &Place, stat: &Stat) -> Option<String> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        Some("not a regular file".into())
    } else if stat.st_uid != place.owner {
        Some(format!("it belongs to user {}, not to user {}", stat.st_uid, place.owner))
    } else if stat.st_mode & 0o077 != 0 {
        Some(format!("others have access (mode {:04o})", stat.st_mode & 0o7777))
    } else if stat.st_nlink > 1 {
        Some("it has a second name (hard link)".into())
    } else {
        None
    }
}

pub(super) fn io_error(verb: &'static str, path: &Path, error: Errno) -> StoreError {
    StoreError::Io { verb, path: path.to_owned(), source: io::Error::from(error) }
}

/// Why sessions cannot be relied on there, by the magic number of statfs(2).
fn unreliable_file_system(kind: u64) -> Option<&'static str> {
    match kind {
        0x6969 => Some("NFS emulates file locks, and they fail with the server"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => Some("on CIFS/SMB file locks are mandatory, so lock-free reads fail"),
        0x6573_5546 => Some("a FUSE file system may have no file locks that other processes see"),
        0x0102_1997 => Some("9P has no reliable file locks"),
        0x5346_414f => Some("AFS has no reliable file locks"),
        0x7375_7245 => Some("Coda has no reliable file locks"),
        0x564c => Some("NCP has no reliable file locks"),
        0x4d44 | 0x2011_bab0 => Some("FAT has neither owners nor modes"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_refused_and_local_ones_are_not() {
        for (kind, refused) in [
            (0x6969, true),
            (0xff53_4d42, true),
            (0xfe53_4d42, true),
            (0x517b, true),
            (0x6573_5546, true),
            (0x0102_1997, true),
            (0x5346_414f, true),
            (0x7375_7245, true),
            (0x564c, true),
            (0x4d44, true),
            (0x2011_bab0, true),
            (0xef53, false),
            (0x0102_1994, false),
            (0x5846_5342, false),
            (0x9123_683e, false),
        ] {
            assert_eq!(unreliable_file_system(kind).is_some(), refused, "{kind:#x}");
        }
    }
}
