//! What keeps trouble small: a picture for each.

use std::sync::Arc;
use std::time::Duration;

use portcullis_upstream::balancer::Settings;
use portcullis_upstream::budget::{Budget, Terms};
use portcullis_upstream::mix::Mix;
use portcullis_upstream::{Algorithm, Ask, Endpoint, Tail, Tried, Verdict, breaker, outlier};

use super::plot::{BLUE, GREEN, GREY, Line, ORANGE, Panel, Plot};
use super::simulation::{WINDOW, World, around, at, balancer, by, no_key, percentile, run};

pub(super) fn retry_budget() -> Plot {
    const RATE: usize = 200;
    const ATTEMPTS: usize = 3;
    let budget = Budget::new(Terms::default());
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for window in 0..60 {
        let begin = window as f64 * WINDOW;
        let failing = (10.0..20.0).contains(&begin);
        let requests = (RATE as f64 * WINDOW) as usize;
        let mut tries = 0;
        for request in 0..requests {
            let now = at(begin + request as f64 / RATE as f64);
            budget.request();
            tries += 1;
            let mut attempt = 1;
            while failing && attempt < ATTEMPTS && budget.take(now) {
                attempt += 1;
                tries += 1;
            }
        }
        let middle = begin + WINDOW / 2.0;
        with.push((middle, f64::from(tries) / WINDOW));
        without.push((middle, (requests * if failing { ATTEMPTS } else { 1 }) as f64 / WINDOW));
    }
    Plot {
        title: "retry_budget",
        about: "200 requests a second, three attempts each; for ten seconds the backend fails all.",
        spans: vec![(10.0, 20.0, "every answer is a 503")],
        seconds: 30.0,
        panels: vec![Panel {
            label: "requests that reach the backend, a second",
            lines: vec![
                Line::new("without a budget", GREY, without).dashed(),
                Line::new("20 % and ten a second", BLUE, with),
            ],
        }],
    }
}

pub(super) fn hedge() -> Plot {
    const RATE: usize = 600;
    let (tail, budget) = (Tail::default(), Budget::new(Terms::default()));
    let mut mix = Mix::new(6);
    let (mut alone, mut hedged, mut share) = (Vec::new(), Vec::new(), Vec::new());
    for window in 0..60 {
        let begin = window as f64 * WINDOW;
        let all_slow = begin >= 20.0;
        let requests = (RATE as f64 * WINDOW) as usize;
        let (mut firsts, mut answers, mut hedges) = (Vec::new(), Vec::new(), 0);
        for request in 0..requests {
            let now = at(begin + request as f64 / RATE as f64);
            budget.request();
            let mut takes = || {
                let quick = Duration::from_micros(4_000 + mix.below(4_000));
                quick * if all_slow || mix.below(25) == 0 { 20 } else { 1 }
            };
            let first = takes();
            let after = tail.p95().filter(|after| first > *after && budget.take(now));
            let answer = after.map_or(first, |after| first.min(after + takes()));
            hedges += u32::from(after.is_some());
            tail.observe(answer);
            firsts.push(first);
            answers.push(answer);
        }
        let middle = begin + WINDOW / 2.0;
        alone.push((middle, percentile(&mut firsts, 99)));
        hedged.push((middle, percentile(&mut answers, 99)));
        share.push((middle, f64::from(hedges) * 100.0 / requests as f64));
    }
    Plot {
        title: "hedge: p95",
        about: "One answer in 25 takes twenty times as long; after twenty seconds every one does.",
        spans: vec![(20.0, 30.0, "all are slow")],
        seconds: 30.0,
        panels: vec![
            Panel {
                label: "p99 of the answers, ms",
                lines: vec![
                    Line::new("without", GREY, alone).dashed(),
                    Line::new("hedged", BLUE, hedged),
                ],
            },
            Panel {
                label: "requests that are made twice, %",
                lines: vec![Line::new("hedges", ORANGE, share)],
            },
        ],
    }
}

/// An endpoint that cannot be connected to is set aside, for longer each time.
pub(super) fn set_aside() -> anyhow::Result<Plot> {
    const RATE: usize = 300;
    let balancer = balancer(by(Algorithm::LeastRequests), &[1; 3])?;
    let mut mix = Mix::new(7);
    let (mut failed, mut given, mut failures) = (Vec::new(), Vec::new(), 0);
    for window in 0..80 {
        let begin = window as f64 * WINDOW;
        let refuses = (5.0..30.0).contains(&begin);
        let mut served = 0;
        for request in 0..(RATE as f64 * WINDOW) as usize {
            let now = at(begin + request as f64 / RATE as f64);
            let ask = Ask { now, random: mix.next(), ..Ask::default() };
            let mut tried = Tried::NONE;
            while let Some((index, _in_flight)) = balancer.start(ask, &tried) {
                let endpoint = balancer.endpoint(index);
                if index.get() == 0 && refuses {
                    endpoint.connect_failed(now);
                    failures += 1;
                    if !tried.insert(index) {
                        break;
                    }
                    continue;
                }
                endpoint.connected();
                served += u32::from(index.get() == 0);
                break;
            }
        }
        let middle = begin + WINDOW / 2.0;
        failed.push((middle, f64::from(failures)));
        given.push((middle, f64::from(served) / WINDOW));
    }
    Ok(Plot {
        title: "Set aside",
        about: "One of three endpoints refuses connections for 25 seconds. Each failure goes to \
                another one.",
        spans: vec![(5.0, 30.0, "it refuses connections")],
        seconds: 40.0,
        panels: vec![
            Panel {
                label: "requests that it answers, a second",
                lines: vec![Line::new("answered", GREEN, given)],
            },
            Panel {
                label: "connections that failed, so far",
                lines: vec![Line::new("failed", ORANGE, failed)],
            },
        ],
    })
}

fn quiet(_: &[Arc<Endpoint>], _: f64, _: Duration) {}

/// Fails more than the others.
pub(super) fn outliers() -> anyhow::Result<Plot> {
    let manner = |index: usize, second: f64, mix: &mut Mix| {
        let bad = index == 0 && (10.0..30.0).contains(&second) && mix.below(2) == 0;
        (around(10.0, mix), if bad { Verdict::Status } else { Verdict::Well })
    };
    let run = |outliers| {
        let settings = Settings { outliers, ..by(Algorithm::LeastRequests) };
        let world =
            World { seconds: 60, rate: 400.0, manner: &manner, happens: &mut quiet, key: &no_key };
        balancer(settings, &[1; 4]).map(|balancer| run(&balancer, 8, world))
    };
    let (with, without) = (run(Some(outlier::Terms::default()))?, run(None)?);
    let names = ["the outlier", "the others", "", ""];
    let colours = [ORANGE, BLUE, BLUE, BLUE];
    let lines = with.given.iter().zip(names).zip(colours);
    Ok(Plot {
        title: "outliers",
        about: "One of four endpoints answers every other request with 500, for twenty seconds.",
        spans: vec![(10.0, 30.0, "every other of its answers is a 500")],
        seconds: 60.0,
        panels: vec![
            Panel {
                label: "requests a second, by endpoint",
                lines: lines
                    .map(|((points, name), colour)| Line::new(name, colour, points.clone()))
                    .collect(),
            },
            Panel {
                label: "requests that fail, %",
                lines: vec![
                    Line::new("without", GREY, without.failed).dashed(),
                    Line::new("failed", BLUE, with.failed),
                ],
            },
        ],
    })
}

/// One endpoint alone, so that nothing else helps.
pub(super) fn circuit_breaker() -> anyhow::Result<Plot> {
    let manner = |_: usize, second: f64, mix: &mut Mix| match (10.0..25.0).contains(&second) {
        true => (1_000.0, Verdict::Error),
        false => (around(10.0, mix), Verdict::Well),
    };
    let run = |breaker| {
        let settings = Settings { breaker, ..by(Algorithm::LeastRequests) };
        let world =
            World { seconds: 45, rate: 200.0, manner: &manner, happens: &mut quiet, key: &no_key };
        balancer(settings, &[1]).map(|balancer| run(&balancer, 9, world))
    };
    let (with, mut without) = (run(Some(breaker::Terms::default()))?, run(None)?);
    Ok(Plot {
        title: "breaker",
        about: "One endpoint; for fifteen seconds every request to it fails after a second.",
        spans: vec![(10.0, 25.0, "every request fails after a second")],
        seconds: 45.0,
        panels: vec![
            Panel {
                label: "requests under way",
                lines: vec![
                    Line::new("without", GREY, without.flying.remove(0)).dashed(),
                    Line::new("with a breaker", BLUE, with.flying[0].clone()),
                ],
            },
            Panel {
                label: "requests that are refused at once, %",
                lines: vec![Line::new("refused", ORANGE, with.refused)],
            },
        ],
    })
}
