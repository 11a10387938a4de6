//! What the metrics say of endpoints that are left out, of breakers, zones and subsets. What a
//! backend does not have has no series.

use std::time::Duration;

use portcullis_snapshot::Backend;
use portcullis_telemetry::metrics::{Exposition, Metric};
use portcullis_upstream::Balancer;
use portcullis_upstream::breaker::State;
use portcullis_upstream::outlier::Reason;

pub(crate) fn expose(backend: &Backend, balancer: &Balancer, now: Duration, out: &mut Exposition) {
    let name = &*backend.name;
    let flag = |is: bool| f64::from(u8::from(is));
    let settings = balancer.settings();
    out.gauge(Metric::BackendPanic, &[name], flag(balancer.is_panicking(now)));
    if let Some(priority) = balancer.priority(now) {
        out.gauge(Metric::BackendPriority, &[name], f64::from(priority));
    }
    if let Some(share) = balancer.own_zone_share(now) {
        out.gauge(Metric::BackendZoneShare, &[name], share);
    }
    for (terms, standing) in balancer.subsets(now) {
        let empty = if terms.or_any { "any" } else { "refuse" };
        let labels = [name, &terms.to_string(), empty];
        out.gauge(Metric::SubsetUsable, &labels, standing.usable as f64);
    }
    if let Some(breaker) = &backend.breaker {
        for state in State::ALL {
            let is = flag(breaker.state.state() == state);
            out.gauge(Metric::BackendBreaker, &[name, state.name()], is);
        }
        out.count(Metric::BackendBreakerOpened, &[name], breaker.state.opened());
        out.count(Metric::BackendBreakerRefused, &[name], breaker.state.refused());
    }
    for member in balancer.members() {
        let endpoint = &member.endpoint;
        let url = endpoint.url();
        if settings.outliers.is_some() {
            out.gauge(Metric::EndpointEjected, &[name, url], flag(endpoint.is_ejected()));
            for reason in Reason::ALL {
                let count = endpoint.ejections(reason);
                out.count(Metric::EndpointEjections, &[name, url, reason.name()], count);
            }
        }
        if settings.breaker.is_some() {
            for state in State::ALL {
                let is = flag(endpoint.breaker().state() == state);
                out.gauge(Metric::EndpointBreaker, &[name, url, state.name()], is);
            }
            let opened = endpoint.breaker().opened();
            out.count(Metric::EndpointBreakerOpened, &[name, url], opened);
        }
    }
}
