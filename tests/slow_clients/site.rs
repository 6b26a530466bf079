//! A pool with both listeners, and clients that take their time.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use crate::support::client::{http, scgi_request};
use crate::support::process::{Proc, demo};
use crate::support::{PATIENCE, TestDir, eventually};

/// Longer than a worker waits for a client in place.
pub const PAUSE: Duration = Duration::from_millis(30);

/// The addresses of both listeners.
#[derive(Clone, Debug)]
pub struct Doors {
    pub http: String,
    pub scgi: String,
}

pub struct Site {
    pub proc: Proc,
    pub doors: Doors,
    pub status: String,
    pub workers: Vec<u32>,
    pub directory: TestDir,
}

impl Doors {
    pub fn connect(&self, way: Way) -> io::Result<Client> {
        let socket = match way {
            Way::Http => {
                let stream = TcpStream::connect(&self.http)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Socket::Tcp(stream)
            }
            Way::Scgi => {
                let stream = UnixStream::connect(self.scgi.strip_prefix("unix:").expect("a Unix socket"))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Socket::Unix(stream)
            }
        };
        Ok(Client { socket })
    }
}

impl Site {
    pub fn new(workers: usize, more: &[&str]) -> Self {
        Self::start(demo(), workers, more)
    }

    pub fn start(mut program: Command, workers: usize, more: &[&str]) -> Self {
        let directory = TestDir::new();
        let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
        let (socket, sessions, count) = (format!("unix:{}", path("socket")), path("sessions"), workers.to_string());
        let (status, log) = (format!("unix:{}", path("status")), path("access"));
        let mut all = vec!["--http", "127.0.0.1:0", "--scgi", &socket, "--sessions", &sessions, "--workers", &count];
        all.extend(["--status", &status, "--access-log", &log, "--access-log-format", "json"]);
        program.args(all.into_iter().chain(more.iter().copied()));
        let proc = Proc::start(program);
        let doors = Doors { http: proc.address("http"), scgi: proc.address("scgi") };
        let status = proc.address("status");
        let workers = proc.ready(workers);
        Self { proc, doors, status, workers, directory }
    }

    /// What the status says of slow clients: those that are received from, those that are sent to, those handed over,
    /// those dropped, and porters that died.
    pub fn slow(&self) -> [u64; 5] {
        let json = self.json();
        ["receiving", "sending", "handed_over_total", "dropped_total", "porter_deaths_total"]
            .map(|name| json["slow_clients"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {json}")))
    }

    fn json(&self) -> serde_json::Value {
        let response = http(&self.status, "/status.json").expect("the status");
        serde_json::from_str(response.split_once("\r\n\r\n").expect("a head").1).expect("JSON")
    }

    /// Whether no worker has anything to do.
    pub fn is_idle(&self) -> bool {
        let json = self.json();
        json["workers"]["idle"] == json["workers"]["ready"]
    }

    /// Waits until the porter has so many clients.
    #[track_caller]
    pub fn wait_for_slow(&self, what: &str, condition: impl Fn([u64; 5]) -> bool) {
        eventually(what, || condition(self.slow()));
    }

    /// The lines of the access log.
    pub fn access_log(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.directory.join("access")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// Which listener a client comes in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Http,
    Scgi,
}

pub const WAYS: [Way; 2] = [Way::Http, Way::Scgi];

impl Way {
    /// The bytes of a request, for a connection that is closed after it.
    pub fn request(self, method: &str, target: &str, body: &[u8]) -> Vec<u8> {
        match self {
            Self::Scgi => scgi_request(method, target, body),
            Self::Http => {
                let head = format!(
                    "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                [head.into_bytes(), body.to_vec()].concat()
            }
        }
    }

    /// How a response with this status begins.
    pub fn status_line(self, status: u16) -> String {
        match self {
            Self::Http => format!("HTTP/1.1 {status} "),
            Self::Scgi => format!("Status: {status} "),
        }
    }
}

pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection.
pub struct Client {
    pub socket: Socket,
}

impl Client {
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(bytes),
            Socket::Unix(stream) => stream.write_all(bytes),
        }
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }

    /// All that comes, to the end of the connection.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        match &mut self.socket {
            Socket::Tcp(stream) => stream.read_to_end(&mut all)?,
            Socket::Unix(stream) => stream.read_to_end(&mut all)?,
        };
        Ok(all)
    }

    pub fn set_nonblocking(&self) {
        match &self.socket {
            Socket::Tcp(stream) => stream.set_nonblocking(true),
            Socket::Unix(stream) => stream.set_nonblocking(true),
        }
        .expect("set nonblocking");
    }

    /// Takes little from the kernel at once, so that the server sees a slow reader soon.
    pub fn narrow(&self) {
        rustix::net::sockopt::set_socket_recv_buffer_size(self, 128 * 1024).expect("a receive buffer");
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

/// What `/large` sends.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}
