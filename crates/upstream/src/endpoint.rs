//! One endpoint of a backend, as all workers see it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::health::{Check, Health, HealthSettings, Outcome, Transition};
use crate::latency::Latency;
use crate::passive::{Aside, Standing};

/// What an operator has said about an endpoint at run time. It outlives reloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    #[default]
    Active,
    /// No new requests; those in flight finish and idle connections may stay.
    Draining,
    /// No new requests, and its idle connections are to be closed.
    Disabled,
}

/// The shared state of one endpoint. It lives as long as any snapshot names it (see
/// [`crate::Directory`]), so a reload forgets nothing.
// A cache line of its own: workers write `in_flight` of different endpoints all the time.
#[derive(Debug)]
#[repr(align(128))]
pub struct Endpoint {
    in_flight: AtomicU32,
    requests: AtomicU64,
    usable: AtomicBool,
    service: AtomicU8,
    aside: Aside,
    connect_failures: AtomicU64,
    transitions: AtomicU64,
    latency: Latency,
    /// When it began to serve, or came back, in nanoseconds; 0 for one that always was there.
    since: AtomicU64,
    adopted: AtomicBool,
    /// A connection was made, or a check passed, at some time.
    proven: AtomicBool,
    url: Box<str>,
    check: Mutex<Check>,
}

/// How willingly the balancer uses an endpoint; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Good,
    /// Healthy by its checks, but a connection failed a moment ago.
    Aside,
    /// Its checks say it is down.
    Down,
    /// The operator has taken it out of service.
    Out,
}

impl Endpoint {
    /// `seed` only varies the times of health checks.
    #[must_use]
    pub fn new(url: &str, seed: u64) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            usable: AtomicBool::new(true),
            service: AtomicU8::new(Service::Active as u8),
            aside: Aside::default(),
            connect_failures: AtomicU64::new(0),
            transitions: AtomicU64::new(0),
            latency: Latency::default(),
            since: AtomicU64::new(0),
            adopted: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            url: url.into(),
            check: Mutex::new(Check::new(seed)),
        }
    }

    /// As configured: `scheme://host[:port]`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Counts one request until the guard is dropped, also when the request is abandoned.
    #[must_use]
    pub fn start_request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        InFlight { endpoint: Arc::clone(self) }
    }

    /// Requests under way, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Requests ever started.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Connections that could not be made, ever.
    #[must_use]
    pub fn connect_failures(&self) -> u64 {
        self.connect_failures.load(Relaxed)
    }

    /// How often its health changed.
    #[must_use]
    pub fn transitions(&self) -> u64 {
        self.transitions.load(Relaxed)
    }

    /// To be called when a connection could not be made (refused, unreachable, timed out, TLS).
    pub fn connect_failed(&self, now: Duration) {
        self.connect_failures.fetch_add(1, Relaxed);
        self.aside.failed(now);
    }

    /// To be called when a connection was made.
    pub fn connected(&self) {
        self.aside.connected();
        self.proven.store(true, Relaxed);
    }

    /// Whether it has ever been there: a connection was made, or a check passed.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven.load(Relaxed)
    }

    /// Whether a failed connection keeps requests away at the moment.
    #[must_use]
    pub fn is_aside(&self, now: Duration) -> bool {
        self.aside.standing(now) == Standing::Aside
    }

    #[must_use]
    pub fn service(&self) -> Service {
        match self.service.load(Relaxed) {
            1 => Service::Draining,
            2 => Service::Disabled,
            _ => Service::Active,
        }
    }

    pub fn set_service(&self, service: Service) {
        self.service.store(service as u8, Relaxed);
    }

    /// To be called when the head of an answer is here, with the time since the request was sent.
    pub fn answered(&self, took: Duration, now: Duration) {
        self.latency.observe(took, now);
    }

    /// What a request more is expected to cost: nanoseconds, times the requests under way.
    pub(crate) fn cost(&self, now: Duration) -> f64 {
        let flying = f64::from(self.in_flight());
        match self.latency.is_known() {
            true => self.latency.decayed(now) * (flying + 1.0),
            // Nobody knows it yet: one request at a time is to find out.
            false => flying * 1e12,
        }
    }

    /// How much of its share it gets: 1.0, or less in the time of `slow_start` after it came.
    pub(crate) fn share(&self, slow_start: Duration, now: Duration) -> f64 {
        /// So that it begins at all.
        const LEAST: f64 = 0.1;
        let since = self.since.load(Relaxed);
        if since == 0 || slow_start.is_zero() {
            return 1.0;
        }
        let age = (now.as_nanos() as u64).saturating_sub(since) as f64;
        (age / slow_start.as_nanos() as f64).clamp(LEAST, 1.0)
    }

    /// It is in the snapshot that begins to serve. `later` says that others served before it, so
    /// that one which is new among them is to start slowly.
    pub fn adopt(&self, later: bool, now: Duration) {
        if !self.adopted.swap(true, Relaxed) && later {
            self.since.store(now.as_nanos() as u64, Relaxed);
        }
    }

    /// The checks of the snapshot that begins to serve; `None` when it has none. To be called for
    /// each of its endpoints at every swap, and not before: a snapshot that is compiled but never
    /// serves must not change how the serving one is checked.
    pub fn adopt_health(&self, settings: Option<&HealthSettings>, now: Duration) {
        let mut check = self.check();
        check.adopt(settings, now);
        self.usable.store(check.health() != Health::Down, Relaxed);
    }

    #[must_use]
    pub fn health(&self) -> Health {
        self.check().health()
    }

    /// When the next check is to be sent; `None` when this endpoint is not checked.
    #[must_use]
    pub fn check_due(&self) -> Option<Duration> {
        self.check().due()
    }

    /// A check is being sent.
    pub fn check_begun(&self, settings: &HealthSettings, now: Duration) {
        self.check().begin(settings, now);
    }

    /// The result of a check that was sent under these settings. One that was under way while a
    /// reload changed what is asked is disregarded.
    pub fn check_ended(
        &self,
        settings: &HealthSettings,
        outcome: Outcome,
        now: Duration,
    ) -> Option<Transition> {
        let mut check = self.check();
        if !check.is_for(settings) {
            return None;
        }
        let transition = check.record(settings, outcome, now);
        if outcome == Outcome::Pass {
            self.proven.store(true, Relaxed);
        }
        self.usable.store(check.health() != Health::Down, Relaxed);
        if transition.is_some() {
            self.transitions.fetch_add(1, Relaxed);
        }
        if transition == Some(Transition::WentUp) {
            self.since.store(now.as_nanos() as u64, Relaxed);
        }
        transition
    }

    pub(crate) fn rank(&self, now: Duration) -> Rank {
        if self.service.load(Relaxed) != Service::Active as u8 {
            Rank::Out
        } else if !self.usable.load(Relaxed) {
            Rank::Down
        } else if self.aside.standing(now) == Standing::Aside {
            Rank::Aside
        } else {
            Rank::Good
        }
    }

    /// Takes the trial of an endpoint whose time aside has passed; `true` when there is nothing to
    /// take.
    pub(crate) fn claim(&self, now: Duration) -> bool {
        self.aside.claim_trial(now)
    }

    fn check(&self) -> MutexGuard<'_, Check> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request under way at an endpoint.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(10);

    #[test]
    fn an_abandoned_request_is_not_counted_for_ever() {
        let endpoint = Arc::new(Endpoint::new("http://a", 0));
        let first = endpoint.start_request();
        let second = endpoint.start_request();
        assert_eq!(endpoint.in_flight(), 2);
        drop((first, second));
        assert_eq!((endpoint.in_flight(), endpoint.requests()), (0, 2));
    }

    #[test]
    fn the_operator_outranks_health_and_health_outranks_a_failed_connection() {
        let endpoint = Endpoint::new("http://a", 0);
        let settings = HealthSettings::new(1);
        assert_eq!(endpoint.rank(NOW), Rank::Good);
        endpoint.connect_failed(NOW);
        assert_eq!(endpoint.rank(NOW), Rank::Aside);
        endpoint.adopt_health(Some(&settings), NOW);
        endpoint.check_ended(&settings, Outcome::Fail, NOW);
        assert_eq!(endpoint.rank(NOW), Rank::Down);
        endpoint.set_service(Service::Draining);
        assert_eq!(endpoint.rank(NOW), Rank::Out);
        endpoint.set_service(Service::Active);
        endpoint.adopt_health(None, NOW);
        endpoint.connected();
        assert_eq!(endpoint.rank(NOW), Rank::Good);
    }

    #[test]
    fn a_result_of_the_check_before_the_reload_is_disregarded() {
        let endpoint = Endpoint::new("http://a", 0);
        let (old, new) = (HealthSettings::new(1), HealthSettings::new(2));
        endpoint.adopt_health(Some(&old), NOW);
        endpoint.adopt_health(Some(&new), NOW);
        assert_eq!(endpoint.check_ended(&old, Outcome::Fail, NOW), None);
        assert_eq!(endpoint.health(), Health::Unknown);
        assert_eq!(endpoint.check_ended(&new, Outcome::Fail, NOW), Some(Transition::WentDown));
    }
}
