//! The only bridge from the written configuration to the snapshot.
//!
//! References are resolved, defaults and groups inherited, settings compiled by the registry, and
//! every mistake reported at its place. A snapshot comes out whole or not at all.
//!
//! What a route inherits, nearest first: itself, its group, `defaults`.
//! - `on`, `auth`, `body_max`, `bulkhead`, `priority`, `upgrade`, `forward_credential` and each
//!   part of `timeout` replace.
//! - `require` and `limits` add up, unless limits say `replace` and why.
//! - Policies that can only refuse (phases screen, authorise and validate) add up; of others by
//!   the same name the nearest counts.

mod accept;
mod access;
mod backends;
mod bulkheads;
mod client_certificates;
mod credentials;
mod discovery;
mod faults;
mod identity;
mod lint;
mod listeners;
mod matches;
mod mirrors;
mod own_paths;
mod policies;
mod require;
mod routes;
mod subsets;
mod targets;
#[cfg(test)]
mod tests;
mod tls;
mod watching;
mod zones;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use portcullis_config::{Config, Named};
use portcullis_core::carry::Carry;
use portcullis_core::finding::{Finding, Findings};
use portcullis_core::node::SourceSpan;
use portcullis_core::registry::{Compile, Registry, Site, Sources};
use portcullis_core::{Now, Policy};
use portcullis_upstream::{Directory, subset};
use rustls::RootCertStore;

use crate::router::RoutePattern;
use crate::snapshot::{CertificateFacts, NamedAuthenticator, Snapshot, Version};
use crate::version;

pub use backends::listed;
pub use discovery::RECONCILE;

/// What a compile may use, and where it leaves what it finds.
#[expect(missing_debug_implementations, reason = "borrows a trait object without Debug")]
pub struct CompileContext<'a> {
    pub findings: &'a mut Findings,
    /// State of the serving snapshot: give a clone, and keep it if the new snapshot serves.
    pub carry: &'a mut Carry,
    pub sources: &'a dyn Sources,
    /// For certificates that have expired.
    pub now: Now,
    /// The system's authorities, for `https://` backends without their own.
    pub roots: Arc<RootCertStore>,
    /// Varies the times of health checks between processes.
    pub seed: u64,
}

/// Compiles a configuration. `None` means that at least one error was added to the findings.
pub fn compile(
    config: &Config,
    registry: &Registry,
    with: &mut CompileContext<'_>,
) -> Option<Snapshot> {
    compile_with_patterns(config, registry, with).map(|(snapshot, _)| snapshot)
}

/// As [`compile`], with what the router was built from: for whoever wants to know what to ask it.
pub fn compile_with_patterns(
    config: &Config,
    registry: &Registry,
    with: &mut CompileContext<'_>,
) -> Option<(Snapshot, Vec<RoutePattern>)> {
    let errors_before = with.findings.errors();
    let seed = with.seed;
    let directory = with.carry.keep("directory", "", &(), || Directory::new(seed));
    let mut compiler = Compiler {
        config,
        registry,
        with,
        directory: Arc::clone(&directory),
        auth: HashMap::new(),
        composites: HashMap::new(),
        used: HashSet::new(),
        certificates: Vec::new(),
        subsets: HashMap::new(),
    };
    let listeners = compiler.listeners();
    let backends = compiler.backends();
    compiler.authenticators();
    let mut routes = compiler.routes(&listeners);
    let router = compiler.router(&routes);
    compiler.check_clear_text(&listeners, &routes);
    compiler.check_faults(&routes);
    compiler.check_certificates(&listeners, &routes);
    compiler.check_own_paths(&routes);
    compiler.check_credentials(&routes);
    if compiler.with.findings.errors() == errors_before {
        compiler.bulkheads(&mut routes, &backends);
        compiler.unused();
        compiler.lint(&routes, &router);
    }
    let mut authenticators: Vec<_> = compiler.auth.into_values().flatten().collect();
    authenticators.sort_by(|a, b| a.name.cmp(&b.name));
    let certificates = compiler.certificates;
    accept::accept(&config.accept, with.findings);
    if with.findings.errors() > errors_before {
        return None;
    }
    let patterns = routes.iter().flat_map(|built| &built.patterns);
    let patterns = patterns.map(|built| built.pattern.clone()).collect();
    let snapshot = Snapshot {
        version: Version { sequence: 0, hash: version::hash(config), overrides: 0 },
        router: Arc::new(router),
        overridden: None,
        routes: routes.into_iter().map(|built| Arc::new(built.route)).collect(),
        listeners: listeners.into_iter().map(|built| Arc::new(built.listener)).collect(),
        backends: backends.into_iter().map(Arc::new).collect(),
        authenticators,
        directory,
        certificates,
    };
    Some((snapshot, patterns))
}

struct Compiler<'a, 'b> {
    config: &'a Config,
    registry: &'a Registry,
    with: &'a mut CompileContext<'b>,
    directory: Arc<Directory>,
    /// By name; `None` after an error, which is reported once.
    auth: HashMap<&'a str, Option<NamedAuthenticator>>,
    /// Routes that ask for the same credentials share the policy that does.
    composites: HashMap<access::Asked, Arc<dyn Policy>>,
    /// Backends and auth entries that a route names, as `backends.NAME` and `auth.NAME`.
    used: HashSet<String>,
    certificates: Vec<CertificateFacts>,
    /// Of each backend, those that routes keep to.
    subsets: HashMap<&'a str, Vec<subset::Terms>>,
}

impl<'a> Compiler<'a, '_> {
    /// What the registry's entries compile with.
    fn compile(&mut self) -> Compile<'_> {
        Compile { findings: self.with.findings, carry: self.with.carry, sources: self.with.sources }
    }

    fn push(&mut self, finding: Finding) {
        self.with.findings.push(finding);
    }

    /// The position of the thing called `name`, or a finding that suggests another name.
    fn resolve<T>(
        &mut self,
        kind: &str,
        all: &[Named<T>],
        name: &str,
        at: (SourceSpan, &str),
    ) -> Option<usize> {
        if let Some(found) = all.iter().position(|one| one.name == name) {
            return Some(found);
        }
        let (span, resource) = at;
        let message = format!("there is no {kind} `{name}`");
        let names = all.iter().map(|one| one.name.as_str());
        self.push(Finding::error("unknown-name", span, resource, message).suggest(name, names));
        None
    }

    fn authenticators(&mut self) {
        let (config, registry) = (self.config, self.registry);
        for entry in &config.auth {
            // The loader knows no other kinds than the registry's.
            let Some(kind) = registry.auth(&entry.value.kind) else { continue };
            let resource = format!("auth.{}.{}", entry.name, entry.value.kind);
            let site =
                Site { owner: &entry.name, resource: &resource, span: entry.value.kind_span };
            let compiled = (kind.compile)(&entry.value.settings, &site, &mut self.compile());
            let compiled = compiled.map(|authenticator| NamedAuthenticator {
                name: entry.name.as_str().into(),
                authenticator,
            });
            self.auth.insert(&entry.name, compiled);
        }
    }

    /// What nobody names is most likely a slip; where there are errors, it may be named in vain.
    fn unused(&mut self) {
        let config: &'a Config = self.config;
        let backends = config.backends.iter().map(|one| ("backends", &one.name, one.span));
        let auth = config.auth.iter().map(|one| ("auth", &one.name, one.span));
        for (kind, name, span) in backends.chain(auth) {
            let resource = format!("{kind}.{name}");
            if !self.used.contains(&resource) {
                let message = format!("no route uses `{name}`");
                self.push(Finding::warning("unused", span, resource, message));
            }
        }
    }
}
