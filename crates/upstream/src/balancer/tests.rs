//! Simulations of picks; each prints its seed when it fails.

use proptest::prelude::*;

use super::*;
use crate::endpoint::{InFlight, Service};
use crate::health::{HealthSettings, Outcome};

const ALL: [Algorithm; 4] =
    [Algorithm::RoundRobin, Algorithm::LeastRequests, Algorithm::Ewma, Algorithm::Hash];

const NOW: Duration = Duration::from_secs(1_000);

fn balancer(algorithm: Algorithm, weights: &[u32]) -> Balancer {
    let members = weights.iter().enumerate().map(|(i, weight)| Member {
        endpoint: Arc::new(Endpoint::new(&format!("http://{i}"), i as u64)),
        weight: *weight,
    });
    Balancer::new(settings(algorithm), members.collect()).unwrap()
}

fn settings(algorithm: Algorithm) -> Settings {
    Settings { algorithm, ..Settings::default() }
}

fn ask(random: u64) -> Ask {
    Ask { now: NOW, random, ..Ask::default() }
}

fn take_down(endpoint: &Endpoint) {
    let settings = HealthSettings::new(1);
    endpoint.adopt_health(Some(&settings), NOW);
    endpoint.check_ended(&settings, Outcome::Fail, NOW);
}

/// How often each member was picked.
fn picks(balancer: &Balancer, seed: u64, count: u32) -> Vec<u32> {
    let mut mix = Mix::new(seed);
    let mut seen = vec![0; balancer.members().len()];
    for _ in 0..count {
        seen[balancer.pick(ask(mix.next()), &Tried::NONE).unwrap().get()] += 1;
    }
    seen
}

#[track_caller]
fn assert_shares(seen: &[u32], weights: &[u32], tolerance: f64, seed: u64) {
    let (picked, total) = (seen.iter().sum::<u32>(), weights.iter().sum::<u32>());
    for (count, weight) in seen.iter().zip(weights) {
        let expected = f64::from(picked) * f64::from(*weight) / f64::from(total);
        let error = (f64::from(*count) - expected).abs() / f64::from(picked);
        assert!(error <= tolerance, "seed {seed}: {seen:?} for weights {weights:?}");
    }
}

#[test]
fn round_robin_takes_turns_exactly_by_weight() {
    let weights = [5, 0, 3, 2];
    let seen = picks(&balancer(Algorithm::RoundRobin, &weights), 1, 1_000);
    assert_eq!(seen, [500, 0, 300, 200]);
}

#[test]
fn turns_of_a_failed_endpoint_go_to_the_others_by_weight() {
    let balancer = balancer(Algorithm::RoundRobin, &[4, 3, 2, 1]);
    take_down(&balancer.members()[0].endpoint);
    assert_shares(&picks(&balancer, 1, 6_000), &[0, 3, 2, 1], 0.005, 1);
}

#[test]
fn idle_endpoints_share_by_weight_under_least_requests() {
    let weights = [60, 30, 0, 10];
    let seen = picks(&balancer(Algorithm::LeastRequests, &weights), 11, 100_000);
    assert_shares(&seen, &weights, 0.01, 11);
}

#[test]
fn least_requests_keeps_away_from_a_slow_endpoint() {
    let balancer = balancer(Algorithm::LeastRequests, &[1, 1, 1, 1]);
    let slow = &balancer.members()[2].endpoint;
    let _stuck: Vec<_> = (0..100).map(|_| slow.start_request()).collect();
    let seen = picks(&balancer, 5, 10_000);
    assert_eq!(seen[2], 0, "of two that differ the idle one is always chosen: {seen:?}");
}

/// A closed system: 200 requests in flight, one finishes at random, another one starts.
#[test]
fn load_settles_in_proportion_to_the_weights() {
    let seed = 23;
    let weights = [8, 4, 2, 1];
    let balancer = balancer(Algorithm::LeastRequests, &weights);
    let mut mix = Mix::new(seed);
    let mut flying: Vec<InFlight> = Vec::new();
    for _ in 0..20_000 {
        if flying.len() == 200 {
            flying.swap_remove(mix.below(200) as usize);
        }
        let index = balancer.pick(ask(mix.next()), &Tried::NONE).unwrap();
        flying.push(balancer.endpoint(index).start_request());
    }
    let held: Vec<u32> = balancer.members().iter().map(|m| m.endpoint.in_flight()).collect();
    assert_shares(&held, &weights, 0.04, seed);
}

#[test]
fn below_half_healthy_all_are_used() {
    for algorithm in ALL {
        let balancer = balancer(algorithm, &[1; 4]);
        take_down(&balancer.members()[0].endpoint);
        take_down(&balancer.members()[1].endpoint);
        let seen = picks(&balancer, 3, 400);
        assert_eq!(&seen[..2], [0, 0], "half are left: {algorithm:?} {seen:?}");
        take_down(&balancer.members()[2].endpoint);
        let seen = picks(&balancer, 3, 400);
        assert!(seen.iter().all(|count| *count > 60), "panic: {algorithm:?} {seen:?}");
    }
}

#[test]
fn the_panic_threshold_is_what_it_is_set_to() {
    // Of four, how many are down when all are used.
    for (panic_threshold, expected) in [(0, None), (25, None), (26, Some(3)), (100, Some(1))] {
        let all = balancer(Algorithm::RoundRobin, &[1; 4]);
        let settings = Settings { panic_threshold, ..settings(Algorithm::RoundRobin) };
        let balancer = Balancer::new(settings, all.members().to_vec()).unwrap();
        let found = (1..4).find(|down| {
            take_down(&balancer.members()[down - 1].endpoint);
            let seen = picks(&balancer, 3, 40);
            assert_eq!(balancer.is_panicking(NOW), seen[0] > 0);
            seen[0] > 0
        });
        assert_eq!(found, expected, "{panic_threshold} %");
    }
}

#[test]
fn failed_connections_put_aside_at_most_half_and_never_bring_back_the_unhealthy() {
    for algorithm in ALL {
        let balancer = balancer(algorithm, &[1; 4]);
        let endpoint = |i: usize| &balancer.members()[i].endpoint;
        take_down(endpoint(0));
        endpoint(1).connect_failed(NOW);
        assert_eq!(&picks(&balancer, 9, 400)[..2], [0, 0]);
        endpoint(2).connect_failed(NOW);
        let seen = picks(&balancer, 9, 400);
        assert_eq!(seen[0], 0, "{algorithm:?} {seen:?}");
        assert!(seen[1] > 60 && seen[2] > 60 && seen[3] > 60, "{algorithm:?} {seen:?}");
    }
}

#[test]
fn the_last_endpoint_is_used_whatever_is_held_against_it() {
    for algorithm in ALL {
        let balancer = balancer(algorithm, &[1]);
        let only = &balancer.members()[0].endpoint;
        only.connect_failed(NOW);
        take_down(only);
        assert_eq!(picks(&balancer, 1, 5), [5], "{algorithm:?}");
    }
}

#[test]
fn an_endpoint_whose_time_has_passed_is_tried_by_one_request() {
    for algorithm in ALL {
        let balancer = balancer(algorithm, &[1, 1]);
        let failed = &balancer.members()[0].endpoint;
        failed.connect_failed(NOW);
        let later = NOW + Duration::from_secs(1);
        let mut mix = Mix::new(77);
        let mut tried_it = 0;
        for _ in 0..20 {
            _ = balancer.pick(Ask { now: later, ..ask(mix.next()) }, &Tried::NONE).unwrap();
        }
        for _ in 0..200 {
            let ask = Ask { now: later, ..ask(mix.next()) };
            let (index, _) = balancer.start(ask, &Tried::NONE).unwrap();
            tried_it += u32::from(index.0 == 0);
        }
        assert_eq!(tried_it, 1, "to pick claims nothing, to start does: {algorithm:?}");
        failed.connected();
        assert!(picks(&balancer, 5, 200)[0] > 60, "{algorithm:?}");
    }
}

#[test]
fn what_the_operator_took_out_is_never_given() {
    for algorithm in ALL {
        let balancer = balancer(algorithm, &[1, 1, 0]);
        balancer.members()[0].endpoint.set_service(Service::Draining);
        assert_eq!(picks(&balancer, 1, 9), [0, 9, 0]);
        balancer.members()[1].endpoint.set_service(Service::Disabled);
        assert_eq!(balancer.pick(ask(1), &Tried::NONE), None);
    }
    assert_eq!(balancer(Algorithm::RoundRobin, &[]).pick(ask(1), &Tried::NONE), None);
}

#[test]
fn workers_that_pick_at_once_still_take_turns_exactly() {
    let balancer = balancer(Algorithm::RoundRobin, &[2, 1, 1]);
    let seen: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    let index = balancer.pick(ask(0), &Tried::NONE).unwrap();
                    seen[index.get()].fetch_add(1, Relaxed);
                }
            });
        }
    });
    let seen: Vec<u64> = seen.iter().map(|count| count.load(Relaxed)).collect();
    assert_eq!(seen, [2_000, 1_000, 1_000]);
}

#[test]
fn a_key_stays_with_its_endpoint_and_goes_elsewhere_while_that_is_away() {
    let balancer = balancer(Algorithm::Hash, &[1; 5]);
    let of = |key| balancer.pick(Ask { key: Some(key), ..ask(key) }, &Tried::NONE).unwrap().get();
    let homes: Vec<usize> = (0..1_000).map(of).collect();
    assert_eq!(homes, (0..1_000).map(of).collect::<Vec<_>>());
    take_down(&balancer.members()[2].endpoint);
    for (key, home) in homes.iter().enumerate() {
        let now = of(key as u64);
        assert!(if *home == 2 { now != 2 } else { now == *home }, "key {key}: {home} {now}");
    }
}

/// Everybody wants one endpoint; it gets no more than a quarter above its share.
#[test]
fn a_popular_key_does_not_overload_its_endpoint() {
    let balancer = balancer(Algorithm::Hash, &[1; 4]);
    let mut flying = Vec::new();
    for _ in 0..400 {
        let index = balancer.pick(Ask { key: Some(7), ..ask(0) }, &Tried::NONE).unwrap();
        flying.push(balancer.endpoint(index).start_request());
    }
    let mut held: Vec<u32> = balancer.members().iter().map(|m| m.endpoint.in_flight()).collect();
    held.sort_unstable();
    assert_eq!(held[3], 125, "{held:?}");
}

/// Those that take no requests take nothing of its share either: with most of them away the others
/// still divide what there is.
#[test]
fn a_popular_key_overloads_nobody_while_others_are_away() {
    let drain = |endpoint: &Endpoint| endpoint.set_service(Service::Draining);
    for (away, leave) in [(6, &drain as &dyn Fn(&Endpoint)), (4, &take_down)] {
        let balancer = balancer(Algorithm::Hash, &[1; 10]);
        balancer.members()[..away].iter().for_each(|member| leave(&member.endpoint));
        let mut flying = Vec::new();
        for _ in 0..600 {
            let index = balancer.pick(Ask { key: Some(7), ..ask(0) }, &Tried::NONE).unwrap();
            flying.push(balancer.endpoint(index).start_request());
        }
        let held = balancer.members().iter().map(|member| member.endpoint.in_flight());
        let held: Vec<u32> = held.collect();
        let most = 600 * 5 / 4 / (10 - away as u32);
        assert!(held.iter().all(|held| *held <= most + 1), "{away} away: {held:?}");
    }
}

/// A closed system in which one of four takes ten times as long: by latency it gets few requests.
#[test]
fn ewma_keeps_away_from_an_endpoint_that_answers_slowly() {
    let seed = 31;
    let mut shares = Vec::new();
    for algorithm in [Algorithm::LeastRequests, Algorithm::Ewma] {
        let balancer = balancer(algorithm, &[1; 4]);
        let mut mix = Mix::new(seed);
        // (ends at, index, took)
        let mut flying: Vec<(u64, usize, u64, InFlight)> = Vec::new();
        let mut seen = [0_u32; 4];
        for micros in (0..2_000_000_u64).step_by(500) {
            let now = NOW + Duration::from_micros(micros);
            flying.retain(|(end, index, took, _)| {
                let over = *end <= micros;
                if over {
                    let endpoint = &balancer.members()[*index].endpoint;
                    endpoint.answered(Duration::from_micros(*took), false, now);
                }
                !over
            });
            let index = balancer.pick(Ask { now, ..ask(mix.next()) }, &Tried::NONE).unwrap();
            let took = if index.0 == 3 { 10_000 } else { 1_000 };
            seen[index.get()] += 1;
            let request = balancer.endpoint(index).start_request();
            flying.push((micros + took, index.get(), took, request));
        }
        shares.push(f64::from(seen[3]) / f64::from(seen.iter().sum::<u32>()));
    }
    assert!(shares[1] < 0.03 && shares[1] * 3.0 < shares[0], "seed {seed}: {shares:?}");
}

#[test]
fn what_is_new_starts_slowly() {
    for algorithm in ALL {
        let settings = Settings { slow_start: Duration::from_secs(30), ..settings(algorithm) };
        let members = balancer(algorithm, &[1; 4]).members().to_vec();
        let balancer = Balancer::new(settings, members).unwrap();
        let new = &balancer.members()[1].endpoint;
        balancer.members().iter().enumerate().for_each(|(i, m)| m.endpoint.adopt(i == 1, NOW));
        let share = |after: u64| {
            let now = NOW + Duration::from_secs(after);
            let mut mix = Mix::new(after);
            let mut count = 0;
            for _ in 0..8_000 {
                let key = (algorithm == Algorithm::Hash).then(|| mix.next());
                let ask = Ask { now, random: mix.next(), key, ..Ask::default() };
                let index = balancer.pick(ask, &Tried::NONE).unwrap();
                balancer.endpoint(index).answered(Duration::from_millis(1), false, now);
                count += u32::from(index.0 == 1);
            }
            f64::from(count) / 2_000.0
        };
        let (first, half, full) = (share(0), share(15), share(30));
        // Where nobody is ready the turn is given by weight, to the new one as well.
        assert!(first < 0.35, "{algorithm:?}: {first}");
        assert!((0.35..0.75).contains(&half), "{algorithm:?}: {half}");
        assert!((0.85..1.15).contains(&full), "{algorithm:?}: {full}");
        assert_eq!(new.url(), "http://1");
    }
}

#[test]
fn more_endpoints_than_can_be_numbered_are_refused() {
    let member = Member { endpoint: Arc::new(Endpoint::new("http://a", 0)), weight: 1 };
    let members = vec![member; ENDPOINTS_MAX + 1];
    assert!(Balancer::new(settings(Algorithm::RoundRobin), members).is_err());
}

proptest! {
    /// In any state, a request goes through all that is in service, each once, healthy ones first
    /// as long as they are half, and then is told that nothing is left.
    #[test]
    fn retries_visit_everything_in_service_once(
        seed: u64,
        algorithm in prop::sample::select(ALL.to_vec()),
        key: Option<u64>,
        // (weight, down, aside, out of service, in flight)
        states in prop::collection::vec((0_u32..4, any::<bool>(), any::<bool>(), any::<bool>(), 0_u32..3), 0..8),
    ) {
        let weights: Vec<u32> = states.iter().map(|state| state.0).collect();
        let balancer = balancer(algorithm, &weights);
        let mut flying = Vec::new();
        for (state, member) in states.iter().zip(balancer.members()) {
            if state.1 { take_down(&member.endpoint); }
            if state.2 { member.endpoint.connect_failed(NOW); }
            if state.3 { member.endpoint.set_service(Service::Draining); }
            flying.extend((0..state.4).map(|_| member.endpoint.start_request()));
        }
        let in_service = |i: &usize| states[*i].0 > 0 && !states[*i].3;
        let served: Vec<usize> = (0..states.len()).filter(in_service).collect();
        let good = served.iter().filter(|i| !states[**i].1 && !states[**i].2).count();

        let mut mix = Mix::new(seed);
        let mut tried = Tried::NONE;
        let mut order = Vec::new();
        while let Some(index) = balancer.pick(Ask { key, ..ask(mix.next()) }, &tried) {
            prop_assert!(!tried.contains(index), "seed {seed}: {index:?} again after {order:?}");
            prop_assert!(tried.insert(index));
            order.push(index.get());
        }
        if good * 2 >= served.len() {
            for i in &order[..good.min(order.len())] {
                prop_assert!(!states[*i].1 && !states[*i].2, "seed {seed}: {order:?}");
            }
        }
        order.sort_unstable();
        prop_assert_eq!(order, served, "seed {}", seed);
    }

    #[test]
    fn round_robin_follows_any_weights(weights in prop::collection::vec(0_u32..50, 1..12)) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        let seen = picks(&balancer(Algorithm::RoundRobin, &weights), 0, total * 3);
        let expected: Vec<u32> = weights.iter().map(|weight| weight * 3).collect();
        prop_assert_eq!(seen, expected);
    }
}

/// At home as long as all is well with it, and nothing else has a say in that.
#[test]
fn a_client_stays_at_home_unless_something_is_wrong_with_it() {
    for algorithm in [Algorithm::LeastRequests, Algorithm::RoundRobin] {
        let balancer = balancer(algorithm, &[1, 1, 0]);
        let home = EndpointIndex(1);
        let mut mix = Mix::new(1);
        let mut pick = |home: EndpointIndex, tried: &Tried| {
            let ask = Ask { home: Some(home), ..ask(mix.next()) };
            (0..8).map(|_| balancer.pick(ask, tried).unwrap().0).collect::<Vec<_>>()
        };
        assert_eq!(pick(home, &Tried::NONE), [1; 8]);
        let mut tried = Tried::NONE;
        assert!(tried.insert(home));
        assert_eq!(pick(home, &tried), [0; 8]);
        assert!(!pick(EndpointIndex(2), &Tried::NONE).contains(&2));
        balancer.endpoint(home).connect_failed(NOW);
        assert_eq!(pick(home, &Tried::NONE), [0; 8]);
    }
}
