//! A request, as the application sees it.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};

use super::{Body, Deadline, Form, FormLimits, MessageError, MetaVariables};

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
    pub(crate) deadline: Deadline,
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

    /// The path below the mount as text: `PATH_INFO`, percent-decoded, `/` where it is empty. Bytes that are not UTF-8
    /// are replaced; [`path_info`](Self::path_info) has them.
    pub fn path(&self) -> &str {
        self.parts.path()
    }

    /// `PATH_INFO` (RFC 3875 section 4.1.5): what follows the mount, percent-decoded, as bytes.
    pub fn path_info(&self) -> &[u8] {
        &self.parts.path_info
    }

    /// `SCRIPT_NAME` (RFC 3875 section 4.1.13): where the application is mounted; empty for the root of the site.
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

    /// The address of the client: `REMOTE_ADDR`, or what a trusted proxy forwarded.
    pub fn client_address(&self) -> Option<IpAddr> {
        self.parts.client_address
    }

    /// When this request must be answered: the hard deadline (`--request-timeout`). What is not answered by then is given
    /// up: the client gets 504, nothing is saved, and the worker is replaced. `None` where there is no such limit, as
    /// under CGI, where the web server has its own.
    pub fn deadline(&self) -> Option<Instant> {
        self.parts.deadline.at()
    }

    /// Puts both deadlines of this request off, by so much each time it is called: for work that is known to take long
    /// and that shows that it goes on. A request that does not end is then given up so much later.
    pub fn extend_deadline(&self, by: Duration) {
        self.parts.deadline.extend(by);
    }

    /// `path` below the mount, as a link in a page needs it: `request.link("/login")`.
    pub fn link(&self, path: &str) -> String {
        self.parts.encoded_mount() + path
    }

    /// The value of the first cookie of this name, if there is one. Names are compared exactly and nothing is decoded.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The cookies in the order they were sent, names and values as they came.
    ///
    /// At most 64 pairs of the first 8 KiB are looked at; a pair without a name is left out (CVE-2023-23934), and so is
    /// one that is not UTF-8.
    pub fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.cookies()
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

    /// Reads the message-body as a form, `application/x-www-form-urlencoded` or `multipart/form-data` (RFC 7578). A
    /// request without a message-body has an empty form, and so has one whose message-body was read before.
    ///
    /// # Errors
    /// * [`NotAForm`](MessageError::NotAForm): the Content-Type is another one.
    /// * [`MalformedForm`](MessageError::MalformedForm): it is not what its Content-Type says, or a field is not UTF-8.
    /// * [`FormTooLarge`](MessageError::FormTooLarge): it passes one of the [`FormLimits`].
    /// * [`BodyTooLarge`](MessageError::BodyTooLarge), [`Body`](MessageError::Body): the message-body passes the
    ///   server's limit, or cannot be read to its end.
    /// * [`Upload`](MessageError::Upload): there is no room for the files it carries.
    pub fn form(&mut self) -> Result<Form, MessageError> {
        let content_type = self.parts.meta.get_str("CONTENT_TYPE").unwrap_or_default();
        Form::read(content_type, std::mem::take(&mut self.body), &self.parts.form_limits)
    }

    /// The message-body. Past the server's limit, reading it fails with an [`io::Error`](std::io::Error) that holds
    /// [`BodyTooLarge`](MessageError::BodyTooLarge); [`MessageError::from_body`] takes it out.
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
    /// The mount as it stands in a URL or in a cookie's `Path`: it was decoded, and a byte that cannot stand there would
    /// end it.
    pub(crate) fn encoded_mount(&self) -> String {
        percent_encoding::utf8_percent_encode(&self.script_name, PATH).to_string()
    }

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
            // The usual number; CGI's environment has many more variables that are none.
            let mut headers = HeaderMap::with_capacity(self.meta.len().min(64));
            for (name, value) in self.meta.iter() {
                // CONTENT_TYPE and CONTENT_LENGTH stand without the prefix (RFC 3875 section 4.1.18), and no header
                // field may become HTTP_PROXY, which programs take for a proxy of their own (CVE-2016-5385).
                let field = match name.strip_prefix(b"HTTP_") {
                    Some(b"CONTENT_TYPE" | b"CONTENT_LENGTH" | b"PROXY") => continue,
                    Some(field) => field,
                    None if matches!(name, b"CONTENT_TYPE" | b"CONTENT_LENGTH") && !value.is_empty() => name,
                    None => continue,
                };
                // Fields come in capitals. Another spelling would be a second value of the same field, or `PROxY`.
                if field.iter().any(|b| b.is_ascii_lowercase() || *b == b'-') {
                    continue;
                }
                let field: Vec<u8> =
                    field.iter().map(|&b| if b == b'_' { b'-' } else { b.to_ascii_lowercase() }).collect();
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&field), HeaderValue::from_bytes(value))
                    && headers.try_append(name, value).is_err()
                {
                    // Tens of thousands: more than the map can hold, and than any server lets through.
                    break;
                }
            }
            headers
        })
    }

    /// The pairs of the Cookie header field, as they came.
    pub(crate) fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        super::cookies::pairs(&self.meta)
    }

    /// Whether a message-body was announced.
    pub(crate) fn has_body(&self) -> bool {
        self.meta.get("HTTP_TRANSFER_ENCODING").is_some()
            || self.meta.get("CONTENT_LENGTH").is_some_and(|length| !matches!(length, b"" | b"0"))
    }
}

/// What is encoded: all but what stands in a path as it is (RFC 3986), and the semicolon that would end a cookie's.
const PATH: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'+')
    .remove(b'@')
    .remove(b':');

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.parts.method)
            .field("path", &self.path())
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Request {
    /// A request for tests, as a server at `http://example.org` without a mount would make it.
    pub(crate) fn test(method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Self {
        let body = body.into();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut meta = MetaVariables::new();
        if let Some(length) = body.length().filter(|length| *length > 0) {
            meta.push("CONTENT_LENGTH", length.to_string());
        }
        for (name, value) in [
            ("REQUEST_METHOD", method),
            ("REQUEST_URI", target),
            ("QUERY_STRING", query),
            ("SCRIPT_NAME", ""),
            ("PATH_INFO", path),
            ("SERVER_NAME", "example.org"),
            ("SERVER_PORT", "80"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("REMOTE_ADDR", "192.0.2.1"),
        ] {
            meta.push(name, value);
        }
        for (name, value) in headers {
            let name = name.to_ascii_uppercase().replace('-', "_");
            let prefix = if name == "CONTENT_TYPE" { "" } else { "HTTP_" };
            meta.push(format!("{prefix}{name}"), value);
        }
        let path_info = percent_encoding::percent_decode_str(path).collect();
        Self::new(Arc::new(RequestParts::test(meta, method, path_info)), body)
    }
}

#[cfg(test)]
impl RequestParts {
    fn test(meta: MetaVariables, method: &str, path_info: Vec<u8>) -> Self {
        Self {
            meta,
            method: method.parse().expect("a method"),
            script_name: String::new(),
            path_info,
            secure: false,
            client_address: Some([192, 0, 2, 1].into()),
            authority: "example.org".to_owned(),
            form_limits: FormLimits::default(),
            headers: OnceLock::new(),
            path: OnceLock::new(),
            uri: OnceLock::new(),
            deadline: Deadline::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_meta<const N: usize>(pairs: [(&str, &[u8]); N]) -> Request {
        let mut meta = MetaVariables::new();
        for (name, value) in pairs {
            meta.push(name, value);
        }
        Request::new(Arc::new(RequestParts::test(meta, "GET", Vec::new())), Body::empty())
    }

    #[test]
    fn header_fields_are_those_of_the_meta_variables() {
        let request = with_meta([
            ("CONTENT_TYPE", b"text/plain"),
            ("HTTP_CONTENT_TYPE", b"text/html"),
            ("CONTENT_LENGTH", b""),
            ("HTTP_CONTENT_LENGTH", b"7"),
            ("HTTP_HOST", b"example.org"),
            ("HTTP_X_FORWARDED_FOR", b"192.0.2.7"),
            ("HTTP_X_FORWARDED_FOR", b"192.0.2.8"),
            ("HTTP_PROXY", b"http://evil.example"),
            ("HTTP_LATIN", b"caf\xe9"),
            ("HTTP_NO NAME", b"1"),
            ("HTTP_N\u{e9}", b"1"),
            ("HTTP_", b"1"),
            ("HTTP_LINES", b"1\r\nX: 2"),
            ("HTTP_NUL", b"\0"),
            ("SERVER_NAME", b"example.org"),
        ]);
        let headers = request.headers();
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "host", "latin", "x-forwarded-for"]);
        assert_eq!(headers["content-type"], "text/plain");
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 2);
        assert_eq!(headers["latin"].as_bytes(), b"caf\xe9");
        assert_eq!(request.header("Latin"), None);
        assert_eq!(request.header("Host"), Some("example.org"));
        assert_eq!(request.meta().get("HTTP_LINES"), Some(&b"1\r\nX: 2"[..]));
    }

    /// A server that passes names on as it got them would let a client get around what is looked for in capitals.
    #[test]
    fn a_name_that_differs_in_case_only_is_no_header_field() {
        let request = with_meta([
            ("HTTP_PROxY", b"http://evil.example"),
            ("HTTP_HOST", b"example.org"),
            ("HTTP_Host", b"evil.example"),
            ("HTTP_X-FORWARDED-FOR", b"192.0.2.7"),
            ("HTTP_Content-Length", b"7"),
        ]);
        let headers: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(headers, [("host", &b"example.org"[..])]);
    }

    #[test]
    fn any_number_of_meta_variables_is_survived() {
        let mut meta = MetaVariables::new();
        for i in 0..50_000 {
            meta.push(format!("HTTP_X_{i}"), "1");
        }
        let parts = RequestParts::test(meta, "GET", Vec::new());
        assert!(parts.headers().len() > 1000);
    }

    #[test]
    fn header_names_and_values_with_any_byte() {
        for byte in 0..=255 {
            for text in [vec![byte], vec![byte, b'a', b'b'], vec![b'a', byte, b'b'], vec![b'a', b'b', byte]] {
                let mut meta = MetaVariables::new();
                meta.push([b"HTTP_".to_vec(), text.clone()].concat(), "1");
                meta.push("HTTP_VALUE", &text);
                let parts = RequestParts::test(meta, "GET", Vec::new());
                for (name, value) in parts.headers() {
                    let bytes = [name.as_str().as_bytes(), value.as_bytes()].concat();
                    assert!(bytes.iter().all(|b| !matches!(b, b'\r' | b'\n' | 0)), "{byte}");
                }
            }
        }
    }

    #[test]
    fn paths_and_links() {
        let request = Request::test("GET", "/a%20b/%C3%A9?x=1&y=a+b&x=%32", &[], "");
        assert_eq!(request.path(), "/a b/é");
        assert_eq!(request.path_info(), "/a b/é".as_bytes());
        assert_eq!(request.uri().path(), "/a%20b/%C3%A9");
        assert_eq!(request.query_value("x").as_deref(), Some("1"));
        assert_eq!(request.query_value("y").as_deref(), Some("a b"));
        assert_eq!(request.query().count(), 3);
        assert_eq!(request.query_value("z"), None);
        assert_eq!(request.link("/x"), "/x");
        assert_eq!((request.scheme(), request.authority()), ("http", "example.org"));
        assert!(!request.is_secure());
        assert_eq!(request.client_address(), Some([192, 0, 2, 1].into()));

        assert_eq!(Request::test("GET", "/%FF", &[], "").path(), "/\u{fffd}");
        assert_eq!(with_meta([]).path(), "/");
        assert_eq!(with_meta([]).uri(), "/");
        assert_eq!(with_meta([("REQUEST_URI", b"\xff\0")]).uri(), "/");
    }

    #[test]
    fn cookies_by_exact_name() {
        let request = Request::test("GET", "/", &[("Cookie", "a=1; session=2; session=3; sess%69on=4; =5")], "");
        assert_eq!(request.cookie("session"), Some("2"));
        assert_eq!(request.cookies().filter(|(name, _)| *name == "session").count(), 2);
        assert_eq!(request.cookie("Session"), None);
        assert_eq!(request.cookie(""), None);
        assert_eq!(with_meta([]).cookies().count(), 0);
    }

    #[test]
    fn a_form_is_read_once() {
        let kind = ("Content-Type", "application/x-www-form-urlencoded");
        let mut request = Request::test("POST", "/", &[kind], "a=1");
        assert!(request.parts.has_body());
        assert_eq!(request.form().unwrap().value("a"), Some("1"));
        assert_eq!(request.form().unwrap().value("a"), None);
        assert!(matches!(Request::test("POST", "/", &[], "a=1").form(), Err(MessageError::NotAForm)));
        assert!(!Request::test("POST", "/", &[kind], "").parts.has_body());
    }

    #[test]
    fn becomes_the_request_of_other_libraries() {
        let request = Request::test("PUT", "/x?y", &[("X-A", "1")], "body").into_http();
        assert_eq!((request.method().as_str(), request.uri().to_string()), ("PUT", "/x?y".to_owned()));
        assert_eq!(request.headers()["x-a"], "1");
        assert_eq!(request.into_body().into_bytes().unwrap(), "body");
    }

    #[test]
    fn debug_shows_no_secrets() {
        let request = Request::test("GET", "/p?token=secret", &[("Cookie", "session=secret")], "secret");
        assert!(!format!("{request:?}").contains("secret"));
    }
}
