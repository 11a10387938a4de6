//! A snapshot as people and the admin API read it: rows of plain data, without secrets.

use serde::Serialize;

use crate::snapshot::{Access, Route, Snapshot};

/// One route of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteRow {
    pub route: String,
    pub matches: Vec<String>,
    pub listeners: Vec<String>,
    /// `authenticated`, `optional` or `public`.
    pub access: &'static str,
    /// The entries of `auth` that are taken.
    pub auth: Vec<String>,
    pub scopes: Vec<String>,
    /// Why nobody has to authenticate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `PHASE: POLICY`, in the order in which they run.
    pub policies: Vec<String>,
    /// Backends and their weights against each other.
    pub to: Vec<TargetRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetRow {
    pub backend: String,
    pub weight: u32,
}

/// How many routes ask for a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    pub authenticated: usize,
    pub optional: usize,
    pub public: usize,
    /// Every route that somebody may use without a credential, and why.
    pub open: Vec<(String, String)>,
}

/// The route table, in the order of the configuration.
#[must_use]
pub fn describe(snapshot: &Snapshot) -> Vec<RouteRow> {
    snapshot.routes.iter().map(|route| row(snapshot, route)).collect()
}

fn row(snapshot: &Snapshot, route: &Route) -> RouteRow {
    let names = |auth: &[std::sync::Arc<str>]| auth.iter().map(|name| name.to_string()).collect();
    let (access, auth, scopes) = match &route.access {
        Access::Authenticated { auth, scopes } => ("authenticated", names(auth), scopes.clone()),
        Access::Optional { auth, .. } => ("optional", names(auth), Vec::new()),
        Access::Public { .. } => ("public", Vec::new(), Vec::new()),
    };
    let listener = |number: &u16| snapshot.listeners[usize::from(*number)].name.to_string();
    let targets = route.to.iter().flat_map(|targets| &targets.backends);
    RouteRow {
        route: route.name.to_string(),
        matches: route.matches.clone(),
        listeners: route.listeners.iter().map(listener).collect(),
        access,
        auth,
        scopes,
        reason: route.access.public_reason().map(str::to_owned),
        policies: route
            .policies
            .iter()
            .map(|placed| format!("{}: {}", placed.phase.name(), placed.name))
            .collect(),
        to: targets
            .map(|(backend, weight)| TargetRow {
                backend: snapshot.backends[usize::from(*backend)].name.to_string(),
                weight: *weight,
            })
            .collect(),
    }
}

/// Who can get in where without a credential.
#[must_use]
pub fn coverage(snapshot: &Snapshot) -> Coverage {
    let mut coverage = Coverage::default();
    for route in &snapshot.routes {
        match &route.access {
            Access::Authenticated { .. } => coverage.authenticated += 1,
            Access::Optional { .. } => coverage.optional += 1,
            Access::Public { .. } => coverage.public += 1,
        }
        if let Some(reason) = route.access.public_reason() {
            coverage.open.push((route.name.to_string(), reason.to_owned()));
        }
    }
    coverage
}
