//! How a backend's endpoints are chosen and watched, from what is written.

use std::time::Duration;

use portcullis_config::{Backend as Written, Balance, Breaker, BreakerOf, Named, Outliers};
use portcullis_core::finding::Finding;
use portcullis_core::units::format_duration;
use portcullis_upstream::{Algorithm, Settings, breaker, outlier, subset, zone};

use super::Compiler;

impl Compiler<'_, '_> {
    /// A time that is doubled up to an end begins before that.
    pub(super) fn check_watching(&mut self, resource: &str, named: &Named<Written>) {
        let outliers = named.value.outliers.0;
        let outliers = outliers.map(|one| ("outliers", "eject", one.eject.0, one.eject_max.0));
        let breaker = named.value.breaker.0;
        let breaker = breaker.map(|one| ("breaker", "open", one.open.0, one.open_max.0));
        for (of, key, first, most) in outliers.into_iter().chain(breaker) {
            if first > most {
                let message = format!("`{key}` is longer than `{key}_max`");
                let at = format!("{resource}.{of}");
                let finding = Finding::error("invalid-value", named.span, at, message);
                let most = format_duration(most);
                self.push(finding.help(format!("`{key}_max` is {most}: change one of the two")));
            }
        }
    }
}

pub(super) fn settings(
    written: &Written,
    zone: Option<zone::Terms>,
    subsets: Vec<subset::Terms>,
) -> Settings {
    Settings {
        algorithm: match &written.balance.value {
            Balance::RoundRobin => Algorithm::RoundRobin,
            Balance::LeastRequests => Algorithm::LeastRequests,
            Balance::Ewma => Algorithm::Ewma,
            Balance::Hash(_) => Algorithm::Hash,
            Balance::Sticky(_) => Algorithm::LeastRequests,
        },
        slow_start: written.slow_start.0.unwrap_or(Duration::ZERO),
        panic_threshold: written.panic_threshold,
        zone,
        subsets,
        outliers: written.outliers.0.as_ref().map(outliers),
        breaker: terms(written, BreakerOf::Endpoint),
    }
}

/// The terms of the breaker of the whole backend, if it has one.
pub(super) fn of_backend(written: &Written) -> Option<breaker::Terms> {
    terms(written, BreakerOf::Backend)
}

fn terms(written: &Written, of: BreakerOf) -> Option<breaker::Terms> {
    let Breaker { percent, requests_min, window, open, open_max, probes, .. } =
        written.breaker.0.filter(|breaker| breaker.of == of || breaker.of == BreakerOf::Both)?;
    let (window, open, open_max) = (window.0, open.0, open_max.0);
    Some(breaker::Terms { percent, requests_min, window, open, open_max, probes })
}

fn outliers(written: &Outliers) -> outlier::Terms {
    let excess = f64::from(written.excess) / 100.0;
    outlier::Terms {
        in_a_row: written.in_a_row,
        errors: Some(excess),
        statuses: written.statuses.then_some(excess),
        latency: written.slower.map(f64::from),
        requests_min: written.requests_min,
        pause: written.eject.0,
        pause_max: written.eject_max.0,
        ejected_max: written.ejected_max,
    }
}
