//! Who may use a route. Silence is not consent: a route that neither asks for a credential nor
//! says why it does not is no route.

use std::sync::Arc;

use portcullis_config::{AuthUse, Group, Route as Written};
use portcullis_core::Policy;
use portcullis_core::finding::Finding;
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::policy::Placed;

use super::Compiler;
use super::policies::placed;
use crate::authenticate::Authenticate;
use crate::require::Require;
use crate::snapshot::{Access, NamedAuthenticator};

/// What makes two routes ask for the same: the entries, whether a credential may be left out, and
/// whether it is passed on.
pub(super) type Asked = (Vec<Arc<str>>, bool, bool);

/// Who may use a route, and the policies that see to it.
pub(super) struct Guard {
    pub(super) access: Access,
    /// The rules beside a credential, in lines.
    pub(super) require: Vec<String>,
    pub(super) policies: Vec<Placed>,
}

impl<'a> Compiler<'a, '_> {
    /// The access of a route, and the policies that enforce it; `None` after an error.
    pub(super) fn access(
        &mut self,
        route: &'a Written,
        group: Option<&'a Group>,
        forward_credential: bool,
    ) -> Option<Guard> {
        let config = self.config;
        let layers = [Some(&route.layer), group.map(|group| &group.layer), Some(&config.defaults)];
        let nearest = layers.into_iter().flatten().find_map(|layer| layer.settings.auth.as_ref());
        // `public` and `auth` on one route is an error of the loader's.
        match (&route.public, nearest) {
            (Some(reason), _) => self.open(route, Access::Public { reason: reason.0.clone() }),
            (None, Some(auth)) => self.guarded(route, &auth.value, forward_credential, group),
            (None, None) => self.silent(route),
        }
    }

    fn open(&mut self, route: &Written, access: Access) -> Option<Guard> {
        let own = route.layer.settings.require.as_ref().and_then(|require| require.first());
        if let Some(rule) = own {
            let message = "a public route knows nobody of whom it could require something";
            let resource = format!("{}.require", route.resource);
            self.push(Finding::error("require-without-auth", rule.span, resource, message));
        }
        Some(Guard { access, require: Vec::new(), policies: Vec::new() })
    }

    /// Neither the route nor anybody above it says who may call.
    fn silent(&mut self, route: &Written) -> Option<Guard> {
        if route.layer.policies.iter().any(|(key, _)| key.name == "deny") {
            return self.open(route, Access::Public { reason: "it denies everybody".to_owned() });
        }
        let message = format!("`{}` does not say who may call it", route.name);
        let finding = Finding::error("no-auth", route.span, &*route.resource, message);
        self.push(finding.help(match self.config.auth.as_slice() {
            [] => "add `public: \"<reason>\"`, or an entry to `auth:` and `auth: NAME` here or in `defaults`".to_owned(),
            [first, ..] => format!(
                "add `auth: {0}`, or `defaults: {{auth: {0}}}` for all routes, or `public: \"<reason>\"`",
                first.name
            ),
        }));
        None
    }

    fn guarded(
        &mut self,
        route: &'a Written,
        auth: &'a AuthUse,
        forward_credential: bool,
        group: Option<&'a Group>,
    ) -> Option<Guard> {
        let config = self.config;
        let resource = format!("{}.auth", route.resource);
        let mut entries: Vec<NamedAuthenticator> = Vec::new();
        let mut complete = true;
        for name in auth.names() {
            let at = (name.span, resource.as_str());
            self.used.insert(format!("auth.{}", name.0));
            let found = self.resolve("`auth` entry", &config.auth, &name.0, at);
            let compiled = found.and_then(|_| self.auth.get(name.0.as_str())).cloned().flatten();
            complete &= compiled.is_some();
            entries.extend(compiled);
        }
        let names: Vec<Arc<str>> = entries.iter().map(|entry| Arc::clone(&entry.name)).collect();
        let optional = matches!(auth, AuthUse::Optional { .. });
        let asked = (names.clone(), optional, forward_credential);
        let policy = self.composites.entry(asked).or_insert_with(|| {
            Arc::new(Authenticate::new(entries, optional, forward_credential)) as Arc<dyn Policy>
        });
        let mut policies = vec![placed("auth", Arc::clone(policy))];
        if is_planted(Fault::PolicyMissing) {
            policies.clear();
        }
        let require = self.require(route, group);
        let scopes = require.as_ref().map(Require::scopes).unwrap_or_default();
        let lines = require.as_ref().map(Require::lines).unwrap_or_default();
        policies.extend(require.map(|require| placed("require", Arc::new(require))));
        let access = match auth {
            AuthUse::Any(_) => Access::Authenticated { auth: names, scopes },
            AuthUse::Optional { reason, .. } => {
                Access::Optional { auth: names, reason: reason.0.clone() }
            }
        };
        complete.then_some(Guard { access, require: lines, policies })
    }
}
