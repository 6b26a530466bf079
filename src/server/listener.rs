//! Listeners: addresses, sockets that are bound or inherited, and the file that a Unix socket leaves behind.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};

use super::stream::Stream;
use crate::sys::log::log;
use crate::sys::{descriptor, environment, lock, socket};

/// Where a server listens: `HOST:PORT` or `unix:PATH`.
///
/// ```
/// # use cloakroom::Address;
/// let address: Address = "unix:/run/counter.sock".parse().unwrap();
/// assert_eq!(address.to_string(), "unix:/run/counter.sock");
/// assert!("localhost".parse::<Address>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// A TCP host and port. A name may stand for several addresses; port 0 lets the system choose.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(AddressError) } else { Ok(Self::Unix(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError)?;
        let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || !bare || port.parse::<u16>().is_err() {
            return Err(AddressError);
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(text) => f.write_str(text),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A text that is no [`Address`].
#[derive(Debug, thiserror::Error)]
#[error("expected HOST:PORT or unix:PATH")]
pub struct AddressError;

/// What is spoken on a listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Scgi,
    Http,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scgi => "scgi",
            Self::Http => "http",
        })
    }
}

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error("cannot listen on {address}: another process is listening there")]
    InUse { address: String },
    #[error("cannot listen on {address}: the file is there and is no socket")]
    NotASocket { address: String },
    #[error("inherited descriptors (LISTEN_FDS): {0}")]
    Inherited(io::Error),
}

impl ListenError {
    fn bind(address: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Bind { address: address.to_string(), source }
    }

    /// Whether trying again cannot help: somebody has to change the configuration.
    pub(crate) fn is_configuration(&self) -> bool {
        matches!(self, Self::NotASocket { .. } | Self::Inherited(_))
    }
}

/// How sockets are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) backlog: i32,
    pub(crate) mode: u32,
}

/// How long a bind waits for another one in the same directory, which is over at once.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// A listening socket, not waiting: accept(2) on it never blocks.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    pub(crate) protocol: Protocol,
    local: Option<SocketAddr>,
    name: String,
    file: Option<SocketFile>,
    inherited: bool,
    deferred: bool,
    sealed: bool,
}

/// A listener on its way to another program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) fd: RawFd,
    http: bool,
    inherited: bool,
    deferred: bool,
    /// The bytes of the path, and the file's device and inode.
    file: Option<(Vec<u8>, u64, u64)>,
}

/// The file of a Unix socket that this process made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Listener {
    /// Binds `address`; a name like `localhost` can give more than one listener.
    pub(crate) fn bind(
        address: &Address,
        protocol: Protocol,
        options: SocketOptions,
    ) -> Result<Vec<Self>, ListenError> {
        match address {
            Address::Tcp(text) => bind_tcp(text, protocol, options),
            Address::Unix(path) => bind_unix(path, protocol, options).map(|listener| vec![listener]),
        }
    }

    /// Takes the sockets that systemd, or something that does as systemd does, has bound for this process: `LISTEN_FDS`
    /// of them, meant for `LISTEN_PID`. One whose name (`LISTEN_FDNAMES`) starts with `http` is for HTTP, any other
    /// for SCGI. The variables are removed, so that no child takes them for its own.
    pub(crate) fn inherit() -> Result<Vec<Self>, ListenError> {
        let refused = |text: &str| ListenError::Inherited(io::Error::other(text.to_owned()));
        let Some([pid, count, names]) = environment::take(["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]) else {
            return Err(refused("the process has more than one thread; call run from its only one"));
        };
        let text = |value: Option<OsString>| value.and_then(|value| value.into_string().ok());
        if text(pid).and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
            return Ok(Vec::new());
        }
        let count: usize = text(count)
            .and_then(|count| count.parse().ok())
            .filter(|&count| count <= 1024)
            .ok_or_else(|| refused("not a number"))?;
        let names = text(names).unwrap_or_default();
        let mut names = names.split(':');
        let descriptors = descriptor::take_inherited(count).map_err(ListenError::Inherited)?;
        let listener = |fd| {
            let http = names.next().is_some_and(|name| name.starts_with("http"));
            let protocol = if http { Protocol::Http } else { Protocol::Scgi };
            let mut listener = Self::from_fd(fd, protocol).map_err(ListenError::Inherited)?;
            listener.inherited = true;
            Ok(listener)
        };
        descriptors.into_iter().map(listener).collect()
    }

    /// Takes a socket that listens already.
    pub(crate) fn from_fd(fd: OwnedFd, protocol: Protocol) -> io::Result<Self> {
        if sockopt::socket_type(&fd)? != SocketType::STREAM || !sockopt::socket_acceptconn(&fd)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening stream socket"));
        }
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        let any = rustix::net::getsockname(&fd)?;
        let local = SocketAddr::try_from(any.clone()).ok();
        let name = match (local, SocketAddrUnix::try_from(any)) {
            (Some(local), _) => local.to_string(),
            (None, Ok(unix)) => match unix.path_bytes() {
                Some(path) => format!("unix:{}", String::from_utf8_lossy(path)),
                None => "unix:(no path)".to_owned(),
            },
            (None, Err(_)) => "(unknown)".to_owned(),
        };
        if local.is_some() {
            // Connections inherit it: the last piece of a response does not wait for an acknowledgement.
            let _ = sockopt::set_tcp_nodelay(&fd, true);
        }
        Ok(Self { fd, protocol, local, name, file: None, inherited: false, deferred: false, sealed: false })
    }

    /// What another program needs to take it over; the descriptor is for the caller to keep open.
    pub(crate) fn record(&self) -> Record {
        let file = self.file.as_ref().map(|file| {
            let (device, inode) = file.identity;
            (file.path.clone().into_os_string().into_vec(), device, inode)
        });
        let Self { protocol, inherited, deferred, .. } = *self;
        Record { fd: self.fd.as_raw_fd(), http: protocol == Protocol::Http, inherited, deferred, file }
    }

    /// Takes over what another program has [recorded](Self::record).
    pub(crate) fn adopt(record: Record) -> io::Result<Self> {
        let protocol = if record.http { Protocol::Http } else { Protocol::Scgi };
        let mut listener = Self::from_fd(descriptor::adopt(record.fd)?, protocol)?;
        listener.inherited = record.inherited;
        listener.deferred = record.deferred;
        listener.file = record.file.map(|(path, device, inode)| SocketFile {
            path: PathBuf::from(OsString::from_vec(path)),
            identity: (device, inode),
        });
        Ok(listener)
    }

    /// Lets nobody connect any more, without touching the connections that wait. False where somebody still can: the
    /// socket is not ours alone, or the kernel refuses.
    pub(crate) fn seal(&mut self) -> bool {
        if self.inherited {
            return false;
        }
        self.sealed = true;
        if self.local.is_some() {
            return socket::refuse_new(&self.fd).is_ok();
        }
        self.remove_file();
        // Also for who has looked the file up already. Those who wait in the queue stay there.
        rustix::net::shutdown(&self.fd, Shutdown::Read).is_ok()
    }

    /// Whether it is a Unix socket that nobody can connect to any more; it is readable then, whether somebody waits or not.
    fn is_shut(&self) -> bool {
        self.local.is_none() && self.sealed
    }

    /// Whether a connection waits.
    pub(crate) fn has_waiting(&self) -> bool {
        if self.is_shut() {
            return false;
        }
        let time = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut descriptors = [PollFd::new(&self.fd, PollFlags::IN)];
        rustix::event::poll(&mut descriptors, Some(&time)).is_ok_and(|ready| ready > 0)
    }

    /// Whether somebody else has bound it, and keeps it when this process ends.
    pub(crate) fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// Its own address, if this is TCP.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Whether the kernel may hold connections that are established and on which nothing was sent yet.
    pub(crate) fn is_deferred(&self) -> bool {
        self.deferred
    }

    /// Takes the next connection, if there is one: `EAGAIN` if not.
    pub(crate) fn accept(&self) -> Result<Stream, Errno> {
        if self.local.is_none() {
            // Peers of a Unix socket have no address.
            let fd = rustix::net::accept_with(&self.fd, SocketFlags::CLOEXEC)?;
            return Ok(Stream::new(fd, None, None));
        }
        let (fd, peer) = rustix::net::acceptfrom_with(&self.fd, SocketFlags::CLOEXEC)?;
        Ok(Stream::new(fd, peer.and_then(|peer| SocketAddr::try_from(peer).ok()), self.local))
    }

    /// Removes the file of a Unix socket, if this process made it and it is still the same.
    pub(crate) fn remove_file(&mut self) {
        if let Some(file) = self.file.take()
            && identity(&file.path) == Some(file.identity)
            && let Err(error) = fs::remove_file(&file.path)
        {
            log!("cannot remove {}: {error}", file.path.display());
        }
    }
}

/// Its address as the log names it: with the port that it really has.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn bind_tcp(text: &str, protocol: Protocol, options: SocketOptions) -> Result<Vec<Listener>, ListenError> {
    let addresses: Vec<SocketAddr> = text.to_socket_addrs().map_err(ListenError::bind(text))?.collect();
    // With port 0 the first address gets a port, and the others must get the same one; somebody may have it there.
    let mut tries = if addresses.first().is_some_and(|first| first.port() == 0) { 16 } else { 1 };
    loop {
        tries -= 1;
        match bind_all(text, &addresses, protocol, options) {
            Err(ListenError::Bind { source, .. }) if tries > 0 && source.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
}

fn bind_all(
    text: &str,
    addresses: &[SocketAddr],
    protocol: Protocol,
    options: SocketOptions,
) -> Result<Vec<Listener>, ListenError> {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut missing = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for &(mut address) in addresses {
        if let Some(first) = listeners.first().and_then(|first| first.local) {
            address.set_port(first.port());
        }
        match bind_one(address, protocol, options) {
            Ok(listener) => listeners.push(listener),
            // localhost may have an IPv6 address on a machine that has no IPv6.
            Err(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) if addresses.len() > 1 => {
                missing = Errno::ADDRNOTAVAIL.into();
            }
            Err(error) => {
                let named = if text.ends_with(":0") { text.to_owned() } else { address.to_string() };
                return Err(ListenError::Bind { address: named, source: error.into() });
            }
        }
    }
    if listeners.is_empty() { Err(ListenError::bind(text)(missing)) } else { Ok(listeners) }
}

fn bind_one(address: SocketAddr, protocol: Protocol, options: SocketOptions) -> Result<Listener, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A new master may bind while connections of the last one are still in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    rustix::net::bind(&fd, &address)?;
    rustix::net::listen(&fd, options.backlog)?;
    let mut listener =
        Listener::from_fd(fd, protocol).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
    if protocol == Protocol::Http {
        // Clients connect early and send late; no worker need wake up for that. A front server that speaks SCGI sends
        // at once. An inherited socket is left as whoever bound it wants it (systemd has DeferAcceptSec=).
        listener.deferred = socket::defer_accept(&listener, 1).is_ok();
    }
    Ok(listener)
}

fn bind_unix(path: &Path, protocol: Protocol, options: SocketOptions) -> Result<Listener, ListenError> {
    let named = || format!("unix:{}", path.display());
    let error = |errno: Errno| ListenError::Bind { address: named(), source: errno.into() };
    let address = SocketAddrUnix::new(path).map_err(error)?;
    let fd =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(error)?;
    // Two masters that start together must not remove each other's socket: from the look at the old file until the
    // new one listens, the directory is locked. Where that is not possible it is merely unlikely; it is not waited for
    // in vain where sessions are in the same directory, and a sweep has its lock.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory =
        File::open(directory).ok().filter(|directory| lock::exclusive(directory, LOCK_WAIT).unwrap_or(false));
    remove_stale(path, &address).map_err(|problem| match problem {
        Stale::InUse => ListenError::InUse { address: named() },
        Stale::NotASocket => ListenError::NotASocket { address: named() },
        Stale::Failed(source) => ListenError::Bind { address: named(), source },
    })?;
    // The mode is there from the first moment on; a chmod would come too late for whoever opens quickly.
    let before = rustix::process::umask(Mode::from_raw_mode(!options.mode & 0o777));
    let bound = rustix::net::bind(&fd, &address);
    rustix::process::umask(before);
    bound.map_err(error)?;
    rustix::net::listen(&fd, options.backlog).map_err(error)?;
    drop(directory);
    let mut listener = Listener::from_fd(fd, protocol).map_err(ListenError::bind(named()))?;
    // Absolute, so that it is found again whatever the application does with the current directory.
    let path = std::path::absolute(path).map_err(ListenError::bind(named()))?;
    listener.file = identity(&path).map(|identity| SocketFile { path, identity });
    Ok(listener)
}

enum Stale {
    InUse,
    NotASocket,
    Failed(io::Error),
}

/// Removes the socket file of a server that is gone; leaves everything else as it is.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), Stale> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Stale::Failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(Stale::NotASocket),
        Ok(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|errno| Stale::Failed(errno.into()))?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(Stale::Failed),
        Err(Errno::NOENT) => Ok(()),
        // EAGAIN: somebody listens and has a full queue. EPROTOTYPE: a datagram socket of somebody else.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(Stale::InUse),
        Err(errno) => Err(Stale::Failed(errno.into())),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    const OPTIONS: SocketOptions = SocketOptions { backlog: 16, mode: 0o660 };

    #[test]
    fn reads_addresses() {
        for good in ["localhost:80", "127.0.0.1:0", "[::1]:8080", "unix:/a", "unix:a b"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in ["", "localhost", ":80", "::1:80", "host:", "host:http", "host:65536", "unix:", "/run/x"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn accept_does_not_wait() {
        let listener = &Listener::bind(&"127.0.0.1:0".parse().unwrap(), Protocol::Http, OPTIONS).unwrap()[0];
        assert_eq!(listener.accept().unwrap_err(), Errno::AGAIN);
        assert!(!listener.to_string().ends_with(":0"));
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_goes_with_its_master() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let address = Address::Unix(path.clone());
        // Left behind by a server that was killed: nobody accepts.
        drop(UnixListener::bind(&path).unwrap());
        let mut listener = Listener::bind(&address, Protocol::Scgi, OPTIONS).unwrap().remove(0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        // In use: left alone.
        let again = Listener::bind(&address, Protocol::Scgi, OPTIONS).unwrap_err();
        assert!(matches!(again, ListenError::InUse { .. }), "{again}");
        assert!(again.to_string().contains(path.to_str().unwrap()), "{again}");
        listener.remove_file();
        assert!(!path.exists());
        // Somebody else's file under our name is not removed.
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::bind(&address, Protocol::Scgi, OPTIONS), Err(ListenError::NotASocket { .. })));
        assert!(path.exists());
    }

    /// Of a directory that holds sessions as well.
    #[test]
    fn a_socket_does_not_wait_for_the_end_of_a_sweep() {
        let directory = tempfile::tempdir().unwrap();
        let sweep = File::open(directory.path()).unwrap();
        assert!(lock::try_exclusive(&sweep).unwrap());
        let address = Address::Unix(directory.path().join("s"));
        let mut listener = Listener::bind(&address, Protocol::Scgi, OPTIONS).unwrap().remove(0);
        listener.remove_file();
    }

    #[test]
    fn a_sealed_listener_keeps_those_who_wait() {
        use std::io::Write as _;
        use std::os::unix::net::UnixStream;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let mut listener = Listener::bind(&Address::Unix(path.clone()), Protocol::Scgi, OPTIONS).unwrap().remove(0);
        let link = directory.path().join("link");
        std::fs::hard_link(&path, &link).unwrap();
        let mut waiting = UnixStream::connect(&path).unwrap();
        waiting.write_all(b"early").unwrap();
        assert!(listener.seal());
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        // Who has found it already is too late as well.
        assert_eq!(UnixStream::connect(&link).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let mut bytes = [0; 5];
        assert_eq!(listener.accept().unwrap().read_now(&mut bytes).unwrap(), 5);
        assert!(listener.accept().is_err());
        assert!(!listener.has_waiting());
    }

    #[test]
    fn a_port_in_use_is_named() {
        let first = &Listener::bind(&"127.0.0.1:0".parse().unwrap(), Protocol::Http, OPTIONS).unwrap()[0];
        let text = first.to_string();
        let error = Listener::bind(&text.parse().unwrap(), Protocol::Http, OPTIONS).unwrap_err();
        assert!(error.to_string().contains(&text), "{error}");
    }
}
