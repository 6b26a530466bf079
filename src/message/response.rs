//! A response, as the application makes it.

use std::fmt;
use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use serde::Serialize;

use super::{Body, MessageError};

/// A response: an [`http::Response`] with a [`Body`], and short ways to make the usual ones.
///
/// It dereferences to [`http::Response<Body>`], so `status_mut`, `headers_mut` and the rest are there.
#[derive(Default)]
pub struct Response(http::Response<Body>);

impl Response {
    /// A response with this status and no message-body.
    pub fn new(status: StatusCode) -> Self {
        let mut response = Self::default();
        *response.status_mut() = status;
        response
    }

    /// 200 with plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::of("text/plain; charset=utf-8", text.into().into())
    }

    /// 200 with an HTML page.
    pub fn html(page: impl Into<String>) -> Self {
        Self::of("text/html; charset=utf-8", page.into().into())
    }

    /// 200 with bytes of this media type.
    pub fn bytes(content_type: &'static str, bytes: impl Into<bytes::Bytes>) -> Self {
        Self::of(content_type, bytes.into().into())
    }

    /// 200 with `value` as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, MessageError> {
        let text = serde_json::to_vec(value).map_err(MessageError::Json)?;
        Ok(Self::of("application/json", text.into()))
    }

    /// 200 with a message-body that is read while it is sent; its end closes it.
    ///
    /// The session is committed before the first byte is read.
    pub fn stream(content_type: &'static str, reader: impl Read + Send + 'static) -> Self {
        Self::of(content_type, Body::from_reader(reader, None))
    }

    /// 303 See Other: the client goes to `location` with GET. A relative reference is made absolute before it is sent,
    /// since front servers treat others as redirects of their own and lose the cookie (RFC 3875 section 6.2.2).
    ///
    /// # Errors
    /// Where `location` has a byte that no header field may carry.
    pub fn redirect(location: &str) -> Result<Self, MessageError> {
        let mut response = Self::of("text/plain; charset=utf-8", "See Other\n".into());
        *response.status_mut() = StatusCode::SEE_OTHER;
        let location = HeaderValue::from_str(location).map_err(|_| MessageError::InvalidResponse("Location"))?;
        response.headers_mut().insert(LOCATION, location);
        Ok(response)
    }

    /// 200 with the contents of a file: Content-Type by its extension, Last-Modified by its modification time. A
    /// conditional request is answered with 304 where it says so.
    ///
    /// # Errors
    /// Where the file cannot be opened or is no regular file.
    pub fn file(path: impl AsRef<Path>) -> Result<Self, MessageError> {
        super::file::response(path.as_ref())
    }

    /// The same response with this status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        *self.status_mut() = status;
        self
    }

    /// The same response with this header field, replacing any of the same name.
    ///
    /// # Errors
    /// Where the value has a byte that no header field may carry: CR, LF and NUL never leave.
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Result<Self, MessageError> {
        let value = HeaderValue::from_str(value).map_err(|_| MessageError::InvalidResponse("header field"))?;
        self.headers_mut().insert(name, value);
        Ok(self)
    }

    pub(crate) fn of(content_type: &'static str, body: Body) -> Self {
        let mut response = Self(http::Response::new(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    /// The `http` crate's own type.
    pub fn into_http(self) -> http::Response<Body> {
        self.0
    }
}

impl Deref for Response {
    type Target = http::Response<Body>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Response {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<B: Into<Body>> From<http::Response<B>> for Response {
    fn from(response: http::Response<B>) -> Self {
        Self(response.map(Into::into))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status()).field("body", self.body()).finish_non_exhaustive()
    }
}
