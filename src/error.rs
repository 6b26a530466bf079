//! The one error type that an application's callback returns, and nothing else.
//!
//! Each room has an error enum of its own; all of them, like every other [`std::error::Error`], convert into [`Error`]
//! with `?`. Which status an error becomes is decided in `host`.

use std::error::Error as StdError;
use std::fmt;

use http::StatusCode;

/// The result of an application's callback.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed.
///
/// Any [`std::error::Error`] converts into it, so `?` works in a callback. The client sees a status and a fixed text
/// only; the error itself, with its chain of sources, goes to the log.
///
/// Like `anyhow::Error`, this type does not implement [`std::error::Error`] itself.
pub struct Error {
    status: Option<StatusCode>,
    source: Box<dyn StdError + Send + Sync>,
}

impl Error {
    /// An error that the client sees as `status` (with the status's own text) and the log as `message`.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status: Some(status), source: message.into().into() }
    }

    /// An error from the application, answered with 500 unless [`with_status`](Self::with_status) says otherwise.
    pub fn message(message: impl Into<String>) -> Self {
        Self { status: None, source: message.into().into() }
    }

    /// The same error, answered with `status`.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The status that was asked for, if one was.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// The error that this was made from, if it was an `E`.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.source.downcast_ref()
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(source: E) -> Self {
        Self { status: None, source: Box::new(source) }
    }
}

/// The error and its sources in one line, separated by `: `.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        let mut last = self.source.to_string();
        let mut next = self.source.source();
        while let Some(source) = next {
            // Some errors already repeat their source in their own text.
            let text = source.to_string();
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            next = source.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("status", &self.status).field("source", &self.source).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("open session directory")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn shows_the_chain_of_sources_once() {
        let error = Error::from(Outer(std::io::Error::other("permission denied")));
        assert_eq!(error.to_string(), "open session directory: permission denied");
        assert!(error.downcast_ref::<Outer>().is_some());
        let io = Error::from(std::io::Error::other("disk on fire"));
        assert_eq!(io.to_string(), "disk on fire");
    }

    #[test]
    fn carries_the_status_it_was_given() {
        assert_eq!(Error::message("x").status(), None);
        assert_eq!(Error::message("x").with_status(StatusCode::CONFLICT).status(), Some(StatusCode::CONFLICT));
    }
}
