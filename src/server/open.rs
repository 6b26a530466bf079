//! Opening listeners: bound as the options say, inherited from a service manager, or left by the program before.

use super::concerns::concerns;
use super::exit::{EXIT_TEMPORARY, EXIT_USAGE};
use super::listener::{Address, ListenError, Listener, Protocol, SocketOptions};
use super::options::Options;
use super::pool::Handoff;
use super::privileges::{PrivilegeError, group_id, user_id};
use crate::sys::log::log;
use crate::sys::process;

/// Removes the files of Unix sockets again.
pub(super) fn remove_files(listeners: &mut [Listener]) {
    for listener in listeners {
        listener.remove_file();
    }
}

/// Opens the listeners, or takes those that are open already; says what is unusual. `Err` is an exit status: the reason
/// has been logged.
pub(super) fn open(options: &Options, handoff: Option<&mut Handoff>) -> Result<Vec<Listener>, u8> {
    // What is refused at a reload has been refused before this process became the new program.
    let strict = options.strict && handoff.is_none();
    let inherited = match handoff {
        Some(handoff) => handoff.listeners().map_err(ListenError::Inherited),
        None => Listener::inherit(),
    };
    let inherited = inherited.map_err(|error| failed(&error))?;
    let pid = process::id().as_raw_nonzero();
    let concerns = concerns(options, &inherited);
    for concern in &concerns {
        if strict {
            log!("refused by --strict: {concern}");
        } else {
            log!("master pid={pid} {concern}");
        }
    }
    if strict && !concerns.is_empty() {
        return Err(EXIT_USAGE);
    }
    if inherited.is_empty() {
        return bind(&addresses(options), sockets(options)?).map_err(|error| failed(&error));
    }
    if inherited.iter().any(Listener::is_inherited) && !(options.http.is_empty() && options.scgi.is_empty()) {
        log!("listeners are inherited (LISTEN_FDS), so --http and --scgi are not used");
    }
    Ok(inherited)
}

/// How sockets are made; looks users and groups up.
pub(super) fn socket_options(options: &Options) -> Result<SocketOptions, PrivilegeError> {
    Ok(SocketOptions {
        backlog: options.backlog.cast_signed(),
        mode: options.socket_mode,
        owner: options.socket_owner.as_deref().map(|name| user_id("--socket-owner", name)).transpose()?,
        group: options.socket_group.as_deref().map(|name| group_id("--socket-group", name)).transpose()?,
    })
}

/// Where the options say to listen.
pub(super) fn addresses(options: &Options) -> Vec<(Address, Protocol)> {
    let http = options.http.iter().map(|address| (address.clone(), Protocol::Http));
    let scgi = options.scgi.iter().map(|address| (address.clone(), Protocol::Scgi));
    let named: Vec<_> = http.chain(scgi).collect();
    let default = || vec![(Address::Tcp("localhost:8080".to_owned()), Protocol::Http)];
    if named.is_empty() { default() } else { named }
}

fn sockets(options: &Options) -> Result<SocketOptions, u8> {
    socket_options(options).map_err(|error| {
        log!("{error}");
        EXIT_USAGE
    })
}

fn failed(error: &ListenError) -> u8 {
    log!("{error}");
    if error.is_configuration() { EXIT_USAGE } else { EXIT_TEMPORARY }
}

fn bind(addresses: &[(Address, Protocol)], socket: SocketOptions) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::new();
    for (address, protocol) in addresses {
        match Listener::bind(address, *protocol, socket) {
            Ok(bound) => listeners.extend(bound),
            Err(error) => {
                remove_files(&mut listeners);
                return Err(error);
            }
        }
    }
    Ok(listeners)
}

/// Opens where the pool tells how it is, or takes what is open already. `Err` as of [`open`].
pub(super) fn open_status(options: &Options, handoff: Option<&mut Handoff>) -> Result<Vec<Listener>, u8> {
    let opened = if let Some(handoff) = handoff {
        handoff.status_listeners().map_err(ListenError::Inherited)
    } else {
        let address = options.status.iter().map(|address| (address.clone(), Protocol::Http));
        bind(&address.collect::<Vec<_>>(), SocketOptions { backlog: 16, ..sockets(options)? })
    };
    opened.map_err(|error| failed(&error))
}
