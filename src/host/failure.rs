//! What a client is told when a request failed: a status and a fixed text, nothing else.

use std::io;

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};

use crate::error::Error;
use crate::message::{MessageError, Response};
use crate::session::{SessionError, StoreError};

/// The response to a request that failed.
pub(super) fn response(status: StatusCode) -> Response {
    let reason = status.canonical_reason().unwrap_or("Error");
    let mut response = Response::text(format!("{reason}\n")).with_status(status);
    // It may depend on the session, and some of these are cached unless told otherwise.
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The status of an error that a callback returned, or that stood in its way.
pub(super) fn status(error: &Error) -> StatusCode {
    if let Some(status) = error.status() {
        status
    } else if let Some(error) = error.downcast_ref::<MessageError>() {
        error.status()
    } else if let Some(error) = error.downcast_ref() {
        of_session(error)
    } else if let Some(error) = error.downcast_ref::<io::Error>().and_then(MessageError::within) {
        // The message-body's reader can only fail with an io::Error.
        error.status()
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

fn of_session(error: &SessionError) -> StatusCode {
    match error {
        // Try again: somebody else is in the way, or the system is short of something.
        SessionError::LockTimeout
        | SessionError::TooManyWaiters
        | SessionError::Conflict
        | SessionError::Store(StoreError::Locked | StoreError::Io { .. }) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_status() {
        let io = |source| StoreError::Io { verb: "open", path: "/x".into(), source };
        let cases: [(Error, u16); 9] = [
            (Error::message("x"), 500),
            (Error::new(StatusCode::FORBIDDEN, "x"), 403),
            (SessionError::LockTimeout.into(), 503),
            (SessionError::TooManyWaiters.into(), 503),
            (SessionError::from(io(io::Error::other("x"))).into(), 503),
            (SessionError::ReadOnly.into(), 500),
            (MessageError::BodyTooLarge { limit: 1 }.into(), 413),
            (io::Error::other(MessageError::BodyTooLarge { limit: 1 }).into(), 413),
            (io::Error::other("x").into(), 500),
        ];
        for (error, expected) in cases {
            assert_eq!(status(&error), expected, "{error}");
        }
    }

    #[test]
    fn the_client_sees_a_fixed_text_only() {
        let response = response(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.body().as_bytes().unwrap(), "Service Unavailable\n");
    }
}
