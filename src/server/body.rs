//! A message-body on its way in: in memory while it is small, in an unlinked temporary file beyond.
//!
//! It is complete before the application is called, so that no session is locked while a slow client sends.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use crate::gateway::{GatewayError, Limits};
use crate::message::Body;

/// What is kept in memory.
const IN_MEMORY: u64 = 64 * 1024;

/// The least that a client must send per second, on the whole.
const BYTES_PER_SECOND: u64 = 1024;

/// Collects a message-body.
#[derive(Debug)]
pub(super) struct Collector {
    memory: Vec<u8>,
    file: Option<File>,
    length: u64,
    limit: u64,
}

impl Collector {
    /// For a message-body of `announced` bytes, or of as many as will come.
    pub(super) fn new(announced: Option<u64>, limit: u64) -> Result<Self, GatewayError> {
        if announced.is_some_and(|length| length > limit) {
            return Err(GatewayError::BodyTooLarge { limit });
        }
        let file = match announced {
            Some(length) if length > IN_MEMORY => Some(tempfile::tempfile().map_err(GatewayError::Storage)?),
            _ => None,
        };
        let expected = if file.is_some() { 0 } else { announced.unwrap_or(0) };
        Ok(Self { memory: Vec::with_capacity(expected as usize), file, length: 0, limit })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), GatewayError> {
        self.length += bytes.len() as u64;
        if self.length > self.limit {
            return Err(GatewayError::BodyTooLarge { limit: self.limit });
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None if self.length <= IN_MEMORY => {
                self.memory.extend_from_slice(bytes);
                Ok(())
            }
            None => self.move_to_file(bytes),
        }
        .map_err(GatewayError::Storage)
    }

    fn move_to_file(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::tempfile()?;
        file.write_all(&std::mem::take(&mut self.memory))?;
        file.write_all(bytes)?;
        self.file = Some(file);
        Ok(())
    }

    /// What is in memory of it, and the rest, if there is one.
    pub(super) fn parts(&self) -> (&[u8], Option<&File>) {
        (&self.memory, self.file.as_ref())
    }

    /// The same again in another process, to which the file came at the place where it is written on.
    pub(super) fn of_parts(memory: &[u8], file: Option<File>, length: u64, limit: u64) -> Self {
        Self { memory: memory.to_vec(), file, length, limit }
    }

    pub(super) fn finish(self) -> Result<Body, GatewayError> {
        match self.file {
            None => Ok(self.memory.into()),
            Some(mut file) => {
                file.seek(SeekFrom::Start(0)).map_err(GatewayError::Storage)?;
                Ok(Body::from_reader(file, Some(self.length)))
            }
        }
    }
}

/// How long a client may take for its message-body.
#[derive(Debug)]
pub(super) struct Pace {
    started: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// That of a request whose head was there so long ago.
    pub(super) fn since(age: Duration) -> Self {
        let now = Instant::now();
        Self { started: now.checked_sub(age).unwrap_or(now) }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// When the next read must be done, `received` bytes being here.
    pub(super) fn deadline(&self, limits: &Limits, received: u64) -> Instant {
        let whole = limits.body_timeout + Duration::from_secs(received / BYTES_PER_SECOND);
        (Instant::now() + limits.body_timeout).min(self.started + whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_collected_is_the_same_in_memory_and_in_a_file() {
        for length in [0, 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY] {
            for announced in [None, Some(length)] {
                let mut collector = Collector::new(announced, 3 * IN_MEMORY).unwrap();
                let all: Vec<u8> = (0..length).map(|i| i as u8).collect();
                for piece in all.chunks(1000) {
                    collector.push(piece).unwrap();
                }
                assert_eq!(collector.file.is_some(), length > IN_MEMORY);
                let body = collector.finish().unwrap();
                assert_eq!(body.length(), Some(length));
                assert_eq!(body.into_bytes().unwrap(), all);
            }
        }
    }

    #[test]
    fn the_limit_holds_for_what_is_announced_and_for_what_comes() {
        assert!(Collector::new(Some(11), 10).is_err());
        let mut collector = Collector::new(None, 10).unwrap();
        collector.push(&[0; 10]).unwrap();
        assert!(matches!(collector.push(&[0]), Err(GatewayError::BodyTooLarge { limit: 10 })));
    }

    #[test]
    fn a_trickle_is_not_waited_for() {
        let limits = Limits::default();
        let pace = Pace { started: Instant::now().checked_sub(limits.body_timeout).unwrap() };
        assert!(pace.deadline(&limits, 1023) <= Instant::now());
        assert!(pace.deadline(&limits, 10 * 1024) > Instant::now());
    }
}
