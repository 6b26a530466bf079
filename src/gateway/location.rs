//! Redirects that no front server takes for its own.
//!
//! A `Location` that is a path is, to a CGI server, an internal redirect (RFC 3875 section 6.2.2): it runs the other
//! request itself and drops this response with its `Set-Cookie`. An absolute one is always passed on.

use crate::message::RequestParts;

/// Resolves `location` against the request's own URL (RFC 3986 section 5.2), and escapes what no URL may carry.
pub(crate) fn absolute_location(location: &[u8], parts: &RequestParts) -> Vec<u8> {
    let location = escaped(location, |b| matches!(b, 0x21..=0x7e));
    if has_scheme(&location) {
        return location;
    }
    let scheme = parts.scheme().as_bytes();
    if location.starts_with(b"//") {
        return [scheme, b":", &location].concat();
    }
    let mut absolute = [scheme, b"://", parts.authority.as_bytes()].concat();
    let end = location.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(location.len());
    let (path, rest) = location.split_at(end);
    if path.is_empty() {
        absolute.extend_from_slice(&own_path(parts));
        if !rest.starts_with(b"?")
            && let Some(query) = parts.meta.get("QUERY_STRING").filter(|query| !query.is_empty())
        {
            absolute.push(b'?');
            absolute.extend(escaped(query, |b| matches!(b, 0x21..=0x7e) && b != b'#'));
        }
    } else if path.starts_with(b"/") {
        push_without_dot_segments(&mut absolute, path);
    } else {
        let mut merged = own_path(parts);
        let directory = merged.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        merged.truncate(directory);
        merged.extend_from_slice(path);
        push_without_dot_segments(&mut absolute, &merged);
    }
    absolute.extend_from_slice(rest);
    absolute
}

/// The path of the request, encoded.
fn own_path(parts: &RequestParts) -> Vec<u8> {
    // What RFC 3986 allows in a path; the rest of it, a percent sign above all, would be read as something else.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b);
    let mut path = escaped(parts.script_name.as_bytes(), plain);
    path.extend(escaped(&parts.path_info, plain));
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

fn escaped(bytes: &[u8], plain: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if plain(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(percent_encoding::percent_encode_byte(byte).as_bytes());
        }
    }
    out
}

fn has_scheme(location: &[u8]) -> bool {
    let end = location.iter().position(|b| matches!(b, b':' | b'/' | b'?' | b'#'));
    end.is_some_and(|end| {
        location[end] == b':'
            && location[0].is_ascii_alphabetic()
            && location[..end].iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
    })
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash.
fn push_without_dot_segments(out: &mut Vec<u8>, path: &[u8]) {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut rest = path.strip_prefix(b"/").unwrap_or(path).split(|&b| b == b'/').peekable();
    while let Some(segment) = rest.next() {
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    segments.pop();
                }
                // At the end they stand for a directory, which ends in a slash.
                if rest.peek().is_none() {
                    segments.push(b"");
                }
            }
            _ => segments.push(segment),
        }
    }
    for segment in segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
}

#[cfg(test)]
pub(in crate::gateway) mod tests;
