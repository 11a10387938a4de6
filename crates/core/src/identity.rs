//! Who is calling, as an authenticator established it.

use std::sync::Arc;

use serde_json::{Map, Value};

/// A verified identity. Made by an [`crate::auth::Authenticator`], read by everybody after it.
///
/// `client` is unique within `auth` only; keys and logs use `auth/client` ([`Self::key`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Name of the `auth` entry that verified the credential.
    pub auth: Arc<str>,
    pub client: String,
    pub tenant: Option<String>,
    pub scopes: Vec<String>,
    /// Claims of the token or attributes of the key; for `require`, limits by claim and headers.
    pub claims: Map<String, Value>,
    /// What the backend is told of the caller beside the gateway's own fields: names in lower case,
    /// all of them among the authenticator's [`owned_fields`](crate::auth::Authenticator).
    pub fields: Vec<(Box<str>, Box<[u8]>)>,
    /// `auth/client`, made once, since every log line and every limit wants it.
    pub key: String,
}

impl Identity {
    #[must_use]
    pub fn new(auth: Arc<str>, client: String) -> Self {
        let key = format!("{auth}/{client}");
        Self { auth, client, key, ..Self::default() }
    }

    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|has| has == scope)
    }

    /// The claim at a dotted path (`realm.roles`); a claim whose own name has dots wins.
    #[must_use]
    pub fn claim(&self, path: &str) -> Option<&Value> {
        self.claims.get(path).or_else(|| {
            let (first, rest) = path.split_once('.')?;
            rest.split('.').try_fold(self.claims.get(first)?, |value, name| value.get(name))
        })
    }
}
