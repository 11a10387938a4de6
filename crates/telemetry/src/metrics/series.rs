//! What is counted for a route, a listener, a backend, a limit, a policy and a worker.

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($variant,)*
        }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

mod mirror;
mod variant;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;

use super::exposition::Exposition;
use super::histogram::{ADDED, Histogram, LATENCY, POLICY, SIZE, Totals};
use super::names::Metric;
use super::shard::{Count, Sharded, WorkerId};

pub(crate) use mirror::collect_mirror;
pub use mirror::{CopyResult, MirrorSeries, MirrorShard, NoCopy};
pub(crate) use variant::collect_variant;
pub use variant::{VariantSeries, VariantShard, VariantTotals};

/// One named series. It keeps counting as long as anyone holds it.
#[derive(Debug)]
pub struct Series<T> {
    shards: Sharded<T>,
}

pub type RouteSeries = Series<RouteShard>;
pub type ListenerSeries = Series<ListenerShard>;
pub type BackendSeries = Series<BackendShard>;
pub type LimitSeries = Series<LimitShard>;
pub type PolicySeries = Series<PolicyShard>;

/// All series of one kind, by name.
#[derive(Debug)]
pub(crate) struct Family<T> {
    workers: usize,
    named: Mutex<BTreeMap<Box<str>, Arc<Series<T>>>>,
    other: Arc<Series<T>>,
}

/// What series share that have no name of their own. Names are configured and this one is not one:
/// a route cannot be called `(other)`.
const OTHER: &str = "(other)";

impl<T: Default> Family<T> {
    pub(crate) fn new(workers: usize) -> Self {
        let other = Arc::new(Series { shards: Sharded::new(workers) });
        Self { workers, named: Mutex::default(), other }
    }

    pub(crate) fn get(&self, name: &str) -> Arc<Series<T>> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = named.get(name) {
            return Arc::clone(series);
        }
        if named.len() >= super::SERIES_MAX {
            return Arc::clone(&self.other);
        }
        let series = Arc::new(Series { shards: Sharded::new(self.workers) });
        named.insert(name.into(), Arc::clone(&series));
        series
    }

    /// Series that no snapshot uses any more make room for so many. Until there is need they stay,
    /// because a counter that vanishes at a reload looks like a restart.
    pub(crate) fn make_room(&self, wanted: usize) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() + wanted > super::SERIES_MAX {
            named.retain(|_, series| Arc::strong_count(series) > 1);
        }
    }

    pub(crate) fn each(&self, mut visit: impl FnMut(&str, &Sharded<T>)) {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, series) in &*named {
            visit(name, &series.shards);
        }
        if self.other.shards.iter().next().is_some() {
            visit(OTHER, &self.other.shards);
        }
    }
}

labels! {
    /// A method as a label: the nine that are registered for HTTP, and the rest.
    MethodLabel {
        Get = "GET", Head = "HEAD", Post = "POST", Put = "PUT", Delete = "DELETE",
        Connect = "CONNECT", Options = "OPTIONS", Trace = "TRACE", Patch = "PATCH",
        Other = "other",
    }
}

impl From<&Method> for MethodLabel {
    fn from(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::DELETE => Self::Delete,
            Method::CONNECT => Self::Connect,
            Method::OPTIONS => Self::Options,
            Method::TRACE => Self::Trace,
            Method::PATCH => Self::Patch,
            _ => Self::Other,
        }
    }
}

labels! {
    /// What was done to a request on purpose.
    Fault { Delay = "delay", Abort = "abort", }
}

labels! {
    /// Which deadline passed.
    DeadlineKind {
        Handshake = "handshake", Head = "head", Body = "body", Queue = "queue", Connect = "connect",
        Response = "response", Total = "total", StreamIdle = "stream_idle",
        KeepAlive = "keep_alive", Continue = "continue", UpgradeIdle = "upgrade_idle",
        UpgradeLifetime = "upgrade_lifetime", Mirror = "mirror", Linger = "linger",
    }
}

labels! {
    /// Which limit of the gateway itself was hit.
    Bound {
        ConnectionsMax = "connections_max",
        ConnectionsPerAddressMax = "connections_per_address_max",
        HeadBytesMax = "head_bytes_max", FieldsMax = "fields_max",
        TargetBytesMax = "target_bytes_max", BodyMax = "body_max", StreamsMax = "streams_max",
        ResetsPerMinute = "resets_per_minute", PingsPerMinute = "pings_per_minute",
        SettingsPerMinute = "settings_per_minute", ContinuationsMax = "continuations_max",
        FramesMax = "frames_max", BufferedMax = "buffered_max", Descriptors = "descriptors",
    }
}

/// Of routes, in the order of their numbers.
pub(crate) const PRIORITIES: [&str; 3] = ["critical", "default", "sheddable"];

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

fn class(status: u16) -> usize {
    let hundreds = usize::from(status / 100);
    if hundreds < CLASSES.len() { hundreds } else { 0 }
}

/// What one finished request says to the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    pub method: MethodLabel,
    /// 0: the client was gone before there was one.
    pub status: u16,
    pub duration: Duration,
    /// `None` when no backend was asked.
    pub backend: Option<Duration>,
    pub gateway_added: Duration,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// One worker's numbers of a route.
#[derive(Debug, Default)]
pub struct RouteShard {
    requests: [[Count; CLASSES.len()]; MethodLabel::ALL.len()],
    duration: Histogram,
    backend: Histogram,
    added: Histogram,
    upgrades: Count,
    upgrades_ended: Count,
    faults: [Count; Fault::ALL.len()],
}

impl Series<RouteShard> {
    /// A connection became a WebSocket. Each is [`ended`](Self::upgrade_ended) by the same worker.
    pub fn upgrade_began(&self, worker: &WorkerId) {
        self.shards.of(worker).upgrades.add(1);
    }

    pub fn upgrade_ended(&self, worker: &WorkerId) {
        self.shards.of(worker).upgrades_ended.add(1);
    }

    /// Something was done to a request on purpose.
    pub fn faulted(&self, worker: &WorkerId, fault: Fault) {
        self.shards.of(worker).faults[fault as usize].add(1);
    }

    pub fn observe(&self, worker: &WorkerId, seen: &Observation) {
        let shard = self.shards.of(worker);
        shard.requests[seen.method as usize][class(seen.status)].add(1);
        shard.duration.observe(&LATENCY, micros(seen.duration));
        shard.added.observe(&ADDED, micros(seen.gateway_added));
        if let Some(backend) = seen.backend {
            shard.backend.observe(&LATENCY, micros(backend));
        }
    }
}

/// All requests of a route.
pub(crate) fn requests(shards: &Sharded<RouteShard>) -> u64 {
    let kinds = 0..MethodLabel::ALL.len() * CLASSES.len();
    let of = |kind: usize| {
        let (method, class) = (kind / CLASSES.len(), kind % CLASSES.len());
        shards.sum(|shard| &shard.requests[method][class])
    };
    kinds.map(of).sum()
}

pub(crate) fn collect_route(name: &str, shards: &Sharded<RouteShard>, out: &mut Exposition) {
    for method in MethodLabel::ALL {
        for (class, label) in CLASSES.iter().enumerate() {
            // Most of the sixty never occur; those that did stay.
            let count = shards.sum(|shard| &shard.requests[*method as usize][class]);
            if count > 0 {
                out.count(Metric::Requests, &[name, method.label(), label], count);
            }
        }
    }
    let mut histogram = |metric, scale, of: fn(&RouteShard) -> &Histogram| {
        let totals = Totals::of(shards.iter().map(of));
        if totals.count() > 0 {
            out.histogram(metric, &[name], scale, &totals);
        }
    };
    histogram(Metric::RequestDuration, &LATENCY, |shard| &shard.duration);
    histogram(Metric::BackendDuration, &LATENCY, |shard| &shard.backend);
    histogram(Metric::GatewayAdded, &ADDED, |shard| &shard.added);
    for fault in Fault::ALL {
        let count = shards.sum(|shard| &shard.faults[*fault as usize]);
        if count > 0 {
            out.count(Metric::Faults, &[name, fault.label()], count);
        }
    }
    let upgrades = shards.sum(|shard| &shard.upgrades);
    if upgrades > 0 {
        let active = difference(shards, |shard| &shard.upgrades, |shard| &shard.upgrades_ended);
        out.count(Metric::Upgrades, &[name], upgrades);
        out.gauge(Metric::UpgradesActive, &[name], active as f64);
    }
}

/// One worker's numbers of a listener.
#[derive(Debug, Default)]
pub struct ListenerShard {
    accepted: Count,
    closed: Count,
    refused: Count,
    pauses: Count,
    handshake_failures: Count,
}

impl Series<ListenerShard> {
    /// A connection began. Each is [`closed`](Self::closed) by the same worker.
    pub fn accepted(&self, worker: &WorkerId) {
        self.shards.of(worker).accepted.add(1);
    }

    pub fn closed(&self, worker: &WorkerId) {
        self.shards.of(worker).closed.add(1);
    }

    /// A connection was closed at once because of a limit; it does not count as accepted.
    pub fn refused(&self, worker: &WorkerId) {
        self.shards.of(worker).refused.add(1);
    }

    pub fn accept_paused(&self, worker: &WorkerId) {
        self.shards.of(worker).pauses.add(1);
    }

    pub fn handshake_failed(&self, worker: &WorkerId) {
        self.shards.of(worker).handshake_failures.add(1);
    }

    /// Connections open over all workers.
    #[must_use]
    pub fn open(&self) -> u64 {
        open(&self.shards)
    }
}

fn open(shards: &Sharded<ListenerShard>) -> u64 {
    difference(shards, |shard| &shard.accepted, |shard| &shard.closed)
}

/// How many have begun and not ended.
fn difference<T: Default>(
    shards: &Sharded<T>,
    begun: impl Fn(&T) -> &Count,
    ended: impl Fn(&T) -> &Count,
) -> u64 {
    // Read first, so that one which comes and goes meanwhile is not counted below zero.
    let ended = shards.sum(ended);
    shards.sum(begun).saturating_sub(ended)
}

pub(crate) fn collect_listener(name: &str, shards: &Sharded<ListenerShard>, out: &mut Exposition) {
    out.gauge(Metric::Connections, &[name], open(shards) as f64);
    out.count(Metric::ConnectionsAccepted, &[name], shards.sum(|shard| &shard.accepted));
    out.count(Metric::ConnectionsRefused, &[name], shards.sum(|shard| &shard.refused));
    out.count(Metric::AcceptPauses, &[name], shards.sum(|shard| &shard.pauses));
    out.count(Metric::HandshakeFailures, &[name], shards.sum(|shard| &shard.handshake_failures));
}

/// One worker's numbers of a backend.
#[derive(Debug, Default)]
pub struct BackendShard {
    requests: Count,
    retries: Count,
    hedges: Count,
    connects: Count,
    local: Count,
    other: Count,
    idle: Count,
    active: Count,
}

impl Series<BackendShard> {
    /// An attempt was sent; `retry` when it is not the request's first.
    pub fn attempt(&self, worker: &WorkerId, retry: bool) {
        let shard = self.shards.of(worker);
        shard.requests.add(1);
        shard.retries.add(u64::from(retry));
    }

    /// One of the attempts goes beside another that has not failed.
    pub fn hedged(&self, worker: &WorkerId) {
        self.shards.of(worker).hedges.add(1);
    }

    /// One of the attempts goes to the gateway's own zone, or to another.
    pub fn zoned(&self, worker: &WorkerId, local: bool) {
        let shard = self.shards.of(worker);
        if local { &shard.local } else { &shard.other }.add(1);
    }

    pub fn connected(&self, worker: &WorkerId) {
        self.shards.of(worker).connects.add(1);
    }

    /// What the worker's pool holds now.
    pub fn set_pool(&self, worker: &WorkerId, idle: u64, active: u64) {
        let shard = self.shards.of(worker);
        shard.idle.set(idle);
        shard.active.set(active);
    }
}

pub(crate) fn collect_backend(name: &str, shards: &Sharded<BackendShard>, out: &mut Exposition) {
    out.count(Metric::BackendRequests, &[name], shards.sum(|shard| &shard.requests));
    out.count(Metric::BackendRetries, &[name], shards.sum(|shard| &shard.retries));
    out.count(Metric::BackendHedges, &[name], shards.sum(|shard| &shard.hedges));
    out.count(Metric::BackendConnects, &[name], shards.sum(|shard| &shard.connects));
    let (local, other) = (shards.sum(|shard| &shard.local), shards.sum(|shard| &shard.other));
    // Most backends make nothing of zones.
    if local + other > 0 {
        out.count(Metric::BackendZoneRequests, &[name, "local"], local);
        out.count(Metric::BackendZoneRequests, &[name, "other"], other);
    }
    let mut pool = |state, count: u64| {
        out.gauge(Metric::PoolConnections, &[name, state], count as f64);
    };
    pool("idle", shards.sum(|shard| &shard.idle));
    pool("active", shards.sum(|shard| &shard.active));
}

/// One worker's numbers of a limit.
#[derive(Debug, Default)]
pub struct LimitShard {
    allowed: Count,
    refused: Count,
}

impl Series<LimitShard> {
    pub fn decided(&self, worker: &WorkerId, allowed: bool) {
        let shard = self.shards.of(worker);
        if allowed { &shard.allowed } else { &shard.refused }.add(1);
    }
}

pub(crate) fn collect_limit(name: &str, shards: &Sharded<LimitShard>, out: &mut Exposition) {
    out.count(Metric::LimitDecisions, &[name, "allowed"], shards.sum(|shard| &shard.allowed));
    out.count(Metric::LimitDecisions, &[name, "refused"], shards.sum(|shard| &shard.refused));
}

/// One worker's numbers of a policy.
#[derive(Debug, Default)]
pub struct PolicyShard {
    duration: Histogram,
}

impl Series<PolicyShard> {
    /// A measured pass through the policy; see [`Sampler`](crate::Sampler).
    pub fn observe(&self, worker: &WorkerId, spent: Duration) {
        let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.shards.of(worker).duration.observe(&POLICY, nanos);
    }
}

pub(crate) fn collect_policy(name: &str, shards: &Sharded<PolicyShard>, out: &mut Exposition) {
    let totals = Totals::of(shards.iter().map(|shard| &shard.duration));
    if totals.count() > 0 {
        out.histogram(Metric::PolicyDuration, &[name], &POLICY, &totals);
    }
}

/// What a worker counts without a name.
#[derive(Debug, Default)]
pub struct WorkerShard {
    request_body: Histogram,
    response_body: Histogram,
    pub(crate) deadlines: [Count; DeadlineKind::ALL.len()],
    pub(crate) bounds: [Count; Bound::ALL.len()],
    pub(crate) panics: Count,
    pub(crate) shed: [Count; PRIORITIES.len()],
    /// Microseconds.
    pub(crate) delay: Count,
    /// Thousandths.
    pub(crate) pressure: Count,
}

impl WorkerShard {
    pub(crate) fn sizes(&self, seen: &Observation) {
        self.request_body.observe(&SIZE, seen.bytes_in);
        self.response_body.observe(&SIZE, seen.bytes_out);
    }
}

pub(crate) fn collect_workers(shards: &Sharded<WorkerShard>, out: &mut Exposition) {
    let totals = |of: fn(&WorkerShard) -> &Histogram| Totals::of(shards.iter().map(of));
    out.histogram(Metric::RequestBody, &[], &SIZE, &totals(|shard| &shard.request_body));
    out.histogram(Metric::ResponseBody, &[], &SIZE, &totals(|shard| &shard.response_body));
    // These are exposed from zero on, so that an alert can be written before the first one.
    for kind in DeadlineKind::ALL {
        let count = shards.sum(|shard| &shard.deadlines[*kind as usize]);
        out.count(Metric::Deadlines, &[kind.label()], count);
    }
    for bound in Bound::ALL {
        out.count(
            Metric::Bounds,
            &[bound.label()],
            shards.sum(|shard| &shard.bounds[*bound as usize]),
        );
    }
    out.count(Metric::Panics, &[], shards.sum(|shard| &shard.panics));
    for (at, priority) in PRIORITIES.iter().enumerate() {
        out.count(Metric::ShedRequests, &[priority], shards.sum(|shard| &shard.shed[at]));
    }
    let most = |of: fn(&WorkerShard) -> &Count| shards.iter().map(|shard| of(shard).get()).max();
    let pressure = most(|shard| &shard.pressure).unwrap_or_default();
    out.gauge(Metric::ShedPressure, &[], pressure as f64 / 1e3);
    out.gauge(
        Metric::WorkerDelay,
        &[],
        most(|shard| &shard.delay).unwrap_or_default() as f64 / 1e6,
    );
}

const fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros() as u64)
}
