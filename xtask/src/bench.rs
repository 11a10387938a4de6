//! `cargo xtask bench`: what a request costs in Portcullis and in its peers, side by side.
//!
//! The proxy has core 0 with one worker; the backend (nginx) and the load have core 1. The proxies
//! take turns (A B C A B C …), so a machine that grows slower meanwhile slows all of them. Numbers
//! are medians over rounds, and ratios are taken within a round. CPU time is what the kernel says
//! all threads of the proxy and of its children ran, divided by the requests it answered. This is
//! outside the test command, because time is noisy on shared machines.

mod allocations;
mod audit;
mod chart;
mod idle;
mod latency;
mod load;
mod material;
mod micro;
mod overload;
mod peers;
mod process;
mod reload;
mod report;
mod same_work;
mod scenarios;

pub(crate) use allocations::allocations;
pub(crate) use audit::audit;
pub(crate) use micro::{check_micro, micro};
pub(crate) use overload::overload;

use std::path::Path;

use anyhow::{Context, bail};

use self::peers::{PEERS, Peer};
use self::process::Server;
use self::report::Row;
use self::scenarios::{SCENARIOS, Scenario};
use crate::setup;
use crate::steps::{cargo, run, step};

/// Letters of the scenarios that are more than a load.
const OTHERS: &str = "jklm";

/// Samples with new tokens are no longer than this, since all tokens are signed beforehand.
const NEW_TOKEN_SECONDS: u32 = 2;

/// What was asked for on the command line.
struct Plan {
    quick: bool,
    picture: bool,
    rounds: usize,
    seconds: u32,
    connections: usize,
    letters: String,
    peers: Vec<&'static Peer>,
}

pub(crate) fn bench(arguments: &[&str]) -> anyhow::Result<()> {
    let plan = Plan::from(arguments)?;
    step("system packages", setup::install_for_bench)?;
    step("release build", || {
        let packages = ["--package", "portcullis", "--package", "portcullis-bench"];
        run(cargo(&[&["build", "--release", "--locked"][..], &packages].concat()))
    })?;
    let folder = material::folder()?;
    step("peers that Debian does not have", || material::environment(&folder))?;
    let new_tokens = plan.scenarios().any(Scenario::wants_new_tokens);
    step("tokens", || material::tokens(&plan, &folder, new_tokens))?;
    let mut rows = Vec::new();
    let measured = measure(&plan, &folder, &mut rows);
    // What was measured before something failed is worth keeping.
    if !rows.is_empty() {
        report::write(&plan, &folder, &rows)?;
    }
    measured
}

fn measure(plan: &Plan, folder: &Path, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let _backend = Server::backend(folder)?;
    step("the same work", || {
        plan.peers.iter().try_for_each(|peer| same_work::check(peer, folder))
    })?;
    for scenario in plan.scenarios() {
        step(&format!("({}) {}", scenario.letter, scenario.name), || {
            rounds(plan, scenario, folder, rows)
        })?;
    }
    let others: [(char, &str, Other); 4] = [
        ('j', "latency at fixed rates", latency::measure),
        ('k', "idle connections", idle::measure),
        ('l', "reloads", reload::many),
        ('m', "start and reload", reload::times),
    ];
    for (letter, name, measure) in others {
        if plan.letters.contains(letter) {
            step(&format!("({letter}) {name}"), || measure(plan, folder, rows))?;
        }
    }
    Ok(())
}

type Other = fn(&Plan, &Path, &mut Vec<Row>) -> anyhow::Result<()>;

/// One sample a peer and round: A B C A B C …
fn rounds(
    plan: &Plan,
    scenario: &Scenario,
    folder: &Path,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    for round in 0..plan.rounds {
        for peer in plan.peers_for(scenario.letter) {
            let take = || sample(peer, plan, scenario, folder);
            // A sample with a wrong answer in it is none: it is taken again, once.
            let values = take().or_else(|error| {
                println!("   {}: {}: once more: {error:#}", peer.name, scenario.name);
                take().with_context(|| format!("{}: {}", peer.name, scenario.name))
            })?;
            let name = peer.name_in(scenario.letter);
            rows.push(Row::new(scenario.letter, scenario.name, name, round, values));
        }
    }
    Ok(())
}

fn sample(
    peer: &Peer,
    plan: &Plan,
    scenario: &Scenario,
    folder: &Path,
) -> anyhow::Result<Vec<(&'static str, f64)>> {
    peer.configure(folder, scenario.routes())?;
    let server = peer.start(folder)?;
    // Connections to the backend are open and caches warm before anything counts.
    load::run(scenario, plan, folder, true)?;
    let before = process::run_time_ns(server.process())?;
    let seen = load::run(scenario, plan, folder, false)?;
    let ran = process::run_time_ns(server.process())? - before;
    if scenario.wants_new_tokens() && peer.verifies {
        let tokens = plan.tokens() - plan.tokens_a_second();
        if seen.requests > tokens as u64 {
            println!("   {}: more requests than tokens, some were sent twice", peer.name);
        }
    }
    let requests = seen.requests as f64;
    let mut values = vec![
        ("CPU µs", ran as f64 / 1_000.0 / requests),
        ("requests/s", requests / seen.seconds),
        ("RssAnon MiB", process::memory_kib(server.process())? as f64 / 1024.0),
        ("RSS MiB", process::resident_kib(server.process())? as f64 / 1024.0),
    ];
    if let Some([p50, p99, p999]) = seen.latency_us {
        values.extend([("p50 µs", p50), ("p99 µs", p99), ("p99.9 µs", p999)]);
    }
    Ok(values)
}

impl Plan {
    fn from(arguments: &[&str]) -> anyhow::Result<Self> {
        let quick = arguments.contains(&"--quick");
        let mut plan = Self {
            quick,
            picture: arguments.contains(&"--picture"),
            rounds: 3,
            seconds: if quick { 2 } else { 5 },
            connections: 32,
            letters: if quick { "abcdefghikm" } else { "abcdefghijklm" }.to_owned(),
            peers: PEERS.iter().collect(),
        };
        let mut words = arguments.iter().filter(|word| !["--quick", "--picture"].contains(word));
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} wants a value"))?;
            match *word {
                "--rounds" => plan.rounds = value.parse().context("--rounds")?,
                "--seconds" => plan.seconds = value.parse().context("--seconds")?,
                "--connections" => plan.connections = value.parse().context("--connections")?,
                "--only" => plan.letters = value.replace(',', ""),
                "--peers" => plan.peers = value.split(',').map(peer).collect::<Result<_, _>>()?,
                other => bail!("bench does not know `{other}`"),
            }
        }
        let known =
            |letter| OTHERS.contains(letter) || SCENARIOS.iter().any(|s| s.letter == letter);
        if let Some(letter) = plan.letters.chars().find(|letter| !known(*letter)) {
            bail!("there is no scenario `{letter}`");
        }
        if plan.rounds < 3 {
            bail!("a median of fewer than 3 rounds says nothing");
        }
        Ok(plan)
    }

    fn scenarios(&self) -> impl Iterator<Item = &'static Scenario> {
        SCENARIOS.iter().filter(|scenario| {
            self.letters.contains(scenario.letter) && !(self.quick && scenario.long)
        })
    }

    fn peers_for(&self, letter: char) -> impl Iterator<Item = &'static Peer> {
        self.peers.iter().copied().filter(move |peer| peer.does(letter))
    }

    fn seconds_of(&self, scenario: &Scenario) -> u32 {
        if scenario.wants_new_tokens() { self.seconds.min(NEW_TOKEN_SECONDS) } else { self.seconds }
    }

    /// How many tokens have to be there where each request has one of its own: those of a warm-up
    /// of one second and of a sample.
    fn tokens(&self) -> usize {
        self.tokens_a_second() * (self.seconds.min(NEW_TOKEN_SECONDS) as usize + 1)
    }

    /// More than any proxy here verifies.
    fn tokens_a_second(&self) -> usize {
        30_000
    }
}

fn peer(key: &str) -> anyhow::Result<&'static Peer> {
    PEERS.iter().find(|peer| peer.key == key).with_context(|| format!("no peer is called `{key}`"))
}

#[test]
fn the_command_line_is_read() {
    let plan = Plan::from(&["--quick", "--only", "a,i", "--peers", "nginx,portcullis"]).unwrap();
    assert_eq!(plan.peers.iter().map(|peer| peer.key).collect::<Vec<_>>(), ["nginx", "portcullis"]);
    assert_eq!(plan.scenarios().map(|scenario| scenario.letter).collect::<String>(), "aii");
    assert_eq!(plan.seconds, 2);
    for wrong in [&["--only", "z"][..], &["--peers", "x"], &["--rounds", "2"], &["--rounds"]] {
        assert!(Plan::from(wrong).is_err(), "{wrong:?}");
    }
}
