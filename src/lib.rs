//! One small web application as a CGI script, as an SCGI worker pool behind nginx, Apache or lighttpd, or as a local HTTP
//! server: the same program, without a rebuild, with sessions that any number of processes share safely.
//!
//! An application is one callback. [`Host::run`] finds out how it is to be served.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use cloakroom::{DirectoryStore, Host, Request, Response, Result, Session};
//!
//! fn counter(_request: Request, session: &mut Session) -> Result<Response> {
//!     let visits = session.get::<u64>("visits")?.unwrap_or(0) + 1;
//!     session.insert("visits", visits)?;
//!     Ok(Response::text(format!("visit {visits}\n")))
//! }
//!
//! fn main() -> ExitCode {
//!     Host::new(counter).sessions(DirectoryStore::at("/var/lib/counter/sessions")).run()
//! }
//! ```
//!
//! No update of a session is ever lost and no request waits for another one without need: see [`Access`]. Where sessions
//! are kept is up to a [`Store`]; its contract is on the trait. The guides are in [`docs`].
//!
//! Linux only. It is not for applications that hold many connections open at once (one worker serves one request at a
//! time), and it speaks no TLS: that is the front server's part.

pub mod admin;
pub mod docs;
pub mod doctor;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod host;
pub mod message;
mod server;
pub mod session;
pub mod store;
mod sys;

pub use error::{Error, Result};
pub use gateway::{GatewayError, Limits};
pub use host::{Host, Late};
pub use message::{Body, MessageError, Request, Response};
pub use server::{AccessLog, AccessLogFormat, Address, AddressError, Options, OptionsError, Workers};
pub use session::{Access, CookiePolicy, Expiry, Id, Session, SessionError, Store, StoreError};
pub use store::{DirectoryStore, Durability, MemoryStore};
#[doc(hidden)]
pub use sys::start::start;

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
