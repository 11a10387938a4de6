//! Metrics: counted by each worker for itself, added up when somebody looks.
//!
//! A worker owns a shard of every series and is the only one to write it, so counting is a load
//! and a store, never a locked instruction or a shared cache line. What other parts know already
//! (health, limits, pools) is not counted again: they write it into the
//! [`Exposition`] through [`Registry::collect`]'s caller.
//!
//! Every label has a bounded set of values: series are named by what the operator configured, and
//! past [`SERIES_MAX`] of a kind the rest share one named `other`.

pub mod exposition;
pub mod histogram;
pub mod names;
pub mod process;
pub mod series;
pub mod shard;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use series::{
    BackendShard, Family, LimitShard, ListenerShard, MirrorShard, PolicyShard, RouteShard,
    VariantShard, WorkerShard,
};
use shard::{Sharded, WorkerId};

pub use exposition::Exposition;
pub use names::Metric;
pub use series::{
    BackendSeries, Bound, CopyResult, DeadlineKind, Fault, LimitSeries, ListenerSeries,
    MethodLabel, MirrorSeries, NoCopy, Observation, PolicySeries, RouteSeries, VariantSeries,
    VariantTotals,
};

/// Series of one kind with a name of their own.
pub const SERIES_MAX: usize = 2_000;

/// All metrics of the process. Made once; it outlives reloads, and so do its series, by name.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    handed_out: AtomicUsize,
    worker_shards: Arc<Sharded<WorkerShard>>,
    routes: Family<RouteShard>,
    variants: Family<VariantShard>,
    mirrors: Family<MirrorShard>,
    listeners: Family<ListenerShard>,
    backends: Family<BackendShard>,
    limits: Family<LimitShard>,
    policies: Family<PolicyShard>,
    reloads_ok: AtomicU64,
    reloads_failed: AtomicU64,
    rare: Mutex<Rare>,
}

/// What changes with a reload at most.
#[derive(Debug, Default)]
struct Rare {
    last_reload: Option<Duration>,
    config: Option<(u64, String)>,
    certificates: BTreeMap<String, i64>,
    started: Duration,
}

impl Registry {
    /// For at most so many workers; every thread that counts is one.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            handed_out: AtomicUsize::new(0),
            worker_shards: Arc::new(Sharded::new(workers)),
            routes: Family::new(workers),
            variants: Family::new(workers),
            mirrors: Family::new(workers),
            listeners: Family::new(workers),
            backends: Family::new(workers),
            limits: Family::new(workers),
            policies: Family::new(workers),
            reloads_ok: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
            rare: Mutex::default(),
        }
    }

    /// The next worker's end; `None` when all have been given out. It is not given back: a worker
    /// lives as long as the process.
    #[must_use]
    pub fn worker(&self) -> Option<WorkerMetrics> {
        let index = self.handed_out.fetch_add(1, Relaxed);
        (index < self.workers)
            .then(|| WorkerMetrics::new(WorkerId::new(index), Arc::clone(&self.worker_shards)))
    }

    /// To be said before the series of a snapshot are asked for; `wanted` of a kind at most.
    pub fn make_room(&self, wanted: usize) {
        self.routes.make_room(wanted);
        self.variants.make_room(wanted);
        self.mirrors.make_room(wanted);
        self.listeners.make_room(wanted);
        self.backends.make_room(wanted);
        self.limits.make_room(wanted);
        self.policies.make_room(wanted);
    }

    /// The series of a route, by its full name. It takes a lock: ask when a snapshot begins to
    /// serve and keep the answer beside it.
    #[must_use]
    pub fn route(&self, name: &str) -> Arc<RouteSeries> {
        self.routes.get(name)
    }

    /// The series of a route's variant. Neither name has a blank in it.
    #[must_use]
    pub fn variant(&self, route: &str, variant: &str) -> Arc<VariantSeries> {
        self.variants.get(&format!("{route} {variant}"))
    }

    /// The series of a route's mirror, by the route's name.
    #[must_use]
    pub fn mirror(&self, route: &str) -> Arc<MirrorSeries> {
        self.mirrors.get(route)
    }

    #[must_use]
    pub fn listener(&self, name: &str) -> Arc<ListenerSeries> {
        self.listeners.get(name)
    }

    #[must_use]
    pub fn backend(&self, name: &str) -> Arc<BackendSeries> {
        self.backends.get(name)
    }

    #[must_use]
    pub fn limit(&self, name: &str) -> Arc<LimitSeries> {
        self.limits.get(name)
    }

    #[must_use]
    pub fn policy(&self, name: &str) -> Arc<PolicySeries> {
        self.policies.get(name)
    }

    /// How many requests each route has had, of those that are counted by themselves.
    pub fn each_route(&self, mut visit: impl FnMut(&str, u64)) {
        self.routes.each(|name, shards| visit(name, series::requests(shards)));
    }

    /// A new configuration serves. `wall` since 1970; `number` is the N of `config@N`.
    pub fn reload_succeeded(&self, wall: Duration, number: u64, version: &str) {
        self.reloads_ok.fetch_add(1, Relaxed);
        let mut rare = self.rare();
        rare.last_reload = Some(wall);
        rare.config = Some((number, version.to_owned()));
    }

    /// One was refused, and the old one serves on.
    pub fn reload_failed(&self) {
        self.reloads_failed.fetch_add(1, Relaxed);
    }

    /// `(name, end of validity in seconds since 1970)` of every certificate in use.
    pub fn set_certificates(&self, certificates: impl IntoIterator<Item = (String, i64)>) {
        let certificates = certificates.into_iter().collect();
        self.rare().certificates = certificates;
    }

    /// When the process started, since 1970.
    pub fn set_started(&self, wall: Duration) {
        self.rare().started = wall;
    }

    /// Adds everything that is known here. The caller adds what others know and then calls
    /// [`Exposition::finish`].
    pub fn collect(&self, out: &mut Exposition) {
        self.routes.each(|name, shards| series::collect_route(name, shards, out));
        self.variants.each(|name, shards| series::collect_variant(name, shards, out));
        self.mirrors.each(|name, shards| series::collect_mirror(name, shards, out));
        self.listeners.each(|name, shards| series::collect_listener(name, shards, out));
        self.backends.each(|name, shards| series::collect_backend(name, shards, out));
        self.limits.each(|name, shards| series::collect_limit(name, shards, out));
        self.policies.each(|name, shards| series::collect_policy(name, shards, out));
        series::collect_workers(&self.worker_shards, out);

        out.count(Metric::Reloads, &["ok"], self.reloads_ok.load(Relaxed));
        out.count(Metric::Reloads, &["failed"], self.reloads_failed.load(Relaxed));
        let rare = self.rare();
        if let Some(wall) = rare.last_reload {
            out.gauge(Metric::ReloadLastSuccess, &[], wall.as_secs_f64());
        }
        if let Some((number, version)) = &rare.config {
            out.gauge(Metric::ConfigNumber, &[], *number as f64);
            out.gauge(Metric::ConfigInfo, &[version], 1.0);
        }
        for (name, end) in &rare.certificates {
            out.gauge(Metric::CertificateExpiry, &[name], *end as f64);
        }
        out.gauge(Metric::ProcessStartTime, &[], rare.started.as_secs_f64());
        out.gauge(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1.0);
        process::collect(out);
    }

    fn rare(&self) -> MutexGuard<'_, Rare> {
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's end: what it counts without a name, and the key to its shards of the others.
///
/// It can move to the worker's thread but not be shared, which is what makes the shards sound.
#[derive(Debug)]
pub struct WorkerMetrics {
    id: WorkerId,
    shards: Arc<Sharded<WorkerShard>>,
}

impl WorkerMetrics {
    fn new(id: WorkerId, shards: Arc<Sharded<WorkerShard>>) -> Self {
        Self { id, shards }
    }

    #[must_use]
    pub const fn id(&self) -> &WorkerId {
        &self.id
    }

    /// One request that was answered, or whose client went away.
    pub fn request(&self, route: &RouteSeries, seen: &Observation) {
        route.observe(&self.id, seen);
        self.shard().sizes(seen);
    }

    /// A deadline passed.
    pub fn deadline(&self, kind: DeadlineKind) {
        self.shard().deadlines[kind as usize].add(1);
    }

    /// A limit on the gateway itself was hit.
    pub fn bound(&self, bound: Bound) {
        self.shard().bounds[bound as usize].add(1);
    }

    /// A request was refused for want of time; the number of its priority.
    pub fn shed(&self, priority: usize) {
        if let Some(count) = self.shard().shed.get(priority) {
            count.add(1);
        }
    }

    /// How far behind the worker is, and in thousandths how much it refuses therefore.
    pub fn delayed(&self, delay: Duration, pressure: u32) {
        self.shard().delay.set(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
        self.shard().pressure.set(u64::from(pressure));
    }

    /// A request ended in a panic.
    pub fn panicked(&self) {
        self.shard().panics.add(1);
    }

    fn shard(&self) -> &WorkerShard {
        self.shards.of(&self.id)
    }
}
