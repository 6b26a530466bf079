//! The life of one request.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderValue, SET_COOKIE, VARY};
use http::{Method, StatusCode};

use super::{Host, failure};
use crate::error::{Error, Result};
use crate::message::{Body, MessageError, Request, RequestParts, Response};
use crate::session::{Access, Commit, CookieChange, Session, SessionError};
use crate::sys::log::log;

impl Host {
    /// Load, call, commit, respond. Never panics; every failure is a response. When it returns, the session is
    /// committed and no lock is held.
    pub(crate) fn respond(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        // Whatever panics is the application's: its callback, or a rule that it set. A session that was left half changed
        // is dropped with it, not saved, so nobody sees it again. The panic hook has told where and why.
        let work = catch_unwind(AssertUnwindSafe(|| self.work(&parts, body)));
        let mut response = match work.unwrap_or_else(|_| Err(Error::message("the application panicked"))) {
            Ok(response) => response,
            Err(error) => {
                let status = failure::status(&error);
                // Whoever sends those away says so itself, and not for each: a client can make thousands of them.
                if !matches!(error.downcast_ref(), Some(SessionError::TooManyWaiters)) {
                    log!(
                        "request failed status={} method={} path={} error={error}",
                        status.as_u16(),
                        parts.method,
                        parts.path()
                    );
                }
                failure::response(status)
            }
        };
        crate::message::conditional::finish(&parts, &mut response);
        response
    }

    fn work(&self, parts: &Arc<RequestParts>, mut body: Body) -> Result<Response> {
        if let Some(response) = to_the_slash(parts) {
            return Ok(response);
        }
        let (access, repeatable) = match &self.access {
            None => (default_access(parts), false),
            Some(rule) => {
                let request = Request::new(parts.clone(), body);
                let access = rule(&request);
                body = request.into_body();
                (access, access == Access::Optimistic && parts.has_body())
            }
        };
        let kept = if repeatable {
            let bytes = body.into_bytes().map_err(MessageError::from_body)?;
            body = bytes.clone().into();
            Some(bytes)
        } else {
            None
        };
        let mut session = Session::new(self.manager.clone(), parts.clone(), access);
        loop {
            let response = (self.application)(Request::new(parts.clone(), body), &mut session)?;
            let used = session.was_used();
            match session.commit().map_err(unsaved)? {
                Commit::Done(change) => return Ok(self.with_session_fields(parts, response, used, change)),
                Commit::Again(again) => {
                    // Only an optimistic request comes here, and an optimistic request has no message-body or a kept one.
                    session = *again;
                    body = kept.clone().map(Body::from).unwrap_or_default();
                }
            }
        }
    }

    fn with_session_fields(
        &self,
        parts: &RequestParts,
        mut response: Response,
        used: bool,
        change: CookieChange,
    ) -> Response {
        let Some(manager) = self.manager.as_ref().filter(|_| used) else { return response };
        let headers = response.headers_mut();
        // What was made for one session is nobody else's (CVE-2023-30861).
        headers.append(VARY, HeaderValue::from_static("Cookie"));
        let cookie = match change {
            CookieChange::Keep => None,
            CookieChange::HandOut(id, lifetime) => Some(manager.cookie.hand_out(&id, lifetime, parts)),
            CookieChange::Revoke => Some(manager.cookie.revoke(parts)),
        };
        // An application may let a page be cached, but never one that hands out an ID.
        if cookie.is_some() || !headers.contains_key(CACHE_CONTROL) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if let Some(cookie) = cookie {
            headers.append(SET_COOKIE, cookie);
        }
        response
    }
}

/// The cookie's `Path` is the mount and a slash, so a page at the bare mount would never see its session again: its
/// visitors are sent to the page with the slash.
fn to_the_slash(parts: &RequestParts) -> Option<Response> {
    let is_bare = parts.path_info.is_empty() && !parts.script_name.is_empty();
    if !is_bare || !matches!(parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    let path = parts.encoded_mount();
    let query = parts.meta.get_str("QUERY_STRING").filter(|query| !query.is_empty());
    let location = match query {
        Some(query) => format!("{path}/?{query}"),
        None => format!("{path}/"),
    };
    Response::redirect(&location).ok()
}

/// A session that could not be saved is a 500, never a 200; that somebody held its lock all the time is a 503.
fn unsaved(error: SessionError) -> Error {
    match error {
        SessionError::Store(_) => Error::from(error).with_status(StatusCode::INTERNAL_SERVER_ERROR),
        other => other.into(),
    }
}

fn default_access(parts: &RequestParts) -> Access {
    match parts.method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE if !parts.has_body() => Access::Optimistic,
        _ => Access::Exclusive,
    }
}
