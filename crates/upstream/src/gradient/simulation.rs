//! A backend that works on so many requests at once and queues the others, under three times what
//! it can do, while what it can do changes. The table is that of `docs/guides/surviving.md`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use expect_test::expect;

use super::{Gradient, Sample};
use crate::mix::Mix;

const REQUESTS_MAX: u32 = 1_024;
/// What a request takes where nothing queues.
const SERVICE_NS: f64 = 20e6;
/// Requests that may wait in the gateway.
const PENDING_MAX: usize = 16;
const SECOND: u64 = 1_000_000_000;

/// Seconds, how many requests are worked on at once, and how long each takes, as a multiple.
type Step = (u64, usize, f64);

const STEPS: [Step; 5] =
    [(20, 40, 1.0), (20, 10, 1.0), (20, 40, 1.0), (20, 40, 3.0), (20, 40, 1.0)];

/// How a step went.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    done: u64,
    /// In the second half, when it should have settled.
    done_late: u64,
    /// Sums over the second half.
    latency_ns: u128,
    limit: u64,
    arrived_late: u64,
    /// Until the limit was first within a factor of 2.2 above what is worked on at once.
    settled_ns: Option<u64>,
}

struct Backend {
    units: usize,
    scale: f64,
    busy: usize,
    /// When each came.
    queue: VecDeque<u64>,
    /// When each ends and when it came.
    ends: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Backend {
    fn work(&mut self, mix: &mut Mix, now: u64) {
        while self.busy < self.units
            && let Some(came) = self.queue.pop_front()
        {
            self.busy += 1;
            let took = SERVICE_NS * self.scale * (0.7 + 0.3 * exponential(mix));
            self.ends.push(Reverse((now + took as u64, came)));
        }
    }

    fn in_flight(&self) -> usize {
        self.busy + self.queue.len()
    }
}

fn exponential(mix: &mut Mix) -> f64 {
    -((mix.next() >> 11) as f64 / (1_u64 << 53) as f64).max(1e-12).ln()
}

fn simulate(seed: u64, mut gradient: Option<Gradient>) -> Vec<Seen> {
    let mut mix = Mix::new(seed);
    let mut backend =
        Backend { units: 0, scale: 1.0, busy: 0, queue: VecDeque::new(), ends: BinaryHeap::new() };
    let mut line = 0;
    let mut arrival = 0;
    let mut begun = 0;
    let mut all = Vec::new();
    for (seconds, units, scale) in STEPS {
        (backend.units, backend.scale) = (units, scale);
        let capacity = units as f64 / (SERVICE_NS * scale);
        let (end, half) = (begun + seconds * SECOND, begun + seconds * SECOND / 2);
        let mut seen = Seen::default();
        loop {
            let next = backend.ends.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            let now = arrival.min(next);
            if now >= end {
                break;
            }
            if next <= arrival {
                let Some(Reverse((_, came))) = backend.ends.pop() else { break };
                let in_flight = backend.in_flight() as u32;
                backend.busy -= 1;
                let took = Duration::from_nanos(now - came);
                let sample = Sample { took, in_flight, now: Duration::from_nanos(now) };
                if let Some(gradient) = &mut gradient {
                    gradient.observe(sample, REQUESTS_MAX);
                }
                seen.done += 1;
                if now >= half {
                    seen.done_late += 1;
                    seen.latency_ns += u128::from(now - came);
                }
            } else {
                arrival += (exponential(&mut mix) / (3.0 * capacity)) as u64;
                line = (line + 1).min(PENDING_MAX);
            }
            let limit = gradient.as_ref().map_or(REQUESTS_MAX, |one| one.limit(REQUESTS_MAX));
            while line > 0 && backend.in_flight() < limit as usize {
                line -= 1;
                backend.queue.push_back(now);
            }
            backend.work(&mut mix, now);
            if now >= half {
                seen.arrived_late += 1;
                seen.limit += u64::from(limit);
            }
            let near = f64::from(limit) <= 2.2 * units as f64 && limit as usize >= units * 3 / 4;
            if near && seen.settled_ns.is_none() {
                seen.settled_ns = Some(now - begun);
            }
        }
        begun = end;
        all.push(seen);
    }
    all
}

/// Of a step: the limit over what is worked on at once, the share of what can be done that was done
/// in all and in the second half, the latency over that without a queue.
fn figures(seen: &Seen, (seconds, units, scale): Step) -> [f64; 4] {
    let can = seconds as f64 * SECOND as f64 * units as f64 / (SERVICE_NS * scale);
    let latency = seen.latency_ns as f64 / seen.done_late.max(1) as f64;
    [
        seen.limit as f64 / seen.arrived_late.max(1) as f64 / units as f64,
        seen.done as f64 / can,
        seen.done_late as f64 / (can / 2.0),
        latency / (SERVICE_NS * scale),
    ]
}

#[test]
fn it_converges_near_the_knee_and_recovers_after_every_step() {
    for seed in 0..8 {
        let all = simulate(seed, Some(Gradient::new(seed)));
        for (number, (seen, step)) in all.iter().zip(STEPS).enumerate() {
            let [limit, whole, late, latency] = figures(seen, step);
            let say = format!("seed {seed}, step {number}: {limit} {whole} {late} {latency}");
            assert!((0.9..3.0).contains(&limit), "{say}");
            assert!(whole > 0.85 && late > 0.95, "{say}");
            assert!(latency < 3.0, "{say}");
            assert!(seen.settled_ns.is_some_and(|ns| ns < 5 * SECOND), "{say}");
        }
    }
}

#[test]
fn the_table_of_the_docs() {
    let (with, without) = (simulate(1, Some(Gradient::new(1))), simulate(1, None));
    let mut table = String::new();
    for ((seen, other), step) in with.iter().zip(&without).zip(STEPS) {
        let ([limit, whole, late, latency], [.., without]) =
            (figures(seen, step), figures(other, step));
        let settled = seen.settled_ns.unwrap_or_default() as f64 / SECOND as f64;
        let (units, scale) = (step.1, step.2);
        table += &format!(
            "| {units} × {:.0} ms | {settled:.1} s | {limit:.2} | {:.0} % | {:.0} % | {latency:.2} | {without:.1} |\n",
            scale * SERVICE_NS / 1e6,
            whole * 100.0,
            late * 100.0,
        );
    }
    expect![[r#"
        | 40 × 20 ms | 0.5 s | 1.68 | 98 % | 100 % | 1.69 | 25.6 |
        | 10 × 20 ms | 0.4 s | 2.46 | 100 % | 100 % | 2.47 | 101.5 |
        | 40 × 20 ms | 0.2 s | 1.72 | 99 % | 100 % | 1.73 | 25.6 |
        | 40 × 60 ms | 0.0 s | 1.65 | 99 % | 100 % | 1.66 | 25.6 |
        | 40 × 20 ms | 0.0 s | 1.67 | 100 % | 100 % | 1.68 | 25.6 |
    "#]]
    .assert_eq(&table);
}
