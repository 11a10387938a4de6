//! `cargo xtask bench quick`: how much CPU time a request costs in Portcullis and in nginx.
//!
//! The proxy has core 0 with one worker; the backend (nginx) and the load (wrk) have core 1. The
//! proxies take turns (A B A B …), so a machine that grows slower meanwhile slows both. Numbers
//! are medians over rounds, and ratios are taken within a round. CPU time is what the kernel says
//! all threads of the proxy ran, divided by the requests it answered. This is outside the test
//! command, because time is noisy on shared machines.

mod idle;
mod measure;
mod micro;
mod peers;
mod report;

pub(crate) use idle::idle;
pub(crate) use micro::micro;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};

use self::measure::Sample;
use self::peers::Peer;
use crate::setup;
use crate::steps::{cargo, command, run, step};

/// One kind of load, the same for each proxy.
struct Scenario {
    name: &'static str,
    tls: bool,
    path: &'static str,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "HTTP/1.1, 128 B", tls: false, path: "/small" },
    Scenario { name: "HTTP/1.1 over TLS 1.3, 128 B", tls: true, path: "/small" },
    Scenario { name: "HTTP/1.1, 16 KiB", tls: false, path: "/large" },
];

/// What was asked for on the command line.
struct Plan {
    rounds: usize,
    seconds: u32,
    connections: u32,
}

pub(crate) fn quick(arguments: &[&str]) -> anyhow::Result<()> {
    let plan = plan(arguments)?;
    step("system packages", setup::install_for_bench)?;
    step("release build", || {
        run(cargo(&["build", "--release", "--locked", "--package", "portcullis"]))
    })?;
    let folder = folder()?;
    let mut results = Vec::new();
    step("rounds", || {
        let _backend = peers::start_backend(&folder)?;
        for scenario in SCENARIOS {
            results.push((scenario.name, rounds(&plan, scenario, &folder)?));
        }
        Ok(())
    })?;
    report::print(&plan, &results)
}

fn plan(arguments: &[&str]) -> anyhow::Result<Plan> {
    let mut plan = Plan { rounds: 3, seconds: 5, connections: 32 };
    for pair in arguments.chunks(2) {
        match pair {
            ["--rounds", number] => plan.rounds = number.parse().context("--rounds")?,
            ["--seconds", number] => plan.seconds = number.parse().context("--seconds")?,
            ["--connections", number] => {
                plan.connections = number.parse().context("--connections")?;
            }
            other => bail!("bench quick does not know {other:?}"),
        }
    }
    if plan.rounds < 3 {
        bail!("a median of fewer than 3 rounds says nothing");
    }
    Ok(plan)
}

/// Where the servers keep their files, with a certificate for both.
fn folder() -> anyhow::Result<PathBuf> {
    let folder = crate::root().join("target/bench");
    fs::create_dir_all(&folder)?;
    for name in ["nginx.conf", "backend.conf", "portcullis.yaml", "idle.yaml"] {
        fs::copy(crate::root().join("bench").join(name), folder.join(name)).context(name)?;
    }
    fs::write(folder.join("large.bin"), "b".repeat(16 * 1024))?;
    let mut openssl =
        command("openssl", &["req", "-x509", "-newkey", "ec", "-nodes", "-days", "365"]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=bench.example"]);
    openssl.args(["-addext", "subjectAltName=DNS:bench.example,IP:127.0.0.1"]);
    openssl.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(&folder);
    let made = openssl.output().context("openssl")?;
    if !made.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(folder)
}

/// One sample a peer and round: A B A B …
fn rounds(
    plan: &Plan,
    scenario: &Scenario,
    folder: &std::path::Path,
) -> anyhow::Result<Vec<[Sample; 2]>> {
    (0..plan.rounds)
        .map(|round| {
            println!("   {}: round {} of {}", scenario.name, round + 1, plan.rounds);
            let ours = measure::sample(&Peer::PORTCULLIS, plan, scenario, folder)?;
            let theirs = measure::sample(&Peer::NGINX, plan, scenario, folder)?;
            Ok([ours, theirs])
        })
        .collect()
}
