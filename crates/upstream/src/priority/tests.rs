//! Fail-over and back, by hand and by simulations, which print their seed when they fail.

use std::sync::Arc;

use super::*;
use crate::balancer::{Algorithm, Member, Settings};
use crate::endpoint::{Endpoint, Service};
use crate::health::{HealthSettings, Outcome};

const NOW: Duration = Duration::from_secs(1_000);
const ALL: [Algorithm; 4] =
    [Algorithm::RoundRobin, Algorithm::LeastRequests, Algorithm::Ewma, Algorithm::Hash];

fn balancer(settings: Settings, numbers: &[u16]) -> Balancer {
    let member = |i: usize| Member {
        endpoint: Arc::new(Endpoint::new(&format!("http://{i}"), i as u64)),
        weight: 1,
    };
    let members = (0..numbers.len()).map(member).collect();
    let listed = |priority: &u16| Listed { priority: *priority, ..Listed::new("http://a") };
    let listed: Vec<_> = numbers.iter().map(listed).collect();
    Balancer::placed(settings, members, &listed).unwrap()
}

fn of(algorithm: Algorithm, numbers: &[u16]) -> Balancer {
    balancer(Settings { algorithm, ..Settings::default() }, numbers)
}

fn check(balancer: &Balancer, at: usize, outcome: Outcome, now: Duration) {
    let settings = HealthSettings::new(1);
    let endpoint = &balancer.members()[at].endpoint;
    endpoint.adopt_health(Some(&settings), now);
    for _ in 0..2 {
        endpoint.check_ended(&settings, outcome, now);
    }
}

/// How often each member was picked.
fn picks(balancer: &Balancer, seed: u64, count: u32, now: Duration) -> Vec<u32> {
    let mut mix = Mix::new(seed);
    let mut seen = vec![0; balancer.members().len()];
    for _ in 0..count {
        let ask = Ask { now, random: mix.next(), key: Some(mix.next()), ..Ask::default() };
        seen[balancer.pick(ask, &Tried::NONE).unwrap().get()] += 1;
    }
    seen
}

/// Who was picked at all.
fn used(balancer: &Balancer, now: Duration) -> Vec<usize> {
    let seen = picks(balancer, 7, 400, now);
    (0..seen.len()).filter(|at| seen[*at] > 0).collect()
}

#[test]
fn the_next_takes_over_where_too_few_are_well_and_gives_back() {
    for algorithm in ALL {
        let balancer = of(algorithm, &[20, 10, 30, 10, 20, 10]);
        let all = |now| (used(&balancer, now), balancer.priority(now));
        assert_eq!(all(NOW), (vec![1, 3, 5], Some(10)), "{algorithm:?}");
        check(&balancer, 1, Outcome::Fail, NOW);
        assert_eq!(all(NOW), (vec![3, 5], Some(10)), "{algorithm:?}: two of three will do");
        check(&balancer, 3, Outcome::Fail, NOW);
        assert_eq!(all(NOW), (vec![0, 4], Some(20)), "{algorithm:?}: one of three will not");
        check(&balancer, 0, Outcome::Fail, NOW);
        check(&balancer, 4, Outcome::Fail, NOW);
        assert_eq!(all(NOW), (vec![2], Some(30)), "{algorithm:?}");
        check(&balancer, 2, Outcome::Fail, NOW);
        // None is fit: of those that have somebody who is well the first, and then its panic.
        assert_eq!(all(NOW), (vec![1, 3, 5], Some(10)), "{algorithm:?}");
        assert!(balancer.is_panicking(NOW));
        check(&balancer, 5, Outcome::Fail, NOW);
        assert_eq!(all(NOW), (vec![1, 3, 5], Some(10)), "{algorithm:?}: nobody is well");
        check(&balancer, 4, Outcome::Pass, NOW);
        assert_eq!(all(NOW), (vec![4], Some(20)), "{algorithm:?}");
        assert!(!balancer.is_panicking(NOW));
        check(&balancer, 1, Outcome::Pass, NOW);
        check(&balancer, 3, Outcome::Pass, NOW);
        assert_eq!(all(NOW), (vec![1, 3], Some(10)), "{algorithm:?}");
    }
}

#[test]
fn a_threshold_of_none_leaves_only_who_has_nobody() {
    let settings = Settings { panic_threshold: 0, ..Settings::default() };
    let balancer = balancer(settings, &[0, 0, 0, 1]);
    for (at, expected) in [(0, vec![1, 2]), (1, vec![2]), (2, vec![3])] {
        check(&balancer, at, Outcome::Fail, NOW);
        assert_eq!(used(&balancer, NOW), expected);
    }
}

#[test]
fn one_priority_is_none() {
    assert_eq!(of(Algorithm::RoundRobin, &[3, 3]).priority(NOW), None);
}

#[test]
fn who_is_drained_or_cannot_be_connected_to_is_made_up_for() {
    let balancer = of(Algorithm::LeastRequests, &[0, 0, 1]);
    balancer.members()[0].endpoint.set_service(Service::Draining);
    assert_eq!(used(&balancer, NOW), [1], "whoever is drained is not missing");
    balancer.members()[1].endpoint.connect_failed(NOW);
    assert_eq!(used(&balancer, NOW), [2]);
    // One request may try whether it is back.
    let later = NOW + crate::passive::ASIDE_FIRST;
    let ask = Ask { now: later, ..Ask::default() };
    let first = balancer.start(ask, &Tried::NONE).map(|(index, _)| index.get());
    assert_eq!((first, used(&balancer, later)), (Some(1), vec![2]));
    balancer.members()[1].endpoint.connected();
    assert_eq!(used(&balancer, later), [1]);
}

#[test]
fn another_try_stays_in_its_priority_as_long_as_it_can() {
    for algorithm in ALL {
        let balancer = of(algorithm, &[1, 0, 1, 0]);
        let mut tried = Tried::default();
        let mut order = Vec::new();
        let ask = Ask { now: NOW, random: 5, key: Some(5), ..Ask::default() };
        while let Some(index) = balancer.pick(ask, &tried) {
            assert!(tried.insert(index));
            order.push(index.get() % 2);
        }
        assert_eq!(order, [1, 1, 0, 0], "{algorithm:?}");
    }
}

#[test]
fn a_client_that_stays_comes_back_from_where_it_was_sent() {
    let balancer = of(Algorithm::LeastRequests, &[0, 0, 1, 1]);
    for home in 0..4 {
        let ask = Ask { now: NOW, home: Some(EndpointIndex(home)), ..Ask::default() };
        let at = balancer.pick(ask, &Tried::NONE).unwrap();
        assert!(if home < 2 { at.0 == home } else { at.0 < 2 }, "{home}: {at:?}");
    }
}

#[test]
fn a_priority_that_is_back_gets_its_requests_little_by_little() {
    let seed = 19;
    let slow_start = Duration::from_secs(30);
    let balancer = balancer(Settings { slow_start, ..Settings::default() }, &[0, 0, 1, 1]);
    for at in [0, 1] {
        check(&balancer, at, Outcome::Fail, NOW);
        check(&balancer, at, Outcome::Pass, NOW);
    }
    // Half of them would be enough, so that it has all by half of the time.
    for (seconds, expected) in [(0, 0.2), (6, 0.4), (12, 0.8), (15, 1.0), (40, 1.0)] {
        let seen = picks(&balancer, seed, 10_000, NOW + Duration::from_secs(seconds));
        let share = f64::from(seen[0] + seen[1]) / 10_000.0;
        assert!((share - expected).abs() < 0.02, "seed {seed}: {share} after {seconds} s");
    }
    // With nobody else to send them to, all at once.
    check(&balancer, 2, Outcome::Fail, NOW);
    check(&balancer, 3, Outcome::Fail, NOW);
    assert_eq!(used(&balancer, NOW), [0, 1]);
}

/// Endpoints of three priorities that fail and return as they like: each request goes to the first
/// priority that is fit, whatever is tried never again, and nobody is refused whom somebody could
/// serve.
#[test]
fn simulated_failures_never_send_a_request_past_a_fit_priority() {
    for seed in 0..60 {
        let mut mix = Mix::new(seed);
        let count = 2 + mix.below(10) as usize;
        let numbers: Vec<u16> = (0..count).map(|_| mix.below(3) as u16).collect();
        let algorithm = ALL[mix.below(4) as usize];
        let balancer = of(algorithm, &numbers);
        let mut well = vec![true; count];
        let (mut served, mut moved, mut last) = (0, 0, None);
        for step in 0..400 {
            let now = NOW + Duration::from_millis(step * 50);
            let at = mix.below(count as u64) as usize;
            well[at] = mix.below(3) > 0;
            let outcome = if well[at] { Outcome::Pass } else { Outcome::Fail };
            check(&balancer, at, outcome, now);
            let (numbers, well) = (&numbers, &well);
            let group = |number: u16| (0..count).filter(move |at| numbers[*at] == number);
            let is_fit = |number: u16| {
                let (all, good) = (group(number).count(), group(number).filter(|at| well[*at]));
                all > 0 && good.count() * 2 >= all
            };
            let ask = Ask { now, random: mix.next(), key: Some(mix.next()), ..Ask::default() };
            let picked = balancer.pick(ask, &Tried::NONE).map(EndpointIndex::get);
            let context = || format!("seed {seed}, step {step}, {algorithm:?}: {picked:?}");
            let at = picked.unwrap_or_else(|| panic!("{}", context()));
            match (0..3).find(|number| is_fit(*number)) {
                Some(first) => {
                    assert_eq!(numbers[at], first, "{}", context());
                    assert!(well[at], "{}", context());
                    served += 1;
                    moved += u32::from(last.replace(first).is_some_and(|last| last != first));
                }
                None if well.contains(&true) => {
                    let somebody = (0..3).find(|number| group(*number).any(|at| well[at]));
                    assert_eq!(Some(numbers[at]), somebody, "{}", context());
                }
                None => assert_eq!(numbers.iter().min(), Some(&numbers[at]), "{}", context()),
            }
        }
        let mixed = numbers.iter().any(|number| *number != numbers[0]);
        assert!(served > 0 && (!mixed || moved > 0), "seed {seed}: nothing was simulated");
    }
}
