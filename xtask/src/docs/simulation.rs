//! Requests that come, are given to an endpoint by the gateway's own balancer, take their time and
//! come to something: a queue of events on a clock of its own, the same for the same seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_upstream::balancer::Settings;
use portcullis_upstream::mix::Mix;
use portcullis_upstream::{
    Algorithm, Ask, Balancer, Endpoint, InFlight, Member, Tried, Verdict, outlier,
};

/// Measures are of windows of this length.
pub(crate) const WINDOW: f64 = 0.5;
/// When a clock begins, which may not be at zero: that is "never" for some.
const START: Duration = Duration::from_secs(1_000);
const WINDOWS_A_SECOND: usize = 2;

/// A measure over time: seconds, and what was measured.
pub(crate) type Course = Vec<(f64, f64)>;

/// What happens to the endpoints, at this second and by their clock.
pub(crate) type Happens<'a> = dyn FnMut(&[Arc<Endpoint>], f64, Duration) + 'a;
/// How long a request takes at an endpoint at this second, in milliseconds, and what it comes to.
pub(crate) type Manner<'a> = dyn Fn(usize, f64, &mut Mix) -> (f64, Verdict) + 'a;

/// The world around a balancer.
pub(crate) struct World<'a> {
    pub(crate) seconds: usize,
    /// Requests a second.
    pub(crate) rate: f64,
    pub(crate) manner: &'a Manner<'a>,
    /// At each window's beginning.
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
    /// Requests of a hundred that failed, and that found no endpoint.
    pub(crate) failed: Course,
    pub(crate) refused: Course,
}

/// A balancer over endpoints of these weights.
pub(crate) fn balancer(settings: Settings, weights: &[u32]) -> anyhow::Result<Balancer> {
    let member = |(index, weight): (usize, &u32)| {
        let url = format!("http://endpoint-{index}");
        let endpoint = Arc::new(Endpoint::new(&url, index as u64));
        Member { endpoint, weight: *weight }
    };
    let members = weights.iter().enumerate().map(member).collect();
    Balancer::new(settings, members).map_err(Into::into)
}

pub(crate) fn by(algorithm: Algorithm) -> Settings {
    Settings { algorithm, ..Settings::default() }
}

pub(crate) fn at(second: f64) -> Duration {
    START + Duration::from_secs_f64(second)
}

/// No key.
pub(crate) fn no_key(_: &mut Mix) -> Option<u64> {
    None
}

/// What is in flight, by when it ends.
#[derive(Default)]
struct Flying {
    due: BinaryHeap<Reverse<(Duration, usize)>>,
    requests: Vec<Option<(InFlight, Verdict, Duration)>>,
}

impl Flying {
    fn begin(&mut self, now: Duration, took: Duration, verdict: Verdict, in_flight: InFlight) {
        self.due.push(Reverse((now + took, self.requests.len())));
        self.requests.push(Some((in_flight, verdict, took)));
    }

    fn end(&mut self, balancer: &Balancer, now: Duration) {
        while let Some(Reverse((when, number))) = self.due.peek().copied()
            && when <= now
        {
            self.due.pop();
            if let Some((mut in_flight, verdict, took)) = self.requests[number].take() {
                // What a breaker does shows in what it lets through.
                _ = balancer.ended(&mut in_flight, verdict, took, when);
            }
        }
    }
}

pub(crate) fn run(balancer: &Balancer, seed: u64, world: World<'_>) -> Measured {
    let World { seconds, rate, manner, happens, key } = world;
    let endpoints: Vec<Arc<Endpoint>> =
        balancer.members().iter().map(|member| Arc::clone(&member.endpoint)).collect();
    let (mut mix, mut flying) = (Mix::new(seed), Flying::default());
    let empty = || vec![Vec::new(); endpoints.len()];
    let (p99, failed, refused) = (Vec::new(), Vec::new(), Vec::new());
    let mut measured = Measured { given: empty(), flying: empty(), p99, failed, refused };
    let (mut request, mut judged) = (0.0, at(0.0));
    for window in 0..seconds * WINDOWS_A_SECOND {
        let (begin, end) = (window as f64 * WINDOW, (window + 1) as f64 * WINDOW);
        happens(&endpoints, begin, at(begin));
        let mut given = vec![0_u32; endpoints.len()];
        let (mut took, mut asked, mut failed, mut refused) = (Vec::new(), 0_u32, 0_u32, 0_u32);
        while request / rate < end {
            let second = request / rate;
            let now = at(second);
            while judged + outlier::INTERVAL <= now {
                judged += outlier::INTERVAL;
                balancer.judge(judged);
            }
            flying.end(balancer, now);
            request += 1.0;
            asked += 1;
            let ask = Ask { now, random: mix.next(), key: key(&mut mix), ..Ask::default() };
            let Some((index, in_flight)) = balancer.start(ask, &Tried::NONE) else {
                refused += 1;
                continue;
            };
            given[index.get()] += 1;
            let (millis, verdict) = manner(index.get(), second, &mut mix);
            let time = Duration::from_secs_f64(millis / 1e3);
            failed += u32::from(verdict.is_failure());
            took.push(time);
            flying.begin(now, time, verdict, in_flight);
        }
        let middle = begin + WINDOW / 2.0;
        for (index, endpoint) in endpoints.iter().enumerate() {
            measured.given[index].push((middle, f64::from(given[index]) / WINDOW));
            measured.flying[index].push((middle, f64::from(endpoint.in_flight())));
        }
        let percent = |count: u32| f64::from(count) * 100.0 / f64::from(asked.max(1));
        measured.p99.push((middle, percentile(&mut took, 99)));
        measured.failed.push((middle, percent(failed)));
        measured.refused.push((middle, percent(refused)));
    }
    measured
}

/// In milliseconds.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// An answer that is well, after about so long.
pub(crate) fn well(middle: f64, mix: &mut Mix) -> (f64, Verdict) {
    (around(middle, mix), Verdict::Well)
}

/// Around `middle`, from half to one and a half of it.
pub(crate) fn around(middle: f64, mix: &mut Mix) -> f64 {
    middle * (0.5 + mix.below(1_000) as f64 / 1_000.0)
}
