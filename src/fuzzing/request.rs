//! Requests: SCGI heads, CGI's environment, and what is made of them.

use crate::gateway::{self, Front, GatewayError, Limits, Site, scgi as codec};
use crate::message::{FormLimits, MetaVariables, Request, Response};

/// Bytes of a part of the input that is given piece by piece.
pub(super) const STEPS: [usize; 2] = [1, 13];

pub(super) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

pub(super) fn pairs(meta: &MetaVariables) -> Pairs {
    meta.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// Limits that inputs of some KiB pass: one that is not kept must be noticed.
pub(super) fn limits() -> Limits {
    Limits { head: 1200, head_count: 60, ..Limits::default() }
}

/// Reads the head of an SCGI request in pieces of `step` bytes: with it, where the message-body begins.
pub(super) fn read_scgi(bytes: &[u8], step: usize) -> Result<Option<(codec::Head, usize)>, GatewayError> {
    let mut reader = codec::HeadReader::new(&limits());
    for (i, piece) in bytes.chunks(step).enumerate() {
        let read = reader.feed(piece);
        // Where the limit is below what is given at once, the limit is all that may be asked for.
        assert!(reader.allocated() <= limits().head, "{} bytes for a head", reader.allocated());
        if let Some((head, used)) = read? {
            return Ok(Some((head, i * step + used)));
        }
    }
    Ok(None)
}

/// What the bytes of a request are: whole, with where it ends, the beginning of one, or none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    Whole(T, usize),
    More,
    Wrong,
}

/// An SCGI request: it is read the same however it is cut, as a second reader reads it who has all of it at hand, and
/// as the `scgi` crate reads it where that may be asked.
pub(super) fn scgi(data: &[u8]) {
    let outcome = |step| {
        read_scgi(data, step)
            .map(|read| read.map(|(head, end)| (pairs(&head.meta), head.content_length, end)))
            .map_err(|error| error.to_string())
    };
    let whole = outcome(data.len().max(1));
    for step in STEPS {
        assert_eq!(outcome(step), whole, "in pieces of {step}");
    }
    let read = match whole {
        Ok(Some((pairs, length, end))) => Outcome::Whole((pairs, length), end),
        Ok(None) => Outcome::More,
        Err(_) => Outcome::Wrong,
    };
    assert_eq!(read, read_simply(data));
    let Outcome::Whole((pairs, _), end) = read else { return };
    ask_the_crate(&pairs, data, end);
    let (head, _) = read_scgi(data, data.len()).unwrap().unwrap();
    requests(&head.meta, &data[end..], Front::Scgi);
}

/// The same by the letter of the specification, with our own rules: no leading zeros, one `SCGI` or none, and repeated
/// header fields joined.
fn read_simply(data: &[u8]) -> Outcome<(Pairs, u64)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap_or_default();
    let digits = data.iter().take_while(|b| b.is_ascii_digit()).count();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_canonical = |text: &str| is_number(text) && (text == "0" || !text.starts_with('0'));
    let length = text(&data[..digits]);
    if digits > 9
        || (digits > 0 && !is_canonical(&length))
        || data.get(digits).is_some_and(|&b| b != b':' || digits == 0)
    {
        return Outcome::Wrong;
    }
    if digits == data.len() {
        return Outcome::More;
    }
    let (start, length): (usize, usize) = (digits + 1, length.parse().unwrap());
    match data.get(start + length) {
        _ if length > limits().head => return Outcome::Wrong,
        None => return Outcome::More,
        Some(b',') => {}
        Some(_) => return Outcome::Wrong,
    }
    let words: Vec<_> = data[start..start + length].split(|&b| b == 0).collect();
    let Some((b"", words)) = words.split_last().map(|(last, words)| (*last, words)) else { return Outcome::Wrong };
    let all: Vec<_> = words.chunks(2).map(|pair| (pair[0], *pair.last().unwrap())).collect();
    let first = |wanted: &[u8]| all.iter().find(|(name, _)| *name == wanted).map(|(_, value)| text(value));
    let content_length =
        first(b"CONTENT_LENGTH").filter(|value| is_canonical(value)).and_then(|value| value.parse().ok());
    let mut pairs = Pairs::new();
    for (name, value) in &all {
        match pairs.iter_mut().find(|(known, _)| known == name) {
            None => pairs.push((name.to_vec(), value.to_vec())),
            Some((_, known)) => {
                let once = ["HOST", "TRANSFER_ENCODING", "CONTENT_LENGTH", "CONTENT_TYPE", "AUTHORIZATION"];
                match name.strip_prefix(b"HTTP_").map(text) {
                    Some(field) if !once.contains(&&*field) => {
                        let between: &[u8] = if field == "COOKIE" { b"; " } else { b", " };
                        *known = [known, between, *value].concat();
                    }
                    _ => return Outcome::Wrong,
                }
            }
        }
    }
    let is_right = words.len() % 2 == 0
        && all.len() <= limits().head_count
        && all.first().is_some_and(|(name, _)| *name == b"CONTENT_LENGTH")
        && all.iter().all(|(name, _)| !name.is_empty())
        && first(b"SCGI").is_none_or(|version| version == "1");
    match content_length.filter(|_| is_right) {
        Some(content_length) => Outcome::Whole((pairs, content_length), start + length + 1),
        None => Outcome::Wrong,
    }
}

/// In memory, for the `scgi` crate, which wants a stream to write to as well.
struct Duplex<'a>(&'a [u8]);

impl std::io::Read for Duplex<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl std::io::Write for Duplex<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// It panics at odd lengths and knows no bytes but UTF-8: it is asked only of what was taken, and joins nothing.
fn ask_the_crate(pairs: &Pairs, data: &[u8], end: usize) {
    let Ok((oracle, mut stream)) = ::scgi::read_headers(Duplex(data)) else { return };
    let Ok(oracle) = ::scgi::str_map(&oracle) else { return };
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
    assert_eq!(rest, &data[end..], "where the message-body begins");
    let all = data[..end].split(|&b| b == 0).count() / 2;
    if all == pairs.len() {
        assert_eq!(oracle.len(), pairs.len());
        for (name, value) in pairs {
            assert_eq!(oracle.get(std::str::from_utf8(name).unwrap()).map(|value| value.as_bytes()), Some(&value[..]));
        }
    }
}

/// CGI's environment: `name NUL value NUL ...`, whatever follows the last NUL is the message-body.
pub(super) fn cgi(data: &[u8]) {
    let words: Vec<_> = data.split(|&b| b == 0).collect();
    let mut meta = MetaVariables::new();
    for pair in words[..words.len() - 1].chunks_exact(2) {
        // An environment has each name once, and none that is empty or has an equals sign.
        let is_new = meta.iter().all(|(name, _)| name != pair[0]);
        if is_new && !pair[0].is_empty() && !pair[0].contains(&b'=') {
            meta.push(pair[0], pair[1]);
        }
    }
    requests(&meta, words[words.len() - 1], Front::Cgi);
}

fn sites() -> [Site; 2] {
    let form_limits = small_limits();
    let mounted = Site {
        script_name: Some("/app".to_owned()),
        trusted_proxies: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        form_limits: form_limits.clone(),
    };
    [Site { form_limits, ..Site::default() }, mounted]
}

/// Limits that short inputs pass.
pub(super) fn small_limits() -> FormLimits {
    FormLimits { count: 20, field_size: 64, fields_size: 256, file_size: 512, total_size: 4096 }
}

/// Makes the requests that these meta-variables are at two sites, and looks at all an application may ask of them.
pub(super) fn requests(meta: &MetaVariables, body: &[u8], front: Front) {
    for site in &sites() {
        if let Ok(request) = gateway::request(meta.clone(), body.to_vec().into(), front, site) {
            check(request, front, site);
        }
    }
}

fn check(mut request: Request, front: Front, site: &Site) {
    assert_eq!(request.meta().get("HTTP_PROXY"), None);
    assert!(!request.headers().contains_key("proxy"));
    let (script_name, path_info) = (request.script_name(), request.path_info());
    assert!(script_name.is_empty() || (script_name.starts_with('/') && !script_name.ends_with('/')));
    if front != Front::Cgi {
        assert_eq!(script_name, site.script_name.as_deref().unwrap_or_default());
    }
    assert!(path_info.is_empty() || path_info[0] == b'/');
    assert!(!path_info.contains(&0));
    let mut depth = 0_i64;
    for segment in path_info.split(|&b| b == b'/') {
        depth += match segment {
            b"" | b"." => 0,
            b".." => -1,
            _ => 1,
        };
        assert!(depth >= 0, "leads out of the mount");
    }
    let authority = request.authority();
    assert!(authority.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@\\\"<>".contains(&b)), "{authority:?}");
    assert!(!authority.is_empty());
    for (name, value) in request.headers() {
        assert!(!value.as_bytes().iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        let variable = name.as_str().to_ascii_uppercase().replace('-', "_");
        let variable =
            if name == "content-type" || name == "content-length" { variable } else { format!("HTTP_{variable}") };
        assert_eq!(request.meta().get(&variable), Some(value.as_bytes()), "{name} comes from nowhere");
    }
    assert!(request.cookies().count() <= 64);
    let _ = (request.path(), request.uri(), request.query().count(), request.link("/x"), request.scheme());
    let form = request.form();
    assert!(form.is_err() || form.unwrap().fields().count() <= site.form_limits.count);
    let (parts, _) = request.into_parts();
    // One of them, for speed.
    let location = ["", "x/../y", "/x", "?q", "//example.org/"][parts.path_info.len() % 5];
    super::response::heads(Response::redirect(location).unwrap(), Some(&parts));
}
