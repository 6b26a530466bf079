//! Who the program runs as, and what it can no longer do from then on.
//!
//! All of it happens in the master, between the opening of the listeners and the first worker, so that there is nobody
//! left who could be root.

use std::ffi::CString;
use std::fmt;
use std::io;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::options::Options;
use crate::sys::log::log;
use crate::sys::{process, user};

/// Why the program cannot run as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivilegeError {
    #[error("{flag}: there is no {kind} {name:?} on this system")]
    Unknown { flag: &'static str, kind: &'static str, name: String },
    #[error("{flag}: look up {kind} {name:?}: {source}")]
    LookUp { flag: &'static str, kind: &'static str, name: String, source: io::Error },
    #[error("--user: user {0} has no entry on this system, so its group is not known: name one with --group")]
    NoGroup(u32),
    #[error(
        "cannot run as {wanted} (--user, --group): this process is user {user}, group {group}, and only root can change that"
    )]
    NotRoot { wanted: Identity, user: u32, group: u32 },
    #[error(
        "cannot become {0} (--user, --group) at a reload, as workers of the old user could not be told to leave: restart"
    )]
    Reload(Identity),
    #[error("cannot run as {wanted} (--user, --group): {source}")]
    Refused { wanted: Identity, source: io::Error },
    #[error("cannot give up the right to gain privileges: {0}")]
    NoNewPrivileges(io::Error),
}

/// The number of the user that `--socket-owner` or a similar flag names.
pub(crate) fn user_id(flag: &'static str, name: &str) -> Result<u32, PrivilegeError> {
    Ok(find_user(flag, name)?.0)
}

/// A user by number or name, with its entry where there is one: a number needs none.
fn find_user(flag: &'static str, name: &str) -> Result<(u32, Option<user::User>), PrivilegeError> {
    let failed = |source| PrivilegeError::LookUp { flag, kind: "user", name: name.to_owned(), source };
    if let Some(id) = number(name) {
        return Ok((id, user::by_id(id).map_err(failed)?));
    }
    let entry = user::by_name(name).map_err(failed)?;
    let entry = entry.ok_or_else(|| PrivilegeError::Unknown { flag, kind: "user", name: name.to_owned() })?;
    Ok((entry.id, Some(entry)))
}

/// The number of the group that `flag` names.
pub(crate) fn group_id(flag: &'static str, name: &str) -> Result<u32, PrivilegeError> {
    if let Some(id) = number(name) {
        return Ok(id);
    }
    let failed = |source| PrivilegeError::LookUp { flag, kind: "group", name: name.to_owned(), source };
    let group = user::group_by_name(name).map_err(failed)?;
    group.ok_or_else(|| PrivilegeError::Unknown { flag, kind: "group", name: name.to_owned() })
}

/// The largest number means "no change" to the kernel, so it is nobody's.
fn number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|id| *id != u32::MAX)
}

/// A user with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    user: u32,
    group: u32,
    groups: Vec<u32>,
    name: Option<CString>,
}

impl Identity {
    /// Whom `--user` and `--group` name; `None` where neither is given.
    pub(crate) fn wanted(options: &Options) -> Result<Option<Self>, PrivilegeError> {
        if options.user.is_none() && options.group.is_none() {
            return Ok(None);
        }
        let named = options.group.as_deref().map(|name| group_id("--group", name)).transpose()?;
        let (user, entry) = match &options.user {
            Some(name) => find_user("--user", name)?,
            None => (user::current().users[1], None),
        };
        let (group, groups) = match (named, &entry) {
            // The group that was named and no other: it is less, and it is what was said.
            (Some(group), _) => (group, vec![group]),
            (None, Some(entry)) => {
                let failed = |source| PrivilegeError::LookUp {
                    flag: "--user",
                    kind: "groups of user",
                    name: entry.name.to_string_lossy().into_owned(),
                    source,
                };
                (entry.group, user::groups_of(entry).map_err(failed)?)
            }
            (None, None) => return Err(PrivilegeError::NoGroup(user)),
        };
        Ok(Some(Self { user, group, groups, name: entry.map(|entry| entry.name) }))
    }

    /// Whether this process is it already: whoever started it has seen to it, or it was the program before a reload.
    fn is_current(&self) -> bool {
        user::current().is(self.user, self.group)
    }

    /// Whether this process can become it, as far as that can be told before it is tried.
    pub(crate) fn check(self) -> Result<Self, PrivilegeError> {
        let [_, user, _] = user::current().users;
        if user == 0 || self.is_current() {
            return Ok(self);
        }
        Err(PrivilegeError::NotRoot { wanted: self, user, group: user::current().groups[1] })
    }

    /// Makes this process run as it, for good.
    pub(crate) fn assume(self) -> Result<(), PrivilegeError> {
        let this = self.check()?;
        if this.is_current() && user::current().users[1] != 0 {
            return Ok(());
        }
        if let Err(source) = user::become_for_good(this.user, this.group, &this.groups) {
            return Err(PrivilegeError::Refused { wanted: this, source });
        }
        // With a change of user the kernel closes a process to others of the same user, as its memory may hold what only
        // root could read. Then the master could no longer look into its own workers, take an overdue request's
        // connection from a stopped one and answer it. What was read as root here is the workers' to use, so it is not
        // kept from that user anyway; and from execve(2) on, at a reload or where the service manager has changed the
        // user, a process is open in the same way.
        if let Err(errno) = set_dumpable_behavior(DumpableBehavior::Dumpable) {
            log!("cannot make this process visible to its own user: {errno}; stopped workers are killed without a 504");
        }
        Ok(())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.user)?;
        if let Some(name) = &self.name {
            write!(f, " ({})", name.to_string_lossy())?;
        }
        write!(f, ", group {}", self.group)?;
        let others: Vec<_> = self.groups.iter().filter(|group| **group != self.group).map(u32::to_string).collect();
        if others.is_empty() { Ok(()) } else { write!(f, ", also in {}", others.join(" ")) }
    }
}

/// Makes this process what the options say: its user and groups, its umask, what it may gain. In the program that a
/// reload tries out as well, so that what it cannot be it does not become. `reload`: there are workers already.
pub(crate) fn settle(options: &Options, reload: bool) -> Result<(), PrivilegeError> {
    match Identity::wanted(options)? {
        None => {}
        Some(wanted) if !reload => wanted.assume()?,
        Some(wanted) if wanted.is_current() => {}
        Some(wanted) => return Err(PrivilegeError::Reload(wanted)),
    }
    rustix::process::umask(Mode::from_raw_mode(options.umask));
    if !options.allow_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|errno| PrivilegeError::NoNewPrivileges(errno.into()))?;
    } else if rustix::thread::no_new_privs().unwrap_or(false) {
        log!(
            "master pid={} cannot have --allow-new-privileges: whoever started it has ruled that out",
            process::id().as_raw_nonzero()
        );
    }
    Ok(())
}

/// Whether the workers would run as root.
pub(crate) fn stays_root(options: &Options) -> bool {
    match Identity::wanted(options) {
        Ok(Some(wanted)) => wanted.user == 0,
        Ok(None) => user::current().users.contains(&0),
        // It does not start at all.
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(arguments: &str) -> Result<Option<Identity>, PrivilegeError> {
        Identity::wanted(&Options::try_from_args(arguments.split(' ').map(str::to_owned)).unwrap())
    }

    #[test]
    fn names_and_numbers_are_the_same() {
        assert_eq!(wanted("c").unwrap(), None);
        let root = wanted("c --user root").unwrap().unwrap();
        assert_eq!(wanted("c --user 0").unwrap().unwrap(), root);
        assert!(root.to_string().starts_with("user 0 (root), group 0"), "{root}");
        let other = wanted("c --user 0 --group 4321").unwrap().unwrap();
        assert_eq!((other.group, other.groups.as_slice()), (4321, &[4321][..]));
        assert_eq!(wanted("c --user 4000000001 --group 7").unwrap().unwrap().to_string(), "user 4000000001, group 7");
    }

    #[test]
    fn mistakes_name_the_flag() {
        for (arguments, text) in [
            ("c --user nosuchuser", "--user: there is no user \"nosuchuser\" on this system"),
            ("c --user -1", "--user: there is no user \"-1\""),
            ("c --user 4294967295", "--user: there is no user \"4294967295\""),
            ("c --group nosuchgroup", "--group: there is no group \"nosuchgroup\" on this system"),
            ("c --user 4000000001", "--user: user 4000000001 has no entry"),
        ] {
            let error = wanted(arguments).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
