//! A response, as the application makes it.

use std::fmt;
use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, SET_COOKIE};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use super::{Body, Cookie, MessageError};

/// What a URI cannot hold (RFC 3986 section 2) and browsers encode, or worse, take for a slash: the backslash.
const NOT_IN_A_URI: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

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
    /// Characters that no URI holds (RFC 3986), such as spaces, backslashes and letters outside of ASCII, are
    /// percent-encoded; a percent sign stays, as what is encoded already must not be encoded twice. Whether a
    /// `location` that a client named is one of yours is not checked.
    ///
    /// # Errors
    /// Where `location` has a control character: CR, LF and NUL never leave.
    pub fn redirect(location: &str) -> Result<Self, MessageError> {
        let mut response = Self::of("text/plain; charset=utf-8", "See Other\n".into());
        *response.status_mut() = StatusCode::SEE_OTHER;
        // Encoding them would be safe too, but they are a sign of an attack or a mistake.
        let location = if location.bytes().any(|b| b.is_ascii_control()) {
            None
        } else {
            HeaderValue::try_from(utf8_percent_encode(location, NOT_IN_A_URI).to_string()).ok()
        };
        let location = location.ok_or(MessageError::InvalidResponse("Location"))?;
        response.headers_mut().insert(LOCATION, location);
        Ok(response)
    }

    /// 200 with the contents of a file: Content-Type by its extension, Last-Modified by its modification time. A
    /// conditional request is answered with 304 where it says so (RFC 9110 section 13).
    ///
    /// Never make `path` of what a client sent: it goes wherever its `..` and symbolic links lead.
    ///
    /// # Errors
    /// Where the file cannot be opened or is no regular file. One that is not there has status 404.
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

    /// Sends a cookie, besides those that are sent already (RFC 6265). A value is text from the letters, digits and
    /// marks of ASCII without space, comma, semicolon, backslash and quotes; encode any other.
    ///
    /// ```
    /// # use cloakroom::Response;
    /// use cloakroom::message::Cookie;
    ///
    /// let mut response = Response::text("hello\n");
    /// response.set_cookie(Cookie::build(("theme", "dark")).path("/").http_only(true))?;
    /// assert_eq!(response.headers()["set-cookie"], "theme=dark; HttpOnly; Path=/");
    /// assert!(response.set_cookie(("theme", "dark\r\nX-Evil: 1")).is_err());
    /// # Ok::<(), cloakroom::message::MessageError>(())
    /// ```
    ///
    /// # Errors
    /// Where its name, value, path or domain has a byte that RFC 6265 section 4.1.1 does not allow there, or name and
    /// value together pass 4,096 bytes, from where browsers drop it. Nothing is sent then.
    pub fn set_cookie<'c>(&mut self, cookie: impl Into<Cookie<'c>>) -> Result<(), MessageError> {
        let value = super::cookies::set_cookie(&cookie.into())?;
        self.headers_mut().append(SET_COOKIE, value);
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_usual_responses() {
        for (response, content_type, body) in [
            (Response::text("a"), "text/plain; charset=utf-8", "a"),
            (Response::html("<p>"), "text/html; charset=utf-8", "<p>"),
            (Response::bytes("image/png", &b"x"[..]), "image/png", "x"),
            (Response::json(&[1, 2]).unwrap(), "application/json", "[1,2]"),
            (Response::stream("text/csv", &b"1,2"[..]), "text/csv", "1,2"),
        ] {
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[CONTENT_TYPE], content_type);
            assert_eq!(response.into_http().into_body().into_bytes().unwrap(), body);
        }
        let response = Response::new(StatusCode::NOT_FOUND);
        assert!(response.body().is_empty() && response.headers().is_empty());
        assert_eq!(Response::text("").with_status(StatusCode::GONE).status(), StatusCode::GONE);
        let response: Response = http::Response::builder().status(202).body("x").unwrap().into();
        assert_eq!((response.status(), response.body().length()), (StatusCode::ACCEPTED, Some(1)));
    }

    #[test]
    fn what_json_cannot_hold_is_an_error() {
        assert!(matches!(Response::json(&BTreeMap::from([((1, 2), 3)])), Err(MessageError::Json(_))));
    }

    #[test]
    fn a_redirect_goes_where_it_says() {
        for (location, sent) in [
            ("/login?next=/a&b=%20#top", "/login?next=/a&b=%20#top"),
            ("https://[2001:db8::1]:8443/~x", "https://[2001:db8::1]:8443/~x"),
            ("/a b/é", "/a%20b/%C3%A9"),
            ("/\\evil.example", "/%5Cevil.example"),
        ] {
            let response = Response::redirect(location).unwrap();
            assert_eq!(response.status(), StatusCode::SEE_OTHER);
            assert_eq!(response.headers()[LOCATION], sent);
            assert!(!response.body().is_empty());
        }
    }

    #[test]
    fn no_byte_breaks_out_of_a_header_field() {
        for byte in 0..=255 {
            let odd = char::from(byte);
            let is_control = odd.is_ascii_control();
            for text in [format!("{odd}"), format!("{odd}ab"), format!("a{odd}b"), format!("ab{odd}")] {
                let name = HeaderName::from_static("x-test");
                let header = Response::text("").with_header(name.clone(), &text);
                let redirect = Response::redirect(&text);
                assert_eq!(header.is_err(), is_control && odd != '\t', "{byte}");
                assert_eq!(redirect.is_err(), is_control, "{byte}");
                for (response, name) in [(header, name), (redirect, LOCATION)] {
                    if let Ok(response) = response {
                        let sent = response.headers()[name].as_bytes();
                        assert!(sent.iter().all(|b| !matches!(b, b'\r' | b'\n' | 0)), "{byte}");
                    }
                }
            }
        }
    }

    #[test]
    fn cookies_add_up_and_a_bad_one_changes_nothing() {
        let mut response = Response::text("");
        response.set_cookie(("a", "1")).unwrap();
        response.set_cookie(Cookie::build(("a", "2")).path("/x")).unwrap();
        for cookie in [("a\r\nX", "1"), ("a", "1; Domain=evil"), ("a", "1\n")] {
            assert!(matches!(response.set_cookie(cookie), Err(MessageError::InvalidResponse(_))));
        }
        let parsed = Cookie::parse("a=1; Path=/\r\nX: y").unwrap();
        assert!(response.set_cookie(parsed).is_err());
        let sent: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
        assert_eq!(sent, ["a=1", "a=2; Path=/x"]);
    }
}
