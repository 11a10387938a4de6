//! What a caller must have to use a route with some method, as far as a credential can have it.
//!
//! What depends on more than the caller, as the time of day, is not here: whether a caller who has
//! all of this gets through is for the oracle to say.

use portcullis_config::{CertificateRule, Config, InlineTest, Require, Requirement, Route, Tenant};
use portcullis_core::node::{Node, Value as Written};
use portcullis_snapshot::require::TimeRule;
use serde_json::Value;

/// Where roles are looked for, unless it is said.
const ROLES: &str = "roles";
/// The tenant that the audit's callers belong to, where any will do.
pub(crate) const TENANT: &str = "audit-tenant";

/// A caller who may pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Needs {
    /// All of them.
    pub(crate) scopes: Vec<String>,
    /// Which one, where it matters.
    pub(crate) tenant: Option<String>,
    /// Claims by their paths.
    pub(crate) claims: Vec<(String, Value)>,
    /// Claims that somebody is known to pass with; which of them it takes nobody knows.
    pub(crate) hints: Vec<(String, Value)>,
    /// Names of the client's certificate: `dns`, `uri`, `spiffe`, `subject` or `sha256`, and the
    /// name.
    pub(crate) certificate: Vec<(&'static str, String)>,
}

/// A caller who lacks one thing of all that.
pub(crate) struct Lacking {
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
    pub(crate) needs: Needs,
}

impl Needs {
    /// What the route says and inherits for a method.
    pub(crate) fn of(config: &Config, route: &Route, method: &str) -> Self {
        let mut needs = Self::default();
        for set in sets(config, route) {
            if is_for(set, method) {
                needs.add(set);
            }
        }
        // What an expression asks for is seen in nobody but a caller of whom the operator says
        // that it passes.
        if sets(config, route).any(|set| set.when.is_some()) {
            needs.hints = hints(config, route, method);
        }
        needs
    }

    fn add(&mut self, set: &Requirement) {
        for scope in set.scopes.iter().flatten() {
            if !self.scopes.contains(&scope.value) {
                self.scopes.push(scope.value.clone());
            }
        }
        if let Some(roles) = &set.roles {
            let path = roles.claim.as_deref().unwrap_or(ROLES);
            let one = roles.any.first().filter(|one| !roles.all.contains(one));
            self.add_all(path, roles.all.iter().chain(one).map(|role| role.as_str().into()));
        }
        for (key, test) in &set.claims.0 {
            if let Some(value) = &test.equals {
                self.claims.retain(|(path, _)| *path != key.name);
                self.claims.push((key.name.clone(), value.clone()));
            } else if test.all.is_empty() {
                let one = test.any.first().cloned().unwrap_or_default();
                self.claims.push((key.name.clone(), one));
            } else {
                let one = test.any.first().filter(|one| !test.all.contains(one));
                self.add_all(&key.name, test.all.iter().chain(one).cloned());
            }
        }
        match set.tenant.as_ref().map(|tenant| &tenant.value) {
            Some(Tenant::Named(names)) => self.tenant = names.first().cloned(),
            // The audit's requests then name its own tenant.
            Some(Tenant::Param(_)) => self.tenant = Some(TENANT.to_owned()),
            None => {}
        }
        if let Some(rule) = &set.certificate {
            self.add_certificate(&rule.value);
        }
    }

    /// All claims, those that are only guessed first: what is required counts.
    pub(crate) fn all_claims(&self) -> impl Iterator<Item = &(String, Value)> {
        self.hints.iter().chain(&self.claims)
    }

    /// Adds values to a claim that is a list.
    fn add_all(&mut self, path: &str, values: impl Iterator<Item = Value>) {
        let at = self.claims.iter().position(|(has, _)| has == path);
        let at = at.unwrap_or_else(|| {
            self.claims.push((path.to_owned(), Value::Array(Vec::new())));
            self.claims.len() - 1
        });
        if let Value::Array(list) = &mut self.claims[at].1 {
            for value in values {
                if !list.contains(&value) {
                    list.push(value);
                }
            }
        }
    }

    fn add_certificate(&mut self, rule: &CertificateRule) {
        let CertificateRule { dns, uri, spiffe, subject, sha256 } = rule;
        let all = [
            ("dns", dns),
            ("uri", uri),
            ("spiffe", spiffe),
            ("subject", subject),
            ("sha256", sha256),
        ];
        for (kind, names) in all {
            if let Some(name) = names.as_ref().and_then(|names| names.0.first()) {
                self.certificate.push((kind, name.value.clone()));
            }
        }
    }

    /// Callers who lack one thing each.
    pub(crate) fn lacking(&self) -> Vec<Lacking> {
        let mut lacking = Vec::new();
        for scope in &self.scopes {
            let mut needs = self.clone();
            needs.scopes.retain(|has| has != scope);
            let detail = format!("without `{scope}`");
            lacking.push(Lacking { kind: "insufficient scope", detail, needs });
        }
        if self.tenant.is_some() {
            let needs = Self { tenant: Some("audit-other-tenant".to_owned()), ..self.clone() };
            lacking.push(Lacking { kind: "other tenant", detail: String::new(), needs });
        }
        for at in 0..self.claims.len() {
            let path = &self.claims[at].0;
            let mut add = |detail: String, value: Option<Value>| {
                let mut needs = self.clone();
                // A guess must not give what is to be lacking.
                needs
                    .hints
                    .retain(|(guess, _)| guess != path && !path.starts_with(&format!("{guess}.")));
                match value {
                    Some(value) => needs.claims[at].1 = value,
                    None => drop(needs.claims.remove(at)),
                }
                lacking.push(Lacking { kind: "claim not as required", detail, needs });
            };
            add(format!("without `{path}`"), None);
            add(format!("another `{path}`"), Some("audit-other".into()));
            if let Value::Array(list) = &self.claims[at].1 {
                for (number, value) in list.iter().enumerate() {
                    let mut others = list.clone();
                    others.remove(number);
                    add(format!("`{path}` without {value}"), Some(Value::Array(others)));
                }
            }
        }
        lacking
    }
}

fn sets<'a>(config: &'a Config, route: &'a Route) -> impl Iterator<Item = &'a Requirement> {
    let group = route.group.and_then(|at| config.groups.get(at)).map(|group| &group.layer);
    let layers = [Some(&config.defaults), group, Some(&route.layer)];
    let written = layers.into_iter().flatten().filter_map(|layer| layer.settings.require.as_ref());
    written.flat_map(|require: &Require| require.0.iter().map(|set| &set.value))
}

/// The claims of a caller whom an inline test expects to get through with this method, or with any.
fn hints(config: &Config, route: &Route, method: &str) -> Vec<(String, Value)> {
    let passes = |test: &&InlineTest| {
        test.expect.route.as_ref().is_some_and(|name| name.value == route.name)
    };
    let mut tests: Vec<&InlineTest> = config.tests.iter().filter(passes).collect();
    tests.sort_by_key(|test| test.request.method != method);
    let caller = tests.iter().find_map(|test| test.caller.as_ref());
    let claims = caller.into_iter().flat_map(|caller| &caller.claims.0);
    let claims = claims.map(|(key, node)| (key.name.clone(), plain(node)));
    let roles = caller.map(|caller| &caller.roles).filter(|roles| !roles.is_empty());
    claims.chain(roles.map(|roles| (ROLES.to_owned(), roles.clone().into()))).collect()
}

/// A value as JSON.
pub(crate) fn plain(node: &Node) -> Value {
    match &node.value {
        Written::Null => Value::Null,
        Written::Bool(value) => (*value).into(),
        Written::Int(value) => (*value).into(),
        Written::Float(value) => (*value).into(),
        Written::Str(text) => text.as_str().into(),
        Written::Seq(items) => items.iter().map(plain).collect(),
        Written::Map(entries) => {
            let fields = entries.iter().map(|(key, value)| (key.name.clone(), plain(value)));
            Value::Object(fields.collect())
        }
    }
}

/// `HEAD` goes as `GET`.
fn is_for(set: &Requirement, method: &str) -> bool {
    let method = if method == "HEAD" { "GET" } else { method };
    let methods = set.methods.as_ref().map(|methods| &methods.0);
    methods.is_none_or(|methods| methods.iter().any(|one| one.value.0 == method))
}

/// When callers may pass, whatever their method.
pub(crate) fn times(config: &Config, route: &Route) -> Vec<TimeRule> {
    let written = sets(config, route).filter_map(|set| set.time.as_ref());
    written.map(|times| TimeRule::from(&times.value)).collect()
}

/// Every method that some set of requirements is for.
pub(crate) fn methods(config: &Config, route: &Route) -> Vec<String> {
    let mut methods: Vec<String> = Vec::new();
    for set in sets(config, route) {
        for method in set.methods.iter().flat_map(|methods| &methods.0) {
            if !methods.contains(&method.value.0) {
                methods.push(method.value.0.clone());
            }
        }
    }
    methods
}

/// The segment of the path that has to name the caller's tenant, by its name in the template.
pub(crate) fn tenant_param(config: &Config, route: &Route) -> Option<String> {
    sets(config, route).find_map(|set| match set.tenant.as_ref().map(|tenant| &tenant.value) {
        Some(Tenant::Param(name)) => Some(name.value.clone()),
        _ => None,
    })
}
