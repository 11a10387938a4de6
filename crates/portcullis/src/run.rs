//! `portcullis run`: the gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use portcullis_admin::Server;
use portcullis_config::{Config, LogDestination, render};
use portcullis_control::{
    Attempt, Finder, HttpFetcher, Loader, Outcome, Reloader, Upkeep, system_roots,
};
use portcullis_core::carry::Carry;
use portcullis_core::services::Services;
use portcullis_policies::grantor::{Embedded, KEYS_MAX_DEFAULT};
use portcullis_proxy::{Clock, Gateway, Options, World, fill_random};
use portcullis_snapshot::Snapshot;
use portcullis_telemetry::log::{Log, Target};
use portcullis_telemetry::metrics::Registry as Metrics;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli;
use crate::usage::{self, Usage};
use crate::view::{self, View};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// Longest wait for the endpoints that a new configuration has to find.
const FIND: Duration = Duration::from_secs(5);

pub(crate) fn run(arguments: &cli::Run) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let signals = Signals::new()?;
        match Running::start(&arguments.config, arguments.admin)? {
            Ok(running) => Ok(running.until_stopped(signals).await),
            Err(status) => Ok(status),
        }
    })
}

/// Asked for before anything starts, since a signal that nobody has asked for ends the process.
pub(crate) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// A gateway with everything around it.
pub(crate) struct Running {
    gateway: Arc<Gateway>,
    reloader: Reloader,
    metrics: Arc<Metrics>,
    services: Rc<dyn Services>,
    upkeep: Upkeep,
    finder: Finder,
    view: Arc<View>,
    config: Config,
    probes: Option<Server>,
    admin: Option<Server>,
}

impl Running {
    /// Loads the configuration and starts. A configuration that cannot be read (3) or does not
    /// compile (1) was shown, and is an exit status.
    pub(crate) fn start(
        path: &Path,
        admin: Option<SocketAddr>,
    ) -> anyhow::Result<Result<Self, ExitCode>> {
        let clock = Clock::real();
        let roots = system_roots();
        let seed = u64::from(std::process::id());
        let loader = Loader::new(path, portcullis_policies::registry(), Arc::clone(&roots), seed);
        let mut attempt = loader.load(&Carry::default(), clock.now());
        show(&attempt);
        let (Some(mut snapshot), Some(config)) = (attempt.snapshot.take(), attempt.config.take())
        else {
            return Ok(Err(ExitCode::from(if attempt.sources.is_empty() { 3 } else { 1 })));
        };
        snapshot.version.sequence = 1;
        let workers = config.process.workers.map_or_else(cores, usize::from);
        let metrics = Arc::new(Metrics::new(workers));
        metrics.set_started(clock.now().wall);
        note(&metrics, &snapshot, clock.now().wall);
        let fetcher = HttpFetcher::start(roots, state_directory())?;
        let grantor = Arc::new(grantor());
        let world = World::new(clock.clone(), Arc::new(fetcher), Arc::clone(&grantor) as _);
        let log = access_log(&config, attempt.files.base())?;
        let options = Options {
            workers,
            world,
            registry: Arc::clone(&metrics),
            log,
            recent_bytes_max: config.process.recent_bytes_max(),
        };
        let listeners: Vec<_> = snapshot.listeners.iter().map(Arc::clone).collect();
        let mono = {
            let clock = clock.clone();
            move || clock.mono()
        };
        let finder = Finder::start(attempt.files.base(), Arc::new(mono))?;
        finder.prepare(&snapshot, FIND);
        let gateway = Arc::new(Gateway::start(options, snapshot)?);
        finder.adopt(&gateway.snapshot());
        for listener in &listeners {
            let address = gateway.address(&listener.name);
            let address = address.map_or_else(|| listener.bind.to_string(), |it| it.to_string());
            let tls = listener.tls.is_some();
            tracing::info!(listener = &*listener.name, address, tls, "listening");
        }
        let services: Rc<dyn Services> = Rc::new(gateway.world().clone());
        let upkeep = Upkeep::start(&gateway.snapshot(), &services);
        let reloader = Reloader::new(loader, without_snapshot(attempt), clock.now());
        let view = Arc::new(View {
            gateway: Arc::clone(&gateway),
            metrics: Arc::clone(&metrics),
            grantor,
            status: reloader.status(),
            usage: Usage::new(clock.now().wall),
            draining: AtomicBool::new(false),
        });
        let (probes, admin) = view::serve(&config, admin, reloader.files(), &view)?;
        Ok(Ok(Self {
            gateway,
            reloader,
            metrics,
            services,
            upkeep,
            finder,
            view,
            config,
            probes,
            admin,
        }))
    }

    /// Where the probes are answered.
    pub(crate) fn probes(&self) -> Option<SocketAddr> {
        self.probes.as_ref().and_then(Server::address)
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Serves until SIGTERM or SIGINT, reloading on SIGHUP and when a file changes.
    pub(crate) async fn until_stopped(mut self, signals: Signals) -> ExitCode {
        let Signals { mut hangup, mut terminate, mut interrupt } = signals;
        let mut look = tokio::time::interval(LOOK);
        let mut count = tokio::time::interval(usage::LOOK);
        let delay = loop {
            tokio::select! {
                _ = hangup.recv() => {
                    self.gateway.reopen_log();
                    self.reload();
                }
                _ = look.tick() => {
                    if self.reloader.changed() {
                        self.reload();
                    }
                }
                _ = count.tick() => {
                    let now = self.gateway.world().now().wall;
                    self.view.usage.look(&self.metrics, now);
                }
                _ = terminate.recv() => break self.config.process.shutdown.drain_delay.0,
                _ = interrupt.recv() => break Duration::ZERO,
            }
        };
        self.stop(delay).await;
        ExitCode::SUCCESS
    }

    fn reload(&mut self) {
        let now = self.gateway.world().now();
        let (gateway, finder) = (&self.gateway, &self.finder);
        let outcome = self.reloader.reload(now, |snapshot| {
            finder.prepare(&snapshot, FIND);
            gateway.swap(snapshot).map_err(|error| error.to_string())
        });
        self.finder.adopt(&self.gateway.snapshot());
        match outcome {
            Outcome::Refused => self.metrics.reload_failed(),
            Outcome::Serving => {
                let snapshot = self.gateway.snapshot();
                note(&self.metrics, &snapshot, now.wall);
                self.upkeep = Upkeep::start(&snapshot, &self.services);
                tracing::info!(version = snapshot.version.short(), "the new configuration serves");
            }
        }
    }

    async fn stop(self, delay: Duration) {
        self.view.draining.store(true, Relaxed);
        tracing::info!(?delay, "draining");
        tokio::time::sleep(delay).await;
        let timeout = self.config.process.shutdown.drain_timeout.0;
        if !self.gateway.drain(timeout).await {
            tracing::warn!("some connections did not end in time and are cut off");
        }
        drop((self.probes, self.admin, self.view));
        if let Some(gateway) = Arc::into_inner(self.gateway) {
            gateway.stop();
        }
    }
}

/// What the metrics say about a snapshot that begins to serve.
fn note(metrics: &Metrics, snapshot: &Snapshot, wall: Duration) {
    metrics.reload_succeeded(wall, snapshot.version.sequence, &snapshot.version.hash);
    let certificates = snapshot.certificates.iter();
    metrics.set_certificates(
        certificates.map(|facts| (format!("{} {}", facts.owner, facts.source), facts.not_after)),
    );
}

fn without_snapshot(attempt: Attempt) -> Attempt {
    Attempt { snapshot: None, config: None, ..attempt }
}

/// Counters in an order that nobody can predict, so that nobody can crowd one part of them.
fn grantor() -> Embedded {
    let mut secret = [0; 16];
    fill_random(&mut secret);
    let wide = u128::from_le_bytes(secret);
    Embedded::seeded(KEYS_MAX_DEFAULT, [wide as u64, (wide >> 64) as u64])
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Like every path in a configuration, the log's is relative to it.
fn access_log(config: &Config, base: &Path) -> anyhow::Result<Option<Log>> {
    let target = match &config.process.access_log.to {
        LogDestination::Off => return Ok(None),
        LogDestination::Stdout => Target::Stdout,
        LogDestination::File(path) => Target::File(base.join(path)),
    };
    Log::start(target).map(Some).context("cannot open the access log")
}

/// Where last good answers are kept: `$STATE_DIRECTORY` as systemd sets it, else the user's own.
fn state_directory() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    of("STATE_DIRECTORY")
        .map(PathBuf::from)
        .or_else(|| of("XDG_STATE_HOME").map(|home| PathBuf::from(home).join("portcullis")))
        .or_else(|| of("HOME").map(|home| PathBuf::from(home).join(".local/state/portcullis")))
}

#[expect(clippy::print_stderr, reason = "findings are for whoever starts the gateway")]
fn show(attempt: &Attempt) {
    use std::io::IsTerminal as _;
    let colour = std::io::stderr().is_terminal();
    eprint!("{}", render(&attempt.findings, &attempt.sources, colour));
}
