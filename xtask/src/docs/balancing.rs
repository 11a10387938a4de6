//! How requests are spread over the endpoints of a backend: a picture for each way to choose.

use std::sync::Arc;
use std::time::Duration;

use portcullis_upstream::balancer::Settings;
use portcullis_upstream::mix::Mix;
use portcullis_upstream::{
    Algorithm, Ask, Balancer, Endpoint, EndpointIndex, HealthSettings, Outcome, Service, Tried,
};

use super::plot::{COLOURS, GREY, Line, ORANGE, Panel, Plot};
use super::simulation::{Course, Measured, WINDOW, World, at, balancer, by, no_key, run, well};

const GIVEN: &str = "requests a second, by endpoint";

fn lines(series: &[Course], names: &[&str]) -> Vec<Line> {
    let both = series.iter().zip(names).zip(COLOURS);
    both.map(|((points, name), colour)| Line::new(name, colour, points.clone())).collect()
}

fn quiet(_: &[Arc<Endpoint>], _: f64, _: Duration) {}

/// What its checks say of an endpoint.
pub(super) fn check(endpoint: &Endpoint, well: bool, now: Duration) {
    let settings = HealthSettings::new(1);
    endpoint.adopt_health(Some(&settings), now);
    let outcome = if well { Outcome::Pass } else { Outcome::Fail };
    for _ in 0..2 {
        endpoint.check_begun(&settings, now);
        endpoint.check_ended(&settings, outcome, now);
    }
}

pub(super) fn round_robin() -> anyhow::Result<Plot> {
    let balancer = balancer(by(Algorithm::RoundRobin), &[3, 2, 1])?;
    let mut happens = |endpoints: &[Arc<Endpoint>], second: f64, now: Duration| {
        let down = (10.0..20.0).contains(&second);
        check(&endpoints[2], !down, now);
    };
    let measured = run(
        &balancer,
        1,
        World {
            seconds: 30,
            rate: 600.0,
            manner: &|_, _, mix| well(10.0, mix),
            happens: &mut happens,
            key: &no_key,
        },
    );
    Ok(Plot {
        title: "round_robin",
        about: "Three endpoints of weights 3, 2 and 1; the last one's checks fail for ten seconds.",
        spans: vec![(10.0, 20.0, "weight 1 is down")],
        seconds: 30.0,
        panels: vec![Panel {
            label: GIVEN,
            lines: lines(&measured.given, &["weight 3", "weight 2", "weight 1"]),
        }],
    })
}

/// One of four endpoints takes twenty times as long for ten seconds.
fn one_slow(algorithm: Algorithm) -> anyhow::Result<Measured> {
    let balancer = balancer(by(algorithm), &[1; 4])?;
    let manner = |index: usize, second: f64, mix: &mut Mix| {
        let slow = index == 0 && (10.0..20.0).contains(&second);
        well(if slow { 200.0 } else { 10.0 }, mix)
    };
    let world =
        World { seconds: 30, rate: 800.0, manner: &manner, happens: &mut quiet, key: &no_key };
    Ok(run(&balancer, 2, world))
}

fn beside_round_robin(
    algorithm: Algorithm,
    title: &'static str,
    about: &'static str,
) -> anyhow::Result<Plot> {
    let (this, turns) = (one_slow(algorithm)?, one_slow(Algorithm::RoundRobin)?);
    let mut given = lines(&this.given, &["the slow one", "the others", "", ""]);
    given[0].colour = ORANGE;
    given[1].colour = COLOURS[0];
    given[2].colour = COLOURS[0];
    given[3].colour = COLOURS[0];
    Ok(Plot {
        title,
        about,
        spans: vec![(10.0, 20.0, "one takes 200 ms instead of 10")],
        seconds: 30.0,
        panels: vec![
            Panel { label: GIVEN, lines: given },
            Panel {
                label: "p99 of the answers, ms",
                lines: vec![
                    Line::new("round_robin", GREY, turns.p99).dashed(),
                    Line::new(title, COLOURS[0], this.p99),
                ],
            },
        ],
    })
}

pub(super) fn least_requests() -> anyhow::Result<Plot> {
    beside_round_robin(
        Algorithm::LeastRequests,
        "least_requests",
        "Four endpoints, of which one turns slow: it gets less as its requests pile up.",
    )
}

pub(super) fn ewma() -> anyhow::Result<Plot> {
    beside_round_robin(
        Algorithm::Ewma,
        "ewma",
        "Four endpoints, of which one turns slow: it is left after its first slow answers.",
    )
}

/// One key is a third of all requests.
fn popular(mix: &mut Mix) -> Option<u64> {
    let key = if mix.below(3) == 0 { 0 } else { 1 + mix.below(1_000) };
    Some(Mix::new(key).next())
}

/// Where a key is at home.
fn home(balancer: &Balancer, key: u64) -> usize {
    let ask = Ask { now: at(0.0), random: 0, key: Some(key), ..Ask::default() };
    balancer.pick(ask, &Tried::NONE).map_or(0, |index| index.get())
}

pub(super) fn hash() -> anyhow::Result<Plot> {
    const RATE: f64 = 2_000.0;
    let bounded = balancer(by(Algorithm::Hash), &[1; 5])?;
    // Of endpoints that are always idle, so that every key is at home.
    let idle = balancer(by(Algorithm::Hash), &[1; 5])?;
    let keys: Vec<u64> = (0..1_000).map(|key| Mix::new(key).next()).collect();
    let homes: Vec<usize> = keys.iter().map(|key| home(&idle, *key)).collect();
    let popular_home = homes[0];
    let leaver = (popular_home + 1) % 5;
    let mut moved = Vec::new();
    let mut happens = |endpoints: &[Arc<Endpoint>], second: f64, _: Duration| {
        let service = match (10.0..20.0).contains(&second) {
            true => Service::Draining,
            false => Service::Active,
        };
        endpoints[leaver].set_service(service);
        idle.members()[leaver].endpoint.set_service(service);
        let away = keys.iter().zip(&homes).filter(|(key, was)| home(&idle, **key) != **was);
        moved.push((second, away.count() as f64 * 100.0 / keys.len() as f64));
    };
    let measured = run(
        &bounded,
        3,
        World {
            seconds: 30,
            rate: RATE,
            manner: &|_, _, mix| well(50.0, mix),
            happens: &mut happens,
            key: &popular,
        },
    );
    let unbounded = RATE * 0.05 * (1.0 / 3.0 + 2.0 / 3.0 / 5.0);
    let mut flying = Vec::new();
    let others = (0..5).filter(|index| *index != popular_home);
    for index in others.chain([popular_home]) {
        let (name, colour) = match index {
            _ if index == popular_home => ("the popular key's", ORANGE),
            _ if index == leaver => ("the one that leaves", COLOURS[1]),
            _ if flying.is_empty() => ("the others", COLOURS[0]),
            _ => ("", COLOURS[0]),
        };
        flying.push(Line::new(name, colour, measured.flying[index].clone()));
    }
    let without = vec![(0.0, unbounded), (30.0, unbounded)];
    flying.push(Line::new("without a bound", GREY, without).dashed());
    Ok(Plot {
        title: "hash",
        about: "A thousand keys and five endpoints; every third request has the same key, \
                and one endpoint leaves.",
        spans: vec![(10.0, 20.0, "one has left")],
        seconds: 30.0,
        panels: vec![
            Panel { label: "requests under way, by endpoint", lines: flying },
            Panel {
                label: "keys that are away from home, %",
                lines: vec![Line::new("away", COLOURS[0], moved)],
            },
        ],
    })
}

pub(super) fn slow_start() -> anyhow::Result<Plot> {
    let balancer = balancer(
        Settings { slow_start: Duration::from_secs(30), ..by(Algorithm::RoundRobin) },
        &[1; 3],
    )?;
    let mut adopted = false;
    let mut happens = |endpoints: &[Arc<Endpoint>], second: f64, now: Duration| {
        let here = second >= 5.0;
        endpoints[2].set_service(if here { Service::Active } else { Service::Disabled });
        if here && !adopted {
            adopted = true;
            endpoints[2].adopt(true, now);
        }
    };
    let measured = run(
        &balancer,
        4,
        World {
            seconds: 45,
            rate: 900.0,
            manner: &|_, _, mix| well(10.0, mix),
            happens: &mut happens,
            key: &no_key,
        },
    );
    let mut given = lines(&measured.given, &["the first two", "", "the new one"]);
    given[1].colour = COLOURS[0];
    given[2].colour = ORANGE;
    Ok(Plot {
        title: "slow_start",
        about: "A third endpoint comes after five seconds and gets its share within thirty.",
        spans: vec![(5.0, 35.0, "slow_start: 30s")],
        seconds: 45.0,
        panels: vec![Panel { label: GIVEN, lines: given }],
    })
}

pub(super) fn panic_threshold() -> anyhow::Result<Plot> {
    let balancer = balancer(by(Algorithm::LeastRequests), &[1; 4])?;
    let down = [(8.0, 32.0), (14.0, 28.0), (20.0, 24.0)];
    let mut happens = |endpoints: &[Arc<Endpoint>], second: f64, now: Duration| {
        for (endpoint, (from, to)) in endpoints.iter().zip(down) {
            check(endpoint, !(from..to).contains(&second), now);
        }
    };
    let measured = run(
        &balancer,
        5,
        World {
            seconds: 40,
            rate: 800.0,
            manner: &|_, _, mix| well(10.0, mix),
            happens: &mut happens,
            key: &no_key,
        },
    );
    Ok(Plot {
        title: "Down, and too many down",
        about: "Four endpoints whose checks fail one after the other. With three of four down they \
                are no longer believed.",
        spans: vec![
            (8.0, 14.0, "1 down"),
            (14.0, 20.0, "2"),
            (20.0, 24.0, "3"),
            (24.0, 28.0, "2"),
            (28.0, 32.0, "1"),
        ],
        seconds: 40.0,
        panels: vec![Panel {
            label: GIVEN,
            lines: lines(&measured.given, &["first", "second", "third", "fourth"]),
        }],
    })
}

/// Clients that come back, each to where its cookie says, and some that come for the first time.
pub(super) fn sticky() -> anyhow::Result<Plot> {
    const RATE: f64 = 600.0;
    const CLIENTS: u64 = 300;
    let balancer = balancer(by(Algorithm::LeastRequests), &[1; 4])?;
    let mut mix = Mix::new(13);
    let mut homes: Vec<Option<EndpointIndex>> = vec![None; CLIENTS as usize];
    let mut given: Vec<Course> = vec![Vec::new(); 4];
    let mut moved = Vec::new();
    for window in 0..90 {
        let begin = f64::from(window) * WINDOW;
        let down = (15.0..25.0).contains(&begin);
        check(&balancer.members()[0].endpoint, !down, at(begin));
        let (mut counts, mut moves) = ([0.0; 4], 0.0);
        for request in 0..(RATE * WINDOW) as u32 {
            let now = at(begin + f64::from(request) / RATE);
            let client = mix.below(CLIENTS) as usize;
            // One in two hundred is somebody new in the place of somebody who has left.
            if mix.below(200) == 0 {
                homes[client] = None;
            }
            let home = homes[client];
            let ask = Ask { now, random: mix.next(), home, ..Ask::default() };
            let Some(index) = balancer.pick(ask, &Tried::NONE) else { continue };
            if home.is_some_and(|home| home != index) {
                moves += 1.0;
            }
            homes[client] = Some(index);
            counts[index.get()] += 1.0 / WINDOW;
        }
        let middle = begin + WINDOW / 2.0;
        for (course, count) in given.iter_mut().zip(counts) {
            course.push((middle, count));
        }
        moved.push((middle, moves / WINDOW));
    }
    let mut given = lines(&given, &["the one that fails", "the others", "", ""]);
    given[0].colour = ORANGE;
    for other in &mut given[1..] {
        other.colour = COLOURS[0];
    }
    Ok(Plot {
        title: "sticky",
        about: "300 clients and four endpoints, of which one fails for ten seconds; each second \
                three clients are new.",
        spans: vec![(15.0, 25.0, "one is down")],
        seconds: 45.0,
        panels: vec![
            Panel { label: GIVEN, lines: given },
            Panel {
                label: "clients that have to move, a second",
                lines: vec![Line::new("moved", COLOURS[0], moved)],
            },
        ],
    })
}
