//! Users and groups: looking them up, and becoming one for good.
//!
//! The names are those of the C library, so whatever it asks (`/etc/passwd`, or a name service) is asked here, too.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;

/// A user of the system's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) name: CString,
    /// The group that it has at login.
    pub(crate) group: u32,
}

/// What the database functions write their strings to; more than this is no user.
const LARGEST: usize = 1 << 20;

/// Calls a `get..._r` function with ever more room until it is content; `None`: there is no such entry.
fn look_up<T, R>(
    mut call: impl FnMut(*mut T, &mut [libc::c_char], *mut *mut T) -> libc::c_int,
    read: impl FnOnce(&T) -> R,
) -> io::Result<Option<R>> {
    let mut room = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::<T>::uninit();
        let mut found = std::ptr::null_mut();
        match call(entry.as_mut_ptr(), &mut room, &raw mut found) {
            0 if found.is_null() => return Ok(None),
            // SAFETY: it succeeded and says that `entry` has been written; its strings are in `room`, which lives on.
            0 => return Ok(Some(read(unsafe { entry.assume_init_ref() }))),
            libc::EINTR => {}
            libc::ERANGE if room.len() < LARGEST => room.resize(room.len() * 4, 0),
            // What "not found" looks like where a database is missing, see getpwnam(3).
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn read_user(entry: &libc::passwd) -> User {
    // SAFETY: the entry was found, so its name is a NUL-terminated string in a buffer that lives during this call.
    let name = unsafe { CStr::from_ptr(entry.pw_name) }.to_owned();
    User { id: entry.pw_uid, name, group: entry.pw_gid }
}

/// The user of this name.
pub(crate) fn by_name(name: &str) -> io::Result<Option<User>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    // SAFETY: all pointers are valid for the call, and the length is that of the buffer.
    let call = |entry, room: &mut [libc::c_char], found| unsafe {
        libc::getpwnam_r(name.as_ptr(), entry, room.as_mut_ptr(), room.len(), found)
    };
    look_up(call, read_user)
}

/// The user of this number.
pub(crate) fn by_id(id: u32) -> io::Result<Option<User>> {
    // SAFETY: all pointers are valid for the call, and the length is that of the buffer.
    let call = |entry, room: &mut [libc::c_char], found| unsafe {
        libc::getpwuid_r(id, entry, room.as_mut_ptr(), room.len(), found)
    };
    look_up(call, read_user)
}

/// The number of the group of this name.
pub(crate) fn group_by_name(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    // SAFETY: all pointers are valid for the call, and the length is that of the buffer.
    let call = |entry, room: &mut [libc::c_char], found| unsafe {
        libc::getgrnam_r(name.as_ptr(), entry, room.as_mut_ptr(), room.len(), found)
    };
    look_up(call, |entry: &libc::group| entry.gr_gid)
}

/// All groups that `user` is a member of, its own among them.
pub(crate) fn groups_of(user: &User) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).map_err(io::Error::other)?;
        // SAFETY: the name is NUL-terminated, and `count` is how many numbers there is room for.
        let result = unsafe { libc::getgrouplist(user.name.as_ptr(), user.group, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        // The kernel takes 65536.
        if groups.len() > 1 << 16 {
            return Err(io::Error::other("too many groups"));
        }
        groups.resize(count.max(groups.len() * 2), 0);
    }
}

/// The real, effective and saved user and group of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) users: [u32; 3],
    pub(crate) groups: [u32; 3],
}

impl Current {
    /// Whether all of them are these.
    pub(crate) fn is(&self, user: u32, group: u32) -> bool {
        self.users == [user; 3] && self.groups == [group; 3]
    }
}

/// Who this process is.
pub(crate) fn current() -> Current {
    let (mut users, mut groups) = ([0; 3], [0; 3]);
    let [real, effective, saved] = &mut users;
    // SAFETY: the pointers are valid for the call, which cannot fail then.
    unsafe { libc::getresuid(real, effective, saved) };
    let [real, effective, saved] = &mut groups;
    // SAFETY: as above.
    unsafe { libc::getresgid(real, effective, saved) };
    Current { users, groups }
}

/// The groups that this process has besides.
pub(crate) fn supplementary() -> Vec<u32> {
    rustix::process::getgroups().unwrap_or_default().into_iter().map(rustix::process::Gid::as_raw).collect()
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes this process run as `user` and `group`, with `groups` besides, and sees that it cannot go back.
///
/// # Errors
/// Where it may not, or could become root again. It may be half done then: the process must end.
pub(crate) fn become_for_good(user: u32, group: u32, groups: &[u32]) -> io::Result<()> {
    // The groups first: without root's privileges they could not be changed any more.
    // SAFETY: the pointer and the length belong together.
    check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
    // SAFETY: no preconditions; the C library changes all threads of the process.
    check(unsafe { libc::setresgid(group, group, group) })?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(user, user, user) })?;
    if !current().is(user, group) {
        return Err(io::Error::other("the system says that it was done, and it was not"));
    }
    // A system call that fails is the proof: a capability that was kept, or securebits, would let it succeed.
    // SAFETY: no preconditions.
    let back = user != 0 && (unsafe { libc::setuid(0) } == 0 || (group != 0 && unsafe { libc::setgid(0) } == 0));
    if back { Err(io::Error::other("it could be taken back")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_name_and_number() {
        let root = by_name("root").unwrap().unwrap();
        assert_eq!((root.id, root.group, root.name.as_c_str()), (0, 0, c"root"));
        assert_eq!(by_id(0).unwrap(), Some(root.clone()));
        assert_eq!(group_by_name("root").unwrap(), Some(0));
        assert!(groups_of(&root).unwrap().contains(&0));
    }

    #[test]
    fn who_is_not_there_is_not_found() {
        for name in ["no such user", "", "a\0b"] {
            assert_eq!(by_name(name).unwrap(), None, "{name:?}");
            assert_eq!(group_by_name(name).unwrap(), None, "{name:?}");
        }
        assert_eq!(by_id(4_000_000_001).unwrap(), None);
    }

    #[test]
    fn this_process_is_somebody() {
        let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        assert!(current().is(user, group) && !current().is(user + 1, group));
    }
}
