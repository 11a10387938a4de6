//! All workers together: starting them, giving them a configuration, stopping them.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use portcullis_snapshot::{Backend, Bind, Route, Snapshot, Variant};
use portcullis_telemetry::log::Log;
use portcullis_telemetry::metrics::{
    BackendSeries, LimitSeries, MirrorSeries, PolicySeries, Registry, RouteSeries, VariantSeries,
};
use portcullis_telemetry::recent::{Found, Recent};
use portcullis_upstream::{Endpoint, Overrides};
use tokio::sync::{mpsc, watch};

use crate::addresses::Addresses;
use crate::analysis::{self, Analyses};
use crate::overrides::serve_endpoints;
use crate::services::World;
use crate::socket::Listening;
use crate::worker::{Handed, Worker};

/// Connections on their way from one worker to another.
const HANDED_MAX: usize = 1024;

/// How long the last lines of the access log may take at the end.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// Open listeners by name.
type Sockets = HashMap<Arc<str>, Arc<Listening>>;

/// A snapshot that serves, with what belongs to it outside of it.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) sockets: Sockets,
    /// Series of the routes, by index; then of requests that match none.
    pub(crate) routes: Vec<Arc<RouteSeries>>,
    pub(crate) no_route: Arc<RouteSeries>,
    /// Series of each route's variants, where it has several.
    pub(crate) variants: Vec<Arc<[Arc<VariantSeries>]>>,
    /// Series of each route's mirror, where it has one.
    pub(crate) mirrors: Vec<Option<Arc<MirrorSeries>>>,
    pub(crate) backends: Vec<Arc<BackendSeries>>,
    /// What the limits of each route said, by index.
    pub(crate) limits: Vec<Arc<LimitSeries>>,
    pub(crate) policies: HashMap<&'static str, Arc<PolicySeries>>,
    /// `config@N-hash`, for the log.
    pub(crate) config: String,
}

impl Active {
    fn new(snapshot: Snapshot, sockets: Sockets, all: &Registry) -> Self {
        let several = snapshot.routes.iter().map(|route| variants(route).len()).sum();
        all.make_room(snapshot.routes.len().max(snapshot.backends.len()).max(several));
        // Where not all can be told apart, those come first that are decided by.
        let is_watched =
            |route: &&Arc<Route>| route.to.as_ref().is_some_and(|to| to.canary.is_some());
        for route in snapshot.routes.iter().filter(is_watched) {
            variants(route).iter().for_each(|one| drop(all.variant(&route.name, &one.name)));
        }
        Self {
            routes: snapshot.routes.iter().map(|route| all.route(&route.name)).collect(),
            no_route: all.route("(none)"),
            variants: snapshot
                .routes
                .iter()
                .map(|route| {
                    let series = |one: &Variant| all.variant(&route.name, &one.name);
                    variants(route).iter().map(series).collect()
                })
                .collect(),
            mirrors: snapshot
                .routes
                .iter()
                .map(|route| route.mirror.as_ref().map(|_| all.mirror(&route.name)))
                .collect(),
            backends: snapshot.backends.iter().map(|backend| all.backend(&backend.name)).collect(),
            limits: snapshot.routes.iter().map(|route| all.limit(&route.name)).collect(),
            policies: snapshot
                .routes
                .iter()
                .flat_map(|route| &route.policies)
                .map(|placed| (placed.name, all.policy(placed.name)))
                .collect(),
            config: snapshot.version.short(),
            snapshot: Arc::new(snapshot),
            sockets,
        }
    }

    /// The same with another snapshot of the same configuration: under other overrides.
    pub(crate) fn under(same: &Self, snapshot: Snapshot) -> Self {
        let config = snapshot.version.short();
        Self { config, snapshot: Arc::new(snapshot), ..same.clone() }
    }

    /// How long a connection to this endpoint may idle; `None` if nobody uses it any more.
    pub(crate) fn idle_timeout(&self, endpoint: &Endpoint) -> Option<Duration> {
        let is_it = |member: &portcullis_upstream::Member| {
            std::ptr::eq(Arc::as_ptr(&member.endpoint), endpoint)
        };
        let has_it =
            |backend: &&Arc<Backend>| backend.endpoints.load().balancer.members().iter().any(is_it);
        let backend = self.snapshot.backends.iter().find(has_it)?;
        let in_service = endpoint.service() != portcullis_upstream::Service::Disabled;
        // While somebody waits for a connection nobody keeps one idle: it may be of another worker
        // or to another endpoint.
        let wanted = backend.capacity.pending.used() > 0;
        let timeout = if wanted { Duration::ZERO } else { backend.idle_timeout };
        in_service.then_some(timeout)
    }
}

/// Of a route that has several.
fn variants(route: &Route) -> &[Variant] {
    let variants = route.to.as_ref().map(|to| &to.variants[..]).unwrap_or_default();
    if variants.len() > 1 { variants } else { &[] }
}

/// What workers share.
pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) registry: Arc<Registry>,
    log: Mutex<Option<Log>>,
    pub(crate) recent: Recent,
    pub(crate) active: watch::Sender<Arc<Active>>,
    pub(crate) overrides: Mutex<Overrides>,
    pub(crate) analyses: Mutex<Analyses>,
    pub(crate) drain: watch::Sender<bool>,
    pub(crate) addresses: Arc<Addresses>,
    /// Connections of each worker.
    pub(crate) loads: Vec<AtomicUsize>,
    pub(crate) inboxes: Vec<mpsc::Sender<Handed>>,
}

impl Shared {
    pub(crate) fn log(&self) -> MutexGuard<'_, Option<Log>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("loads", &self.loads).finish_non_exhaustive()
    }
}

/// How the data plane is to run.
#[derive(Debug)]
pub struct Options {
    /// Threads, one for each core.
    pub workers: usize,
    pub world: World,
    /// Made for at least so many workers.
    pub registry: Arc<Registry>,
    pub log: Option<Log>,
    /// Bytes for the decisions about recent requests; 0 remembers none.
    pub recent_bytes_max: usize,
}

/// A listener could not be opened; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot listen on {bind}: {error}")]
pub struct BindError {
    pub listener: String,
    pub bind: Bind,
    pub error: io::Error,
}

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot start a worker: {0}")]
    Thread(#[from] io::Error),
    #[error("the metrics registry has no room for {0} workers")]
    Metrics(usize),
}

/// The running data plane.
#[derive(Debug)]
pub struct Gateway {
    pub(crate) shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Opens the listeners and starts the workers.
    ///
    /// # Errors
    /// A listener cannot be opened or a thread cannot be started.
    pub fn start(options: Options, snapshot: Snapshot) -> Result<Self, StartError> {
        let Options { workers, world, registry, log, recent_bytes_max } = options;
        let workers = workers.max(1);
        let sockets = bind(&snapshot, &HashMap::new())?;
        adopt_endpoints(&snapshot, false, world.clock().mono());
        let (mut analyses, mut overrides) = Default::default();
        analysis::adopt(&mut analyses, &mut overrides, &snapshot, world.clock().now());
        let active = Arc::new(Active::new(snapshot, sockets, &registry));
        let (inboxes, outlets): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| mpsc::channel(HANDED_MAX)).unzip();
        let shared = Arc::new(Shared {
            world,
            log: Mutex::new(log),
            recent: Recent::new(workers, recent_bytes_max),
            active: watch::Sender::new(active),
            addresses: Arc::default(),
            overrides: Mutex::new(overrides),
            analyses: Mutex::new(analyses),
            drain: watch::Sender::new(false),
            loads: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            inboxes,
            registry,
        });
        let stop = watch::Sender::new(false);
        let mut threads = Vec::with_capacity(workers);
        for (index, handed) in outlets.into_iter().enumerate() {
            let metrics = shared.registry.worker().ok_or(StartError::Metrics(workers))?;
            let (shared, stop) = (Arc::clone(&shared), stop.subscribe());
            let run = move || {
                if let Err(error) = Worker::run(index, shared, metrics, handed, stop) {
                    tracing::error!(%error, "a worker could not start");
                }
            };
            threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(run)?);
        }
        Ok(Self { shared, stop, threads })
    }

    /// Lets every request that begins from now on see `snapshot`. Requests under way keep theirs.
    ///
    /// # Errors
    /// A new listener cannot be opened. The old snapshot serves on, untouched.
    pub fn swap(&self, snapshot: Snapshot) -> Result<(), BindError> {
        // One swap at a time.
        let mut analyses = self.shared.analyses();
        let mut overrides = self.shared.overrides();
        let old = Arc::clone(&self.shared.active.borrow());
        let sockets = bind(&snapshot, &old.sockets)?;
        adopt_endpoints(&snapshot, true, self.shared.world.clock().mono());
        let now = self.shared.world.clock().now();
        analysis::adopt(&mut analyses, &mut overrides, &snapshot, now);
        let directory = Arc::clone(&snapshot.directory);
        let snapshot = snapshot.under(&overrides);
        serve_endpoints(&snapshot, &overrides);
        let active = Arc::new(Active::new(snapshot, sockets, &self.shared.registry));
        self.shared.active.send_replace(Arc::clone(&active));
        // Requests under way may keep the old ones for a while.
        let stays = |socket| active.sockets.values().any(|other| Arc::ptr_eq(other, socket));
        old.sockets.values().filter(|socket| !stays(socket)).for_each(|gone| gone.remove());
        drop(old);
        directory.prune();
        Ok(())
    }

    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.active.borrow().snapshot)
    }

    /// The world as policies see it, for work off the request path.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.shared.world
    }

    /// Where a listener really listens; differs from what is configured for port 0. `None` for a
    /// Unix socket.
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.shared.active.borrow().sockets.get(listener)?.local_addr()
    }

    /// What was decided about the requests of this id in the last hour, the latest first.
    #[must_use]
    pub fn decided(&self, request_id: &str) -> Vec<Found> {
        self.shared.recent.find(request_id.as_bytes(), self.shared.world.clock().now().wall)
    }

    /// Open client connections of each worker.
    #[must_use]
    pub fn loads(&self) -> Vec<usize> {
        self.shared.loads.iter().map(|load| load.load(Relaxed)).collect()
    }

    /// Opens the access log's file anew, for whoever has moved it away.
    pub fn reopen_log(&self) {
        if let Some(log) = &*self.shared.log() {
            log.reopen();
        }
    }

    /// What became of the access log's lines; `None` without one.
    #[must_use]
    pub fn log_counts(&self) -> Option<portcullis_telemetry::log::Counts> {
        self.shared.log().as_ref().map(Log::counts)
    }

    /// Accepts no more and lets connections end with what they are doing. Returns whether all did
    /// within `timeout`.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.shared.drain.send_replace(true);
        // Whoever connects from now on is refused at once, instead of waiting for nobody.
        for socket in self.shared.active.borrow().sockets.values() {
            if let Err(error) = socket.shut() {
                tracing::warn!(%error, "a listener stays open");
            }
        }
        let clock = self.shared.world.clock();
        let until = clock.mono() + timeout;
        while self.loads().iter().any(|load| *load > 0) {
            if clock.mono() >= until {
                return false;
            }
            clock.sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Ends the workers, with whatever they are doing, and flushes the log.
    pub fn stop(mut self) {
        self.end_workers();
        if let Some(log) = self.shared.log().take()
            && !log.close(LOG_FLUSH)
        {
            tracing::warn!("the access log did not take its last lines in time");
        }
    }

    fn end_workers(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker ended in a panic");
            }
        }
    }
}

impl Drop for Gateway {
    /// Waits for the workers even where starting failed half-way: a process that ends while one of
    /// them asks for random bytes is aborted by the library, which has taken its source apart.
    fn drop(&mut self) {
        self.end_workers();
        self.shared.active.borrow().sockets.values().for_each(|socket| socket.remove());
    }
}

fn adopt_endpoints(snapshot: &Snapshot, later: bool, now: Duration) {
    for backend in &snapshot.backends {
        backend.endpoints.adopt(later, now);
        backend.capacity.adopt(backend.adaptive, backend.requests_max);
    }
}

/// The sockets of a snapshot: those that are open already, and new ones.
fn bind(snapshot: &Snapshot, open: &Sockets) -> Result<Sockets, BindError> {
    let mut sockets = Sockets::new();
    for listener in &snapshot.listeners {
        let fits = |socket: &&Arc<Listening>| socket.fits(&listener.bind);
        // By name, since port 0 is another port for each; else whoever has the address: listeners
        // can be renamed or swap places.
        let by_name = open.get(&listener.name).filter(fits);
        let socket = match by_name.or_else(|| open.values().find(fits)) {
            Some(socket) => socket.adopt(&listener.bind).map(|()| Arc::clone(socket)),
            None => Listening::open(&listener.bind).map(Arc::new),
        };
        let socket = socket.map_err(|error| BindError {
            listener: listener.name.to_string(),
            bind: listener.bind.clone(),
            error,
        })?;
        sockets.insert(Arc::clone(&listener.name), socket);
    }
    Ok(sockets)
}
