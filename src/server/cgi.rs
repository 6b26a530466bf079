//! CGI (RFC 3875): one process, one request; meta-variables in the environment, the message-body on stdin, the
//! response on stdout.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;

use super::activity::Alone;
use super::buffers::{Buffers, PIECE};
use super::exchange::{answer, plain, refusal};
use super::linger;
use super::reply::{self, ReplyError};
use crate::gateway::{Front, GatewayError, decimal};
use crate::host::Host;
use crate::message::{Body, MetaVariables};
use crate::sys::log::log;
use crate::sys::signal::{self, Blocked};
use crate::sys::{descriptor, environment, process};

/// A response was written, whatever its status.
const DONE: u8 = 0;
/// Nobody took the response.
const NO_STDOUT: u8 = 111;
/// How long a sweep may take.
const SWEEP_BUDGET: Duration = Duration::from_millis(50);

/// Serves the request that this process was started for; returns the exit status. One in `sweep_one_in` sweeps after
/// that; 0: none.
pub(super) fn serve(host: &Host, sweep_one_in: u64) -> u8 {
    let mut stdout = match descriptor::take_stdout() {
        Ok(stdout) => stdout,
        Err(error) => {
            log!("cgi: take over stdout: {error}");
            return NO_STDOUT;
        }
    };
    let mut buffers = Buffers::for_script();
    let result = respond(host, &mut stdout, &mut buffers);
    if sweep_one_in > 0 && is_chosen(sweep_one_in) {
        // Apache sends TERM as soon as it has seen the end of the response.
        let _blocked = Blocked::all();
        drop(stdout);
        sweep(host);
    }
    match result {
        Ok(()) => DONE,
        // The server sees the end of stdout either way; at least the exit status says that it is not the end of the page.
        Err(ReplyError::Body { .. }) => NO_STDOUT,
        Err(ReplyError::Write(error)) => {
            log!("cgi: write response: {error}");
            NO_STDOUT
        }
    }
}

/// Whether this process is one in so many, by its ID and the time: nobody can choose both, and no state is needed.
fn is_chosen(one_in: u64) -> bool {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let mixed = time.tv_nsec.cast_unsigned() ^ u64::from(std::process::id()) << 32;
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(one_in)
}

/// Sweeps for a moment, in a process of its own: servers wait for the end of this one, of its stdout, and some of its
/// stderr, before the client's next request on the same connection has its turn.
fn sweep(host: &Host) {
    let Some(store) = host.store().filter(|store| store.is_multiprocess_safe()) else { return };
    let child = process::spawn(|| {
        signal::unblock_all();
        // Not of the server's process group, which it may kill.
        let _ = rustix::process::setsid();
        if let Err(error) = descriptor::let_go_of_stdio() {
            log!("cgi: no sweep: let go of stdio: {error}");
            return 1;
        }
        process::give_way();
        if let Err(error) = store.sweep(None, Some(SWEEP_BUDGET)) {
            log!("cgi: sweep failed: {}", crate::error::Error::from(error));
        }
        0
    });
    if let Err(error) = child {
        log!("cgi: no sweep: {error}");
    }
}

/// Answers 500 to the request that this process was started for: `reason`, which goes to the log, keeps it from being
/// served.
pub(super) fn refuse(reason: &str) -> u8 {
    log!("cgi: {reason}");
    let response = plain(StatusCode::INTERNAL_SERVER_ERROR);
    let sent = descriptor::take_stdout()
        .map_err(ReplyError::Write)
        .and_then(|mut stdout| reply::cgi(&mut stdout, response, None, &mut Buffers::for_script()));
    if sent.is_ok() { DONE } else { NO_STDOUT }
}

fn respond(host: &Host, stdout: &mut File, buffers: &mut Buffers) -> Result<(), ReplyError> {
    let unfit = |reason: &str| {
        log!("cgi: {reason}");
        plain(StatusCode::INTERNAL_SERVER_ERROR)
    };
    // From a client's `Proxy` header field; HTTP libraries in this process and its children take it for a proxy that
    // somebody configured (httpoxy, CVE-2016-5385).
    let Some([proxy]) = environment::take(["HTTP_PROXY"]) else {
        let response = unfit("cannot remove HTTP_PROXY from the environment while other threads run");
        return reply::cgi(stdout, response, None, buffers);
    };
    if host.store().is_some_and(|store| !store.is_multiprocess_safe()) {
        let response = unfit("this store keeps sessions in one process, and every CGI request is another one");
        return reply::cgi(stdout, response, None, buffers);
    }
    let mut meta = meta_variables();
    if let Some(proxy) = proxy {
        // For the doctor only: no request has it.
        meta.push("HTTP_PROXY", proxy.as_bytes());
    }
    let since = Instant::now();
    let stdin = Stdin::default();
    let answered = body(&meta, host.current_limits().body, &stdin)
        .and_then(|body| answer(meta, body, Front::Cgi, since, host, &Alone));
    // Apache sends all of the message-body before it reads a byte of the response, and drops both where it cannot.
    stdin.drain(&mut buffers.piece);
    match answered {
        Ok((parts, response)) => reply::cgi(stdout, response, parts.as_deref(), buffers),
        Err(error) => reply::cgi(stdout, refusal("cgi", &error), None, buffers),
    }
}

/// The environment, but for what configures this library.
fn meta_variables() -> MetaVariables {
    let mut meta = MetaVariables::new();
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        if !name.is_empty() && !name.starts_with(b"CLOAKROOM_") {
            meta.push(name, value);
        }
    }
    meta
}

/// The message-body: exactly `CONTENT_LENGTH` bytes of stdin. Where the server says that there is one and not how long
/// it is (Apache, for a chunked request), all that comes.
fn body(meta: &MetaVariables, limit: u64, stdin: &Stdin) -> Result<Body, GatewayError> {
    let length = match meta.get("CONTENT_LENGTH") {
        None | Some(b"") if meta.get("HTTP_TRANSFER_ENCODING").is_some() => None,
        None | Some(b"") => Some(0),
        Some(length) => Some(decimal(length).ok_or(GatewayError::Malformed("CONTENT_LENGTH"))?),
    };
    match length {
        Some(0) => Ok(Body::empty()),
        Some(length) => {
            stdin.expect(length);
            if length > limit {
                return Err(GatewayError::BodyTooLarge { limit });
            }
            Ok(Body::limited(stdin.clone(), Some(length), limit))
        }
        None => {
            stdin.expect(u64::MAX);
            Ok(Body::limited(stdin.clone(), None, limit))
        }
    }
}

/// Stdin, read when it is wanted and, other than `std::io::stdin`, not a byte further. Its copies count together.
#[derive(Clone, Default)]
struct Stdin {
    /// Bytes of the message-body that were not read yet.
    left: Arc<AtomicU64>,
}

impl Stdin {
    fn expect(&self, length: u64) {
        self.left.store(length, Ordering::Relaxed);
    }

    /// Takes what the server still has of the message-body, up to a bound.
    fn drain(mut self, buffer: &mut Vec<u8>) {
        let mut drained = 0;
        while drained < linger::BYTES {
            let left = self.left.load(Ordering::Relaxed);
            if left == 0 {
                return;
            }
            buffer.resize(PIECE, 0);
            let left = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
            match self.read(&mut buffer[..left]) {
                Ok(0) => return,
                Ok(n) => drained += n as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = rustix::io::read(rustix::stdio::stdin(), buffer)?;
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(n as u64), Ordering::Relaxed);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_is_chosen() {
        let chosen = |one_in| (0..10_000).filter(|_| is_chosen(one_in)).count();
        assert_eq!(chosen(1), 10_000);
        let (some, few) = (chosen(4), chosen(1000));
        assert!((1_500..3_500).contains(&some) && few < 100, "{some} {few}");
        assert_eq!(chosen(u64::MAX), 0);
    }

    #[test]
    fn without_content_length_there_is_no_body() {
        let body_of = |variables: &[(&str, &str)]| {
            let mut meta = MetaVariables::new();
            for (name, value) in variables {
                meta.push(name, value);
            }
            body(&meta, 10, &Stdin::default())
        };
        assert!(body_of(&[]).unwrap().is_empty());
        assert!(body_of(&[("CONTENT_LENGTH", "")]).unwrap().is_empty());
        assert!(body_of(&[("CONTENT_LENGTH", "0")]).unwrap().is_empty());
        assert_eq!(body_of(&[("CONTENT_LENGTH", "10")]).unwrap().length(), Some(10));
        assert_eq!(body_of(&[("HTTP_TRANSFER_ENCODING", "chunked")]).unwrap().length(), None);
        assert!(matches!(body_of(&[("CONTENT_LENGTH", "11")]), Err(GatewayError::BodyTooLarge { limit: 10 })));
        assert!(matches!(body_of(&[("CONTENT_LENGTH", "+1")]), Err(GatewayError::Malformed(_))));
    }
}
