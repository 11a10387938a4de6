//! A backend as the data plane needs it: endpoints, how to choose, how to connect.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::Exchange;
use portcullis_upstream::{Breaker, Budget, Capacity, HealthSettings, Tail, breaker};

use crate::discovery::Discovery;
use crate::endpoints::Endpoints;
use crate::targets::cookie;

#[derive(Debug)]
pub struct Backend {
    pub name: Arc<str>,
    pub index: u16,
    pub endpoints: Endpoints,
    /// Where they come from; `None` where they are written.
    pub discovery: Option<Arc<Discovery>>,
    /// What all workers together hold; outlives reloads.
    pub capacity: Arc<Capacity>,
    /// How many of its requests may be sent again; outlives reloads.
    pub budget: Arc<Budget>,
    /// How long its slow answers take, of the routes that ask; outlives reloads.
    pub tail: Arc<Tail>,
    /// That of the whole backend, which outlives reloads; each endpoint may have one besides.
    pub breaker: Option<BackendBreaker>,
    pub health: Option<HealthProbe>,
    /// What the balancer goes by, where it hashes.
    pub hash: Option<HashKey>,
    pub host: HostHeader,
    /// For the endpoints with [`EndpointAddress::https`].
    pub tls: Option<BackendTls>,
    pub connect_timeout: Duration,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
    /// Requests under way, over all workers.
    pub requests_max: u32,
    /// Whether fewer are enough is found out from how long answers take.
    pub adaptive: bool,
    /// Open connections, over all workers.
    pub connections_max: u32,
    /// Idle connections to one endpoint, by worker.
    pub idle_max: u32,
    /// Requests waiting for their turn, and for a connection, over all workers.
    pub pending_max: u32,
    /// The longest wait for one's turn.
    pub pending_timeout: Duration,
    /// HTTP/2 streams open at once on one connection; the endpoint may allow fewer.
    pub streams_max: u32,
    /// The header that each connection begins with. Such a connection is one client's, so never
    /// HTTP/2.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Whether it is told the client by `Forwarded` too (RFC 7239).
    pub forwarded: bool,
    /// Whether it is told the client's certificate (RFC 9440).
    pub forward_certificate: bool,
}

/// What requests are hashed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    Ip,
    /// The verified client.
    Client,
    Tenant,
    /// By its lower-case name.
    Header(Box<str>),
    Cookie(Box<str>),
    /// What the route's template captured.
    Param(Box<str>),
}

impl HashKey {
    /// A hash of the request's value; `None` if it has none.
    #[must_use]
    pub fn of(&self, exchange: &Exchange) -> Option<u64> {
        let identity = exchange.identity.as_ref();
        match self {
            Self::Ip => Some(match exchange.client_ip.to_canonical() {
                IpAddr::V4(address) => fnv(&address.octets()),
                IpAddr::V6(address) => fnv(&address.octets()[..8]),
            }),
            Self::Client => identity.map(|identity| fnv(identity.key.as_bytes())),
            Self::Tenant => identity?.tenant.as_ref().map(|tenant| fnv(tenant.as_bytes())),
            Self::Header(name) => exchange.request.fields.get(name.as_bytes()).map(fnv),
            Self::Param(name) => exchange.param(name).map(fnv),
            Self::Cookie(name) => cookie(exchange, name.as_bytes()).map(fnv),
        }
    }
}

/// FNV-1a. The table of endpoints mixes it.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The HTTP version spoken to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// With TLS what the endpoint picks by ALPN; HTTP/1.1 in clear text.
    #[default]
    Auto,
    /// HTTP/1.1.
    H1,
    /// HTTP/2: by ALPN with TLS, by prior knowledge without (RFC 9113 §3.3).
    H2,
}

/// The version of the PROXY protocol that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How an endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointAddress {
    /// As the metrics and logs name it: `http://10.0.0.1:8080`, `unix:/run/app.sock`.
    pub url: Arc<str>,
    pub https: bool,
    pub protocol: Protocol,
    /// A name or an address; IPv6 without brackets.
    pub host: Arc<str>,
    pub port: u16,
    /// The path of the Unix socket that is meant, in place of host and port.
    pub socket: Option<Arc<str>>,
    /// `host[:port]` for [`HostHeader::Endpoint`]; no default port, IPv6 in brackets.
    pub authority: Arc<str>,
    /// The name to verify and to send as SNI, for `https`.
    pub server_name: Option<rustls::pki_types::ServerName<'static>>,
}

/// The `Host` a backend sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    #[default]
    Preserve,
    /// That of the endpoint.
    Endpoint,
    Name(Arc<str>),
}

#[derive(Clone, Debug)]
pub struct BackendTls {
    /// Verifies against the given authorities; has the client certificate, if any. Offers by ALPN
    /// what the backend's protocol allows.
    pub config: Arc<rustls::ClientConfig>,
    /// The same, but offers only HTTP/1.1: for requests that HTTP/2 cannot carry there. Sessions
    /// are shared.
    pub config_h1: Arc<rustls::ClientConfig>,
    /// Fingerprint of whom it trusts and what it presents: connections made under another one are
    /// not used again.
    pub trust: u64,
    /// Why nothing is verified, if so.
    pub unverified: Option<String>,
}

/// The circuit breaker of a whole backend.
#[derive(Clone, Debug)]
pub struct BackendBreaker {
    pub terms: breaker::Terms,
    pub state: Arc<Breaker>,
}

/// An active health check.
#[derive(Clone, Debug)]
pub struct HealthProbe {
    pub question: HealthQuestion,
    /// What every answer has to have; whoever answers without it is another service.
    pub header: Option<ExpectedField>,
    /// A failure when there is no answer by then.
    pub timeout: Duration,
    pub settings: HealthSettings,
}

/// What an endpoint is asked to find out whether it is well.
/// A header field, by its name and its whole value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExpectedField {
    pub name: Box<[u8]>,
    pub value: Box<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HealthQuestion {
    /// `GET`.
    Http {
        path: Arc<str>,
        /// `None`: as [`Backend::host`] says, and the endpoint's own where that is the client's.
        host: Option<Arc<str>>,
        /// Statuses that mean healthy, as inclusive ranges.
        statuses: Vec<(u16, u16)>,
        /// What the beginning of the body has to contain.
        contains: Option<Arc<[u8]>>,
    },
    /// By `grpc.health.v1.Health/Check`; the service is empty for the whole server.
    Grpc { service: Arc<str> },
    /// A connection will do.
    Connect,
}
