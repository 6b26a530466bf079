//! How long a session lives.

use std::time::Duration;

/// When a session ends by itself: idle timeout and absolute timeout, both in force at once.
///
/// Both are enforced whenever a session is loaded, whether or not old ones are ever swept. The defaults are OWASP's
/// for ordinary applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Ends this long after the last request that used it, to the nearest second. Default 30 minutes; `None` for no limit.
    pub idle: Option<Duration>,
    /// Ends this long after its creation or its last login. Default 8 hours; `None` for no limit.
    pub absolute: Option<Duration>,
}

impl Expiry {
    /// Neither timeout: for tests and for sites that sweep by age.
    pub const NEVER: Self = Self { idle: None, absolute: None };
}

impl Default for Expiry {
    fn default() -> Self {
        Self { idle: Some(Duration::from_secs(30 * 60)), absolute: Some(Duration::from_secs(8 * 3600)) }
    }
}
