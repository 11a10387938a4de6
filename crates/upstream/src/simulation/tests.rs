//! What the parts together do for requests.

use std::time::Duration;

use super::{START, Simulation, members};
use crate::balancer::{Algorithm, Settings};
use crate::breaker;
use crate::mix::Mix;
use crate::outlier;
use crate::verdict::Verdict;

const MINUTE: Duration = Duration::from_secs(60);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn of(algorithm: Algorithm) -> Settings {
    Settings { algorithm, ..Settings::default() }
}

/// One of four takes ten times as long: in turn it gets a quarter, which is then the tail.
#[test]
fn least_requests_has_a_shorter_tail_than_turns_where_one_is_slow() {
    for seed in 0..5 {
        let tail = |algorithm| {
            let mut simulation = Simulation::new(of(algorithm), members(4), seed);
            let manner = |endpoint, _, mix: &mut Mix| {
                let base = if endpoint == 2 { 200 } else { 20 };
                (millis(base / 2 + mix.below(base)), Verdict::Well)
            };
            simulation.run(START, MINUTE, 500, &manner).percentile(90)
        };
        let (turns, least) = (tail(Algorithm::RoundRobin), tail(Algorithm::LeastRequests));
        let ewma = tail(Algorithm::Ewma);
        assert!(least * 4 < turns, "seed {seed}: {least:?} against {turns:?}");
        assert!(ewma * 4 < turns, "seed {seed}: {ewma:?} against {turns:?}");
    }
}

/// It fails at once, and so looks idle and quick.
#[test]
fn ewma_does_not_take_quick_failures_for_quick_answers() {
    for seed in 0..5 {
        let settings = of(Algorithm::Ewma);
        let mut simulation = Simulation::new(settings, members(4), seed);
        let manner = |endpoint, _, mix: &mut Mix| match endpoint {
            1 => (millis(1), Verdict::Status),
            _ => (millis(20 + mix.below(40)), Verdict::Well),
        };
        let seen = simulation.run(START, MINUTE, 400, &manner);
        assert!(seen.share(1) < 0.02, "seed {seed}: {:?}", seen.requests);
    }
}

#[test]
fn one_bad_in_ten_costs_a_few_seconds_of_its_requests() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequests] {
        for seed in 0..5 {
            let settings = Settings { outliers: Some(outlier::Terms::default()), ..of(algorithm) };
            let mut simulation = Simulation::new(settings, members(10), seed);
            let manner = |endpoint, since: Duration, mix: &mut Mix| {
                let bad = endpoint == 3 && since > Duration::from_secs(20);
                let percent = if bad { 80 } else { 1 };
                let failed = mix.below(100) < percent;
                (millis(5 + mix.below(20)), if failed { Verdict::Status } else { Verdict::Well })
            };
            let seen = simulation.run(START, 5 * MINUTE, 200, &manner);
            let (first, endpoint) = seen.ejected[0];
            assert!(first <= Duration::from_secs(25) && endpoint == 3, "seed {seed}: {first:?}");
            assert!(seen.ejected.iter().all(|(_, endpoint)| *endpoint == 3), "seed {seed}");
            // Without it, one in ten of all requests would fail for most of the time.
            let share = f64::from(seen.failed) / seen.took.len() as f64;
            assert!(share < 0.025, "seed {seed}: {share} of {}", seen.took.len());
        }
    }
}

/// Of two endpoints one dies for half a minute: its breaker opens, tries it by few, and closes.
#[test]
fn the_breaker_of_an_endpoint_opens_probes_and_closes() {
    for seed in 0..5 {
        let breaker = Some(breaker::Terms::default());
        let settings = Settings { breaker, ..of(Algorithm::RoundRobin) };
        let mut simulation = Simulation::new(settings, members(2), seed);
        let manner = |endpoint, since: Duration, mix: &mut Mix| {
            let dead = endpoint == 0 && (10..40).contains(&since.as_secs());
            let took = millis(2 + mix.below(4));
            (took, if dead { Verdict::Error } else { Verdict::Well })
        };
        let seen = simulation.run(START, 2 * MINUTE, 100, &manner);
        let breaker = simulation.balancer.members()[0].endpoint.breaker();
        assert_eq!(breaker.state(), breaker::State::Closed, "seed {seed}");
        // At 5, 10 and 20 seconds it is asked again.
        assert!((2..=4).contains(&breaker.opened()), "seed {seed}: {}", breaker.opened());
        assert!(seen.failed < 700, "seed {seed}: {} failed", seen.failed);
        assert!(seen.requests[0] > 3_000, "seed {seed}: {:?}", seen.requests);
        assert_eq!(seen.refused, 0, "seed {seed}: the other one serves");
    }
}

#[test]
fn with_every_breaker_open_requests_are_refused_at_once() {
    let breaker = Some(breaker::Terms::default());
    let mut simulation =
        Simulation::new(Settings { breaker, ..Settings::default() }, members(3), 1);
    let manner = |_, _, _: &mut Mix| (millis(10), Verdict::Status);
    let seen = simulation.run(START, MINUTE, 100, &manner);
    assert!(seen.failed < 250, "{} failed", seen.failed);
    assert!(seen.refused > 5_000, "{} refused", seen.refused);
    let ask = crate::Ask { now: START + MINUTE, ..Default::default() };
    assert!(simulation.balancer.opens_in(&ask).is_some());
}
