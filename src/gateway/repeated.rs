//! What a repeated meta-variable means.

use super::GatewayError;
use crate::message::MetaVariables;

/// What stands between the values of a repeated header field when they become one (RFC 3875 section 4.1.18), or `None`
/// for what must not be repeated: where one reader took the first value and another one the last, they would see
/// different requests.
pub(super) fn joint(name: &[u8]) -> Option<&'static [u8]> {
    match name.strip_prefix(b"HTTP_")? {
        b"HOST" | b"TRANSFER_ENCODING" | b"CONTENT_LENGTH" | b"CONTENT_TYPE" | b"AUTHORIZATION" => None,
        b"COOKIE" => Some(b"; "),
        _ => Some(b", "),
    }
}

/// Joins header fields that a front server did not join (nginx before 1.23), and refuses other repetitions.
pub(super) fn join(meta: MetaVariables) -> Result<MetaVariables, GatewayError> {
    if meta.first_repeated_name().is_none() {
        return Ok(meta);
    }
    let mut joined = MetaVariables::new();
    for (name, value) in meta.iter() {
        if joined.iter().any(|(known, _)| known == name) {
            continue;
        }
        let mut all = value.to_vec();
        for (_, other) in meta.iter().filter(|(other, _)| *other == name).skip(1) {
            all.extend_from_slice(joint(name).ok_or(GatewayError::Malformed("repeated meta-variable"))?);
            all.extend_from_slice(other);
        }
        joined.push(name, all);
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_are_joined_and_nothing_else() {
        let meta = |pairs: &[(&str, &str)]| {
            let mut meta = MetaVariables::new();
            for (name, value) in pairs {
                meta.push(name, value);
            }
            meta
        };
        let joined = join(meta(&[
            ("CONTENT_LENGTH", "0"),
            ("HTTP_COOKIE", "a=1"),
            ("HTTP_ACCEPT", "x"),
            ("HTTP_COOKIE", "b=2"),
            ("HTTP_ACCEPT", "y"),
            ("HTTP_ACCEPT", ""),
        ]));
        let joined: Vec<_> = joined.unwrap().iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
        let expected = [("CONTENT_LENGTH", "0"), ("HTTP_COOKIE", "a=1; b=2"), ("HTTP_ACCEPT", "x, y, ")];
        assert_eq!(joined, expected.map(|(n, v)| (n.into(), v.into())));
        for name in ["SCGI", "REQUEST_METHOD", "HTTPS", "HTTP_HOST", "HTTP_CONTENT_LENGTH", "HTTP_AUTHORIZATION"] {
            assert!(join(meta(&[(name, "1"), ("A", "b"), (name, "1")])).is_err(), "{name}");
        }
    }
}
