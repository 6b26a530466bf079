//! A request that takes too long: who answers it in the application's stead, and how the application is told before.
//!
//! The words are in shared memory. The worker writes [`CURRENT`](Words::current) when a request begins and clears it
//! when it ends. Whoever changes `current` first, the worker to "ended" or somebody else to [`DEAD`], has won, so a
//! response that has begun is never cut into. Somebody else is the master, with the worker's descriptor in its hand
//! ([`Words::take_over`]); where the kernel does not let it have that, the worker's own signal handler, which the master
//! asks for it ([`Words::condemn`] and `SIGUSR2`).

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64};

use rustix::net::{RecvFlags, SendFlags, Shutdown};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// What a worker exits with when it gave up a request.
pub(crate) const EXIT_TIMED_OUT: i32 = 4;

/// The value of `current` once somebody else has decided to answer.
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

    /// The application is done with it. Does not return if somebody else answers it.
    pub(crate) fn end(&self, number: u64) {
        if self.current.compare_exchange(number, 0, AcqRel, Acquire).is_err() {
            // The process ends as soon as somebody has answered: the master, or the handler in another thread.
            loop {
                std::thread::park();
            }
        }
    }

    /// For the master: condemns request `number`. The signal comes after it.
    pub(crate) fn condemn(&self, number: u64) {
        self.condemned.store(number, Release);
    }

    /// For the master: takes the client of request `number` away from worker `pid`, which will not say another word to
    /// it, whatever state it is in. `None`: the request has ended meanwhile.
    ///
    /// # Errors
    /// Where the kernel does not let this process have it (Linux before 5.6, a seccomp filter, a worker that runs as
    /// somebody else): then nothing has happened.
    pub(crate) fn take_over(&self, number: u64, pid: Pid) -> io::Result<Option<Overdue>> {
        let worker = pidfd_open(pid, PidfdFlags::empty())?;
        let client = (self.client.load(Relaxed) as u32).cast_signed();
        let answer = self.answer.load(Relaxed);
        let client = pidfd_getfd(&worker, client, PidfdGetfdFlags::empty())?;
        // The client stays open, and its number the same, as long as the request is at work: if it still is, this was it.
        let taken = self.current.compare_exchange(number, DEAD, AcqRel, Acquire).is_ok();
        Ok(taken.then_some(Overdue { client, answer }))
    }

    /// Makes [`handler`] look at these words from now on.
    pub(crate) fn watch(self) {
        WATCHED.store(Box::into_raw(Box::new(self)), Release);
    }
}

/// The client of a request that was taken away from its worker.
pub(crate) struct Overdue {
    client: OwnedFd,
    answer: u64,
}

impl Overdue {
    /// Sends the client 504 and closes its connection.
    pub(crate) fn answer(self) {
        answer(self.client.as_fd(), self.answer);
    }
}

/// The words of this process, for the handler.
static WATCHED: AtomicPtr<Words> = AtomicPtr::new(std::ptr::null_mut());

/// The descriptor that the handler writes to when no request is condemned; -1: none.
static BELL: AtomicI32 = AtomicI32::new(-1);

/// A descriptor (eventfd(2)) that becomes readable whenever `SIGUSR2` comes and no request is condemned.
pub(crate) fn ring_at_soft_deadline() -> io::Result<BorrowedFd<'static>> {
    use std::os::fd::IntoRawFd as _;
    let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?.into_raw_fd();
    BELL.store(bell, Relaxed);
    // SAFETY: it is open and never closed.
    Ok(unsafe { BorrowedFd::borrow_raw(bell) })
}

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
        // It ended in time after all, or it is only the soft deadline.
        let bell = BELL.load(Relaxed);
        if bell >= 0 {
            // SAFETY: `ring_at_soft_deadline` leaked the descriptor, so it is open for as long as the process lives.
            let bell = unsafe { BorrowedFd::borrow_raw(bell) };
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
        return;
    }
    let client = words.client.load(Relaxed) as u32;
    // SAFETY: the worker set it to its open connection, which it does not close before `end`; and `end` waits forever.
    let client = unsafe { BorrowedFd::borrow_raw(client.cast_signed()) };
    answer(client, words.answer.load(Relaxed));
    super::process::exit_now(EXIT_TIMED_OUT);
}

/// Sends 504 and ends the connection; async-signal-safe.
fn answer(client: BorrowedFd<'_>, answer: u64) {
    let answer = match answer {
        2 => HTTP,
        3 => &HTTP[..HTTP.len() - HTTP_BODY],
        _ => CGI,
    };
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
