//! `cargo xtask bench micro`: instructions of the hot parts, counted by valgrind, against those in
//! `bench/micro.json`. Counts repeat to the instruction where times do not.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::steps::{cargo, command, output, run, step};

/// More than this over the baseline fails.
const GROWTH_PERCENT: f64 = 3.0;
const FEW: u64 = 1_000;
const MANY: u64 = 11_000;

/// `--bless "<why>"` makes what is counted now the baseline.
pub(crate) fn micro(arguments: &[&str]) -> anyhow::Result<()> {
    let why = match arguments {
        [] => None,
        ["--bless", why] if !why.trim().is_empty() => Some(*why),
        _ => bail!("bench micro [--bless \"<why>\"]"),
    };
    let build = ["build", "--quiet", "--release", "--locked", "-p", "portcullis-bench"];
    step("release build", || run(cargo(&[&build[..], &["--bin", "micro"]].concat())))?;
    let mut counted = BTreeMap::new();
    step("counting", || {
        counted = count()?;
        Ok(())
    })?;
    let (compiler, lock) = (compiler()?, lock()?);
    if let Some(why) = why {
        let text =
            json!({ "compiler": compiler, "lock": lock, "why": why, "instructions": counted });
        fs::write(path(), format!("{text:#}\n"))?;
        println!("   wrote bench/micro.json");
        return Ok(());
    }
    let baseline = baseline()?;
    if baseline["lock"] != lock {
        println!("   the baseline is of another Cargo.lock");
    }
    println!("| instructions | now | baseline | change |\n|---|---|---|---|");
    for (part, now) in &counted {
        let (before, change) = compare(&baseline, part, *now);
        println!("| {part} | {now} | {before} | {change:+.1} % |");
    }
    let grown: Vec<&str> = counted
        .iter()
        .filter(|(part, now)| compare(&baseline, part, **now).1 > GROWTH_PERCENT)
        .map(|(part, _)| part.as_str())
        .collect();
    if baseline["compiler"] != compiler {
        println!("   the baseline is of {}: nothing fails", baseline["compiler"]);
    } else if !grown.is_empty() {
        bail!("more than {GROWTH_PERCENT} % over the baseline: {}", grown.join(", "));
    }
    Ok(())
}

/// For the test command: nothing is built for a compiler that the baseline says nothing about.
pub(crate) fn check_micro() -> anyhow::Result<()> {
    let (baseline, compiler) = (baseline()?, compiler()?);
    if baseline["compiler"] == compiler {
        return micro(&[]);
    }
    println!("   the baseline is of {}: not counted with {compiler}", baseline["compiler"]);
    Ok(())
}

fn baseline() -> anyhow::Result<Value> {
    let text = fs::read_to_string(path()).context("bench/micro.json; make it with --bless")?;
    Ok(serde_json::from_str(&text)?)
}

fn path() -> PathBuf {
    crate::root().join("bench/micro.json")
}

fn count() -> anyhow::Result<BTreeMap<String, u64>> {
    let binary = crate::root().join("target/release/micro");
    let binary = binary.to_string_lossy();
    let mut counted = BTreeMap::new();
    for part in output(command(&binary, &[]))?.lines() {
        let few = instructions(&binary, part, FEW)?;
        let many = instructions(&binary, part, MANY)?;
        counted.insert(part.to_owned(), (many - few) / (MANY - FEW));
    }
    Ok(counted)
}

fn instructions(binary: &str, part: &str, times: u64) -> anyhow::Result<u64> {
    let quiet = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let times = times.to_string();
    let arguments = [&quiet[..], &[binary, part, &times]].concat();
    let output = command("valgrind", &arguments).output().context("Debian's package valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{part} did not run:\n{text}");
    }
    let total = text.lines().find_map(|line| line.split("Collected :").nth(1));
    let total = total.with_context(|| format!("valgrind did not count:\n{text}"))?;
    Ok(total.trim().parse()?)
}

/// What the baseline has for a part, and how many per cent there are now over it. A part that it
/// does not have has grown without end.
fn compare(baseline: &Value, part: &str, now: u64) -> (u64, f64) {
    let before = baseline["instructions"][part].as_u64().unwrap_or(0);
    (before, 100.0 * (now as f64 - before as f64) / before as f64)
}

/// What a baseline holds for: a compiler and its target.
fn compiler() -> anyhow::Result<String> {
    let version = output(command("rustc", &["-vV"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV")?;
    Ok(format!("{} for {host}", version.lines().next().unwrap_or_default()))
}

/// Says whether a dependency may have changed. FNV-1a: the same on every machine and for ever.
fn lock() -> anyhow::Result<String> {
    let lock = fs::read(crate::root().join("Cargo.lock"))?;
    let hash = lock.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    Ok(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_three_per_cent_and_what_has_no_baseline_is_too_much() {
        let baseline = json!({ "instructions": { "parse": 1000 } });
        let is_too_much = |part, now| compare(&baseline, part, now).1 > GROWTH_PERCENT;
        assert!(!is_too_much("parse", 900));
        assert!(!is_too_much("parse", 1030));
        assert!(is_too_much("parse", 1031));
        assert!(is_too_much("new", 1));
    }
}
