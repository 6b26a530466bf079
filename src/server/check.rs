//! `--check`: whether all that the options say would work, without serving anything and without leaving a trace.
//!
//! One line on stdout for each thing: `ok: `, `wrong: ` or `warning: `. What the workers would do is tried in a process
//! of its own, as the user that they would run as.

use std::fs;
use std::io::{self, Write as _};
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::{WaitOptions, waitpid};

use super::concerns::concerns;
use super::exit::{EXIT_TEMPORARY, EXIT_USAGE};
use super::listener::{Address, ListenError, Listener, SocketOptions};
use super::open::{addresses, socket_options};
use super::options::{AccessLog, Options, read_env_file};
use super::pool::Program;
use super::privileges::{Identity, settle};
use super::run::refusal;
use crate::host::Host;
use crate::sys::{process, user};

/// What a child says with its exit status that could say nothing on stdout; it has never found so much wrong.
const UNHEARD: u32 = 120;

/// What was found.
#[derive(Default)]
struct Report {
    wrong: u32,
    /// Nobody takes what is printed.
    unheard: bool,
}

impl Report {
    fn say(&mut self, word: &str, text: &str) {
        // Control characters could make a line of their own, as in the log.
        let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let mut stdout = io::stdout();
        self.unheard |= writeln!(stdout, "{word}: {text}").and_then(|()| stdout.flush()).is_err();
    }

    fn ok(&mut self, text: &str) {
        self.say("ok", text);
    }

    fn wrong(&mut self, text: &str) {
        self.wrong += 1;
        self.say("wrong", text);
    }

    fn add(&mut self, outcome: Result<String, String>) {
        match outcome {
            Ok(text) => self.ok(&text),
            Err(text) => self.wrong(&text),
        }
    }
}

/// Checks everything; returns the exit status.
pub(super) fn run(host: &Host, options: &Options) -> u8 {
    let mut report = Report::default();
    if let Some(reason) = refusal(host) {
        report.wrong(reason);
    }
    if let Some(path) = &options.env_file {
        environment_file(&mut report, path, options);
    }
    let inherited = Listener::inherit().unwrap_or_else(|error| {
        report.wrong(&error.to_string());
        Vec::new()
    });
    for concern in concerns(options, &inherited) {
        if options.strict { report.wrong(&concern) } else { report.say("warning", &concern) }
    }
    let is_somebody = match Identity::wanted(options).and_then(|wanted| wanted.map(Identity::check).transpose()) {
        Ok(Some(identity)) => {
            report.ok(&format!("runs as {identity}"));
            true
        }
        Ok(None) => true,
        Err(error) => {
            report.wrong(&error.to_string());
            false
        }
    };
    match socket_options(options) {
        Ok(socket) => sockets(&mut report, options, &inherited, socket),
        Err(error) => report.wrong(&error.to_string()),
    }
    if is_somebody {
        in_a_child(&mut report, || as_worker(host, options));
    } else {
        report.say("warning", "sessions and files are not checked, since that would be as somebody else");
    }
    let wrong = report.wrong;
    if wrong == 0 {
        report.ok("nothing is wrong");
    } else {
        report.say("wrong", &format!("{wrong} in all"));
    }
    match report {
        Report { unheard: true, .. } => EXIT_TEMPORARY,
        Report { wrong: 0, .. } => 0,
        _ => EXIT_USAGE,
    }
}

/// It has been read before all else, so what is left is to say so.
fn environment_file(report: &mut Report, path: &Path, options: &Options) {
    report.add(match read_env_file(path) {
        Ok(variables) => {
            let (all, used) = (variables.len(), options.from_file.len());
            let kept = if used < all { format!(", {} of them set already", all - used) } else { String::new() };
            Ok(format!("environment file {}: {all} variables{kept}", path.display()))
        }
        Err(error) => Err(error.to_string()),
    });
}

fn sockets(report: &mut Report, options: &Options, inherited: &[Listener], socket: SocketOptions) {
    for listener in inherited {
        report.ok(&format!("listener {} {listener}: inherited", listener.protocol));
    }
    let own = if inherited.is_empty() { addresses(options) } else { Vec::new() };
    let own = own.into_iter().map(|(address, protocol)| (format!("listener {protocol} {address}"), address));
    let status = options.status.iter().map(|address| (format!("status {address}"), address.clone()));
    let mut before = Vec::new();
    for (name, address) in own.chain(status) {
        let outcome = match &address {
            // Each would do alone. With port 0 the system chooses another one for each.
            address if before.contains(address) && !address.to_string().ends_with(":0") => {
                Err("another listener has this address".to_owned())
            }
            Address::Tcp(text) => try_tcp(text).map_err(|error| error.to_string()),
            Address::Unix(path) => try_unix(path, socket),
        };
        report.add(match outcome {
            Ok(note) => Ok(format!("{name}{note}")),
            Err(error) => Err(format!("{name}: {error}")),
        });
        before.push(address);
    }
}

const IN_USE: &str = ": in use by another process, as it is while the pool runs";

/// Whether a TCP address could be bound; who listens there already is not disturbed.
fn try_tcp(text: &str) -> io::Result<&'static str> {
    let addresses: Vec<_> = text.to_socket_addrs()?.collect();
    let mut outcome = Err(Errno::ADDRNOTAVAIL.into());
    for address in &addresses {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let bound = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).and_then(|fd| {
            sockopt::set_socket_reuseaddr(&fd, true)?;
            rustix::net::bind(&fd, address)
        });
        match bound {
            Ok(()) if outcome.is_err() => outcome = Ok(""),
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => outcome = Ok(IN_USE),
            Err(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) if addresses.len() > 1 => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    outcome
}

/// Whether a Unix socket could be made: without making it, and without a connection to who may be listening there.
fn try_unix(path: &Path, socket: SocketOptions) -> Result<&'static str, String> {
    let text = |errno: Errno| io::Error::from(errno).to_string();
    let address = SocketAddrUnix::new(path).map_err(text)?;
    let note = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "",
        Err(error) => return Err(error.to_string()),
        Ok(file) if !std::os::unix::fs::FileTypeExt::is_socket(&file.file_type()) => {
            return Err("the file is there and is no socket".to_owned());
        }
        Ok(_) => {
            // A socket of another type is told apart before anything happens to the one that listens.
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).map_err(text)?;
            match rustix::net::connect(&probe, &address) {
                Ok(()) | Err(Errno::PROTOTYPE) => return Ok(IN_USE),
                Err(Errno::CONNREFUSED | Errno::NOENT) => {
                    ": a server that is gone has left its file, which is replaced"
                }
                Err(errno) => return Err(text(errno)),
            }
        }
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    access(directory, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|errno| format!("make a file in {}: {}", directory.display(), text(errno)))?;
    let current = user::current();
    let foreign_user = socket.owner.is_some_and(|owner| owner != current.users[1]);
    let foreign_group =
        socket.group.is_some_and(|group| group != current.groups[1] && !user::supplementary().contains(&group));
    if current.users[1] != 0 && (foreign_user || foreign_group) {
        let address = format!("unix:{}", path.display());
        let source = Errno::PERM.into();
        return Err(ListenError::Owner { address, to: socket.to(), source }.to_string());
    }
    Ok(note)
}

/// Lets a child process check more, and takes its count.
fn in_a_child(report: &mut Report, check: impl FnOnce() -> Report) {
    let child = process::spawn(|| {
        let report = check();
        let status = if report.unheard { UNHEARD } else { report.wrong.min(UNHEARD - 1) };
        status.cast_signed()
    });
    let pid = match child {
        Ok(pid) => pid,
        Err(error) => return report.wrong(&format!("start a process: {error}")),
    };
    match rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty())) {
        Ok(Some((_, status))) => match status.exit_status().map(i32::cast_unsigned) {
            Some(UNHEARD) => report.unheard = true,
            Some(wrong) if wrong < UNHEARD && wrong != process::EXIT_PANIC.cast_unsigned() => report.wrong += wrong,
            _ => report.wrong("a worker could not start: the process that tried has crashed"),
        },
        Ok(None) => {}
        Err(errno) => report.wrong(&format!("wait for a process: {errno}")),
    }
}

/// What the workers and a reload need, as the user that they run as.
fn as_worker(host: &Host, options: &Options) -> Report {
    let mut report = Report::default();
    if let Err(error) = settle(options, false) {
        report.wrong(&error.to_string());
        return report;
    }
    if let Some(path) = &options.env_file
        && let Err(errno) = access(path, Access::READ_OK)
    {
        report.wrong(&format!("a reload cannot read environment file {} as this user: {errno}", path.display()));
    }
    match Program::current(Vec::new()) {
        Ok(program) => {
            let path = program.path().display();
            report.add(match access(program.path(), Access::EXEC_OK) {
                Ok(()) => Ok(format!("program {path}")),
                Err(errno) => Err(format!("a reload cannot execute {path} as this user: {errno}")),
            });
        }
        Err(error) => report.wrong(&format!("find this program's own file: {error}")),
    }
    if let Some(AccessLog::File(path)) = &options.access_log {
        report.add(try_log(path).map(|()| format!("access log {}", path.display())));
    }
    if host.store().is_some() {
        report.add(try_store(host, options.sessions.as_deref()));
    }
    report
}

/// Whether a file could be appended to; it is not made.
fn try_log(path: &Path) -> Result<(), String> {
    let named = |what: &str, path: &Path, error: io::Error| format!("access log: {what} {}: {error}", path.display());
    match fs::File::options().append(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let directory = path.parent().unwrap_or(Path::new("/"));
            access(directory, Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|errno| named("make a file in", directory, errno.into()))
        }
        Err(error) => Err(named("open", path, error)),
    }
}

/// Whether the store can be set up. A session directory that is made by that is removed again where its path is known,
/// which is where `--sessions` says it.
fn try_store(host: &Host, sessions: Option<&Path>) -> Result<String, String> {
    let missing: Option<PathBuf> = sessions.filter(|path| fs::symlink_metadata(path).is_err()).map(Path::to_owned);
    let outcome = host.store().map_or(Ok(()), |store| store.setup());
    // Only an empty directory can be removed so, and only one that was not there before.
    let removed = missing.filter(|path| fs::remove_dir(path).is_ok());
    match outcome {
        Ok(()) if removed.is_some() => {
            Ok("session store (its directory was made for this check, and removed)".to_owned())
        }
        Ok(()) => Ok("session store".to_owned()),
        Err(error) => Err(format!("session store: {error}")),
    }
}
