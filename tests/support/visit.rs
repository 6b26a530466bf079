//! A visitor with a cookie, who comes in by any of the three ways: HTTP, SCGI or CGI.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::PATIENCE;
use super::client::scgi_head;
use super::process::demo;

/// A way to the demo.
#[derive(Clone, Debug)]
pub enum Door {
    /// `HOST:PORT`
    Http(String),
    /// `unix:PATH`
    Scgi(String),
    /// One process for each request; sessions in this directory.
    Cgi(PathBuf),
}

/// A response, as far as these tests look at it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// `name=value` of the cookie that was set; an empty value where it was taken back.
    pub set_cookie: Option<String>,
    pub retry_after: Option<String>,
    pub body: String,
}

impl Answer {
    /// The number after `name: `.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        let rest = self.body.split_once(&format!("{name}: ")).unwrap_or_else(|| panic!("no {name} in {self:?}")).1;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_else(|_| panic!("no number of {name} in {self:?}"))
    }

    /// The session ID that was handed out.
    #[track_caller]
    pub fn id(&self) -> &str {
        let cookie = self.set_cookie.as_deref().unwrap_or_else(|| panic!("no cookie in {self:?}"));
        cookie.split_once('=').expect("a cookie").1
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{self:?}");
        self
    }
}

/// Somebody who makes requests, one after the other.
pub struct Visitor {
    door: Door,
    pub cookie: Option<String>,
    /// HTTP connections are kept, as browsers do.
    kept: Option<BufReader<TcpStream>>,
    /// The last request found that the connection it was to use had been closed, with nothing said to it: it may be made
    /// again where it may be repeated (RFC 9112 section 9.3.1).
    pub was_closed_before: bool,
}

impl Visitor {
    pub fn new(door: &Door) -> Self {
        Self { door: door.clone(), cookie: None, kept: None, was_closed_before: false }
    }

    /// Somebody with this cookie.
    pub fn with(door: &Door, cookie: &str) -> Self {
        Self { cookie: Some(cookie.to_owned()), ..Self::new(door) }
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.ask("GET", target, "").unwrap_or_else(|error| panic!("GET {target}: {error}"))
    }

    #[track_caller]
    pub fn post(&mut self, target: &str, form: &str) -> Answer {
        self.ask("POST", target, form).unwrap_or_else(|error| panic!("POST {target}: {error}"))
    }

    /// One request. An error means that no whole answer came, so that nobody knows whether it was served. A cookie
    /// that is set is kept.
    pub fn ask(&mut self, method: &str, target: &str, form: &str) -> io::Result<Answer> {
        let answer = match &self.door {
            Door::Http(address) => {
                let kept = self.kept.take();
                let was_kept = kept.is_some();
                self.was_closed_before = false;
                let mut stream = match kept {
                    Some(stream) => stream,
                    None => connect(address)?,
                };
                let sent = stream.get_mut().write_all(http(method, target, self.cookie.as_deref(), form).as_bytes());
                let begun = sent.and_then(|()| stream.fill_buf().map(|bytes| !bytes.is_empty()));
                // A time that is over is no end of the connection.
                self.was_closed_before = was_kept && begun.as_ref().map_or_else(is_end, |&begun| !begun);
                begun?;
                let (answer, stays) = read_http(&mut stream)?;
                self.kept = stays.then_some(stream);
                answer
            }
            Door::Scgi(address) => {
                let mut stream = UnixStream::connect(address.strip_prefix("unix:").expect("a Unix socket"))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(&scgi(method, target, self.cookie.as_deref(), form))?;
                read_cgi(stream)?
            }
            Door::Cgi(_) => {
                let mut script = self.start_script(method, target, form)?;
                let answer = read_cgi(script.0.stdout.take().expect("piped"));
                script.0.wait()?;
                answer?
            }
        };
        match answer.set_cookie.as_deref() {
            None => {}
            Some(taken_back) if taken_back.ends_with('=') => self.cookie = None,
            Some(cookie) => self.cookie = Some(cookie.to_owned()),
        }
        Ok(answer)
    }

    /// Starts the CGI script of one request, which has got its message-body already.
    pub fn start_script(&self, method: &str, target: &str, form: &str) -> io::Result<Script> {
        let mut child = self
            .script(demo(), method, target, form)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        // A form is far smaller than a pipe.
        child.stdin.take().expect("piped").write_all(form.as_bytes())?;
        Ok(Script(child))
    }

    /// `command` with the environment of a CGI script that serves this request.
    pub fn script(&self, mut command: Command, method: &str, target: &str, form: &str) -> Command {
        let Door::Cgi(sessions) = &self.door else { panic!("no CGI script") };
        command.env_clear().env("CLOAKROOM_SESSIONS", sessions).env("GATEWAY_INTERFACE", "CGI/1.1");
        for (name, value) in meta(method, target, form) {
            command.env(name, value);
        }
        if let Some(cookie) = &self.cookie {
            command.env("HTTP_COOKIE", cookie);
        }
        command
    }
}

/// A CGI script at work. Dropping it kills it and waits for it.
pub struct Script(pub Child);

impl Script {
    /// What it answered, if it lived to do so.
    pub fn answer(mut self) -> io::Result<Answer> {
        read_cgi(self.0.stdout.take().expect("piped"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(address: &str) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn meta<'a>(method: &'a str, target: &'a str, form: &str) -> Vec<(&'static str, String)> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut meta = vec![
        ("CONTENT_LENGTH", form.len().to_string()),
        ("SCGI", "1".to_owned()),
        ("REQUEST_METHOD", method.to_owned()),
        ("REQUEST_URI", target.to_owned()),
        ("SCRIPT_NAME", String::new()),
        ("PATH_INFO", path.to_owned()),
        ("QUERY_STRING", query.to_owned()),
        ("SERVER_NAME", "localhost".to_owned()),
        ("SERVER_PORT", "80".to_owned()),
        ("SERVER_PROTOCOL", "HTTP/1.1".to_owned()),
        ("REMOTE_ADDR", "127.0.0.1".to_owned()),
        ("HTTP_HOST", "localhost".to_owned()),
    ];
    if method == "POST" {
        meta.push(("CONTENT_TYPE", "application/x-www-form-urlencoded".to_owned()));
    }
    meta
}

fn scgi(method: &str, target: &str, cookie: Option<&str>, form: &str) -> Vec<u8> {
    let mut pairs = meta(method, target, form);
    pairs.extend(cookie.map(|cookie| ("HTTP_COOKIE", cookie.to_owned())));
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    [scgi_head(&pairs), form.as_bytes().to_vec()].concat()
}

fn http(method: &str, target: &str, cookie: Option<&str>, form: &str) -> String {
    let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    let kind = if method == "POST" {
        format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", form.len())
    } else {
        String::new()
    };
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{cookie}{kind}\r\n{form}")
}

/// What the header lines say.
#[derive(Default)]
struct Head {
    status: Option<u16>,
    set_cookie: Option<String>,
    retry_after: Option<String>,
    length: Option<usize>,
    close: bool,
}

fn read_head(stream: &mut impl io::BufRead) -> io::Result<Head> {
    let mut head = Head::default();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(head);
        }
        if let Some(status) = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("Status: ")) {
            head.status = status.get(..3).and_then(|digits| digits.parse().ok());
        } else if let Some((name, value)) = line.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "set-cookie" => head.set_cookie = value.split(';').next().map(str::to_owned),
                "retry-after" => head.retry_after = Some(value.to_owned()),
                "content-length" => head.length = value.parse().ok(),
                "connection" => head.close = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }
}

/// A whole response on a connection that may stay open.
fn read_http(stream: &mut BufReader<TcpStream>) -> io::Result<(Answer, bool)> {
    let head = read_head(stream)?;
    let length = head.length.ok_or_else(|| io::Error::other("no Content-Length"))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((answer(&head, body)?, !head.close))
}

/// A response that ends with the connection; it counts as whole only if its Content-Length says so.
pub fn read_cgi(stream: impl io::Read) -> io::Result<Answer> {
    let mut stream = BufReader::new(stream);
    let head = read_head(&mut stream)?;
    let mut body = Vec::new();
    stream.read_to_end(&mut body)?;
    if head.length.is_some_and(|length| length != body.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    answer(&head, body)
}

fn answer(head: &Head, body: Vec<u8>) -> io::Result<Answer> {
    let status = head.status.ok_or_else(|| io::Error::other("no status"))?;
    let body = String::from_utf8(body).map_err(io::Error::other)?;
    Ok(Answer { status, set_cookie: head.set_cookie.clone(), retry_after: head.retry_after.clone(), body })
}
