//! Latency at fixed rates, in an open loop: each request has a time at which it is due, and its
//! latency counts from then, whether or not a connection was free. What a proxy adds is the median
//! through it less the median without it in the same round.

use std::path::Path;

use anyhow::Context;

use super::load::{Seen, own};
use super::peers::{PLAIN, Peer};
use super::process::{LOAD_CORE, pinned};
use super::report::{Row, median_of};
use super::scenarios::SCENARIOS;
use super::{Plan, sample};

/// Requests a second.
const RATES: [u64; 2] = [1_000, 5_000];
const DIRECT: u16 = 7700;
/// The share of its own peak that each proxy is asked for.
const OWN_PERCENT: f64 = 80.0;

pub(super) fn measure(plan: &Plan, folder: &Path, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let peaks = peaks(plan, folder, rows)?;
    // Caddy is too slow to be the measure of the others, and the floor is no proxy.
    let yardsticks = peaks.iter().filter(|(peer, _)| !["caddy", "floor"].contains(&peer.key));
    let slowest = yardsticks.map(|(_, peak)| *peak).fold(f64::INFINITY, f64::min);
    let mut rates = RATES.to_vec();
    if slowest.is_finite() {
        rates.push((slowest / 2.0) as u64);
    }
    for round in 0..plan.rounds {
        for rate in &rates {
            let name = format!("Latency at {rate} requests/s");
            let direct = load(plan, folder, DIRECT, *rate)?;
            for (peer, peak) in &peaks {
                // Beyond its peak a latency grows for as long as one measures.
                if (*rate as f64) < 0.9 * peak {
                    let seen = through(peer, plan, folder, *rate)?;
                    rows.push(Row::new('j', &name, peer.name, round, values(&seen, Some(&direct))));
                }
            }
            rows.push(Row::new('j', &name, "no proxy", round, values(&direct, None)));
        }
        for (peer, peak) in &peaks {
            let seen = through(peer, plan, folder, (peak * OWN_PERCENT / 100.0) as u64)?;
            let name = format!("Latency at {OWN_PERCENT} % of its own peak");
            rows.push(Row::new('j', name, peer.name, round, values(&seen, None)));
        }
    }
    Ok(())
}

/// What each proxy can do at most, from scenario (a), which is measured now if it was not.
fn peaks(plan: &Plan, folder: &Path, rows: &[Row]) -> anyhow::Result<Vec<(&'static Peer, f64)>> {
    let small = SCENARIOS.first().context("scenarios")?;
    plan.peers_for('j')
        .map(|peer| {
            if let Some(peak) = median_of(rows, small.name, peer.name, "requests/s") {
                return Ok((peer, peak));
            }
            let values = sample(peer, plan, small, folder).context(peer.name)?;
            let peak = values.iter().find(|(name, _)| *name == "requests/s").context("a rate")?.1;
            Ok((peer, peak))
        })
        .collect()
}

fn through(peer: &Peer, plan: &Plan, folder: &Path, rate: u64) -> anyhow::Result<Seen> {
    peer.configure(folder, 0)?;
    let _server = peer.start(folder)?;
    load(plan, folder, PLAIN, rate).context(peer.name)
}

/// After a second that does not count, so that connections to the backend are open.
fn load(plan: &Plan, folder: &Path, port: u16, rate: u64) -> anyhow::Result<Seen> {
    let run = |seconds: u32| {
        let mut load = pinned(LOAD_CORE, "../release/load");
        load.args(["--rate", &rate.to_string(), "--connections", &plan.connections.to_string()]);
        load.args(["--seconds", &seconds.to_string(), "--header", "Host: bench.example"]);
        load.arg(format!("http://127.0.0.1:{port}/small"));
        own(load, folder)
    };
    run(1)?;
    run(plan.seconds)
}

fn values(seen: &Seen, direct: Option<&Seen>) -> Vec<(&'static str, f64)> {
    let [p50, p99, p999] = seen.latency_us.unwrap_or([f64::NAN; 3]);
    let whole = [("p50 µs", p50), ("p99 µs", p99), ("p99.9 µs", p999)];
    let without = direct.and_then(|direct| direct.latency_us);
    let added = without.map(|[without, ..]| ("added p50 µs", p50 - without));
    added.into_iter().chain(whole).collect()
}
