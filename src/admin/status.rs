//! The status of a pool, asked from outside: a client for what `--status` serves.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::AdminError;
use crate::sys::signal::{Action, Signal, Signals};

/// How long a pool has for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// No pool has more to say.
const MOST: u64 = 16 << 20;
/// Answers that may be missing one after the other while one watches: at a reload the one that answers is replaced.
const TRIES: u32 = 3;

/// In which form a status is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatusForm {
    /// Lines for a terminal.
    Text,
    /// JSON.
    Json,
}

/// Asks the pool whose `--status` is `address` (`HOST:PORT` or `unix:PATH`) how it is.
///
/// ```no_run
/// # use cloakroom::admin::{StatusForm, status};
/// print!("{}", status("unix:/run/counter.status", StatusForm::Text)?);
/// # Ok::<(), cloakroom::admin::AdminError>(())
/// ```
///
/// # Errors
/// Where nobody answers there, or not what a pool would.
pub fn status(address: &str, form: StatusForm) -> Result<String, AdminError> {
    ask(address, form).map_err(|source| AdminError::NoStatus { address: address.to_owned(), source })
}

/// Asks again and again, with a pause of `every`, and hands each answer to `show`; until the pool is gone, `show` fails,
/// or this process gets `INT` or `TERM`, which from here on do nothing else. Meant for a tool's only thread.
///
/// # Errors
/// Where the first question gets no answer, or `show` fails.
pub fn watch_status(
    address: &str,
    form: StatusForm,
    every: Duration,
    mut show: impl FnMut(&str) -> io::Result<()>,
) -> Result<(), AdminError> {
    let failed = |source| AdminError::NoStatus { address: address.to_owned(), source };
    let signals = Signals::install(&[(Signal::INT, Action::Tell), (Signal::TERM, Action::Tell)]).map_err(failed)?;
    let (mut was_there, mut missing) = (false, 0);
    loop {
        match ask(address, form) {
            Ok(text) => {
                (was_there, missing) = (true, 0);
                show(&text).map_err(AdminError::Show)?;
            }
            // Nobody listens any more.
            Err(error) if was_there && is_gone(&error) => return Ok(()),
            Err(error) if !was_there || missing == TRIES => return Err(failed(error)),
            Err(_) => missing += 1,
        }
        let time = Timespec::try_from(every).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], Some(&time));
        if signals.next().is_some() {
            return Ok(());
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

fn ask(address: &str, form: StatusForm) -> io::Result<String> {
    if let Some(path) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        return exchange(stream, "localhost", form);
    }
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                // By its address one may always ask.
                return exchange(stream, address, form);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: impl Read + Write, host: impl Display, form: StatusForm) -> io::Result<String> {
    let path = if form == StatusForm::Json { "/status.json" } else { "/status" };
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut piece = [0; 16 * 1024];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
        if Instant::now() > deadline || answer.len() as u64 > MOST {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    read(&answer)
}

/// The message-body of a whole answer.
fn read(answer: &[u8]) -> io::Result<String> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not the answer of a pool");
    let text = str::from_utf8(answer).map_err(|_| wrong())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).and_then(|line| line.split(' ').nth(1));
    if status.ok_or_else(wrong)? != "200" {
        let said = body.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200);
        return Err(io::Error::other(format!("answered: {}", said.collect::<String>())));
    }
    // What is cut short is no answer.
    let length =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.and_then(|(_, length)| length.trim().parse().ok()).ok_or_else(wrong)?;
    if body.len() == length { Ok(body.to_owned()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_none() {
        let answer = "HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(read(answer.as_bytes()).unwrap(), "abc");
        for length in 0..answer.len() {
            assert!(read(&answer.as_bytes()[..length]).is_err(), "{length}");
        }
        let refused = read(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\n4\x1b03").unwrap_err();
        assert_eq!(refused.to_string(), "answered: 403");
        assert!(read(b"SSH-2.0-OpenSSH\r\n").is_err());
    }

    #[test]
    fn nobody_there_is_an_error() {
        let error = status("unix:/nonexistent/status", StatusForm::Text).unwrap_err();
        assert!(error.to_string().contains("unix:/nonexistent/status"), "{error}");
        assert!(watch_status("unix:/nonexistent/status", StatusForm::Json, PATIENCE, |_| Ok(())).is_err());
    }
}
