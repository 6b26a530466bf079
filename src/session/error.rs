//! What can go wrong with a session.

use std::error::Error as StdError;

use super::codec::CodecError;
use super::store::StoreError;

/// An operation on a session that could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else held the session's lock for the whole lock timeout (503).
    #[error("session is in use: lock not granted in time")]
    LockTimeout,
    /// Somebody else holds the session's lock for long, and as many requests of this session as may already occupy
    /// workers of the pool (503).
    #[error("session is in use: too many requests wait for it")]
    TooManyWaiters,
    /// The session changed under a request that had already been repeated (503): only where a lock was lost.
    #[error("session changed while the request held it")]
    Conflict,
    /// A value does not decode as the type asked for, or cannot be encoded.
    #[error("session value {key:?}")]
    Value {
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// The request's access is [`ReadOnly`](super::Access::ReadOnly).
    #[error("session is read-only in this request")]
    ReadOnly,
    /// The request's access is [`None`](super::Access::None), or no store was configured.
    #[error("this request has no session")]
    NoSession,
    /// [`set_access`](super::Session::set_access) came after the first access to the session.
    #[error("access mode set after the session was read")]
    TooLate,
    /// [`Optimistic`](super::Access::Optimistic) was asked for in the callback of a request with a message-body, which
    /// cannot be read twice. `Host::access` can ask for it: then the message-body is kept.
    #[error("a request with a message-body cannot become optimistic in its callback")]
    NotRepeatable,
    /// The operating system gave no random numbers.
    #[error("draw random numbers")]
    Random(#[source] Box<dyn StdError + Send + Sync>),
}
