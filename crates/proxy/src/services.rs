//! The policies' door to the world, as a worker opens it.

use std::sync::Arc;

use portcullis_core::Now;
use portcullis_core::limit::{Grantor, LimitKey, LimitSpec};
use portcullis_core::services::{
    Fetch, Fetched, Fetcher, Lease, LocalFuture, Services, Unavailable,
};
use tokio::sync::Semaphore;

use crate::clock::Clock;

/// Jobs offloaded at once, over all workers. More wait their turn.
const JOBS_MAX: usize = 64;

/// What workers share of the world.
#[derive(Clone, Debug)]
pub struct World {
    clock: Clock,
    fetcher: Arc<dyn Fetcher>,
    grantor: Arc<dyn Grantor>,
    jobs: Arc<Semaphore>,
}

impl World {
    #[must_use]
    pub fn new(clock: Clock, fetcher: Arc<dyn Fetcher>, grantor: Arc<dyn Grantor>) -> Self {
        Self { clock, fetcher, grantor, jobs: Arc::new(Semaphore::new(JOBS_MAX)) }
    }

    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl Services for World {
    fn now(&self) -> Now {
        self.clock.now()
    }

    fn random(&self, into: &mut [u8]) {
        fill_random(into);
    }

    fn fetch(&self, fetch: Fetch) -> LocalFuture<'_, Result<Fetched, Unavailable>> {
        self.fetcher.fetch(fetch)
    }

    fn lease<'a>(&'a self, key: LimitKey, spec: &'a LimitSpec, want: u32) -> Lease<'a> {
        let now = Now { mono: self.clock.mono(), ..Now::default() };
        Lease::Ready(self.grantor.take(now, key, spec, want))
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> LocalFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            let closed = |_| Unavailable("the gateway is shutting down".to_owned());
            let _permit = self.jobs.acquire().await.map_err(closed)?;
            let failed = |_| Unavailable("an offloaded job failed".to_owned());
            tokio::task::spawn_blocking(job).await.map_err(failed)
        })
    }
}

/// Bytes that nobody can predict, from the cryptographic provider.
///
/// # Panics
/// Without a source of randomness nothing here is safe.
pub fn fill_random(into: &mut [u8]) {
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(into).expect("the system's source of randomness");
}
