//! Sessions: IDs, records, the store contract, and the session that an application's callback works with.
//!
//! What is kept and when is decided here; where it is kept is up to the stores.

mod access;
mod changes;
mod codec;
mod cookie;
mod envelope;
mod error;
mod expiry;
mod id;
mod manager;
mod record;
#[allow(clippy::module_inception)]
mod session;
mod store;
mod witness;

pub use access::Access;
pub use codec::CodecError;
#[cfg(test)]
pub(crate) use codec::Encoded;
pub use cookie::CookiePolicy;
pub(crate) use envelope::Encoding;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use envelope::oracle;
pub use error::SessionError;
pub use expiry::Expiry;
pub use id::{Id, IdText};
pub(crate) use manager::{Commit, CookieChange, HasInfo, SessionManager};
pub use record::Record;
pub(crate) use record::{Millis, is_over, now, over_from};
pub use session::Session;
pub use store::{Guard, Saved, Store, StoreError, Stored, Swept, Version};
pub(crate) use witness::{Happening, Patience, Witness};
