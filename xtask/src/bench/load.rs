//! The load generators: wrk, h2load and the bench's own `handshakes`, all on the core that the
//! proxy does not have.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use super::Plan;
use super::process::{LOAD_CORE, pinned};
use super::scenarios::{Load, Scenario};
use crate::steps::output;

/// HTTP/2: so many connections with so many streams each.
const H2: [&str; 4] = ["-c", "8", "-m", "8"];

/// What a load generator says that it has seen.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub requests: u64,
    pub seconds: f64,
    /// Percentiles 50, 99 and 99.9 in microseconds, where the generator knows them.
    pub latency_us: Option<[f64; 3]>,
}

/// Runs a scenario's load against whoever listens. A warm-up, one second long, takes its lines from
/// the end of the file, so that none of its tokens comes again.
pub(super) fn run(
    scenario: &Scenario,
    plan: &Plan,
    folder: &Path,
    warm_up: bool,
) -> anyhow::Result<Seen> {
    let seconds = if warm_up { 1 } else { plan.seconds_of(scenario) };
    match scenario.load {
        Load::Requests => own(wrk(scenario, plan, seconds, &[]), folder),
        Load::Paths(file) => own(wrk(scenario, plan, seconds, &["path", file]), folder),
        Load::Tokens(file) => {
            let skipped = if warm_up { plan.tokens() - plan.tokens_a_second() } else { 0 };
            own(wrk(scenario, plan, seconds, &["bearer", file, &skipped.to_string()]), folder)
        }
        Load::Handshakes => {
            let mut client = pinned(LOAD_CORE, "../release/handshakes");
            client.args(["--address", &format!("127.0.0.1:{}", scenario.port)]);
            client.args(["--connections", "8", "--seconds", &seconds.to_string()]);
            client.args(["--host", "bench.example", "--path", scenario.path]);
            own(client, folder)
        }
        Load::Streams(body) => {
            let duration = seconds.to_string();
            let mut words = [&H2[..], &["-D", &duration]].concat();
            if let Some(body) = body {
                words.extend(["-d", body, "-H", "content-type: application/grpc"]);
                words.extend(["-H", "te: trailers"]);
            }
            h2load(scenario, &words, folder)
        }
        Load::Bodies { a_second, sent } => {
            let requests = (a_second * seconds).to_string();
            let mut words = vec!["--h1", "-c", "4", "-n", &requests];
            if let Some(body) = sent {
                words.extend(["-d", body]);
            }
            h2load(scenario, &words, folder)
        }
    }
}

fn wrk(scenario: &Scenario, plan: &Plan, seconds: u32, lines: &[&str]) -> Command {
    let mut wrk = pinned(LOAD_CORE, "wrk");
    wrk.args(["-t1", "-s", "wrk.lua", "-H", "Host: bench.example"]);
    wrk.arg(format!("-c{}", plan.connections)).arg(format!("-d{seconds}s"));
    wrk.arg(format!("{}://127.0.0.1:{}{}", scenario.scheme(), scenario.port, scenario.path));
    if !lines.is_empty() {
        wrk.arg("--").args(lines);
    }
    wrk
}

/// Runs a generator that ends with one line of JSON.
pub(super) fn own(mut generator: Command, folder: &Path) -> anyhow::Result<Seen> {
    generator.current_dir(folder).env("OPENSSL_CONF", "openssl.cnf");
    let said = output(generator)?;
    let line = said.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
    parse(line).with_context(|| format!("the load generator said:\n{said}"))
}

fn parse(line: &str) -> anyhow::Result<Seen> {
    let report: Value = serde_json::from_str(line)?;
    let number = |name: &str| report[name].as_f64();
    let requests = report["requests"].as_u64().context("requests")?;
    if report["errors"] != 0 || requests == 0 {
        bail!("not every request had a good answer");
    }
    let percentiles = [number("p50_us"), number("p99_us"), number("p999_us")];
    let latency_us = match percentiles {
        [Some(p50), Some(p99), Some(p999)] => Some([p50, p99, p999]),
        _ => None,
    };
    Ok(Seen { requests, seconds: number("seconds").context("seconds")?, latency_us })
}

fn h2load(scenario: &Scenario, words: &[&str], folder: &Path) -> anyhow::Result<Seen> {
    let mut h2load = pinned(LOAD_CORE, "h2load");
    h2load.args(words).arg(format!("--connect-to=127.0.0.1:{}", scenario.port));
    h2load.arg(format!("{}://bench.example{}", scenario.scheme(), scenario.path));
    h2load.current_dir(folder).env("OPENSSL_CONF", "openssl.cnf");
    let said = output(h2load)?;
    parse_h2load(&said).with_context(|| format!("h2load said:\n{said}"))
}

/// The end of its time cuts off requests, which it does not count as done but perhaps by a status.
fn parse_h2load(said: &str) -> Option<Seen> {
    let after = |name: &str| said.lines().find_map(|line| line.strip_prefix(name));
    let rate: f64 =
        after("finished in ")?.split(", ").nth(1)?.strip_suffix(" req/s")?.parse().ok()?;
    let mut counts = after("requests: ")?.split(", ").skip(2);
    let requests: u64 = counts.next()?.strip_suffix(" done")?.parse().ok()?;
    let succeeded: u64 = counts.next()?.strip_suffix(" succeeded")?.parse().ok()?;
    let (_, others) = after("status codes: ")?.split_once(" 2xx, ")?;
    if others != "0 3xx, 0 4xx, 0 5xx" || succeeded != requests || requests == 0 {
        return None;
    }
    Some(Seen { requests, seconds: requests as f64 / rate, latency_us: None })
}

#[test]
fn reports_are_read_and_bad_answers_are_not_taken() {
    let good = r#"{"requests":10,"errors":0,"seconds":2.0,"p50_us":1,"p99_us":2,"p999_us":3}"#;
    let seen = parse(good).unwrap();
    assert_eq!((seen.requests, seen.latency_us), (10, Some([1.0, 2.0, 3.0])));
    assert!(parse(&good.replace("\"errors\":0", "\"errors\":1")).is_err());
    assert!(parse(&good.replace("\"requests\":10", "\"requests\":0")).is_err());
}

#[test]
fn the_report_of_h2load_is_read() {
    let good = "finished in 1.05s, 25000.00 req/s, 5.48MB/s
requests: 25071 total, 25087 started, 25000 done, 25000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 25012 2xx, 0 3xx, 0 4xx, 0 5xx
";
    let seen = parse_h2load(good).unwrap();
    assert_eq!((seen.requests, seen.seconds), (25_000, 1.0));
    assert_eq!(parse_h2load(&good.replace("0 5xx", "1 5xx")), None);
    assert_eq!(parse_h2load(&good.replace("25000 succeeded", "24999 succeeded")), None);
    assert_eq!(parse_h2load("finished"), None);
}
