//! What a caller must have beyond a good credential, and which rule a refusal comes from.
//!
//! Of the rules of one layer (`defaults`, a group, a route) all that are for the request's method
//! must hold, and a method that none is for is refused: a list of rules by method never lets
//! through what it forgot. The layers add up.

mod claims;
#[cfg(feature = "cel")]
pub(crate) mod expression;
#[cfg(test)]
mod tests;
mod times;

use std::fmt;

use http::Method;
use portcullis_core::certificate::CertificateName;
use portcullis_core::known::is_alias;
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::{Exchange, Identity, Phase, Policy, Problem, Services, Step, codes};

pub use claims::{ClaimRule, RoleRule};
#[cfg(feature = "cel")]
pub use expression::Expression;
pub use times::TimeRule;

/// Fields by which many frameworks let a request say another method than its own. Where rules
/// differ by method, they do not reach a backend.
pub(crate) const METHOD_OVERRIDES: [&str; 3] =
    ["x-http-method-override", "x-method-override", "x-http-method"];

/// What one route requires, the outermost layer first.
#[derive(Debug, Default)]
pub struct Require {
    pub layers: Vec<Layer>,
}

/// The rules of one place in the configuration.
#[derive(Debug)]
pub struct Layer {
    /// `routes.orders.require`.
    pub at: String,
    pub rules: Vec<Rule>,
}

/// What is required for some methods, or for all.
#[derive(Debug, Default)]
pub struct Rule {
    /// `routes.orders.require[1]`.
    pub at: String,
    /// Empty: every method. `HEAD` goes as `GET`.
    pub methods: Vec<Method>,
    pub scopes: Vec<String>,
    pub conditions: Vec<Condition>,
}

/// Something that a caller or a request must be, beside scopes.
#[derive(Debug)]
pub enum Condition {
    Roles(RoleRule),
    Claim(ClaimRule),
    /// Any of these.
    Tenant(Vec<String>),
    /// The one that the path's template captured under this name.
    TenantOfPath(Box<str>),
    /// Any of these names.
    Certificate(Vec<CertificateName>, String),
    Times(TimeRule),
    #[cfg(feature = "cel")]
    When(Box<Expression>),
}

impl Require {
    /// The scopes that some rule asks for, each once, in the order written.
    #[must_use]
    pub fn scopes(&self) -> Vec<String> {
        unique(self.layers.iter().flat_map(|layer| &layer.rules))
    }

    /// Each rule in a line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let rules = self.layers.iter().flat_map(|layer| &layer.rules);
        rules.map(|rule| format!("{}: {rule}", rule.at)).collect()
    }

    fn is_by_method(&self) -> bool {
        self.layers.iter().flat_map(|layer| &layer.rules).any(|rule| !rule.methods.is_empty())
    }

    fn check(&self, identity: &Identity, exchange: &Exchange) -> Result<(), Problem> {
        let method = exchange.request.method.clone();
        let method = if method == Method::HEAD { Method::GET } else { method };
        let applying = |layer: &Layer| layer.rules.iter().any(|rule| rule.is_for(&method));
        if let Some(layer) = self.layers.iter().find(|layer| !applying(layer)) {
            let detail = format!("no rule is for {method} ({})", layer.at);
            return Err(Problem::new(codes::NOT_PERMITTED).detail(detail));
        }
        let rules = || self.layers.iter().flat_map(|layer| &layer.rules);
        let rules = || rules().filter(|rule| rule.is_for(&method));
        for rule in rules() {
            if let Some(lacking) = rule.scopes.iter().find(|scope| !identity.has_scope(scope)) {
                if is_planted(Fault::AnyScope) && rule.scopes.iter().any(|s| identity.has_scope(s))
                {
                    continue;
                }
                let needed = unique(rules()).join(" ");
                let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
                let detail = format!("{} lacks the scope `{lacking}` ({})", identity.key, rule.at);
                return Err(Problem::new(codes::INSUFFICIENT_SCOPE)
                    .field("www-authenticate", challenge)
                    .detail(detail));
            }
        }
        for rule in rules() {
            for condition in &rule.conditions {
                condition.check(identity, exchange).map_err(|reason| {
                    let detail = format!("{} {reason} ({})", identity.key, rule.at);
                    Problem::new(codes::NOT_PERMITTED).detail(detail)
                })?;
            }
        }
        Ok(())
    }
}

fn unique<'a>(rules: impl Iterator<Item = &'a Rule>) -> Vec<String> {
    let mut scopes: Vec<String> = Vec::new();
    for scope in rules.flat_map(|rule| &rule.scopes) {
        if !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
    scopes
}

impl Rule {
    fn is_for(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }
}

impl Condition {
    /// What the caller is not, for the log; never what the caller is.
    fn check(&self, identity: &Identity, exchange: &Exchange) -> Result<(), String> {
        match self {
            Self::Roles(_) if is_planted(Fault::RoleIgnored) => Ok(()),
            Self::Roles(roles) => roles.check(identity),
            Self::Claim(_) if is_planted(Fault::ClaimIgnored) => Ok(()),
            Self::Claim(claim) => claim.check(identity),
            Self::Tenant(tenants) => {
                let named = identity.tenant.as_ref().is_some_and(|own| tenants.contains(own));
                named.then_some(()).ok_or_else(|| "is of no tenant that is let in".to_owned())
            }
            Self::TenantOfPath(_) if is_planted(Fault::TenantOfPathIgnored) => Ok(()),
            Self::TenantOfPath(param) => {
                let named = exchange.param(param).map(decoded);
                let own = identity.tenant.as_ref().filter(|own| !own.is_empty());
                match own.is_some_and(|own| named.as_deref() == Some(own.as_bytes())) {
                    true => Ok(()),
                    false => Err(format!("is not of the tenant in the path's `{{{param}}}`")),
                }
            }
            Self::Certificate(..) if is_planted(Fault::CertificateRuleIgnored) => Ok(()),
            Self::Certificate(names, said) => {
                // A connection may outlive the certificate that it was opened with.
                let valid = exchange.certificate.as_deref();
                let valid = valid.filter(|one| one.not_after > exchange.now.wall);
                let Some(certificate) = valid else {
                    return Err("has no client certificate".to_owned());
                };
                match names.iter().any(|name| name.find(certificate).is_some()) {
                    true => Ok(()),
                    false => Err(format!("has no certificate with {said}")),
                }
            }
            Self::Times(times) => match times.holds(exchange.now.wall) {
                true => Ok(()),
                false => Err(format!("comes outside of {times}")),
            },
            #[cfg(feature = "cel")]
            Self::When(expression) => expression.check(identity, exchange),
        }
    }
}

/// A segment of a canonical path as a name: what is still escaped in it, read.
fn decoded(segment: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(segment.len());
    let mut rest = segment;
    while let Some((byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| *byte == b'%');
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    out
}

impl Policy for Require {
    fn phase(&self) -> Phase {
        Phase::Authorise
    }

    fn request_fields(&self) -> Vec<&str> {
        if self.is_by_method() { METHOD_OVERRIDES.to_vec() } else { Vec::new() }
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        // Only with `auth: {optional: …}` can a request come here without an identity.
        let Some(identity) = &exchange.identity else {
            let problem = Problem::new(codes::CREDENTIALS_MISSING);
            return Step::Refuse(problem.field("www-authenticate", "Bearer"));
        };
        if let Err(problem) = self.check(identity, exchange) {
            return Step::Refuse(problem);
        }
        if self.is_by_method() {
            exchange.request.fields.remove_if(|_, name, _| {
                METHOD_OVERRIDES.iter().any(|owned| is_alias(name, owned.as_bytes()))
            });
        }
        Step::Continue
    }
}

/// `GET, POST: scopes orders:read and roles admin`
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.methods.is_empty() {
            let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
            write!(f, "{}: ", methods.join(", "))?;
        }
        let mut parts = Vec::new();
        if !self.scopes.is_empty() {
            parts.push(format!("scopes {}", self.scopes.join(" ")));
        }
        parts.extend(self.conditions.iter().map(ToString::to_string));
        match parts.is_empty() {
            true => f.write_str("nothing more"),
            false => f.write_str(&parts.join(" and ")),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roles(roles) => roles.fmt(f),
            Self::Claim(claim) => claim.fmt(f),
            Self::Tenant(tenants) => write!(f, "tenant {}", tenants.join(" or ")),
            Self::TenantOfPath(param) => write!(f, "tenant {{{param}}}"),
            Self::Certificate(_, said) => write!(f, "certificate with {said}"),
            Self::Times(times) => times.fmt(f),
            #[cfg(feature = "cel")]
            Self::When(expression) => expression.fmt(f),
        }
    }
}
