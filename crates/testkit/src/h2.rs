//! A client that speaks HTTP/2, by ALPN or by prior knowledge.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Answer, Body, Cut, Request};
use crate::event;
use crate::pki::{Pki, SERVER_NAME};
use crate::wire::Io;

#[derive(Debug)]
pub struct H2Client {
    send: SendRequest<Bytes>,
    connection: AbortHandle,
    scheme: &'static str,
}

impl Drop for H2Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl H2Client {
    /// By prior knowledge.
    ///
    /// # Panics
    /// If nobody listens there.
    pub async fn connect(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::handshake(tcp, "http").await
    }

    /// By prior knowledge.
    ///
    /// # Panics
    /// If nobody listens there.
    pub async fn connect_unix(path: &Path) -> Self {
        Self::handshake(UnixStream::connect(path).await.unwrap(), "http").await
    }

    /// By ALPN.
    ///
    /// # Panics
    /// If nobody listens there or HTTP/2 is not agreed on.
    pub async fn connect_tls(address: SocketAddr, pki: &Pki) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let connector = TlsConnector::from(pki.client(&["h2"]));
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let tls = connector.connect(name, tcp).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::handshake(tls, "https").await
    }

    /// On a connection whose handshake the test has made itself.
    pub async fn over_tls(tls: TlsStream<TcpStream>) -> Self {
        Self::handshake(tls, "https").await
    }

    async fn handshake(io: impl Io + 'static, scheme: &'static str) -> Self {
        let mut builder = h2::client::Builder::new();
        // A test reads when it likes, however small the pieces are.
        builder.data_frame_budget(1 << 20);
        let (send, connection) = builder.handshake(io).await.unwrap();
        // How a connection ends is seen by its streams.
        let task = tokio::spawn(async move { drop(connection.await) });
        Self { send, connection: task.abort_handle(), scheme }
    }

    /// Another user of the same connection, which lives as long as this one.
    #[must_use]
    pub fn stream(&self) -> H2Stream {
        H2Stream { send: self.send.clone(), scheme: self.scheme }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// How the stream ended instead, or within the answer.
    ///
    /// # Panics
    /// Over a request that HTTP/2 cannot express.
    pub async fn exchange(&mut self, request: &Request) -> Result<Answer, Cut> {
        self.stream().exchange(request).await
    }
}

/// One of several users of a connection.
#[derive(Debug)]
pub struct H2Stream {
    pub(crate) send: SendRequest<Bytes>,
    pub(crate) scheme: &'static str,
}

impl H2Stream {
    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// How the stream ended instead, or within the answer.
    ///
    /// # Panics
    /// Over a request that HTTP/2 cannot express.
    pub async fn exchange(&mut self, request: &Request) -> Result<Answer, Cut> {
        event("an answer over HTTP/2", self.try_exchange(request)).await
    }

    async fn try_exchange(&mut self, request: &Request) -> Result<Answer, Cut> {
        let mut ready = self.send.clone().ready().await.map_err(|error| cut(&error))?;
        let host = request.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.map_or("localhost", |(_, value)| value);
        let uri: Uri = format!("{}://{host}{}", self.scheme, request.path).parse().unwrap();
        let mut head = http::Request::builder().method(&*request.method).uri(uri);
        for (name, value) in &request.fields {
            if !name.eq_ignore_ascii_case("host") {
                head = head.header(name, value);
            }
        }
        if let Body::Known(bytes) = &request.body {
            head = head.header("content-length", bytes.len());
        }
        let head = head.body(()).unwrap();
        let none = matches!(request.body, Body::None);
        let (mut answer, stream) = ready.send_request(head, none).map_err(|error| cut(&error))?;
        let mut interim = Vec::new();
        let upload = async {
            match &request.body {
                Body::None => {}
                Body::Known(bytes) => upload(stream, std::slice::from_ref(bytes), &[]).await,
                Body::Unknown { pieces, trailers } => upload(stream, pieces, trailers).await,
            }
            std::future::pending::<()>().await;
        };
        let download = async {
            while let Some(head) = std::future::poll_fn(|cx| answer.poll_informational(cx)).await {
                let head = head.map_err(|error| cut(&error))?;
                interim.push((head.status().as_u16(), fields(head.headers())));
            }
            let (head, mut body) = (&mut answer).await.map_err(|error| cut(&error))?.into_parts();
            let mut whole = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.map_err(|error| cut(&error))?;
                whole.extend_from_slice(&data);
                drop(body.flow_control().release_capacity(data.len()));
            }
            let trailers = body.trailers().await.map_err(|error| cut(&error))?;
            Ok((head, whole, trailers.as_ref().map(fields).unwrap_or_default()))
        };
        let (head, body, trailers) = tokio::select! {
            biased;
            () = upload => unreachable!("it never ends"),
            answer = download => answer?,
        };
        let (status, fields) = (head.status.as_u16(), fields(&head.headers));
        Ok(Answer { status, fields, body, trailers, interim })
    }
}

/// Sends as much as the gateway takes; whether it takes all is seen in its answer.
async fn upload(
    mut stream: h2::SendStream<Bytes>,
    pieces: &[Bytes],
    trailers: &[(String, String)],
) {
    for piece in pieces {
        let mut left = piece.clone();
        while !left.is_empty() {
            stream.reserve_capacity(left.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            let Some(Ok(room)) = room else { return };
            if stream.send_data(left.split_to(room.min(left.len())), false).is_err() {
                return;
            }
        }
    }
    if trailers.is_empty() {
        drop(stream.send_data(Bytes::new(), true));
        return;
    }
    let mut map = HeaderMap::new();
    for (name, value) in trailers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    drop(stream.send_trailers(map));
}

pub(crate) fn fields(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

pub(crate) fn cut(error: &h2::Error) -> Cut {
    if error.is_go_away() || error.is_io() {
        return Cut::Closed;
    }
    Cut::Stream(error.reason().map_or(0, u32::from))
}
