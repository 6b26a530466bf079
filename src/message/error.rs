//! What can go wrong with a message.

use std::io;

use http::StatusCode;

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
    MalformedForm(&'static str),
    /// The message-body is no form: its Content-Type is neither `application/x-www-form-urlencoded` nor
    /// `multipart/form-data` (415).
    #[error("message-body is no form")]
    NotAForm,
    /// The files of a form could not be kept in a temporary file (500).
    #[error("keep upload in a temporary file")]
    Upload(#[source] io::Error),
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
    /// Why reading a message-body failed: the error that its reader put into `error`, such as
    /// [`BodyTooLarge`](Self::BodyTooLarge), else [`Body`](Self::Body).
    ///
    /// The readers of message-bodies can fail with [`io::Error`] only; they signal the rest as
    /// `io::Error::other(MessageError::BodyTooLarge { .. })`.
    pub fn from_body(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Body)
    }

    /// The error of this type within `error`, if a message-body's reader put one there; see
    /// [`from_body`](Self::from_body).
    pub fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The status the client is answered with (RFC 9110 section 15).
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BodyTooLarge { .. } | Self::FormTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(error) if error.kind() == io::ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::Body(_) | Self::MalformedForm(_) => StatusCode::BAD_REQUEST,
            Self::NotAForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
            Self::File { .. } | Self::Upload(_) | Self::InvalidResponse(_) | Self::Json(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_within_an_io_error_is_found() {
        let error = io::Error::other(MessageError::BodyTooLarge { limit: 7 });
        assert!(matches!(MessageError::within(&error), Some(MessageError::BodyTooLarge { limit: 7 })));
        assert_eq!(MessageError::from_body(error).status(), StatusCode::PAYLOAD_TOO_LARGE);

        let error = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(MessageError::within(&error).is_none());
        assert_eq!(MessageError::from_body(error).status(), StatusCode::BAD_REQUEST);
        assert_eq!(MessageError::from_body(io::ErrorKind::TimedOut.into()).status(), StatusCode::REQUEST_TIMEOUT);
    }
}
