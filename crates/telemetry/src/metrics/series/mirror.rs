//! What is counted for a route's mirror: what became of copies, and how their answers differ from
//! those that count.

use std::time::Duration;

use super::super::exposition::Exposition;
use super::super::histogram::{Histogram, LATENCY, SIZE, Totals};
use super::super::names::Metric;
use super::super::shard::{Count, Sharded, WorkerId};
use super::{CLASSES, Series, class, micros};

pub type MirrorSeries = Series<MirrorShard>;

labels! {
    /// What became of a copy that was sent.
    CopyResult { Answered = "answered", Failed = "failed", Late = "late", }
}

labels! {
    /// Why no copy of a request was sent that was drawn for the mirror.
    NoCopy {
        // Of the request.
        UnsafeMethod = "unsafe_method", Upgrade = "upgrade", BodyMax = "body_max",
        Overloaded = "overloaded",
        // Of its answer.
        Unanswered = "unanswered", Unfinished = "unfinished",
        // Of the queue and the mirror.
        QueueFull = "queue_full", Expired = "expired", Busy = "busy", BreakerOpen = "breaker_open",
        Unavailable = "unavailable",
    }
}

/// One worker's numbers of a mirror.
#[derive(Debug, Default)]
pub struct MirrorShard {
    results: [Count; CopyResult::ALL.len()],
    skipped: [Count; NoCopy::ALL.len()],
    /// By class of the status that counts, then of the mirror's.
    statuses: [[Count; CLASSES.len()]; CLASSES.len()],
    statuses_differ: Count,
    sizes: Histogram,
    slower: Histogram,
    faster: Histogram,
}

impl Series<MirrorShard> {
    pub fn sent(&self, worker: &WorkerId, result: CopyResult) {
        self.shards.of(worker).results[result as usize].add(1);
    }

    pub fn skipped(&self, worker: &WorkerId, reason: NoCopy) {
        self.shards.of(worker).skipped[reason as usize].add(1);
    }

    /// Both have answered: the backend that counts with a status and the head after so long, then
    /// the mirror.
    pub fn answered(&self, worker: &WorkerId, real: (u16, Duration), mirror: (u16, Duration)) {
        let shard = self.shards.of(worker);
        shard.statuses[class(real.0)][class(mirror.0)].add(1);
        shard.statuses_differ.add(u64::from(real.0 != mirror.0));
        let slower = mirror.1 > real.1;
        let histogram = if slower { &shard.slower } else { &shard.faster };
        histogram.observe(&LATENCY, micros(mirror.1.abs_diff(real.1)));
    }

    /// Their statuses are the same, and those of gRPC are not.
    pub fn differs(&self, worker: &WorkerId) {
        self.shards.of(worker).statuses_differ.add(1);
    }

    /// Two bodies have ended whose heads had the same status.
    pub fn sized(&self, worker: &WorkerId, real: u64, mirror: u64) {
        self.shards.of(worker).sizes.observe(&SIZE, mirror.abs_diff(real));
    }
}

pub(crate) fn collect_mirror(name: &str, shards: &Sharded<MirrorShard>, out: &mut Exposition) {
    for result in CopyResult::ALL {
        let count = shards.sum(|shard| &shard.results[*result as usize]);
        out.count(Metric::MirrorRequests, &[name, result.label()], count);
    }
    for reason in NoCopy::ALL {
        let count = shards.sum(|shard| &shard.skipped[*reason as usize]);
        out.count(Metric::MirrorSkipped, &[name, reason.label()], count);
    }
    for (real, class) in CLASSES.iter().enumerate() {
        for (mirror, mirror_class) in CLASSES.iter().enumerate() {
            let count = shards.sum(|shard| &shard.statuses[real][mirror]);
            if count > 0 {
                out.count(Metric::MirrorStatuses, &[name, class, mirror_class], count);
            }
        }
    }
    let differ = shards.sum(|shard| &shard.statuses_differ);
    out.count(Metric::MirrorStatusDifferences, &[name], differ);
    let sizes = Totals::of(shards.iter().map(|shard| &shard.sizes));
    if sizes.count() > 0 {
        out.histogram(Metric::MirrorSizeDifference, &[name], &SIZE, &sizes);
    }
    let mut latency = |mirror, of: fn(&MirrorShard) -> &Histogram| {
        let totals = Totals::of(shards.iter().map(of));
        if totals.count() > 0 {
            out.histogram(Metric::MirrorLatencyDifference, &[name, mirror], &LATENCY, &totals);
        }
    };
    latency("slower", |shard| &shard.slower);
    latency("faster", |shard| &shard.faster);
}
