//! An application whose responses, children and end can be chosen; the demo lets nobody do that.
//!
//! It is this very program, started under another name. It must be a process of one thread, which no test can be: so it
//! begins where the C library calls what is to run before `main`.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio, exit};

use cloakroom::message::Cookie;
use cloakroom::{DirectoryStore, Error, Host, Options, Request, Response, Result, Session};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRAILER, TRANSFER_ENCODING,
};

use super::support::process::demo_at;
use super::support::visitor::{Front, Message, Site};

const NAME: &str = "application-of-tests";

// SAFETY: a table of functions is what is expected there; this one has their type, and std's arguments, which it uses, are
// set by an entry of higher priority.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    if std::env::args_os().next().is_some_and(|name| name == NAME) {
        let options = Options::from_args();
        let store = DirectoryStore::at(options.sessions.clone().expect("a directory for sessions"));
        let _ = Host::new(respond).sessions(store).run_with(options);
        exit(0);
    }
}

/// This program as application.
pub fn command() -> Command {
    let mut command = demo_at(&std::env::current_exe().expect("this program"));
    command.arg0(NAME);
    command
}

/// It, reached in this way.
pub fn site(front: Front) -> Site {
    Site::of(front, "", command)
}

pub const FRONTS: [Front; 3] = [Front::Cgi, Front::Scgi, Front::Http];

/// One GET, and what came, byte by byte.
pub fn get(site: &Site, target: &str, headers: &[(&str, &[u8])]) -> Vec<u8> {
    let headers = headers.iter().map(|(name, value)| (*name, value.to_vec())).collect();
    site.exchange(&Message { method: "GET", target, headers, body: Vec::new() })
}

#[expect(clippy::needless_pass_by_value, reason = "the type of an application")]
fn respond(request: Request, session: &mut Session) -> Result<Response> {
    let value = |name| request.query_value(name).unwrap_or_default();
    match request.path() {
        "/part" => part(&value("at"), &from_hex(&value("bytes"))),
        "/framing" => framing(&value("case")),
        "/public" => {
            session.add("n", 1)?;
            Ok(Response::text("ok").with_header(CACHE_CONTROL, "public, max-age=3600")?)
        }
        "/child" => {
            let output = Command::new("env").arg("-0").stdin(Stdio::null()).output()?;
            Ok(Response::bytes("text/plain", output.stdout))
        }
        "/leave-a-child" => {
            session.add("n", 1)?;
            session.get::<u64>("n")?;
            let mut sleep = Command::new("sleep");
            sleep.arg("30").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = sleep.spawn()?.id();
            if !value("note").is_empty() {
                std::fs::write(Path::new(&value("note")), child.to_string())?;
                std::process::abort();
            }
            Ok(Response::text(format!("{child}")))
        }
        _ => Ok(Response::text("no such page").with_status(http::StatusCode::NOT_FOUND)),
    }
}

pub const PARTS: [&str; 8] =
    ["name", "value", "content-type", "location", "cookie-name", "cookie-value", "cookie-path", "cookie-domain"];

/// A response with these bytes in one part of its head.
fn part(at: &str, bytes: &[u8]) -> Result<Response> {
    let mut response = Response::text("ok");
    // As most programs would make text of bytes: one character each.
    let text: String = bytes.iter().copied().map(char::from).collect();
    let cookie = |name: &str, value: &str| Cookie::new(name.to_owned(), value.to_owned());
    match at {
        "name" => {
            let name = HeaderName::from_bytes(bytes).map_err(io)?;
            response = response.with_header(name, "v")?;
        }
        "value" => {
            response = response.with_header(HeaderName::from_static("x-text"), &text)?;
            response.headers_mut().insert("x-bytes", HeaderValue::from_bytes(bytes).map_err(io)?);
        }
        // It panics where it is none, as only the program's own text is meant to be there.
        "content-type" => response = Response::bytes(text.leak(), "ok"),
        "location" => response = Response::redirect(&text)?,
        "cookie-name" => response.set_cookie(cookie(&text, "v"))?,
        "cookie-value" => response.set_cookie(cookie("c", &text))?,
        "cookie-path" => response.set_cookie(Cookie::build(("c", "v")).path(format!("/{text}")))?,
        "cookie-domain" => response.set_cookie(Cookie::build(("c", "v")).domain(text))?,
        _ => return Err(Error::message("no such part")),
    }
    Ok(response)
}

fn io(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    std::io::Error::other(error).into()
}

/// A response that says about itself what is not so.
fn framing(case: &str) -> Result<Response> {
    let mut response = Response::text("hello");
    let headers = response.headers_mut();
    let status = HeaderName::from_static("status");
    match case {
        "length" => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from_static("500"))),
        "lengths" => {
            headers.append(CONTENT_LENGTH, HeaderValue::from_static("3"));
            headers.append(CONTENT_LENGTH, HeaderValue::from_static("4"));
        }
        "no-length" => drop(headers.append(CONTENT_LENGTH, HeaderValue::from_static("five"))),
        "chunked" => drop(headers.append(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))),
        "status" => drop(headers.append(status, HeaderValue::from_static("204 Nothing"))),
        "trailer" => drop(headers.append(TRAILER, HeaderValue::from_static("Set-Cookie"))),
        "upgrade" => drop(headers.append(CONNECTION, HeaderValue::from_static("upgrade, content-length"))),
        "types" => drop(headers.append(CONTENT_TYPE, HeaderValue::from_static("text/html"))),
        "large" => {
            for number in 0..60 {
                let name = HeaderName::from_bytes(format!("x-large-{number}").as_bytes()).map_err(io)?;
                headers.append(name, HeaderValue::from_str(&"x".repeat(1000)).map_err(io)?);
            }
        }
        _ => return Err(Error::message("no such case")),
    }
    Ok(response)
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
