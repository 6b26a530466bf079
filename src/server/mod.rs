//! Servers: CGI, SCGI and HTTP over connections, and the pool of workers that serves them.

pub(crate) mod activity;
mod body;
pub(crate) mod buffers;
mod exchange;
pub(crate) mod http;
pub(crate) mod reply;
pub(crate) mod scgi;
pub(crate) mod stream;
