//! Connections to the destinations of the gateway's own requests: kept, shared and bounded.
//!
//! What is asked and what an answer is good for is not decided here. Nobody is followed anywhere:
//! an answer is an answer, whatever its `Location` says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use portcullis_core::services::Fetch;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;
type Ask = Request<Full<Bytes>>;
type Sender1 = http1::SendRequest<Full<Bytes>>;
type Sender2 = http2::SendRequest<Full<Bytes>>;

/// Requests under way to one destination: connections of HTTP/1.1, streams of HTTP/2.
const AT_ONCE_MAX: usize = 100;
/// Requests that wait for one of those to end; a further one fails at once.
const WAITING_MAX: usize = 1000;
/// A connection that nobody needed for so long is closed.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);
/// How often the idle ones are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// For an HTTP/1.1 connection to become ready for another request after an answer.
const READY_MAX: Duration = Duration::from_millis(20);
/// How long a shared connection may say nothing, and then not answer a ping, while it is in use.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const HEAD_BYTES_MAX: u32 = 64 << 10;
const FIELDS_MAX: usize = 100;

/// An answer that is here as a whole.
pub(super) struct Answer {
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

#[derive(Debug)]
pub(super) struct Pool {
    roots: Arc<RootCertStore>,
    destinations: Mutex<HashMap<Place, Arc<Destination>>>,
}

/// What makes two requests fit for one connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    https: bool,
    host: String,
    port: u16,
    http2: bool,
    ca: Option<blake3::Hash>,
}

/// One place with its connections and, where it needs one, its TLS configuration, which also
/// remembers sessions to resume.
struct Destination {
    place: Place,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    turns: Semaphore,
    /// Counts whoever has a turn and whoever waits for one.
    room: Semaphore,
    state: Mutex<State>,
    /// Held while a shared connection is made, so that others wait for it instead of making theirs.
    shared: tokio::sync::Mutex<Option<Sender2>>,
}

struct State {
    /// The one used last is at the end and goes first.
    idle: Vec<(Sender1, Instant)>,
    used: Instant,
}

/// What a request under way occupies.
type Turn<'a> = (SemaphorePermit<'a>, SemaphorePermit<'a>);

impl Pool {
    pub(super) fn new(roots: Arc<RootCertStore>) -> Arc<Self> {
        Arc::new(Self { roots, destinations: Mutex::default() })
    }

    /// Closes what is idle for as long as the pool exists.
    pub(super) async fn keep_swept(pool: std::sync::Weak<Self>) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            match pool.upgrade() {
                Some(pool) => pool.sweep(Instant::now()),
                None => return,
            }
        }
    }

    pub(super) fn sweep(&self, now: Instant) {
        let old = |used: Instant| now.saturating_duration_since(used) >= IDLE_MAX;
        let mut destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        destinations.retain(|_, destination| {
            let mut state = destination.lock();
            state.idle.retain(|(sender, used)| !sender.is_closed() && !old(*used));
            !old(state.used) || destination.turns.available_permits() < AT_ONCE_MAX
        });
    }

    /// The answer to one request. How long it may take is for the caller to say.
    pub(super) async fn ask(&self, fetch: &Fetch) -> Result<Answer, Failure> {
        let uri: Uri = fetch.url.parse()?;
        let destination = self.destination(&uri, fetch)?;
        let ask = request(uri, fetch)?;
        let _turn = destination.turn().await?;
        match fetch.http2 {
            true => destination.ask_shared(ask, fetch.body_bytes_max).await,
            false => destination.ask_alone(ask, fetch.body_bytes_max).await,
        }
    }

    fn destination(&self, uri: &Uri, fetch: &Fetch) -> Result<Arc<Destination>, Failure> {
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("the URL is neither http nor https".into()),
        };
        let host = uri.host().ok_or("the URL has no host")?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let ca = fetch.ca.as_ref().filter(|_| https);
        let place =
            Place { https, host, port, http2: fetch.http2, ca: ca.map(|pem| blake3::hash(pem)) };
        let mut destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = destinations.get(&place) {
            found.lock().used = Instant::now();
            return Ok(Arc::clone(found));
        }
        let tls = match https {
            true => Some(self.tls(&place, ca.map(|pem| &**pem))?),
            false => None,
        };
        let new = Arc::new(Destination {
            place: place.clone(),
            tls,
            turns: Semaphore::new(AT_ONCE_MAX),
            room: Semaphore::new(AT_ONCE_MAX + WAITING_MAX),
            state: Mutex::new(State { idle: Vec::new(), used: Instant::now() }),
            shared: tokio::sync::Mutex::default(),
        });
        destinations.insert(place, Arc::clone(&new));
        Ok(new)
    }

    fn tls(
        &self,
        place: &Place,
        ca: Option<&[u8]>,
    ) -> Result<(TlsConnector, ServerName<'static>), Failure> {
        let roots = match ca {
            None => Arc::clone(&self.roots),
            Some(pem) => Arc::new(roots_of(pem)?),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Nothing else would do for whoever asks for HTTP/2, so nothing else is offered.
        let alpn: &[u8] = if place.http2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok((TlsConnector::from(Arc::new(config)), ServerName::try_from(place.host.clone())?))
    }
}

impl Destination {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self) -> Result<Turn<'_>, Failure> {
        let room = self.room.try_acquire().map_err(|_| "too many requests wait for it already")?;
        Ok((self.turns.acquire().await?, room))
    }

    /// By a connection that nobody else uses in the meantime.
    async fn ask_alone(&self, ask: Ask, max: usize) -> Result<Answer, Failure> {
        let mut ask = ask;
        if let Some(mut kept) = self.kept() {
            let again = ask.method().is_safe().then(|| ask.clone());
            match kept.try_send_request(ask).await {
                Ok(response) => return self.take(kept, response, max).await,
                Err(error) => ask = once_more(error, again)?,
            }
        }
        let mut sender = self.connect_alone().await?;
        let response = sender.send_request(ask).await?;
        self.take(sender, response, max).await
    }

    fn kept(&self) -> Option<Sender1> {
        let mut state = self.lock();
        while let Some((sender, _)) = state.idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    async fn take(
        &self,
        mut sender: Sender1,
        response: Response<Incoming>,
        max: usize,
    ) -> Result<Answer, Failure> {
        let answer = whole(response, max).await?;
        // Whoever answers before it has read the request is not waited for.
        if let Ok(Ok(())) = tokio::time::timeout(READY_MAX, sender.ready()).await {
            let now = Instant::now();
            self.lock().idle.push((sender, now));
        }
        Ok(answer)
    }

    /// By a stream of the connection that all share.
    async fn ask_shared(&self, ask: Ask, max: usize) -> Result<Answer, Failure> {
        let again = ask.method().is_safe().then(|| ask.clone());
        let (mut sender, new) = self.shared().await?;
        let response = match sender.try_send_request(ask).await {
            Ok(response) => response,
            Err(error) if new => return Err(error.into_error().into()),
            Err(error) => {
                let ask = once_more(error, again)?;
                self.shared().await?.0.send_request(ask).await?
            }
        };
        whole(response, max).await
    }

    /// The shared connection, and whether it was made just now.
    async fn shared(&self) -> Result<(Sender2, bool), Failure> {
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok((sender.clone(), false));
        }
        let sender = match self.dial().await? {
            (tcp, None) => shake_hands_2(tcp).await?,
            (tcp, Some((connector, name))) => {
                let tls = connector.connect(name, tcp).await?;
                if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err("the server does not speak HTTP/2".into());
                }
                shake_hands_2(tls).await?
            }
        };
        *shared = Some(sender.clone());
        Ok((sender, true))
    }

    async fn connect_alone(&self) -> Result<Sender1, Failure> {
        match self.dial().await? {
            (tcp, None) => shake_hands_1(tcp).await,
            (tcp, Some((connector, name))) => {
                shake_hands_1(connector.connect(name, tcp).await?).await
            }
        }
    }

    async fn dial(
        &self,
    ) -> Result<(TcpStream, Option<(TlsConnector, ServerName<'static>)>), Failure> {
        let tcp = TcpStream::connect((&*self.place.host, self.place.port)).await?;
        tcp.set_nodelay(true)?;
        Ok((tcp, self.tls.clone()))
    }
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.place.fmt(f)
    }
}

/// What may be sent again after a kept connection broke without a word: what was not sent at all,
/// or what does nothing however often it arrives.
fn once_more(mut error: TrySendError<Ask>, safe: Option<Ask>) -> Result<Ask, Failure> {
    let unsent = error.take_message();
    let error = error.into_error();
    match unsent.or(safe) {
        // What the server said would be said again.
        Some(ask) if !error.is_parse() => Ok(ask),
        _ => Err(error.into()),
    }
}

fn request(uri: Uri, fetch: &Fetch) -> Result<Ask, Failure> {
    let mut request = Request::builder().method(&fetch.method);
    if fetch.http2 {
        request = request.uri(uri);
    } else {
        if let Some(authority) = uri.authority() {
            request = request.header("host", authority.as_str());
        }
        request = request.uri(uri.path_and_query().map_or("/", |target| target.as_str()));
    }
    let said = |name: &str| fetch.fields.iter().any(|(said, _)| said.eq_ignore_ascii_case(name));
    for (name, value) in [("accept", "application/json"), ("user-agent", "portcullis")] {
        if !said(name) {
            request = request.header(name, value);
        }
    }
    for (name, value) in &fetch.fields {
        request = request.header(name, value);
    }
    Ok(request.body(Full::new(fetch.body.clone()))?)
}

async fn whole(response: Response<Incoming>, bytes_max: usize) -> Result<Answer, Failure> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, bytes_max).collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok(Answer { head, body: body.to_bytes(), trailers })
}

async fn shake_hands_1<T>(stream: T) -> Result<Sender1, Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_headers(FIELDS_MAX).max_buf_size(HEAD_BYTES_MAX as usize);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    // It ends with its sender. Its failure shows in the answer, which then does not come.
    tokio::spawn(connection);
    Ok(sender)
}

async fn shake_hands_2<T>(stream: T) -> Result<Sender2, Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX)
        .keep_alive_interval(SILENCE_MAX)
        .keep_alive_timeout(SILENCE_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn roots_of(pem: &[u8]) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?)?;
    }
    Ok(roots)
}
