//! Adaptive concurrency: how many requests a backend may have at once is found out from how long
//! its answers take.
//!
//! As long as a backend has room, an answer takes the same whatever else is under way; beyond its
//! knee requests queue in it, and more of them at once only make each take longer. The limit
//! follows the *gradient*, the time of an answer without a queue over that of one now (Netflix's
//! `gradient2`, Envoy's adaptive concurrency): it shrinks by it, and grows by the square root of
//! itself for as long as the gradient allows. What an answer takes without a queue is measured
//! again and again, with half of the limit for a moment: a baseline that only ages either goes up
//! with the queue or never forgives a backend that has become slower.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::mix::Mix;

/// Fewer than these are never asked for: with less nothing would be learnt.
pub const CONCURRENCY_MIN: u32 = 4;
/// Where it begins, unless fewer are allowed.
pub const CONCURRENCY_FIRST: u32 = 16;
/// An answer may take so much longer than without a queue before the limit shrinks.
const TOLERANCE: f64 = 1.5;
/// The limit shrinks by at most this at once.
const SHRINK: f64 = 0.5;
/// The limit is looked at no more often than this, and not before requests that began under it can
/// have ended.
const WINDOW: Duration = Duration::from_millis(100);
/// Nor less often, however slow the backend is.
const WINDOW_MAX: Duration = Duration::from_secs(5);
/// A window with fewer answers goes on.
const SAMPLES_MIN: u32 = 10;
/// Between two measurements of the baseline, up to half as much again.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// How much of a shorter time than the baseline is believed at once.
const BASELINE_DOWN: f64 = 0.1;
/// Answers that take only so much of the baseline are another backend's than it was measured with.
const BASELINE_DOUBTED: f64 = 0.75;

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// From the request to the head of the answer, or to the end of the wait for it.
    pub took: Duration,
    /// Requests under way when it came.
    pub in_flight: u32,
    pub now: Duration,
}

/// The concurrency of one backend, for all workers.
#[derive(Debug)]
pub struct Adaptive(Mutex<Gradient>);

impl Default for Adaptive {
    fn default() -> Self {
        Self(Mutex::new(Gradient::new(1)))
    }
}

impl Adaptive {
    /// The limit, once an answer is here, of at most `requests_max`.
    #[must_use]
    pub fn observe(&self, sample: Sample, requests_max: u32) -> u32 {
        let mut gradient = self.gradient();
        gradient.observe(sample, requests_max);
        gradient.limit(requests_max)
    }

    #[must_use]
    pub fn limit(&self, requests_max: u32) -> u32 {
        self.gradient().limit(requests_max)
    }

    fn gradient(&self) -> MutexGuard<'_, Gradient> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state machine; drawn in `LIFECYCLE.md`.
#[derive(Clone, Debug)]
pub struct Gradient {
    limit: f64,
    /// Seconds that an answer takes without a queue; `None` before the first window.
    baseline: Option<f64>,
    window: Window,
    phase: Phase,
    probe_due: Duration,
    /// What the last probe ended with, limit and baseline: far below either, the baseline is
    /// doubted.
    probed: (f64, f64),
    mix: Mix,
}

/// What was seen since the limit was last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// `None` before its first answer.
    begun: Option<Duration>,
    samples: u32,
    /// Of the logarithms of seconds: their mean is little moved by the few answers that take very
    /// long for reasons of their own.
    sum: f64,
    in_flight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Following the gradient.
    Steady,
    /// With half of the limit, until what is under way from before has ended; then it comes back.
    Settling { back: f64 },
    /// With half of the limit, measuring.
    Measuring { back: f64 },
}

impl Window {
    fn add(&mut self, sample: &Sample) {
        self.begun.get_or_insert(sample.now);
        self.samples += 1;
        self.sum += sample.took.as_secs_f64().max(1e-6).ln();
        self.in_flight = self.in_flight.max(sample.in_flight);
    }

    /// Seconds.
    fn mean(&self) -> f64 {
        (self.sum / f64::from(self.samples)).exp()
    }

    fn is_over(&self, now: Duration) -> bool {
        let Some(begun) = self.begun else { return false };
        let two_answers = Duration::from_secs_f64((2.0 * self.mean()).min(60.0));
        let length = two_answers.clamp(WINDOW, WINDOW_MAX);
        self.samples >= SAMPLES_MIN && now.saturating_sub(begun) >= length
    }
}

impl Gradient {
    /// `seed` varies the times of probes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let first = f64::from(CONCURRENCY_FIRST);
        Self {
            limit: first,
            baseline: None,
            window: Window::default(),
            phase: Phase::Steady,
            probe_due: Duration::ZERO,
            probed: (first, 0.0),
            mix: Mix::new(seed),
        }
    }

    /// Requests that may be under way, of at most `requests_max`.
    #[must_use]
    pub fn limit(&self, requests_max: u32) -> u32 {
        (self.limit as u32).clamp(CONCURRENCY_MIN.min(requests_max), requests_max)
    }

    /// Takes an answer into account.
    pub fn observe(&mut self, sample: Sample, requests_max: u32) {
        self.window.add(&sample);
        if !self.window.is_over(sample.now) {
            return;
        }
        let window = std::mem::take(&mut self.window);
        let most = f64::from(requests_max);
        match self.phase {
            Phase::Settling { back } => self.phase = Phase::Measuring { back },
            Phase::Measuring { back } => {
                let mean = window.mean();
                self.baseline = Some(mean);
                self.limit = back.min(most);
                self.phase = Phase::Steady;
                self.plan_probe(sample.now, mean);
            }
            Phase::Steady => self.follow(&window, sample.now, most),
        }
    }

    fn follow(&mut self, window: &Window, now: Duration, most: f64) {
        let mean = window.mean();
        let Some(baseline) = &mut self.baseline else {
            self.baseline = Some(mean);
            return self.plan_probe(now, mean);
        };
        if mean < *baseline {
            *baseline += (mean - *baseline) * BASELINE_DOWN;
        }
        let gradient = (TOLERANCE * *baseline / mean).clamp(SHRINK, 1.0);
        // With less under way than half of the limit it is not the limit that answers depend on.
        if f64::from(window.in_flight) * 2.0 >= self.limit {
            let next = self.limit * gradient + self.limit.sqrt();
            self.limit = next.max(f64::from(CONCURRENCY_MIN)).min(most);
        }
        let (limit_then, mean_then) = self.probed;
        let doubted = self.limit * 2.0 < limit_then || mean < mean_then * BASELINE_DOUBTED;
        if now >= self.probe_due || doubted {
            let back = self.limit;
            self.limit = (back / 2.0).max(f64::from(CONCURRENCY_MIN));
            self.phase = Phase::Settling { back };
        }
    }

    fn plan_probe(&mut self, now: Duration, baseline: f64) {
        let more = self.mix.below(PROBE_EVERY.as_millis() as u64 / 2);
        self.probe_due = now + PROBE_EVERY + Duration::from_millis(more);
        self.probed = (self.limit, baseline);
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    /// So many windows of answers that take `took(limit)`, with `share` of the limit under way.
    fn windows(gradient: &mut Gradient, from: u64, count: u64, took: impl Fn(u32) -> f64) -> u32 {
        for window in from..from + count {
            for i in 0..20 {
                let limit = gradient.limit(1_000);
                let now = Duration::from_millis(window * 100 + i * 5 + 5);
                let took = Duration::from_secs_f64(took(limit));
                gradient.observe(Sample { took, in_flight: limit, now }, 1_000);
            }
        }
        gradient.limit(1_000)
    }

    #[test]
    fn it_grows_while_answers_take_no_longer_and_ends_at_what_is_allowed() {
        let mut gradient = Gradient::new(1);
        assert_eq!(gradient.limit(1_000), CONCURRENCY_FIRST);
        assert_eq!(gradient.limit(2), 2);
        windows(&mut gradient, 0, 80, |_| 0.01);
        assert!(gradient.limit(1_000) > 900, "{}", gradient.limit(1_000));
        assert_eq!(gradient.limit(100), 100);
    }

    #[test]
    fn what_is_not_used_neither_grows_nor_shrinks() {
        let mut gradient = Gradient::new(1);
        for i in 0..400 {
            let (took, now) = (Duration::from_millis(10 + i), Duration::from_millis(10 * i));
            gradient.observe(Sample { took, in_flight: 3, now }, 1_000);
        }
        assert_eq!(gradient.limit(1_000), CONCURRENCY_FIRST);
    }

    #[test]
    fn a_backend_that_hangs_gets_the_least() {
        let mut gradient = Gradient::new(1);
        let before = windows(&mut gradient, 0, 40, |_| 0.01);
        let after = windows(&mut gradient, 40, 120, |_| 1.0);
        assert!(before > 200 && after < before / 8, "{before} {after}");
    }
}
