//! The start of a process without that of the standard library, which takes a CGI script a tenth of its life: it looks
//! through `/proc/self/maps` for the end of the stack, and prepares to say so where that is passed.

use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, OFlags, open};

use super::signal::ignore_broken_pipes;

/// Makes a function that returns an [`ExitCode`](std::process::ExitCode) the program's `main`, without what the standard
/// library does before that. A CGI script starts about 50 µs sooner; servers gain nothing.
///
/// It goes with an attribute at the top of the program:
///
/// ```no_run
/// #![cfg_attr(all(not(test), target_env = "gnu"), no_main)]
///
/// use std::process::ExitCode;
/// use cloakroom::{Host, Response};
///
/// cloakroom::entry!(serve);
///
/// fn serve() -> ExitCode {
///     Host::new(|_, _| Ok(Response::text("Hello, world!\n"))).run()
/// }
/// ```
///
/// What is kept: closed standard descriptors are opened on `/dev/null`, `SIGPIPE` is ignored, a panic ends with 101, what
/// was printed is flushed. What is not: the words that a stack overflowed, before the `SIGSEGV` that the program dies of in
/// any case, and the name `main` in the message of a panic. Where the C library is not glibc it is `fn main`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[cfg(all(not(test), target_env = "gnu"))]
        // SAFETY: this is the one `main` of the program, with the arguments and the result that C gives it.
        #[unsafe(no_mangle)]
        extern "C" fn main(_: ::std::ffi::c_int, _: *const *const ::std::ffi::c_char) -> ::std::ffi::c_int {
            $crate::start($main)
        }

        #[cfg(any(test, not(target_env = "gnu")))]
        fn main() -> ::std::process::ExitCode {
            $main()
        }
    };
}

/// What [`entry!`] calls. Returns the exit status.
#[doc(hidden)]
pub fn start(main: fn() -> ExitCode) -> i32 {
    open_standard_descriptors();
    ignore_broken_pipes();
    // A panic must not reach C. The message has been printed.
    let code = catch_unwind(main).unwrap_or(ExitCode::from(101));
    let _ = catch_unwind(AssertUnwindSafe(|| io::stdout().flush()));
    // It tells its number to nobody.
    (0..=u8::MAX).find(|&number| ExitCode::from(number) == code).unwrap_or(1).into()
}

/// Or the first files that are opened, of sessions perhaps, would be what somebody prints to.
fn open_standard_descriptors() {
    // SAFETY: they are only asked about, and where they are closed the answer is that they are (POLLNVAL).
    let standard = [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) });
    let mut asked = standard.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::empty()));
    if poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|answers| answers == 0) {
        return;
    }
    for _ in asked.iter().filter(|asked| asked.revents().contains(PollFlags::NVAL)) {
        // The lowest number that is free is the first one of those that are closed.
        if let Ok(null) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
            std::mem::forget(null);
        }
    }
}
