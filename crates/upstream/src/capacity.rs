//! How many connections a backend may have, and how many requests may wait for one.
//!
//! Counters only. Who waits, in which order and for how long is the pool's business; it holds a
//! [`Permit`] of `pending` while it waits and one of `connections` for as long as a connection
//! lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::bulkhead::Bulkhead;
use crate::gradient::{Adaptive, Sample};

/// Counts what is in use against a limit given at each call, so that a reload may change the limit
/// while permits are out. A lowered limit takes nothing back; it only grants no more until the
/// count has fallen below it.
#[derive(Debug, Default)]
pub struct Counter {
    used: AtomicU32,
    refused: AtomicU64,
}

impl Counter {
    /// A permit while fewer than `max` are out. A refusal is counted.
    #[must_use]
    pub fn try_acquire(self: &Arc<Self>, max: u32) -> Option<Permit> {
        let grown = self.used.fetch_update(Relaxed, Relaxed, |used| {
            if used < max { used.checked_add(1) } else { None }
        });
        if grown.is_err() {
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        Some(Permit { counter: Arc::clone(self) })
    }

    /// Permits that are out.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// How often the limit was hit.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

/// One unit of a [`Counter`], given back when dropped.
#[derive(Debug)]
pub struct Permit {
    counter: Arc<Counter>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counter.used.fetch_sub(1, Relaxed);
    }
}

/// What one backend holds over all workers. Kept over reloads by the backend's name.
#[derive(Debug, Default)]
pub struct Capacity {
    /// Requests under way, against `requests_max`, and those that wait for their turn.
    pub requests: Arc<Bulkhead>,
    /// How many of these there should be, where that is found out.
    pub adaptive: Adaptive,
    /// Open connections, busy and idle, against `connections_max`.
    pub connections: Arc<Counter>,
    /// Requests waiting for a connection, against `pending_max`.
    pub pending: Arc<Counter>,
}

impl Capacity {
    /// It is that of the snapshot that begins to serve, within so many requests.
    pub fn adopt(&self, is_adaptive: bool, requests_max: u32) {
        let ceiling = if is_adaptive { self.adaptive.limit(requests_max) } else { u32::MAX };
        self.requests.set_ceiling(ceiling);
    }

    /// An answer is here, or was waited for in vain, where concurrency is adaptive.
    pub fn answered(&self, took: Duration, now: Duration, requests_max: u32) {
        let sample = Sample { took, in_flight: self.requests.used(), now };
        self.requests.set_ceiling(self.adaptive.observe(sample, requests_max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_up_to_the_limit_and_takes_back_what_is_dropped() {
        let counter = Arc::new(Counter::default());
        let first = counter.try_acquire(2).unwrap();
        let second = counter.try_acquire(2).unwrap();
        assert!(counter.try_acquire(2).is_none());
        assert_eq!((counter.used(), counter.refused()), (2, 1));
        drop(first);
        assert!(counter.try_acquire(2).is_some());
        drop(second);
        assert_eq!(counter.used(), 0);
    }

    #[test]
    fn a_lowered_limit_grants_nothing_until_the_count_has_fallen() {
        let counter = Arc::new(Counter::default());
        let mut held: Vec<_> = (0..4).map(|_| counter.try_acquire(4).unwrap()).collect();
        assert!(counter.try_acquire(2).is_none());
        held.truncate(1);
        assert!(counter.try_acquire(2).is_some());
    }

    #[test]
    fn workers_together_never_exceed_the_limit() {
        let counter = Arc::new(Counter::default());
        let highest = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if let Some(_permit) = counter.try_acquire(3) {
                            highest.fetch_max(counter.used(), Relaxed);
                        }
                    }
                });
            }
        });
        assert!(highest.into_inner() <= 3);
        assert_eq!(counter.used(), 0);
    }
}
