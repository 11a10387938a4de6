//! Choosing one of several weighted targets: the backends of a route's `to:`.

use crate::mix::scale;

/// Weighted targets, chosen by a random number. Unlike a [`crate::Balancer`] it knows no health:
/// a 90/10 split stays one, whatever the backends do.
#[derive(Clone, Debug)]
pub struct Split {
    /// Running sums of the weights; target `i` owns `[sums[i - 1], sums[i])`.
    sums: Box<[u64]>,
}

impl Split {
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut sum = 0;
        let sums = weights.into_iter().map(|weight| {
            sum += u64::from(weight);
            sum
        });
        Self { sums: sums.collect() }
    }

    /// The target for a number spread over all of `u64`; `None` when every weight is 0.
    #[must_use]
    pub fn pick(&self, random: u64) -> Option<usize> {
        let total = *self.sums.last()?;
        if total == 0 {
            return None;
        }
        let point = scale(random, total);
        Some(self.sums.partition_point(|sum| *sum <= point))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::Mix;

    #[test]
    fn shares_follow_the_weights_and_zero_gets_nothing() {
        let split = Split::new([90, 0, 10]);
        let mut mix = Mix::new(7);
        let mut seen = [0_u32; 3];
        for _ in 0..100_000 {
            seen[split.pick(mix.next()).unwrap()] += 1;
        }
        assert!(seen[0].abs_diff(90_000) < 600 && seen[1] == 0, "seed 7: {seen:?}");
    }

    #[test]
    fn the_ends_of_the_range_belong_to_the_outer_targets() {
        let split = Split::new([1, 1]);
        assert_eq!((split.pick(0), split.pick(u64::MAX)), (Some(0), Some(1)));
        assert_eq!(Split::new([0, 0]).pick(3), None);
        assert_eq!(Split::new([]).pick(3), None);
    }
}
