//! Priorities: endpoints of the lowest number are used while enough of them are well, those of the
//! next where they are not (RFC 2782; others call them backup servers).
//!
//! Which endpoint within a priority, and what is held against one, is the balancer's business: each
//! priority is one of its own, over the same endpoints.

use std::time::Duration;

use crate::balancer::{Ask, Balancer, EndpointIndex, Settings};
use crate::endpoint::Rank;
use crate::listed::Listed;
use crate::mix::Mix;
use crate::part::Part;
use crate::tried::Tried;

/// All of a backend's priorities, the first choice first.
#[derive(Debug)]
pub(crate) struct Priorities(Box<[Tier]>);

#[derive(Debug)]
struct Tier {
    number: u16,
    part: Part,
}

/// How much may be expected of a priority; more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    /// Nothing in it may be given.
    None,
    /// All that is left is down by its checks.
    Down,
    /// A connection to each that is left failed a moment ago, or they are outliers.
    Aside,
    /// Some are well, fewer than the panic threshold asks for.
    Few,
    Fit,
}

impl Priorities {
    /// `None` where all have the same number.
    pub(crate) fn new(whole: &Balancer, listed: &[Listed]) -> Option<Self> {
        let mut numbers: Vec<u16> = listed.iter().map(|one| one.priority).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.len() < 2 {
            return None;
        }
        let tier = |number| {
            let settings = Settings { subsets: Vec::new(), ..whole.settings().clone() };
            let part = Part::new(settings, whole.members(), listed, |one| one.priority == number);
            part.map(|part| Tier { number, part })
        };
        numbers.into_iter().map(tier).collect::<Option<_>>().map(Self)
    }

    /// As [`Balancer::is_in_own_zone`].
    pub(crate) fn is_in_own_zone(&self, index: EndpointIndex) -> Option<bool> {
        let inside = |tier: &Tier| tier.part.balancer.is_in_own_zone(tier.part.inner(index)?);
        self.0.iter().find_map(inside)
    }

    pub(crate) fn pick(&self, ask: Ask, tried: &Tried) -> Option<EndpointIndex> {
        // By the key where there is one: whose requests return first does not change with each.
        let seed = ask.key.unwrap_or(ask.random);
        let chance = Mix::new(seed.rotate_left(32)).next() as f64 / u64::MAX as f64;
        self.choose(ask.now, chance, tried)?.part.pick(ask, tried)
    }

    /// The one that is used, or returned to.
    pub(crate) fn current(&self, now: Duration) -> Option<(u16, &Balancer)> {
        self.choose(now, 0.0, &Tried::NONE).map(|tier| (tier.number, &tier.part.balancer))
    }

    /// The first that is fit; if none is, the first of those of which most may be expected. One
    /// that comes back from a failure gets requests as its endpoints do from a slow start, since
    /// all of them may be new at once; `chance` is spread over the unit interval.
    fn choose(&self, now: Duration, chance: f64, tried: &Tried) -> Option<&Tier> {
        let mut best = (Fitness::None, None);
        for tier in &self.0 {
            let (fitness, share) = tier.look(now, tried);
            if fitness == Fitness::Fit && chance <= share {
                return Some(tier);
            }
            if fitness > best.0 {
                best = (fitness, Some(tier));
            }
        }
        best.1
    }
}

impl Tier {
    /// What may be expected of it, and which share of the requests it can take so soon.
    fn look(&self, now: Duration, tried: &Tried) -> (Fitness, f64) {
        let settings = self.part.balancer.settings();
        let (mut in_service, mut good) = (0_u32, 0_u32);
        let (mut weight, mut weight_good, mut ready) = (0.0, 0.0, 0.0);
        let mut best = Fitness::None;
        for (index, member) in self.part.balancer.candidates() {
            let fitness = match member.endpoint.rank(now) {
                Rank::Good => Fitness::Few,
                Rank::Aside => Fitness::Aside,
                Rank::Down => Fitness::Down,
                _ => continue,
            };
            in_service += 1;
            weight += f64::from(member.weight);
            if fitness == Fitness::Few {
                good += 1;
                let share = member.endpoint.share(settings.slow_start, now);
                weight_good += f64::from(member.weight);
                ready += share * f64::from(member.weight);
            }
            if !tried.contains(self.part.outer(index)) {
                best = best.max(fitness);
            }
        }
        let enough = settings.panic_threshold.min(100);
        if best == Fitness::Few && good * 100 >= in_service * enough {
            best = Fitness::Fit;
        }
        // What some can do while others are missing, all can do while they start slowly.
        let needed = match enough {
            0 => weight_good,
            _ => f64::min(weight_good, weight * f64::from(enough) / 100.0),
        };
        (best, ready / needed)
    }
}

#[cfg(test)]
mod tests;
