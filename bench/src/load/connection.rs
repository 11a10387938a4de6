//! A client's connection: HTTP/1.1, clear or over TLS, one request at a time.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use http::uri::Scheme;
use http::{Method, Uri};
use portcullis_core::ResponseHead;
use portcullis_http1::{BodyDecoder, HeadLimits, ParsedResponse, ResponseFacts, parse_response};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const BUFFER_BYTES: usize = 64 * 1024;

/// Where requests go, and the bytes of one.
pub(crate) struct Target {
    address: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    request: Vec<u8>,
}

impl Target {
    pub(crate) fn new(url: &Uri, headers: &[String]) -> anyhow::Result<Self> {
        let authority = url.authority().context("the URL names no server")?;
        let tls = url.scheme() == Some(&Scheme::HTTPS);
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let mut host = authority.as_str();
        let mut request = String::new();
        for header in headers {
            let (name, value) = header.split_once(':').context("a header is `Name: value`")?;
            if name.eq_ignore_ascii_case("host") {
                host = value.trim();
            } else {
                request.push_str(&format!("{name}: {}\r\n", value.trim()));
            }
        }
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{request}\r\n");
        let name = host.parse::<http::uri::Authority>()?.host().to_owned();
        let tls = match tls {
            true => {
                let connector = TlsConnector::from(Arc::new(portcullis_bench::tls::client()?));
                Some((connector, ServerName::try_from(name)?))
            }
            false => None,
        };
        let address = format!("{}:{port}", authority.host());
        Ok(Self { address, tls, request: request.into_bytes() })
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let io: Box<dyn Io> = match &self.tls {
            Some((connector, name)) => Box::new(connector.connect(name.clone(), tcp).await?),
            None => Box::new(tcp),
        };
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Ok(Connection { io, buffer, head: ResponseHead::default() })
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

pub(crate) struct Connection {
    io: Box<dyn Io>,
    /// What was read of the answer and not looked at.
    buffer: Vec<u8>,
    head: ResponseHead,
}

pub(crate) struct Answer {
    pub status: u16,
    pub keep_alive: bool,
}

impl Connection {
    /// One request and the whole of its answer.
    pub(crate) async fn exchange(&mut self, target: &Target) -> anyhow::Result<Answer> {
        self.buffer.clear();
        self.io.write_all(&target.request).await?;
        self.io.flush().await?;
        let facts = self.read_head().await?;
        self.buffer.drain(..facts.consumed);
        let mut body = BodyDecoder::new(self.head.body, facts.chunked);
        loop {
            let step = body.decode(&self.buffer)?;
            self.buffer.drain(..step.consumed);
            if step.end {
                break;
            }
            if step.consumed == 0 && !self.read().await? {
                body.finish()?;
                break;
            }
        }
        Ok(Answer { status: self.head.status.as_u16(), keep_alive: facts.keep_alive })
    }

    async fn read_head(&mut self) -> anyhow::Result<ResponseFacts> {
        let limits = HeadLimits::default();
        loop {
            if !self.read().await? {
                bail!("the connection ended before the answer");
            }
            let parsed = parse_response(&self.buffer, &limits, &Method::GET, &mut self.head)?;
            if let ParsedResponse::Complete(facts) = parsed {
                return Ok(facts);
            }
        }
    }

    /// More of the answer; `false` at the end of the connection.
    async fn read(&mut self) -> std::io::Result<bool> {
        Ok(self.io.read_buf(&mut self.buffer).await? > 0)
    }
}
