//! What is allowed and seldom meant: warned of, and refused with `--strict`.

use std::fs;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;

use ipnet::IpNet;

use super::allow::canonical;
use super::listener::{Address, Listener, Protocol};
use super::options::{Options, unknown_variables};
use super::privileges;

/// What a pool with these options would do that its operator may not want, in one line each. `inherited` are the
/// listeners that it has not opened itself.
pub(crate) fn concerns(options: &Options, inherited: &[Listener]) -> Vec<String> {
    let mut concerns = Vec::new();
    let mut say = |text: String| concerns.push(text);
    if privileges::stays_root(options) {
        say("runs as root: whoever takes over a worker has the machine; name another user with --user".to_owned());
    }
    if options.umask & 0o002 == 0 {
        let umask = options.umask;
        say(format!("--umask {umask:04o} lets everybody write to the files that the application makes"));
    }
    let own: &[Address] = if inherited.is_empty() { &options.scgi } else { &[] };
    let http: &[Address] = if inherited.is_empty() { &options.http } else { &[] };
    let is_unix = |address: &Address| matches!(address, Address::Unix(_));
    if options.socket_mode & 0o002 != 0 && own.iter().chain(http).chain(&options.status).any(is_unix) {
        let mode = options.socket_mode;
        say(format!(
            "--socket-mode {mode:04o} lets every user of this machine connect, and who speaks SCGI says who the client is"
        ));
    }
    let by_tcp = own.iter().any(|address| !is_unix(address))
        || inherited.iter().any(|listener| listener.protocol == Protocol::Scgi && listener.local().is_some());
    for network in options.allow.iter().copied().map(canonical).filter(|network| by_tcp && is_wide(*network)) {
        say(format!(
            "--allow {network} is a whole network, and who speaks SCGI says who the client is; name the front server's address"
        ));
    }
    for network in options.trusted_proxies.iter().filter(|network| network.prefix_len() == 0) {
        say(format!("--trusted-proxy {network} believes everybody who says that he is somebody else"));
    }
    if let Some(address @ Address::Tcp(text)) = &options.status
        && text.to_socket_addrs().is_ok_and(|mut all| !all.all(|address| is_loopback(address.ip())))
    {
        say(format!("--status {address} tells everybody who can reach it what the pool does"));
    }
    if let Some(path) = &options.env_file
        && let Ok(file) = fs::metadata(path)
    {
        let path = path.display();
        if file.mode() & 0o022 != 0 {
            say(format!("environment file {path}: others may write to it (mode {:04o})", file.mode() & 0o7777));
        }
    }
    for (name, known) in unknown_variables() {
        let meant = known.map(|known| format!(", did you mean {known}?")).unwrap_or_default();
        say(format!("{name} is no variable of this program{meant}"));
    }
    concerns
}

/// Whether a network other than this machine has more than one address.
fn is_wide(network: IpNet) -> bool {
    network.prefix_len() < network.max_prefix_len()
        && !(is_loopback(network.network()) && is_loopback(network.broadcast()))
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
