//! Histograms with fixed bounds: an observation is a few comparisons and two stores.

use super::shard::Count;

/// Buckets, the one without an upper bound included.
pub const BUCKETS: usize = 16;

/// Where the buckets end, in the unit that is counted, and as OpenMetrics wants them.
#[derive(Debug)]
pub struct Scale {
    /// Inclusive upper bounds, ascending.
    pub bounds: [u32; BUCKETS - 1],
    /// How many of the counted unit make one of the exposed unit.
    pub divisor: f64,
}

/// Microseconds, exposed as seconds: 0.25 ms to 15 s.
pub static LATENCY: Scale = Scale {
    bounds: [
        250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000, 15_000_000,
    ],
    divisor: 1e6,
};

/// Microseconds, exposed as seconds: 5 µs to 1 s. For what the gateway itself adds.
pub static ADDED: Scale = Scale {
    bounds: [
        5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
        1_000_000,
    ],
    divisor: 1e6,
};

/// Nanoseconds, exposed as seconds: 100 ns to 100 ms. For one policy.
pub static POLICY: Scale = Scale {
    bounds: [
        100,
        250,
        500,
        1_000,
        2_500,
        5_000,
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        10_000_000,
        100_000_000,
    ],
    divisor: 1e9,
};

/// Bytes: nothing at all, then 128 B to 2 GiB.
pub static SIZE: Scale = Scale {
    bounds: [
        0,
        128,
        512,
        1 << 10,
        1 << 12,
        1 << 14,
        1 << 16,
        1 << 18,
        1 << 20,
        1 << 22,
        1 << 24,
        1 << 26,
        1 << 28,
        1 << 30,
        1 << 31,
    ],
    divisor: 1.0,
};

/// One worker's histogram. Its scale is given at each use, so that it is nothing but numbers.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Count; BUCKETS],
    sum: Count,
}

impl Histogram {
    /// The bucket an observation falls into.
    pub fn observe(&self, scale: &Scale, value: u64) {
        let shown = u32::try_from(value).unwrap_or(u32::MAX);
        // Counting all bounds below is branch-free, and the compiler compares several at once.
        let bucket: usize = scale.bounds.iter().map(|bound| usize::from(shown > *bound)).sum();
        self.buckets[bucket.min(BUCKETS - 1)].add(1);
        self.sum.add(value);
    }
}

/// Histograms of several workers added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Not cumulative.
    pub buckets: [u64; BUCKETS],
    pub sum: u64,
}

impl Totals {
    pub fn add(&mut self, histogram: &Histogram) {
        for (total, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += bucket.get();
        }
        self.sum = self.sum.wrapping_add(histogram.sum.get());
    }

    #[must_use]
    pub fn of<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Self {
        let mut totals = Self::default();
        histograms.into_iter().for_each(|histogram| totals.add(histogram));
        totals
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_ascend_and_belong_to_the_bucket_below() {
        for scale in [&LATENCY, &ADDED, &POLICY, &SIZE] {
            assert!(scale.bounds.is_sorted_by(|a, b| a < b));
            let histogram = Histogram::default();
            for bound in scale.bounds {
                histogram.observe(scale, u64::from(bound));
            }
            histogram.observe(scale, u64::MAX);
            assert_eq!(Totals::of([&histogram]).buckets, [1; BUCKETS]);
        }
    }
}
