//! Backends in a loop of virtual time: requests come, take as long as their endpoint takes, and
//! come to something. Only for tests, which print the seed when they fail.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use crate::balancer::{Ask, Balancer, Member, Settings};
use crate::endpoint::{Endpoint, InFlight};
use crate::listed::Listed;
use crate::mix::Mix;
use crate::outlier;
use crate::tried::Tried;
use crate::verdict::Verdict;

/// Where time begins.
pub(crate) const START: Duration = Duration::from_secs(1_000);

/// What one request to an endpoint takes and comes to.
pub(crate) type Manner<'a> = dyn Fn(usize, Duration, &mut Mix) -> (Duration, Verdict) + 'a;

pub(crate) struct Simulation {
    pub(crate) balancer: Balancer,
    /// Which subset all requests keep to.
    pub(crate) subset: Option<u16>,
    mix: Mix,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By endpoint.
    pub(crate) requests: Vec<u32>,
    pub(crate) failed: u32,
    /// Found no endpoint that may be given.
    pub(crate) refused: u32,
    pub(crate) took: Vec<Duration>,
    pub(crate) ejected: Vec<(Duration, usize)>,
}

impl Seen {
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        took[(took.len() * percent / 100).min(took.len() - 1)]
    }

    pub(crate) fn share(&self, endpoint: usize) -> f64 {
        f64::from(self.requests[endpoint]) / f64::from(self.requests.iter().sum::<u32>())
    }
}

pub(crate) fn members(count: usize) -> Vec<Member> {
    let member = |i: usize| Member {
        endpoint: Arc::new(Endpoint::new(&format!("http://{i}"), i as u64)),
        weight: 1,
    };
    (0..count).map(member).collect()
}

impl Simulation {
    pub(crate) fn new(settings: Settings, members: Vec<Member>, seed: u64) -> Self {
        let balancer = Balancer::new(settings, members).unwrap();
        Self { balancer, subset: None, mix: Mix::new(seed) }
    }

    /// Of members that are listed so, in this order.
    pub(crate) fn placed(settings: Settings, listed: &[Listed], seed: u64) -> Self {
        let endpoint = |one: &Listed| Arc::new(Endpoint::new(&one.url, seed));
        let member = |one| Member { endpoint: endpoint(one), weight: one.share() };
        let members = listed.iter().map(member).collect();
        let balancer = Balancer::placed(settings, members, listed).unwrap();
        Self { balancer, subset: None, mix: Mix::new(seed) }
    }

    /// `per_second` requests a second, at random times.
    pub(crate) fn run(
        &mut self,
        from: Duration,
        lasts: Duration,
        per_second: u64,
        manner: &Manner<'_>,
    ) -> Seen {
        let mut seen = Seen { requests: vec![0; self.balancer.members().len()], ..Seen::default() };
        let mut flying: BinaryHeap<Reverse<(Duration, usize)>> = BinaryHeap::new();
        let mut started: Vec<Option<(Duration, InFlight, Verdict)>> = Vec::new();
        let (mut now, mut judged) = (from, from);
        let end = from + lasts;
        while now < end {
            now += Duration::from_nanos(self.mix.below(2_000_000_000 / per_second));
            while judged + outlier::INTERVAL <= now {
                judged += outlier::INTERVAL;
                for (index, event) in self.balancer.judge(judged) {
                    if matches!(event, outlier::Event::Ejected { .. }) {
                        seen.ejected.push((judged - from, index.get()));
                    }
                }
            }
            while let Some(Reverse((at, number))) = flying.peek().copied()
                && at <= now
            {
                flying.pop();
                let (began, mut in_flight, verdict) = started[number].take().unwrap();
                self.balancer.ended(&mut in_flight, verdict, at - began, at);
                seen.took.push(at - began);
                seen.failed += u32::from(verdict.is_failure());
            }
            let subset = self.subset;
            let ask = Ask { now, random: self.mix.next(), subset, ..Ask::default() };
            let Some((index, in_flight)) = self.balancer.start(ask, &Tried::NONE) else {
                seen.refused += 1;
                continue;
            };
            seen.requests[index.get()] += 1;
            let (takes, verdict) = manner(index.get(), now - from, &mut self.mix);
            flying.push(Reverse((now + takes, started.len())));
            started.push(Some((now, in_flight, verdict)));
        }
        seen
    }
}

mod subsets;
mod tests;
mod zones;
