//! What one pick costs, with 8 endpoints, on one thread.

#![expect(clippy::unwrap_used, reason = "a bench may stop when its set-up fails")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_upstream::mix::Mix;
use portcullis_upstream::{
    Algorithm, Ask, Balancer, Endpoint, HealthSettings, Member, Outcome, Settings, Split, Tried,
};

const NOW: Duration = Duration::from_secs(1);

fn balancer(algorithm: Algorithm, down: usize) -> Balancer {
    let settings = HealthSettings::new(1);
    let member = |i: usize| {
        let endpoint = Arc::new(Endpoint::new(&format!("http://10.0.0.{i}:80"), i as u64));
        if i < down {
            endpoint.adopt_health(Some(&settings), NOW);
            endpoint.check_ended(&settings, Outcome::Fail, NOW);
        }
        Member { endpoint, weight: 100 }
    };
    let chosen = Settings { algorithm, ..Settings::default() };
    Balancer::new(chosen, (0..8).map(member).collect()).unwrap()
}

fn pick(c: &mut Criterion) {
    for (name, algorithm) in
        [("round_robin", Algorithm::RoundRobin), ("least_requests", Algorithm::LeastRequests)]
    {
        for down in [0, 2] {
            let balancer = balancer(algorithm, down);
            let mut mix = Mix::new(1);
            c.bench_function(&format!("{name}_{down}_down"), |b| {
                b.iter(|| {
                    let index = balancer
                        .pick(Ask { now: NOW, random: mix.next(), ..Ask::default() }, &Tried::NONE)
                        .unwrap();
                    let flying = balancer.endpoint(index).start_request();
                    black_box(&flying);
                });
            });
        }
    }
    let split = Split::new("route", [("a", 90), ("b", 10)]);
    let mut mix = Mix::new(1);
    c.bench_function("split", |b| b.iter(|| split.pick(mix.next())));
}

criterion_group!(hot, pick);
criterion_main!(hot);
