//! `portcullis drill`: what clients see while backends fail.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use portcullis_drill::{DrillError, Options};

use crate::{NO, USAGE, cli, output};

pub(crate) fn run(arguments: &cli::Drill) -> anyhow::Result<ExitCode> {
    let cli::Drill::Backends(arguments) = arguments;
    let options = Options {
        program: std::env::current_exe().context("where this program is")?,
        rate: arguments.rate,
        trouble: Duration::from_secs(arguments.seconds.into()),
        only: arguments.only.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let played = runtime.block_on(async {
        tokio::select! {
            played = portcullis_drill::run(&options) => Some(played),
            // With what is dropped here the gateway ends, and its directory.
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    let report = match played.context("interrupted")? {
        Ok(report) => report,
        Err(error @ DrillError::NoSuchDrill { .. }) => {
            output::complain(&error.to_string());
            return Ok(ExitCode::from(USAGE));
        }
        Err(error) => return Err(error.into()),
    };
    match arguments.json {
        true => output::print_json(&report)?,
        false => output::print(&report.human())?,
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}
