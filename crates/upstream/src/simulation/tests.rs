//! What the parts together do for requests.

use std::sync::Arc;
use std::time::Duration;

use super::{START, Simulation, members};
use crate::balancer::{Algorithm, Member, Settings};
use crate::breaker;
use crate::mix::Mix;
use crate::outlier;
use crate::subset::Place;
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

fn placed(zones: &[&str]) -> Vec<Member> {
    let place = |zone: &&str| {
        let labels = [(Box::from("version"), Box::from(*zone))].into();
        Arc::new(Place { zone: Some((*zone).into()), labels })
    };
    let members = members(zones.len()).into_iter().zip(zones);
    members.map(|(member, zone)| Member { place: Some(place(zone)), ..member }).collect()
}

/// Six endpoints at home and six elsewhere; so many of those at home are down.
#[test]
fn a_zone_spills_over_what_it_cannot_carry() {
    let zones = [["home"; 6], ["away"; 6]].concat();
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequests, Algorithm::Ewma] {
        let mut shares = Vec::new();
        for down in 0..=6 {
            let zone = Some(crate::zone::Terms { own: "home".into(), well_min: 70 });
            let settings = Settings { zone, ..of(algorithm) };
            let mut simulation = Simulation::new(settings, placed(&zones), 5);
            for member in &simulation.balancer.members()[..down] {
                let settings = crate::HealthSettings::new(1);
                member.endpoint.adopt_health(Some(&settings), START);
                member.endpoint.check_ended(&settings, crate::Outcome::Fail, START);
            }
            let manner = |_, _, mix: &mut Mix| (millis(2 + mix.below(4)), Verdict::Well);
            let seen = simulation.run(START, MINUTE, 500, &manner);
            assert_eq!(seen.requests[..down].iter().sum::<u32>(), 0, "{algorithm:?} {down} down");
            let home: f64 = (0..6).map(|endpoint| seen.share(endpoint)).sum();
            shares.push((home * 100.0).round() as i64);
        }
        // 6/6, 5/6 and 4/6 of 70 %, and so on.
        for (share, expected) in shares.iter().zip([100, 100, 95, 71, 48, 24, 0]) {
            assert!(share.abs_diff(expected) <= 2, "seed 5 {algorithm:?}: {shares:?}");
        }
    }
}

#[test]
fn a_subset_is_kept_to_or_left_as_it_was_said() {
    use crate::subset::Subset;
    use crate::{Ask, Balancer, HealthSettings, Outcome, Tried};

    let version = |name: &str| [(Box::from("version"), Box::from(name))].into();
    let subsets = vec![version("v1"), version("v3")];
    let settings = Settings { subsets, ..of(Algorithm::RoundRobin) };
    let balancer = Balancer::new(settings, placed(&["v1", "v2", "v1"])).unwrap();
    let seen = |number, or_any| {
        let subset = Some(Subset { number, or_any });
        let ask = Ask { now: START, subset, ..Ask::default() };
        let mut seen = [0; 3];
        for _ in 0..60 {
            let started = balancer.start(ask, &Tried::NONE);
            started.into_iter().for_each(|(index, _)| seen[index.get()] += 1);
        }
        seen
    };
    assert_eq!(seen(0, false), [30, 0, 30]);
    assert_eq!(seen(1, false), [0, 0, 0], "nobody is v3");
    assert_eq!(seen(1, true), [20, 20, 20]);
    for at in [0, 2] {
        let check = HealthSettings::new(1);
        balancer.members()[at].endpoint.adopt_health(Some(&check), START);
        balancer.members()[at].endpoint.check_ended(&check, Outcome::Fail, START);
    }
    assert_eq!(seen(0, false), [30, 0, 30], "panic, within the subset");
    assert_eq!(seen(0, true)[1], 60 - seen(0, true)[0] * 2, "nobody of it is well");
}
