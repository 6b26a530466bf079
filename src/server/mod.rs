//! Servers: CGI, SCGI and HTTP over connections, and the pool of workers that serves them.

pub(crate) mod activity;
