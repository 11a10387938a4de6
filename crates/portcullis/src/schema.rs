//! `portcullis schema`: the JSON Schema of the configuration.

use std::process::ExitCode;

use crate::output;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    output::print_json(&portcullis_config::schema(&portcullis_policies::registry()))?;
    Ok(ExitCode::SUCCESS)
}
