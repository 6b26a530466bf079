//! The one seam between transports: meta-variables to a request.
//!
//! Where `SCRIPT_NAME` ends and `PATH_INFO` begins is taken from the server only under CGI. Over SCGI nginx sends
//! neither and Apache puts the whole path into `SCRIPT_NAME`, so there and over HTTP the path comes from `REQUEST_URI`
//! and is split at the configured mount.
//!
//! A path is percent-decoded once, and then kept as it is: repeated slashes stay, an encoded slash is a slash, and dot
//! segments are not resolved. A path whose dot segments lead out of the mount is answered with 404, so that a front
//! server that resolves them and one that does not agree on which application it is for. Within the mount they are
//! left to the application, which must resolve or refuse them before it makes file names of them.

use std::sync::{Arc, OnceLock};

use http::Method;
use ipnet::IpNet;

use super::GatewayError;
use super::number::decimal;
use super::origin::{self, Origin};
use crate::message::{Body, FormLimits, MetaVariables, Request, RequestParts};

/// Who filled the meta-variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// The server, in the environment: `SCRIPT_NAME` and `PATH_INFO` are right.
    Cgi,
    /// A web server that speaks SCGI: `SCRIPT_NAME` and `PATH_INFO` are derived from `REQUEST_URI` and the mount.
    Scgi,
    /// Our own HTTP codec; the peer is the client or a proxy.
    Http,
}

/// What a deployment configures about where requests come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    /// The mount, as it was configured: slashes at its ends do not matter. `None` where it was not.
    pub(crate) script_name: Option<String>,
    /// Peers whose forwarding header fields are believed.
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) form_limits: FormLimits,
}

/// Makes the request that `meta` describes.
pub(crate) fn request(mut meta: MetaVariables, body: Body, front: Front, site: &Site) -> Result<Request, GatewayError> {
    // A client's `Proxy` header field, which some libraries take for a proxy that was configured (CVE-2016-5385).
    meta.remove("HTTP_PROXY");
    let method = meta.get("REQUEST_METHOD").and_then(|method| Method::from_bytes(method).ok());
    let method = method.ok_or(GatewayError::Malformed("REQUEST_METHOD"))?;
    check_lengths(&meta)?;
    let target = match meta.get("REQUEST_URI").filter(|uri| !uri.is_empty()) {
        None => None,
        // RFC 3875 does not know it, so that under CGI it is no reason to refuse anything.
        Some(uri) if front == Front::Cgi => Target::parse(uri, &method).ok(),
        Some(uri) => Some(Target::parse(uri, &method)?),
    };
    let (script_name, path_info) = match front {
        Front::Cgi => names_of_server(&meta, site)?,
        Front::Scgi | Front::Http => split_at_mount(path(&meta, target.as_ref())?, mount(site))?,
    };
    if path_info.contains(&0) {
        return Err(GatewayError::Malformed("NUL in path"));
    }
    if leads_out(&path_info) {
        return Err(GatewayError::OutsideMount);
    }
    let Origin { secure, client_address, authority } =
        origin::origin(&meta, target.as_ref().and_then(|target| target.authority), &site.trusted_proxies)?;
    if meta.get("QUERY_STRING").is_none()
        && let Some(query) = target.and_then(|target| target.query)
    {
        let query = query.to_vec();
        meta.push("QUERY_STRING", query);
    }
    let parts = RequestParts {
        meta,
        method,
        script_name,
        path_info,
        secure,
        client_address,
        authority,
        form_limits: site.form_limits.clone(),
        headers: OnceLock::new(),
        path: OnceLock::new(),
        uri: OnceLock::new(),
        deadline: crate::message::Deadline::default(),
    };
    Ok(Request::new(Arc::new(parts), body))
}

/// nginx could send a `CONTENT_LENGTH` smaller than the message-body (nginx/nginx#1118); what was left out would be
/// nobody's, or the next request.
fn check_lengths(meta: &MetaVariables) -> Result<(), GatewayError> {
    let length = |name, error| match meta.get(name) {
        None | Some(b"") => Ok(None),
        Some(value) => decimal(value).map(Some).ok_or(GatewayError::Malformed(error)),
    };
    let announced = length("CONTENT_LENGTH", "CONTENT_LENGTH")?;
    match length("HTTP_CONTENT_LENGTH", "HTTP_CONTENT_LENGTH")? {
        Some(sent) if sent != announced.unwrap_or(0) => {
            Err(GatewayError::Malformed("CONTENT_LENGTH contradicts HTTP_CONTENT_LENGTH"))
        }
        _ => Ok(()),
    }
}

/// A request target (RFC 9112 section 3.2), still encoded.
pub(super) struct Target<'a> {
    pub(super) authority: Option<&'a [u8]>,
    pub(super) path: &'a [u8],
    pub(super) query: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    pub(super) fn parse(uri: &'a [u8], method: &Method) -> Result<Self, GatewayError> {
        let uri = split(uri, b'#').0;
        let (start, query) = split(uri, b'?');
        if start.starts_with(b"/") {
            return Ok(Self { authority: None, path: start, query });
        }
        if start == b"*" && *method == Method::OPTIONS {
            return Ok(Self { authority: None, path: b"", query });
        }
        let rest = strip_ignoring_case(start, b"http://").or_else(|| strip_ignoring_case(start, b"https://"));
        let rest = rest.ok_or(GatewayError::Malformed("REQUEST_URI"))?;
        let end = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
        if end == 0 {
            return Err(GatewayError::Malformed("REQUEST_URI"));
        }
        let path = if end == rest.len() { b"/" } else { &rest[end..] };
        Ok(Self { authority: Some(&rest[..end]), path, query })
    }
}

fn split(bytes: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|&b| b == at) {
        Some(i) => (&bytes[..i], Some(&bytes[i + 1..])),
        None => (bytes, None),
    }
}

fn strip_ignoring_case<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = bytes.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The whole path, decoded.
fn path(meta: &MetaVariables, target: Option<&Target<'_>>) -> Result<Vec<u8>, GatewayError> {
    if let Some(target) = target {
        return decode(target.path);
    }
    // These are decoded already; another time would make an escape of `%2541`.
    if let Some(path) = meta.get("DOCUMENT_URI").filter(|path| !path.is_empty()) {
        return Ok(path.to_vec());
    }
    match (meta.get("SCRIPT_NAME"), meta.get("PATH_INFO")) {
        (None, None) => Err(GatewayError::Malformed("REQUEST_URI")),
        (script_name, path_info) => Ok([script_name.unwrap_or_default(), path_info.unwrap_or_default()].concat()),
    }
}

fn decode(path: &[u8]) -> Result<Vec<u8>, GatewayError> {
    let mut escapes = path.iter().enumerate().filter(|&(_, &b)| b == b'%').map(|(i, _)| path.get(i + 1..i + 3));
    if !escapes.all(|escape| escape.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))) {
        return Err(GatewayError::Malformed("escape in REQUEST_URI"));
    }
    Ok(percent_encoding::percent_decode(path).collect())
}

fn mount(site: &Site) -> String {
    normalised(site.script_name.as_deref().unwrap_or_default())
}

/// One slash at its start, none at its end; the root is empty.
fn normalised(mount: &str) -> String {
    match mount.trim_matches('/') {
        "" => String::new(),
        mount => format!("/{mount}"),
    }
}

fn split_at_mount(mut path: Vec<u8>, mount: String) -> Result<(String, Vec<u8>), GatewayError> {
    match path.strip_prefix(mount.as_bytes()) {
        Some([] | [b'/', ..]) => {
            path.drain(..mount.len());
            Ok((mount, path))
        }
        _ => Err(GatewayError::OutsideMount),
    }
}

fn names_of_server(meta: &MetaVariables, site: &Site) -> Result<(String, Vec<u8>), GatewayError> {
    let script_name = if site.script_name.is_some() {
        mount(site)
    } else {
        let name = std::str::from_utf8(meta.get("SCRIPT_NAME").unwrap_or_default());
        // Slashes at its start are the URL's own; adding or removing one would make other links.
        name.map_err(|_| GatewayError::Malformed("SCRIPT_NAME"))?.trim_end_matches('/').to_owned()
    };
    let path_info = meta.get("PATH_INFO").unwrap_or_default();
    match (script_name.as_bytes(), path_info) {
        ([] | [b'/', ..], [] | [b'/', ..]) => Ok((script_name, path_info.to_vec())),
        ([] | [b'/', ..], _) => Err(GatewayError::Malformed("PATH_INFO")),
        _ => Err(GatewayError::Malformed("SCRIPT_NAME")),
    }
}

/// Whether dot segments lead above where the path begins. Empty segments are not counted as a level, since some
/// servers merge slashes before they resolve.
fn leads_out(path: &[u8]) -> bool {
    let mut depth = 0_usize;
    for segment in path.split(|&b| b == b'/') {
        match segment {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests;
