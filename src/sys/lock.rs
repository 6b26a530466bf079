//! flock(2) with a deadline.
//!
//! A waiter sleeps in the kernel's own queue, so a released lock wakes it at once and in turn; a POSIX timer aimed at
//! the waiting thread interrupts the call at the deadline. The kernel frees a lock when its holder dies.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::ptr;
use std::sync::Once;
use std::time::{Duration, Instant};

use fs2::FileExt as _;

/// Takes the exclusive lock of `file` if nobody holds it. `false`: somebody does.
pub(crate) fn try_exclusive(file: &File) -> io::Result<bool> {
    loop {
        match file.try_lock_exclusive() {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Takes the exclusive lock of `file`, waiting in turn for at most `wait`. `false`: the time is over.
pub(crate) fn exclusive(file: &File, wait: Duration) -> io::Result<bool> {
    // Nearly always nobody is there, and then no timer is needed.
    if try_exclusive(file)? {
        return Ok(true);
    }
    if wait.is_zero() {
        return Ok(false);
    }
    // More than a century is for ever, and does not overflow.
    let wait = wait.min(Duration::from_secs(100 * 365 * 24 * 3600));
    let deadline = Instant::now() + wait;
    ALARM.with_borrow_mut(|alarm| match alarm.arm(wait) {
        Ok(()) => {
            let locked = sleep_in_queue(file, deadline);
            alarm.disarm();
            locked
        }
        // No timer to be had (RLIMIT_SIGPENDING): poll. Fairness is lost, exactness is not.
        Err(_) => poll(file, deadline),
    })
}

fn sleep_in_queue(file: &File, deadline: Instant) -> io::Result<bool> {
    loop {
        match file.lock_exclusive() {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Err(_) if Instant::now() >= deadline => return Ok(false),
            // Some other signal.
            Err(_) => {}
        }
    }
}

fn poll(file: &File, deadline: Instant) -> io::Result<bool> {
    let mut pause = Duration::from_millis(1);
    loop {
        if try_exclusive(file)? {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 3 / 2).min(Duration::from_millis(10));
    }
}

thread_local! {
    static ALARM: RefCell<Alarm> = const { RefCell::new(Alarm { timer: None }) };
}

/// A timer that interrupts the thread it belongs to.
struct Alarm {
    /// The timer and the process that made it: timers are not inherited over fork.
    timer: Option<(libc::timer_t, u32)>,
}

impl Alarm {
    /// Interrupts this thread after `wait`, and again every 5 ms: the signal may come just before flock(2) is entered,
    /// and would then be missed.
    fn arm(&mut self, wait: Duration) -> io::Result<()> {
        self.set(wait, Duration::from_millis(5))
    }

    fn disarm(&mut self) {
        // A timer that exists can be set; one that cannot has died with its process.
        let _ = self.set(Duration::ZERO, Duration::ZERO);
    }

    fn set(&mut self, first: Duration, interval: Duration) -> io::Result<()> {
        let timer = match self.timer {
            Some((timer, pid)) if pid == std::process::id() => timer,
            _ => create()?,
        };
        self.timer = Some((timer, std::process::id()));
        let setting = libc::itimerspec { it_interval: timespec(interval), it_value: timespec(first) };
        // SAFETY: `timer` was made by timer_create in this process and is deleted only in drop; `setting` is a valid
        // itimerspec, and the old value is not asked for.
        cerr(unsafe { libc::timer_settime(timer, 0, &raw const setting, ptr::null_mut()) })
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some((timer, pid)) = self.timer
            && pid == std::process::id()
        {
            // SAFETY: the timer was made in this process and nobody else knows it.
            unsafe { libc::timer_delete(timer) };
        }
    }
}

/// The signal: of the real-time ones, as nobody else in the process waits for it. Its handler does nothing; that it
/// comes is enough.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 5
}

extern "C" fn ignore(_signal: libc::c_int) {}

fn create() -> io::Result<libc::timer_t> {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // SAFETY: all-zero bytes are a valid sigaction: no flags (so that flock is interrupted rather than restarted)
        // and an empty mask; the handler calls nothing, so it is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
            libc::sigaction(signal(), &raw const action, ptr::null_mut());
        }
    });
    // Whoever started this thread may have left the signal blocked.
    // SAFETY: sigemptyset initialises the set, and the calls only use it.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
    let mut timer = MaybeUninit::<libc::timer_t>::uninit();
    // SAFETY: all-zero bytes are a valid sigevent, and the fields that SIGEV_THREAD_ID needs are set: the signal and a
    // thread of this process, the calling one. timer_create fills `timer` when it returns 0.
    unsafe {
        let mut event: libc::sigevent = zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal();
        event.sigev_notify_thread_id = libc::gettid();
        cerr(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, timer.as_mut_ptr()))?;
        Ok(timer.assume_init())
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i32::MAX.into()),
        tv_nsec: libc::c_long::from(duration.subsec_nanos().cast_signed()),
    }
}

fn cerr(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (File, File, tempfile::NamedTempFile) {
        let path = tempfile::NamedTempFile::new().unwrap();
        (File::open(path.path()).unwrap(), File::open(path.path()).unwrap(), path)
    }

    #[test]
    fn the_deadline_is_kept() {
        let (holder, waiter, _path) = pair();
        assert!(try_exclusive(&holder).unwrap());
        assert!(!try_exclusive(&waiter).unwrap());
        for wait in [1, 20, 200] {
            let start = Instant::now();
            assert!(!exclusive(&waiter, Duration::from_millis(wait)).unwrap());
            assert!(start.elapsed() >= Duration::from_millis(wait), "gave up after {:?}", start.elapsed());
        }
    }

    #[test]
    fn a_released_lock_goes_to_the_waiter() {
        let (holder, waiter, _path) = pair();
        assert!(try_exclusive(&holder).unwrap());
        let thread = std::thread::spawn(move || exclusive(&waiter, Duration::from_secs(60)).unwrap());
        drop(holder);
        assert!(thread.join().unwrap());
    }

    #[test]
    fn polling_serves_where_no_timer_is_to_be_had() {
        let (holder, waiter, _path) = pair();
        assert!(try_exclusive(&holder).unwrap());
        assert!(!poll(&waiter, Instant::now() + Duration::from_millis(30)).unwrap());
        drop(holder);
        assert!(poll(&waiter, Instant::now() + Duration::from_secs(60)).unwrap());
    }

    #[test]
    fn the_deadline_is_kept_where_signals_are_blocked() {
        let (holder, waiter, _path) = pair();
        assert!(try_exclusive(&holder).unwrap());
        let (tx, rx) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // as a program started by a thread that blocks all signals
            let _blocked = crate::sys::signal::Blocked::all();
            tx.send(exclusive(&waiter, Duration::from_millis(50)).unwrap()).unwrap();
        });
        let got = rx.recv_timeout(Duration::from_secs(2));
        drop(holder);
        assert_eq!(got, Ok(false));
    }

    #[test]
    fn a_wait_without_end_is_no_panic() {
        let (holder, waiter, _path) = pair();
        assert!(try_exclusive(&holder).unwrap());
        let thread = std::thread::spawn(move || exclusive(&waiter, Duration::MAX).unwrap());
        drop(holder);
        assert!(thread.join().unwrap());
    }
}
