//! How much a client may send, and how long it may take.

use std::time::Duration;

/// The limits of a request. Every figure is a bound on memory or time that one client can take.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the request head: the SCGI headers block, or the HTTP request line and header fields. Default 64 KiB.
    pub head: usize,
    /// Header fields (HTTP) or meta-variables (SCGI). Default 200.
    pub head_count: usize,
    /// Bytes of the message-body. Default 8 MiB; more is answered with 413.
    pub body: u64,
    /// From a connection's first byte (or its acceptance) to the end of the request head. Default 10 s.
    pub head_timeout: Duration,
    /// For each read of the message-body, and 1 KiB/s on the whole. Default 30 s.
    pub body_timeout: Duration,
    /// For each 64 KiB of the response. Default 30 s.
    pub write_timeout: Duration,
    /// How long an HTTP connection is kept for another request. Default 15 s.
    pub keep_alive_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 64 * 1024,
            head_count: 200,
            body: 8 << 20,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(15),
        }
    }
}
