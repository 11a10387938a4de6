//! A gateway in this process, from a configuration's text.

use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_config::{Source, load, render};
use portcullis_core::carry::Carry;
use portcullis_core::finding::Findings;
use portcullis_core::services::Fetcher;
use portcullis_policies::grantor::Embedded;
use portcullis_proxy::{Clock, Gateway, Options, World};
use portcullis_snapshot::{CompileContext, Snapshot, compile};
use portcullis_telemetry::log::{Log, Target};
use portcullis_telemetry::metrics::{Exposition, Registry};
use rustls::RootCertStore;

use crate::client::{Client, Cut, Protocol, Request};
use crate::fetcher::Scripted;
use crate::pki::{Files, Pki};
use crate::policies::registry;
use crate::{event, until};

/// The middle of 2026, where manual clocks begin.
pub const WALL: Duration = Duration::from_secs(1_782_000_000);

/// In front of every configuration that has no listeners of its own.
const LISTENERS: &str = r#"
listeners:
  plain: { bind: "127.0.0.1:0" }
  tls:
    bind: "127.0.0.1:0"
    tls: { certificates: [{ cert: "file:cert.pem", key: "file:key.pem" }] }
"#;

const DEFAULTS: &str = "defaults: { on: [plain, tls] }\n";

/// Answers without a backend, so that a test can tell how far a worker has got.
const PING: &str = r#"
groups:
  testkit:
    routes:
      ping: { match: /testkit/ping, public: "tells how far a worker has got", priority: critical, respond: { status: 204 } }
"#;

/// How a test's gateway is to be.
#[derive(Debug)]
pub struct Setup {
    text: String,
    workers: usize,
    clock: Clock,
    pki: Pki,
    files: Vec<(String, String)>,
    logs: bool,
    fetcher: Option<Arc<dyn Fetcher>>,
}

impl Setup {
    /// A configuration with or without `listeners` and `defaults`. Without, it has `plain` and
    /// `tls`, and every route is on both. One worker, and a clock that stands still.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            workers: 1,
            clock: Clock::manual(WALL),
            pki: Pki::new(),
            files: Vec::new(),
            logs: true,
            fetcher: None,
        }
    }

    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// With the time of this machine, for tests of many events rather than of moments.
    #[must_use]
    pub fn real_clock(self) -> Self {
        Self { clock: Clock::real(), ..self }
    }

    /// With a clock that stands still at another moment, since 1970: that of somebody else's
    /// tokens.
    #[must_use]
    pub fn at(self, wall: Duration) -> Self {
        Self { clock: Clock::manual(wall), ..self }
    }

    /// One that the test has made already, for backends with TLS.
    #[must_use]
    pub fn pki(self, pki: &Pki) -> Self {
        Self { pki: pki.clone(), ..self }
    }

    /// With one that really asks, instead of the scripted one.
    #[must_use]
    pub fn fetcher(self, fetcher: Arc<dyn Fetcher>) -> Self {
        Self { fetcher: Some(fetcher), ..self }
    }

    /// For more requests than anybody reads lines of.
    #[must_use]
    pub fn without_log(self) -> Self {
        Self { logs: false, ..self }
    }

    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Compiles and starts.
    ///
    /// # Panics
    /// With the findings, where the configuration has errors.
    #[must_use]
    pub fn start(self) -> TestGateway {
        let Self { text, workers, clock, pki, files, logs, fetcher: other } = self;
        let more: Vec<_> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
        let files = pki.files(&more);
        let mut carry = Carry::default();
        let snapshot = compiled(&text, &files, &clock, &mut carry);
        let fetcher = Arc::new(Scripted::default());
        let grantor = Arc::new(Embedded::default());
        let log = SharedBuffer::default();
        let metrics = Arc::new(Registry::new(workers));
        let options = Options {
            workers,
            world: World::new(
                clock.clone(),
                other.unwrap_or_else(|| Arc::clone(&fetcher) as Arc<dyn Fetcher>),
                grantor,
            ),
            registry: Arc::clone(&metrics),
            recent_bytes_max: 1 << 20,
            log: logs.then(|| Log::start(Target::Writer(Box::new(log.clone()))).unwrap()),
        };
        let gateway = Gateway::start(options, snapshot).unwrap();
        let carry = Mutex::new(carry.next_generation());
        TestGateway { gateway, clock, pki, files, fetcher, carry, metrics, log }
    }
}

fn compiled(text: &str, files: &Files, clock: &Clock, carry: &mut Carry) -> Snapshot {
    let mut whole = String::new();
    if !text.contains("listeners:") {
        whole.push_str(LISTENERS);
        if !text.contains("defaults:") {
            whole.push_str(DEFAULTS);
        }
    }
    writeln!(whole, "{text}{PING}").unwrap();
    let source = Source { name: "gateway.yaml".to_owned(), text: whole };
    let loaded = load(vec![source], registry());
    let mut findings = Findings::new();
    let snapshot = loaded.config.as_ref().and_then(|config| {
        let mut with = CompileContext {
            findings: &mut findings,
            carry,
            sources: files,
            now: clock.now(),
            roots: Arc::new(RootCertStore::empty()),
            seed: 1,
        };
        compile(config, registry(), &mut with)
    });
    findings.append(loaded.findings);
    snapshot.unwrap_or_else(|| panic!("{}", render(&findings.sorted(), &loaded.sources, false)))
}

/// A running gateway and what it was given.
#[derive(Debug)]
pub struct TestGateway {
    pub gateway: Gateway,
    pub clock: Clock,
    pub pki: Pki,
    pub fetcher: Arc<Scripted>,
    files: Files,
    carry: Mutex<Carry>,
    metrics: Arc<Registry>,
    log: SharedBuffer,
}

impl TestGateway {
    /// The address of one of the standard listeners.
    ///
    /// # Panics
    /// If there is no such listener.
    #[must_use]
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.gateway.address(listener).unwrap_or_else(|| panic!("no listener {listener}"))
    }

    /// Another configuration from now on, as a reload would do it: state carried over.
    ///
    /// # Panics
    /// Where it has errors or a listener cannot be opened.
    pub fn swap(&self, text: &str) {
        let mut current = self.carry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut carry = current.clone();
        let snapshot = compiled(text, &self.files, &self.clock, &mut carry);
        self.gateway.swap(snapshot).unwrap();
        *current = carry.next_generation();
    }

    /// Returns when the only worker has handled whatever had reached it before the call.
    pub async fn settle(&self) {
        event("two answers without a backend", self.ping_twice()).await;
    }

    async fn ping_twice(&self) {
        // Twice: what the first round wakes up has its turn before the second one's answer.
        let mut rounds = 0;
        while rounds < 2 {
            let mut client = Client::connect(self, Protocol::H1).await;
            match client.send(Request::get("/testkit/ping")).await {
                Ok(answer) => assert_eq!(answer.status, 204),
                // Accepted just before the worker noticed how late it is.
                Err(Cut::Closed | Cut::Reset) => continue,
                Err(cut) => panic!("{cut:?}"),
            }
            rounds += 1;
        }
    }

    /// Moves the clock and lets the only worker act on it.
    pub async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.settle().await;
    }

    /// Waits until so many client connections are open.
    pub async fn connections(&self, wanted: usize) {
        until("connections", || self.gateway.loads().iter().sum::<usize>() == wanted).await;
    }

    /// One sample of the metrics by its name and labels: `portcullis_panics_total`.
    #[must_use]
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let mut exposition = Exposition::new();
        self.metrics.collect(&mut exposition);
        let mut text = String::new();
        exposition.finish(&mut text);
        let line = text
            .lines()
            .find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Stops and gives back the lines of the access log.
    ///
    /// # Panics
    /// If they are not UTF-8.
    #[must_use]
    pub fn stop(self) -> Vec<String> {
        let Self { gateway, log, .. } = self;
        gateway.stop();
        let bytes = log.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

#[derive(Clone, Debug, Default)]
struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
