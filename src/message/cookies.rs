//! The Cookie and Set-Cookie header fields (RFC 6265).

use http::HeaderValue;

use super::{Cookie, MessageError, MetaVariables};

/// Bytes of the Cookie header field that are looked at.
const HEADER_LIMIT: usize = 8 * 1024;
/// Pairs that are looked at.
const PAIR_LIMIT: usize = 64;
/// Bytes of name and value together; browsers drop a longer cookie without a word.
const SIZE_LIMIT: usize = 4096;

/// The pairs of the Cookie header field as they came, the first [`PAIR_LIMIT`] in the first [`HEADER_LIMIT`] bytes.
///
/// Nothing is decoded (CVE-2021-41819), a pair without a name is left out (CVE-2023-23934), and only spaces and tabs
/// around a name are removed. That is why this is no job for `cookie::Cookie::split_parse`: it removes all white space
/// of Unicode, and `U+2000 __Host-session`, which any subdomain may set, would be `__Host-session`.
pub(super) fn pairs(meta: &MetaVariables) -> impl Iterator<Item = (&str, &str)> {
    let header = meta.get("HTTP_COOKIE").unwrap_or_default();
    // A cut inside a pair would make another cookie of it, so a header past the limit loses its last pair whole.
    let header = match header.get(..HEADER_LIMIT) {
        Some(start) if header.len() > HEADER_LIMIT => match start.iter().rposition(|&b| b == b';') {
            Some(end) => &start[..end],
            None => &[],
        },
        _ => header,
    };
    header.split(|&b| b == b';').take(PAIR_LIMIT).filter_map(|pair| {
        // One cookie with odd bytes, perhaps of another application, takes no other with it.
        let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
        let (name, value) = (name.trim_matches([' ', '\t']), value.trim_matches([' ', '\t']));
        (!name.is_empty()).then_some((name, value))
    })
}

/// The value of a Set-Cookie header field for `cookie`.
///
/// `Cookie`'s `Display` writes every byte as it was given, so each is held against the grammar of RFC 6265 section
/// 4.1.1 first.
pub(super) fn set_cookie(cookie: &Cookie<'_>) -> Result<HeaderValue, MessageError> {
    use std::fmt::Write;

    let check = |is_valid: bool, what| if is_valid { Ok(()) } else { Err(MessageError::InvalidResponse(what)) };
    let (name, value) = (cookie.name(), cookie.value());
    check(!name.is_empty() && name.bytes().all(is_token), "cookie name")?;
    let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
    check(bare.bytes().all(is_cookie_octet), "cookie value")?;
    check(name.len() + value.len() <= SIZE_LIMIT, "cookie size")?;
    let path = cookie.path().unwrap_or_default();
    check(path.bytes().all(|b| matches!(b, b' '..=b'~') && b != b';'), "cookie path")?;
    if let Some(domain) = cookie.domain() {
        let is_domain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
        check(!domain.is_empty() && domain.bytes().all(is_domain), "cookie domain")?;
    }
    let mut text = String::new();
    // Fails where Expires cannot be written as a date.
    write!(text, "{cookie}").map_err(|_| MessageError::InvalidResponse("cookie expiry"))?;
    HeaderValue::try_from(text).map_err(|_| MessageError::InvalidResponse("cookie"))
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_cookie_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::message::SameSite;

    fn meta(header: impl AsRef<[u8]>) -> MetaVariables {
        let mut meta = MetaVariables::new();
        meta.push("HTTP_COOKIE", header);
        meta
    }

    fn parsed(header: impl AsRef<[u8]>) -> Vec<(String, String)> {
        pairs(&meta(header)).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    }

    fn is(header: impl AsRef<[u8]>, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(parsed(header), expected);
    }

    #[test]
    fn pairs_as_they_came() {
        is("", &[]);
        is("a=1", &[("a", "1")]);
        is("a=1; b=2;c=3 ;\td = \"4 5\"\t", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "\"4 5\"")]);
        is("a=1; a=2; A=3", &[("a", "1"), ("a", "2"), ("A", "3")]);
        is("a=b=c; d=", &[("a", "b=c"), ("d", "")]);
        is("a; ;;b=1;", &[("b", "1")]);
        is(b"x=\xe9; session=1", &[("session", "1")]);
    }

    #[test]
    fn a_name_is_never_made_of_another() {
        is("=__Host-session=evil; = ;=", &[]);
        is("sess%69on=1", &[("sess%69on", "1")]);
        is("%5F_Host-session=1", &[("%5F_Host-session", "1")]);
        for space in ['\u{2000}', '\u{a0}', '\u{b}', '\u{c}', '\u{85}', '\r', '\n', '\0'] {
            let names = parsed(format!("{space}session=1; session{space}=2"));
            assert!(names.iter().all(|(name, _)| name != "session"), "{space:?}");
        }
    }

    #[test]
    fn agrees_with_another_parser_on_what_browsers_send() {
        for header in ["a=1; b=2", "a=\"x\"; b=; c=d=e", "session=0123abcd;x=y; session=2", " a=1 ;  b =2"] {
            let other: Vec<_> = Cookie::split_parse(header)
                .filter_map(Result::ok)
                .map(|c| (c.name().to_owned(), c.value().to_owned()))
                .collect();
            assert_eq!(parsed(header), other);
        }
    }

    #[test]
    fn a_hostile_header_takes_bounded_work() {
        let begin = Instant::now();
        assert!(parsed(vec![b'\\'; 1 << 20]).is_empty());
        assert!(parsed([b"a=\"".to_vec(), vec![b'\\'; 1 << 20]].concat()).is_empty());
        assert!(parsed(vec![b';'; 1 << 20]).is_empty());
        let pairs = parsed("a=1;".repeat(200_000));
        assert_eq!(pairs.len(), PAIR_LIMIT);
        assert!(begin.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_header_past_the_limit_loses_its_last_pair_whole() {
        let fits = format!("a=1; b={}", "x".repeat(HEADER_LIMIT - 7));
        assert_eq!(fits.len(), HEADER_LIMIT);
        assert_eq!(parsed(&fits).len(), 2);
        is(format!("{fits}x"), &[("a", "1")]);
        is("x".repeat(HEADER_LIMIT + 1), &[]);
    }

    #[test]
    fn a_cookie_with_all_its_attributes() {
        let cookie = Cookie::build(("__Host-session", "abc"))
            .path("/app/")
            .domain("example.org")
            .secure(true)
            .http_only(true)
            .same_site(SameSite::Lax)
            .build();
        let value = set_cookie(&cookie).unwrap();
        assert_eq!(value, "__Host-session=abc; HttpOnly; SameSite=Lax; Secure; Path=/app/; Domain=example.org");
        assert_eq!(set_cookie(&Cookie::new("a", "\"b\"")).unwrap(), "a=\"b\"");
        assert_eq!(set_cookie(&Cookie::new("a", "")).unwrap(), "a=");
        let refused = [Cookie::new("", "b"), Cookie::new("a", "\""), Cookie::new("a", "\"b"), Cookie::new("a", "b\"c")];
        for cookie in refused.into_iter().chain([Cookie::new("a", "b".repeat(SIZE_LIMIT))]) {
            assert!(set_cookie(&cookie).is_err());
        }
        assert!(set_cookie(&Cookie::new("a", "b".repeat(SIZE_LIMIT - 1))).is_ok());
    }

    #[test]
    fn no_byte_breaks_out_of_any_part() {
        for byte in 0..=255 {
            let odd = char::from(byte);
            for text in [format!("{odd}"), format!("{odd}ab"), format!("a{odd}b"), format!("ab{odd}")] {
                let cookies = [
                    (is_token(byte), Cookie::new(&text, "v")),
                    (is_cookie_octet(byte), Cookie::new("n", &text)),
                    ((b' '..=b'~').contains(&byte) && byte != b';', Cookie::build(("n", "v")).path(&text).build()),
                    (
                        byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-',
                        Cookie::build(("n", "v")).domain(&text).build(),
                    ),
                ];
                for (is_allowed, cookie) in cookies {
                    let written = set_cookie(&cookie);
                    // `Cookie` takes a leading dot from the domain, and nothing is left of ".".
                    assert!(written.is_ok() == is_allowed || text.starts_with('.'), "{byte} {text:?} {cookie:?}");
                    if let Ok(value) = written {
                        let bytes = value.as_bytes();
                        assert!(bytes.iter().all(|b| (b' '..=b'~').contains(b)), "{byte}");
                        let attributes = usize::from(cookie.path().is_some() || cookie.domain().is_some());
                        assert_eq!(value.to_str().unwrap().matches(';').count(), attributes, "{byte}");
                    }
                }
            }
        }
    }
}
