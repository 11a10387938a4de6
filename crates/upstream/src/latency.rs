//! How long an endpoint takes to answer, lately: a mean that leaps up with each slow answer and
//! comes down slowly (peak EWMA).
//!
//! An endpoint that turns slow is left at once, and comes back as time makes its peak less certain.
//! A failure is no answer, however quickly it comes: it says nothing good of the time, and each
//! makes the endpoint look as if it took longer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// After this time without a slower answer a peak counts for a third (1/e).
const DECAY: Duration = Duration::from_secs(10);
/// What an answer that fails counts for, as time: so much would have been waited for a good one.
const FAILURE_NANOS: f64 = 10e9;
/// How much the last answer counts for in the share of failures.
const LAST: f64 = 1.0 / 16.0;

/// Workers write it without a lock: a lost sample is one of many.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// Nanoseconds as `f64` bits; 0 before the first answer.
    mean: AtomicU64,
    /// Of the last sample, in nanoseconds of the monotonic clock.
    at: AtomicU64,
    /// The share of the last answers that failed, as `f64` bits.
    failing: AtomicU64,
}

impl Latency {
    pub(crate) fn observe(&self, took: Duration, failed: bool, now: Duration) {
        let took = took.as_nanos() as f64;
        let fade = self.fade(now);
        let old = f64::from_bits(self.mean.load(Relaxed));
        let mean = old * fade;
        let new = if took >= mean {
            took
        } else if failed {
            mean
        } else {
            mean + took * (1.0 - fade)
        };
        // Known from now on, and never a subnormal of what is long ago.
        self.mean.store(new.max(1.0).to_bits(), Relaxed);
        let failing = f64::from_bits(self.failing.load(Relaxed)) * fade;
        if failed || failing > 0.0 {
            let last = f64::from(u8::from(failed));
            self.failing.store((failing + (last - failing) * LAST).to_bits(), Relaxed);
        }
        self.at.store(now.as_nanos() as u64, Relaxed);
    }

    /// Nanoseconds that an answer is expected to take, failures counted as time; 0 where nothing is
    /// known.
    pub(crate) fn decayed(&self, now: Duration) -> f64 {
        let mean = f64::from_bits(self.mean.load(Relaxed));
        if mean == 0.0 {
            return 0.0;
        }
        let failing = f64::from_bits(self.failing.load(Relaxed));
        (mean + failing * FAILURE_NANOS) * self.fade(now)
    }

    /// What is left of the last sample.
    fn fade(&self, now: Duration) -> f64 {
        let age = (now.as_nanos() as u64).saturating_sub(self.at.load(Relaxed));
        (-(age as f64) / DECAY.as_nanos() as f64).exp()
    }

    pub(crate) fn is_known(&self) -> bool {
        self.mean.load(Relaxed) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(1_000 + seconds)
    }

    fn millis(latency: &Latency, now: Duration) -> u64 {
        (latency.decayed(now) / 1e6).round() as u64
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let latency = Latency::default();
        assert!(!latency.is_known());
        latency.observe(Duration::from_millis(10), false, seconds(0));
        latency.observe(Duration::from_millis(500), false, seconds(0));
        assert_eq!(millis(&latency, seconds(0)), 500);
        assert_eq!(millis(&latency, seconds(10)), 184);
        assert_eq!(millis(&latency, seconds(60)), 1);
    }

    #[test]
    fn quick_answers_bring_it_down_to_what_they_take() {
        let latency = Latency::default();
        latency.observe(Duration::from_millis(500), false, seconds(0));
        for second in 1..100 {
            latency.observe(Duration::from_millis(10), false, seconds(second));
        }
        assert_eq!(millis(&latency, seconds(99)), 10);
    }

    #[test]
    fn quick_failures_make_it_look_slow_and_answers_mend_that() {
        let latency = Latency::default();
        latency.observe(Duration::from_millis(20), false, seconds(0));
        latency.observe(Duration::from_millis(1), true, seconds(0));
        assert_eq!(millis(&latency, seconds(0)), 20 + 625);
        latency.observe(Duration::from_millis(1), true, seconds(0));
        assert_eq!(millis(&latency, seconds(0)), 20 + 1_211);
        for _ in 0..100 {
            latency.observe(Duration::from_millis(20), false, seconds(0));
        }
        assert!(millis(&latency, seconds(0)) < 25);
    }
}
