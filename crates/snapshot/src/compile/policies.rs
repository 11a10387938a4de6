//! Policies and limits: each compiled once where it is written, then shared by whoever inherits it.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_config::Layer;
use portcullis_core::Phase;
use portcullis_core::finding::Findings;
use portcullis_core::limit_config::{KeyPart, LimitConfig};
use portcullis_core::node::Node;
use portcullis_core::policy::{Placed, Policy};
use portcullis_core::registry::{Entry, Site};

use super::Compiler;

/// What one of `defaults`, a group or a route says, compiled.
#[derive(Default)]
pub(super) struct CompiledLayer<'a> {
    policies: Vec<Ordered>,
    limits: Vec<CompiledLimit<'a>>,
    replaces_limits: bool,
}

/// A policy and its position in the registry, which is its order within its phase.
#[derive(Clone)]
struct Ordered {
    order: usize,
    placed: Placed,
}

struct CompiledLimit<'a> {
    written: &'a Node,
    resource: String,
    /// `None` if each route counts for itself, or after an error.
    shared: Option<Placed>,
    by_route: bool,
}

impl<'a> Compiler<'a, '_> {
    pub(super) fn layer(
        &mut self,
        layer: &'a Layer,
        owner: &str,
        resource: &str,
    ) -> CompiledLayer<'a> {
        let registry = self.registry;
        let mut compiled = CompiledLayer::default();
        for (key, settings) in &layer.policies {
            // The loader takes no other keys for policies than the registry's.
            let found = registry.policies.iter().enumerate().find(|(_, e)| e.name == key.name);
            let Some((order, entry)) = found else { continue };
            let resource = format!("{resource}.{key}");
            let site = Site { owner, resource: &resource, span: key.span };
            if let Some(policy) = (entry.compile)(settings, &site, &mut self.compile()) {
                let placed = Placed { name: entry.name, phase: policy.phase(), policy };
                compiled.policies.push(Ordered { order, placed });
            }
        }
        let Some(limits) = &layer.settings.limits else { return compiled };
        compiled.replaces_limits = limits.replace.is_some();
        let path = limits.path(resource);
        for (index, written) in limits.list.iter().enumerate() {
            let resource = format!("{path}[{index}]");
            let by_route = counts_by_route(written);
            let shared = match by_route {
                true => None,
                false => self.limit(written, owner, &resource),
            };
            compiled.limits.push(CompiledLimit { written, resource, shared, by_route });
        }
        compiled
    }

    fn limit(&mut self, written: &Node, owner: &str, resource: &str) -> Option<Placed> {
        let entry: &Entry<dyn Policy> = self.registry.limit;
        let site = Site { owner, resource, span: written.span };
        let policy = (entry.compile)(written, &site, &mut self.compile())?;
        Some(Placed { name: entry.name, phase: policy.phase(), policy })
    }

    /// All policies of a route in the order in which they run. `layers` are those of `defaults`,
    /// the group and the route, and `own` what the compiler adds itself.
    pub(super) fn place(
        &mut self,
        route: &str,
        layers: &[&CompiledLayer<'a>],
        own: Vec<Placed>,
    ) -> Vec<Placed> {
        let mut all: Vec<Ordered> =
            own.into_iter().map(|placed| Ordered { order: 0, placed }).collect();
        let mut nearest: HashMap<&'static str, usize> = HashMap::new();
        for ordered in layers.iter().flat_map(|layer| &layer.policies) {
            match nearest.get(ordered.placed.name) {
                Some(at) if !adds_up(ordered.placed.phase) => all[*at] = ordered.clone(),
                _ => {
                    nearest.insert(ordered.placed.name, all.len());
                    all.push(ordered.clone());
                }
            }
        }
        let from = layers.iter().rposition(|layer| layer.replaces_limits).unwrap_or(0);
        for limit in layers[from..].iter().flat_map(|layer| &layer.limits) {
            let placed = match limit.by_route {
                true => self.limit(limit.written, route, &limit.resource),
                false => limit.shared.clone(),
            };
            all.extend(placed.map(|placed| Ordered { order: usize::MAX, placed }));
        }
        // Stable: what is inherited stands before what is added.
        all.sort_by_key(|ordered| (ordered.placed.phase, ordered.order));
        all.into_iter().map(|ordered| ordered.placed).collect()
    }
}

/// Whether policies of this phase can only refuse, so that a further one only tightens.
fn adds_up(phase: Phase) -> bool {
    matches!(phase, Phase::Screen | Phase::Authorise | Phase::Validate)
}

/// A limit by `route` has a counter for each route, wherever it is written.
fn counts_by_route(written: &Node) -> bool {
    // What is wrong with it is reported when it is compiled.
    let limit: Option<LimitConfig> = written.decode("", &mut Findings::new());
    limit.is_some_and(|limit| limit.key.contains(&KeyPart::Route))
}

/// The request fields that policies decide about.
pub(super) fn decided_fields(policies: &[Placed]) -> Option<Arc<[Box<str>]>> {
    let names = policies.iter().flat_map(|placed| placed.policy.request_fields());
    let names: Arc<[Box<str>]> = names.map(Into::into).collect();
    Some(names).filter(|names| !names.is_empty())
}

/// A policy of the compiler's own in its place.
pub(super) fn placed(name: &'static str, policy: Arc<dyn Policy>) -> Placed {
    Placed { name, phase: policy.phase(), policy }
}
