//! What can go wrong with a message.

use std::io;

/// A request that cannot be read as what the application asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The message-body is longer than the limit (413).
    #[error("message-body is longer than the limit of {limit} bytes")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The message-body ended before its announced length, or could not be read (400).
    #[error("read message-body")]
    Body(#[source] io::Error),
    /// A form has more fields, more files or larger ones than [`FormLimits`](super::FormLimits) allow (413).
    #[error("form exceeds the limit on {what} ({limit})")]
    FormTooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit that was passed.
        limit: u64,
    },
    /// The message-body is not the form its Content-Type says it is (400).
    #[error("malformed form: {0}")]
    MalformedForm(String),
    /// The message-body is no form: its Content-Type is neither `application/x-www-form-urlencoded` nor `multipart/form-data` (415).
    #[error("message-body is no form")]
    NotAForm,
    /// A header or cookie of the response has a byte that must not be sent.
    #[error("invalid {0} in response")]
    InvalidResponse(&'static str),
    /// A file to be sent could not be opened.
    #[error("open {path}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A value could not be written as JSON.
    #[error("encode JSON")]
    Json(#[source] serde_json::Error),
}
impl MessageError {
    pub(crate) fn from_body(source: io::Error) -> Self {
        Self::Body(source)
    }
}
