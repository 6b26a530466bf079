//! A response on its way out: to the client, and where that is slow, to whoever goes on in the worker's place.

use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::activity::Activity;
use super::feed::{End, Feed};
use super::load::{Errand, Load};
use super::patience::{Patience, Waited};
use super::stream::{Progress, Stream};

/// Writes a response to a client.
pub(super) struct Departure<'a> {
    stream: &'a Stream,
    activity: &'a dyn Activity,
    patience: Patience<'a>,
    timeout: Duration,
    /// The connection is somebody else's, and this is the way there.
    feed: Option<Feed>,
}

impl<'a> Departure<'a> {
    /// Every write must make progress within `timeout`.
    pub(super) fn new(stream: &'a Stream, timeout: Duration, activity: &'a dyn Activity) -> Self {
        Self { stream, activity, patience: Patience::new(activity), timeout, feed: None }
    }

    /// Says what becomes of the connection, of which `pending` are bytes that were read and not used, if it is somebody
    /// else's by now. False where it is still here.
    pub(super) fn end(self, end: End, pending: &mut Vec<u8>) -> bool {
        let Some(feed) = self.feed else { return false };
        // If nobody is there any more, the connection is gone as well.
        let _ = feed.end(end, pending);
        pending.clear();
        true
    }

    /// Waits until there is room, or hands the connection over. `progress`: what is left of the time.
    fn wait(&mut self, progress: &mut Progress) -> io::Result<()> {
        match self.patience.wait(|until| self.stream.wait_writable(until).is_ok()) {
            Waited::Ready => return Ok(()),
            Waited::Alone => return self.stream.wait_writable(progress.deadline(self.timeout)),
            Waited::Slow => {
                // The other side takes no more than a client does, and has as much time.
                if let Ok((feed, other)) = Feed::pair(2 * self.timeout, self.activity.may_store()) {
                    let descriptors = [other.as_fd()].into_iter().chain(feed.file()).collect();
                    let load = Load { errand: Errand::Send, state: Vec::new(), descriptors };
                    if self.activity.hand_over(self.stream, &load) {
                        self.feed = Some(feed);
                        return Ok(());
                    }
                }
                self.patience.refuse();
            }
        }
        if Instant::now() < progress.deadline(self.timeout) { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

impl Write for Departure<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut progress = Progress::default();
        while !bytes.is_empty() {
            if let Some(feed) = &mut self.feed {
                return feed.send(bytes);
            }
            match self.stream.write_now(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(&mut progress)?,
                result => {
                    let n = result?;
                    progress.note(n);
                    bytes = &bytes[n..];
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
