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
}

impl GatewayError {
    /// The status the client is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::OutsideMount => StatusCode::NOT_FOUND,
        }
    }
}
