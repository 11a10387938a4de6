//! The `portcullis` command. One file a verb; this one only chooses.
//!
//! Exit statuses: 0 yes, 1 no (what was asked does not hold), 2 usage, 3 could not run.

mod admin_api;
mod analysis;
mod audit;
mod backends;
mod check;
mod cli;
mod completions;
mod demo;
mod drill;
mod explain;
mod keys;
mod load;
mod output;
mod r#override;
mod past;
mod routes;
mod run;
mod schema;
mod token;
mod usage;
mod view;
mod watched;

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::{Cli, Verb};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What was asked for does not hold.
const NO: u8 = 1;
/// What was typed makes no sense. clap's own status for it.
const USAGE: u8 = 2;
/// The question could not be answered.
const COULD_NOT_RUN: u8 = 3;

/// Chooses what the process says about itself: `PORTCULLIS_LOG=debug`, `=portcullis_control=debug`.
const LOG_VARIABLE: &str = "PORTCULLIS_LOG";

fn main() -> ExitCode {
    // Ends here on `--help` (0) and on what cannot be read (2).
    let arguments = Cli::parse();
    match verb(&arguments.verb) {
        Ok(status) => status,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

fn verb(verb: &Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Demo(arguments) => log_to_stderr().and_then(|()| demo::run(arguments)),
        Verb::Run(arguments) => log_to_stderr().and_then(|()| run::run(arguments)),
        Verb::Check(arguments) => check::run(arguments),
        Verb::Audit(arguments) => audit::run(arguments),
        Verb::Drill(arguments) => drill::run(arguments),
        Verb::Routes(arguments) => routes::run(arguments),
        Verb::Explain(arguments) => explain::run(arguments),
        Verb::Schema => schema::run(),
        Verb::Analysis(arguments) => analysis::run(arguments),
        Verb::Override(arguments) => r#override::run(arguments),
        Verb::Keys(arguments) => keys::run(arguments),
        Verb::Token(arguments) => token::run(arguments),
        Verb::Completions(arguments) => completions::run(arguments),
    }
}

/// What the process says about itself. Requests are in the access log, not here.
fn log_to_stderr() -> anyhow::Result<()> {
    let asked = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let filter = match &*asked {
        // What strangers do wrong over HTTP/2 is counted, and no warning each.
        "" => EnvFilter::builder().parse("info,h2=error"),
        _ => EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(&asked),
    };
    let filter = filter.map_err(|error| anyhow::anyhow!("{LOG_VARIABLE}: {error}"))?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_target(false)
        .init();
    Ok(())
}
