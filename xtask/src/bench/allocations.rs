//! `cargo xtask bench allocations`: what a request takes from the heap in steady state, and where.

use crate::steps::{cargo, command, run, step};

/// The arguments are those of `bench/src/allocations.rs`.
pub(crate) fn allocations(arguments: &[&str]) -> anyhow::Result<()> {
    let build = ["build", "--quiet", "--release", "--locked", "-p", "portcullis-bench"];
    step("release build", || run(cargo(&[&build[..], &["--bin", "allocations"]].concat())))?;
    run(command("target/release/allocations", arguments))
}
