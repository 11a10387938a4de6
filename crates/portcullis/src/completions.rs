//! `portcullis completions`: scripts that let a shell complete verbs and options.

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::{cli, output};

pub(crate) fn run(arguments: &cli::Completions) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let mut command = cli::Cli::command();
    clap_complete::generate(arguments.shell, &mut command, "portcullis", &mut script);
    output::print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
