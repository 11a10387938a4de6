//! `cargo xtask test`: the README's test command, and what continuous integration runs.
//!
//! The test runner comes last, so that its closing summary is the last thing printed.

use std::process::Command;

use anyhow::bail;

use crate::steps::{answers, cargo, run, step};
use crate::{bench, docs, generate, setup};

/// Names the tests that start a server which is not ours; they live in modules called `real`.
const REAL: &str = "real::";
/// Those of them with a browser, which is a download of its own: `test-real` runs them.
const CHROMIUM: &str = "real::chromium::";

pub(crate) fn everything(filter: &[&str]) -> anyhow::Result<()> {
    step("system packages", setup::install)?;
    step("format", || run(cargo(&["fmt", "--all", "--check"])))?;
    step("lints", || {
        run(cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
    })?;
    step("dependencies", dependencies)?;
    step("documentation", || {
        let mut doc = cargo(&[
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--locked",
            "--quiet",
        ]);
        // The documentation is for those who work on the code: it may lead to private items.
        doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
        run(doc)
    })?;
    // One build for everything that runs, so that no library is compiled twice.
    step("build", || run(runner(&["--no-run"])))?;
    step("generated files", generate::check_built)?;
    step("pictures", docs::check)?;
    step("instructions", bench::check_micro)?;
    tests(filter, &["--", "--skip", CHROMIUM])
}

pub(crate) fn real() -> anyhow::Result<()> {
    step("system packages", setup::install_with_browser)?;
    tests(&[REAL], &[])
}

/// cargo-deny where it is installed. Its database of known holes is fetched; where that is out of
/// reach the rules that need no network are checked. Without cargo-deny, tidy holds them as tests.
fn dependencies() -> anyhow::Result<()> {
    if !answers("cargo-deny", &["--version"]) {
        println!("   cargo-deny is not installed: the tests of crates/tidy check deny.toml");
        return Ok(());
    }
    let quiet = ["deny", "--log-level", "error"];
    let fetched = cargo(&[&quiet[..], &["fetch"]].concat()).output();
    if fetched.is_ok_and(|fetch| fetch.status.success()) {
        return run(cargo(&[&quiet[..], &["check"]].concat()));
    }
    println!("   the advisory database cannot be fetched: checking what needs none");
    run(cargo(&[&quiet[..], &["check", "bans", "licenses", "sources"]].concat()))
}

/// Both runners take what is after `--` alike.
fn tests(filter: &[&str], more: &[&str]) -> anyhow::Result<()> {
    println!("── tests");
    let status = runner(&["--no-fail-fast"]).args(filter).args(more).status()?;
    if !status.success() {
        bail!("tests: {status}");
    }
    Ok(())
}

/// cargo-nextest where it is installed, which runs each test in a process of its own; else
/// `cargo test`.
fn runner(arguments: &[&str]) -> Command {
    let mut runner = if answers("cargo-nextest", &["nextest", "--version"]) {
        cargo(&["nextest", "run"])
    } else {
        cargo(&["test"])
    };
    runner.args(["--workspace", "--locked"]).args(arguments);
    runner
}
