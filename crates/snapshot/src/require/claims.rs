//! Roles and claims of a caller.

use std::fmt;

use portcullis_core::Identity;
use serde_json::Value;

/// Where roles are looked for unless it is said: plain, as Keycloak has them, and as groups.
const ROLE_CLAIMS: [&str; 3] = ["roles", "realm_access.roles", "groups"];

/// Roles that the caller must have.
#[derive(Clone, Debug, Default)]
pub struct RoleRule {
    /// Any one of these, if there are some.
    pub any: Vec<String>,
    pub all: Vec<String>,
    /// The claim that has them; `None`: the first of the usual ones that is there.
    pub claim: Option<String>,
}

impl RoleRule {
    pub(super) fn check(&self, identity: &Identity) -> Result<(), String> {
        let roles = match &self.claim {
            Some(claim) => identity.claim(claim),
            None => ROLE_CLAIMS.into_iter().find_map(|claim| identity.claim(claim)),
        };
        let has = |role: &String| match roles {
            Some(Value::Array(roles)) => roles.iter().any(|one| one.as_str() == Some(role)),
            Some(Value::String(only)) => only == role,
            _ => false,
        };
        if let Some(lacking) = self.all.iter().find(|role| !has(role)) {
            return Err(format!("lacks the role `{lacking}`"));
        }
        match self.any.is_empty() || self.any.iter().any(has) {
            true => Ok(()),
            false => Err(format!("has none of the roles `{}`", self.any.join("`, `"))),
        }
    }
}

impl fmt::Display for RoleRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.all.is_empty() {
            parts.push(format!("roles {}", self.all.join(" ")));
        }
        if !self.any.is_empty() {
            parts.push(format!("role {}", self.any.join(" or ")));
        }
        f.write_str(&parts.join(" and "))?;
        match &self.claim {
            Some(claim) => write!(f, " by {claim}"),
            None => Ok(()),
        }
    }
}

/// What one claim must be. A claim that is not there never is.
#[derive(Clone, Debug, Default)]
pub struct ClaimRule {
    /// A claim's own name, or a dotted path.
    pub name: String,
    pub equals: Option<Value>,
    pub all: Vec<Value>,
    pub any: Vec<Value>,
}

impl ClaimRule {
    pub(super) fn check(&self, identity: &Identity) -> Result<(), String> {
        let Some(value) = identity.claim(&self.name) else {
            return Err(format!("has no claim `{}`", self.name));
        };
        let list = value.as_array().map(Vec::as_slice);
        // What is no list is a list of one only where a choice is offered: `all` and `contains`
        // name a list, and a text that happens to be equal is not one.
        let elements = list.unwrap_or(std::slice::from_ref(value));
        let holds = self.equals.as_ref().is_none_or(|wanted| same(value, wanted))
            && (self.all.is_empty() || list.is_some_and(|list| has_all(list, &self.all)))
            && (self.any.is_empty()
                || self.any.iter().any(|wanted| elements.iter().any(|one| same(one, wanted))));
        match holds {
            true => Ok(()),
            false => Err(format!("does not have the claim `{}` as it is required", self.name)),
        }
    }
}

fn has_all(list: &[Value], wanted: &[Value]) -> bool {
    wanted.iter().all(|wanted| list.iter().any(|one| same(one, wanted)))
}

/// Equal, and of the same kind: `"1"` is not `1`, but `1.0` is.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64() && small(a),
        _ => one == other,
    }
}

/// Whether it is exact as a floating-point number.
fn small(number: &serde_json::Number) -> bool {
    number.as_f64().is_some_and(|value| value.abs() < 9_007_199_254_740_992.0)
}

impl fmt::Display for ClaimRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |list: &[Value], by: &str| {
            list.iter().map(ToString::to_string).collect::<Vec<_>>().join(by)
        };
        let mut parts = Vec::new();
        parts.extend(self.equals.as_ref().map(|value| format!("= {value}")));
        if !self.all.is_empty() {
            parts.push(format!("has {}", join(&self.all, " and ")));
        }
        if !self.any.is_empty() {
            parts.push(format!("is {}", join(&self.any, " or ")));
        }
        write!(f, "claim {} {}", self.name, parts.join(" and "))
    }
}
