//! `cargo xtask docs`: the pictures of the documentation, each a simulation of the gateway's own
//! state machines. The same seed gives the same picture, so that a check can tell when a change of
//! behaviour has made one untrue.

mod balancing;
mod overload;
mod places;
mod plot;
mod protecting;
mod shifting;
mod simulation;

use std::fs;

use anyhow::{Context, bail};

const FOLDER: &str = "docs/pictures";

pub(crate) fn write() -> anyhow::Result<()> {
    let folder = crate::root().join(FOLDER);
    fs::create_dir_all(&folder)?;
    for (name, svg) in pictures()? {
        fs::write(folder.join(&name), svg).with_context(|| name.clone())?;
        println!("   wrote {FOLDER}/{name}");
    }
    Ok(())
}

pub(crate) fn check() -> anyhow::Result<()> {
    let folder = crate::root().join(FOLDER);
    let pictures = pictures()?;
    let is_stale = |name: &String, svg: &String| {
        fs::read_to_string(folder.join(name)).ok().as_ref() != Some(svg)
    };
    let mut wrong: Vec<String> = pictures
        .iter()
        .filter(|(name, svg)| is_stale(name, svg))
        .map(|(name, _)| name.clone())
        .collect();
    for entry in fs::read_dir(&folder).with_context(|| FOLDER)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !pictures.iter().any(|(known, _)| *known == name) {
            wrong.push(name);
        }
    }
    if !wrong.is_empty() {
        bail!("out of date in {FOLDER}: {}\n  cargo xtask docs", wrong.join(", "));
    }
    Ok(())
}

/// Names of files, and what is in them.
fn pictures() -> anyhow::Result<Vec<(String, String)>> {
    let plots = [
        ("round-robin", balancing::round_robin()?),
        ("least-requests", balancing::least_requests()?),
        ("ewma", balancing::ewma()?),
        ("hash", balancing::hash()?),
        ("sticky", balancing::sticky()?),
        ("slow-start", balancing::slow_start()?),
        ("panic-threshold", balancing::panic_threshold()?),
        ("zones", places::zones()?),
        ("priorities", places::priorities()?),
        ("subsets", places::subsets()?),
        ("set-aside", protecting::set_aside()?),
        ("outliers", protecting::outliers()?),
        ("breaker", protecting::circuit_breaker()?),
        ("retry-budget", protecting::retry_budget()),
        ("hedge", protecting::hedge()),
        ("adaptive-concurrency", overload::adaptive()),
        ("shedding", overload::shedding()),
        ("analysis", shifting::analysis()),
    ];
    Ok(plots.into_iter().map(|(name, plot)| (format!("{name}.svg"), plot.svg())).collect())
}
