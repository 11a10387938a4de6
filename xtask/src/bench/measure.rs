//! One run of the load generator against one proxy, and the CPU time the proxy took for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::peers::{LOAD_CORE, Peer};
use super::{Plan, Scenario};
use crate::steps::output;

/// What one run showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub cpu_us_a_request: f64,
    pub requests_per_second: f64,
}

pub(super) fn sample(
    peer: &Peer,
    plan: &Plan,
    scenario: &Scenario,
    folder: &Path,
) -> anyhow::Result<Sample> {
    // A line a request: gigabytes, were they kept.
    for log in ["nginx-access.log", "portcullis-access.log"] {
        fs::remove_file(folder.join(log)).ok();
    }
    let server = peer.start(folder)?;
    // Connections to the backend are open and caches warm before anything counts.
    load(peer, plan, scenario, 1)?;
    let before = run_time_ns(server.process())?;
    let (requests, requests_per_second) = load(peer, plan, scenario, plan.seconds)?;
    let after = run_time_ns(server.process())?;
    let cpu_us_a_request = (after - before) as f64 / 1_000.0 / requests as f64;
    Ok(Sample { cpu_us_a_request, requests_per_second })
}

/// Runs wrk; gives the requests that were answered with success, and how many a second.
fn load(peer: &Peer, plan: &Plan, scenario: &Scenario, seconds: u32) -> anyhow::Result<(u64, f64)> {
    let report = output(wrk(peer, plan, scenario, seconds))?;
    if let Some(line) = report.lines().find(|line| line.contains("Non-2xx")) {
        bail!("{}: {}: {}", peer.name, scenario.name, line.trim());
    }
    if let Some(line) = report.lines().find(|line| line.contains("Socket errors")) {
        bail!("{}: {}: {}", peer.name, scenario.name, line.trim());
    }
    parse(&report).with_context(|| format!("wrk said:\n{report}"))
}

fn wrk(peer: &Peer, plan: &Plan, scenario: &Scenario, seconds: u32) -> Command {
    let (scheme, port) =
        if scenario.tls { ("https", peer.tls_port) } else { ("http", peer.plain_port) };
    let mut wrk = Command::new("taskset");
    wrk.args(["-c", LOAD_CORE, "wrk", "-t1"]);
    wrk.arg(format!("-c{}", plan.connections)).arg(format!("-d{seconds}s"));
    wrk.args(["-H", "Host: bench.example"]);
    wrk.arg(format!("{scheme}://127.0.0.1:{port}{}", scenario.path));
    wrk
}

fn parse(report: &str) -> Option<(u64, f64)> {
    let requests = report.lines().find_map(|line| line.trim().split_once(" requests in "))?.0;
    let rate = report.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"))?;
    Some((requests.parse().ok()?, rate.trim().parse().ok()?))
}

/// Nanoseconds that all threads of a process and of its children have run, by the scheduler's own
/// count.
fn run_time_ns(process: u32) -> anyhow::Result<u64> {
    let mut total = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        let statistics = fs::read_to_string(thread.join("schedstat"))?;
        let first = statistics.split_whitespace().next().context("schedstat is empty")?;
        total += first.parse::<u64>()?;
        let children = fs::read_to_string(thread.join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            total += run_time_ns(child.parse()?)?;
        }
    }
    Ok(total)
}

#[test]
fn the_report_of_wrk_is_read() {
    let report = "Running 5s test @ http://127.0.0.1:7710/small
  1 threads and 32 connections
  274893 requests in 5.00s, 71.30MB read
Requests/sec:  54970.04
Transfer/sec:     14.26MB
";
    assert_eq!(parse(report), Some((274_893, 54_970.04)));
    assert_eq!(parse("Running 5s test"), None);
}
