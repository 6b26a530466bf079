//! From where SCGI is taken over TCP: whoever speaks it says who the client is, and whether that has logged in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::listener::Protocol;
use crate::sys::log::log;
use crate::sys::process::id;

/// How often one worker says that it has refused somebody.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The networks that may, and one worker's memory of what it has said about the others.
#[derive(Clone, Debug)]
pub(crate) struct Allow {
    networks: Vec<IpNet>,
    logged: Option<Instant>,
    /// Refused since then.
    silent: u64,
}

impl Allow {
    /// These networks; where there are none, this machine.
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        let mut networks: Vec<_> = networks.iter().copied().map(canonical).collect();
        if networks.is_empty() {
            networks.push(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into());
            networks.push(Ipv6Net::from(Ipv6Addr::LOCALHOST).into());
        }
        Self { networks, logged: None, silent: 0 }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether a connection from `peer` (`None`: by a Unix socket, which has its own permissions) may speak `protocol`;
    /// if not, that is logged.
    pub(crate) fn admits(&mut self, protocol: Protocol, peer: Option<SocketAddr>) -> bool {
        let Some(peer) = peer.filter(|peer| protocol == Protocol::Scgi && !self.contains(peer.ip())) else {
            return true;
        };
        if self.logged.is_some_and(|logged| logged.elapsed() < LOG_INTERVAL) {
            self.silent += 1;
            return false;
        }
        self.logged = Some(Instant::now());
        let others = match std::mem::take(&mut self.silent) {
            0 => String::new(),
            count => format!(" (and {count} more before)"),
        };
        log!("pid={} refused {peer}: SCGI from there is not allowed (--allow){others}", id().as_raw_nonzero());
        false
    }
}

/// The same network with the addresses that peers have here: an IPv4 address that is written as an IPv6 one is IPv4.
pub(crate) fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    match (v6.network().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).map_or(network, IpNet::V4),
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(networks: &[&str]) -> Allow {
        Allow::new(&networks.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn this_machine_is_allowed_and_what_is_named() {
        for (networks, address, expected) in [
            (&[][..], "127.0.0.1", true),
            (&[], "127.255.0.9", true),
            (&[], "::1", true),
            (&[], "::ffff:127.0.0.1", true),
            (&[], "128.0.0.1", false),
            (&[], "::ffff:10.0.0.1", false),
            (&[], "::2", false),
            (&["10.0.0.0/8", "::1/128"], "10.1.2.3", true),
            (&["10.0.0.0/8", "::1/128"], "127.0.0.1", false),
            (&["10.0.0.0/8"], "::ffff:10.0.0.1", true),
            (&["::ffff:10.0.0.0/104"], "10.9.9.9", true),
            (&["::ffff:10.0.0.0/104"], "11.9.9.9", false),
            (&["::/0"], "10.0.0.1", false),
            (&["2001:db8::/32"], "2001:db8::7", true),
        ] {
            assert_eq!(allow(networks).contains(address.parse().unwrap()), expected, "{networks:?} {address}");
        }
    }

    #[test]
    fn only_scgi_by_tcp_is_concerned() {
        let mut allow = allow(&["10.0.0.1/32"]);
        let peer = Some("127.0.0.1:9".parse().unwrap());
        assert!(allow.admits(Protocol::Http, peer) && allow.admits(Protocol::Scgi, None));
        assert!(!allow.admits(Protocol::Scgi, peer) && !allow.admits(Protocol::Scgi, peer));
        // The second one was not worth a line.
        assert_eq!(allow.silent, 1);
        assert!(allow.admits(Protocol::Scgi, Some("10.0.0.1:9".parse().unwrap())));
    }
}
