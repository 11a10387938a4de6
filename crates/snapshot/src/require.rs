//! What a caller must have beyond a good credential: scopes.

use portcullis_core::{Exchange, Phase, Policy, Problem, Services, Step, codes};

/// The caller must have all of these scopes (RFC 6750 §3.1, `insufficient_scope`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Require {
    pub scopes: Vec<String>,
}

impl Policy for Require {
    fn phase(&self) -> Phase {
        Phase::Authorise
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        // Only with `auth: {optional: …}` can a request come here without an identity.
        let Some(identity) = &exchange.identity else {
            let problem = Problem::new(codes::CREDENTIALS_MISSING);
            return Step::Refuse(problem.field("www-authenticate", "Bearer"));
        };
        let Some(lacking) = self.scopes.iter().find(|scope| !identity.has_scope(scope)) else {
            return Step::Continue;
        };
        let needed = self.scopes.join(" ");
        Step::Refuse(
            Problem::new(codes::INSUFFICIENT_SCOPE)
                .field(
                    "www-authenticate",
                    format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\""),
                )
                .detail(format!("{} lacks the scope `{lacking}`", identity.key)),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::{Expect, expect};
    use portcullis_core::Identity;
    use portcullis_core::services::Offline;

    use super::*;

    fn check(identity: Option<&[&str]>, expected: &Expect) {
        let require = Require { scopes: vec!["orders:read".into(), "orders:write".into()] };
        let identity = identity.map(|scopes| Identity {
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..Identity::new("idp".into(), "shop".to_owned())
        });
        let mut exchange = Exchange { identity: identity.map(Arc::new), ..Exchange::default() };
        let seen = match require.on_request(&mut exchange, &Offline::default()) {
            Step::Continue => "continue".to_owned(),
            Step::Refuse(problem) => {
                format!("{}\n{:?}\n{}", problem.code.name, problem.fields, problem.detail)
            }
            _ => "?".to_owned(),
        };
        expected.assert_eq(&seen);
    }

    #[test]
    fn all_scopes_must_be_there() {
        check(Some(&["orders:write", "x", "orders:read"]), &expect!["continue"]);
        check(
            Some(&["orders:write", "orders:readx"]),
            &expect![[r#"
            insufficient-scope
            [("www-authenticate", "Bearer error=\"insufficient_scope\", scope=\"orders:read orders:write\"")]
            idp/shop lacks the scope `orders:read`"#]],
        );
        check(
            None,
            &expect![[r#"
            credentials-missing
            [("www-authenticate", "Bearer")]
        "#]],
        );
    }
}
