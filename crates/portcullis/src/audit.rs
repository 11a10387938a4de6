//! `portcullis audit`: the proof that no request gets through without the identity that its route
//! demands.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use portcullis_audit::{AuditError, Makers, Options, Report, Subject, audit};
use portcullis_config::render;
use portcullis_control::Files;
use portcullis_policies::auth::api_keys::generate;
use portcullis_policies::auth::basic::hash_password;
use portcullis_proxy::Clock;

use crate::{NO, cli, output};

/// What only the policies know how to make.
const MAKERS: Makers = Makers {
    api_key: |random, id| {
        let key = generate(random, id, "audit").ok()?;
        Some((key.text, key.entry.hash))
    },
    password: |salt, password| hash_password(password, salt).ok(),
};

pub(crate) fn run(arguments: &cli::Audit) -> anyhow::Result<ExitCode> {
    let path = &arguments.config.path;
    let files = Files::new(path);
    let texts = files.texts().context("give the configuration's path with `-c`")?;
    let registry = portcullis_policies::registry();
    let subject = Subject { texts, files: &files, registry, makers: MAKERS };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options { quick: arguments.quick, workers };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let report = match local.block_on(&runtime, audit(subject, options, Clock::real().now().wall)) {
        Ok(report) => report,
        Err(AuditError::DoesNotCompile { findings, texts }) => {
            output::remark(&render(&findings, &texts, output::colour(&io::stderr())));
            return Ok(ExitCode::from(NO));
        }
        Err(error @ AuditError::CouldNotRun(_)) => return Err(error.into()),
    };
    tell(&report, &path.display().to_string(), arguments)?;
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

fn tell(report: &Report, name: &str, arguments: &cli::Audit) -> anyhow::Result<()> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = &arguments.sarif {
        write(path, report.sarif())?;
    }
    if let Some(path) = &arguments.junit {
        write(path, report.junit(name))?;
    }
    match arguments.json {
        true => output::print_json(report),
        false => Ok(output::print(&report.human(name))?),
    }
}
