//! What a zone keeps of its requests, and what of them goes elsewhere.

use std::time::Duration;

use super::{START, Seen, Simulation};
use crate::balancer::{Algorithm, Ask, Balancer, EndpointIndex, Settings};
use crate::endpoint::Service;
use crate::health::{HealthSettings, Outcome};
use crate::listed::Listed;
use crate::mix::Mix;
use crate::tried::Tried;
use crate::verdict::Verdict;
use crate::zone::Terms;

const SECOND: Duration = Duration::from_secs(1);

fn preferring(algorithm: Algorithm) -> Settings {
    let zone = Some(Terms { own: "home".into(), load: None, load_max: 140 });
    Settings { algorithm, zone, ..Settings::default() }
}

/// Zones, and how many endpoints are in each; the one called `-` is none.
type Zones<'a> = &'a [(&'a str, usize)];

fn places(zones: Zones<'_>) -> Vec<Listed> {
    let all = zones.iter().flat_map(|(zone, count)| std::iter::repeat_n(*zone, *count));
    let listed = all.enumerate().map(|(index, zone)| Listed {
        zone: Some(Box::from(zone)).filter(|zone| **zone != *"-"),
        ..Listed::new(&format!("http://{index}"))
    });
    listed.collect()
}

fn take_down(balancer: &Balancer, index: usize) {
    let check = HealthSettings::new(1);
    balancer.members()[index].endpoint.adopt_health(Some(&check), START);
    balancer.members()[index].endpoint.check_ended(&check, Outcome::Fail, START);
}

fn quick(_: usize, _: Duration, mix: &mut Mix) -> (Duration, Verdict) {
    (Duration::from_millis(2 + mix.below(4)), Verdict::Well)
}

/// The part of the requests that went to the first so many endpoints.
fn part(seen: &Seen, first: usize) -> f64 {
    (0..first).map(|endpoint| seen.share(endpoint)).sum()
}

/// By how many of the own zone and of the others are down, what stays at home, in per cent.
#[test]
fn a_zone_keeps_what_it_can_carry() {
    let two_zones = [("home", 6), ("away", 6)];
    let cases: [(Zones<'_>, usize, usize, f64); 14] = [
        (&two_zones, 0, 0, 100.0),
        (&two_zones, 1, 0, 100.0),
        (&two_zones, 2, 0, 93.3),
        (&two_zones, 3, 0, 70.0),
        (&two_zones, 4, 0, 50.0),
        (&two_zones, 5, 0, 28.6),
        (&two_zones, 6, 0, 0.0),
        // Elsewhere it is no better.
        (&two_zones, 3, 3, 100.0),
        (&two_zones, 0, 6, 100.0),
        // Too small from the start, and large.
        (&[("home", 2), ("away", 10)], 0, 0, 46.7),
        (&[("home", 10), ("away", 2)], 0, 0, 100.0),
        (&[("home", 4), ("away", 4), ("far", 4)], 2, 0, 70.0),
        (&[("home", 4), ("-", 4)], 0, 0, 100.0),
        (&[("away", 4), ("far", 4)], 0, 0, 50.0),
    ];
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequests, Algorithm::Ewma] {
        for (seed, (zones, down, down_elsewhere, stays)) in (0..).zip(cases) {
            let listed = places(zones);
            let mut simulation = Simulation::placed(preferring(algorithm), &listed, seed);
            let home = zones[0].1;
            for index in (0..down).chain(home..home + down_elsewhere) {
                take_down(&simulation.balancer, index);
            }
            let seen = simulation.run(START, 60 * SECOND, 500, &quick);
            let stayed = part(&seen, home) * 100.0;
            let case = format!("seed {seed} {algorithm:?} {zones:?} {down}: {stayed}");
            assert!((stayed - stays).abs() < 1.5, "{case}");
            let to_down: u32 = seen.requests[..down].iter().sum();
            assert_eq!((to_down, seen.refused), (0, 0), "{case}");
        }
    }
}

/// Worlds at random, in which a gateway of each zone sends as much as those of the others: nothing
/// goes to who is down, nobody gets more of his own zone than he may, and nothing goes across for
/// nothing.
#[test]
fn nobody_is_overloaded_by_the_gateways_of_his_zone() {
    for seed in 0..60 {
        let mut mix = Mix::new(seed);
        let names = ["home", "away", "far"];
        let zones = 2 + mix.below(2) as usize;
        let mut listed = Vec::new();
        for name in &names[..zones] {
            let more = places(&[(name, 1 + mix.below(5) as usize)]);
            listed.extend(more);
        }
        for (index, one) in listed.iter_mut().enumerate() {
            one.url = format!("http://{index}").into();
            one.weight = 1 + mix.below(3) as u32;
        }
        let simulation = Simulation::placed(preferring(Algorithm::RoundRobin), &listed, seed);
        let balancer = &simulation.balancer;
        let down: Vec<bool> = listed.iter().map(|_| mix.below(4) == 0).collect();
        (0..listed.len()).filter(|index| down[*index]).for_each(|index| take_down(balancer, index));
        let Some(share) = balancer.own_zone_share(START) else { continue };
        let weigh = |is: &dyn Fn(usize) -> bool| -> f64 {
            let which = (0..listed.len()).filter(|index| is(*index));
            which.map(|index| f64::from(listed[index].weight)).sum()
        };
        let at_home = |index: usize| listed[index].zone.as_deref() == Some("home");
        let (all, well) = (weigh(&|_| true), weigh(&|index| !down[index]));
        let own = weigh(&|index| at_home(index) && !down[index]);
        let most = f64::max(1.4 / all, 1.0 / well);
        let load = share / zones as f64;
        assert!(load <= own * most + 0.001, "seed {seed}: {load} for {own} of {well} of {all}");
        let fuller = load >= own * most - 0.001 || share > 0.9999;
        assert!(fuller, "seed {seed}: {share} stay, {own} of {well} of {all} could take more");
        for _ in 0..200 {
            let ask = Ask { now: START, random: mix.next(), ..Ask::default() };
            let index = balancer.pick(ask, &Tried::NONE).unwrap().get();
            assert!(!down[index], "seed {seed}: {index} is down");
        }
    }
}

#[test]
fn more_is_borne_and_more_comes_where_that_is_said() {
    let stays = |load, load_max| {
        let zone = Some(Terms { own: "home".into(), load, load_max });
        let settings = Settings { zone, ..Settings::default() };
        let simulation = Simulation::placed(settings, &places(&[("home", 2), ("away", 6)]), 1);
        (simulation.balancer.own_zone_share(START).unwrap() * 100.0).round()
    };
    assert_eq!(stays(None, 140), 70.0);
    assert_eq!(stays(None, 100), 50.0);
    assert_eq!(stays(None, 1000), 100.0);
    assert_eq!(stays(Some(25), 140), 100.0);
    assert_eq!(stays(Some(100), 140), 35.0);
}

/// What is new or back carries little at first.
#[test]
fn a_zone_that_comes_back_gets_its_requests_back_slowly() {
    let settings = Settings { slow_start: 30 * SECOND, ..preferring(Algorithm::LeastRequests) };
    let mut simulation = Simulation::placed(settings, &places(&[("home", 3), ("away", 3)]), 4);
    for index in 0..3 {
        simulation.balancer.members()[index].endpoint.adopt(true, START);
    }
    let shares: Vec<i64> = (0..4)
        .map(|part_of| {
            let seen = simulation.run(START + part_of * 10 * SECOND, 10 * SECOND, 400, &quick);
            (part(&seen, 3) * 100.0).round() as i64
        })
        .collect();
    assert!(shares.is_sorted(), "seed 4: {shares:?}");
    assert!((20..45).contains(&shares[0]) && shares[3] == 100, "seed 4: {shares:?}");
}

/// A tenth of what is well is not to get it all, be that here or elsewhere.
#[test]
fn zones_do_not_count_where_too_few_are_good() {
    let listed = places(&[("home", 4), ("away", 4)]);
    let mut simulation = Simulation::placed(preferring(Algorithm::RoundRobin), &listed, 2);
    for index in 1..8 {
        take_down(&simulation.balancer, index);
    }
    assert_eq!(simulation.balancer.own_zone_share(START), None);
    let seen = simulation.run(START, 10 * SECOND, 400, &quick);
    assert!((part(&seen, 4) - 0.5).abs() < 0.02, "seed 2: {:?}", seen.requests);
}

#[test]
fn what_an_operator_takes_out_is_carried_by_the_others() {
    let listed = places(&[("home", 4), ("away", 4)]);
    let mut simulation = Simulation::placed(preferring(Algorithm::LeastRequests), &listed, 3);
    simulation.balancer.members()[0].endpoint.set_service(Service::Draining);
    simulation.balancer.members()[1].endpoint.set_service(Service::Disabled);
    let seen = simulation.run(START, 20 * SECOND, 400, &quick);
    assert_eq!(seen.requests[..2], [0, 0]);
    assert!((part(&seen, 4) - 0.7).abs() < 0.03, "seed 3: {:?}", seen.requests);
}

/// A key has one zone and one endpoint of it. As the zone loses endpoints, keys only leave it.
#[test]
fn a_key_stays_in_its_zone_for_as_long_as_that_has_room() {
    let listed = places(&[("home", 4), ("away", 4)]);
    let at = |down: usize| {
        let settings = preferring(Algorithm::Hash);
        let simulation = Simulation::placed(settings, &listed, 1);
        (0..down).for_each(|index| take_down(&simulation.balancer, index));
        let of = |key: u64| {
            let ask = |random| Ask { now: START, random, key: Some(key), ..Ask::default() };
            let index = simulation.balancer.pick(ask(1), &Tried::NONE).unwrap().get();
            assert_eq!(simulation.balancer.pick(ask(2), &Tried::NONE).unwrap().get(), index);
            index
        };
        (0..400).map(|key| of(Mix::new(key).next())).collect::<Vec<_>>()
    };
    let all: Vec<Vec<usize>> = (0..4).map(at).collect();
    assert!(all[0].iter().all(|index| *index < 4));
    for (before, after) in all.iter().zip(&all[1..]) {
        assert!(before.iter().zip(after).all(|(old, new)| *old < 4 || old == new));
    }
    let left = all[3].iter().filter(|index| **index >= 4).count();
    assert!((220..260).contains(&left), "{left} of 400");
}

/// At home first, then elsewhere, and everybody before nobody; a client's cookie counts for more
/// than his zone.
#[test]
fn another_try_stays_at_home_while_somebody_is_left_there() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequests, Algorithm::Hash] {
        let listed = places(&[("home", 3), ("away", 3)]);
        let simulation = Simulation::placed(preferring(algorithm), &listed, 1);
        let balancer = &simulation.balancer;
        for random in 0..50 {
            let ask = Ask { now: START, random, key: Some(random), ..Ask::default() };
            let mut tried = Tried::NONE;
            let mut order = Vec::new();
            while let Some(index) = balancer.pick(ask, &tried) {
                assert!(tried.insert(index));
                order.push(index.get());
            }
            let elsewhere = order.iter().map(|index| *index >= 3);
            assert!(order.len() == 6 && elsewhere.is_sorted(), "{algorithm:?} {order:?}");
            let ask = Ask { home: Some(EndpointIndex(4)), ..ask };
            assert_eq!(balancer.pick(ask, &Tried::NONE), Some(EndpointIndex(4)));
        }
    }
}

/// Where all are on one side there is nothing to prefer.
#[test]
fn one_zone_is_all_of_it() {
    for (zone, share) in [("home", 1.0), ("away", 0.0), ("-", 0.0)] {
        let listed = places(&[(zone, 3)]);
        let mut simulation = Simulation::placed(preferring(Algorithm::RoundRobin), &listed, 1);
        let seen = simulation.run(START, SECOND, 300, &quick);
        assert_eq!(seen.refused, 0);
        assert_eq!(simulation.balancer.own_zone_share(START), Some(share));
        let is_own = simulation.balancer.is_in_own_zone(EndpointIndex(0));
        assert_eq!(is_own, Some(zone == "home"));
    }
}

/// Priorities come first, and zones count within each.
#[test]
fn the_own_zone_of_a_priority_that_is_used() {
    let mut listed = places(&[("home", 2), ("away", 2), ("home", 2), ("away", 2)]);
    for one in &mut listed[..4] {
        one.priority = 1;
    }
    let mut simulation = Simulation::placed(preferring(Algorithm::RoundRobin), &listed, 6);
    let used = |simulation: &mut Simulation, from: u32| {
        let seen = simulation.run(START + from * SECOND, 10 * SECOND, 300, &quick);
        (0..8).filter(|index| seen.requests[*index] > 0).collect::<Vec<_>>()
    };
    assert_eq!(used(&mut simulation, 0), [4, 5]);
    (4..8).for_each(|index| take_down(&simulation.balancer, index));
    assert_eq!(used(&mut simulation, 20), [0, 1]);
    let own = |index| simulation.balancer.is_in_own_zone(EndpointIndex(index));
    assert_eq!([own(0), own(2), own(4), own(7)].map(Option::unwrap), [true, false, true, false]);
}
