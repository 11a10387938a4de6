//! A gateway that does its real job in this process: HTTP/1.1 in clear text both ways, a token to
//! verify, a limit for each client, trace context, the access log and the metrics.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use portcullis_control::Loader;
use portcullis_core::carry::Carry;
use portcullis_core::services::{Fetch, FetchFuture, Fetcher, Unavailable};
use portcullis_policies::grantor::Embedded;
use portcullis_proxy::{Clock, Gateway, Options, World};
use portcullis_telemetry::log::{Log, Target};
use portcullis_telemetry::metrics::Registry;
use rustls::RootCertStore;
use tempfile::TempDir;

use crate::issuer;
use crate::outside::{HOST, Outside};

const KEYS_MAX: usize = 10_000;

fn config(backend: SocketAddr) -> String {
    format!(
        r#"
listeners: {{ plain: {{ bind: "127.0.0.1:0" }} }}
auth:
  idp: {{ jwt: {{ issuer: "{}", audience: [{}], jwks: "file:jwks.json" }} }}
routes:
  orders: {{ match: {HOST}/orders/**, auth: idp, limits: ["100000000/s per client"], to: orders }}
backends:
  orders: {{ endpoints: ["http://{backend}"], idle_timeout: 1h }}
"#,
        issuer::NAME,
        issuer::AUDIENCE
    )
}

/// The gateway, its clients and its backend. The first requests have been answered, so that the
/// token is remembered and the connections are open.
#[derive(Debug)]
pub struct RealJob {
    outside: Outside,
    _gateway: Gateway,
    _folder: TempDir,
}

impl RealJob {
    /// # Errors
    /// It does not start, or a request is not answered with success.
    pub fn start(clock: Clock, clients: u64, warm_up: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("jwks.json"), issuer::KEY_SET)?;
        let mut outside = Outside::start()?;
        let path = folder.path().join("gateway.yaml");
        fs::write(&path, config(outside.backend()))?;
        let gateway = start(&path, clock)?;
        let address = gateway.address("plain").context("no listener")?;
        outside.connect(
            address,
            &format!("Authorization: Bearer {}", issuer::TOKEN.trim_end()),
            clients,
        )?;
        outside.exchange(warm_up)?;
        Ok(Self { outside, _gateway: gateway, _folder: folder })
    }

    /// Returns when so many requests more have been answered.
    ///
    /// # Errors
    /// One was not, or not with success.
    pub fn exchange(&mut self, requests: u64) -> anyhow::Result<()> {
        self.outside.exchange(requests)
    }
}

/// One worker, as `portcullis run` starts it.
fn start(path: &Path, clock: Clock) -> anyhow::Result<Gateway> {
    let roots = Arc::new(RootCertStore::empty());
    let loader = Loader::new(path, portcullis_policies::registry(), roots, 1);
    let attempt = loader.load(&Carry::default(), clock.now());
    let snapshot = attempt.snapshot.with_context(|| format!("{:?}", attempt.findings))?;
    let grantor = Arc::new(Embedded::seeded(KEYS_MAX, [1, 2]));
    let options = Options {
        workers: 1,
        world: World::new(clock, Arc::new(Nobody), grantor),
        registry: Arc::new(Registry::new(1)),
        recent_bytes_max: 4 << 20,
        log: Some(Log::start(Target::File(path.with_file_name("access.log")))?),
    };
    Ok(Gateway::start(options, snapshot)?)
}

/// There is nothing to fetch: the keys are in a file.
#[derive(Debug)]
struct Nobody;

impl Fetcher for Nobody {
    fn fetch(&self, fetch: Fetch) -> FetchFuture {
        Box::pin(async move { Err(Unavailable(fetch.url)) })
    }
}
