//! From texts to a [`Config`]: reads each file, puts the files together, decodes entry by entry.

use std::collections::HashMap;

use portcullis_core::decode::{Decoder, Ready, schema_by, schema_of};
use portcullis_core::finding::{Finding, Findings, did_you_mean};
use portcullis_core::node::{Key, Node, SourceSpan, Value};
use portcullis_core::registry::Registry;

use crate::group;
use crate::route::{GroupOnly, RouteOnly};
use crate::text::FORMATS;
use crate::{
    ACTIONS, AuthEntry, AuthUse, Config, Group, Layer, Name, Named, Process, Route, Settings, yaml,
};

/// One file: how messages call it, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// What came of loading.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Only when there is no error among the findings.
    pub config: Option<Config>,
    /// In the order given; the `file` of a span is an index into it.
    pub sources: Vec<Source>,
    /// In reading order.
    pub findings: Findings,
}

/// The flat maps.
const MAPS: [&str; 5] = ["listeners", "auth", "groups", "routes", "backends"];

/// The lists that follow one another.
const LISTS: [&str; 2] = ["tests", "accept"];

/// Reads a configuration of one file or several.
///
/// Files add names to the flat maps, and their `tests` and `accept` follow one another; all else
/// is said once, `listeners` and `defaults` each within one file. All findings are reported, with
/// one exception: of a file that is not YAML only the first error is known.
#[must_use]
pub fn load(sources: Vec<Source>, registry: &Registry) -> Loaded {
    let mut findings = Findings::new();
    let mut outline = Outline::default();
    for (file, source) in sources.iter().enumerate() {
        let Ok(file) = u16::try_from(file) else {
            findings.error("too-many-files", None, "", "more than 65,536 files");
            break;
        };
        let Some(node) = yaml::read(file, &source.text, &mut findings) else { continue };
        outline.add(node, &mut findings);
    }
    let config = Loader::new(registry, &mut findings).config(outline);
    let findings = findings.sorted();
    let config = if findings.has_errors() { None } else { Some(config) };
    Loaded { config, sources, findings }
}

/// All files put together, not yet decoded.
#[derive(Default)]
struct Outline {
    /// Entries of each of [`MAPS`].
    maps: HashMap<&'static str, Vec<(Key, Node)>>,
    defaults: Option<(Key, Node)>,
    process: Vec<(Key, Node)>,
    /// Of each of [`LISTS`].
    lists: HashMap<&'static str, Vec<Node>>,
    /// Where what may be said once was said first.
    said: HashMap<String, SourceSpan>,
}

impl Outline {
    fn add(&mut self, node: Node, findings: &mut Findings) {
        let kind = node.kind();
        let Value::Map(entries) = node.value else {
            let message =
                format!("a configuration is a map of `routes`, `backends`, …, not {kind}");
            return findings.error("wrong-type", node.span, "", message);
        };
        for (key, value) in entries {
            if let Some(name) = LISTS.iter().find(|name| **name == key.name) {
                self.extend(name, value, findings);
                continue;
            }
            match MAPS.iter().find(|name| **name == key.name) {
                Some(name) => {
                    if *name == "listeners" {
                        self.once(&key, findings);
                    }
                    self.merge(name, &key, value, findings);
                }
                None if !self.once(&key, findings) => {}
                None if key.name == "defaults" => self.defaults = Some((key, value)),
                None => self.process.push((key, value)),
            }
        }
    }

    fn extend(&mut self, list: &'static str, value: Node, findings: &mut Findings) {
        match value.value {
            Value::Seq(items) => self.lists.entry(list).or_default().extend(items),
            _ => {
                let message = format!("expected a list, found {}", value.kind());
                findings.error("wrong-type", value.span, list, message);
            }
        }
    }

    /// Whether the key is said for the first time; an error if not.
    fn once(&mut self, key: &Key, findings: &mut Findings) -> bool {
        let first = *self.said.entry(key.name.clone()).or_insert(key.span);
        if first == key.span {
            return true;
        }
        let message = format!("`{key}` stands in two files");
        findings.push(
            Finding::error("duplicate-key", key.span, key.name.clone(), message)
                .related(first, "first here")
                .help(
                    "only `auth`, `groups`, `routes`, `backends`, `tests` and `accept` may be \
                     spread out",
                ),
        );
        false
    }

    fn merge(&mut self, map: &'static str, key: &Key, value: Node, findings: &mut Findings) {
        let kind = value.kind();
        let Value::Map(entries) = value.value else {
            let span = if value.span.start == value.span.end { key.span } else { value.span };
            let message = match kind {
                "no value" => format!("`{map}` has no value"),
                _ => format!("`{map}` is a map of names, not {kind}"),
            };
            let help = format!("write `{map}: {{}}`, or remove the key");
            let finding = Finding::error("wrong-type", span, map, message);
            return findings.push(if kind == "no value" { finding.help(help) } else { finding });
        };
        let all = self.maps.entry(map).or_default();
        for (key, value) in entries {
            let first = self.said.entry(format!("{map}.{key}")).or_insert(key.span);
            if *first == key.span {
                all.push((key, value));
                continue;
            }
            let message = format!("`{key}` is there already");
            findings.push(
                Finding::error("duplicate-name", key.span, format!("{map}.{key}"), message)
                    .related(*first, "first here")
                    .help("a file adds names; it cannot change those of another file"),
            );
        }
    }
}

struct Loader<'a> {
    registry: &'a Registry,
    findings: &'a mut Findings,
    policies: Vec<&'static str>,
    settings: Vec<String>,
    /// Of the registry's entries, by `policy NAME`, `auth NAME`, `limit`.
    schemas: HashMap<String, Ready>,
}

impl<'a> Loader<'a> {
    fn new(registry: &'a Registry, findings: &'a mut Findings) -> Self {
        let schema = schema_of::<Settings>();
        let settings = schema.get("properties").and_then(|p| p.as_object());
        Self {
            registry,
            findings,
            policies: registry.policies.iter().map(|entry| entry.name).collect(),
            settings: settings.into_iter().flat_map(|map| map.keys().cloned()).collect(),
            schemas: HashMap::new(),
        }
    }

    fn config(mut self, mut outline: Outline) -> Config {
        let mut map = |name| outline.maps.remove(name).unwrap_or_default();
        let (listeners, auth, backends) = (map("listeners"), map("auth"), map("backends"));
        let (routes, groups) = (map("routes"), map("groups"));
        let mut config = Config {
            process: self.process(outline.process),
            listeners: self.named("listeners", listeners),
            auth: auth.into_iter().filter_map(|(key, node)| self.auth(key, node)).collect(),
            backends: self.named("backends", backends),
            ..Config::default()
        };
        if let Some((key, node)) = outline.defaults {
            config.defaults = self.defaults(&key, node);
        }
        for (key, node) in routes {
            let resource = format!("routes.{key}");
            config.routes.extend(self.route(&key, node, &resource));
        }
        for (key, node) in groups {
            self.group(&key, node, &mut config);
        }
        let mut list = |name| outline.lists.remove(name).unwrap_or_default();
        let (tests, accept) = (list("tests"), list("accept"));
        for (index, node) in tests.into_iter().enumerate() {
            let resource = format!("tests[{index}]");
            config.tests.extend(self.decode(&node, node.span, &resource, &[]));
        }
        for (index, node) in accept.into_iter().enumerate() {
            let resource = format!("accept[{index}]");
            config.accept.extend(self.decode(&node, node.span, &resource, &[]));
        }
        config
    }

    fn decode<T: serde::de::DeserializeOwned + schemars::JsonSchema>(
        &mut self,
        node: &Node,
        anchor: SourceSpan,
        resource: &str,
        other_keys: &[&str],
    ) -> Option<T> {
        let decoder = Decoder { formats: FORMATS, other_keys };
        decoder.decode(node, anchor, resource, self.findings)
    }

    fn process(&mut self, entries: Vec<(Key, Node)>) -> Process {
        let others: Vec<&str> = MAPS.into_iter().chain(LISTS).chain(["defaults"]).collect();
        let start = entries.first().map(|(key, _)| key.span).unwrap_or_default();
        let node = Node::new(start, Value::Map(entries));
        self.decode(&node, start, "", &others).unwrap_or_default()
    }

    fn named<T: serde::de::DeserializeOwned + schemars::JsonSchema>(
        &mut self,
        map: &str,
        entries: Vec<(Key, Node)>,
    ) -> Vec<Named<T>> {
        let mut named = Vec::new();
        for (key, node) in entries {
            let resource = format!("{map}.{key}");
            self.name(&key, &resource);
            if let Some(value) = self.decode(&node, key.span, &resource, &[]) {
                named.push(Named { name: key.name, span: key.span, value });
            }
        }
        named
    }

    fn name(&mut self, key: &Key, resource: &str) {
        if let Err(fault) = key.name.parse::<Name>() {
            let span = key.span.within(&key.name, &fault.at);
            let mut finding = Finding::error("invalid-name", span, resource, fault.message);
            finding.help = fault.help;
            self.findings.push(finding);
        }
    }

    fn auth(&mut self, key: Key, node: Node) -> Option<Named<AuthEntry>> {
        let resource = format!("auth.{key}");
        self.name(&key, &resource);
        let kinds = self.registry.auth.iter().map(|entry| entry.name);
        let listed = kinds.clone().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let found = node.kind();
        let span = node.span;
        let entries = match node.value {
            Value::Map(entries) if entries.len() == 1 => entries,
            Value::Map(entries) => {
                let message = format!("exactly one of {listed} is needed, found {}", entries.len());
                self.findings.error("wrong-type", key.span, resource, message);
                return None;
            }
            _ => {
                let message = format!("expected a map with one of {listed}, found {found}");
                self.findings.error("wrong-type", span, resource, message);
                return None;
            }
        };
        let (kind, settings) = entries.into_iter().next()?;
        let Some(entry) = self.registry.auth(&kind.name) else {
            let message =
                format!("unknown kind of authentication `{kind}`, expected one of {listed}");
            self.findings.push(
                Finding::error("unknown-key", kind.span, resource, message)
                    .suggest(&kind.name, kinds),
            );
            return None;
        };
        let resource = format!("{resource}.{kind}");
        self.fits(format!("auth {kind}"), entry.schema, &settings, kind.span, &resource);
        let value = AuthEntry { kind: kind.name, kind_span: kind.span, settings };
        Some(Named { name: key.name, span: key.span, value })
    }

    /// Checks settings that the registry compiles later against its schema.
    fn fits(
        &mut self,
        id: String,
        make: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
        node: &Node,
        anchor: SourceSpan,
        resource: &str,
    ) {
        let schema = self.schemas.entry(id).or_insert_with(|| Ready::new(&schema_by(make)));
        Decoder::default().check(node, anchor, schema, resource, self.findings);
    }

    fn defaults(&mut self, key: &Key, node: Node) -> Layer {
        let Some((layer, rest)) = self.layer(node, key.span, "defaults", false) else {
            return Layer::default();
        };
        // Nothing but settings and policies can stand here.
        let _: Option<Nothing> = self.rest(&rest, key.span, "defaults");
        layer
    }

    fn route(&mut self, key: &Key, node: Node, resource: &str) -> Option<Route> {
        self.name(key, resource);
        let actions = self.one_action(key, &node, resource);
        let (layer, rest) = self.layer(node, key.span, resource, true)?;
        let only: RouteOnly = self.rest(&rest, key.span, resource)?;
        if !actions {
            return None;
        }
        if let (Some(public), Some(auth)) = (&only.public, &layer.settings.auth) {
            let message = "a route is public or has `auth`, not both";
            let finding = Finding::error("public-and-auth", public.span, resource, message);
            self.findings.push(match auth.value {
                AuthUse::Optional { .. } => finding.related(auth.span, "`optional` is public too"),
                AuthUse::Any(_) => finding.related(auth.span, "`auth` here"),
            });
        }
        Some(Route {
            name: key.name.clone(),
            resource: resource.to_owned(),
            span: key.span,
            group: None,
            matches: only.matches.0,
            public: only.public,
            to: only.to.0,
            sticky: only.sticky,
            mirror: only.mirror,
            analysis: only.analysis,
            layer,
        })
    }

    /// Whether the route has exactly one action; an error if not.
    fn one_action(&mut self, key: &Key, node: &Node, resource: &str) -> bool {
        let is_action = |(key, _): &&(Key, Node)| ACTIONS.contains(&key.name.as_str());
        let mut actions = node.entries().iter().filter(is_action).map(|(key, _)| key);
        match (actions.next(), actions.next()) {
            (Some(_), None) => true,
            (Some(first), Some(second)) => {
                let message = format!("a route has one action, here are `{first}` and `{second}`");
                self.findings.push(
                    Finding::error("two-actions", second.span, resource, message)
                        .related(first.span, "the other one"),
                );
                false
            }
            (None, _) => {
                let misspelt = node.entries().iter().any(|(key, _)| {
                    self.policies.iter().all(|name| *name != key.name)
                        && did_you_mean(&key.name, ACTIONS).is_some()
                });
                if node.is_map() && !misspelt {
                    let message = "the route does not say what becomes of a request";
                    self.findings.push(
                        Finding::error("no-action", key.span, resource, message)
                            .help("add `to: BACKEND`, or one of `respond`, `redirect`, `deny`"),
                    );
                }
                false
            }
        }
    }

    fn group(&mut self, key: &Key, node: Node, config: &mut Config) {
        let resource = format!("groups.{key}");
        self.name(key, &resource);
        let Some((layer, rest)) = self.layer(node, key.span, &resource, false) else { return };
        let Some(only) = self.rest::<GroupOnly>(&rest, key.span, &resource) else { return };
        let base =
            only.matches.and_then(|matches| group::Base::of(matches, &resource, self.findings));
        let number = config.groups.len();
        for (name, node) in only.routes.0 {
            let resource = format!("{resource}.routes.{name}");
            let Some(mut route) = self.route(&name, node, &resource) else { continue };
            route.name = format!("{key}/{name}");
            route.group = Some(number);
            if let Some(base) = &base {
                base.apply(&mut route, self.findings);
            }
            config.routes.push(route);
        }
        config.groups.push(Group { name: key.name.clone(), resource, span: key.span, layer });
    }

    /// Takes the settings and the policies out of a map; what is left is the owner's own.
    fn layer(
        &mut self,
        node: Node,
        anchor: SourceSpan,
        resource: &str,
        is_route: bool,
    ) -> Option<(Layer, Node)> {
        let kind = node.kind();
        let Value::Map(entries) = node.value else {
            let span = if node.span.start == node.span.end { anchor } else { node.span };
            self.findings.error(
                "wrong-type",
                span,
                resource,
                format!("expected a map, found {kind}"),
            );
            return None;
        };
        let (mut settings, mut policies, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (key, node) in entries {
            if !is_route && (ACTIONS.contains(&key.name.as_str()) || key.name == "public") {
                let message = format!("`{key}` is said by each route for itself");
                self.findings.error("unknown-key", key.span, resource, message);
            } else if self.settings.contains(&key.name) {
                settings.push((key, node));
            } else if let Some(entry) = self.registry.policy(&key.name) {
                let resource = format!("{resource}.{key}");
                self.fits(format!("policy {key}"), entry.schema, &node, key.span, &resource);
                policies.push((key, node));
            } else {
                rest.push((key, node));
            }
        }
        let settings = Node::new(node.span, Value::Map(settings));
        let settings: Settings = self.decode(&settings, anchor, resource, &[]).unwrap_or_default();
        if let Some(limits) = &settings.limits {
            let (path, make) = (limits.path(resource), self.registry.limit.schema);
            for (index, limit) in limits.list.iter().enumerate() {
                self.fits("limit".to_owned(), make, limit, limit.span, &format!("{path}[{index}]"));
            }
        }
        let rest = Node::new(node.span, Value::Map(rest));
        Some((Layer { settings, policies }, rest))
    }

    /// Decodes what [`Self::layer`] left.
    fn rest<T: serde::de::DeserializeOwned + schemars::JsonSchema>(
        &mut self,
        node: &Node,
        anchor: SourceSpan,
        resource: &str,
    ) -> Option<T> {
        let settings = self.settings.clone();
        let others: Vec<&str> =
            settings.iter().map(String::as_str).chain(self.policies.iter().copied()).collect();
        self.decode(node, anchor, resource, &others)
    }
}

/// A map without keys of its own.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}
