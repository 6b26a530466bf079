//! `multipart/form-data` (RFC 7578): the parser is `multer`, what it leaves unbounded is bounded here.
//!
//! `multer` asks its source for all that is ready before it looks at any of it. The source here is ready only when
//! `multer` has shown that it cannot go on without more, and then for one chunk: so it holds a chunk or two, whatever
//! the length of the message-body, and a part header or preamble that does not end within a few chunks is refused.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};

use super::form::{Builder, too_large};
use super::{Body, Form, FormLimits, MessageError};

/// Bytes that are read at a time.
const CHUNK: usize = 16 * 1024;
/// Chunks that may be read before a part begins, or its contents go on.
const PATIENCE: usize = 3;
/// Bytes of the header fields of one part.
const HEADER_LIMIT: usize = 8 * 1024;

/// Reads `body` as `multipart/form-data`.
pub(super) fn read(content_type: &str, body: Body, limits: &FormLimits) -> Result<Form, MessageError> {
    let boundary = parameter(content_type.as_bytes(), "boundary")
        .filter(|boundary| is_boundary(boundary))
        .ok_or(MessageError::MalformedForm("no boundary"));
    let ready = Arc::new(AtomicBool::new(false));
    let mut source =
        Source { body, left: limits.total_size, limit: limits.total_size, first: None, ready: Arc::clone(&ready) };
    // Without a message-body there is no boundary to look for.
    let first = source.chunk().map_err(MessageError::from_body)?;
    if first.is_empty() {
        return Ok(Form::default());
    }
    source.first = Some(first);

    let mut parts = multer::Multipart::new(source, boundary?);
    let mut form = Builder::new(limits);
    while let Some(part) = drive(&ready, |cx| parts.poll_next_field(cx))? {
        form.count()?;
        read_part(part, &ready, &mut form, limits)?;
    }
    Ok(form.finish())
}

fn read_part(
    mut part: multer::Field<'_>,
    ready: &AtomicBool,
    form: &mut Builder<'_>,
    limits: &FormLimits,
) -> Result<(), MessageError> {
    let size: usize = part.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if size > HEADER_LIMIT {
        return Err(too_large("size of a part header", HEADER_LIMIT as u64));
    }
    let (name, file_name) = disposition(part.headers())?;
    let content_type = part.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut next = || drive(ready, |cx| Pin::new(&mut part).poll_next(cx).map(Option::transpose));

    if let Some(file_name) = file_name {
        // Its names stay in memory like a field.
        form.add_name(&[name.len(), file_name.len(), content_type.as_ref().map_or(0, String::len)])?;
        form.spool.begin(name, file_name, content_type);
        let mut size = 0;
        while let Some(piece) = next()? {
            size += piece.len() as u64;
            if size > limits.file_size {
                return Err(too_large("size of a file", limits.file_size));
            }
            form.spool.write(&piece).map_err(MessageError::Upload)?;
        }
        form.spool.end();
        return Ok(());
    }
    let mut value = Vec::new();
    while let Some(piece) = next()? {
        form.check_field(&name, (value.len() + piece.len()) as u64)?;
        value.extend_from_slice(&piece);
    }
    let value = String::from_utf8(value).map_err(|_| MessageError::MalformedForm("a field is not UTF-8"))?;
    form.add_field(name, value)
}

/// Polls until there is a result, with one chunk more after each time that there is none.
///
/// Each round takes a chunk or the end from the message-body, so this waits in `read` and never spins.
fn drive<T>(
    ready: &AtomicBool,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<multer::Result<T>>,
) -> Result<T, MessageError> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..=PATIENCE {
        if let Poll::Ready(result) = poll(&mut context) {
            return result.map_err(error);
        }
        ready.store(true, Ordering::Relaxed);
    }
    ready.store(false, Ordering::Relaxed);
    Err(MessageError::MalformedForm("a part header does not end"))
}

/// The texts are fixed: `multer`'s own repeat names that the client sent.
fn error(error: multer::Error) -> MessageError {
    match error {
        multer::Error::StreamReadFailed(error) => match error.downcast::<io::Error>() {
            Ok(error) => MessageError::from_body(*error),
            Err(error) => MessageError::Body(io::Error::other(error)),
        },
        multer::Error::IncompleteFieldData { .. } | multer::Error::IncompleteStream => {
            MessageError::MalformedForm("a boundary is missing")
        }
        _ => MessageError::MalformedForm("a part header is malformed"),
    }
}

/// The message-body in chunks, as many as were asked for.
struct Source {
    body: Body,
    /// Bytes that may still come, of `limit`.
    left: u64,
    limit: u64,
    first: Option<Bytes>,
    ready: Arc<AtomicBool>,
}

impl Source {
    /// The next chunk: full, unless it is the last. Empty at the end.
    fn chunk(&mut self) -> io::Result<Bytes> {
        let mut chunk = vec![0; CHUNK];
        let mut filled = 0;
        while filled < chunk.len() {
            match self.body.next_piece(&mut chunk[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        chunk.truncate(filled);
        self.left = self
            .left
            .checked_sub(filled as u64)
            .ok_or_else(|| io::Error::other(too_large("total size", self.limit)))?;
        Ok(chunk.into())
    }
}

impl Stream for Source {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Nobody waits to be woken: `drive` polls again by itself.
        if !self.ready.swap(false, Ordering::Relaxed) {
            return Poll::Pending;
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        match self.chunk() {
            Ok(chunk) if chunk.is_empty() => Poll::Ready(None),
            result => Poll::Ready(Some(result)),
        }
    }
}

/// RFC 2046 section 5.1.1.
fn is_boundary(text: &str) -> bool {
    (1..=70).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b))
        && !text.ends_with(' ')
}

/// The names in a part's Content-Disposition (RFC 7578 section 4.2): of the field, and of the file if it is one.
///
/// Not left to `multer`, which looks for `filename` inside of quoted names too.
fn disposition(headers: &HeaderMap) -> Result<(String, Option<String>), MessageError> {
    let value = headers.get(CONTENT_DISPOSITION).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let kind = value.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    if !kind.eq_ignore_ascii_case(b"form-data") {
        return Err(MessageError::MalformedForm("a part is no form-data"));
    }
    // A name that is there and cannot be read must not turn a file into a field.
    let names = parameters(value).ok_or(MessageError::MalformedForm("a part header is malformed"))?;
    let find = |wanted: &str| names.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, v)| v.clone());
    let name = find("name").ok_or(MessageError::MalformedForm("a part has no name"))?;
    Ok((name, find("filename")))
}

fn parameter(value: &[u8], wanted: &str) -> Option<String> {
    parameters(value)?.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
}

/// The parameters after the first semicolon (RFC 9110 section 5.6.6); `None` where they are malformed or not UTF-8.
///
/// A value without quotes goes to the next semicolon, as boundaries with `=` or `/` are sent without them.
fn parameters(value: &[u8]) -> Option<Vec<(String, String)>> {
    let mut rest = std::str::from_utf8(value).ok()?;
    let mut parameters = Vec::new();
    while let Some((_, after)) = rest.split_once(';') {
        rest = after.trim_ascii_start();
        if rest.is_empty() || rest.starts_with(';') {
            continue;
        }
        let (name, after) = rest.split_once('=')?;
        rest = after.trim_ascii_start();
        let value = if let Some(quoted) = rest.strip_prefix('"') {
            let (value, after) = unquote(quoted)?;
            rest = after.trim_ascii_start();
            if !rest.is_empty() && !rest.starts_with(';') {
                return None;
            }
            value
        } else {
            let end = rest.find(';').unwrap_or(rest.len());
            let value = rest[..end].trim_ascii_end().to_owned();
            rest = &rest[end..];
            value
        };
        parameters.push((name.trim_ascii_end().to_owned(), value));
    }
    Some(parameters)
}

/// The contents of a quoted string and what follows it.
///
/// Only `\"` and `\\` are escapes: browsers send a lone backslash of a file name as it is, and so a backslash before
/// the very last quote too.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        let rest = &text[at + character.len_utf8()..];
        match character {
            '"' => return Some((value, rest)),
            '\\' if rest.starts_with('\\') || (rest.starts_with('"') && rest.len() > 1) => {
                value.extend(characters.next().map(|(_, escaped)| escaped));
            }
            character => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=b";

    fn read_with(body: impl Into<Body>, limits: &FormLimits) -> Result<Form, MessageError> {
        Form::read(TYPE, body.into(), limits)
    }

    fn read(body: impl Into<Body>) -> Result<Form, MessageError> {
        read_with(body, &FormLimits::default())
    }

    fn part(head: &str, content: &[u8]) -> Vec<u8> {
        [format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes(), content, b"\r\n"].concat()
    }

    fn body(parts: &[Vec<u8>]) -> Vec<u8> {
        [parts.concat(), b"--b--\r\n".to_vec()].concat()
    }

    fn what(result: Result<Form, MessageError>) -> &'static str {
        match result {
            Ok(_) => "",
            Err(MessageError::FormTooLarge { what, .. }) => what,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn fields_and_files() {
        let form = read(body(&[
            part("name=a", b"1"),
            part("name=\"f\"; filename=\"../x.bin\"\r\nContent-Type: text/x-test", b"\xff\r\n--\0"),
            part("name=\"a\"", "é".as_bytes()),
            part("name=empty; filename=\"\"", b""),
            part("name=f; filename=\"\"", b"unnamed"),
        ]))
        .unwrap();
        assert_eq!(form.fields().collect::<Vec<_>>(), [("a", "1"), ("a", "é")]);
        assert_eq!(form.files().len(), 2);
        let file = form.file("f").unwrap();
        assert_eq!((file.name(), file.file_name(), file.content_type()), ("f", "../x.bin", Some("text/x-test")));
        assert_eq!(file.safe_file_name().as_deref(), Some("x.bin"));
        assert_eq!(file.size(), 6);
        assert!(form.file("empty").is_none());
        let mut content = Vec::new();
        form.into_files().remove(0).read_to_end(&mut content).unwrap();
        assert_eq!(content, b"\xff\r\n--\0");
    }

    #[test]
    fn contents_survive_every_place_of_a_chunk_boundary() {
        let tails: [&[u8]; 6] = [b"", b"\r", b"\r\n", b"\r\n--", b"--b", b"\r\r\n-"];
        for size in (CHUNK - 120..CHUNK + 10).chain(2 * CHUNK - 120..2 * CHUNK + 10) {
            for tail in tails {
                let content = [vec![b'x'; size], tail.to_vec()].concat();
                let form = read(body(&[part("name=f; filename=f", &content), part("name=a", b"1")])).unwrap();
                let mut upload = form.file("f").unwrap().reader();
                let mut read = Vec::new();
                upload.read_to_end(&mut read).unwrap();
                assert!(read == content, "{size} {tail:?}");
                assert_eq!(form.value("a"), Some("1"));
            }
        }
    }

    #[test]
    fn a_large_file_passes_in_bounded_memory_and_many_small_parts_do_not_read_ahead() {
        let limits = FormLimits { file_size: 64 << 20, total_size: 65 << 20, ..FormLimits::default() };
        let small: Vec<_> = (0..500).map(|i| part(&format!("name=n{i}"), b"v")).collect();
        let head =
            [small.concat(), b"--b\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\n".to_vec()].concat();
        let tail = &b"\r\n--b--\r\n"[..];
        let reader = io::Cursor::new(head).chain(io::repeat(b'x').take(64 << 20)).chain(tail);
        let form = read_with(Body::from_reader(reader, None), &limits).unwrap();
        assert_eq!(form.fields().count(), 500);
        assert_eq!(form.file("f").unwrap().size(), 64 << 20);
    }

    #[test]
    fn no_more_is_read_than_the_parts_need() {
        struct Counted(Arc<AtomicUsize>, io::Cursor<Vec<u8>>);
        impl Read for Counted {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let n = self.1.read(buffer)?;
                self.0.fetch_add(n, Ordering::Relaxed);
                Ok(n)
            }
        }
        let (taken, one) = (Arc::default(), part("name=a", b"1"));
        let needed = one.len() * 1000;
        let body = Body::from_reader(Counted(Arc::clone(&taken), io::Cursor::new(one.repeat(100_000))), None);
        assert_eq!(what(read_with(body, &FormLimits::default())), "count");
        assert!(taken.load(Ordering::Relaxed) < needed + 2 * CHUNK);
    }

    #[test]
    fn limits_pass_at_their_value_and_fail_above() {
        let default = FormLimits::default;
        let two = FormLimits { count: 2, ..default() };
        let (field, file) = (part("name=a", b"1234"), part("name=f; filename=f", b"12345"));
        assert_eq!(what(read_with(body(&[field.clone(), file.clone()]), &two)), "");
        assert_eq!(what(read_with(body(&[field.clone(), file.clone(), field.clone()]), &two)), "count");
        let sizes = FormLimits { field_size: 4, file_size: 5, ..default() };
        assert_eq!(what(read_with(body(&[field.clone(), file.clone()]), &sizes)), "");
        assert_eq!(what(read_with(body(&[part("name=a", b"12345")]), &sizes)), "size of a field");
        assert_eq!(what(read_with(body(&[part("name=abcde", b"1")]), &sizes)), "size of a field");
        assert_eq!(what(read_with(body(&[part("name=f; filename=f", b"123456")]), &sizes)), "size of a file");
        let fields = FormLimits { fields_size: 7, ..default() };
        assert_eq!(what(read_with(body(&[field.clone(), file.clone()]), &fields)), "");
        assert_eq!(what(read_with(body(&[field.clone(), field.clone()]), &fields)), "size of all fields");
        let whole = body(&[field.clone(), file.clone()]);
        let total = FormLimits { total_size: whole.len() as u64, ..default() };
        let unknown = |bytes: Vec<u8>| Body::from_reader(io::Cursor::new(bytes), None);
        assert_eq!(what(read_with(whole.clone(), &total)), "");
        assert_eq!(what(read_with(unknown(whole.clone()), &total)), "");
        let larger = body(&[field, part("name=f; filename=f", b"123456")]);
        assert_eq!(what(read_with(larger.clone(), &total)), "total size");
        assert_eq!(what(read_with(unknown(larger), &total)), "total size");
        let many: Vec<_> = (0..200_000).map(|_| part("name=a", b"")).collect();
        let all = FormLimits { total_size: u64::MAX, fields_size: u64::MAX, ..default() };
        assert_eq!(what(read_with(body(&many), &all)), "count");
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let disposition = "Content-Disposition: form-data; name=a";
        let cases = [
            "--b".to_owned(),
            "--b\r\n".to_owned(),
            "b--\r\n".to_owned(),
            "--c\r\n--c--\r\n".to_owned(),
            format!("--b\r\n{disposition}\r\n\r\n1"),
            format!("--b\r\n{disposition}\r\n\r\n1\r\n--b\r\n"),
            format!("--b\r\n{disposition}\r\n\r\n1\r\n--bc\r\n--b--"),
            format!("--b\n{disposition}\n\n1\n--b--\n"),
            format!("--b\r\n{disposition}\r\n--b--\r\n"),
            format!("--b\r\n{disposition}\r\n\r\n\r\n--b\r\nNo colon\r\n\r\n\r\n--b--"),
            "--b\r\n\r\n1\r\n--b--\r\n".to_owned(),
            "--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--".to_owned(),
            "--b\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n--b--".to_owned(),
            "--b\r\nContent-Disposition: form-data; name=\"a\r\n\r\n1\r\n--b--".to_owned(),
            "--b\r\nContent-Disposition: form-data; name=a; filename=\"x\" y\r\n\r\n1\r\n--b--".to_owned(),
            format!("--b\r\n{disposition}\r\n{}\r\n1\r\n--b--", "X: y\r\n".repeat(40)),
        ];
        for case in cases {
            assert!(matches!(read(case.clone()), Err(MessageError::MalformedForm(_))), "{case:?}");
        }
        let latin1 = body(&[part("name=a", b"\xe9")]);
        assert!(matches!(read(latin1), Err(MessageError::MalformedForm(_))));
        for content_type in
            ["", "; boundary=", "; boundary=\"\"", "; boundary=\"b", "; boundary=b\u{e9}", "; boundary=\"b \""]
                .map(str::to_owned)
                .into_iter()
                .chain([format!("; boundary={}", "b".repeat(71))])
        {
            let result =
                Form::read(&format!("multipart/form-data{content_type}"), "--b--".into(), &FormLimits::default());
            assert!(matches!(result, Err(MessageError::MalformedForm("no boundary"))), "{content_type}");
        }
    }

    #[test]
    fn a_head_without_an_end_is_refused_long_before_the_limit() {
        let limits = FormLimits { total_size: u64::MAX, ..FormLimits::default() };
        let starts = ["", "--b", "--b\r\n", "--b\r\nX: ", "--b\r\nContent-Disposition: form-data; name=\""];
        for start in starts {
            for filler in [b' ', b'x', b'\n', b'-', b'\r'] {
                if (start, filler) == ("--b", b'-') {
                    // The closing boundary, and what follows that does not count.
                    continue;
                }
                let endless = start.as_bytes().chain(io::repeat(filler));
                let result = read_with(Body::from_reader(endless, None), &limits);
                assert!(matches!(result, Err(MessageError::MalformedForm(_))), "{start:?} {filler}");
            }
        }
        let long = body(&[part(&format!("name=a\r\nX: {}", "y".repeat(HEADER_LIMIT)), b"1")]);
        assert_eq!(what(read(long)), "size of a part header");
    }

    #[test]
    fn a_nested_multipart_is_a_value_like_any_other() {
        let inner = "--c\r\nContent-Disposition: attachment; filename=x\r\n\r\n1\r\n--c--";
        let form =
            read(body(&[part("name=a\r\nContent-Type: multipart/mixed; boundary=c", inner.as_bytes())])).unwrap();
        assert_eq!(form.value("a"), Some(inner));
        assert!(form.files().is_empty());
    }

    #[test]
    fn names_are_read_as_browsers_write_them() {
        let names = |head: &str| {
            let form = read(body(&[part(head, b"1")])).unwrap();
            let field = form.fields().next().map(|(name, _)| (name.to_owned(), None));
            field.unwrap_or_else(|| (form.files()[0].name().to_owned(), Some(form.files()[0].file_name().to_owned())))
        };
        let field = |name: &str| (name.to_owned(), None);
        let file = |name: &str, file_name: &str| (name.to_owned(), Some(file_name.to_owned()));
        assert_eq!(names("name=\"x; filename=y\""), field("x; filename=y"));
        assert_eq!(names("NAME = a ; FileName=b"), file("a", "b"));
        assert_eq!(names("filename=\"name=b\"; name=a"), file("a", "name=b"));
        assert_eq!(names("name=a; filename=\"q\\\"q\\\\.txt\""), file("a", "q\"q\\.txt"));
        assert_eq!(names("name=a; filename=\"C:\\dir\\x.txt\""), file("a", "C:\\dir\\x.txt"));
        assert_eq!(names("name=a; filename=\"x\\\""), file("a", "x\\"));
        assert_eq!(names("name=\"\""), field(""));
        assert_eq!(names("name=\"你好\"; filename*=UTF-8''x"), field("你好"));
    }

    #[test]
    fn every_prefix_is_refused_or_whole() {
        let whole = body(&[part("name=a", b"1"), part("name=f; filename=f", b"2")]);
        for end in 1..whole.len() {
            // Complete with the two hyphens of the last boundary.
            assert_eq!(read(whole[..end].to_vec()).is_ok(), end >= whole.len() - 2, "{end}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(pieces in prop::collection::vec(prop_oneof![
            Just(b"--b".to_vec()), Just(b"\r\n".to_vec()), Just(b"\r\n\r\n".to_vec()), Just(b"--".to_vec()),
            Just(b"Content-Disposition: form-data; name=a".to_vec()), Just(b"; filename=\"".to_vec()),
            Just(b"Content-Type: text/plain".to_vec()), prop::collection::vec(any::<u8>(), 0..40),
        ], 0..24)) {
            let _ = read(pieces.concat());
        }

        #[test]
        fn any_contents_come_through(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5)
        ) {
            let parts: Vec<_> = contents.iter().map(|c| part("name=f; filename=f", c)).collect();
            prop_assume!(contents.iter().all(|c| !c.windows(5).any(|w| w == b"\r\n--b")));
            let form = read(body(&parts)).unwrap();
            let read: Vec<Vec<u8>> = form.into_files().into_iter()
                .map(|mut file| { let mut all = Vec::new(); file.read_to_end(&mut all).unwrap(); all }).collect();
            prop_assert_eq!(read, contents);
        }
    }
}
