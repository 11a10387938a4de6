//! A backend that speaks HTTP/2: each stream follows a script.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::pki::Pki;
use crate::wire::Io;

/// How it behaves beside its script.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`.
    pub streams_max: Option<u32>,
    /// `SETTINGS_ENABLE_CONNECT_PROTOCOL` (RFC 8441).
    pub connect: bool,
}

/// Listens until it is dropped; its connections end with it.
#[derive(Debug)]
pub struct H2Backend {
    pub address: SocketAddr,
    scheme: &'static str,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

impl Drop for H2Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request's head as the backend got it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    pub method: String,
    pub uri: String,
    pub fields: HeaderMap,
}

/// One stream, from the backend's side.
#[derive(Debug)]
pub struct Stream {
    /// Which connection it is of, counted from 0.
    pub connection: usize,
    pub request: Request<()>,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
    goodbye: mpsc::Sender<Reason>,
}

impl Stream {
    /// The whole body and the trailers; `None` if it was cut off.
    pub async fn whole(&mut self) -> Option<(Vec<u8>, Option<HeaderMap>)> {
        let mut whole = Vec::new();
        while let Some(data) = self.body.data().await {
            let data = data.ok()?;
            drop(self.body.flow_control().release_capacity(data.len()));
            whole.extend_from_slice(&data);
        }
        Some((whole, self.body.trailers().await.ok()?))
    }

    /// Sends a head that is not the end.
    ///
    /// # Panics
    /// If the stream is gone.
    pub fn head(&mut self, status: u16, fields: &[(&str, &str)]) -> SendStream<Bytes> {
        self.respond.send_response(response(status, fields), false).unwrap()
    }

    /// A whole answer.
    pub fn answer(&mut self, status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) {
        if let Ok(mut send) = self.respond.send_response(response(status, fields), false) {
            drop(send.send_data(body.into(), true));
        }
    }

    /// A 1xx.
    pub fn interim(&mut self, status: u16, fields: &[(&str, &str)]) {
        drop(self.respond.send_informational(response(status, fields)));
    }

    /// Says that the connection takes no more streams; `NO_ERROR` lets those under way end.
    pub fn go_away(&self, reason: Reason) {
        // The connection may be gone already.
        let _told = self.goodbye.try_send(reason);
    }
}

fn response(status: u16, fields: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = map(fields);
    response
}

/// Fields as a map.
///
/// # Panics
/// If one cannot be sent.
#[must_use]
pub fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    fields.iter().map(pair).collect()
}

impl H2Backend {
    /// In clear text, by prior knowledge. Runs `script` for each stream.
    ///
    /// # Panics
    /// If the machine has no free port.
    pub async fn start<F>(
        manner: Manner,
        script: impl Fn(Stream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(manner, None, script).await
    }

    /// By ALPN, with the certificate of `pki`.
    ///
    /// # Panics
    /// If the machine has no free port.
    pub async fn start_tls<F>(
        pki: &Pki,
        manner: Manner,
        script: impl Fn(Stream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut config = rustls::ServerConfig::clone(&pki.server());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::listen(manner, Some(TlsAcceptor::from(Arc::new(config))), script).await
    }

    /// Answers with the request's own body, and its trailers where it had any.
    pub async fn echo() -> Self {
        Self::start(Manner::default(), |mut stream| async move {
            let Some((body, trailers)) = stream.whole().await else { return };
            let mut send = stream.head(200, &[]);
            let ends = trailers.is_none();
            drop(send.send_data(body.into(), ends));
            if let Some(trailers) = trailers {
                drop(send.send_trailers(trailers));
            }
        })
        .await
    }

    async fn listen<F>(
        manner: Manner,
        tls: Option<TlsAcceptor>,
        script: impl Fn(Stream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (script, count, record) =
            (Arc::new(script), Arc::clone(&connections), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let mut running = JoinSet::new();
            loop {
                let Ok((tcp, _)) = listener.accept().await else { continue };
                let number = count.fetch_add(1, SeqCst);
                let (script, seen, tls) = (Arc::clone(&script), Arc::clone(&record), tls.clone());
                running.spawn(async move {
                    if let Some(io) = io(tcp, tls).await {
                        connection(io, number, manner, &seen, &*script).await;
                    }
                });
            }
        });
        Self { address, scheme, connections, seen, task: task.abort_handle() }
    }

    /// `http://127.0.0.1:PORT` or `https://…`
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// The heads of all requests, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn io(tcp: TcpStream, tls: Option<TlsAcceptor>) -> Option<Box<dyn Io>> {
    drop(tcp.set_nodelay(true));
    match tls {
        None => Some(Box::new(tcp)),
        Some(acceptor) => acceptor.accept(tcp).await.ok().map(|tls| Box::new(tls) as Box<dyn Io>),
    }
}

async fn connection<F>(
    io: Box<dyn Io>,
    number: usize,
    manner: Manner,
    seen: &Mutex<Vec<Seen>>,
    script: &(impl Fn(Stream) -> F + Send + Sync),
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    // A script reads when it likes, however small the pieces are.
    builder.data_frame_budget(1 << 20);
    if let Some(max) = manner.streams_max {
        builder.max_concurrent_streams(max);
    }
    if manner.connect {
        builder.enable_connect_protocol();
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    let (goodbye, mut leaving) = mpsc::channel(8);
    let mut running = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            Some(reason) = leaving.recv() => {
                match reason {
                    Reason::NO_ERROR => connection.graceful_shutdown(),
                    reason => connection.abrupt_shutdown(reason),
                }
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let (parts, body) = request.into_parts();
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
            connection: number,
            method: parts.method.to_string(),
            uri: parts.uri.to_string(),
            fields: parts.headers.clone(),
        });
        let request = Request::from_parts(parts, ());
        let goodbye = goodbye.clone();
        running.spawn(script(Stream { connection: number, request, body, respond, goodbye }));
    }
}
