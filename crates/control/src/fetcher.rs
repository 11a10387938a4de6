//! The gateway's own HTTP requests: keys, discovery. On control's runtime, never on a worker.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use portcullis_core::services::{Fetch, FetchFuture, Fetched, Fetcher, Unavailable};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// Asks by HTTP/1.1, one connection a request: such requests are rare.
#[derive(Clone, Debug)]
pub struct HttpFetcher {
    runtime: Handle,
    roots: Arc<RootCertStore>,
    /// Where last good answers are kept.
    state: Option<PathBuf>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl HttpFetcher {
    /// `state` is a directory for last good answers, made if needed.
    #[must_use]
    pub fn new(runtime: Handle, roots: Arc<RootCertStore>, state: Option<PathBuf>) -> Self {
        Self { runtime, roots, state }
    }

    async fn fetch(self, fetch: Fetch) -> Result<Fetched, Unavailable> {
        let url = fetch.url.clone();
        let kept = self.kept(&fetch);
        let asked = tokio::time::timeout(fetch.timeout, self.ask(fetch)).await;
        let reason = match asked {
            Ok(Ok(fetched)) => {
                if let (Some(path), StatusCode::OK) = (&kept, fetched.status) {
                    keep(path, &fetched.body);
                }
                if fetched.status != StatusCode::OK && kept.is_some() {
                    format!("status {}", fetched.status.as_u16())
                } else {
                    return Ok(fetched);
                }
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if let Some(body) = kept.and_then(|path| std::fs::read(path).ok()) {
            tracing::warn!(url, reason, "the last good answer is used");
            let (status, content_type) = (StatusCode::OK, None);
            return Ok(Fetched { status, content_type, body: body.into(), stale: true });
        }
        Err(Unavailable(format!("{url}: {reason}")))
    }

    async fn ask(&self, fetch: Fetch) -> Result<Fetched, Failure> {
        let uri: Uri = fetch.url.parse()?;
        let host = uri.host().ok_or("the URL has no host")?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("the URL is neither http nor https".into()),
        };
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let name = host.trim_matches(['[', ']']);
        let tcp = TcpStream::connect((name, port)).await?;
        if !https {
            return send(tcp, &uri, fetch).await;
        }
        let roots = match &fetch.ca {
            None => Arc::clone(&self.roots),
            Some(pem) => Arc::new(roots_of(pem)?),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned())?;
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        send(tls, &uri, fetch).await
    }

    fn kept(&self, fetch: &Fetch) -> Option<PathBuf> {
        let state = self.state.as_ref().filter(|_| fetch.keep_last_good)?;
        Some(state.join(blake3::hash(fetch.url.as_bytes()).to_hex().as_str()))
    }
}

impl Fetcher for HttpFetcher {
    fn fetch(&self, fetch: Fetch) -> FetchFuture {
        let task = self.runtime.spawn(self.clone().fetch(fetch));
        Box::pin(async move {
            task.await.unwrap_or_else(|_| Err(Unavailable("the gateway is shutting down".into())))
        })
    }
}

fn roots_of(pem: &[u8]) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

async fn send<T>(stream: T, uri: &Uri, fetch: Fetch) -> Result<Fetched, Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its failure shows in the answer, which then does not come.
    let driver = tokio::spawn(connection);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder().method(fetch.method).uri(target);
    if let Some(authority) = uri.authority() {
        request = request.header("host", authority.as_str());
    }
    request = request.header("accept", "application/json").header("user-agent", "portcullis");
    for (name, value) in &fetch.fields {
        request = request.header(name, value);
    }
    let response = sender.send_request(request.body(Full::new(fetch.body))?).await?;
    let status = response.status();
    let content_type = response.headers().get("content-type");
    let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body: Bytes =
        Limited::new(response.into_body(), fetch.body_bytes_max).collect().await?.to_bytes();
    driver.abort();
    Ok(Fetched { status, content_type, body, stale: false })
}

/// By rename, so that nobody ever reads half of it.
fn keep(path: &std::path::Path, body: &[u8]) {
    let temporary = path.with_extension("new");
    let kept = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(&temporary, body))
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = kept {
        tracing::warn!(path = %path.display(), %error, "cannot keep the last good answer");
    }
}
