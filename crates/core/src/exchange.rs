//! One request in flight, as policies see it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::head::{RequestHead, Span};
use crate::hex;
use crate::identity::Identity;
use crate::limit::Standing;
use crate::now::Now;
use crate::problem::Problem;

/// Everything a policy may read or change about the request in flight.
///
/// It is leased from the worker's free list and given back, so every field is either inline or
/// keeps its memory in [`Self::clear`]. It carries its own clock and randomness, so that a policy
/// is a pure function of it.
#[derive(Debug)]
pub struct Exchange {
    /// Read when the head was complete, and again after every wait.
    pub now: Now,
    pub connection: Rc<Connection>,
    /// The peer, or what trusted hops say; never what a stranger says.
    pub client_ip: IpAddr,
    /// The client's certificate: of the connection, or what a trusted hop says (RFC 9440).
    pub certificate: Option<Arc<ClientCertificate>>,
    pub request_id: RequestId,
    pub trace: TraceContext,
    pub request: RequestHead,
    /// What the route's path template captured.
    pub params: Params,
    pub identity: Option<Arc<Identity>>,
    /// Where in the request's bytes the access token is that was verified, for whoever exchanges it
    /// for another (RFC 8693). It stays there when the credential is concealed: edits only append.
    pub access_token: Option<Span>,
    /// Values of `Set-Cookie` that the answer gets, whoever makes it.
    pub cookies: Vec<String>,
    /// Whole bodies, for policies that declared `Buffered`; they may replace them.
    pub request_body: Bytes,
    pub response_body: Bytes,
    /// How the tightest limit stands; told to the client in `RateLimit`.
    pub standing: Option<Standing>,
    /// What is done to it on purpose before its backend is asked.
    pub held: Option<Box<Held>>,
    /// Fresh for each exchange; decides weighted choices.
    pub random: u64,
    /// Decide as if this identity had been proven: set by `explain` and `check`, never by traffic.
    pub assumed: Option<Arc<Identity>>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            now: Now::default(),
            connection: Rc::default(),
            client_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            certificate: None,
            request_id: RequestId::default(),
            trace: TraceContext::default(),
            request: RequestHead::default(),
            params: Params::default(),
            identity: None,
            access_token: None,
            cookies: Vec::new(),
            request_body: Bytes::new(),
            response_body: Bytes::new(),
            standing: None,
            held: None,
            random: 0,
            assumed: None,
        }
    }
}

impl Exchange {
    /// Forgets the request and keeps the memory.
    pub fn clear(&mut self) {
        let Self {
            now,
            connection: _,
            client_ip,
            certificate,
            request_id,
            trace,
            request,
            params,
            identity,
            access_token,
            cookies,
            request_body,
            response_body,
            standing,
            held,
            random,
            assumed,
        } = self;
        request.clear();
        *now = Now::default();
        *client_ip = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        *certificate = None;
        *request_id = RequestId::default();
        *trace = TraceContext::default();
        *params = Params::default();
        *identity = None;
        *access_token = None;
        cookies.clear();
        *request_body = Bytes::new();
        *response_body = Bytes::new();
        *standing = None;
        *held = None;
        *random = 0;
        *assumed = None;
    }

    /// The value that the route's template captured under this name.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&[u8]> {
        let at = self.params.names.as_ref()?.iter().position(|n| &**n == name)?;
        self.params.values.get(at).map(|span| span.of(self.request.fields.bytes()))
    }
}

/// A wait on purpose. It is the forwarder's, since it takes up what a slow backend would.
#[derive(Debug)]
pub struct Held {
    pub wait: Duration,
    /// What answers afterwards, in the backend's place.
    pub then: Option<Problem>,
}

/// What is known of the connection a request came on.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Index of the listener in the snapshot.
    pub listener: u16,
    pub peer: SocketAddr,
    pub tls: Option<TlsFacts>,
}

impl Default for Connection {
    fn default() -> Self {
        Self { listener: 0, peer: SocketAddr::from(([0, 0, 0, 0], 0)), tls: None }
    }
}

/// What the handshake established.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Lower case, without a trailing dot.
    pub server_name: Option<Arc<str>>,
    /// Verified against the listener's authorities by the handshake. What counts for a request is
    /// [`Exchange::certificate`]: a certificate can be revoked while its connection is open.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A client's certificate, as far as anybody decides by it. Its chain has been verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Of the whole certificate in DER; `x5t#S256` of RFC 8705 §3.1 is its base64url.
    pub sha256: [u8; 32],
    /// RFC 4514: `CN=shop,O=Example`.
    pub subject: String,
    /// Of the subject, and `None` where there are several.
    pub common_name: Option<String>,
    pub organization: Option<String>,
    pub organizational_unit: Option<String>,
    /// Subject alternative names; DNS names in lower case.
    pub dns: Vec<String>,
    /// `spiffe://…` among them.
    pub uris: Vec<String>,
    pub emails: Vec<String>,
    pub ips: Vec<IpAddr>,
    /// Hexadecimal, lower case.
    pub serial: String,
    /// Since 1970.
    pub not_after: Duration,
    /// Since 1970: when something that its verification has rested on ends, such as an authority
    /// between, or a revocation list.
    pub verified_until: Duration,
    /// Fingerprint of the authorities and lists that it was verified by.
    pub verified_by: u64,
    /// In DER as presented, its own first.
    pub chain: Vec<Box<[u8]>>,
}

/// Template captures, at most [`Params::MAX`].
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// Names in the order of the captures; shared with the route.
    pub names: Option<Arc<[Box<str>]>>,
    /// Spans into the request head's buffer.
    pub values: [Span; Self::MAX],
}

impl Params {
    pub const MAX: usize = 8;
}

/// 128 random bits in hexadecimal, or what a trusted hop sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    text: [u8; Self::LEN_MAX],
    len: u8,
}

impl RequestId {
    pub const LEN_MAX: usize = 64;

    #[must_use]
    pub fn new(bits: u128) -> Self {
        let mut id = Self { text: [0; Self::LEN_MAX], len: 32 };
        id.text[..32].copy_from_slice(&hex::of_128(bits));
        id
    }

    /// Takes 1 to 64 letters, digits, `-`, `_`, `.`; nothing that would need escaping anywhere.
    #[must_use]
    pub fn accept(text: &[u8]) -> Option<Self> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > Self::LEN_MAX || !text.iter().all(plain) {
            return None;
        }
        let mut id = Self { text: [0; Self::LEN_MAX], len: text.len() as u8 };
        id.text[..text.len()].copy_from_slice(text);
        Some(id)
    }

    /// Both constructors admit ASCII only.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self { text: [0; Self::LEN_MAX], len: 0 }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// W3C Trace Context of the exchange. Parsing and writing it is `telemetry`'s business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: u128,
    /// The span that this gateway is, sent on as parent.
    pub span_id: u64,
    /// The caller's span; 0 where the trace begins here.
    pub parent_id: u64,
    pub sampled: bool,
}
