//! Sessions: IDs, records, the store contract, and the session that an application's callback works with.

/// Stub.
pub struct Session;
/// Stub.
pub trait Store: Send + Sync {
    /// Prepares the store: called once by every worker after it was forked, before it is ready; idempotent.
    fn setup(&self) -> Result<(), std::io::Error>;
    /// Whether several processes may use the store at once.
    fn is_multiprocess_safe(&self) -> bool;
}
