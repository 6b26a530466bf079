//! Telling a service manager that the pool is ready: systemd's `NOTIFY_SOCKET`.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::clock::now_micros;
use crate::sys::environment;
use crate::sys::log::log;

/// Where the service manager listens, if there is one.
pub(super) struct Notify {
    address: Option<SocketAddr>,
    /// As it was given, for the program that comes after this one.
    name: Option<OsString>,
}

const VARIABLE: &str = "NOTIFY_SOCKET";

impl Notify {
    /// Takes the address out of the environment, so that no child of the application speaks in our name.
    pub(super) fn from_environment() -> Self {
        let Some([Some(name)]) = environment::take([VARIABLE]) else { return Self { address: None, name: None } };
        let address = address(&name);
        if address.is_none() {
            log!("master pid={} cannot use NOTIFY_SOCKET: not an address", std::process::id());
        }
        Self { address, name: Some(name) }
    }

    /// The variable, for the next program.
    pub(super) fn variable(&self) -> Option<(&'static str, OsString)> {
        self.name.clone().map(|name| (VARIABLE, name))
    }

    /// Says that a reload begins (systemd's `Type=notify-reload`); `READY=1` ends it.
    pub(super) fn send_reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now_micros()));
    }

    /// Sends `state`, such as `READY=1`. A service manager that is gone is no reason to stop serving.
    pub(super) fn send(&self, state: &str) {
        let Some(address) = &self.address else { return };
        let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to_addr(state.as_bytes(), address));
        if let Err(error) = sent {
            log!("master pid={} cannot notify NOTIFY_SOCKET: {error}", std::process::id());
        }
    }
}

fn address(name: &OsString) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}
