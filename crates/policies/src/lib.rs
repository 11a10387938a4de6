//! Every policy and every kind of authentication the gateway ships, and the registry of them.
//!
//! A policy is one file: what is written, what it compiles to, its tests. They do not know each
//! other, the route or the backend, and only the binary knows them. Adding one is adding its file,
//! its module, its line in [`ALL`] and its page in `docs/policies/`.

pub mod grantor;
mod key;
mod limits;
mod sip;
mod table;
#[cfg(test)]
#[expect(dead_code, unused_imports, reason = "the authenticators will use the rest")]
mod testing;

use portcullis_core::Policy;
use portcullis_core::auth::Authenticator;
use portcullis_core::registry::{Entry, Registry};

/// What a route may have by name, in alphabetical order.
pub const ALL: &[Entry<dyn Policy>] = &[];

/// What an entry of `auth:` may be, in alphabetical order.
pub const AUTH: &[Entry<dyn Authenticator>] = &[];

/// One entry of `limits:`.
pub const LIMIT: &Entry<dyn Policy> = &Entry::policy::<limits::Limit>();

/// All of them, for the binary to hand down.
#[must_use]
pub fn registry() -> Registry {
    Registry { policies: ALL, auth: AUTH, limit: LIMIT }
}
