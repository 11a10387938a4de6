//! The services behind the gateway, as written.

use std::collections::BTreeMap;

use portcullis_core::decode::{Spanned, short_or_long};
use portcullis_core::node::Node;
use portcullis_core::units::{DurationOrOff, PositiveDuration};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use crate::balance::Balance;
use crate::bulkhead::Concurrency;
use crate::discover::Discover;
use crate::forms::OneOrMany;
use crate::gateway::PreferZone;
use crate::health::Health;
use crate::text::{EndpointUrl, HostHeader, HostName, Reason, Reference};
use crate::watching::{Breaker, Outliers, Switch};

/// Endpoints that serve the same thing.
#[derive(Clone, Debug)]
pub struct Backend {
    pub endpoints: Vec<Endpoint>,
    pub discover: Option<Spanned<Discover>>,
    pub balance: Spanned<Balance>,
    pub prefer_zone: Spanned<Switch<PreferZone>>,
    pub slow_start: DurationOrOff,
    pub panic_threshold: u32,
    pub health: Option<Health>,
    pub outliers: Switch<Outliers>,
    pub breaker: Switch<Breaker>,
    pub host: HostHeader,
    pub tls: Option<Spanned<BackendTls>>,
    pub connect_timeout: PositiveDuration,
    pub idle_timeout: PositiveDuration,
    pub requests_max: u32,
    pub concurrency: Concurrency,
    pub connections_max: u32,
    pub idle_max: u32,
    pub pending_max: u32,
    pub pending_timeout: PositiveDuration,
    pub retry_budget: RetryBudget,
    pub protocol: Spanned<Protocol>,
    pub streams_max: u32,
    pub proxy_protocol: Option<Spanned<ProxyVersion>>,
    pub forwarded: bool,
    pub forward_certificate: bool,
}

/// A service behind the gateway: the URL of its only endpoint, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongBackend {
    /// Where it is: URLs (`http://10.0.0.1:8080`, `https://…`, or `h2c://…` for HTTP/2 in clear
    /// text), or maps with `url` and `weight`. Either this or `discover`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 4096), extend("uniqueItems" = true))]
    endpoints: Vec<Endpoint>,
    /// Where endpoints are found, in place of `endpoints`: by DNS or in a file that is watched.
    #[serde(default)]
    discover: Option<Spanned<Discover>>,
    /// How an endpoint is chosen: `least_requests`, `round_robin`, `ewma`, `{hash: KEY}`,
    /// or `{sticky: {key: REFERENCE}}`.
    /// Default: `least_requests`.
    #[serde(default)]
    balance: Spanned<Balance>,
    /// Whether the endpoints of the zone that the gateway is in (`gateway`, `zone`) are preferred,
    /// as far as they can carry its requests; what is beyond goes to the other zones. Default:
    /// `off`.
    #[serde(default)]
    prefer_zone: Spanned<Switch<PreferZone>>,
    /// An endpoint that is added by a reload, or that is well again, gets a tenth of its share at
    /// first and all of it after this time. Default: `30s`.
    #[serde(default = "slow_start")]
    slow_start: DurationOrOff,
    /// Asks each endpoint regularly whether it is well: a path, or a map. Without it an endpoint
    /// counts as well, and is set aside for a moment when it cannot be connected to.
    #[serde(default)]
    health: Option<Health>,
    /// While fewer of a hundred endpoints are well, those that are not get requests too: to serve
    /// from one that may be down is better than to drown the few that are left. 0 for never.
    /// Default: 50.
    #[serde(default = "panic_threshold")]
    #[schemars(range(min = 0, max = 100))]
    panic_threshold: u32,
    /// Whether endpoints that fail or dawdle more than the others get no requests for a while.
    /// Default: `true`.
    #[serde(default = "outliers")]
    outliers: Switch<Outliers>,
    /// Whether requests are refused at once while too many of them fail. Default: `off`.
    #[serde(default = "breaker")]
    breaker: Switch<Breaker>,
    /// The `Host` that it sees: `preserve` (what the client sent), `backend` (that of the
    /// endpoint's URL), or a name. Default: `preserve`.
    #[serde(default)]
    host: HostHeader,
    /// TLS to `https://` endpoints, beyond the default, which verifies them with the system's
    /// certificate authorities and the name in their URL.
    #[serde(default)]
    tls: Option<Spanned<BackendTls>>,
    /// Longest wait for a connection, TLS handshake included. Another endpoint is tried after
    /// that. Default: `2s`.
    #[serde(default = "connect_timeout")]
    connect_timeout: PositiveDuration,
    /// How long an idle connection is kept. Keep it below the backend's own keep-alive time.
    /// Default: `60s`.
    #[serde(default = "idle_timeout")]
    idle_timeout: PositiveDuration,
    /// Requests under way at once, over all its endpoints and workers; what was upgraded counts to
    /// its end. Those beyond wait for their turn. To a backend that only speaks HTTP/1.1 there are
    /// never more than `connections_max`. Default: 1024.
    #[serde(default = "requests_max")]
    #[schemars(range(min = 1))]
    requests_max: u32,
    /// How many requests may be under way within `requests_max`: `fixed`, all of them; or
    /// `adaptive`, as many as its answers do not take longer for, which is found out and followed.
    /// Default: `fixed`.
    #[serde(default)]
    concurrency: Concurrency,
    /// Open connections to all its endpoints, over all workers. Requests beyond wait for one.
    /// Default: 1024.
    #[serde(default = "connections_max")]
    #[schemars(range(min = 1))]
    connections_max: u32,
    /// Idle connections kept to each endpoint by each worker. Default: 64.
    #[serde(default = "idle_max")]
    idle_max: u32,
    /// Requests that may wait for their turn, and as many for a connection; a 503 beyond. The
    /// first has the next turn, and the last one while more than half of these wait. Default: 1024.
    #[serde(default = "pending_max")]
    pending_max: u32,
    /// How long a request may wait for its turn; a 503 after that. Default: `1s`.
    #[serde(default = "pending_timeout")]
    pending_timeout: PositiveDuration,
    /// How many of its requests may be sent again, whatever the routes allow: a share of its
    /// requests and some each second. A failure beyond is answered as it is. Requests that could
    /// not be connected go to another endpoint at no cost. Default:
    /// `{ percent: 20, per_second: 10 }`.
    #[serde(default)]
    retry_budget: RetryBudget,
    /// The HTTP version it is spoken to in: `auto`, `h1` or `h2`. `auto` lets `https://` endpoints
    /// pick by ALPN, and is HTTP/1.1 in clear text; an `h2c://` endpoint always gets HTTP/2.
    /// Default: `auto`.
    #[serde(default)]
    protocol: Spanned<Protocol>,
    /// HTTP/2 streams open at once on one connection, if the endpoint allows as many. Default: 100.
    #[serde(default = "streams_max")]
    #[schemars(range(min = 1, max = 10_000))]
    streams_max: u32,
    /// Begins each connection with a PROXY protocol header that names the client: `v1` (text) or
    /// `v2` (binary). Such a connection serves one client only and speaks HTTP/1.1: with `auto`
    /// HTTP/2 is not offered, and `h2` and `h2c://` are an error. Default: none.
    #[serde(default)]
    proxy_protocol: Option<Spanned<ProxyVersion>>,
    /// Whether it gets `Forwarded` (RFC 7239) in addition to `X-Forwarded-*`. Default: `false`.
    #[serde(default)]
    forwarded: bool,
    /// Whether it gets the client's certificate in `Client-Cert` (RFC 9440), where there is one
    /// and it has been verified. Default: `false`.
    #[serde(default)]
    forward_certificate: bool,
}

/// The most that is sent again.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryBudget {
    /// Of a hundred requests. Default: 20.
    #[serde(default = "percent")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: u32,
    /// Each second in addition, over all workers. Those not needed are kept for ten seconds.
    /// Default: 10.
    #[serde(default = "per_second")]
    #[schemars(range(min = 0, max = 100_000))]
    pub per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: percent(), per_second: per_second() }
    }
}

fn percent() -> u32 {
    20
}

fn per_second() -> u32 {
    10
}

fn slow_start() -> DurationOrOff {
    DurationOrOff::from_secs(30)
}

fn panic_threshold() -> u32 {
    50
}

fn outliers() -> Switch<Outliers> {
    Switch(Some(Outliers::default()))
}

fn breaker() -> Switch<Breaker> {
    Switch(None)
}

fn connect_timeout() -> PositiveDuration {
    PositiveDuration::from_secs(2)
}

fn idle_timeout() -> PositiveDuration {
    PositiveDuration::from_secs(60)
}

pub(crate) fn pending_timeout() -> PositiveDuration {
    PositiveDuration::from_secs(1)
}

fn requests_max() -> u32 {
    1024
}

fn connections_max() -> u32 {
    1024
}

fn idle_max() -> u32 {
    64
}

fn pending_max() -> u32 {
    1024
}

fn streams_max() -> u32 {
    100
}

impl From<LongBackend> for Backend {
    fn from(long: LongBackend) -> Self {
        Self {
            endpoints: long.endpoints,
            discover: long.discover,
            balance: long.balance,
            prefer_zone: long.prefer_zone,
            slow_start: long.slow_start,
            panic_threshold: long.panic_threshold,
            health: long.health,
            outliers: long.outliers,
            breaker: long.breaker,
            host: long.host,
            tls: long.tls,
            connect_timeout: long.connect_timeout,
            idle_timeout: long.idle_timeout,
            requests_max: long.requests_max,
            concurrency: long.concurrency,
            connections_max: long.connections_max,
            idle_max: long.idle_max,
            pending_max: long.pending_max,
            pending_timeout: long.pending_timeout,
            retry_budget: long.retry_budget,
            protocol: long.protocol,
            streams_max: long.streams_max,
            proxy_protocol: long.proxy_protocol,
            forwarded: long.forwarded,
            forward_certificate: long.forward_certificate,
        }
    }
}

impl Backend {
    fn one(endpoint: Endpoint) -> Self {
        Self {
            endpoints: vec![endpoint],
            discover: None,
            balance: Spanned::default(),
            prefer_zone: Spanned::default(),
            slow_start: slow_start(),
            panic_threshold: panic_threshold(),
            health: None,
            outliers: outliers(),
            breaker: breaker(),
            host: HostHeader::default(),
            tls: None,
            connect_timeout: connect_timeout(),
            idle_timeout: idle_timeout(),
            requests_max: requests_max(),
            concurrency: Concurrency::default(),
            connections_max: connections_max(),
            idle_max: idle_max(),
            pending_max: pending_max(),
            pending_timeout: pending_timeout(),
            retry_budget: RetryBudget::default(),
            protocol: Spanned::default(),
            streams_max: streams_max(),
            proxy_protocol: None,
            forwarded: false,
            forward_certificate: false,
        }
    }
}

impl JsonSchema for Backend {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Backend".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let short = generator.subschema_for::<EndpointUrl>();
        short_or_long(vec![short], LongBackend::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if node.as_str().is_some() {
            return Endpoint::deserialize(&node).map(Self::one).map_err(D::Error::custom);
        }
        LongBackend::deserialize(&node).map(Self::from).map_err(D::Error::custom)
    }
}

/// One address of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub url: Spanned<EndpointUrl>,
    pub weight: u32,
    pub priority: u16,
    pub zone: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub draining: bool,
}

/// One address of a backend: its URL, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongEndpoint {
    /// `http://HOST[:PORT]`, `https://HOST[:PORT]` or `h2c://HOST[:PORT]` (HTTP/2 in clear text),
    /// without a path, or `unix:PATH` with the absolute path of a Unix socket.
    url: Spanned<EndpointUrl>,
    /// Share of the requests, against the other endpoints. 0 sends nothing. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(max = 65_535))]
    weight: u32,
    /// Those of the lowest number are used while enough of them are well (as many as
    /// `panic_threshold` says), those of the next while they are not: `1` is a backup of `0`.
    /// Default: 0.
    #[serde(default)]
    priority: u16,
    /// Where it is, as the operator calls it: an availability zone, a rack. Default: unknown.
    #[serde(default)]
    #[schemars(length(min = 1, max = 64))]
    zone: Option<String>,
    /// Whatever else is to be known of it, as texts. Default: none.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 16))]
    labels: BTreeMap<String, String>,
    /// It finishes what it has and gets nothing new. Default: `false`.
    #[serde(default)]
    draining: bool,
}

fn one() -> u32 {
    1
}

impl JsonSchema for Endpoint {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let short = generator.subschema_for::<EndpointUrl>();
        short_or_long(vec![short], LongEndpoint::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if node.as_str().is_some() {
            let url = Spanned::deserialize(&node).map_err(D::Error::custom)?;
            let (zone, labels) = (None, BTreeMap::new());
            let (weight, priority) = (one(), 0);
            return Ok(Self { url, weight, priority, zone, labels, draining: false });
        }
        let LongEndpoint { url, weight, priority, zone, labels, draining } =
            LongEndpoint::deserialize(&node).map_err(D::Error::custom)?;
        Ok(Self { url, weight, priority, zone, labels, draining })
    }
}

/// The HTTP version that a backend is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// With TLS what the endpoint picks by ALPN; HTTP/1.1 in clear text.
    #[default]
    Auto,
    /// HTTP/1.1.
    H1,
    /// HTTP/2, in clear text by prior knowledge.
    H2,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// TLS to a backend's `https://` endpoints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendTls {
    /// Certificate authorities, PEM, that replace the system's: `file:PATH` or `env:NAME`.
    #[serde(default)]
    pub ca: Option<Spanned<Reference>>,
    /// The client certificate to present, PEM, leaf first; with `key`.
    #[serde(default)]
    pub cert: Option<Spanned<Reference>>,
    /// The key of `cert`, PEM.
    #[serde(default)]
    pub key: Option<Spanned<Reference>>,
    /// The name to ask for and to verify. Default: the host of the endpoint's URL.
    #[serde(default)]
    pub server_name: Option<Spanned<HostName>>,
    /// Who the endpoints are, by a name in their certificate; one of a list will do: a SPIFFE ID
    /// (`spiffe://example.org/ns/*/sa/orders`, where `*` is one segment and `**` at the end all
    /// that follow), another URI, or a DNS name. It is verified in place of the name that was
    /// asked for, so that an address or a name that has come to belong to another service of the
    /// same authority gets nothing. Default: the name alone.
    #[serde(default)]
    pub identity: Option<OneOrMany<Spanned<String>>>,
    /// Why the backend's certificate is not verified. Without this it is verified; there is no
    /// `verify: false`, so that the reason is always there to read.
    #[serde(default)]
    pub unverified: Option<Spanned<Reason>>,
}
