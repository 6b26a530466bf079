//! The deployment that is examined: its URL, taken apart.

use std::net::Ipv6Addr;

/// An `http` or `https` URL of a deployment, as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) is_https: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// The mount as it stands in a URL: no slash at its end, empty for the root.
    mount: String,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected http:// or https://, a host, and the path that the application is mounted at";
        let (is_https, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            _ => return Err(EXPECTED),
        };
        // It becomes part of request lines.
        if !rest.bytes().all(|b| b.is_ascii_graphic()) || rest.contains(['?', '#', '"', '\\']) {
            return Err("expected a URL without query and fragment, in ASCII");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(EXPECTED)?;
                host.parse::<Ipv6Addr>().map_err(|_| EXPECTED)?;
                (host, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-.:".contains(&b);
        if host.is_empty() || !host.bytes().all(is_host_byte) {
            return Err(if authority.contains('@') { "expected a URL without user and password" } else { EXPECTED });
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some("") => None,
            Some(digits) => Some(digits.parse().map_err(|_| "expected a port between 1 and 65535")?),
            None => return Err(EXPECTED),
        };
        let default_port = if is_https { 443 } else { 80 };
        Ok(Self {
            is_https,
            host: host.to_ascii_lowercase(),
            port: port.unwrap_or(default_port),
            mount: path.trim_end_matches('/').to_owned(),
        })
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    /// Host and port to connect to.
    pub(super) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// `host[:port]`, the port where it is not the scheme's own.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            port if port == if self.is_https { 443 } else { 80 } => host,
            port => format!("{host}:{port}"),
        }
    }

    pub(super) fn mount(&self) -> &str {
        &self.mount
    }

    /// The mount as the application knows it.
    pub(super) fn decoded_mount(&self) -> String {
        percent_encoding::percent_decode_str(&self.mount).decode_utf8_lossy().into_owned()
    }

    /// The URL of `path`, which begins below the mount.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{}{path}", self.scheme(), self.authority(), self.mount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_urls_apart() {
        let parse = |url| Target::parse(url).unwrap();
        let plain = parse("http://Example.org");
        assert_eq!((plain.address(), plain.mount(), plain.is_https), (("example.org", 80), "", false));
        assert_eq!(plain.url("/x"), "http://example.org/x");
        let full = parse("HTTPS://[::1]:8443/a%20b/");
        assert_eq!((full.address(), full.mount(), full.is_https), (("::1", 8443), "/a%20b", true));
        assert_eq!((full.authority(), full.decoded_mount()), ("[::1]:8443".to_owned(), "/a b".to_owned()));
        assert_eq!(parse("https://a:443/").authority(), "a");
        assert_eq!(parse("https://a:80/").authority(), "a:80");
    }

    #[test]
    fn refuses_what_is_no_url_of_a_site() {
        for bad in [
            "",
            "example.org",
            "ftp://a/",
            "http://",
            "http:///a",
            "http://a:x/",
            "http://a:65536/",
            "http://u:p@a/",
            "http://a/?q",
            "http://a/#f",
            "http://a/ b",
            "http://a/\r\nX: y",
            "http://[::1/",
            "http://[x]/",
            "http://a_b/",
            "http://a/\"",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad:?}");
        }
    }
}
