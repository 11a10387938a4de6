//! Putting an endpoint aside for a moment after a connection to it failed.
//!
//! Only failures to connect count: nothing was sent then, so nothing about the request itself can
//! have caused them. Judging answers (statuses, resets, latency) is not done here. What keeps
//! this from emptying a backend is the balancer, which disregards it when fewer than half of the
//! endpoints would remain.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How long the first failure puts an endpoint aside; each further one in a row doubles it.
pub const ASIDE_FIRST: Duration = Duration::from_secs(1);
/// Doublings at most: 32 s.
const DOUBLINGS_MAX: u64 = 5;
/// How long one request may try an endpoint whose time has passed before another one may. Longer
/// than a connection attempt takes by default, so that normally only one request is at stake.
const TRIAL: Duration = Duration::from_secs(3);

/// One word, so that every change is one compare-and-swap: `until` in milliseconds (56 bits),
/// failures in a row (7 bits), and whether a trial is under way. Zero: not aside.
#[derive(Debug, Default)]
pub(crate) struct Aside(AtomicU64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing is held against it.
    Clear,
    /// Its time has passed: the next request that claims it may try it.
    TrialDue,
    /// Not to be used while others can be.
    Aside,
}

impl Aside {
    pub(crate) fn standing(&self, now: Duration) -> Standing {
        match self.0.load(Relaxed) {
            0 => Standing::Clear,
            word if millis(now) < until(word) => Standing::Aside,
            _ => Standing::TrialDue,
        }
    }

    /// Takes the one trial; `false` when another request has it.
    pub(crate) fn claim_trial(&self, now: Duration) -> bool {
        let word = self.0.load(Relaxed);
        if word == 0 {
            return true;
        }
        if millis(now) < until(word) {
            return false;
        }
        let trial = pack(millis(now + TRIAL), failures(word), true);
        self.0.compare_exchange(word, trial, Relaxed, Relaxed).is_ok()
    }

    /// A connection failed. Many requests may report the same outage: while the endpoint is aside
    /// only the one on trial makes it last longer.
    pub(crate) fn failed(&self, now: Duration) {
        let word = self.0.load(Relaxed);
        if word != 0 && !is_trial(word) && millis(now) < until(word) {
            return;
        }
        let pause = ASIDE_FIRST * (1 << failures(word).min(DOUBLINGS_MAX));
        let next = pack(millis(now + pause), (failures(word) + 1).min(DOUBLINGS_MAX), false);
        // Whoever came first has said the same.
        _ = self.0.compare_exchange(word, next, Relaxed, Relaxed);
    }

    /// A connection was made.
    pub(crate) fn connected(&self) {
        // Read first: the usual case must not write to a cache line that all workers read.
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }
}

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).min((1 << 56) - 1)
}

const fn pack(until: u64, failures: u64, trial: bool) -> u64 {
    until << 8 | failures << 1 | trial as u64
}

const fn until(word: u64) -> u64 {
    word >> 8
}

const fn failures(word: u64) -> u64 {
    (word >> 1) & 0x7f
}

const fn is_trial(word: u64) -> bool {
    word & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_double_up_to_half_a_minute_and_a_connection_clears_them() {
        let aside = Aside::default();
        let mut now = at(100);
        for pause in [1, 2, 4, 8, 16, 32, 32] {
            aside.failed(now);
            assert_eq!(aside.standing(now + at(pause) - Duration::from_millis(1)), Standing::Aside);
            now += at(pause);
            assert_eq!(aside.standing(now), Standing::TrialDue, "after {pause} s");
            assert!(aside.claim_trial(now));
        }
        aside.connected();
        assert_eq!(aside.standing(now), Standing::Clear);
        aside.failed(now);
        assert_eq!(aside.standing(now + at(1)), Standing::TrialDue, "the count began anew");
    }

    #[test]
    fn a_burst_of_failures_counts_once() {
        let aside = Aside::default();
        for _ in 0..50 {
            aside.failed(at(1));
        }
        assert_eq!(aside.standing(at(2)), Standing::TrialDue);
    }

    #[test]
    fn one_request_at_a_time_is_on_trial() {
        let aside = Aside::default();
        aside.failed(at(1));
        assert!(!aside.claim_trial(at(1)));
        assert!(aside.claim_trial(at(2)));
        assert!(!aside.claim_trial(at(2)));
        assert_eq!(aside.standing(at(4)), Standing::Aside);
        assert!(aside.claim_trial(at(5)), "the first was never heard of again");
    }
}
