//! Files that are made from the code and checked in, so that a reader of the repository has them.

use std::fs;

use anyhow::{Context, bail};

use crate::reference;
use crate::steps::{cargo, command, output};

const SCHEMA: &str = "docs/reference/schema.json";
const CONFIGURATION: &str = "docs/reference/configuration.md";

pub(crate) fn write() -> anyhow::Result<()> {
    for (path, text) in files(&build_and_ask()?)? {
        let full = crate::root().join(path);
        if let Some(folder) = full.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&full, text).with_context(|| path.to_owned())?;
        println!("   wrote {path}");
    }
    Ok(())
}

pub(crate) fn check() -> anyhow::Result<()> {
    compare(&build_and_ask()?)
}

/// As [`check`], by a binary that is already there: the one beside this program.
pub(crate) fn check_built() -> anyhow::Result<()> {
    let binary = std::env::current_exe()?.with_file_name("portcullis");
    compare(&output(command(&binary.to_string_lossy(), &["schema"]))?)
}

fn compare(schema: &str) -> anyhow::Result<()> {
    let stale: Vec<&str> = files(schema)?
        .into_iter()
        .filter(|(path, text)| {
            fs::read_to_string(crate::root().join(path)).ok().as_ref() != Some(text)
        })
        .map(|(path, _)| path)
        .collect();
    if !stale.is_empty() {
        bail!("out of date: {}\n  cargo xtask generate", stale.join(", "));
    }
    Ok(())
}

/// Path and text of each generated file, all made from what the binary says.
fn files(schema: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
    let parsed = serde_json::from_str(schema).context("`portcullis schema` prints JSON")?;
    Ok(vec![(SCHEMA, schema.to_owned()), (CONFIGURATION, reference::page(&parsed))])
}

fn build_and_ask() -> anyhow::Result<String> {
    let run = ["run", "--quiet", "--locked", "--package", "portcullis", "--", "schema"];
    output(cargo(&run))
}
