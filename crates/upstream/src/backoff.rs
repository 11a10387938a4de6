//! How long a request waits before it is sent again.

use std::time::Duration;

use crate::mix::scale;

/// The longest wait before the first repetition; each further one may wait twice as long.
pub const FIRST: Duration = Duration::from_millis(25);
/// No wait is longer.
pub const LONGEST: Duration = Duration::from_millis(250);

/// The wait before the `retry`th repetition, counted from 1: anything from nothing to a bound that
/// doubles ("full jitter"), so that requests which failed together do not come back together.
/// `random` is spread over all of `u64`.
#[must_use]
pub fn wait(retry: u32, random: u64) -> Duration {
    let bound = FIRST.saturating_mul(1 << retry.saturating_sub(1).min(16)).min(LONGEST);
    Duration::from_nanos(scale(random, bound.as_nanos() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::Mix;

    #[test]
    fn waits_fill_a_bound_that_doubles_up_to_the_longest() {
        let mut mix = Mix::new(7);
        for (retry, bound) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (99, 250)] {
            let mut waits: Vec<_> = (0..4_000).map(|_| wait(retry, mix.next())).collect();
            waits.sort_unstable();
            let bound = Duration::from_millis(bound);
            assert!(waits[0] < bound / 50, "{retry}");
            assert!(*waits.last().unwrap() < bound, "{retry}");
            let middle = waits[2_000].as_secs_f64() / bound.as_secs_f64();
            assert!((0.47..0.53).contains(&middle), "{retry}: {middle}");
        }
    }
}
