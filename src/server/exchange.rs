//! One request and its response, whatever the transport.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::activity::Activity;
use super::buffers::Buffers;
use super::stream::Stream;
use crate::gateway::{self, Front, GatewayError, Limits, Site};
use crate::host::Host;
use crate::message::{Body, MetaVariables, Request, RequestParts, Response};
use crate::sys::log::log;

/// How long, and for how many bytes, a client that was refused is listened to so that it reads the response.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: u64 = 64 << 20;

/// What a connection needs of a [`Host`].
pub(super) trait Application {
    fn limits(&self) -> &Limits;
    fn site(&self) -> &Site;
    fn respond(&self, request: Request) -> Response;
}

impl Application for Host {
    fn limits(&self) -> &Limits {
        self.current_limits()
    }

    fn site(&self) -> &Site {
        self.site()
    }

    fn respond(&self, request: Request) -> Response {
        self.respond(request)
    }
}

/// Has the application answer. The request's parts are handed back for the response head.
pub(super) fn answer(
    meta: MetaVariables,
    body: Body,
    front: Front,
    application: &dyn Application,
    activity: &dyn Activity,
) -> Result<(Arc<RequestParts>, Response), GatewayError> {
    let (parts, body) = gateway::request(meta, body, front, application.site())?.into_parts();
    activity.begin(&parts.method, parts.path());
    let response = application.respond(Request::new(Arc::clone(&parts), body));
    activity.end(response.status());
    Ok((parts, response))
}

/// Logs why a request was refused, and makes the response that says so.
pub(super) fn refusal(protocol: &str, error: &GatewayError) -> Response {
    let status = error.status();
    match std::error::Error::source(error) {
        Some(source) => log!("{protocol}: refused with {}: {error}: {source}", status.as_str()),
        None => log!("{protocol}: refused with {}: {error}", status.as_str()),
    }
    plain(status)
}

/// A status with its own text.
pub(super) fn plain(status: StatusCode) -> Response {
    Response::text(format!("{} {}\n", status.as_str(), status.canonical_reason().unwrap_or("Error")))
        .with_status(status)
}

/// Closes a connection on which something was not read.
pub(super) fn linger(stream: Stream, limits: &Limits, buffers: &mut Buffers) {
    stream.linger(LINGER.min(limits.body_timeout), LINGER_BYTES, &mut buffers.input);
}
