//! Loading a configuration to ask it something.

use std::path::Path;
use std::{io, process};

use portcullis_config::{Config, render};
use portcullis_control::{Attempt, Loader, system_roots};
use portcullis_core::Now;
use portcullis_core::carry::Carry;
use portcullis_proxy::Clock;
use portcullis_snapshot::Snapshot;

use crate::output;

/// What came of loading it, and when that was.
///
/// # Errors
/// It cannot be read.
pub(crate) fn attempt(path: &Path) -> anyhow::Result<(Attempt, Now)> {
    let now = Clock::real().now();
    let seed = u64::from(process::id());
    let loader = Loader::new(path, portcullis_policies::registry(), system_roots(), seed);
    let attempt = loader.load(&Carry::default(), now);
    if attempt.sources.is_empty()
        && let Some(finding) = attempt.findings.iter().next()
    {
        let help = finding.help.as_deref().unwrap_or_default();
        anyhow::bail!("{}; {help}", finding.message);
    }
    Ok((attempt, now))
}

/// A configuration that compiles.
pub(crate) struct Compiled {
    pub config: Config,
    pub snapshot: Snapshot,
    pub now: Now,
}

/// `None` if it does not compile, which has been said.
///
/// # Errors
/// It cannot be read.
pub(crate) fn compiled(path: &Path) -> anyhow::Result<Option<Compiled>> {
    let (attempt, now) = attempt(path)?;
    let (Some(config), Some(snapshot)) = (attempt.config, attempt.snapshot) else {
        output::remark(&render(&attempt.findings, &attempt.sources, output::colour(&io::stderr())));
        return Ok(None);
    };
    Ok(Some(Compiled { config, snapshot, now }))
}
