//! What the metrics learn while a request is decided: what limits said, and what policies cost.

use std::time::Duration;

use portcullis_core::policy::Placed;
use portcullis_core::{Exchange, Problem};
use portcullis_snapshot::{Observer, Outcome, Route};
use portcullis_upstream::Pressure;

use crate::gateway::Active;
use crate::listener::Place;
use crate::overload;
use crate::worker::Worker;

/// Watches one decision. The clock is read around policies for one request in 128 only.
pub(crate) struct Watch<'a> {
    worker: &'a Worker,
    active: &'a Active,
    pressure: Pressure,
    measured: bool,
    begun: Duration,
    route: usize,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(worker: &'a Worker, active: &'a Active, place: &Place) -> Self {
        let measured = worker.is_measured();
        let pressure = place.pressure();
        Self { worker, active, pressure, measured, begun: Duration::ZERO, route: usize::MAX }
    }
}

impl Observer for Watch<'_> {
    fn routed(&mut self, route: Option<&Route>) {
        self.route = route.map_or(usize::MAX, |route| route.index as usize);
    }

    fn refuses(&mut self, route: &Route, exchange: &Exchange) -> Option<Problem> {
        overload::refuses(self.worker, self.pressure, route, exchange)
    }

    fn before(&mut self, _: &Placed) {
        if self.measured {
            self.begun = self.worker.shared.world.clock().mono();
        }
    }

    fn after(&mut self, placed: &Placed, outcome: Outcome<'_>, _: bool) {
        let id = self.worker.metrics.id();
        if placed.name == "limits"
            && let Some(series) = self.active.limits.get(self.route)
        {
            series.decided(id, !matches!(outcome, Outcome::Refuse(_)));
        }
        if self.measured
            && let Some(series) = self.active.policies.get(placed.name)
        {
            let spent = self.worker.shared.world.clock().mono().saturating_sub(self.begun);
            series.observe(id, spent);
        }
    }
}
