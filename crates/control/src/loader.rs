//! From a path to a compiled snapshot, or to findings that say why not. The same for `run`,
//! `check`, `routes` and `explain`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_config::{Config, Source, load};
use portcullis_core::Now;
use portcullis_core::carry::Carry;
use portcullis_core::finding::{Finding, Findings};
use portcullis_core::registry::Registry;
use portcullis_snapshot::{CompileContext, Snapshot, compile};
use rustls::RootCertStore;

use crate::files::Files;

/// Everything that stays the same from one load to the next.
#[derive(Debug)]
pub struct Loader {
    path: PathBuf,
    registry: Registry,
    roots: Arc<RootCertStore>,
    seed: u64,
}

/// What came of one load. `config` and `snapshot` are there as far as it got.
#[derive(Debug)]
pub struct Attempt {
    pub config: Option<Config>,
    pub snapshot: Option<Snapshot>,
    pub findings: Findings,
    /// The texts that findings point into.
    pub sources: Vec<Source>,
    /// What was read, to be asked whether it has changed.
    pub files: Files,
    /// To be kept if the snapshot serves.
    pub carry: Carry,
}

impl Loader {
    /// `seed` varies the times of health checks between processes.
    #[must_use]
    pub fn new(path: &Path, registry: Registry, roots: Arc<RootCertStore>, seed: u64) -> Self {
        Self { path: path.to_owned(), registry, roots, seed }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and compiles. The state in `carry` is not touched.
    #[must_use]
    pub fn load(&self, carry: &Carry, now: Now) -> Attempt {
        let files = Files::new(&self.path);
        let mut carry = carry.clone();
        let texts = match files.texts() {
            Ok(texts) => texts,
            Err(error) => {
                let mut findings = Findings::new();
                let finding = Finding::error("unreadable", None, "", error.to_string());
                findings.push(finding.help("give the configuration's path with `-c`"));
                let (config, snapshot, sources) = (None, None, Vec::new());
                return Attempt { config, snapshot, findings, sources, files, carry };
            }
        };
        let loaded = load(texts, &self.registry);
        let mut findings = loaded.findings;
        let snapshot = loaded.config.as_ref().and_then(|config| {
            let mut context = CompileContext {
                findings: &mut findings,
                carry: &mut carry,
                sources: &files,
                now,
                roots: Arc::clone(&self.roots),
                seed: self.seed,
            };
            compile(config, &self.registry, &mut context)
        });
        let findings = findings.sorted();
        let (config, sources) = (loaded.config, loaded.sources);
        Attempt { config, snapshot, findings, sources, files, carry }
    }
}

/// The authorities that this machine trusts. What cannot be read among them is left out.
#[must_use]
pub fn system_roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
}
