//! Where clients connect, as written.

use std::str::FromStr;

use portcullis_core::decode::{Entries, Fault, Spanned};
use portcullis_core::path::{PathRules, Treatment};
use portcullis_core::units::{DurationOrOff, PositiveDuration, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::socket::{BindAddress, SocketMode};
use crate::text::{Name, Network, Reason, Reference};

/// An address to listen on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port: `0.0.0.0:8443`, `[::]:8443`. Names are not resolved. Port 0 takes a free
    /// one. Or `unix:PATH`, the absolute path of a Unix socket; a socket file that nobody answers
    /// on is replaced.
    pub bind: Spanned<BindAddress>,
    /// Who may connect to a Unix socket: the permission bits of its file. Default: `"0660"`, the
    /// gateway's user and group.
    #[serde(default)]
    pub socket_mode: Option<Spanned<SocketMode>>,
    /// TLS with these certificates. Without it the listener speaks clear text.
    #[serde(default)]
    pub tls: Option<Spanned<ListenerTls>>,
    /// Sends everybody to another listener, which has TLS, with 308: that listener's name, or
    /// `{to: NAME, port: 443}`. Such a listener has no routes.
    #[serde(default)]
    pub redirect: Option<Spanned<Redirect>>,
    /// Why credentials may cross this listener without TLS. Needed where a route with `auth` can be
    /// reached in clear text and the address is not loopback.
    #[serde(default)]
    pub clear_text: Option<Spanned<Reason>>,
    /// Whether its routes may have [`faults`](../policies/faults.md), which make requests fail on
    /// purpose. Default: `false`.
    #[serde(default)]
    pub allow_faults: bool,
    /// Networks whose `X-Forwarded-*` and `Forwarded` are believed: `["10.0.0.0/8"]`. The client is
    /// the right-most address named there which is in none of them. Default: none, the client is
    /// the peer.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// Believes peers in `trusted_proxies` whose certificate a client has. Default: the only
    /// certificate that counts is that of the connection.
    #[serde(default)]
    pub certificate_header: Option<Spanned<CertificateHeader>>,
    /// Whether each connection begins with a PROXY protocol header (version 1 or 2), from a peer in
    /// `trusted_proxies`; any other peer is disconnected. Default: `false`.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// HTTP/2: by ALPN with TLS, by prior knowledge in clear text. Default: `true`.
    #[serde(default = "yes")]
    pub http2: bool,
    /// What paths may look like.
    #[serde(default)]
    pub paths: PathOptions,
    /// Settings for single hosts, by exact name.
    #[serde(default)]
    pub hosts: Entries<HostOptions>,
    /// Longest TLS handshake. Default: `10s`.
    #[serde(default = "handshake_timeout")]
    pub handshake_timeout: PositiveDuration,
    /// From the first byte of a request's head to its last; 408 after that. Default: `10s`.
    #[serde(default = "head_timeout")]
    pub head_timeout: PositiveDuration,
    /// Without a byte of an announced request body; 408 after that. Default: `30s`.
    #[serde(default = "body_timeout")]
    pub body_timeout: PositiveDuration,
    /// How long a connection without a request is kept. Default: `75s`.
    #[serde(default = "keep_alive")]
    pub keep_alive: PositiveDuration,
    /// Open connections; the next one is closed at once. Default: 65536.
    #[serde(default = "connections_max")]
    #[schemars(range(min = 1))]
    pub connections_max: u32,
    /// Open connections from one address, on all listeners together; the next one here is closed
    /// at once. An IPv6 address counts as its /64 network, and where a PROXY protocol header comes
    /// first the address that it names is meant. Peers in `trusted_proxies` and those of Unix
    /// sockets are not counted: many clients share them. Default: 16384.
    #[serde(default = "connections_per_address_max")]
    #[schemars(range(min = 1))]
    pub connections_per_address_max: u32,
    /// Bytes of a request's head, each field counted with 32 bytes more; 431 beyond. Default:
    /// `64KiB`.
    #[serde(default = "head_max")]
    pub head_max: Size,
    /// Header fields of a request; 431 beyond. Cookie crumbs of HTTP/2 count singly. Default: 100.
    #[serde(default = "fields_max")]
    #[schemars(range(min = 1, max = 1000))]
    pub fields_max: u32,
    /// Bytes of a request's target; 414 beyond. Default: `8KiB`.
    #[serde(default = "target_max")]
    pub target_max: Size,
    /// HTTP/2 streams open at once on one connection. Default: 100.
    #[serde(default = "streams_max")]
    #[schemars(range(min = 1, max = 10_000))]
    pub streams_max: u32,
    /// How long requests may wait for a turn in the gateway itself, half a second on end, because
    /// of what it has to do (not because other programs have its cores). Beyond that it has more to
    /// do than it can, and answers some with 503 before it looks at them: first those whose route's
    /// `priority` is `sheddable`, last those that are `critical`; as many as it takes to make that
    /// wait a twentieth of this. `off` refuses nothing. Default: `off`.
    #[serde(default = "shed")]
    pub shed: DurationOrOff,
    /// HTTP/2 frames that cost a client nothing and the gateway work: how many one connection may
    /// bring. It is closed beyond, with GOAWAY `ENHANCE_YOUR_CALM`.
    #[serde(default)]
    pub http2_frames: H2Frames,
}

/// How many frames of each kind one HTTP/2 connection may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct H2Frames {
    /// RST_STREAM in a minute. Default: 200.
    #[serde(default = "resets_per_minute")]
    #[schemars(range(min = 1))]
    pub resets_per_minute: u32,
    /// PING in a minute. Default: 120.
    #[serde(default = "pings_per_minute")]
    #[schemars(range(min = 1))]
    pub pings_per_minute: u32,
    /// SETTINGS in a minute. Default: 60.
    #[serde(default = "settings_per_minute")]
    #[schemars(range(min = 1))]
    pub settings_per_minute: u32,
    /// CONTINUATION frames of one head. Default: 8.
    #[serde(default = "continuations_max")]
    #[schemars(range(max = 10_000))]
    pub continuations_max: u32,
}

impl Default for H2Frames {
    fn default() -> Self {
        Self {
            resets_per_minute: resets_per_minute(),
            pings_per_minute: pings_per_minute(),
            settings_per_minute: settings_per_minute(),
            continuations_max: continuations_max(),
        }
    }
}

/// Thousands of clients that each wait for their answer before they ask again make such a line, and
/// nobody minds.
fn shed() -> DurationOrOff {
    DurationOrOff::OFF
}

fn yes() -> bool {
    true
}

fn handshake_timeout() -> PositiveDuration {
    PositiveDuration::from_secs(10)
}

fn head_timeout() -> PositiveDuration {
    PositiveDuration::from_secs(10)
}

fn body_timeout() -> PositiveDuration {
    PositiveDuration::from_secs(30)
}

fn keep_alive() -> PositiveDuration {
    PositiveDuration::from_secs(75)
}

fn connections_max() -> u32 {
    65_536
}

fn connections_per_address_max() -> u32 {
    16_384
}

fn head_max() -> Size {
    Size::kib(64)
}

fn fields_max() -> u32 {
    100
}

fn target_max() -> Size {
    Size::kib(8)
}

fn streams_max() -> u32 {
    100
}

fn resets_per_minute() -> u32 {
    200
}

fn pings_per_minute() -> u32 {
    120
}

fn settings_per_minute() -> u32 {
    60
}

fn continuations_max() -> u32 {
    8
}

/// TLS 1.2 and 1.3 with the certificate that fits the name the client asks for.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// Pairs of chain and key. The one whose names fit the client's SNI is presented, an exact name
    /// before a wildcard; the first one where none fits or no name is sent.
    #[schemars(length(min = 1))]
    pub certificates: Vec<CertificatePair>,
    /// Asks clients for a certificate of their own. Default: they are not asked.
    #[serde(default)]
    pub client: Option<Spanned<ClientTls>>,
}

/// Which certificates of clients hold. One that is presented and does not hold ends the handshake.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// Who signs them: certificates of authorities, PEM, `file:PATH` or `env:NAME`. Never the
    /// system's.
    pub ca: Spanned<Reference>,
    /// Whether a client may come without: `request` lets it in and leaves it to routes with
    /// `mtls` to refuse it, `require` ends the handshake. Default: `require`.
    #[serde(default)]
    pub mode: ClientMode,
    /// Revocation lists, PEM, one after another. They are read again when the file changes, also
    /// for connections that are open. Where there is a list, a certificate that none of them is
    /// about is refused, and so is everybody once it has expired. Default: none.
    #[serde(default)]
    pub crl: Option<Spanned<Reference>>,
    /// Which certificates have to be covered by a list: `chain`, or only the `leaf`. Default:
    /// `chain`, all but the authority in `ca`.
    #[serde(default)]
    pub crl_depth: CrlDepth,
}

/// Takes the client's certificate from `Client-Cert` and `Client-Cert-Chain` (RFC 9440), where a
/// hop in `trusted_proxies` ends TLS. It is verified here once more. From anybody else the fields
/// mean nothing; toward backends they are always removed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateHeader {
    /// Who signs clients' certificates: certificates of authorities, PEM, `file:PATH` or
    /// `env:NAME`.
    pub ca: Spanned<Reference>,
    /// Revocation lists, as in `tls.client`. Default: none.
    #[serde(default)]
    pub crl: Option<Spanned<Reference>>,
    /// As in `tls.client`. Default: `chain`.
    #[serde(default)]
    pub crl_depth: CrlDepth,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientMode {
    Request,
    #[default]
    Require,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CrlDepth {
    #[default]
    Chain,
    Leaf,
}

/// A certificate chain and its key, both PEM. They are read again when the files change; a new pair
/// that does not match is reported and the old one stays.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificatePair {
    /// The chain, leaf first: `file:PATH` or `env:NAME`.
    pub cert: Spanned<Reference>,
    /// The private key: PKCS#8, PKCS#1 or SEC1.
    pub key: Spanned<Reference>,
}

/// Where a listener sends everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub to: Name,
    /// The port in the new URL. `None`: that of the other listener's `bind`.
    pub port: Option<u16>,
}

/// Where a listener sends everybody: the name of another listener, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongRedirect {
    /// The listener, by name.
    to: Name,
    /// The port in the new URL, where clients see another than the listener binds. 443 is left out
    /// of the URL.
    #[serde(default)]
    #[schemars(range(min = 1))]
    port: Option<u16>,
}

impl From<LongRedirect> for Redirect {
    fn from(long: LongRedirect) -> Self {
        Self { to: long.to, port: long.port }
    }
}

impl FromStr for Redirect {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        Ok(Self { to: text.parse()?, port: None })
    }
}

portcullis_core::written_short_or_long! {
    Redirect = LongRedirect: "name", "the name of a listener", r"^[A-Za-z0-9._-]{1,64}$";
}

/// Settings for one host of a listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostOptions {
    /// What paths may look like on this host, in place of the listener's own `paths`.
    #[serde(default)]
    pub paths: PathOptions,
}

/// What paths may look like. A path that different readers could take for different resources is
/// a 400; each `keep` says that no backend behind it decodes the construct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PathOptions {
    /// `%2F` in a path. Default: `refuse`.
    pub encoded_slash: PathTreatment,
    /// `;` and `%3B` in a path, with which path parameters begin. Default: `refuse`.
    pub semicolon: PathTreatment,
    /// Reads `//` as `/`; if not, an empty segment is a 400. Default: `true`.
    pub merge_slashes: bool,
}

impl Default for PathOptions {
    fn default() -> Self {
        Self {
            encoded_slash: PathTreatment::Refuse,
            semicolon: PathTreatment::Refuse,
            merge_slashes: true,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathTreatment {
    #[default]
    Refuse,
    Keep,
}

impl PathOptions {
    /// The same as core understands it.
    #[must_use]
    pub fn rules(self) -> PathRules {
        let treatment = |written| match written {
            PathTreatment::Refuse => Treatment::Refuse,
            PathTreatment::Keep => Treatment::Keep,
        };
        PathRules {
            encoded_slash: treatment(self.encoded_slash),
            semicolon: treatment(self.semicolon),
            merge_slashes: self.merge_slashes,
        }
    }
}
