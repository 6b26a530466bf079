//! What measuring and checking need: pages for programs more than for people.

// All handlers have one signature, whether they can fail or not.
#![allow(clippy::unnecessary_wraps)]

use std::io;
use std::thread;
use std::time::Duration;

use cloakroom::message::{Form, MessageError, Upload};
use cloakroom::{Request, Response, Result, Session};
use http::{Method, StatusCode};
use sha2::{Digest as _, Sha256};

use super::Demo;
use super::desk::{COUNTER, count};
use super::page::{self, attribute, text};

/// `/slow` waits no longer than this.
const LONGEST: u64 = 60_000;
/// `/large` is no larger than this.
const LARGEST: u64 = 256 << 20;

/// `/fill` puts this in, and no more bytes than that.
const FILL: &str = "fill";
const FULLEST: usize = 1 << 20;

/// A page that never touches the session.
pub(super) fn hello(_: &Demo, _: &mut Request, _: &mut Session) -> Result<Response> {
    Ok(Response::text("Hello, world!\n"))
}

/// A page that reads the session and cannot change it.
pub(super) fn read(_: &Demo, _: &mut Request, session: &mut Session) -> Result<Response> {
    Ok(Response::text(format!("Counter: {}\n", count(session)?)))
}

/// Reads the counter, takes its time, and then, if asked to, adds one to a value in the plainest way there is: get and
/// insert. Everything between the first access and the commit can run into other requests. `extend` puts the deadline off.
pub(super) fn slow(_: &Demo, request: &mut Request, session: &mut Session) -> Result<Response> {
    // A form is read before the session is opened: a slow client must not hold the session's lock.
    let form = if request.method() == Method::POST { form_if_any(request)? } else { Form::default() };
    let value = |name| request.query_value(name).or_else(|| form.value(name).map(str::to_owned));
    let Ok(ms) = value("ms").as_deref().unwrap_or("0").parse::<u64>() else {
        return refuse("ms: expected a number of milliseconds");
    };
    if ms > LONGEST {
        return refuse("ms: at most 60000");
    }
    let key = value("write");
    if key.as_deref().is_some_and(|key| !is_key(key)) {
        return refuse("write: expected 1 to 64 letters, digits, '_', '-' or '.', and not 'keep'");
    }

    if let Some(more) = value("extend").and_then(|ms| ms.parse().ok()) {
        request.extend_deadline(Duration::from_millis(more));
    }
    let counter = count(session)?;
    thread::sleep(Duration::from_millis(ms));
    let Some(key) = key else { return Ok(Response::text(format!("Counter: {counter}\n"))) };
    let n = session.get::<u64>(&key)?.unwrap_or(0).saturating_add(1);
    session.insert(&key, n)?;
    Ok(Response::text(format!("{key}: {n}\n")))
}

/// Puts that many bytes into the session, or takes them out again: it grows and shrinks.
pub(super) fn fill(_: &Demo, request: &mut Request, session: &mut Session) -> Result<Response> {
    let Ok(bytes @ ..=FULLEST) = request.query_value("bytes").as_deref().unwrap_or("0").parse() else {
        return refuse("bytes: expected a number, at most 1048576");
    };
    match bytes {
        0 => drop(session.remove::<String>(FILL)?),
        _ => session.insert(FILL, "x".repeat(bytes))?,
    }
    Ok(Response::text(format!("fill: {bytes}\n")))
}

/// `keep` is a mark, not a number: it decides whether the session stays.
fn is_key(key: &str) -> bool {
    (1..=64).contains(&key.len())
        && key != "keep"
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// The form of a POST; a message-body of another type is left alone, as the query says all there is to say.
fn form_if_any(request: &mut Request) -> Result<Form> {
    match request.form() {
        Err(MessageError::NotAForm) => Ok(Form::default()),
        form => Ok(form?),
    }
}

/// So many bytes, each what its place says: in memory, in a file, or made as they are sent (`as`). `pause`
/// holds a reader up before its last byte.
pub(super) fn large(_: &Demo, request: &mut Request, _: &mut Session) -> Result<Response> {
    let number = |name| request.query_value(name).as_deref().unwrap_or("0").parse::<u64>();
    let (Ok(length), Ok(pause)) = (number("bytes"), number("pause")) else {
        return refuse("bytes, pause: expected a number");
    };
    if length > LARGEST || pause > LONGEST {
        return refuse("bytes: at most 256 MiB; pause: at most 60000");
    }
    let mut reader = Pattern::new(length, Duration::from_millis(pause));
    let kind = "application/octet-stream";
    match request.query_value("as").as_deref() {
        None | Some("bytes") => {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut reader, &mut bytes)?;
            Ok(Response::bytes(kind, bytes))
        }
        Some("stream") => Ok(Response::stream(kind, reader)),
        Some("file") => {
            // It is open by the time that its name is gone.
            let mut file = tempfile::NamedTempFile::new()?;
            io::copy(&mut reader, &mut file)?;
            Ok(Response::file(file.path())?)
        }
        Some(_) => refuse("as: expected bytes, stream or file"),
    }
}

/// Bytes that tell where they belong: `251` is prime to all that buffers are long.
struct Pattern {
    block: Vec<u8>,
    at: u64,
    length: u64,
    pause: Duration,
}

impl Pattern {
    fn new(length: u64, pause: Duration) -> Self {
        Self { block: (0..=250).cycle().take(251 * 256).collect(), at: 0, length, pause }
    }
}

impl io::Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length - self.at;
        if left == 1 {
            thread::sleep(self.pause);
        }
        let left = usize::try_from(if left > 1 { left - 1 } else { left }).unwrap_or(usize::MAX);
        let block = &self.block[(self.at % 251) as usize..];
        let n = buffer.len().min(left).min(block.len());
        buffer[..n].copy_from_slice(&block[..n]);
        self.at += n as u64;
        Ok(n)
    }
}

/// The meta-variables, as env(1) would print them: byte by byte. Where the path is split is what the gateway made of
/// them, since the front servers disagree.
pub(super) fn env(_: &Demo, request: &mut Request, _: &mut Session) -> Result<Response> {
    let split = [(&b"SCRIPT_NAME"[..], request.script_name().as_bytes()), (b"PATH_INFO", request.path_info())];
    let others = request.meta().iter().filter(|(name, _)| split.iter().all(|(own, _)| own != name));
    let mut lines: Vec<_> =
        others.chain(split.iter().copied()).map(|(name, value)| [name, b"=", value, b"\n"].concat()).collect();
    lines.sort_unstable();
    Ok(Response::bytes("text/plain; charset=utf-8", lines.concat()))
}

/// A form for files; what was sent is described, not kept.
pub(super) fn upload(_: &Demo, request: &mut Request, _: &mut Session) -> Result<Response> {
    if request.method() != Method::POST {
        let form = format!(
            "<h1>Upload</h1>
<p>Choose some files, up to 8 MiB together. They are measured and hashed, and nothing is kept.</p>
<form method=\"post\" action=\"{}\" enctype=\"multipart/form-data\" class=\"card\">
<label for=\"file\">Files</label>
<input id=\"file\" name=\"file\" type=\"file\" multiple required>
<button>Send</button>
</form>",
            attribute(&request.link("/upload"))
        );
        return page::page(request, "Upload", &form);
    }
    let form = request.form()?;
    let mut items = String::new();
    for file in form.files() {
        items.push_str(&describe(file)?);
    }
    let main = match form.files().len() {
        0 => "<h1>Nothing came</h1>\n<p>There was no file in the form.</p>".to_owned(),
        1 => format!("<h1>One file came</h1>\n{items}"),
        n => format!("<h1>{n} files came</h1>\n{items}"),
    };
    let again = page::button(request, "/upload", "Send others");
    page::page(request, "Upload", &format!("{main}\n<p class=\"actions\">{again}</p>"))
}

fn describe(file: &Upload) -> Result<String> {
    let mut hash = Hasher(Sha256::new());
    io::copy(&mut file.reader(), &mut hash)?;
    Ok(format!(
        "<dl class=\"card\">\n<dt>Name</dt><dd>{}</dd>\n<dt>Field</dt><dd>{}</dd>\n<dt>Size</dt><dd>{} bytes</dd>\n\
         <dt>SHA-256</dt><dd class=\"mono\">{}</dd>\n</dl>\n",
        text(file.file_name()),
        text(file.name()),
        file.size(),
        hash.hex(),
    ))
}

/// Lets a reader be copied into a checksum.
struct Hasher(Sha256);

impl Hasher {
    fn hex(self) -> String {
        self.0.finalize().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Changes the session, then panics: a 500, and nothing of the change is saved.
pub(super) fn boom(_: &Demo, _: &mut Request, session: &mut Session) -> Result<Response> {
    session.add(COUNTER, 1)?;
    panic!("somebody asked for /boom");
}

/// Ends the process as a crash does: no unwinding, no clean-up, no answer.
pub(super) fn exit(_: &Demo, _: &mut Request, _: &mut Session) -> Result<Response> {
    std::process::abort()
}

pub(super) fn refuse(text: &str) -> Result<Response> {
    Ok(Response::text(format!("{text}\n")).with_status(StatusCode::BAD_REQUEST))
}
