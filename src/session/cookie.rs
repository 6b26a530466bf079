//! The session ID cookie (RFC 6265).

use std::time::Duration;

use cookie::{Cookie, SameSite};
use http::HeaderValue;

use super::Id;
use crate::message::RequestParts;

/// How the session ID cookie is sent.
///
/// Always `HttpOnly`; `Secure` whenever the request came by HTTPS; `Path` is the application's mount; no `Domain`.
#[derive(Clone, Debug)]
pub struct CookiePolicy {
    name: String,
    same_site: SameSite,
    always_secure: bool,
    persistent: bool,
}

impl Default for CookiePolicy {
    fn default() -> Self {
        Self { name: "session".into(), same_site: SameSite::Lax, always_secure: false, persistent: false }
    }
}

impl CookiePolicy {
    /// A cookie with this cookie-name (default `session`, which tells nothing of the software).
    ///
    /// # Panics
    /// If the name is no cookie-name: a token of RFC 9110.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        assert!(!name.is_empty() && name.bytes().all(is_token), "invalid cookie-name {name:?}");
        self.name = name;
        self
    }

    /// `SameSite=Strict` in place of `Lax`: the session is then absent when a visitor follows a link from elsewhere.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.same_site = SameSite::Strict;
        self
    }

    /// `Secure` even on requests that do not look like HTTPS: for servers behind a proxy that does not say so.
    #[must_use]
    pub fn always_secure(mut self) -> Self {
        self.always_secure = true;
        self
    }

    /// Persistent: the user agent keeps it, for as long as the session may live, after it is closed.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    pub(super) fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// The well-formed IDs in the request's cookies of this name, in their order, at most four: a user agent sends
    /// several where the application was mounted at several paths.
    pub(crate) fn read(&self, request: &RequestParts) -> impl Iterator<Item = Id> {
        let mine = request.cookies().filter(|(name, _)| *name == self.name);
        mine.filter_map(|(_, value)| Id::parse(value)).take(4)
    }

    /// The value of a `Set-Cookie` header field that hands out `id`, to be kept for `lifetime` where it is persistent.
    pub(crate) fn hand_out(&self, id: &Id, lifetime: Duration, request: &RequestParts) -> HeaderValue {
        let max_age = self.persistent.then_some(lifetime.as_secs());
        self.field(&id.to_text(), max_age, request)
    }

    /// The value of a `Set-Cookie` header field that takes the cookie back.
    pub(crate) fn revoke(&self, request: &RequestParts) -> HeaderValue {
        self.field("", Some(0), request)
    }

    fn field(&self, value: &str, max_age: Option<u64>, request: &RequestParts) -> HeaderValue {
        // The mount was decoded, and a byte that cannot stand in an attribute would start another one.
        let path = request.encoded_mount() + "/";
        let mut cookie =
            Cookie::build((self.name.as_str(), value)).path(path).http_only(true).same_site(self.same_site);
        if self.always_secure || request.secure {
            cookie = cookie.secure(true);
        }
        let mut text = cookie.build().to_string();
        if let Some(seconds) = max_age {
            use std::fmt::Write as _;
            let _ = write!(text, "; Max-Age={seconds}");
        }
        HeaderValue::from_str(&text).expect("a checked name, hexadecimal digits and an encoded path")
    }
}
