//! Requests that keep to some labels, and what they do when nobody has them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{START, Simulation};
use crate::balancer::{Algorithm, Ask, EndpointIndex, Settings};
use crate::endpoint::Service;
use crate::health::{HealthSettings, Outcome};
use crate::listed::Listed;
use crate::mix::Mix;
use crate::subset::{Standing, Terms};
use crate::tried::Tried;
use crate::verdict::Verdict;
use crate::zone;

const ALL: [Algorithm; 4] =
    [Algorithm::RoundRobin, Algorithm::LeastRequests, Algorithm::Ewma, Algorithm::Hash];

fn labels(version: &str) -> BTreeMap<Box<str>, Box<str>> {
    [("version".into(), version.into())].into()
}

fn versions(versions: &[&str]) -> Vec<Listed> {
    let listed = versions.iter().enumerate().map(|(index, version)| Listed {
        labels: if version.is_empty() { BTreeMap::new() } else { labels(version) },
        ..Listed::new(&format!("http://{index}"))
    });
    listed.collect()
}

fn keeping(algorithm: Algorithm, version: &str) -> Settings {
    let terms = |or_any| Terms { labels: labels(version), or_any };
    Settings { algorithm, subsets: vec![terms(false), terms(true)], ..Settings::default() }
}

/// `refuse` and `any`, by their numbers.
const REFUSE: Option<u16> = Some(0);
const ANY: Option<u16> = Some(1);

fn check(simulation: &Simulation, index: usize, outcome: Outcome) {
    let check = HealthSettings::new(1);
    let endpoint = &simulation.balancer.members()[index].endpoint;
    endpoint.adopt_health(Some(&check), START);
    for _ in 0..2 {
        endpoint.check_ended(&check, outcome, START);
    }
}

/// Who gets requests, and how many get none.
fn used(simulation: &mut Simulation, subset: Option<u16>) -> (Vec<usize>, u32) {
    simulation.subset = subset;
    let quick =
        |_: usize, _, mix: &mut Mix| (Duration::from_millis(1 + mix.below(3)), Verdict::Well);
    let seen = simulation.run(START, Duration::from_secs(2), 200, &quick);
    let used = (0..seen.requests.len()).filter(|index| seen.requests[*index] > 0);
    (used.collect(), seen.refused)
}

#[test]
fn a_subset_is_kept_to_or_left_as_is_said() {
    for algorithm in ALL {
        let listed = versions(&["v1", "v2", "v1", "v2", ""]);
        let mut simulation = Simulation::placed(keeping(algorithm, "v2"), &listed, 3);
        let everybody = (vec![0, 1, 2, 3, 4], 0);
        assert_eq!(used(&mut simulation, None), everybody, "{algorithm:?}");
        assert_eq!(used(&mut simulation, REFUSE), (vec![1, 3], 0), "{algorithm:?}");
        assert_eq!(used(&mut simulation, ANY), (vec![1, 3], 0), "{algorithm:?}");
        check(&simulation, 1, Outcome::Fail);
        assert_eq!(used(&mut simulation, REFUSE), (vec![3], 0), "{algorithm:?}");
        assert_eq!(used(&mut simulation, ANY), (vec![3], 0), "{algorithm:?}");
        // Nobody believes that all are down, but where others are well they are asked.
        check(&simulation, 3, Outcome::Fail);
        assert_eq!(used(&mut simulation, REFUSE), (vec![1, 3], 0), "{algorithm:?}");
        assert_eq!(used(&mut simulation, ANY), (vec![0, 2, 4], 0), "{algorithm:?}");
        let standing = Standing { endpoints: 2, usable: 0 };
        assert!(simulation.balancer.subsets(START).all(|(_, now)| now == standing));
        check(&simulation, 3, Outcome::Pass);
        assert_eq!(used(&mut simulation, ANY), (vec![3], 0), "{algorithm:?}");
        // Who is taken out is not asked at all.
        for index in [1, 3] {
            simulation.balancer.members()[index].endpoint.set_service(Service::Draining);
        }
        let (nobody, refused) = used(&mut simulation, REFUSE);
        assert!(nobody.is_empty() && refused > 300, "{algorithm:?}: {refused}");
        assert_eq!(used(&mut simulation, ANY), (vec![0, 2, 4], 0), "{algorithm:?}");
    }
}

#[test]
fn a_subset_that_nobody_is_in_is_empty() {
    for listed in [versions(&["v1", ""]), Vec::new()] {
        let mut simulation = Simulation::placed(keeping(Algorithm::Hash, "v2"), &listed, 1);
        let (nobody, refused) = used(&mut simulation, REFUSE);
        assert!(nobody.is_empty() && refused > 300, "{refused}");
        let any = used(&mut simulation, ANY).0;
        assert_eq!(any.len(), listed.len());
        let standing = simulation.balancer.subsets(START).next().unwrap().1;
        assert_eq!(standing, Standing { endpoints: 0, usable: 0 });
    }
}

/// Worlds at random: what is refused has nobody, what is given has the labels or nobody has them,
/// nothing is tried twice, and everybody who may be asked is asked in the end.
#[test]
fn no_request_leaves_its_subset_while_somebody_is_well_in_it() {
    for seed in 0..60 {
        let mut mix = Mix::new(seed);
        let count = 1 + mix.below(8) as usize;
        let names: Vec<&str> =
            (0..count).map(|_| ["v1", "v2", ""][mix.below(3) as usize]).collect();
        let mut listed = versions(&names);
        for one in &mut listed {
            one.priority = mix.below(2) as u16;
            one.zone = Some(["home", "away"][mix.below(2) as usize].into());
        }
        let zone = zone::Terms { own: "home".into(), load: None, load_max: 140 };
        let algorithm = ALL[mix.below(4) as usize];
        let settings = Settings { zone: Some(zone), ..keeping(algorithm, "v2") };
        let simulation = Simulation::placed(settings, &listed, seed);
        let down: Vec<bool> = (0..count).map(|_| mix.below(3) == 0).collect();
        (0..count).filter(|at| down[*at]).for_each(|at| check(&simulation, at, Outcome::Fail));
        let inside = |at: usize| names[at] == "v2";
        let well = (0..count).any(|at| inside(at) && !down[at]);
        for subset in [REFUSE, ANY] {
            let (random, home) = (mix.next(), Some(EndpointIndex(mix.below(count as u64) as u16)));
            let ask = Ask { now: START, random, key: Some(random), home, subset };
            let mut tried = Tried::NONE;
            let mut order = Vec::new();
            while let Some(index) = simulation.balancer.pick(ask, &tried) {
                assert!(!tried.contains(index) && tried.insert(index), "seed {seed}");
                order.push(index.get());
            }
            let context = format!("seed {seed} {algorithm:?} {names:?} {down:?}: {order:?}");
            let expected = match subset == REFUSE {
                true => (0..count).filter(|at| inside(*at)).count(),
                false => count,
            };
            assert_eq!(order.len(), expected, "{context}");
            assert!(subset == ANY || order.iter().all(|at| inside(*at)), "{context}");
            if subset == ANY && well {
                let first = order[0];
                assert!(inside(first) && !down[first], "{context}");
            }
        }
    }
}
