//! How many requests of a route may be under way at once: as written, or so that no route can take
//! the whole of a backend that others use too.

use portcullis_config::Bulkhead as Written;
use portcullis_core::finding::Finding;
use portcullis_core::units::PositiveDuration;
use portcullis_upstream::{Bounds, Bulkhead};

use super::Compiler;
use super::routes::BuiltRoute;
use crate::backend::Backend;
use crate::snapshot::{Route, RouteBulkhead};

impl Compiler<'_, '_> {
    /// To be called when everything else has compiled, since it needs all routes of a backend.
    pub(super) fn bulkheads(&mut self, routes: &mut [BuiltRoute], backends: &[Backend]) {
        let mut users = vec![0_usize; backends.len()];
        for backend in routes.iter().flat_map(|built| backends_of(&built.route)) {
            users[backend] += 1;
        }
        for built in routes {
            let to: Vec<usize> = backends_of(&built.route).collect();
            let shared = to.iter().any(|backend| users[*backend] > 1);
            let bounds = to.iter().map(|backend| &backends[*backend]);
            let least = |of: fn(&Backend) -> u32| bounds.clone().map(of).min();
            let Some(requests_max) = least(|backend| backend.requests_max) else {
                self.check_bulkhead(built);
                continue;
            };
            let written = match built.bulkhead {
                Some(written) => written,
                None if shared => Written {
                    requests_max: Some((requests_max / 4 * 3).max(requests_max.min(3))),
                    pending_max: least(|backend| backend.pending_max),
                    pending_timeout: PositiveDuration(
                        bounds.map(|backend| backend.pending_timeout).min().unwrap_or_default(),
                    ),
                },
                None => continue,
            };
            let Some(requests_max) = written.requests_max else { continue };
            let bounds =
                Bounds { requests_max, pending_max: written.pending_max.unwrap_or(requests_max) };
            let name = &built.route.name;
            let bulkhead = self.with.carry.keep("bulkhead", name, &(), Bulkhead::default);
            let pending_timeout = written.pending_timeout.0;
            built.route.bulkhead = Some(RouteBulkhead { bulkhead, bounds, pending_timeout });
        }
    }

    /// What answers by itself has nothing under way; an inherited `bulkhead` is not meant.
    fn check_bulkhead(&mut self, built: &BuiltRoute) {
        let written = &self.config.routes[built.route.index as usize];
        let Some(bulkhead) = &written.layer.settings.bulkhead else { return };
        let resource = format!("{}.bulkhead", built.resource);
        let message = "`bulkhead` has no effect: the route has no backend";
        self.push(Finding::warning("no-effect", bulkhead.span, resource, message));
    }
}

fn backends_of(route: &Route) -> impl Iterator<Item = usize> {
    let variants = route.to.iter().flat_map(|targets| &targets.variants);
    variants.map(|variant| usize::from(variant.backend))
}
