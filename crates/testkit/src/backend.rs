//! A backend that follows a script, and remembers every byte.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::client::Cut;
use crate::pki::Pki;
use crate::wire::{Fields, Io, Wire, field};

/// A request as the backend got it.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// `GET /path HTTP/1.1`
    pub line: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Received {
    /// The first field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }
}

#[derive(Debug, Default)]
struct Record {
    connections: usize,
    requests: Vec<Received>,
}

type Shared = Arc<Mutex<Record>>;

fn lock(record: &Shared) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens until it is dropped; its connections end with it.
#[derive(Debug)]
pub struct Backend {
    /// Not of one that has a Unix socket.
    pub address: SocketAddr,
    url: String,
    record: Shared,
    task: AbortHandle,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, from the backend's side.
#[derive(Debug)]
pub struct Conversation {
    /// Counted from 0.
    pub number: usize,
    pub(crate) wire: Wire,
    record: Shared,
}

impl Conversation {
    /// The head of the next request; `None` when the gateway has closed.
    pub async fn head(&mut self) -> Option<Received> {
        let (line, fields) = self.wire.head().await.ok()?;
        Some(Received { connection: self.number, line, fields, ..Received::default() })
    }

    /// Reads the rest of a request and records it; `None` if it was cut off.
    pub async fn body(&mut self, mut request: Received) -> Option<Received> {
        let (body, trailers) = self.wire.body(&request.fields, false).await.ok()?;
        (request.body, request.trailers) = (body, trailers);
        lock(&self.record).requests.push(request.clone());
        Some(request)
    }

    /// The next request, whole.
    pub async fn request(&mut self) -> Option<Received> {
        let head = self.head().await?;
        self.body(head).await
    }

    /// Exactly these bytes, unless the gateway is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).await;
    }

    /// Ends its side in good order; through TLS with a `close_notify`.
    pub async fn shutdown(&mut self) {
        self.wire.shutdown().await;
    }

    /// What has arrived and was not read, without waiting for more.
    pub async fn arrived(&mut self) -> Vec<u8> {
        // A socket tells of what it has only after a turn of the runtime.
        for _ in 0..10 {
            tokio::task::yield_now().await;
            tokio::select! {
                biased;
                _ = self.wire.fill() => {}
                () = std::future::ready(()) => {}
            }
        }
        std::mem::take(&mut self.wire.buffer)
    }

    /// Reads until the gateway closes, and says how it ended.
    pub async fn until_closed(&mut self) -> Cut {
        loop {
            match self.wire.fill().await {
                Ok(true) => self.wire.buffer.clear(),
                Ok(false) => return Cut::Closed,
                Err(cut) => return cut,
            }
        }
    }
}

/// A response with a length.
#[must_use]
pub fn response(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

impl Backend {
    /// Runs `script` for each connection; a script that returns closes its connection.
    ///
    /// # Panics
    /// If the machine has no free port.
    pub async fn start<F>(script: impl Fn(Conversation) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(script, Listening::tcp().await, None)
    }

    /// The same through TLS, with the certificate of `pki`.
    ///
    /// # Panics
    /// If the machine has no free port.
    pub async fn start_tls<F>(
        pki: &Pki,
        script: impl Fn(Conversation) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_tls_with(pki.server(), script).await
    }

    /// The same with other settings.
    ///
    /// # Panics
    /// If the machine has no free port.
    pub async fn start_tls_with<F>(
        config: Arc<ServerConfig>,
        script: impl Fn(Conversation) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(script, Listening::tcp().await, Some(TlsAcceptor::from(config)))
    }

    /// The same on a Unix socket.
    ///
    /// # Panics
    /// If there cannot be one.
    #[must_use]
    pub fn start_unix<F>(
        path: &Path,
        script: impl Fn(Conversation) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = UnixListener::bind(path).unwrap();
        Self::listen(script, Listening::Unix(socket, path.display().to_string()), None)
    }

    fn listen<F>(
        script: impl Fn(Conversation) -> F + Send + Sync + 'static,
        listener: Listening,
        tls: Option<TlsAcceptor>,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (address, url) = listener.address();
        let record = Shared::default();
        let inside = Arc::clone(&record);
        let script = Arc::new(script);
        let task = tokio::spawn(async move {
            let mut conversations = JoinSet::new();
            loop {
                let Ok(io) = listener.accept().await else { continue };
                let number = {
                    let mut record = lock(&inside);
                    record.connections += 1;
                    record.connections - 1
                };
                let (record, script, tls) = (Arc::clone(&inside), Arc::clone(&script), tls.clone());
                conversations.spawn(async move {
                    if let Some(wire) = wire(io, tls).await {
                        script(Conversation { number, wire, record }).await;
                    }
                });
            }
        });
        Self { address, url, record, task: task.abort_handle() }
    }

    /// Answers each request with exactly these bytes, and keeps its connections.
    pub async fn always(answer: impl AsRef<[u8]>) -> Self {
        let answer: Arc<[u8]> = answer.as_ref().into();
        Self::start(move |mut conversation| {
            let answer = Arc::clone(&answer);
            async move {
                while conversation.request().await.is_some() {
                    conversation.send(&answer).await;
                }
            }
        })
        .await
    }

    /// Answers with the request's own body, and its trailers where it had any.
    pub async fn echo() -> Self {
        Self::start(|mut conversation| async move {
            while let Some(request) = conversation.request().await {
                conversation.send(echo(&request)).await;
            }
        })
        .await
    }

    /// `http://127.0.0.1:PORT` or `unix:PATH`
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// All requests that came whole, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.record).requests.clone()
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.record).connections
    }

    /// The last request.
    ///
    /// # Panics
    /// If there was none.
    #[must_use]
    pub fn last(&self) -> Received {
        lock(&self.record).requests.last().cloned().expect("a request has arrived")
    }
}

async fn wire(io: Box<dyn Io>, tls: Option<TlsAcceptor>) -> Option<Wire> {
    match tls {
        None => Some(Wire::new(io)),
        Some(acceptor) => acceptor.accept(io).await.ok().map(Wire::new),
    }
}

/// Where a backend is, and for a Unix socket its path.
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener, String),
}

impl Listening {
    async fn tcp() -> Self {
        Self::Tcp(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn address(&self) -> (SocketAddr, String) {
        match self {
            Self::Tcp(tcp) => {
                let address = tcp.local_addr().unwrap();
                (address, format!("http://{address}"))
            }
            Self::Unix(_, path) => (([0, 0, 0, 0], 0).into(), format!("unix:{path}")),
        }
    }

    async fn accept(&self) -> std::io::Result<Box<dyn Io>> {
        Ok(match self {
            Self::Tcp(tcp) => {
                let (tcp, _) = tcp.accept().await?;
                drop(tcp.set_nodelay(true));
                Box::new(tcp)
            }
            Self::Unix(unix, _) => Box::new(unix.accept().await?.0),
        })
    }
}

fn echo(request: &Received) -> Vec<u8> {
    let body = &request.body;
    if request.trailers.is_empty() {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        return [head.as_bytes(), body].concat();
    }
    let trailers: Fields = request.trailers.clone();
    let trailers: String = trailers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len());
    [head.as_bytes(), body, b"\r\n0\r\n", trailers.as_bytes(), b"\r\n"].concat()
}
