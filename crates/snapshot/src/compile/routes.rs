//! Routes: what each says itself, with what it inherits.

use portcullis_config::{
    Bulkhead, Group, Route as Written, Settings, Timeouts as WrittenTimeouts, Upgrade,
};
use portcullis_core::finding::Finding;
use portcullis_core::node::SourceSpan;
use portcullis_core::units::{DurationOrOff, format_duration};
use portcullis_upstream::Priority;

use super::Compiler;
use super::access::Guard;
use super::listeners::BuiltListener;
use super::matches::BuiltPattern;
use portcullis_core::policy::BodyUse;

use super::policies::{CompiledLayer, decided_fields};
use crate::router::RouteIndex;
use crate::snapshot::{Access, Hedge, Retry, Route, Timeouts};

const BODY_BYTES_MAX: u64 = 10 << 20;

/// A route, and what only the compiler needs to know of it.
pub(super) struct BuiltRoute {
    pub(super) route: Route,
    pub(super) resource: String,
    pub(super) span: SourceSpan,
    pub(super) patterns: Vec<BuiltPattern>,
    /// As written, by the route or by what it inherits from.
    pub(super) bulkhead: Option<Bulkhead>,
}

/// What a route says and inherits, nearest first.
struct Inherited<'a>([Option<&'a Settings>; 3]);

impl<'a> Inherited<'a> {
    fn nearest<T>(&self, pick: impl Fn(&'a Settings) -> Option<T>) -> Option<T> {
        self.0.iter().flatten().find_map(|settings| pick(settings))
    }
}

impl<'a> Compiler<'a, '_> {
    /// All routes, those with errors included, so that every index is that of the configuration.
    pub(super) fn routes(&mut self, listeners: &[BuiltListener]) -> Vec<BuiltRoute> {
        let config = self.config;
        let defaults = self.layer(&config.defaults, "defaults", "defaults");
        let groups: Vec<CompiledLayer<'a>> = config
            .groups
            .iter()
            .map(|group| self.layer(&group.layer, &group.name, &group.resource))
            .collect();
        let default_on = self.only_listener(listeners);
        let mut built = Vec::new();
        for (index, written) in config.routes.iter().enumerate() {
            let group = written.group.map(|at| (&config.groups[at], &groups[at]));
            let own = self.layer(&written.layer, &written.name, &written.resource);
            let mut layers = vec![&defaults];
            layers.extend(group.map(|(_, layer)| layer));
            layers.push(&own);
            let group = group.map(|(group, _)| group);
            built.push(self.route(
                index,
                written,
                group,
                &layers,
                listeners,
                default_on.as_deref(),
            ));
        }
        built
    }

    fn route(
        &mut self,
        index: usize,
        written: &'a Written,
        group: Option<&'a Group>,
        layers: &[&CompiledLayer<'a>],
        listeners: &[BuiltListener],
        default_on: Option<&[u16]>,
    ) -> BuiltRoute {
        let inherited = Inherited([
            Some(&written.layer.settings),
            group.map(|group| &group.layer.settings),
            Some(&self.config.defaults.settings),
        ]);
        let on = self.on(written, &inherited, listeners, default_on);
        let served_on: Vec<&BuiltListener> =
            on.iter().map(|number| &listeners[usize::from(*number)]).collect();
        let number = RouteIndex(index as u32);
        let mut patterns = Vec::new();
        for one in &written.matches {
            let resource = format!("{}.match", written.resource);
            patterns.extend(self.patterns(number, one, &resource, &served_on));
        }
        let forward_credential = inherited
            .nearest(|settings| settings.forward_credential)
            .is_some_and(|forward| forward.value);
        let guard = self.access(written, group, forward_credential);
        // After an error, which has been reported, nothing comes of the whole.
        let Guard { access, require, policies: own } = guard.unwrap_or_else(|| Guard {
            access: Access::Authenticated { auth: vec![], scopes: vec![] },
            require: vec![],
            policies: vec![],
        });
        let upgrade = inherited.nearest(|settings| settings.upgrade.as_ref());
        let websocket = !written.to.is_empty()
            && upgrade.is_some_and(|upgrade| upgrade.0.contains(&Upgrade::WebSocket));
        self.check_upgrade(written);
        let (timeouts, retry) = (timeouts(&inherited), retry(&inherited));
        self.check_retry(written, &timeouts, &retry);
        let policies = self.place(&written.name, layers, own);
        let route = Route {
            name: written.name.as_str().into(),
            index: number.0,
            access,
            require,
            to: self.targets(written),
            mirror: self.mirror(written),
            timeouts,
            deadline_header: inherited
                .nearest(|settings| settings.deadline_header.as_ref())
                .and_then(|header| header.0.as_deref().map(Into::into)),
            retry,
            bulkhead: None,
            priority: priority(&inherited),
            body_bytes_max: inherited
                .nearest(|settings| settings.body_max)
                .map_or(BODY_BYTES_MAX, |size| size.0),
            request_body: BodyUse::widest(
                policies.iter().map(|placed| placed.policy.request_body()),
            ),
            response_body: BodyUse::widest(
                policies.iter().map(|placed| placed.policy.response_body()),
            ),
            request_fields: decided_fields(&policies),
            policies,
            websocket,
            forward_credential,
            matches: patterns.iter().map(summary).collect(),
            listeners: on,
        };
        let bulkhead = inherited.nearest(|settings| settings.bulkhead.as_ref());
        let bulkhead = bulkhead.map(|bulkhead| bulkhead.value);
        let (resource, span) = (written.resource.clone(), written.span);
        BuiltRoute { route, resource, span, patterns, bulkhead }
    }

    /// What answers by itself is no place for a WebSocket; an inherited `upgrade` is not meant.
    fn check_upgrade(&mut self, written: &Written) {
        let upgrade = written.layer.settings.upgrade.as_ref();
        let upgrade = upgrade.filter(|upgrade| !upgrade.0.is_empty() && written.to.is_empty());
        if let Some(upgrade) = upgrade {
            let resource = format!("{}.upgrade", written.resource);
            let message = "`upgrade` has no effect: the route has no backend";
            self.push(Finding::warning("no-effect", upgrade.span, resource, message));
        }
    }

    /// What is to be waited for longer than the answer itself never comes; an inherited `retry` may
    /// be meant for other routes.
    fn check_retry(&mut self, written: &Written, timeouts: &Timeouts, retry: &Retry) {
        let ends = [timeouts.response, timeouts.total].into_iter().flatten();
        let (Some(end), Some(_)) = (ends.min(), &written.layer.settings.retry) else { return };
        let hedge = match retry.hedge {
            Some(Hedge::After(wait)) => Some(wait),
            Some(Hedge::P95) | None => None,
        };
        for (key, wait) in [("per_try", retry.per_try), ("hedge", hedge)] {
            if wait.is_some_and(|wait| wait >= end) {
                let resource = format!("{}.retry", written.resource);
                let end = format_duration(end);
                let message = format!("`{key}` has no effect: `timeout` is over after {end}");
                self.push(Finding::warning("no-effect", written.span, resource, message));
            }
        }
    }

    /// The only listener that has routes, where there is only one.
    fn only_listener(&self, listeners: &[BuiltListener]) -> Option<Vec<u16>> {
        let written = &self.config.listeners;
        let mut serving = listeners
            .iter()
            .filter(|built| written[usize::from(built.listener.index)].value.redirect.is_none());
        match (serving.next(), serving.next()) {
            (Some(only), None) => Some(vec![only.listener.index]),
            // That there is none at all is reported once, not for each route.
            (None, _) => Some(Vec::new()),
            (Some(_), Some(_)) => None,
        }
    }

    fn on(
        &mut self,
        written: &Written,
        inherited: &Inherited<'a>,
        listeners: &[BuiltListener],
        default: Option<&[u16]>,
    ) -> Vec<u16> {
        let config = self.config;
        let Some(names) = inherited.nearest(|settings| settings.on.as_ref()) else {
            if let Some(default) = default {
                return default.to_vec();
            }
            let names: Vec<String> =
                listeners.iter().map(|built| format!("`{}`", built.listener.name)).collect();
            let message = format!("`{}` does not say on which listener it is served", written.name);
            let help = format!("add `on:` here or in `defaults`: {}", names.join(", "));
            let finding = Finding::error("no-listener", written.span, &*written.resource, message);
            self.push(finding.help(help));
            return Vec::new();
        };
        let resource = format!("{}.on", written.resource);
        let mut on = Vec::new();
        for name in names.iter() {
            let at = (name.span, resource.as_str());
            let Some(found) = self.resolve("listener", &config.listeners, &name.0, at) else {
                continue;
            };
            let listener = &config.listeners[found];
            if let Some(redirect) = &listener.value.redirect {
                let message = format!("`{}` serves no routes: it redirects", listener.name);
                let finding = Finding::error("redirect", name.span, &*resource, message);
                self.push(finding.related(redirect.span, "here"));
                continue;
            }
            if !on.contains(&(found as u16)) {
                on.push(found as u16);
            }
        }
        on
    }
}

fn timeouts(inherited: &Inherited<'_>) -> Timeouts {
    let layers = inherited.0.iter().flatten().filter_map(|settings| settings.timeout);
    let all = layers
        .chain([WrittenTimeouts::DEFAULT])
        .fold(WrittenTimeouts::default(), |nearer, further| nearer.or(further));
    let part = |written: Option<DurationOrOff>| written.and_then(|written| written.0);
    Timeouts {
        response: part(all.response),
        total: part(all.total),
        idle: part(all.idle),
        upgrade_idle: part(all.upgrade_idle),
        upgrade_lifetime: part(all.upgrade_lifetime),
    }
}

fn priority(inherited: &Inherited<'_>) -> Priority {
    match inherited.nearest(|settings| settings.priority) {
        Some(portcullis_config::Priority::Critical) => Priority::Critical,
        Some(portcullis_config::Priority::Sheddable) => Priority::Sheddable,
        Some(portcullis_config::Priority::Default) | None => Priority::Default,
    }
}

fn retry(inherited: &Inherited<'_>) -> Retry {
    let written = inherited.nearest(|settings| settings.retry.clone());
    let written = written.unwrap_or_else(portcullis_config::Retry::unwritten);
    Retry {
        on: written.on,
        attempts: written.attempts,
        per_try: written.per_try.0,
        non_idempotent: written.non_idempotent,
        body_bytes_max: written.body_max.0 as usize,
        hedge: match written.hedge {
            portcullis_config::Hedge::Off => None,
            portcullis_config::Hedge::P95 => Some(Hedge::P95),
            portcullis_config::Hedge::After(wait) => Some(Hedge::After(wait)),
        },
    }
}

/// `GET,POST api.example.com/orders/** [x-version: 2]`
fn summary(built: &BuiltPattern) -> String {
    let pattern = &built.pattern;
    let join = |all: Vec<String>, by: &str| all.join(by);
    let mut out = String::new();
    if !pattern.methods.is_empty() {
        out += &join(pattern.methods.iter().map(ToString::to_string).collect(), ",");
        out.push(' ');
    }
    match pattern.hosts.as_slice() {
        [] => out.push('*'),
        hosts => out += &join(hosts.iter().map(ToString::to_string).collect(), ","),
    }
    out += &pattern.path.to_string();
    for (kind, list) in [("header", &pattern.headers), ("query", &pattern.query)] {
        for condition in list {
            out += &format!(" [{kind} {condition}]");
        }
    }
    out
}
