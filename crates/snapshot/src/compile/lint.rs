//! What compiles and is still worth a second look: doors that stand open beside closed ones, and
//! settings that let in more than their reader may think. All of it can be accepted with a reason.

use std::collections::BTreeMap;

use portcullis_config::{AuthUse, Balance, Config, HashKey, Layer, PathText};
use portcullis_core::finding::Finding;
use portcullis_core::known::is_alias;
use portcullis_core::node::Node;

use super::Compiler;
use super::matches::BuiltPattern;
use super::routes::BuiltRoute;
use crate::require::METHOD_OVERRIDES;
use crate::router::{Overlap, OverlapKind, PathPattern, RouteIndex, RoutePattern, Router, Segment};
use crate::snapshot::{Access, Route};

impl<'a> Compiler<'a, '_> {
    pub(super) fn lint(&mut self, routes: &[BuiltRoute], router: &Router) {
        let config = self.config;
        self.lint_layer(&config.defaults, "defaults");
        for group in &config.groups {
            self.lint_layer(&group.layer, &group.resource);
        }
        for route in &config.routes {
            self.lint_layer(&route.layer, &route.resource);
            let resource = format!("{}.match", route.resource);
            for one in &route.matches {
                for host in one.hosts.iter().filter(|host| host.value.starts_with("*.")) {
                    let message = format!("`{}` is every host below that name", host.value);
                    let finding = Finding::warning("wildcard-host", host.span, &*resource, message);
                    self.push(finding.help(
                        "name the hosts that are meant: whoever is given a name below it can \
                         send requests here",
                    ));
                }
                for path in &one.paths {
                    self.lint_path(path, &resource);
                }
            }
        }
        for built in routes {
            self.lint_identity_fields(built);
        }
        self.lint_keys(routes);
        self.lint_overlaps(routes, router);
    }

    /// Keys to hash or to stay by that no request has: all are then drawn, which nobody means.
    fn lint_keys(&mut self, routes: &[BuiltRoute]) {
        let config = self.config;
        for built in routes {
            let written = &config.routes[built.route.index as usize];
            let Some(sticky) = written.sticky.as_ref().filter(|_| written.to.len() > 1) else {
                continue;
            };
            if sticky.value.0.iter().all(|key| is_never_there(built, key)) {
                let resource = format!("{}.sticky", built.resource);
                let message = "`sticky` has no effect: no request of this route has such a key";
                self.push(Finding::warning("no-effect", sticky.span, resource, message));
            }
        }
        for (index, named) in config.backends.iter().enumerate() {
            let balance = &named.value.balance;
            let Balance::Hash(key) = &balance.value else { continue };
            let uses = |built: &&BuiltRoute| {
                let mut variants = built.route.to.iter().flat_map(|to| &to.variants);
                variants.any(|variant| usize::from(variant.backend) == index)
            };
            let mut users = routes.iter().filter(uses).peekable();
            if users.peek().is_some() && users.all(|built| is_never_there(built, key)) {
                let resource = format!("backends.{}.balance", named.name);
                let message = format!("no request to this backend has `{key}` to hash by");
                self.push(Finding::warning("no-effect", balance.span, resource, message));
            }
        }
    }

    /// A policy that edits what an authenticator says of the caller.
    fn lint_identity_fields(&mut self, built: &BuiltRoute) {
        let auth = built.route.policies.iter().find(|placed| placed.name == "auth");
        let owned = auth.map(|placed| placed.policy.request_fields()).unwrap_or_default();
        let Some(request) = self.headers(built.route.index).and_then(|node| node.get("request"))
        else {
            return;
        };
        let names = ["set", "add"].into_iter().filter_map(|list| request.get(list));
        let names = names.flat_map(|list| list.entries()).map(|(key, _)| (&*key.name, key.span));
        let removed = request.get("remove").map(|list| list.items()).unwrap_or_default();
        let removed = removed.iter().filter_map(|node| Some((node.as_str()?, node.span)));
        let edited = names.chain(removed).find(|(name, _)| {
            owned.iter().any(|owned| is_alias(name.as_bytes(), owned.as_bytes()))
        });
        let Some((name, span)) = edited else { return };
        let message = format!("`headers` edits `{name}`, by which the backend is told who calls");
        let resource = format!("{}.headers", built.resource);
        let finding = Finding::warning("identity-field", span, resource, message);
        self.push(finding.help("leave it to the `auth` entry, or use another name"));
    }

    /// What `headers` of the route, or the nearest that it inherits, says.
    fn headers(&self, route: u32) -> Option<&'a Node> {
        let config: &'a Config = self.config;
        let written = config.routes.get(route as usize)?;
        let group = written.group.and_then(|at| config.groups.get(at));
        let layers =
            [Some(&written.layer), group.map(|group| &group.layer), Some(&config.defaults)];
        layers.into_iter().flatten().find_map(|layer| {
            layer.policies.iter().find(|(key, _)| key.name == "headers").map(|(_, node)| node)
        })
    }

    fn lint_layer(&mut self, layer: &'a Layer, resource: &str) {
        let settings = &layer.settings;
        if let Some(auth) = &settings.auth
            && matches!(auth.value, AuthUse::Optional { .. })
        {
            let message = "callers without a credential are let through";
            let resource = format!("{resource}.auth");
            let finding = Finding::warning("optional-auth", auth.span, resource, message);
            self.push(finding.help(
                "make two routes of it, one that is `public` and one that asks for a credential",
            ));
        }
        if let Some(forward) = settings.forward_credential.as_ref().filter(|forward| forward.value)
        {
            let message = "the backend gets the credential that the caller has presented";
            let resource = format!("{resource}.forward_credential");
            let finding = Finding::warning("forward-credential", forward.span, resource, message);
            self.push(finding.help(
                "a backend can act as the caller with it; the verified identity is in \
                 `Portcullis-*` fields",
            ));
        }
    }

    fn lint_path(&mut self, path: &PathText, resource: &str) {
        let PathText::Regex(source) = path else { return };
        let parsed = PathPattern::regex(&source.value).ok();
        let Some(stranger) = parsed.and_then(|path| path.of_any_beginning()) else { return };
        let message = format!("`{}` matches paths of any beginning: `{stranger}`", source.value);
        let finding = Finding::warning("broad-regex", source.span, resource, message);
        self.push(finding.help("begin it with the segments that are meant, or use `path`"));
    }

    /// Open routes that touch guarded ones. Only those with a backend are open: an answer of the
    /// gateway's own is in the file for everybody to read.
    fn lint_overlaps(&mut self, routes: &[BuiltRoute], router: &Router) {
        let built: Vec<&BuiltPattern> = routes.iter().flat_map(|route| &route.patterns).collect();
        let patterns: Vec<RoutePattern> = built.iter().map(|built| built.pattern.clone()).collect();
        let route = |index: RouteIndex| -> &Route { &routes[index.0 as usize].route };
        let guarded =
            |index: RouteIndex| matches!(route(index).access, Access::Authenticated { .. });
        let open = |index: RouteIndex| !guarded(index) && route(index).to.is_some();
        let listeners = u16::try_from(self.config.listeners.len()).unwrap_or(u16::MAX);
        let (overlaps, complete) = router.overlaps(&patterns, listeners, &open, &guarded);
        let mut by_route: BTreeMap<(usize, &str), Vec<&Overlap>> = BTreeMap::new();
        for overlap in &overlaps {
            if overlap.kind == OverlapKind::Methods && self.removes_overrides(overlap.open) {
                continue;
            }
            let place = (overlap.open.0 as usize, code(overlap.kind));
            by_route.entry(place).or_default().push(overlap);
        }
        for ((open, code), overlaps) in by_route {
            let Some(first) = overlaps.first() else { continue };
            let (open, guarded) = (&routes[open], &routes[first.guarded.0 as usize]);
            let others = match overlaps.len() - 1 {
                0 => String::new(),
                more => format!(", as does part of {more} more"),
            };
            let message = message(first, &open.route.name, &guarded.route.name, &others);
            let resource = format!("{}.match", open.resource);
            let span = built[first.pattern].span;
            let mut finding =
                Finding::warning(code, span, resource, message).help(help(first.kind));
            if let Some(pattern) = guarded.patterns.first() {
                finding = finding.related(
                    pattern.span,
                    format!("`{}` asks for a credential", guarded.route.name),
                );
            }
            self.push(finding);
        }
        if !complete {
            let message = "it cannot be proved that no open route takes requests of a guarded one";
            self.push(
                Finding::warning("cannot-prove", None, "routes", message)
                    .help("there are too many of them, or their expressions are too large"),
            );
        }
    }

    /// Whether the route or what it inherits removes all these fields of a request.
    fn removes_overrides(&self, route: RouteIndex) -> bool {
        let removed = self.headers(route.0).and_then(|node| node.get("request")?.get("remove"));
        let removed: Vec<String> = removed
            .into_iter()
            .flat_map(|node| node.items())
            .filter_map(|node| node.as_str().map(str::to_ascii_lowercase))
            .collect();
        METHOD_OVERRIDES.iter().all(|name| removed.iter().any(|removed| removed == name))
    }
}

fn code(kind: OverlapKind) -> &'static str {
    match kind {
        OverlapKind::OpenWithinGuarded => "public-within-protected",
        OverlapKind::GuardedWithinOpen => "protected-within-public",
        OverlapKind::Options => "options-open",
        OverlapKind::Methods => "method-override",
    }
}

fn message(overlap: &Overlap, open: &str, guarded: &str, others: &str) -> String {
    let example = &overlap.example;
    match overlap.kind {
        OverlapKind::OpenWithinGuarded => format!(
            "`{open}` lets anybody in where `{guarded}` asks for a credential{others}: `{example}`"
        ),
        OverlapKind::GuardedWithinOpen => format!(
            "`{guarded}` asks for a credential within what `{open}` opens{others}: `{example}`"
        ),
        OverlapKind::Options => format!(
            "`{open}` sends OPTIONS of anybody to a backend where `{guarded}` asks for a \
             credential{others}: `{example}`"
        ),
        OverlapKind::Methods => format!(
            "`{open}` lets anybody in by one method where `{guarded}` asks for a credential by \
             another{others}: `{example}`"
        ),
    }
}

fn help(kind: OverlapKind) -> &'static str {
    match kind {
        OverlapKind::OpenWithinGuarded => "narrow it, or accept it with a reason",
        OverlapKind::GuardedWithinOpen => {
            "a path that a backend reads otherwise than the gateway gets past it: open what has to \
             be open by name, or accept it with a reason"
        }
        OverlapKind::Options => "let `cors` answer preflights; a backend has no need of them",
        OverlapKind::Methods => {
            "a backend may take the method from a field: `headers: {request: {remove: \
             [x-http-method-override, x-method-override, x-http-method]}}`"
        }
    }
}

/// Whether no request of this route can have the key.
fn is_never_there(built: &BuiltRoute, key: &HashKey) -> bool {
    match key {
        HashKey::Param(name) => !built.patterns.iter().any(|one| match &one.pattern.path {
            PathPattern::Template(segments) | PathPattern::Prefix(segments) => {
                segments.contains(&Segment::Capture(name.clone()))
            }
            PathPattern::Exact(_) => false,
            // It may name what it captures.
            PathPattern::Regex(_) => true,
        }),
        HashKey::Client | HashKey::Tenant => matches!(built.route.access, Access::Public { .. }),
        HashKey::Ip | HashKey::Header(_) | HashKey::Cookie(_) => false,
    }
}
