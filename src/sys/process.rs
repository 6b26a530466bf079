//! Processes: fork, reap, kill, and an end without unwinding.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rustix::process::{Pid, Signal, WaitOptions};

/// What a child whose code panicked exits with.
pub(crate) const EXIT_PANIC: i32 = 101;

/// Which side of a fork one is on.
enum Fork {
    Child,
    Parent(Pid),
}

/// Duplicates this process.
///
/// # Safety
/// No other thread may be running: the child has a copy of its locks and data as they were in the middle of whatever
/// it did. A debug build asserts it.
unsafe fn fork() -> io::Result<Fork> {
    debug_assert!(threads().is_none_or(|threads| threads == 1), "fork with more than one thread");
    // SAFETY: the caller promises that this is the only thread, so the child may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(Pid::from_raw(pid).expect("fork returns a positive process ID"))),
    }
}

/// Starts a child process that runs `child` and exits with what it returns; with [`EXIT_PANIC`] if it panics.
///
/// # Errors
/// Where this process has more than one thread, and where the system cannot fork. Where `/proc` is not mounted the
/// threads cannot be counted, and the caller's word is taken for it.
pub(crate) fn spawn(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    if threads().is_some_and(|threads| threads > 1) {
        return Err(io::Error::other("the process has more than one thread; start threads in the workers only"));
    }
    // SAFETY: this is the only thread, as counted just now; nobody else is there who could start another.
    match unsafe { fork() }? {
        Fork::Parent(pid) => Ok(pid),
        // A panic must not unwind into the parent's stack frames, which the child has a copy of.
        Fork::Child => exit_now(catch_unwind(AssertUnwindSafe(child)).unwrap_or(EXIT_PANIC)),
    }
}

/// Becomes another program, with these arguments (its name first) and this environment (`NAME=VALUE`); returns only if
/// that fails. Unlike `std::process::Command`'s exec it leaves the signal mask as it is.
pub(crate) fn execute(path: &Path, arguments: &[OsString], environment: &[OsString]) -> io::Error {
    let text = |text: &OsStr| CString::new(text.as_bytes());
    let texts = |texts: &[OsString]| texts.iter().map(|word| text(word)).collect::<Result<Vec<_>, _>>();
    let all = (text(path.as_os_str()), texts(arguments), texts(environment));
    let (Ok(path), Ok(arguments), Ok(environment)) = all else { return io::ErrorKind::InvalidInput.into() };
    let pointers =
        |texts: &[CString]| texts.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // SAFETY: all are NUL-terminated and live until the call returns, and both lists end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// How many threads this process has, where `/proc` can tell.
pub(crate) fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

/// Ends the process here: no unwinding, no destructors, no `atexit` functions.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no preconditions and does not return.
    unsafe { libc::_exit(status) }
}

/// The ID of this process.
pub(crate) fn id() -> Pid {
    rustix::process::getpid()
}

/// The ID of the process that started this one, or of whoever has taken its place.
pub(crate) fn parent() -> Option<Pid> {
    rustix::process::getppid()
}

/// How a child process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// It exited with this status.
    Exited(i32),
    /// It was killed by this signal.
    Killed(i32),
}

/// What has become of a child process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It has ended.
    Ended(Death),
    /// It was stopped by this signal, and lives.
    Stopped(i32),
    /// It goes on.
    Continued,
}

/// Takes the next child that has ended, was stopped or goes on, if there is one; does not wait.
pub(crate) fn reap() -> Option<(Pid, Change)> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
            Ok(Some((pid, status))) => {
                if let Some(code) = status.exit_status() {
                    return Some((pid, Change::Ended(Death::Exited(code))));
                }
                if let Some(signal) = status.terminating_signal() {
                    return Some((pid, Change::Ended(Death::Killed(signal))));
                }
                return Some((pid, status.stopping_signal().map_or(Change::Continued, Change::Stopped)));
            }
            Err(rustix::io::Errno::INTR) => {}
            // Nobody has ended, or (ECHILD) there are no children.
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Sends `signal` to a child that has not been reaped. A child that is dead already is no error.
pub(crate) fn kill(pid: Pid, signal: Signal) {
    // ESRCH is the only failure that a parent can meet, and it means that the goal is reached.
    let _ = rustix::process::kill_process(pid, signal);
}

/// Has the kernel send `signal` to this process when its parent dies. False where the parent is dead already.
pub(crate) fn signal_when_parent_dies(parent: Pid, signal: Signal) -> bool {
    let set = rustix::process::set_parent_process_death_signal(Some(signal)).is_ok();
    // The parent may have died between fork and the call above; then somebody else is the parent by now.
    set && self::parent() == Some(parent)
}

/// Lets every other process go first, at the processor and at the disk, from now on. Where that is not allowed (a
/// filter of system calls) it is done without.
pub(crate) fn give_way() {
    const WHO_PROCESS: libc::c_long = 1;
    const CLASS_IDLE: libc::c_long = 3 << 13;
    // SAFETY: three integers; 0 is this process. Nothing in memory is touched.
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) };
    let _ = rustix::process::setpriority_process(None, 19);
}

#[cfg(test)]
mod tests {
    use super::*;

    // The test harness runs threads, so nothing here may call spawn: it would refuse, which is what is tested.
    #[test]
    fn refuses_to_fork_with_threads() {
        if threads().is_some_and(|threads| threads > 1) {
            assert!(spawn(|| 0).is_err());
        }
    }
}
