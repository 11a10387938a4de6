//! A client that speaks HTTP/1.1 in exactly the bytes it is told.

use std::net::SocketAddr;
use std::path::Path;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Answer, Body, Cut, Request};
use crate::pki::{Pki, SERVER_NAME};
use crate::wire::{Io, Wire, field};

/// How a connection ended.
pub type End = Cut;

#[derive(Debug)]
pub struct H1Client {
    pub(crate) wire: Wire,
}

impl H1Client {
    /// # Panics
    /// If nobody listens there.
    pub async fn connect(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self { wire: Wire::new(tcp) }
    }

    /// On a connection that the test has made itself.
    #[must_use]
    pub fn over(tcp: TcpStream) -> Self {
        Self { wire: Wire::new(tcp) }
    }

    /// On a connection whose handshake the test has made itself.
    #[must_use]
    pub fn over_tls(tls: TlsStream<TcpStream>) -> Self {
        Self { wire: Wire::new(tls) }
    }

    /// # Panics
    /// If nobody listens there.
    pub async fn connect_unix(path: &Path) -> Self {
        Self { wire: Wire::new(UnixStream::connect(path).await.unwrap()) }
    }

    /// # Panics
    /// If nobody listens there or the handshake fails.
    pub async fn connect_tls(address: SocketAddr, pki: &Pki) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::through_tls(tcp, pki).await
    }

    /// # Panics
    /// If nobody listens there or the handshake fails.
    pub async fn connect_unix_tls(path: &Path, pki: &Pki) -> Self {
        Self::through_tls(UnixStream::connect(path).await.unwrap(), pki).await
    }

    async fn through_tls(io: impl Io + 'static, pki: &Pki) -> Self {
        let connector = TlsConnector::from(pki.client(&["http/1.1"]));
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        Self { wire: Wire::new(connector.connect(name, io).await.unwrap()) }
    }

    /// Sends bytes; a gateway that has closed already is found out by reading.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).await;
    }

    /// Says that nothing more comes.
    pub async fn shutdown(&mut self) {
        self.wire.shutdown().await;
    }

    /// The next head, interim or final: status and fields.
    ///
    /// # Errors
    /// How the connection ended instead.
    pub async fn head(&mut self) -> Result<(String, Vec<(String, String)>), Cut> {
        self.wire.head().await
    }

    /// The next final response to a request with this method.
    ///
    /// # Errors
    /// How the connection ended instead, or within it.
    ///
    /// # Panics
    /// Over what is not HTTP/1.1.
    pub async fn response(&mut self, method: &str) -> Result<Answer, Cut> {
        let mut interim = Vec::new();
        loop {
            let (line, fields) = self.wire.head().await?;
            let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
            let status: u16 = status.and_then(|s| s.parse().ok()).expect("a status line");
            if status < 200 {
                interim.push((status, fields));
                continue;
            }
            let without = method == "HEAD" || matches!(status, 204 | 304);
            let (body, trailers) = match without {
                true => (Vec::new(), Vec::new()),
                false => self.wire.body(&fields, true).await?,
            };
            return Ok(Answer { status, fields, body, trailers, interim });
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// How the connection ended instead, or within the answer.
    pub async fn exchange(&mut self, request: &Request) -> Result<Answer, Cut> {
        self.send(encode(request)).await;
        self.response(&request.method).await
    }

    /// Reads to the end: what came, and how it ended.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            match self.wire.fill().await {
                Ok(true) => {}
                Ok(false) => break Cut::Closed,
                Err(cut) => break cut,
            }
        };
        (std::mem::take(&mut self.wire.buffer), end)
    }
}

/// The bytes of a request.
#[must_use]
pub fn encode(request: &Request) -> Vec<u8> {
    let Request { method, path, fields, body } = request;
    let mut out = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    if field(fields, "host").is_none() {
        out.extend_from_slice(b"Host: localhost\r\n");
    }
    for (name, value) in fields {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    match body {
        Body::None => out.extend_from_slice(b"\r\n"),
        Body::Known(bytes) => {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
        }
        Body::Unknown { pieces, trailers } => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for piece in pieces {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n");
            for (name, value) in trailers {
                out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}
