//! The only door from a policy to the world.
//!
//! The proxy implements it over the network, tests script it, and the offline commands answer
//! `Unavailable`. Futures are local to a worker and never `Send`.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::limit::{Grant, LimitKey, LimitSpec};
use crate::now::Now;

pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What could not be had, for the operator: `keys of idp: connect refused`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// A request of the gateway's own: keys, introspection. Never on behalf of a client's URL.
#[derive(Clone, Debug)]
pub struct Fetch {
    pub method: Method,
    /// Absolute `http://` or `https://` URL, from the configuration or a configured issuer.
    pub url: String,
    pub fields: Vec<(String, String)>,
    pub body: Bytes,
    /// Until the whole answer is here.
    pub timeout: Duration,
    /// HTTP/2 and nothing else: by prior knowledge where the URL is `http://`, by ALPN where it is
    /// `https://`. Otherwise HTTP/1.1.
    pub http2: bool,
    /// A longer answer is an error.
    pub body_bytes_max: usize,
    /// PEM of the authorities to trust instead of the system's.
    pub ca: Option<Arc<[u8]>>,
    /// Keep the last answer that this calls good on disk, and give it when there is no good one.
    pub keep_last_good: Option<fn(&[u8]) -> bool>,
}

impl Fetch {
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            fields: Vec::new(),
            body: Bytes::new(),
            timeout: Duration::from_secs(5),
            http2: false,
            body_bytes_max: 1 << 20,
            ca: None,
            keep_last_good: None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Fetched {
    pub status: StatusCode,
    pub content_type: Option<String>,
    /// Names in lower case; trailers after the fields of the head.
    pub fields: Vec<(Box<str>, Box<[u8]>)>,
    pub body: Bytes,
    /// From the disk, because the destination gave no good answer. The field `age` then says for
    /// how many seconds it has been there (RFC 9111 §5.1).
    pub stale: bool,
}

/// The answer of [`Services::lease`]: at once where the count is kept in this process.
#[expect(missing_debug_implementations, reason = "a future has nothing to show")]
pub enum Lease<'a> {
    Ready(Grant),
    Wait(LocalFuture<'a, Result<Grant, Unavailable>>),
}

/// Who makes the gateway's own requests, away from the workers.
pub trait Fetcher: std::fmt::Debug + Send + Sync {
    fn fetch(&self, fetch: Fetch) -> FetchFuture;
}

pub type FetchFuture = Pin<Box<dyn Future<Output = Result<Fetched, Unavailable>> + Send>>;

pub trait Services {
    fn now(&self) -> Now;

    /// Whether requests are only thought of, and go to no backend: `explain`, `check`. What dresses
    /// them for one need not be had then.
    fn is_offline(&self) -> bool {
        false
    }

    /// Fills `into` with unpredictable bytes.
    fn random(&self, into: &mut [u8]);

    fn fetch(&self, fetch: Fetch) -> LocalFuture<'_, Result<Fetched, Unavailable>>;

    /// Asks for `want` of a limit. In a dry run nothing is counted.
    fn lease<'a>(&'a self, key: LimitKey, spec: &'a LimitSpec, want: u32) -> Lease<'a>;

    /// Runs work that would hold up the worker's other requests on a bounded pool.
    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> LocalFuture<'_, Result<(), Unavailable>>;
}

/// [`Services::offload`] with a result.
pub async fn offload<T: Send + Sync + 'static>(
    services: &dyn Services,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unavailable> {
    let slot = Arc::new(OnceLock::new());
    let inside = Arc::clone(&slot);
    services
        .offload(Box::new(move || {
            inside.get_or_init(job);
        }))
        .await?;
    let result = Arc::into_inner(slot).and_then(OnceLock::into_inner);
    result.ok_or_else(|| Unavailable("the job ended without a result".to_owned()))
}

/// The world of the offline commands: nothing can be fetched, limits never refuse.
#[derive(Debug, Default)]
pub struct Offline {
    pub now: Now,
    /// Makes `random` deterministic.
    pub seed: Rc<Cell<u64>>,
}

impl Services for Offline {
    fn now(&self) -> Now {
        self.now
    }

    fn is_offline(&self) -> bool {
        true
    }

    fn random(&self, into: &mut [u8]) {
        for byte in into {
            let next = self
                .seed
                .get()
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            self.seed.set(next);
            *byte = (next >> 56) as u8;
        }
    }

    fn fetch(&self, fetch: Fetch) -> LocalFuture<'_, Result<Fetched, Unavailable>> {
        Box::pin(async move { Err(Unavailable(format!("{} is not asked offline", fetch.url))) })
    }

    fn lease<'a>(&'a self, _: LimitKey, spec: &'a LimitSpec, want: u32) -> Lease<'a> {
        Lease::Ready(Grant { granted: want, remaining: spec.count, ..Grant::default() })
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> LocalFuture<'_, Result<(), Unavailable>> {
        job();
        Box::pin(async { Ok(()) })
    }
}
