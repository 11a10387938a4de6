//! The gateway's own HTTP requests: keys, tokens, permissions. Never on a worker.

mod pool;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use portcullis_core::services::{Fetch, FetchFuture, Fetched, Fetcher, Unavailable};
use rustls::RootCertStore;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use pool::{Answer, Failure, Pool};

/// Asks over connections that it keeps for a while. It follows no redirect.
#[derive(Clone, Debug)]
pub struct HttpFetcher {
    runtime: Handle,
    pool: Arc<Pool>,
    /// Where last good answers are kept.
    state: Option<PathBuf>,
    /// Ends the thread of its own when the last of it is gone.
    _alive: Option<Arc<oneshot::Sender<()>>>,
}

impl HttpFetcher {
    /// `state` is a directory for last good answers, made if needed.
    #[must_use]
    pub fn new(runtime: Handle, roots: Arc<RootCertStore>, state: Option<PathBuf>) -> Self {
        let pool = Pool::new(roots);
        runtime.spawn(Pool::keep_swept(Arc::downgrade(&pool)));
        Self { runtime, pool, state, _alive: None }
    }

    /// On a thread of its own: requests of clients may wait for it, so that nothing else that takes
    /// long, such as a reload, may hold it up.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(roots: Arc<RootCertStore>, state: Option<PathBuf>) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, gone) = oneshot::channel();
        let thread = std::thread::Builder::new().name("fetcher".to_owned());
        thread.spawn(move || drop(runtime.block_on(gone)))?;
        Ok(Self { _alive: Some(Arc::new(alive)), ..Self::new(handle, roots, state) })
    }

    async fn good_answer(self, fetch: Fetch) -> Result<Fetched, Unavailable> {
        let url = fetch.url.clone();
        let (kept, good) = (self.kept(&fetch), fetch.keep_last_good);
        let asked = tokio::time::timeout(fetch.timeout, self.ask(fetch)).await;
        let (reason, fetched) = match (asked, &kept) {
            (Ok(Ok(fetched)), None) => return Ok(fetched),
            (Ok(Ok(fetched)), Some(_)) if fetched.status != StatusCode::OK => {
                (format!("status {}", fetched.status.as_u16()), Some(fetched))
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
        if let Some((body, age)) = kept.and_then(|path| from_before(&path)) {
            tracing::warn!(url, reason, "the last good answer is used");
            let age = age.map(|age| ("age".into(), age.as_secs().to_string().into_bytes().into()));
            return Ok(Fetched {
                status: StatusCode::OK,
                content_type: None,
                fields: age.into_iter().collect(),
                body: body.into(),
                stale: true,
            });
        }
        // Who asked can say best why it is of no use.
        fetched.ok_or_else(|| Unavailable(format!("{url}: {reason}")))
    }

    async fn ask(&self, fetch: Fetch) -> Result<Fetched, Failure> {
        let Answer { head, body, trailers } = self.pool.ask(&fetch).await?;
        let content_type = head.headers.get("content-type");
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let fields = head.headers.iter().chain(&trailers);
        let fields = fields.map(|(name, value)| (name.as_str().into(), value.as_bytes().into()));
        let fields = fields.collect();
        Ok(Fetched { status: head.status, content_type, fields, body, stale: false })
    }

    fn kept(&self, fetch: &Fetch) -> Option<PathBuf> {
        let state = self.state.as_ref().filter(|_| fetch.keep_last_good.is_some())?;
        Some(state.join(blake3::hash(fetch.url.as_bytes()).to_hex().as_str()))
    }
}

impl Fetcher for HttpFetcher {
    fn fetch(&self, fetch: Fetch) -> FetchFuture {
        let mut task = Task(self.runtime.spawn(self.clone().good_answer(fetch)));
        Box::pin(async move {
            let shut = |_| Err(Unavailable("the gateway is shutting down".to_owned()));
            (&mut task.0).await.unwrap_or_else(shut)
        })
    }
}

/// Ends when whoever waits for it has gone.
struct Task(JoinHandle<Result<Fetched, Unavailable>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What was kept, and for how long. It is written again with each good answer.
fn from_before(path: &Path) -> Option<(Vec<u8>, Option<Duration>)> {
    let body = std::fs::read(path).ok()?;
    let written = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    Some((body, written.ok().and_then(|written| written.elapsed().ok())))
}

/// By rename, so that nobody ever reads half of it.
fn keep(path: &Path, body: &[u8]) {
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
