//! Choosing one of several weighted targets: the variants of a route's `to:`.

use crate::mix::{Mix, scale};

/// Weighted targets, chosen by a random number or by a client's key. Unlike a
/// [`crate::Balancer`] it knows no health: a 90/10 split stays one, whatever the backends do.
#[derive(Clone, Debug)]
pub struct Split {
    /// Running sums of the weights; target `i` owns `[sums[i - 1], sums[i])`.
    sums: Box<[u64]>,
    /// What the target's name hashes to.
    marks: Box<[u64]>,
}

impl Split {
    /// Targets by what they are called and how much they weigh. `salt` is the name of the whole:
    /// without it a client would meet the same fate on all routes.
    #[must_use]
    pub fn new<'a>(salt: &str, targets: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        let mut sum = 0_u64;
        let (sums, marks): (Vec<_>, Vec<_>) = targets
            .into_iter()
            .map(|(name, weight)| {
                sum = sum.saturating_add(weight);
                (sum, fingerprint(salt, name))
            })
            .unzip();
        Self { sums: sums.into(), marks: marks.into() }
    }

    /// Whether every weight is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sums.last().is_none_or(|total| *total == 0)
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

    /// The target of one client, always the same while the weights are. When a weight is raised,
    /// clients move to that target and to no other; when it is lowered, only from it.
    ///
    /// Weighted rendezvous hashing: each target draws a number for the client by itself, of which
    /// its weight decides how large it may be, and the largest has the client.
    #[must_use]
    pub fn stick(&self, key: u64) -> Option<usize> {
        let mut best: Option<(f64, usize)> = None;
        for (at, mark) in self.marks.iter().enumerate() {
            let weight = self.weight(at);
            if weight == 0 {
                continue;
            }
            let drawn = Mix::new(key ^ mark).next();
            // Never 0 and never 1: 53 bits, and the middle of what they leave open.
            let uniform = ((drawn >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            let score = weight as f64 / -uniform.ln();
            if best.is_none_or(|(highest, _)| score > highest) {
                best = Some((score, at));
            }
        }
        best.map(|(_, at)| at)
    }

    /// What target `at` weighs.
    #[must_use]
    pub fn weight(&self, at: usize) -> u64 {
        let before = at.checked_sub(1).map_or(0, |before| self.sums[before]);
        self.sums[at] - before
    }
}

/// FNV-1a over both names.
fn fingerprint(salt: &str, name: &str) -> u64 {
    let bytes = salt.bytes().chain([0]).chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(weights: &[u64]) -> Split {
        Split::new("orders", ["a", "b", "c"].into_iter().zip(weights.iter().copied()))
    }

    #[test]
    fn shares_follow_the_weights_and_zero_gets_nothing() {
        let split = split(&[90, 0, 10]);
        let mut mix = Mix::new(7);
        let (mut drawn, mut stuck) = ([0_u32; 3], [0_u32; 3]);
        for _ in 0..100_000 {
            let number = mix.next();
            drawn[split.pick(number).unwrap()] += 1;
            stuck[split.stick(number).unwrap()] += 1;
        }
        for seen in [drawn, stuck] {
            assert!(seen[0].abs_diff(90_000) < 600 && seen[1] == 0, "seed 7: {seen:?}");
        }
    }

    #[test]
    fn the_ends_of_the_range_belong_to_the_outer_targets() {
        let even = split(&[1, 1]);
        assert_eq!((even.pick(0), even.pick(u64::MAX)), (Some(0), Some(1)));
        for none in [split(&[0, 0]), split(&[])] {
            assert_eq!((none.pick(3), none.stick(3)), (None, None));
            assert!(none.is_empty() && !split(&[0, 1]).is_empty());
        }
    }

    /// A client never goes back and forth while a canary grows, and none moves between the others.
    #[test]
    fn a_raised_weight_moves_clients_one_way_only() {
        let mut mix = Mix::new(11);
        let clients: Vec<u64> = (0..20_000).map(|_| mix.next()).collect();
        let mut before = split(&[60, 40, 0]);
        for weight in [1, 5, 25, 100, 400] {
            let after = split(&[60, 40, weight]);
            let mut moved = 0;
            for client in &clients {
                let (from, to) = (before.stick(*client).unwrap(), after.stick(*client).unwrap());
                assert!(from == to || to == 2, "seed 11: {client} went from {from} to {to}");
                moved += u32::from(from != to);
            }
            assert!(moved > 0, "seed 11: weight {weight}");
            before = after;
        }
        // Only their proportions count: the others shrink, and the same clients move.
        let (grown, shrunk) = (split(&[60, 40, 100]), split(&[30, 20, 50]));
        assert!(clients.iter().all(|client| grown.stick(*client) == shrunk.stick(*client)));
    }

    #[test]
    fn a_client_of_one_route_is_not_that_of_another() {
        let of = |salt| Split::new(salt, [("a", 1), ("b", 1)]);
        let (one, other) = (of("orders"), of("users"));
        let mut mix = Mix::new(3);
        let keys = (0..10_000).map(|_| mix.next());
        let same = keys.filter(|key| one.stick(*key) == other.stick(*key)).count();
        assert!(same.abs_diff(5_000) < 300, "seed 3: {same}");
    }
}
