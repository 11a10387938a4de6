//! What a caller must have beyond a good credential: scopes and claims.

use portcullis_core::{Exchange, Identity, Phase, Policy, Problem, Services, Step, codes};
use serde_json::Value;

/// All parts must hold (RFC 6750 §3.1, `insufficient_scope`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Require {
    /// The caller must have all of these.
    pub scopes: Vec<String>,
    /// The caller must have at least one of each list.
    pub any_scope: Vec<Vec<String>>,
    /// A claim and the values, one of which it must be or contain.
    pub claims: Vec<(String, Vec<String>)>,
}

impl Require {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scopes.is_empty() && self.any_scope.is_empty() && self.claims.is_empty()
    }

    /// One phrase for each part, for people.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let scopes = self.scopes.iter().map(|scope| format!("scope {scope}"));
        let any = self.any_scope.iter().map(|list| format!("one of scopes {}", list.join(" ")));
        let claims = self
            .claims
            .iter()
            .map(|(name, values)| format!("claim {name} = {}", values.join(" or ")));
        scopes.chain(any).chain(claims).collect()
    }

    fn missing(&self, identity: &Identity) -> Option<Problem> {
        let lacks_all = self.scopes.iter().any(|scope| !identity.has_scope(scope));
        let lacks_one =
            self.any_scope.iter().find(|list| !list.iter().any(|scope| identity.has_scope(scope)));
        if lacks_all || lacks_one.is_some() {
            let needed = match lacks_one {
                Some(list) if !lacks_all => list,
                _ => &self.scopes,
            };
            let needed = needed.join(" ");
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
            return Some(
                Problem::new(codes::INSUFFICIENT_SCOPE)
                    .field("www-authenticate", challenge)
                    .detail(format!("{} lacks a scope of `{needed}`", identity.key)),
            );
        }
        let claim = self.claims.iter().find(|(name, values)| !holds(identity, name, values));
        claim.map(|(name, _)| {
            Problem::new(codes::INSUFFICIENT_SCOPE)
                .field("www-authenticate", "Bearer error=\"insufficient_scope\"")
                .detail(format!("{} does not have the claim `{name}` as required", identity.key))
        })
    }
}

fn holds(identity: &Identity, name: &str, values: &[String]) -> bool {
    let is = |claim: &Value| match claim {
        Value::String(text) => values.contains(text),
        Value::Number(number) => values.contains(&number.to_string()),
        Value::Bool(yes) => values.iter().any(|value| value == if *yes { "true" } else { "false" }),
        _ => false,
    };
    match identity.claim(name) {
        Some(Value::Array(items)) => items.iter().any(is),
        Some(claim) => is(claim),
        None => false,
    }
}

impl Policy for Require {
    fn phase(&self) -> Phase {
        Phase::Authorise
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        // Only with `auth: {optional: …}` can a request come here without an identity.
        match &exchange.identity {
            None => Step::Refuse(
                Problem::new(codes::CREDENTIALS_MISSING).field("www-authenticate", "Bearer"),
            ),
            Some(identity) => match self.missing(identity) {
                Some(problem) => Step::Refuse(problem),
                None => Step::Continue,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::{Expect, expect};
    use portcullis_core::services::Offline;
    use serde_json::json;

    use super::*;

    fn check(require: &Require, identity: Option<Identity>, expected: &Expect) {
        let mut exchange = Exchange { identity: identity.map(Arc::new), ..Exchange::default() };
        let seen = match require.on_request(&mut exchange, &Offline::default()) {
            Step::Continue => "continue".to_owned(),
            Step::Refuse(problem) => {
                format!("{} {:?} {}", problem.code.name, problem.fields, problem.detail)
            }
            _ => "?".to_owned(),
        };
        expected.assert_eq(&seen);
    }

    fn identity(scopes: &[&str], claims: &Value) -> Option<Identity> {
        Some(Identity {
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            claims: claims.as_object().cloned().unwrap_or_default(),
            ..Identity::new("idp".into(), "shop".to_owned())
        })
    }

    #[test]
    fn every_part_must_hold() {
        let require = Require {
            scopes: vec!["orders:read".into()],
            any_scope: vec![vec!["a".into(), "b".into()]],
            claims: vec![("plan".into(), vec!["gold".into(), "1".into()])],
        };
        let gold = json!({"plan": ["silver", "gold"]});
        check(&require, identity(&["orders:read", "b"], &gold), &expect!["continue"]);
        check(&require, identity(&["orders:read", "b"], &json!({"plan": 1})), &expect!["continue"]);
        check(&require, identity(&["orders:readx", "b"], &gold), &expect![[r#"insufficient-scope [("www-authenticate", "Bearer error=\"insufficient_scope\", scope=\"orders:read\"")] idp/shop lacks a scope of `orders:read`"#]]);
        check(&require, identity(&["orders:read"], &gold), &expect![[r#"insufficient-scope [("www-authenticate", "Bearer error=\"insufficient_scope\", scope=\"a b\"")] idp/shop lacks a scope of `a b`"#]]);
        check(&require, identity(&["orders:read", "a"], &json!({})), &expect![[r#"insufficient-scope [("www-authenticate", "Bearer error=\"insufficient_scope\"")] idp/shop does not have the claim `plan` as required"#]]);
        check(&require, None, &expect![[r#"credentials-missing [("www-authenticate", "Bearer")] "#]]);
    }
}
