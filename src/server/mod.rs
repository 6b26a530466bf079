//! Servers: CGI, SCGI and HTTP over connections, and the pool of workers that serves them.

pub(crate) mod activity;
mod allow;
mod body;
pub(crate) mod buffers;
mod cgi;
mod check;
mod concerns;
mod exchange;
mod exit;
pub(crate) mod http;
mod listener;
mod open;
mod options;
mod pool;
mod privileges;
mod reception;
pub(crate) mod reply;
mod run;
pub(crate) mod scgi;
pub(crate) mod stream;

pub use listener::{Address, AddressError};
pub use options::{AccessLog, AccessLogFormat, Options, OptionsError, Workers};
