//! Requests that are an authenticator's own, such as the way back from a login: it is asked on the
//! routes that take it, so one of them has to cover their paths.

use std::sync::Arc;

use portcullis_core::finding::Finding;

use super::Compiler;
use super::routes::BuiltRoute;
use crate::snapshot::Access;

impl Compiler<'_, '_> {
    pub(super) fn check_own_paths(&mut self, routes: &[BuiltRoute]) {
        let config = self.config;
        for entry in &config.auth {
            let resource = format!("auth.{}", entry.name);
            // What no route names is told elsewhere, and what did not compile was.
            let compiled = self.auth.get(&*entry.name).and_then(Option::as_ref);
            let Some(compiled) = compiled.filter(|_| self.used.contains(&resource)) else {
                continue;
            };
            let authenticator = Arc::clone(&compiled.authenticator);
            let takes = |built: &&BuiltRoute| match &built.route.access {
                Access::Authenticated { auth, .. } | Access::Optional { auth, .. } => {
                    auth.iter().any(|name| **name == *entry.name)
                }
                Access::Public { .. } => false,
            };
            let covers = |path: &str| {
                let patterns = routes.iter().filter(takes).flat_map(|built| &built.patterns);
                patterns.into_iter().any(|built| built.pattern.path.covers(path))
            };
            for path in authenticator.own_paths().iter().filter(|path| !covers(path)) {
                let message = format!("no route that uses `{}` covers its `{path}`", entry.name);
                let help = format!(
                    "match more than you do, such as `/**`, or add a route: \
                     `{{ match: \"{path}\", auth: {}, … }}`",
                    entry.name
                );
                let finding = Finding::error("path-not-covered", entry.span, &resource, message);
                self.push(finding.help(help));
            }
        }
    }
}
