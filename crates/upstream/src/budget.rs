//! How many requests of a backend may be sent again: a share of its requests, and some each second.
//!
//! Without a bound a backend that fails everything gets every request as often as there are
//! attempts, just when it can do least. One counter says what was spent; what was earned is worked
//! out from the requests seen and the time. What was earned and not spent is kept for
//! [`SAVED`] only. No lock, and nothing to tend between requests.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// For how long the retries of [`Terms::per_second`] that nobody needed are kept.
pub const SAVED: Duration = Duration::from_secs(10);
/// Credit is counted in hundredths of a retry, so that a percentage of one request is whole.
const RETRY: u64 = 100;

/// How much a [`Budget`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Retries for a hundred requests.
    pub percent: u32,
    /// Retries each second in addition, so that a backend with few requests has some too.
    pub per_second: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self { percent: 20, per_second: 10 }
    }
}

impl Terms {
    /// The most that is saved, in hundredths of a retry. At least two, without which the shares of
    /// requests would add up to a retry only with a loss.
    fn saved(self) -> u64 {
        let by_time = u64::from(self.per_second) * SAVED.as_secs();
        if self == (Self { percent: 0, per_second: 0 }) { 0 } else { by_time.max(2) * RETRY }
    }
}

/// The retries of one backend over all workers. Kept over reloads by the backend's name while its
/// terms are the same.
#[derive(Debug)]
pub struct Budget {
    terms: Terms,
    /// Earned by requests.
    shares: AtomicU64,
    /// Spent or expired; never ahead of what was earned by more than a reading that was late.
    gone: AtomicU64,
    refused: AtomicU64,
}

impl Budget {
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            shares: AtomicU64::default(),
            gone: AtomicU64::default(),
            refused: AtomicU64::default(),
        }
    }

    #[must_use]
    pub const fn terms(&self) -> Terms {
        self.terms
    }

    /// A request has come; its retries do not count as requests.
    pub fn request(&self) {
        self.shares.fetch_add(u64::from(self.terms.percent), Relaxed);
    }

    /// Whether one more request may be sent again. A refusal is counted.
    #[must_use]
    pub fn take(&self, now: Duration) -> bool {
        let saved = self.terms.saved();
        // Counted as if it had begun with everything saved that can be.
        let earned = saved + self.shares.load(Relaxed) + self.by_time(now);
        let taken = self.gone.fetch_update(Relaxed, Relaxed, |gone| {
            let gone = gone.max(earned.saturating_sub(saved)) + RETRY;
            (gone <= earned).then_some(gone)
        });
        if taken.is_err() {
            self.refused.fetch_add(1, Relaxed);
        }
        taken.is_ok()
    }

    /// How often there was nothing left.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn by_time(&self, now: Duration) -> u64 {
        let milliseconds = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        milliseconds.saturating_mul(u64::from(self.terms.per_second)) * RETRY / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::Mix;

    const SECOND: Duration = Duration::from_secs(1);

    fn granted(budget: &Budget, now: Duration, wanted: u64) -> u64 {
        (0..wanted).filter(|_| budget.take(now)).count() as u64
    }

    #[test]
    fn what_is_saved_is_ten_seconds_of_the_floor() {
        let budget = Budget::new(Terms::default());
        assert_eq!(granted(&budget, Duration::ZERO, 1_000), 100);
        assert_eq!(budget.refused(), 900);
        assert_eq!(granted(&budget, SECOND, 1_000), 10);
        assert_eq!(granted(&budget, SECOND + Duration::from_millis(99), 1_000), 0);
        assert_eq!(granted(&budget, SECOND + Duration::from_millis(100), 1_000), 1);
        assert_eq!(granted(&budget, 1_000 * SECOND, 1_000), 100);
    }

    #[test]
    fn each_hundred_requests_earn_their_share() {
        let budget = Budget::new(Terms { percent: 20, per_second: 0 });
        assert_eq!(granted(&budget, SECOND, 9), 2, "so that no share of one is lost");
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.request();
            retries += granted(&budget, SECOND, 3);
        }
        assert_eq!(retries, 200);
        let none = Budget::new(Terms { percent: 0, per_second: 0 });
        none.request();
        assert!(!none.take(1_000 * SECOND));
    }

    /// Load and failures that come and go at random: in no stretch of time are there more retries
    /// than the share, the floor and what was saved; and while everything fails, hardly fewer.
    #[test]
    fn no_stretch_has_more_and_an_outage_gets_its_due() {
        for seed in 0..32 {
            let mut mix = Mix::new(seed);
            let terms = Terms { percent: mix.below(50) as u32, per_second: mix.below(20) as u32 };
            let budget = Budget::new(terms);
            let saved = terms.saved() as f64 / RETRY as f64;
            // Requests, retries and the time after each step.
            let mut steps = vec![(0_u64, 0_u64, 0.0_f64)];
            let mut now = Duration::ZERO;
            for step in 0..400 {
                now += Duration::from_millis(mix.below(200));
                let outage = step >= 200;
                let load = mix.below(40);
                let failing = if outage { 100 } else { mix.below(100) };
                let (mut requests, mut retries, _) = steps[steps.len() - 1];
                for _ in 0..load {
                    budget.request();
                    requests += 1;
                    // A failed retry wants another one.
                    while mix.below(100) < failing && budget.take(now) {
                        retries += 1;
                    }
                }
                steps.push((requests, retries, now.as_secs_f64()));
            }
            let due = |from: usize, to: usize| {
                let (before, after) = (steps[from], steps[to]);
                (after.0 - before.0) as f64 * f64::from(terms.percent) / 100.0
                    + (after.2 - before.2) * f64::from(terms.per_second)
            };
            for from in 0..steps.len() {
                for to in from..steps.len() {
                    let made = (steps[to].1 - steps[from].1) as f64;
                    let most = due(from, to) + saved + 1.0;
                    assert!(made <= most, "seed {seed} {terms:?}: {made} > {most}");
                }
            }
            let made = (steps[400].1 - steps[200].1) as f64;
            let least = due(200, 400) - 1.0 - f64::from(terms.per_second) * 0.2;
            assert!(made >= least, "seed {seed} {terms:?}: {made} < {least}");
        }
    }

    #[test]
    fn workers_together_spend_no_more() {
        let budget = Budget::new(Terms { percent: 20, per_second: 0 });
        let retries: u64 = std::thread::scope(|scope| {
            let work = || {
                let one = |_: &u32| {
                    budget.request();
                    budget.take(SECOND)
                };
                (0..10_000_u32).filter(one).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap() as u64).sum()
        });
        assert!(retries <= 8_002, "{retries}");
    }
}
