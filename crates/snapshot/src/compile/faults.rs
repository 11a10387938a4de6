//! Requests fail on purpose only where somebody has said that they may.

use portcullis_core::finding::Finding;
use portcullis_core::node::SourceSpan;

use super::Compiler;
use super::routes::BuiltRoute;

impl Compiler<'_, '_> {
    /// Every route with faults has a backend that they can stand in for, and only listeners that
    /// allow them.
    pub(super) fn check_faults(&mut self, routes: &[BuiltRoute]) {
        for built in routes {
            let route = &built.route;
            let mut policies = route.policies.iter();
            let Some(placed) = policies.find(|placed| placed.policy.faults().is_some()) else {
                continue;
            };
            let span = self.written_at(built, placed.name);
            let resource = format!("{}.{}", built.resource, placed.name);
            if route.to.is_none() {
                let message =
                    format!("`{}` has no backend whose failure this could be", route.name);
                let finding = Finding::error("faults", span, resource.as_str(), message);
                self.push(finding.related(built.span, "this route").help(
                    "give it a backend with `to`, or write `faults` only where there is one: in \
                     a route, or a group of such routes",
                ));
            }
            for number in &route.listeners {
                let listener = &self.config.listeners[usize::from(*number)];
                if listener.value.allow_faults {
                    continue;
                }
                let message = format!(
                    "`{}` makes requests fail on purpose, which listener `{}` does not allow",
                    route.name, listener.name
                );
                let finding = Finding::error("faults", span, resource.as_str(), message)
                    .related(listener.span, "this listener")
                    .help(format!(
                        "take `faults` away, serve the route on another listener by `on`, or \
                         give `{}` `allow_faults: true` if whoever comes there may meet them",
                        listener.name
                    ));
                self.push(finding);
            }
        }
    }

    /// Where a policy of a route is written: by itself, or by what it inherits from.
    fn written_at(&self, built: &BuiltRoute, policy: &str) -> SourceSpan {
        let config = self.config;
        let written = &config.routes[built.route.index as usize];
        let group = written.group.map(|at| &config.groups[at].layer);
        let layers = [Some(&written.layer), group, Some(&config.defaults)];
        let mut keys =
            layers.into_iter().flatten().flat_map(|layer| &layer.policies).map(|(key, _)| key);
        keys.find(|key| key.name == policy).map_or(built.span, |key| key.span)
    }
}
