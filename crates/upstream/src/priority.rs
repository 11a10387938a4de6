//! Priorities: endpoints of the lowest number are used while enough of them are well, those of the
//! next where they are not (RFC 2782; others call them backup servers).
//!
//! Which endpoint within a priority, and what is held against one, is the balancer's business: each
//! priority is one of its own, over the same endpoints.

use std::time::Duration;

use crate::balancer::{Ask, Balancer, EndpointIndex, Member};
use crate::endpoint::Rank;
use crate::mix::Mix;
use crate::tried::Tried;

/// All of a backend's priorities, the first choice first.
#[derive(Debug)]
pub(crate) struct Priorities(Box<[Tier]>);

#[derive(Debug)]
struct Tier {
    number: u16,
    balancer: Balancer,
    /// Which members of the whole these are, in ascending order.
    members: Box<[u16]>,
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
    pub(crate) fn new(whole: &Balancer, numbers: &[u16]) -> Option<Self> {
        let mut distinct = numbers.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < 2 {
            return None;
        }
        let tier = |number: u16| {
            let numbered = whole.members().iter().zip(numbers).zip(0_u16..);
            let (members, indexes): (Vec<Member>, Vec<u16>) = numbered
                .filter(|((_, own), _)| **own == number)
                .map(|((member, _), index)| (member.clone(), index))
                .unzip();
            let balancer = Balancer::new(whole.settings().clone(), members).ok()?;
            Some(Tier { number, balancer, members: indexes.into() })
        };
        distinct.into_iter().map(tier).collect::<Option<_>>().map(Self)
    }

    pub(crate) fn pick(&self, ask: Ask, tried: &Tried) -> Option<EndpointIndex> {
        // By the key where there is one: whose requests return first does not change with each.
        let seed = ask.key.unwrap_or(ask.random);
        let chance = Mix::new(seed.rotate_left(32)).next() as f64 / u64::MAX as f64;
        self.choose(ask.now, chance, tried)?.pick(ask, tried)
    }

    /// The one that is used, or returned to.
    pub(crate) fn current(&self, now: Duration) -> Option<(u16, &Balancer)> {
        self.choose(now, 0.0, &Tried::NONE).map(|tier| (tier.number, &tier.balancer))
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
        let settings = self.balancer.settings();
        let (mut in_service, mut good) = (0_u32, 0_u32);
        let (mut weight, mut weight_good, mut ready) = (0.0, 0.0, 0.0);
        let mut best = Fitness::None;
        for (index, member) in self.balancer.candidates() {
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
            if !tried.contains(self.outer(index)) {
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

    fn pick(&self, ask: Ask, tried: &Tried) -> Option<EndpointIndex> {
        let mut own = Tried::NONE;
        for index in tried.iter().filter_map(|index| self.inner(index)) {
            if !own.insert(index) {
                return None;
            }
        }
        // Who was sent to another priority comes back with it.
        let home = ask.home.and_then(|home| self.inner(home));
        self.balancer.pick(Ask { home, ..ask }, &own).map(|index| self.outer(index))
    }

    fn outer(&self, index: EndpointIndex) -> EndpointIndex {
        EndpointIndex(self.members[index.get()])
    }

    fn inner(&self, index: EndpointIndex) -> Option<EndpointIndex> {
        self.members.binary_search(&index.0).ok().map(|at| EndpointIndex(at as u16))
    }
}

#[cfg(test)]
mod tests;
