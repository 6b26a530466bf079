//! Where a request comes from: scheme, client address and authority.
//!
//! `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host` and `Forwarded` (RFC 7239) are looked at only where the
//! peer is a trusted proxy. Of a list its last element counts, which is the one that this proxy added; for addresses,
//! the last one that is not itself a trusted proxy. `Forwarded` is looked at only where there is none of the others:
//! a proxy that writes the one kind passes the other on as the client sent it.
//!
//! A proxy that is trusted must therefore set, or remove, each of the three: one that it passes on is the client's
//! word.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::GatewayError;
use crate::message::MetaVariables;

#[derive(Debug)]
pub(super) struct Origin {
    pub(super) secure: bool,
    pub(super) client_address: Option<IpAddr>,
    pub(super) authority: String,
}

/// `target` is the authority of a request target in absolute form, which counts more than `Host` (RFC 9112 section
/// 3.2.2).
pub(super) fn origin(meta: &MetaVariables, target: Option<&[u8]>, trusted: &[IpNet]) -> Result<Origin, GatewayError> {
    let peer = meta.get_str("REMOTE_ADDR").and_then(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical());
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let forwarded = if peer.is_some_and(is_trusted) { forwarded(meta)? } else { Forwarded::default() };

    let secure = match &forwarded.proto {
        Some(proto) => proto.eq_ignore_ascii_case("https"),
        None => {
            meta.get("HTTPS").is_some_and(|value| value.eq_ignore_ascii_case(b"on") || value == b"1")
                || meta.get("REQUEST_SCHEME").is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
        }
    };
    // A hop whose address is not told hides those before it: whatever stands there, it vouched for it, not we.
    let client_address = match forwarded.addresses.iter().rev().find(|hop| !hop.is_some_and(is_trusted)) {
        Some(hop) => *hop,
        None => forwarded.addresses.first().copied().flatten().or(peer),
    };
    let named = match &forwarded.host {
        Some(host) => Some((host.as_bytes(), "X-Forwarded-Host")),
        None => target
            .map(|authority| (authority, "authority of REQUEST_URI"))
            .or(meta.get("HTTP_HOST").map(|host| (host, "HTTP_HOST")))
            .filter(|(host, _)| !host.is_empty()),
    };
    let authority = match named {
        Some((host, name)) => {
            let (host, port) = host_and_port(host).ok_or(GatewayError::Malformed(name))?;
            write_authority(host, port, secure)
        }
        None => server_authority(meta, secure),
    };
    Ok(Origin { secure, client_address, authority })
}

/// What a trusted proxy says about the client.
#[derive(Debug, Default)]
struct Forwarded<'a> {
    /// In the order of the hops; `None` for one that does not tell its address.
    addresses: Vec<Option<IpAddr>>,
    proto: Option<Cow<'a, str>>,
    host: Option<Cow<'a, str>>,
}

fn forwarded(meta: &MetaVariables) -> Result<Forwarded<'_>, GatewayError> {
    let text = |name, error| match meta.get(name) {
        None => Ok(None),
        Some(value) => std::str::from_utf8(value).map(Some).map_err(|_| GatewayError::Malformed(error)),
    };
    let addresses = text("HTTP_X_FORWARDED_FOR", "X-Forwarded-For")?;
    let proto = text("HTTP_X_FORWARDED_PROTO", "X-Forwarded-Proto")?;
    let host = text("HTTP_X_FORWARDED_HOST", "X-Forwarded-Host")?;
    if addresses.is_some() || proto.is_some() || host.is_some() {
        return Ok(Forwarded {
            addresses: addresses.into_iter().flat_map(|list| list.split(',')).map(|hop| node(hop.trim())).collect(),
            proto: proto.map(last_element),
            host: host.map(last_element),
        });
    }
    match text("HTTP_FORWARDED", "Forwarded")? {
        Some(list) => elements(list).ok_or(GatewayError::Malformed("Forwarded")),
        None => Ok(Forwarded::default()),
    }
}

fn last_element(list: &str) -> Cow<'_, str> {
    list.rsplit(',').next().unwrap_or_default().trim().into()
}

/// The elements of `Forwarded`: `for=192.0.2.43;proto=https, for="[2001:db8::17]:4711"`.
///
/// Anything out of order refuses the whole field: with an open quote a client could swallow what the proxy adds.
fn elements(list: &str) -> Option<Forwarded<'_>> {
    let mut all = Forwarded::default();
    let mut rest = list.trim();
    let mut address = None;
    loop {
        let (name, after) = rest.split_once('=')?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return None;
        }
        let value;
        (value, rest) = value_of_pair(after)?;
        match name.to_ascii_lowercase().as_str() {
            "for" => address = node(&value),
            "proto" => all.proto = Some(value),
            "host" => all.host = Some(value),
            _ => {}
        }
        let element_ends = match rest.trim_start().chars().next() {
            Some(';') => false,
            None | Some(',') => true,
            Some(_) => return None,
        };
        if element_ends {
            all.addresses.push(address.take());
        }
        rest = match rest.trim_start().get(1..) {
            Some(rest) => rest.trim_start(),
            None => return Some(all),
        };
        if element_ends {
            // Only the last element is this proxy's own.
            (all.proto, all.host) = (None, None);
        }
    }
}

/// A token or quoted-string, and what follows it.
fn value_of_pair(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';', ' ', '\t', '"']).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].into(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value.into(), &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

/// An address with or without a port; `None` for `unknown` and for names that a proxy invented.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>().ok();
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip())).map(|ip| ip.to_canonical())
}

/// `host[:port]`, checked: `[A-Za-z0-9.-]+` or an IPv6 address in brackets. It ends up in links and redirects.
pub(super) fn host_and_port(authority: &[u8]) -> Option<(&str, Option<u16>)> {
    let text = std::str::from_utf8(authority).ok()?;
    let end = if let Some(rest) = text.strip_prefix('[') {
        let end = rest.find(']')?;
        rest[..end].parse::<Ipv6Addr>().ok()?;
        end + 2
    } else {
        let end = text.find(':').unwrap_or(text.len());
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
        if end == 0 || !text[..end].bytes().all(good) {
            return None;
        }
        end
    };
    let (host, port) = text.split_at(end);
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        // RFC 3986 section 3.2.3 allows an empty port.
        Some("") => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    Some((host, port))
}

fn write_authority(host: &str, port: Option<u16>, secure: bool) -> String {
    match port {
        Some(port) if port != if secure { 443 } else { 80 } => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}

/// What the server calls itself, for a client that did not say whom it asks. nginx's `server_name _` is no name.
fn server_authority(meta: &MetaVariables, secure: bool) -> String {
    let name = meta.get("SERVER_NAME").unwrap_or_default();
    let bare_ipv6 = std::str::from_utf8(name).ok().and_then(|name| name.parse::<Ipv6Addr>().ok());
    let host = match (bare_ipv6, host_and_port(name)) {
        (Some(address), _) => Cow::Owned(format!("[{address}]")),
        (None, Some((host, _))) => Cow::Borrowed(host),
        (None, None) => Cow::Borrowed("localhost"),
    };
    let port = meta.get_str("SERVER_PORT").and_then(|port| port.parse().ok());
    write_authority(&host, port, secure)
}

#[cfg(test)]
mod tests;
