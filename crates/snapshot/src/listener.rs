//! A listener as the data plane needs it: where, with which certificates, under which limits.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::path::{PathRules, RulesByHost};

use crate::client_certificates::ClientCertificates;
use crate::tls::Certificates;

#[derive(Debug)]
pub struct Listener {
    pub name: Arc<str>,
    pub index: u16,
    pub bind: Bind,
    pub tls: Option<ListenerTls>,
    /// Answers everything with 308 to the same URL over https.
    pub redirect: Option<Redirect>,
    /// HTTP/2: by ALPN with TLS, by prior knowledge without.
    pub http2: bool,
    pub paths: PathsByHost,
    /// Hops whose `X-Forwarded-For` and PROXY headers are believed.
    pub trusted_proxies: Vec<Network>,
    pub proxy_protocol: bool,
    /// Whose certificates trusted hops may hand on (RFC 9440).
    pub certificate_header: Option<Arc<ClientCertificates>>,
    pub timeouts: ListenerTimeouts,
    pub limits: ListenerLimits,
    /// How long a request may wait for its turn in the gateway before some are refused; `None`:
    /// none ever are.
    pub shed: Option<Duration>,
    /// Why credentials may cross it without TLS.
    pub clear_text: Option<String>,
}

/// Where a listener takes connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    Tcp(SocketAddr),
    /// A Unix socket: its absolute path and the permission bits of its file.
    Unix {
        path: Arc<str>,
        mode: u32,
    },
}

impl Bind {
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }

    /// Whether clients are on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// Whether a socket for one is a socket for the other. Who may connect can change while it is
    /// open.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix { path, .. }, Self::Unix { path: other, .. }) => path == other,
            _ => self == other,
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{path}"),
        }
    }
}

/// TLS of a listener. The configuration offers ALPN `h2` (if the listener does) and `http/1.1`.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    pub config: Arc<rustls::ServerConfig>,
    pub certificates: Arc<Certificates>,
    /// What clients' certificates are asked for, if they are: of everybody on this listener,
    /// whatever name they ask for.
    pub client: Option<Arc<ClientCertificates>>,
}

impl ListenerTls {
    /// Whether a request for `host` does not belong on a connection made for `server_name`: it
    /// would have been given another certificate (RFC 9110 §15.5.20).
    #[must_use]
    pub fn is_misdirected(&self, server_name: Option<&str>, host: &[u8]) -> bool {
        let Some(server_name) = server_name else { return false };
        let Ok(host) = std::str::from_utf8(host) else { return true };
        host != server_name && self.certificates.pick(server_name) != self.certificates.pick(host)
    }
}

/// Where the listener sends everybody: `https://HOST[:PORT]PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Name of the listener that is meant.
    pub listener: Arc<str>,
    /// The port to name, unless it is 443; 0 names none.
    pub port: u16,
}

/// The path options of a listener by host.
#[derive(Clone, Debug, Default)]
pub struct PathsByHost {
    pub default: PathRules,
    /// Exact hosts that differ.
    pub hosts: Vec<(Box<[u8]>, PathRules)>,
}

impl RulesByHost for PathsByHost {
    fn path_rules(&self, host: &[u8]) -> PathRules {
        let found = self.hosts.iter().find(|(name, _)| **name == *host);
        found.map_or(self.default, |(_, rules)| *rules)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Network {
    /// IPv4 addresses mapped into IPv6 are compared as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl Listener {
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    pub handshake: Duration,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Without a byte of an announced body.
    pub body: Duration,
    /// Between requests.
    pub keep_alive: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    pub connections_max: u32,
    pub head_bytes_max: u32,
    pub fields_max: u32,
    pub target_bytes_max: u32,
    pub streams_max: u32,
    /// Connections open at once from one address.
    pub connections_per_address_max: u32,
    pub frames: H2Frames,
}

/// How many HTTP/2 frames that cost the sender nothing one connection may bring; GOAWAY
/// (`ENHANCE_YOUR_CALM`) beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H2Frames {
    pub resets_per_minute: u32,
    pub pings_per_minute: u32,
    pub settings_per_minute: u32,
    /// CONTINUATION frames of one head.
    pub continuations_max: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_shares_their_prefix() {
        let network = |text: &str, prefix| Network { address: text.parse().unwrap(), prefix };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(network("10.0.0.0", 8).contains(ip("10.9.9.9")));
        assert!(network("10.0.0.0", 8).contains(ip("::ffff:10.1.2.3")));
        assert!(!network("10.0.0.0", 8).contains(ip("11.0.0.0")));
        assert!(network("0.0.0.0", 0).contains(ip("8.8.8.8")));
        assert!(network("2001:db8::", 32).contains(ip("2001:db8:1::1")));
        assert!(!network("0.0.0.0", 0).contains(ip("::1")));
    }
}
