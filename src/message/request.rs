//! A request, as the application sees it.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};

use super::{Body, Form, FormLimits, MessageError, MetaVariables};

/// A request: meta-variables, the header fields and paths derived from them, and a message-body to be read once.
///
/// The parts are made when they are first asked for.
pub struct Request {
    parts: Arc<RequestParts>,
    body: Body,
}

/// Everything but the message-body, so that a request can be handed to the application a second time.
pub(crate) struct RequestParts {
    pub(crate) meta: MetaVariables,
    pub(crate) method: Method,
    /// The mount: no slash at its end, empty for the root.
    pub(crate) script_name: String,
    /// What follows the mount, percent-decoded: empty or starting with a slash.
    pub(crate) path_info: Vec<u8>,
    pub(crate) secure: bool,
    pub(crate) client_address: Option<IpAddr>,
    /// `host[:port]`, checked.
    pub(crate) authority: String,
    pub(crate) form_limits: FormLimits,
    pub(crate) headers: OnceLock<HeaderMap>,
    pub(crate) path: OnceLock<String>,
    pub(crate) uri: OnceLock<Uri>,
}

impl Request {
    pub(crate) fn new(parts: Arc<RequestParts>, body: Body) -> Self {
        Self { parts, body }
    }

    pub(crate) fn into_parts(self) -> (Arc<RequestParts>, Body) {
        (self.parts, self.body)
    }

    /// The request method.
    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    /// The path below the mount as text: PATH_INFO, percent-decoded, `/` where it is empty. Bytes that are not UTF-8
    /// are replaced; [`path_info`](Self::path_info) has them.
    pub fn path(&self) -> &str {
        self.parts.path()
    }

    /// PATH_INFO (RFC 3875 section 4.1.5): what follows the mount, percent-decoded, as bytes.
    pub fn path_info(&self) -> &[u8] {
        &self.parts.path_info
    }

    /// SCRIPT_NAME (RFC 3875 section 4.1.13): where the application is mounted; empty for the root of the site.
    pub fn script_name(&self) -> &str {
        &self.parts.script_name
    }

    /// The request target as it was sent, still encoded, with its query.
    pub fn uri(&self) -> &Uri {
        self.parts.uri()
    }

    /// The header fields. A field with a byte that HTTP does not allow in a value is found in
    /// [`meta`](Self::meta) only.
    pub fn headers(&self) -> &HeaderMap {
        self.parts.headers()
    }

    /// The value of a header field as text, if it is there and is visible ASCII.
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// The meta-variables (RFC 3875 section 4.1), as the server sent them.
    pub fn meta(&self) -> &MetaVariables {
        &self.parts.meta
    }

    /// Whether the client's connection is encrypted: by the server's `HTTPS` or `REQUEST_SCHEME`, or by the
    /// forwarding header fields of a trusted proxy.
    pub fn is_secure(&self) -> bool {
        self.parts.secure
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        self.parts.scheme()
    }

    /// The host, with its port where it is not the scheme's own, as the client named it.
    pub fn authority(&self) -> &str {
        &self.parts.authority
    }

    /// The address of the client: REMOTE_ADDR, or what a trusted proxy forwarded.
    pub fn client_address(&self) -> Option<IpAddr> {
        self.parts.client_address
    }

    /// `path` below the mount, as a link in a page needs it: `request.link("/login")`.
    pub fn link(&self, path: &str) -> String {
        format!("{}{path}", self.parts.script_name)
    }

    /// The value of the first cookie of this name, if there is one. Names are compared exactly and nothing is decoded.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        cookies(&self.parts.meta).find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The cookies in the order they were sent, names and values as they came.
    ///
    /// At most 64 pairs of the first 8 KiB are looked at; a pair without a name is left out (CVE-2023-23934).
    pub fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        cookies(&self.parts.meta)
    }

    /// The fields of the query, decoded, in the order they came.
    pub fn query(&self) -> impl Iterator<Item = (String, String)> + '_ {
        form_urlencoded::parse(self.parts.meta.get("QUERY_STRING").unwrap_or_default())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
    }

    /// The first field of this name in the query.
    pub fn query_value(&self, name: &str) -> Option<String> {
        self.query().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// Reads the message-body as a form, `application/x-www-form-urlencoded` or `multipart/form-data`. A request
    /// without a message-body has an empty form.
    ///
    /// # Errors
    /// Where it is no form or a malformed one, and where it passes a limit ([`FormLimits`]).
    pub fn form(&mut self) -> Result<Form, MessageError> {
        let content_type = self.parts.meta.get_str("CONTENT_TYPE").unwrap_or_default();
        Form::read(content_type, std::mem::take(&mut self.body), &self.parts.form_limits)
    }

    /// The message-body, a reader that fails with 413 past its limit.
    pub fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    /// The message-body by itself.
    pub fn into_body(self) -> Body {
        self.body
    }

    /// The same request as the `http` crate's type, for code that is written against it.
    pub fn into_http(self) -> http::Request<Body> {
        let mut request = http::Request::new(self.body);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = self.parts.uri().clone();
        *request.headers_mut() = self.parts.headers().clone();
        request
    }
}

impl RequestParts {
    pub(crate) fn path(&self) -> &str {
        self.path.get_or_init(|| match self.path_info.as_slice() {
            b"" => "/".to_owned(),
            path => String::from_utf8_lossy(path).into_owned(),
        })
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    pub(crate) fn uri(&self) -> &Uri {
        self.uri.get_or_init(|| {
            let target = self.meta.get("REQUEST_URI").unwrap_or(b"/");
            Uri::try_from(target).unwrap_or_else(|_| Uri::from_static("/"))
        })
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.headers.get_or_init(|| {
            let mut headers = HeaderMap::with_capacity(self.meta.len());
            for (name, value) in self.meta.iter() {
                // CONTENT_TYPE and CONTENT_LENGTH stand without the prefix (RFC 3875 section 4.1.18).
                let field = match name.strip_prefix(b"HTTP_") {
                    Some(b"CONTENT_TYPE" | b"CONTENT_LENGTH") => continue,
                    Some(field) => field,
                    None if matches!(name, b"CONTENT_TYPE" | b"CONTENT_LENGTH") && !value.is_empty() => name,
                    None => continue,
                };
                let field: Vec<u8> =
                    field.iter().map(|&b| if b == b'_' { b'-' } else { b.to_ascii_lowercase() }).collect();
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&field), HeaderValue::from_bytes(value)) {
                    headers.append(name, value);
                }
            }
            headers
        })
    }

    /// Whether a message-body was announced.
    pub(crate) fn has_body(&self) -> bool {
        self.meta.get("HTTP_TRANSFER_ENCODING").is_some()
            || self.meta.get("CONTENT_LENGTH").is_some_and(|length| !matches!(length, b"" | b"0"))
    }
}

/// The pairs of the Cookie header field, raw: decoding names is CVE-2021-41819.
pub(crate) fn cookies(meta: &MetaVariables) -> impl Iterator<Item = (&str, &str)> {
    const HEADER_LIMIT: usize = 8 * 1024;
    const PAIR_LIMIT: usize = 64;
    let header = meta.get("HTTP_COOKIE").unwrap_or_default();
    // A cut inside a pair would make another cookie of it, so a header past the limit loses its last pair whole.
    let header = match header.get(..HEADER_LIMIT) {
        Some(start) if header.len() > HEADER_LIMIT => match start.iter().rposition(|&b| b == b';') {
            Some(end) => &start[..end],
            None => &[],
        },
        _ => header,
    };
    cookie::Cookie::split_parse(std::str::from_utf8(header).unwrap_or_default())
        .take(PAIR_LIMIT)
        .filter_map(Result::ok)
        .filter_map(|cookie| Some((cookie.name_raw()?, cookie.value_raw()?)))
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.parts.method)
            .field("path", &self.path())
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}
