//! Signals: handlers that only write a byte to a pipe, so that a loop can wait for signals as for anything else.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
pub(crate) use rustix::process::Signal;

/// What a signal does from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It arrives in the pipe. Interrupted system calls fail with EINTR.
    Tell,
    /// It arrives in the pipe and sets [`asked_to_leave`]; the process is killed if it does not leave in the time set
    /// with [`leave_within`]. System calls of the application go on as if nothing had happened.
    Leave,
    /// The request at work is given up, see [`deadline`](super::deadline).
    GiveUp,
    /// It arrives in the pipe and is remembered for [`asked_to_reopen`]. System calls of the application go on.
    Reopen,
    /// Nothing. Unlike `SIG_IGN`, it is not inherited by programs that this process executes.
    Nothing,
    /// `SIG_IGN`.
    Ignore,
    /// `SIG_DFL`.
    Default,
}

/// The pipe's end for the handlers, and the flag for loops that do not want to ask the pipe each time.
static WRITER: AtomicI32 = AtomicI32::new(-1);
static LEAVE: AtomicBool = AtomicBool::new(false);
static REOPEN: AtomicBool = AtomicBool::new(false);
/// The timer that `Leave` starts, plus one, and its milliseconds; 0: none.
static LEAVE_TIMER: AtomicU64 = AtomicU64::new(0);
static LEAVE_MILLIS: AtomicU64 = AtomicU64::new(0);

/// From now on a write beyond the process's file size limit fails with EFBIG instead of ending the process.
pub(crate) fn ignore_file_size() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // Where it cannot be set, the limit ends the process as it did before.
    ONCE.call_once(|| _ = set(Signal::XFSZ, Action::Ignore));
}

/// From now on a write to a pipe or a socket that nobody reads fails with EPIPE instead of ending the process.
pub(crate) fn ignore_broken_pipes() {
    let _ = set(Signal::PIPE, Action::Ignore);
}

/// The pipe's end for the loop.
pub(crate) struct Signals {
    reader: OwnedFd,
    // Closed together with the reader; the handlers have its number.
    writer: OwnedFd,
}

impl Signals {
    /// Makes the pipe and sets what each signal does. After a fork the child calls it again, for a pipe of its own.
    pub(crate) fn install(actions: &[(Signal, Action)]) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        WRITER.store(writer.as_raw_fd(), Relaxed);
        LEAVE.store(false, Relaxed);
        REOPEN.store(false, Relaxed);
        // A timer of the parent is not there in the child.
        LEAVE_TIMER.store(0, Relaxed);
        for &(signal, action) in actions {
            set(signal, action)?;
        }
        Ok(Self { reader, writer })
    }

    /// The next signal that arrived, if one did. Does not wait; wait for its descriptor to become readable.
    pub(crate) fn next(&self) -> Option<Signal> {
        let mut byte = [0u8];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.reader, &mut byte)) {
            Ok(1) => Signal::from_named_raw(i32::from(byte[0])),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // A handler must not write into whatever gets this number next. After a fork there is a newer pipe.
        let _ = WRITER.compare_exchange(self.writer.as_raw_fd(), -1, Relaxed, Relaxed);
    }
}

/// Whether a signal with [`Action::Leave`] came.
pub(crate) fn asked_to_leave() -> bool {
    LEAVE.load(Relaxed)
}

/// Whether a signal with [`Action::Reopen`] came since this was last asked.
pub(crate) fn asked_to_reopen() -> bool {
    REOPEN.load(Relaxed) && REOPEN.swap(false, Relaxed)
}

/// Sets how long this process has from a signal with [`Action::Leave`] on before the kernel kills it, whoever else may
/// be there or not to do it. A child does not inherit it.
pub(crate) fn leave_within(time: Duration) -> io::Result<()> {
    // SAFETY: zeros are a valid sigevent.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    let mut timer = MaybeUninit::<libc::timer_t>::uninit();
    // SAFETY: both pointers are valid for the call.
    if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, timer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: timer_create succeeded and has written it.
    let timer = unsafe { timer.assume_init() };
    LEAVE_MILLIS.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1), Relaxed);
    LEAVE_TIMER.store((timer as usize as u64).wrapping_add(1), Relaxed);
    Ok(())
}

extern "C" fn tell(signal: libc::c_int) {
    // SAFETY: errno is this thread's own; it is put back, so that the interrupted code does not see it change.
    let errno = unsafe { *libc::__errno_location() };
    let writer = WRITER.load(Relaxed);
    if writer >= 0 {
        let byte = signal.cast_unsigned() as u8;
        // SAFETY: one byte from a live variable. A full pipe has 64 Ki signals in it that were not looked at yet.
        unsafe { libc::write(writer, (&raw const byte).cast(), 1) };
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

extern "C" fn leave(signal: libc::c_int) {
    let first = !LEAVE.swap(true, Relaxed);
    let timer = LEAVE_TIMER.load(Relaxed);
    if first && timer != 0 {
        let millis = LEAVE_MILLIS.load(Relaxed);
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::timespec {
            tv_sec: (millis / 1000).try_into().unwrap_or(i32::MAX.into()),
            tv_nsec: ((millis % 1000) * 1_000_000).cast_signed(),
        };
        let when = libc::itimerspec { it_interval: none, it_value: value };
        let timer = timer.wrapping_sub(1) as usize as libc::timer_t;
        // SAFETY: the timer was made by timer_create in this process (`install` forgets it after a fork) and is never
        // deleted; timer_settime is async-signal-safe. It fails only for arguments that are not used here.
        unsafe { libc::timer_settime(timer, 0, &raw const when, std::ptr::null_mut()) };
    }
    tell(signal);
}

extern "C" fn reopen(signal: libc::c_int) {
    REOPEN.store(true, Relaxed);
    tell(signal);
}

extern "C" fn nothing(_signal: libc::c_int) {}

/// Sets what `signal` does.
pub(crate) fn set(signal: Signal, action: Action) -> io::Result<()> {
    let (handler, flags) = match action {
        Action::Tell => (tell as extern "C" fn(libc::c_int) as libc::sighandler_t, 0),
        Action::Leave => (leave as extern "C" fn(libc::c_int) as libc::sighandler_t, libc::SA_RESTART),
        Action::Reopen => (reopen as extern "C" fn(libc::c_int) as libc::sighandler_t, libc::SA_RESTART),
        Action::GiveUp => {
            (super::deadline::handler as extern "C" fn(libc::c_int) as libc::sighandler_t, libc::SA_RESTART)
        }
        Action::Nothing => (nothing as extern "C" fn(libc::c_int) as libc::sighandler_t, libc::SA_RESTART),
        Action::Ignore => (libc::SIG_IGN, 0),
        Action::Default => (libc::SIG_DFL, 0),
    };
    // SAFETY: zeros are a valid sigaction: no flags, an empty mask.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    // SAFETY: the pointers are valid for the call, and every handler above is async-signal-safe: atomics, write,
    // timer_settime, send, recv, shutdown, _exit.
    if unsafe { libc::sigaction(signal.as_raw(), &raw const new, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has every signal that has a handler do what it does by default again: for a child that has no loop to tell. What is
/// ignored stays so.
pub(crate) fn restore_defaults() {
    for signal in 1..32 {
        // SAFETY: zeros are a valid sigaction: no flags, an empty mask, SIG_DFL.
        let (mut old, default): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
        // SAFETY: the pointers are valid for the calls; with a null pointer nothing is changed.
        let has_handler = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut old) } == 0
            && ![libc::SIG_DFL, libc::SIG_IGN].contains(&old.sa_sigaction);
        if has_handler {
            // SAFETY: as above. It fails for KILL and STOP only, and those have no handlers.
            unsafe { libc::sigaction(signal, &raw const default, std::ptr::null_mut()) };
        }
    }
}

/// Every signal is held back while this exists: between a fork and the child's own handlers.
pub(crate) struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    /// Holds back every signal that can be.
    pub(crate) fn all() -> Self {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset initialises `all`; sigprocmask cannot fail with these arguments and writes `before`.
        let before = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            before.assume_init()
        };
        Self { before }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` is a valid set, from sigprocmask.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// Every signal that can be has its default action, but for those that are ignored: before another program is executed.
pub(crate) fn all_default() {
    for number in 1..=libc::SIGRTMAX() {
        let mut before = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: sigaction fills `before` where it succeeds, which is looked at only then; zeros are a valid sigaction,
        // SIG_DFL. It fails for KILL, STOP and numbers that the C library keeps to itself.
        unsafe {
            if libc::sigaction(number, std::ptr::null(), before.as_mut_ptr()) != 0 {
                continue;
            }
            if before.assume_init().sa_sigaction != libc::SIG_IGN {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(number, &raw const default, std::ptr::null_mut());
            }
        }
    }
}

/// Lets every signal through: whoever started us may have left some held back, and that survives exec.
pub(crate) fn unblock_all() {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises `none`, and sigprocmask only reads it.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}
