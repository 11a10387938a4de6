//! What the configuration compiler, the docs and the audit know of a policy or authenticator.

use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use crate::auth::Authenticator;
use crate::carry::Carry;
use crate::finding::{Finding, Findings};
use crate::node::{Node, SourceSpan};
use crate::policy::Policy;

/// Gives the bytes behind `file:PATH` and `env:NAME`. Whoever implements it watches what it read.
pub trait Sources {
    /// # Errors
    /// A sentence for the operator: `cannot read tls/api.pem: no such file`.
    fn read(&self, reference: &str) -> Result<Arc<[u8]>, String>;
}

/// What a compile may use and where it leaves its findings.
#[expect(missing_debug_implementations, reason = "borrows a trait object without Debug")]
pub struct Compile<'a> {
    pub findings: &'a mut Findings,
    pub carry: &'a mut Carry,
    pub sources: &'a dyn Sources,
}

impl Compile<'_> {
    /// The bytes behind a reference, or a finding at its place.
    pub fn read(
        &mut self,
        site: &Site<'_>,
        span: SourceSpan,
        reference: &str,
    ) -> Option<Arc<[u8]>> {
        match self.sources.read(reference) {
            Ok(bytes) => Some(bytes),
            Err(reason) => {
                self.findings.push(Finding::error("unreadable", span, site.resource, reason));
                None
            }
        }
    }
}

/// Where the settings being compiled stand.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// What they belong to: a route's full name, `defaults`, a group, or the auth entry's name.
    pub owner: &'a str,
    /// Path through the configuration, for findings: `routes.orders.cors`.
    pub resource: &'a str,
    pub span: SourceSpan,
}

/// The written form of one policy: what an operator types.
///
/// `compile` is the only way from written to compiled. It checks everything that can be checked
/// before traffic, so `on_request` has nothing left to validate.
pub trait PolicyConfig: DeserializeOwned + JsonSchema + fmt::Debug {
    /// Key in the configuration, file name in `src/` and in `docs/policies/`.
    const NAME: &'static str;
    /// Minimal settings that compile, as YAML. Shown in the docs, compiled in the tests.
    const EXAMPLE: &'static str;

    /// `None` after leaving at least one error finding.
    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Policy>>;
}

/// The written form of one kind of authentication; as [`PolicyConfig`].
pub trait AuthConfig: DeserializeOwned + JsonSchema + fmt::Debug {
    const NAME: &'static str;
    const EXAMPLE: &'static str;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>>;
}

type CompileFn<T> = fn(&Node, &Site<'_>, &mut Compile<'_>) -> Option<Arc<T>>;

/// One line of a registry. `T` is `dyn Policy` or `dyn Authenticator`.
pub struct Entry<T: ?Sized> {
    pub name: &'static str,
    pub example: &'static str,
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    pub compile: CompileFn<T>,
}

impl<T: ?Sized> fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Entry<dyn Policy> {
    #[must_use]
    pub const fn policy<C: PolicyConfig>() -> Self {
        Self {
            name: C::NAME,
            example: C::EXAMPLE,
            schema: C::json_schema,
            compile: |node, site, with| {
                node.decode::<C>(site.resource, with.findings)?.compile(site, with)
            },
        }
    }
}

impl Entry<dyn Authenticator> {
    #[must_use]
    pub const fn auth<C: AuthConfig>() -> Self {
        Self {
            name: C::NAME,
            example: C::EXAMPLE,
            schema: C::json_schema,
            compile: |node, site, with| {
                node.decode::<C>(site.resource, with.findings)?.compile(site, with)
            },
        }
    }
}

/// Everything this build of the gateway can do. Handed down by the binary, so that nobody else
/// needs to know the policies.
#[derive(Clone, Copy, Debug)]
pub struct Registry {
    pub policies: &'static [Entry<dyn Policy>],
    pub auth: &'static [Entry<dyn Authenticator>],
    /// How one entry of `limits:` compiles.
    pub limit: &'static Entry<dyn Policy>,
}

impl Registry {
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&'static Entry<dyn Policy>> {
        self.policies.iter().find(|entry| entry.name == name)
    }

    #[must_use]
    pub fn auth(&self, name: &str) -> Option<&'static Entry<dyn Authenticator>> {
        self.auth.iter().find(|entry| entry.name == name)
    }
}
