//! One client for every protocol, so that one test can be run over all of them.

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::gateway::TestGateway;
use crate::h1::H1Client;
use crate::h2::H2Client;
use crate::wire::field;

/// What a client speaks, and whether through TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    H1,
    H1Tls,
    H2,
    H2Tls,
}

impl Protocol {
    pub const ALL: [Self; 4] = [Self::H1, Self::H1Tls, Self::H2, Self::H2Tls];

    #[must_use]
    pub const fn is_h2(self) -> bool {
        matches!(self, Self::H2 | Self::H2Tls)
    }

    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::H1Tls | Self::H2Tls)
    }
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Without framing; `host` is the authority.
    pub fields: Vec<(String, String)>,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    None,
    /// With `Content-Length`.
    Known(Bytes),
    /// Chunked, or DATA frames without a length.
    Unknown {
        pieces: Vec<Bytes>,
        trailers: Vec<(String, String)>,
    },
}

impl Request {
    #[must_use]
    pub fn new(method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self { method, path, fields: Vec::new(), body: Body::None }
    }

    #[must_use]
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// With a body of known length.
    #[must_use]
    pub fn post(path: &str, body: impl Into<Bytes>) -> Self {
        Self { body: Body::Known(body.into()), ..Self::new("POST", path) }
    }

    /// With a body in pieces, of unknown length.
    #[must_use]
    pub fn stream(path: &str, pieces: &[&str]) -> Self {
        let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece.as_bytes())).collect();
        Self { body: Body::Unknown { pieces, trailers: Vec::new() }, ..Self::new("POST", path) }
    }

    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Only for bodies of unknown length.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        match &mut self.body {
            Body::Unknown { trailers, .. } => trailers.push((name.to_owned(), value.to_owned())),
            _ => unreachable!("a body with a length has no trailers in HTTP/1.1"),
        }
        self
    }
}

/// A whole response. Names are in lower case.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The 1xx before it.
    pub interim: Vec<(u16, Vec<(String, String)>)>,
}

impl Answer {
    /// The first field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of a problem; empty for anything else.
    #[must_use]
    pub fn problem(&self) -> String {
        let text = self.text();
        let code = text.split_once(r#""code":""#).and_then(|(_, rest)| rest.split_once('"'));
        code.map(|(code, _)| code.to_owned()).unwrap_or_default()
    }
}

/// Why there is no whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// An orderly end between two messages.
    Closed,
    /// An end within a message that its framing reveals.
    Short,
    /// The connection was reset.
    Reset,
    /// The HTTP/2 stream was reset for this reason (RFC 9113 §7).
    Stream(u32),
}

/// A connection to a gateway.
#[derive(Debug)]
pub enum Client {
    H1(H1Client),
    H2(H2Client),
}

impl Client {
    pub async fn connect(gateway: &TestGateway, protocol: Protocol) -> Self {
        let address = gateway.address(if protocol.is_tls() { "tls" } else { "plain" });
        match protocol {
            Protocol::H1 => Self::H1(H1Client::connect(address).await),
            Protocol::H1Tls => Self::H1(H1Client::connect_tls(address, &gateway.pki).await),
            Protocol::H2 => Self::H2(H2Client::connect(address).await),
            Protocol::H2Tls => Self::H2(H2Client::connect_tls(address, &gateway.pki).await),
        }
    }

    /// Over a handshake that the test has made itself; HTTP/2 where that was agreed on.
    pub async fn over_tls(tls: TlsStream<TcpStream>) -> Self {
        match tls.get_ref().1.alpn_protocol() {
            Some(b"h2") => Self::H2(H2Client::over_tls(tls).await),
            _ => Self::H1(H1Client::over_tls(tls)),
        }
    }

    /// # Errors
    /// Why there is no whole answer.
    pub async fn send(&mut self, request: Request) -> Result<Answer, Cut> {
        match self {
            Self::H1(client) => client.exchange(&request).await,
            Self::H2(client) => client.exchange(&request).await,
        }
    }
}
