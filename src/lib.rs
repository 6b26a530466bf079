//! placeholder
#![allow(dead_code)]
mod error;
mod gateway;
mod host;
pub mod message;
mod server;
pub mod session;
pub mod store;
mod sys;
pub use error::{Error, Result};
pub use gateway::{GatewayError, Limits};
pub use host::Host;
pub use message::{Body, Request, Response};
pub use server::{Address, AddressError, Options, OptionsError};
pub use session::{Access, CookiePolicy, Expiry, Session, Store};
pub use store::{DirectoryStore, Durability, MemoryStore};
