//! How a request uses its session.

/// How a request uses its session. Set per request with `Host::access`, or with
/// [`Session::set_access`](super::Session::set_access) before the first access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads a snapshot without any lock. At commit, under a short lock, every key that the request read or wrote must
    /// be unchanged; its changes are then applied on top of what others saved meanwhile. If a key did change, the
    /// callback runs once more, this time [`Exclusive`](Self::Exclusive): at most twice in all.
    ///
    /// The default for GET, HEAD, OPTIONS and TRACE without a message-body.
    Optimistic,
    /// Holds the session's lock from the first access to the commit, so the callback runs exactly once. The default for
    /// every other request.
    Exclusive,
    /// A snapshot; a change is an error.
    ReadOnly,
    /// The session is not to be touched; doing so is an error.
    None,
}
