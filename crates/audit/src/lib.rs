//! The active proof: every route that is not public, tried with every credential that must not let
//! anybody in, and with one that must.
//!
//! The gateway under audit is this program's own data plane with the operator's configuration, on
//! loopback, with a backend, issuers and authorities that the audit makes up. What reaches the
//! backend is what counts. What the configuration says about a request is asked of a snapshot of
//! its own ([`oracle`]); credentials are made without the code that verifies them ([`forge`]).
//!
//! It does not judge what the operator wants: that is `check`.

mod backend;
mod certificates;
mod draft;
mod forge;
mod judge;
mod login;
mod moment;
mod mutate;
mod needs;
mod oracle;
mod plan;
mod prepare;
mod report;
mod run;
mod send;
mod stage;
mod target;
mod world;

use portcullis_config::Source;
use portcullis_core::finding::Findings;
use portcullis_core::registry::{Registry, Sources};

pub use forge::{ApiKey, Makers};
pub use judge::{CODES, Finding, Place};
pub use report::{Gap, Remark, Report, Routes};
pub use run::audit;
pub use target::{Decided, Decisions, Target, audit_target};

/// What is under audit.
#[expect(missing_debug_implementations, reason = "borrows a trait object without Debug")]
pub struct Subject<'a> {
    /// The configuration, as it is written.
    pub texts: Vec<Source>,
    /// The files that it refers to. Those with keys are replaced by the audit's own and never read.
    pub files: &'a dyn Sources,
    pub registry: Registry,
    pub makers: Makers,
}

/// How much is tried, and by how many.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Each kind of probe once a route, instead of every one in every method, version of HTTP and
    /// listener.
    pub quick: bool,
    /// Threads of the gateway under audit.
    pub workers: usize,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// There is nothing to audit.
    #[error("the configuration does not compile")]
    DoesNotCompile { findings: Findings, texts: Vec<Source> },
    #[error("{0}")]
    CouldNotRun(String),
}
