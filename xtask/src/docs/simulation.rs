//! Requests that come, are given to an endpoint by the gateway's own balancer, and take their time:
//! a queue of events on a clock of its own, the same for the same seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_upstream::mix::Mix;
use portcullis_upstream::{
    Algorithm, Ask, Balancer, Endpoint, InFlight, Member, Settings, Tried, Verdict,
};

/// Measures are of windows of this length.
pub(crate) const WINDOW: f64 = 0.5;
/// When a clock begins, which may not be at zero: that is "never" for some.
const START: Duration = Duration::from_secs(1_000);

/// A measure over time: seconds, and what was measured.
pub(crate) type Course = Vec<(f64, f64)>;

/// What happens to the endpoints, at this second and by their clock.
pub(crate) type Happens<'a> = dyn FnMut(&[Arc<Endpoint>], f64, Duration) + 'a;

/// The world around a balancer.
pub(crate) struct World<'a> {
    pub(crate) seconds: f64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// How long a request takes at an endpoint at this second, in milliseconds.
    pub(crate) takes: &'a dyn Fn(usize, f64, &mut Mix) -> f64,
    /// What happens to the endpoints at each window's beginning, at this second.
    pub(crate) happens: &'a mut Happens<'a>,
    /// What a request is hashed by.
    pub(crate) key: &'a dyn Fn(&mut Mix) -> Option<u64>,
}

/// What was measured, by window.
pub(crate) struct Measured {
    /// Requests given to each endpoint, a second.
    pub(crate) given: Vec<Course>,
    /// Requests under way at each endpoint, at the end of the window.
    pub(crate) flying: Vec<Course>,
    /// Milliseconds.
    pub(crate) p99: Course,
}

/// A balancer over endpoints of these weights.
pub(crate) fn balancer(algorithm: Algorithm, weights: &[u32]) -> anyhow::Result<Balancer> {
    balancer_with(Settings { algorithm, ..Settings::default() }, weights)
}

/// The same with more than a way to choose.
pub(crate) fn balancer_with(settings: Settings, weights: &[u32]) -> anyhow::Result<Balancer> {
    let member = |(index, weight): (usize, &u32)| {
        let url = format!("http://endpoint-{index}");
        let endpoint = Arc::new(Endpoint::new(&url, index as u64));
        Member { endpoint, weight: *weight, place: None }
    };
    let members = weights.iter().enumerate().map(member).collect();
    Balancer::new(settings, members).map_err(Into::into)
}

pub(crate) fn at(second: f64) -> Duration {
    START + Duration::from_secs_f64(second)
}

/// No key, and nothing happens.
pub(crate) fn no_key(_: &mut Mix) -> Option<u64> {
    None
}

pub(crate) fn run(balancer: &Balancer, seed: u64, world: World<'_>) -> Measured {
    let World { seconds, rate, takes, happens, key } = world;
    let endpoints: Vec<Arc<Endpoint>> =
        balancer.members().iter().map(|member| Arc::clone(&member.endpoint)).collect();
    let mut mix = Mix::new(seed);
    // When, and how long it took; the guard is in the place of the same number.
    let mut due: BinaryHeap<Reverse<(Duration, usize, Duration)>> = BinaryHeap::new();
    let mut guards: Vec<Option<InFlight>> = Vec::new();
    let empty = || vec![Vec::new(); endpoints.len()];
    let mut measured = Measured { given: empty(), flying: empty(), p99: Vec::new() };
    let windows = (seconds / WINDOW) as usize;
    let mut request = 0.0;
    for window in 0..windows {
        let (begin, end) = (window as f64 * WINDOW, (window + 1) as f64 * WINDOW);
        happens(&endpoints, begin, at(begin));
        let mut given = vec![0_u32; endpoints.len()];
        let mut took = Vec::new();
        while request / rate < end {
            let second = request / rate;
            let now = at(second);
            while let Some(Reverse((when, number, time))) = due.peek().copied()
                && when <= now
            {
                due.pop();
                if let Some(mut guard) = guards[number].take() {
                    balancer.ended(&mut guard, Verdict::Well, time, when);
                }
            }
            request += 1.0;
            let ask = Ask { now, random: mix.next(), key: key(&mut mix), subset: None };
            let Some((index, guard)) = balancer.start(ask, &Tried::NONE) else { continue };
            let index = index.get();
            given[index] += 1;
            let time = Duration::from_secs_f64(takes(index, second, &mut mix) / 1e3);
            took.push(time);
            due.push(Reverse((now + time, guards.len(), time)));
            guards.push(Some(guard));
        }
        let middle = begin + WINDOW / 2.0;
        for (index, endpoint) in endpoints.iter().enumerate() {
            measured.given[index].push((middle, f64::from(given[index]) / WINDOW));
            measured.flying[index].push((middle, f64::from(endpoint.in_flight())));
        }
        measured.p99.push((middle, percentile(&mut took, 99)));
    }
    measured
}

/// In milliseconds.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Around `middle`, from half to one and a half of it.
pub(crate) fn around(middle: f64, mix: &mut Mix) -> f64 {
    middle * (0.5 + mix.below(1_000) as f64 / 1_000.0)
}
