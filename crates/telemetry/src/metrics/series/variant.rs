//! What is counted for a variant of a route.

use std::time::Duration;

use super::super::exposition::Exposition;
use super::super::histogram::{Histogram, LATENCY, Totals};
use super::super::names::Metric;
use super::super::shard::{Count, Sharded, WorkerId};
use super::{CLASSES, Series, class, micros};

pub type VariantSeries = Series<VariantShard>;

/// One worker's numbers of a variant.
#[derive(Debug, Default)]
pub struct VariantShard {
    requests: [Count; CLASSES.len()],
    duration: Histogram,
}

/// What a variant has done so far, over all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariantTotals {
    /// Those that were answered.
    pub requests: u64,
    /// Of them, by a 5xx, whoever made it.
    pub errors: u64,
    /// How long they took, by the buckets of [`LATENCY`].
    pub durations: Totals,
}

impl Series<VariantShard> {
    /// A request ended that was this variant's. A status of 0: its client was gone before.
    pub fn observe(&self, worker: &WorkerId, status: u16, took: Duration) {
        let shard = self.shards.of(worker);
        shard.requests[class(status)].add(1);
        if status != 0 {
            shard.duration.observe(&LATENCY, micros(took));
        }
    }

    #[must_use]
    pub fn totals(&self) -> VariantTotals {
        let of_class = |class: usize| self.shards.sum(|shard| &shard.requests[class]);
        VariantTotals {
            requests: (1..CLASSES.len()).map(of_class).sum(),
            errors: of_class(CLASSES.len() - 1),
            durations: Totals::of(self.shards.iter().map(|shard| &shard.duration)),
        }
    }
}

/// `name` is that of the route and that of the variant with a blank between, which neither has.
pub(crate) fn collect_variant(name: &str, shards: &Sharded<VariantShard>, out: &mut Exposition) {
    let (route, variant) = name.split_once(' ').unwrap_or((name, name));
    for (class, label) in CLASSES.iter().enumerate() {
        let count = shards.sum(|shard| &shard.requests[class]);
        if count > 0 {
            out.count(Metric::VariantRequests, &[route, variant, label], count);
        }
    }
    let totals = Totals::of(shards.iter().map(|shard| &shard.duration));
    if totals.count() > 0 {
        out.histogram(Metric::VariantDuration, &[route, variant], &LATENCY, &totals);
    }
}
