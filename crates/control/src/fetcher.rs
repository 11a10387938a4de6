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
        let (kept, good) = (self.kept(&fetch), fetch.keep_last_good);
        let asked = tokio::time::timeout(fetch.timeout, self.ask(fetch)).await;
        let (reason, fetched) = match (asked, &kept) {
            (Ok(Ok(fetched)), None) => return Ok(fetched),
            (Ok(Ok(fetched)), Some(_)) if fetched.status != StatusCode::OK => {
                (format!("status {}", fetched.status.as_u16()), None)
            }
            (Ok(Ok(fetched)), Some(path)) => {
                if good.is_none_or(|good| good(&fetched.body)) {
                    keep(path, &fetched.body);
                    return Ok(fetched);
                }
                ("the answer is of no use".to_owned(), Some(fetched))
            }
            (Ok(Err(error)), _) => (error.to_string(), None),
            (Err(_), _) => ("no answer in time".to_owned(), None),
        };
        if let Some(body) = kept.and_then(|path| std::fs::read(path).ok()) {
            tracing::warn!(url, reason, "the last good answer is used");
            return Ok(Fetched {
                status: StatusCode::OK,
                content_type: None,
                fields: Vec::new(),
                body: body.into(),
                stale: true,
            });
        }
        // Who asked can say best why it is of no use.
        fetched.ok_or_else(|| Unavailable(format!("{url}: {reason}")))
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
        let state = self.state.as_ref().filter(|_| fetch.keep_last_good.is_some())?;
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
    let fields = response.headers().iter();
    let fields = fields.map(|(name, value)| (name.as_str().into(), value.as_bytes().into()));
    let fields = fields.collect();
    let body: Bytes =
        Limited::new(response.into_body(), fetch.body_bytes_max).collect().await?.to_bytes();
    driver.abort();
    Ok(Fetched { status, content_type, fields, body, stale: false })
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every request with what is in `answer` then; `""` never answers.
    struct Server {
        url: String,
        answer: Arc<Mutex<String>>,
    }

    impl Server {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/keys", listener.local_addr().unwrap());
            let answer = Arc::new(Mutex::new(String::new()));
            let inside = Arc::clone(&answer);
            tokio::spawn(async move {
                loop {
                    let (mut tcp, _) = listener.accept().await.unwrap();
                    let answer = inside.lock().unwrap().clone();
                    tokio::spawn(async move {
                        let _some = tcp.read(&mut [0; 4096]).await;
                        if answer.is_empty() {
                            return std::future::pending().await;
                        }
                        // Whoever has enough of it goes away.
                        let _all = tcp.write_all(answer.as_bytes()).await;
                    });
                }
            });
            Self { url, answer }
        }

        fn says(&self, head: &str, body: &str) {
            let length = body.len();
            *self.answer.lock().unwrap() =
                format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    }

    fn fetcher(state: Option<PathBuf>) -> HttpFetcher {
        HttpFetcher::new(Handle::current(), Arc::new(RootCertStore::empty()), state)
    }

    fn shown(result: Result<Fetched, Unavailable>, url: &str) -> String {
        match result {
            Ok(fetched) => {
                let body = String::from_utf8_lossy(&fetched.body).into_owned();
                let stale = if fetched.stale { "stale " } else { "" };
                format!("{stale}{} {body}", fetched.status.as_u16())
            }
            Err(Unavailable(reason)) => reason.replace(url, "URL"),
        }
    }

    #[tokio::test]
    async fn an_answer_is_taken_whole_from_where_it_was_asked_for_or_not_at_all() {
        let server = Server::start().await;
        let ask = async |fetch| shown(fetcher(None).fetch(fetch).await, &server.url);
        let get = || Fetch::get(&server.url);
        server.says("200 OK", "keys");
        assert_eq!(ask(get()).await, "200 keys");
        // Nobody is followed anywhere.
        for to in ["file:///etc/passwd", "http://169.254.169.254/", "/other"] {
            server.says(&format!("302 Found\r\nLocation: {to}"), "");
            assert_eq!(ask(get()).await, "302 ");
        }
        let most = get().body_bytes_max;
        server.says("200 OK", &"x".repeat(most));
        assert_eq!(ask(get()).await.len(), most + 4);
        server.says("200 OK", &"x".repeat(most + 1));
        assert_eq!(ask(get()).await, "URL: length limit exceeded");
        server.answer.lock().unwrap().clear();
        let fetch = Fetch { timeout: std::time::Duration::from_millis(1), ..get() };
        assert_eq!(ask(fetch).await, "URL: no answer in time");
        for url in ["file:///etc/passwd", "ftp://127.0.0.1/", "keys"] {
            assert!(fetcher(None).fetch(Fetch::get(url)).await.is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn only_a_good_answer_takes_the_last_good_ones_place() {
        let (server, state) = (Server::start().await, tempfile::tempdir().unwrap());
        let fetcher = fetcher(Some(state.path().join("kept")));
        let good: fn(&[u8]) -> bool = |body| body.starts_with(b"good");
        let ask = async || {
            let fetch = Fetch { keep_last_good: Some(good), ..Fetch::get(&server.url) };
            shown(fetcher.clone().fetch(fetch).await, &server.url)
        };
        server.says("200 OK", "<html>");
        assert_eq!(ask().await, "200 <html>", "there is nothing better");
        server.says("500 Oops", "");
        assert_eq!(ask().await, "URL: status 500");
        for body in ["good 1", "good 2"] {
            server.says("200 OK", body);
            assert_eq!(ask().await, format!("200 {body}"));
        }
        for (head, body) in [("200 OK", "<html>"), ("200 OK", ""), ("500 Oops", "good 3")] {
            server.says(head, body);
            assert_eq!(ask().await, "stale 200 good 2", "{head} {body}");
        }
    }
}
