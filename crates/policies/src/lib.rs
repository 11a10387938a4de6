//! Every policy and every kind of authentication the gateway ships, and the registry of them.
//!
//! A policy is one file: what is written, what it compiles to, its tests. They do not know each
//! other, the route or the backend, and only the binary knows them. Adding one is adding its file,
//! its module, its line in [`ALL`] and its page in `docs/policies/`.

pub mod auth;
mod cors;
mod credential;
mod deny;
mod faults;
mod flight;
pub mod grantor;
mod headers;
mod ip_filter;
mod key;
mod limits;
mod networks;
mod oauth;
mod origin;
mod owned;
mod redirect;
mod respond;
mod rewrite;
mod sip;
mod table;
mod template;
#[cfg(test)]
mod testing;

use portcullis_core::Policy;
use portcullis_core::auth::Authenticator;
use portcullis_core::registry::{Entry, Registry};

/// What a route may have by name, in alphabetical order.
pub const ALL: &[Entry<dyn Policy>] = &[
    Entry::policy::<cors::Cors>(),
    Entry::policy::<credential::Credential>(),
    Entry::policy::<deny::Deny>(),
    Entry::policy::<faults::Faults>(),
    Entry::policy::<headers::Headers>(),
    Entry::policy::<ip_filter::IpFilter>(),
    Entry::policy::<redirect::Redirect>(),
    Entry::policy::<respond::Respond>(),
    Entry::policy::<rewrite::Rewrite>(),
];

/// What an entry of `auth:` may be, in alphabetical order.
pub const AUTH: &[Entry<dyn Authenticator>] = &[
    Entry::auth::<auth::api_keys::ApiKeys>(),
    Entry::auth::<auth::basic::Basic>(),
    Entry::auth::<auth::forward::Forward>(),
    Entry::auth::<auth::hmac::Hmac>(),
    Entry::auth::<auth::introspection::Introspection>(),
    Entry::auth::<auth::jwt::Jwt>(),
    Entry::auth::<auth::mtls::Mtls>(),
    Entry::auth::<auth::oidc::Oidc>(),
    Entry::auth::<auth::signature::Signature>(),
];

/// One entry of `limits:`.
pub const LIMIT: &Entry<dyn Policy> = &Entry::policy::<limits::Limit>();

/// All of them, for the binary to hand down.
#[must_use]
pub fn registry() -> Registry {
    Registry { policies: ALL, auth: AUTH, limit: LIMIT }
}

#[cfg(test)]
mod tests {
    use portcullis_core::node::Value;

    use super::*;
    use crate::testing::{World, read};

    /// What the examples refer to.
    fn world() -> World {
        World::default()
            .file("partners.yaml", "[]")
            .file("senders.yaml", "[]")
            .file("signers.yaml", "[]")
            .file("users.yaml", "[]")
            .file("shop.secret", "a secret of the test")
            .file("cookie.key", [7; 32])
            .file("gateway.secret", "a secret")
            .file("orders.token", "a-token")
    }

    fn entries() -> Vec<(&'static str, &'static str)> {
        let policies = ALL.iter().chain([LIMIT]).map(|entry| (entry.name, entry.example));
        policies.chain(AUTH.iter().map(|entry| (entry.name, entry.example))).collect()
    }

    fn compile(name: &str, yaml: &str) -> Result<(), String> {
        match AUTH.iter().any(|entry| entry.name == name) {
            true => world().try_auth(name, yaml).map(drop),
            false => world().try_policy(name, yaml).map(drop),
        }
    }

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(ALL.is_sorted_by(|a, b| a.name < b.name), "{ALL:?}");
        assert!(AUTH.is_sorted_by(|a, b| a.name < b.name), "{AUTH:?}");
    }

    #[test]
    fn every_example_compiles() {
        for (name, example) in entries() {
            assert_eq!(compile(name, example), Ok(()), "{name}");
        }
    }

    /// Nothing that is written goes unread, at any depth of the example.
    #[test]
    fn unknown_keys_are_refused() {
        for (name, example) in entries() {
            assert!(compile(name, "{ no_such_key: 1 }").is_err(), "{name}");
            if let Value::Map(_) = read(example).value {
                let with_more =
                    format!("{}, no_such_key: 1 }}", example.strip_suffix(" }").unwrap());
                let refused = compile(name, &with_more).unwrap_err();
                assert!(refused.contains("unknown key `no_such_key`"), "{name}: {refused}");
            }
        }
    }

    #[test]
    fn every_page_shows_the_example() {
        for (name, example) in entries() {
            let page = format!("{}/../../docs/policies/{name}.md", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&page).unwrap_or_else(|_| panic!("write {page}"));
            assert!(text.starts_with(&format!("# {name}\n")), "{page}");
            assert!(text.contains(&format!("```yaml\n{example}\n```")), "{page}: {example}");
        }
    }

    #[test]
    fn the_registry_finds_by_name() {
        let registry = registry();
        for entry in ALL {
            assert_eq!(registry.policy(entry.name).map(|found| found.name), Some(entry.name));
        }
        assert!(registry.policy("no_such_policy").is_none());
        assert_eq!(registry.limit.name, "limits");
    }
}
