//! `cargo xtask fuzz`: libFuzzer on each target for some minutes, with cargo-fuzz.
//!
//! The compiler is the stable one; it is told to accept the flags that instrument the code. What
//! is tried out lands in `target/fuzz/corpus`, so that the seeds in the repository stay few: an
//! input that is worth keeping is copied to `fuzz/corpus` by hand, and tests replay it from then
//! on. Nothing is minimised here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::steps::{answers, cargo, output, run, step};

/// What was asked for on the command line.
struct Plan {
    targets: Vec<String>,
    minutes: u64,
}

/// What became of one target.
struct Outcome {
    target: String,
    executions: u64,
    seconds: u64,
    /// The inputs that broke a rule, and where the message is.
    found: Vec<PathBuf>,
    log: PathBuf,
}

pub(crate) fn run_targets(arguments: &[&str]) -> anyhow::Result<()> {
    let plan = plan(arguments)?;
    if !answers("cargo", &["fuzz", "--version"]) {
        bail!("cargo-fuzz is not installed\n  cargo install cargo-fuzz --locked");
    }
    let binaries = build(&plan)?;
    let mut outcomes = Vec::new();
    for target in &plan.targets {
        step(target, || {
            outcomes.push(fuzz(target, plan.minutes, &binaries)?);
            Ok(())
        })?;
    }
    report(&outcomes)
}

fn plan(arguments: &[&str]) -> anyhow::Result<Plan> {
    let all = targets()?;
    let mut plan = Plan { targets: Vec::new(), minutes: 1 };
    let mut rest = arguments.iter();
    while let Some(&word) = rest.next() {
        if word == "--minutes" {
            let number = rest.next().context("--minutes needs a number")?;
            plan.minutes = number.parse().context("--minutes")?;
        } else if all.iter().any(|target| target == word) {
            plan.targets.push(word.to_owned());
        } else {
            bail!("there is no target {word:?}; there are {}", all.join(", "));
        }
    }
    if plan.minutes == 0 {
        // For libFuzzer this would be for ever.
        bail!("--minutes is at least 1");
    }
    if plan.targets.is_empty() {
        plan.targets = all;
    }
    Ok(plan)
}

/// The names of the files in `fuzz/fuzz_targets`.
fn targets() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(crate::root().join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn in_target() -> PathBuf {
    crate::root().join("target/fuzz")
}

/// Builds what is needed and says where it is.
fn build(plan: &Plan) -> anyhow::Result<PathBuf> {
    step("build", || {
        let mut build = cargo(&["fuzz", "build", "--sanitizer", "none"]);
        build.arg("--target-dir").arg(in_target()).env("RUSTC_BOOTSTRAP", "1");
        if let [target] = plan.targets.as_slice() {
            build.arg(target);
        }
        build.current_dir(crate::root().join("fuzz"));
        run(build)
    })?;
    let about = output(crate::steps::command("rustc", &["-vV"]))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(in_target().join(host.context("rustc says no host")?).join("release"))
}

fn fuzz(target: &str, minutes: u64, binaries: &Path) -> anyhow::Result<Outcome> {
    let folder = |name: &str| -> anyhow::Result<PathBuf> {
        let folder = in_target().join(name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    };
    // What is found is written to the first corpus; the second is only read.
    let corpus = folder(&format!("corpus/{target}"))?;
    let seeds = crate::root().join("fuzz/corpus").join(target);
    let artifacts = folder(&format!("artifacts/{target}"))?;
    let before = listed(&artifacts)?;
    let log = folder("log")?.join(format!("{target}.log"));

    let mut fuzzer = Command::new(binaries.join(target));
    fuzzer.arg(&corpus).arg(&seeds).current_dir(crate::root());
    fuzzer.arg(format!("-max_total_time={}", minutes * 60));
    fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
    fuzzer.arg(format!("-dict={}", crate::root().join("fuzz/http.dict").display()));
    fuzzer.args(["-print_final_stats=1", "-timeout=90"]);
    let file = File::create(&log).with_context(|| log.display().to_string())?;
    fuzzer.stdout(file.try_clone()?).stderr(file);
    let started = std::time::Instant::now();
    let status = fuzzer.status().with_context(|| format!("{fuzzer:?}"))?;
    let seconds = started.elapsed().as_secs();

    let found: Vec<_> =
        listed(&artifacts)?.into_iter().filter(|path| !before.contains(path)).collect();
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() && found.is_empty() {
        // The same input was found before, or the fuzzer itself is broken: the log tells which.
        let tail: Vec<&str> = text.lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        println!("   {status}; the end of {}:\n{}", log.display(), tail.join("\n"));
        bail!("{target} ended with {status} and left no new input in {}", artifacts.display());
    }
    Ok(Outcome { target: target.to_owned(), executions: executions(&text), seconds, found, log })
}

fn listed(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    Ok(paths)
}

/// From the closing statistics, or from the last line of progress where there are none.
fn executions(log: &str) -> u64 {
    let number = |line: &str| line.split_whitespace().next()?.parse().ok();
    let total = log
        .lines()
        .rev()
        .find_map(|line| number(line.strip_prefix("stat::number_of_executed_units:")?));
    let progress = || {
        let line = log.lines().rev().find(|line| line.starts_with('#'))?;
        line[1..].split_whitespace().next()?.parse().ok()
    };
    total.or_else(progress).unwrap_or(0)
}

fn report(outcomes: &[Outcome]) -> anyhow::Result<()> {
    println!("── result");
    let mut found = 0;
    for Outcome { target, executions, seconds, found: inputs, log } in outcomes {
        let rate = executions / (*seconds).max(1);
        let verdict = if inputs.is_empty() { "nothing found" } else { "FOUND" };
        println!("   {target:16} {executions:>12} executions {rate:>8}/s  {verdict}");
        for input in inputs {
            println!("     {}\n     what it breaks: {}", input.display(), log.display());
        }
        found += inputs.len();
    }
    if found > 0 {
        bail!("{found} inputs break a rule");
    }
    Ok(())
}
