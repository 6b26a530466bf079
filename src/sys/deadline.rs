//! A worker's promise to give up a request when it is told to: the handler that answers in the application's stead.
//!
//! The words are in shared memory. The worker writes [`CURRENT`](Words::current) when a request begins and clears it
//! when it ends; the master writes the number of an overdue request to `condemned` and sends `SIGUSR2`. Whoever
//! changes `current` first, the worker to "ended" or the handler to [`DEAD`], has won, so a response that has begun is
//! never cut into.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64};

use rustix::net::{RecvFlags, SendFlags, Shutdown};

/// What a worker exits with when it gave up a request.
pub(crate) const EXIT_TIMED_OUT: i32 = 4;

/// The value of `current` once the handler has decided to answer.
const DEAD: u64 = u64::MAX;

/// In which form the ready-made answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A CGI document response, as SCGI wants it.
    Cgi = 1,
    /// An HTTP/1.1 response.
    Http = 2,
    /// An HTTP/1.1 response to HEAD.
    HttpHead = 3,
}

const CGI: &[u8] = b"Status: 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 16\r\nCache-Control: no-store\r\n\r\nGateway Timeout\n";
const HTTP: &[u8] = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 16\r\nCache-Control: no-store\r\nConnection: close\r\n\r\nGateway Timeout\n";
const HTTP_BODY: usize = b"Gateway Timeout\n".len();

/// The words of one worker.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    /// The number of the request that the application works on; 0: none.
    pub(crate) current: &'static AtomicU64,
    /// The number of the request that the worker is to give up.
    pub(crate) condemned: &'static AtomicU64,
    /// The client's descriptor, in this process.
    pub(crate) client: &'static AtomicU64,
    /// The form of the [`Answer`].
    pub(crate) answer: &'static AtomicU64,
}

impl Words {
    /// The application starts on request `number` (never 0) of `client`.
    pub(crate) fn begin(&self, number: u64, client: RawFd, answer: Answer) {
        self.client.store(u64::from(client.cast_unsigned()), Relaxed);
        self.answer.store(answer as u64, Relaxed);
        self.current.store(number, Release);
    }

    /// The application is done with it. Does not return if the handler has answered already.
    pub(crate) fn end(&self, number: u64) {
        if self.current.compare_exchange(number, 0, AcqRel, Acquire).is_err() {
            // The handler runs in another thread, and the process ends as soon as it has answered.
            loop {
                std::thread::park();
            }
        }
    }

    /// For the master: condemns request `number`. The signal comes after it.
    pub(crate) fn condemn(&self, number: u64) {
        self.condemned.store(number, Release);
    }

    /// Makes [`handler`] look at these words from now on.
    pub(crate) fn watch(self) {
        WATCHED.store(Box::into_raw(Box::new(self)), Release);
    }
}

/// The words of this process, for the handler.
static WATCHED: AtomicPtr<Words> = AtomicPtr::new(std::ptr::null_mut());

/// The handler of `SIGUSR2` in a worker: async-signal-safe, as it only changes atomics and makes system calls.
pub(super) extern "C" fn handler(_signal: libc::c_int) {
    // SAFETY: errno is this thread's own; it is put back, so that the interrupted code does not see it change.
    let errno = unsafe { *libc::__errno_location() };
    give_up();
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn give_up() {
    // SAFETY: null or from `watch`, which never frees what it leaked.
    let Some(words) = (unsafe { WATCHED.load(Acquire).as_ref() }) else { return };
    let condemned = words.condemned.load(Acquire);
    if condemned == 0 || words.current.compare_exchange(condemned, DEAD, AcqRel, Acquire).is_err() {
        return; // It ended in time after all.
    }
    let answer = match words.answer.load(Relaxed) {
        2 => HTTP,
        3 => &HTTP[..HTTP.len() - HTTP_BODY],
        _ => CGI,
    };
    let client = words.client.load(Relaxed) as u32;
    // SAFETY: the worker set it to its open connection, which it does not close before `end`; and `end` waits forever.
    let client = unsafe { BorrowedFd::borrow_raw(client.cast_signed()) };
    // Nothing has been written to this connection yet, so there is room; the client may be gone.
    let _ = rustix::net::send(client, answer, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    let _ = rustix::net::shutdown(client, Shutdown::Write);
    // A close with unread bytes is a reset, which can overtake the answer.
    let mut rest = [0u8; 4096];
    for _ in 0..64 {
        match rustix::net::recv(client, &mut rest, RecvFlags::DONTWAIT) {
            Ok((read, _)) if read > 0 => {}
            _ => break,
        }
    }
    super::process::exit_now(EXIT_TIMED_OUT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_made_answers_have_the_length_they_say() {
        for answer in [CGI, HTTP] {
            let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            assert_eq!(answer.len() - end, HTTP_BODY);
            assert!(std::str::from_utf8(answer).unwrap().contains("Content-Length: 16\r\n"));
        }
        assert!(HTTP[..HTTP.len() - HTTP_BODY].ends_with(b"\r\n\r\n"));
    }
}
