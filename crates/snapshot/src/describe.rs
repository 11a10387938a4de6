//! A snapshot as people and the admin API read it: rows of plain data, without secrets.

use std::fmt;

use serde::Serialize;

use crate::mirror::Mirror;
use crate::snapshot::{Access, Route, Snapshot};
use crate::targets::Targets;

/// One route of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteRow {
    pub route: String,
    pub matches: Vec<String>,
    pub listeners: Vec<String>,
    /// `authenticated`, `optional` or `public`.
    pub access: &'static str,
    /// The entries of `auth` that are taken.
    pub auth: Vec<String>,
    pub scopes: Vec<String>,
    /// What a caller must have, with the place of each rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<String>,
    /// Why nobody has to authenticate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `PHASE: POLICY`, in the order in which they run.
    pub policies: Vec<String>,
    /// What is done to requests on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<String>,
    /// Protocols that a client may change to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upgrade: Vec<&'static str>,
    /// Backends and their weights against each other.
    pub to: Vec<TargetRow>,
    /// Who gets copies of its requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorRow>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MirrorRow {
    pub backend: String,
    pub percent: f64,
    /// Also of requests that do something.
    pub unsafe_methods: bool,
}

impl fmt::Display for MirrorRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = if self.unsafe_methods { "" } else { " of safe methods" };
        write!(f, "{}% to {}{which}", self.percent, self.backend)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetRow {
    /// What the variant is called, if not like its backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    pub backend: String,
    /// As it holds now.
    pub weight: u64,
    /// As it is written, where an override holds in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configured: Option<u32>,
    /// Some requests are its own whatever the weights are.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub when: bool,
    /// The labels of the endpoints that it keeps to, and whether others will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// The gateway's own zone, where the backend prefers that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// How many routes ask for a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    pub authenticated: usize,
    pub optional: usize,
    pub public: usize,
    /// Every route that somebody may use without a credential, and why.
    pub open: Vec<OpenRoute>,
}

/// A route that nobody has to authenticate for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenRoute {
    pub route: String,
    pub reason: String,
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
    RouteRow {
        route: route.name.to_string(),
        matches: route.matches.clone(),
        listeners: route.listeners.iter().map(listener).collect(),
        access,
        auth,
        scopes,
        require: route.require.clone(),
        reason: route.access.public_reason().map(str::to_owned),
        policies: route
            .policies
            .iter()
            .map(|placed| format!("{}: {}", placed.phase.name(), placed.name))
            .collect(),
        faults: route.policies.iter().find_map(|one| one.policy.faults()).map(str::to_owned),
        upgrade: route.websocket.then_some("websocket").into_iter().collect(),
        to: route.to.iter().flat_map(|targets| target_rows(snapshot, route, targets)).collect(),
        mirror: route.mirror.as_ref().map(|mirror| mirror_row(snapshot, mirror)),
    }
}

fn mirror_row(snapshot: &Snapshot, mirror: &Mirror) -> MirrorRow {
    MirrorRow {
        backend: snapshot.backends[usize::from(mirror.backend)].name.to_string(),
        percent: mirror.percent(),
        unsafe_methods: mirror.unsafe_methods,
    }
}

fn target_rows(snapshot: &Snapshot, route: &Route, targets: &Targets) -> Vec<TargetRow> {
    let split = snapshot.split(route, targets);
    let overridden = !std::ptr::eq(split, &targets.split);
    let rows = targets.variants.iter().enumerate().map(|(at, variant)| {
        let target = &snapshot.backends[usize::from(variant.backend)];
        let backend = target.name.to_string();
        let settings = &target.endpoints.shape().settings;
        let subset = variant.subset.and_then(|number| settings.subsets.get(usize::from(number)));
        TargetRow {
            subset: subset.map(|one| match one.or_any {
                true => format!("{one} if there is one"),
                false => one.to_string(),
            }),
            zone: settings.zone.as_ref().map(|zone| zone.own.to_string()),
            variant: Some(variant.name.to_string()).filter(|name| *name != backend),
            backend,
            weight: split.weight(at),
            configured: overridden.then_some(variant.weight),
            when: !variant.when.is_empty(),
        }
    });
    rows.collect()
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
            let (route, reason) = (route.name.to_string(), reason.to_owned());
            coverage.open.push(OpenRoute { route, reason });
        }
    }
    coverage
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::explain::explain;
    use crate::testing::{Files, compiled, exchange};

    const CONFIG: &str = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth: { idp: { token: { header: x-token } }, far: { remote: { header: x-far } } }
defaults: { auth: idp }
routes:
  orders: { match: { hosts: ["*.a.com"], path: /o/**, methods: [GET], query: { q: { prefix: v } } }, require: { scopes: [r] }, to: { v1: 3, v2: 1 } }
  maybe: { match: /m, auth: { optional: idp, reason: better with }, to: v1 }
  far: { match: /far, auth: far, to: v1 }
  open: { match: /p, public: for all, respond: { status: 200 } }
backends: { v1: "http://10.0.0.1", v2: "http://10.0.0.2" }
"#;

    #[test]
    fn the_route_table_and_who_gets_in_without_a_credential() {
        let snapshot = compiled(CONFIG, &Files::default()).ok();
        let rows: Vec<String> = describe(&snapshot)
            .iter()
            .map(|row| serde_json::to_string(row).unwrap() + "\n")
            .collect();
        expect![[r#"
            {"route":"orders","matches":["GET *.a.com/o/** [query q: v*]"],"listeners":["http"],"access":"authenticated","auth":["idp"],"scopes":["r"],"require":["routes.orders.require: scopes r"],"policies":["authenticate: auth","authorise: require"],"to":[{"backend":"v1","weight":3},{"backend":"v2","weight":1}]}
            {"route":"maybe","matches":["*/m"],"listeners":["http"],"access":"optional","auth":["idp"],"scopes":[],"reason":"better with","policies":["authenticate: auth"],"to":[{"backend":"v1","weight":100}]}
            {"route":"far","matches":["*/far"],"listeners":["http"],"access":"authenticated","auth":["far"],"scopes":[],"policies":["authenticate: auth"],"to":[{"backend":"v1","weight":100}]}
            {"route":"open","matches":["*/p"],"listeners":["http"],"access":"public","auth":[],"scopes":[],"reason":"for all","policies":["forward: respond"],"to":[]}
        "#]].assert_eq(&rows.concat());
        expect![[r#"
            {
              "authenticated": 2,
              "optional": 1,
              "public": 1,
              "open": [
                {
                  "route": "maybe",
                  "reason": "better with"
                },
                {
                  "route": "open",
                  "reason": "for all"
                }
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&coverage(&snapshot)).unwrap());
    }

    #[test]
    fn a_decision_is_explained_step_by_step() {
        let snapshot = compiled(CONFIG, &Files::default()).ok();
        let traces: Vec<String> =
            ["GET http://x.a.com/o/1?q=v1 x-token:good-me", "GET http://x/far x-far:good-me"]
                .iter()
                .map(|request| {
                    let (decision, trace) = explain(&snapshot, &mut exchange(&snapshot, request));
                    let trace = serde_json::to_string_pretty(&trace).unwrap();
                    format!("{request} {:?}\n{trace}\n", decision.verdict)
                })
                .collect();
        expect![[r#"
            GET http://x.a.com/o/1?q=v1 x-token:good-me Refuse(Problem { code: Code { name: "insufficient-scope", status: 403, title: "The credentials do not permit this", fault: Client }, detail: "idp/me lacks the scope `r` (routes.orders.require)", fields: [("www-authenticate", "Bearer error=\"insufficient_scope\", scope=\"r\"")], answered: None, grpc_status: None })
            {
              "route": "orders",
              "steps": [
                {
                  "phase": "authenticate",
                  "policy": "auth",
                  "outcome": "continue",
                  "waited": false
                },
                {
                  "phase": "authorise",
                  "policy": "require",
                  "outcome": "403 insufficient-scope",
                  "detail": "idp/me lacks the scope `r` (routes.orders.require)",
                  "waited": false
                }
              ]
            }
            GET http://x/far x-far:good-me Unknown { needs: "https://idp.example.com/keys" }
            {
              "route": "far",
              "steps": [
                {
                  "phase": "authenticate",
                  "policy": "auth",
                  "outcome": "unknown",
                  "detail": "needs https://idp.example.com/keys",
                  "waited": true
                }
              ]
            }
        "#]].assert_eq(&traces.concat());
    }
}
