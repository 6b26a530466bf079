//! Servers: CGI, SCGI and HTTP over connections, and the pool of workers that serves them.

pub(crate) mod activity;
mod allow;
mod body;
pub(crate) mod buffers;
mod cgi;
mod check;
mod concerns;
mod departure;
mod exchange;
mod exit;
pub(crate) mod feed;
pub(crate) mod http;
mod linger;
mod listener;
pub(crate) mod load;
mod open;
mod options;
mod patience;
mod pool;
mod privileges;
pub(crate) mod reception;
pub(crate) mod reply;
mod run;
pub(crate) mod scgi;
pub(crate) mod stream;
mod wire;

pub use listener::{Address, AddressError};
pub use options::{AccessLog, AccessLogFormat, Options, OptionsError, Workers};
