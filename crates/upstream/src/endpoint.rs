//! One endpoint of a backend, as all workers see it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::breaker::{self, Breaker, Pass};
use crate::health::{Check, Health, HealthSettings, Outcome, Transition};
use crate::latency::Latency;
use crate::outlier::{Judged, Reason};
use crate::passive::{Aside, Standing};
use crate::verdict::{Counts, Record, Verdict};

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

/// What is held against an endpoint, as one word that is 0 for most: the operator's word in the
/// lowest two bits, and these.
mod flag {
    pub(super) const SERVICE: u8 = 0b11;
    /// Its checks say that it is down.
    pub(super) const DOWN: u8 = 1 << 2;
    /// It is an outlier.
    pub(super) const EJECTED: u8 = 1 << 3;
    /// Its breaker is not closed.
    pub(super) const BROKEN: u8 = 1 << 4;
    /// Another service answers there.
    pub(super) const FOREIGN: u8 = 1 << 5;
}

/// The shared state of one endpoint. It lives as long as any snapshot names it (see
/// [`crate::Directory`]), so a reload forgets nothing.
// A cache line of its own: workers write `in_flight` of different endpoints all the time.
#[derive(Debug)]
#[repr(align(128))]
pub struct Endpoint {
    in_flight: AtomicU32,
    requests: AtomicU64,
    flags: AtomicU8,
    aside: Aside,
    record: Record,
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
    judged: Mutex<Judged>,
    ejections: [AtomicU64; Reason::ALL.len()],
    breaker: Breaker,
}

/// How willingly the balancer uses an endpoint; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Good,
    /// Healthy by its checks, but a connection failed a moment ago, or it is an outlier.
    Aside,
    /// Its checks say it is down.
    Down,
    /// Its breaker lets nothing through: from here on it is not given whatever happens.
    Broken,
    /// The operator has taken it out of service, or another service answers there.
    Out,
}

impl Endpoint {
    /// `seed` only varies the times of health checks and of ejections.
    #[must_use]
    pub fn new(url: &str, seed: u64) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            flags: AtomicU8::new(Service::Active as u8),
            aside: Aside::default(),
            record: Record::default(),
            connect_failures: AtomicU64::new(0),
            transitions: AtomicU64::new(0),
            latency: Latency::default(),
            since: AtomicU64::new(0),
            adopted: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            url: url.into(),
            check: Mutex::new(Check::new(seed)),
            judged: Mutex::new(Judged::new(!seed)),
            ejections: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            breaker: Breaker::default(),
        }
    }

    /// As configured: `scheme://host[:port]`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Counts one request until the guard is dropped, also when the request is abandoned. Where
    /// only some may try it (its time aside has just passed, or its breaker is half-open) this
    /// claims the right to; `None` when others have it.
    #[must_use]
    pub fn start(self: &Arc<Self>, now: Duration) -> Option<InFlight> {
        let mut pass = None;
        if self.flags.load(Relaxed) & flag::BROKEN != 0 {
            pass = Some(self.breaker.enter(now).ok()?);
        }
        // A pass can be given back, a trial that was claimed for nothing could not.
        if self.aside.standing(now) == Standing::TrialDue && !self.aside.claim_trial(now) {
            if let Some(pass) = pass {
                self.breaker.abandoned(pass);
            }
            return None;
        }
        let mut in_flight = self.start_request();
        in_flight.pass = pass;
        Some(in_flight)
    }

    /// The same whatever is held against it.
    #[must_use]
    pub fn start_request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        InFlight { endpoint: Arc::clone(self), pass: None }
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

    /// Whether it has ever been there: a connection was made, or a check passed. Never of one that
    /// is another service.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven.load(Relaxed) && self.flags.load(Relaxed) & flag::FOREIGN == 0
    }

    /// Whether a failed connection keeps requests away at the moment.
    #[must_use]
    pub fn is_aside(&self, now: Duration) -> bool {
        self.aside.standing(now) == Standing::Aside
    }

    #[must_use]
    pub fn service(&self) -> Service {
        match self.flags.load(Relaxed) & flag::SERVICE {
            1 => Service::Draining,
            2 => Service::Disabled,
            _ => Service::Active,
        }
    }

    pub fn set_service(&self, service: Service) {
        let set = |flags| Some(flags & !flag::SERVICE | service as u8);
        _ = self.flags.fetch_update(Relaxed, Relaxed, set);
    }

    fn set_flag(&self, flag: u8, set: bool) {
        match set {
            true => self.flags.fetch_or(flag, Relaxed),
            false => self.flags.fetch_and(!flag, Relaxed),
        };
    }

    /// To be called when the head of an answer is here, with the time since the request was sent.
    pub(crate) fn answered(&self, took: Duration, failed: bool, now: Duration) {
        self.latency.observe(took, failed, now);
    }

    /// Measures how long its answers take, for the judge of outliers.
    pub(crate) fn time(&self, took: Duration) {
        self.record.time(took);
    }

    /// An answer that had begun to arrive broke off.
    pub fn broke_off(&self) {
        self.record.broke_off();
    }

    pub(crate) fn counts(&self) -> Counts {
        self.record.counts()
    }

    /// What the judge of outliers remembers; `None` while somebody else judges.
    pub(crate) fn judged(&self) -> Option<MutexGuard<'_, Judged>> {
        self.judged.try_lock().ok()
    }

    pub(crate) fn eject(&self, reason: Reason) {
        self.ejections[reason as usize].fetch_add(1, Relaxed);
        self.set_flag(flag::EJECTED, true);
    }

    /// It is no outlier any more, and starts slowly.
    pub(crate) fn return_at(&self, now: Duration) {
        self.set_flag(flag::EJECTED, false);
        self.since.store(now.as_nanos() as u64, Relaxed);
    }

    /// Nobody judges outliers any more.
    pub(crate) fn acquit(&self) {
        self.set_flag(flag::EJECTED, false);
        self.judged.lock().unwrap_or_else(PoisonError::into_inner).acquit();
    }

    /// Whether it is left out because it fails or dawdles more than others.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.flags.load(Relaxed) & flag::EJECTED != 0
    }

    /// How often it was ejected for this reason.
    #[must_use]
    pub fn ejections(&self, reason: Reason) -> u64 {
        self.ejections[reason as usize].load(Relaxed)
    }

    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// There is no breaker any more.
    pub(crate) fn remove_breaker(&self) {
        self.breaker.remove();
        self.set_flag(flag::BROKEN, false);
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
        self.heed(check.health());
    }

    /// What its checks say, for who chooses.
    fn heed(&self, health: Health) {
        self.set_flag(flag::DOWN, health == Health::Down);
        self.set_flag(flag::FOREIGN, health == Health::Foreign);
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
        self.heed(check.health());
        if transition.is_some() {
            self.transitions.fetch_add(1, Relaxed);
        }
        if transition == Some(Transition::WentUp) {
            self.since.store(now.as_nanos() as u64, Relaxed);
        }
        transition
    }

    pub(crate) fn rank(&self, now: Duration) -> Rank {
        let flags = self.flags.load(Relaxed);
        if flags & (flag::SERVICE | flag::FOREIGN) != 0 {
            Rank::Out
        } else if flags & flag::BROKEN != 0 && !self.breaker.is_passable(now) {
            Rank::Broken
        } else if flags & flag::DOWN != 0 {
            Rank::Down
        } else if flags & flag::EJECTED != 0 || self.aside.standing(now) == Standing::Aside {
            Rank::Aside
        } else {
            Rank::Good
        }
    }

    fn check(&self) -> MutexGuard<'_, Check> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request under way at an endpoint.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    /// Leave of a breaker that is not closed.
    pass: Option<Pass>,
}

impl InFlight {
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Whether a breaker waits for what becomes of it.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.pass.is_some_and(Pass::is_probe)
    }

    /// It is decided what the request came to. A request has at most one verdict.
    pub(crate) fn judge(
        &mut self,
        terms: Option<&breaker::Terms>,
        verdict: Verdict,
        now: Duration,
    ) -> Option<breaker::Change> {
        let endpoint = &self.endpoint;
        endpoint.record.count(verdict);
        let terms = terms?;
        let pass = self.pass.take().unwrap_or(Pass::FREE);
        let change = endpoint.breaker.ended(terms, pass, verdict.is_failure(), now)?;
        // Another worker may move it on at the same time.
        loop {
            let broken = endpoint.breaker.state() != breaker::State::Closed;
            endpoint.set_flag(flag::BROKEN, broken);
            if broken == (endpoint.breaker.state() != breaker::State::Closed) {
                break Some(change);
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Relaxed);
        if let Some(pass) = self.pass.take() {
            self.endpoint.breaker.abandoned(pass);
        }
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

    /// Its time aside is over while its breaker is open: when that lets a request through, the trial
    /// must still be there to be claimed.
    #[test]
    fn a_request_that_its_breaker_refuses_claims_no_trial() {
        let terms = breaker::Terms { requests_min: 1, ..breaker::Terms::default() };
        let endpoint = Arc::new(Endpoint::new("http://a", 0));
        endpoint.connect_failed(NOW);
        let mut failed = endpoint.start_request();
        failed.judge(Some(&terms), Verdict::Error, NOW).unwrap();
        let late = NOW + terms.open - Duration::from_millis(1);
        assert!(endpoint.start(late).is_none());
        assert_eq!(endpoint.rank(NOW + terms.open), Rank::Good);
        assert!(endpoint.start(NOW + terms.open).is_some());
    }

    #[test]
    fn another_service_is_out_and_proves_nothing_however_often_it_is_connected_to() {
        let endpoint = Endpoint::new("http://a", 0);
        let settings = HealthSettings::new(1);
        endpoint.adopt_health(Some(&settings), NOW);
        endpoint.connected();
        assert!(endpoint.is_proven());
        let turned = endpoint.check_ended(&settings, Outcome::Foreign, NOW);
        assert_eq!(turned, Some(Transition::TurnedForeign));
        endpoint.connected();
        assert_eq!((endpoint.rank(NOW), endpoint.is_proven()), (Rank::Out, false));
        endpoint.check_ended(&settings, Outcome::Fail, NOW);
        assert_eq!(endpoint.rank(NOW), Rank::Out);
        // Another question, or none, is another judgement.
        endpoint.adopt_health(Some(&HealthSettings::new(2)), NOW);
        assert_eq!((endpoint.rank(NOW), endpoint.is_proven()), (Rank::Good, true));
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
