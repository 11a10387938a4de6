//! How long the slowest twentieth of a backend's answers takes, lately.
//!
//! A histogram of fixed size whose buckets are an eighth of an octave wide, so that what it says is
//! at most an eighth too much. When it is full all of it is halved: what was long ago counts for
//! ever less, and nothing depends on a clock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The shortest time that is told apart, in microseconds, as a power of two.
const SHORTEST: u32 = 6;
/// From 64 µs over 21 octaves: two minutes.
const OCTAVES: u32 = 21;
/// Of one octave, as a power of two.
const PARTS: u32 = 3;
const BUCKETS: usize = (OCTAVES << PARTS) as usize;
/// Half of what is known is forgotten when there are so many.
const FULL: u32 = 1_024;
/// The tail is worked out again after so many answers; before the first so many it is not known.
const STEP: u32 = 32;

/// The tail of one backend, over all its workers, which write it without a lock: an answer that is
/// lost is one of many.
#[derive(Debug)]
pub struct Tail {
    buckets: [AtomicU32; BUCKETS],
    count: AtomicU32,
    /// Nanoseconds; 0 while it is not known.
    p95: AtomicU64,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            count: AtomicU32::new(0),
            p95: AtomicU64::new(0),
        }
    }
}

impl Tail {
    /// An answer took so long, or was given up after so long: then it took longer, which is not
    /// known, and leaving it out would make the backend look quick just when it is slow.
    pub fn observe(&self, took: Duration) {
        self.buckets[bucket(took)].fetch_add(1, Relaxed);
        let count = self.count.fetch_add(1, Relaxed) + 1;
        if !count.is_multiple_of(STEP) {
            return;
        }
        self.work_out();
        // Whoever comes first halves it.
        if count >= FULL && self.count.swap(FULL / 2, Relaxed) >= FULL {
            for bucket in &self.buckets {
                // What arrives between the two stays half forgotten.
                bucket.store(bucket.load(Relaxed) / 2, Relaxed);
            }
        }
    }

    /// What nineteen of twenty answers do not exceed; `None` before there are enough of them.
    #[must_use]
    pub fn p95(&self) -> Option<Duration> {
        match self.p95.load(Relaxed) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    fn work_out(&self) {
        let all: u64 = self.buckets.iter().map(|bucket| u64::from(bucket.load(Relaxed))).sum();
        let mut beyond = all / 20;
        for (index, bucket) in self.buckets.iter().enumerate().rev() {
            let here = u64::from(bucket.load(Relaxed));
            if here > beyond {
                self.p95.store(end(index).as_nanos() as u64, Relaxed);
                return;
            }
            beyond -= here;
        }
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1 << SHORTEST);
    let octave = micros.ilog2();
    let part = (micros >> (octave - PARTS)) & ((1 << PARTS) - 1);
    let index = u64::from((octave - SHORTEST) << PARTS) + part;
    (index as usize).min(BUCKETS - 1)
}

/// The longest time that is counted in a bucket.
fn end(index: usize) -> Duration {
    let octave = (index >> PARTS) as u32 + SHORTEST;
    let part = (index & ((1 << PARTS) - 1)) as u64 + 1;
    Duration::from_micros((1 << octave) + (part << (octave - PARTS)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, Terms};
    use crate::mix::Mix;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn it_is_not_known_before_there_are_enough() {
        let tail = Tail::default();
        for _ in 1..STEP {
            tail.observe(ms(10));
        }
        assert_eq!(tail.p95(), None);
        tail.observe(ms(10));
        assert!(tail.p95().is_some());
    }

    #[test]
    fn what_it_says_is_right_but_for_an_eighth() {
        for seed in 0..64 {
            let mut mix = Mix::new(seed);
            let scale = 1 << mix.below(20);
            let tail = Tail::default();
            let mut all: Vec<Duration> = Vec::new();
            for _ in 0..FULL / 2 {
                let took = Duration::from_micros(100 + mix.below(100) * scale);
                all.push(took);
                tail.observe(took);
            }
            all.sort_unstable();
            let (said, right) = (tail.p95().unwrap(), all[all.len() * 95 / 100]);
            assert!(said >= right && said <= right * 9 / 8, "seed {seed}: {said:?} for {right:?}");
        }
        let tail = Tail::default();
        (0..STEP).for_each(|_| tail.observe(Duration::MAX));
        assert!(tail.p95().unwrap() > Duration::from_secs(60), "the last bucket takes the rest");
    }

    #[test]
    fn it_follows_a_backend_that_turns_slow_or_quick() {
        let tail = Tail::default();
        (0..100 * FULL).for_each(|_| tail.observe(ms(10)));
        assert!(tail.p95().unwrap() < ms(12));
        (0..FULL).for_each(|_| tail.observe(ms(500)));
        assert!(tail.p95().unwrap() > ms(450));
        (0..5 * FULL).for_each(|_| tail.observe(ms(10)));
        assert!(tail.p95().unwrap() < ms(12));
    }

    /// One answer in thirty takes a hundred times as long. Asking a second endpoint after the p95
    /// takes the hundredth percentile down to a few times the middle, for a twentieth more
    /// requests; and when everything turns slow, hardly anything is asked twice.
    #[test]
    fn a_hedge_cuts_the_tail_and_costs_a_twentieth() {
        for seed in 0..16 {
            let mut mix = Mix::new(seed);
            let (tail, budget) = (Tail::default(), Budget::new(Terms::default()));
            let mut now = Duration::ZERO;
            let mut run = |slow: u64, count: u64| {
                let mut answers = Vec::new();
                let mut hedges = 0;
                for _ in 0..count {
                    now += ms(1);
                    budget.request();
                    let mut takes = || {
                        let quick = 1_000 + mix.below(1_000);
                        Duration::from_micros(if mix.below(slow) == 0 {
                            quick * 100
                        } else {
                            quick
                        })
                    };
                    let first = takes();
                    let after = tail.p95().filter(|after| first > *after && budget.take(now));
                    let second = after.map(|after| (after, after + takes()));
                    let answer = second.map_or(first, |(_, second)| second.min(first));
                    hedges += u64::from(second.is_some());
                    tail.observe(answer.min(first));
                    answers.push(answer);
                }
                answers.sort_unstable();
                (answers[answers.len() * 99 / 100], hedges as f64 / count as f64)
            };
            run(30, 10_000);
            let (p99, hedges) = run(30, 20_000);
            assert!(p99 < ms(6), "seed {seed}: {p99:?}");
            assert!((0.01..0.08).contains(&hedges), "seed {seed}: {hedges}");
            run(1, 4_000);
            let (_, hedges) = run(1, 20_000);
            assert!(hedges < 0.08, "seed {seed}: {hedges}");
        }
    }
}
