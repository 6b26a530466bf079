//! What is inside of requests: cookies and forms.

use std::io::Read;

use super::request::small_limits;
use crate::gateway::{self, Front, Site};
use crate::message::{Body, Cookie, MessageError, MetaVariables, Request, RequestParts, Response};
use crate::session::CookiePolicy;

fn request(variables: &[(&str, &[u8])], body: Body) -> Request {
    let mut meta = MetaVariables::new();
    meta.push("REQUEST_METHOD", "POST");
    meta.push("REQUEST_URI", "/");
    for (name, value) in variables {
        meta.push(name, value);
    }
    let site = Site { form_limits: small_limits(), ..Site::default() };
    gateway::request(meta, body, Front::Scgi, &site).expect("a request")
}

/// A Cookie header field, and the lines of the same bytes as name, value, path and domain of a cookie to be set.
pub(super) fn cookie(data: &[u8]) {
    let request = request(&[("HTTP_COOKIE", data)], Body::empty());
    let sent = |name: &str, value: &str| {
        data.split(|&b| b == b';').any(|pair| {
            let at = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
            let (before, after) = pair.split_at(at);
            bare(before) == name.as_bytes() && bare(after.get(1..).unwrap_or_default()) == value.as_bytes()
        })
    };
    for (name, value) in request.cookies() {
        let text = |word: &str| !word.contains(';') && word == word.trim_matches([' ', '\t']);
        assert!(!name.is_empty() && !name.contains('=') && text(name) && text(value), "{name:?} {value:?}");
        // As it came: whoever decodes, or trims more, lets one cookie pass for another (CVE-2021-41819).
        assert!(sent(name, value), "{name:?}");
    }
    let (parts, _) = request.into_parts();
    let ids: Vec<_> = CookiePolicy::default().read(&parts).collect();
    assert!(ids.len() <= 4);
    for id in ids {
        assert!(sent("session", &id.to_text()), "an ID that nobody sent");
    }
    ask_the_crate(data, &parts);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut words = text.split('\n');
    let mut word = || words.next().unwrap_or_default();
    let (name, value, path, domain) = (word(), word(), word(), word());
    let mut cookie = Cookie::build((name, value)).path(path);
    if !domain.is_empty() {
        cookie = cookie.domain(domain);
    }
    let mut response = Response::text("");
    if response.set_cookie(cookie).is_ok() {
        let field = response.headers()["set-cookie"].as_bytes();
        assert!(field.starts_with(format!("{name}={value}").as_bytes()));
        assert!(field.iter().all(|b| matches!(b, b' '..=b'~')), "{field:?}");
        // One attribute each, and no more.
        let attributes = field.split(|&b| b == b';').count() - 1;
        assert!(attributes <= 2, "{field:?}");
        let back = Cookie::parse(std::str::from_utf8(field).unwrap()).expect("a cookie");
        assert_eq!(back.name_value(), (name, value));
        // An empty attribute is as good as none, and spaces around one are no part of it.
        let path = Some(path.trim()).filter(|path| !path.is_empty());
        assert_eq!(back.path().filter(|path| !path.is_empty()), path);
        // Dots before it, too, but the crate takes one of them each time that it looks.
        let dotless = |domain: &str| domain.trim_start_matches('.').to_owned();
        assert_eq!(back.domain().map(dotless).unwrap_or_default(), dotless(domain));
        super::response::heads(response, None);
    }
}

/// Without spaces and tabs around it.
fn bare(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The `cookie` crate sees the same pairs, but for what it does on purpose: it takes white space of any kind from around
/// names and values.
fn ask_the_crate(header: &[u8], parts: &RequestParts) {
    let is_plain = |b: &u8| matches!(b, b'\t' | b' '..=b'~');
    if header.len() > 8192 || !header.iter().all(is_plain) {
        return;
    }
    let header = std::str::from_utf8(header).unwrap();
    let oracle: Vec<_> = header.split(';').take(64).filter_map(|pair| Cookie::parse(pair).ok()).collect();
    let ours: Vec<_> = parts.cookies().collect();
    assert_eq!(ours, oracle.iter().map(Cookie::name_value).collect::<Vec<_>>());
}

/// A line with the Content-Type, then the message-body of a form; and the same bytes as a file and as a field of one.
pub(super) fn form(data: &[u8]) {
    as_part(data);
    let at = data.iter().position(|&b| b == b'\n');
    let (content_type, body) = at.map_or((data, &[][..]), |at| (&data[..at], &data[at + 1..]));
    let limits = small_limits();
    let read = |body: Body| {
        let form = request(&[("CONTENT_TYPE", content_type)], body).form().map_err(|error| error.to_string())?;
        let fields: Vec<_> = form.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let files: Vec<_> = form
            .into_files()
            .into_iter()
            .map(|mut file| {
                let (name, safe) = (file.name().to_owned(), file.safe_file_name());
                let stays = |safe: &String| !safe.contains(['/', '\0']) && !matches!(safe.as_str(), "" | "." | "..");
                assert!(safe.iter().all(stays), "{safe:?}");
                let mut contents = Vec::new();
                file.read_to_end(&mut contents).unwrap();
                (name, safe, contents)
            })
            .collect();
        Ok::<_, String>((fields, files))
    };
    let whole = read(body.to_vec().into());
    let piecewise = read(Body::from_reader(Trickle(std::io::Cursor::new(body.to_vec())), None));
    let no_form = |error: &String| error.contains("limit") || error.contains("form");
    match (&whole, &piecewise) {
        // Which limit is met first may depend on how much is there at once, but not whether one is.
        (Err(one), Err(other)) if no_form(one) && no_form(other) => {}
        _ => assert_eq!(whole, piecewise),
    }
    let Ok((fields, files)) = whole else { return };
    assert!(body.len() as u64 <= limits.total_size);
    assert!(fields.len() + files.len() <= limits.count);
    assert!(fields.iter().all(|(name, value)| name.len().max(value.len()) as u64 <= limits.field_size));
    assert!(fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() as u64 <= limits.fields_size);
    assert!(files.iter().all(|(_, _, contents)| contents.len() as u64 <= limits.file_size));
    if files.is_empty() {
        // What was read can be written, and is read again.
        let mut again = form_urlencoded::Serializer::new(String::new());
        again.extend_pairs(&fields);
        let mut request =
            request(&[("CONTENT_TYPE", b"application/x-www-form-urlencoded")], again.finish().into_bytes().into());
        match request.form() {
            Ok(form) => assert!(form.fields().eq(fields.iter().map(|(name, value)| (&**name, &**value)))),
            Err(error) => assert!(matches!(error, MessageError::FormTooLarge { .. }), "{error}"),
        }
    }
}

/// Any contents come through as they are, up to the limit, and none beyond.
fn as_part(contents: &[u8]) {
    const BOUNDARY: &[u8] = b"\r\n--a-boundary";
    if contents.windows(BOUNDARY.len()).any(|window| window == BOUNDARY) {
        return;
    }
    let limits = small_limits();
    for head in ["name=f; filename=f", "name=f"] {
        let start = format!("--a-boundary\r\nContent-Disposition: form-data; {head}\r\n\r\n");
        let body = [start.as_bytes(), contents, BOUNDARY, b"--\r\n"].concat();
        let fits_in_all = body.len() as u64 <= limits.total_size;
        let form = request(&[("CONTENT_TYPE", b"multipart/form-data; boundary=a-boundary")], body.into()).form();
        if head == "name=f" {
            let fits = fits_in_all && contents.len() as u64 <= limits.field_size;
            match (form, std::str::from_utf8(contents)) {
                (Ok(form), Ok(text)) if fits => assert_eq!(form.value("f"), Some(text)),
                (Err(MessageError::MalformedForm(_)), Err(_)) if fits => {}
                (Err(MessageError::FormTooLarge { .. }), _) if !fits => {}
                (form, _) => panic!("{form:?} of {} bytes", contents.len()),
            }
        } else {
            match form {
                Ok(form) if fits_in_all && contents.len() as u64 <= limits.file_size => {
                    let mut back = Vec::new();
                    form.into_files().remove(0).read_to_end(&mut back).unwrap();
                    assert_eq!(back, contents);
                }
                Err(MessageError::FormTooLarge { .. }) if !fits_in_all || contents.len() as u64 > limits.file_size => {}
                form => panic!("{form:?} of {} bytes", contents.len()),
            }
        }
    }
}

/// Gives a byte or a few at a time.
struct Trickle(std::io::Cursor<Vec<u8>>);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(1 + (self.0.position() % 5) as usize);
        self.0.read(&mut buffer[..most])
    }
}
