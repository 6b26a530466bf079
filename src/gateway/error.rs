//! Requests that are refused before the application sees them.

use http::StatusCode;

/// Why a request was refused. The text names the meta-variable or header field, never its value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The request breaks the protocol (400).
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// The path is not below the mount (404).
    #[error("path is outside the mount")]
    OutsideMount,
    /// The request head or message-body did not arrive in time (408).
    #[error("{0} did not arrive in time")]
    Timeout(&'static str),
    /// The message-body is longer than the limit (413).
    #[error("message-body is longer than the limit of {limit} bytes")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The request line is longer than the limit (414).
    #[error("request line is longer than the limit of {limit} bytes")]
    TargetTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// An expectation other than 100-continue (417).
    #[error("expectation that is not 100-continue")]
    Expectation,
    /// The request head is longer, or has more fields, than the limit (431).
    #[error("request head exceeds the limit on {what} ({limit})")]
    HeadTooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit that was passed.
        limit: usize,
    },
    /// Something that the protocol allows and this server does not offer (501).
    #[error("not implemented: {0}")]
    NotImplemented(&'static str),
    /// The message-body could not be kept until the application reads it (503).
    #[error("store message-body")]
    Storage(#[source] std::io::Error),
    /// A version of HTTP other than 1.0 and 1.1 (505).
    #[error("unknown HTTP version")]
    Version,
}

impl GatewayError {
    /// The status the client is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::OutsideMount => StatusCode::NOT_FOUND,
            Self::Timeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::HeadTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Storage(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}
