//! What the probes and the admin API get to see of the running gateway.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use portcullis_admin::{Access, Bind, Server};
use portcullis_config::{AdminAddress, Config, Reference};
use portcullis_control::Status;
use portcullis_core::registry::Sources;
use portcullis_policies::grantor::Embedded;
use portcullis_proxy::Gateway;
use portcullis_snapshot::{Backend, Discovery, Snapshot};
use portcullis_telemetry::metrics::{Exposition, Metric, Registry as Metrics, SERIES_MAX};
use portcullis_upstream::{Bulkhead, Health};
use serde_json::{Value, json};

use crate::usage::Usage;

pub(crate) struct View {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) grantor: Arc<Embedded>,
    pub(crate) status: Arc<Mutex<Status>>,
    pub(crate) usage: Usage,
    pub(crate) draining: AtomicBool,
}

impl View {
    fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl View {
    /// How old the keys are that tokens are verified with, and whether new ones can be had.
    fn issuer_keys(&self, exposition: &mut Exposition) {
        let wall = self.gateway.world().clock().now().wall;
        for named in &self.gateway.snapshot().authenticators {
            let Some(keys) = named.authenticator.issuer_keys() else { continue };
            let name = &*named.name;
            exposition.gauge(Metric::AuthKeys, &[name], keys.count as f64);
            if let Some(given) = keys.given {
                let age = wall.saturating_sub(given).as_secs_f64();
                exposition.gauge(Metric::AuthKeysAge, &[name], age);
            }
            exposition.count(Metric::AuthKeysFetches, &[name, "ok"], keys.fetched);
            exposition.count(Metric::AuthKeysFetches, &[name, "failed"], keys.failed);
        }
    }
}

/// How full each compartment is.
fn bulkheads(snapshot: &Snapshot, exposition: &mut Exposition) {
    let mut tell = |kind, name: &str, bulkhead: &Bulkhead, requests_max| {
        let labels = [kind, name];
        let limit = f64::from(bulkhead.bound(requests_max));
        exposition.gauge(Metric::BulkheadInFlight, &labels, f64::from(bulkhead.used()));
        exposition.gauge(Metric::BulkheadLimit, &labels, limit);
        exposition.gauge(Metric::BulkheadQueued, &labels, f64::from(bulkhead.waiting()));
        for (reason, count) in [("full", bulkhead.full()), ("late", bulkhead.late())] {
            exposition.count(Metric::BulkheadRefused, &[kind, name, reason], count);
        }
    };
    for backend in snapshot.backends.iter().take(SERIES_MAX) {
        tell("backend", &backend.name, &backend.capacity.requests, backend.requests_max);
    }
    for route in snapshot.routes.iter().take(SERIES_MAX) {
        if let Some(of) = &route.bulkhead {
            tell("route", &route.name, &of.bulkhead, of.bounds.requests_max);
        }
    }
}

impl portcullis_admin::View for View {
    fn ready(&self) -> (bool, Value) {
        let draining = self.draining.load(Relaxed);
        let status = self.status();
        let detail = json!({
            "ready": !draining,
            "draining": draining,
            "config": self.gateway.snapshot().version.short(),
            "loaded_at": status.loaded.as_secs(),
            "refused_config": status.refused,
        });
        (!draining, detail)
    }

    fn metrics(&self, out: &mut String) {
        let mut exposition = Exposition::new();
        self.metrics.collect(&mut exposition);
        let now = self.gateway.world().clock().mono();
        for backend in &self.gateway.snapshot().backends {
            let name = &*backend.name;
            let capacity = &backend.capacity;
            exposition.gauge(Metric::PoolPending, &[name], f64::from(capacity.pending.used()));
            for (limit, counter) in
                [("connections_max", &capacity.connections), ("pending_max", &capacity.pending)]
            {
                exposition.count(Metric::PoolLimitHits, &[name, limit], counter.refused());
            }
            let refused = backend.budget.refused();
            exposition.count(Metric::RetriesRefused, &[name], refused);
            if let Some(discovery) = &backend.discovery {
                discovered(backend, discovery, now, &mut exposition);
            }
            let set = backend.endpoints.load();
            crate::watched::expose(backend, &set.balancer, now, &mut exposition);
            for member in set.balancer.members() {
                let endpoint = &member.endpoint;
                let labels = [name, endpoint.url()];
                let up = match endpoint.health() {
                    Health::Unknown | Health::Up => 1.0,
                    Health::Down | Health::Foreign => 0.0,
                };
                exposition.gauge(Metric::EndpointUp, &labels, up);
                let aside = f64::from(u8::from(endpoint.is_aside(now)));
                exposition.gauge(Metric::EndpointAside, &labels, aside);
                let flying = f64::from(endpoint.in_flight());
                exposition.gauge(Metric::EndpointInFlight, &labels, flying);
                exposition.count(Metric::EndpointRequests, &labels, endpoint.requests());
                let failures = endpoint.connect_failures();
                exposition.count(Metric::EndpointConnectFailures, &labels, failures);
                exposition.count(Metric::EndpointTransitions, &labels, endpoint.transitions());
            }
        }
        bulkheads(&self.gateway.snapshot(), &mut exposition);
        crate::analysis::collect(&self.gateway.analyses(), &mut exposition);
        self.issuer_keys(&mut exposition);
        // One table counts for all limits.
        let counted = self.grantor.stats();
        exposition.gauge(Metric::LimitKeys, &["(all)"], counted.keys as f64);
        exposition.count(Metric::LimitKeysEvicted, &["(all)"], counted.evicted);
        if let Some(counts) = self.gateway.log_counts() {
            exposition.count(Metric::LogLines, &["written"], counts.written);
            exposition.count(Metric::LogLines, &["dropped"], counts.dropped);
        }
        exposition.finish(out);
    }

    fn config(&self) -> Value {
        let files: Vec<Value> = self
            .status()
            .sources
            .iter()
            .map(|source| json!({ "name": source.name, "text": source.text }))
            .collect();
        json!({ "config": self.gateway.snapshot().version.short(), "files": files })
    }

    fn routes(&self) -> Value {
        let now = self.gateway.world().clock().mono();
        let snapshot = self.gateway.snapshot();
        crate::backends::with_sources(crate::routes::table(&snapshot), &snapshot, now)
    }

    fn backends(&self) -> Value {
        let now = self.gateway.world().clock().mono();
        crate::backends::table(&self.gateway.snapshot(), now)
    }

    fn usage(&self) -> Value {
        let now = self.gateway.world().clock().now().wall;
        self.usage.look(&self.metrics, now);
        let report = self.usage.report(&self.gateway.snapshot(), now);
        serde_json::to_value(report).unwrap_or_default()
    }

    fn analysis(&self) -> Value {
        crate::analysis::table(&self.gateway.analyses())
    }

    fn overrides(&self) -> Value {
        crate::r#override::told::list(&self.gateway)
    }

    fn set_override(&self, written: &[u8]) -> Result<Value, String> {
        crate::r#override::told::set(&self.gateway, written)
    }

    fn clear_overrides(&self, revision: Option<u64>) -> usize {
        self.gateway.clear_overrides(revision)
    }

    fn request(&self, id: &str) -> Value {
        // Plain texts and numbers: there is nothing in them that JSON cannot hold.
        serde_json::to_value(self.gateway.decided(id)).unwrap_or_default()
    }

    fn version(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "config": self.gateway.snapshot().version.short(),
            "config_hash": self.gateway.snapshot().version.hash,
        })
    }
}

/// How finding the backend's endpoints goes.
fn discovered(
    backend: &Backend,
    discovery: &Discovery,
    now: std::time::Duration,
    exposition: &mut Exposition,
) {
    let name = &*backend.name;
    let facts = discovery.facts();
    let age = discovery.age(now).as_secs_f64();
    exposition.gauge(Metric::DiscoveryAge, &[name], age);
    let believed = facts.listings - facts.held;
    for (result, count) in [("ok", believed), ("held", facts.held), ("failed", facts.failures)] {
        exposition.count(Metric::DiscoveryListings, &[name, result], count);
    }
    let count = backend.endpoints.load().listed.len();
    exposition.gauge(Metric::DiscoveryEndpoints, &[name], count as f64);
}

/// Starts the servers that the configuration, or `--admin`, asks for.
pub(crate) fn serve(
    config: &Config,
    admin: Option<SocketAddr>,
    files: &dyn Sources,
    view: &Arc<View>,
) -> anyhow::Result<(Option<Server>, Option<Server>)> {
    let view = || Arc::clone(view) as Arc<dyn portcullis_admin::View>;
    let probes = match config.process.probes.bind {
        None => None,
        Some(bind) => {
            let server = portcullis_admin::start(&Bind::Address(bind.0), Access::Probes, view());
            Some(server.with_context(|| format!("cannot listen on {} for probes", bind.0))?)
        }
    };
    let written = &config.process.admin;
    let bind = match (admin, &written.bind) {
        (Some(address), _) => Bind::Address(address),
        (None, Some(AdminAddress::Tcp(address))) => Bind::Address(*address),
        (None, Some(AdminAddress::Unix(path))) => Bind::Socket(path.into()),
        (None, None) => return Ok((probes, None)),
    };
    let access = match &bind {
        Bind::Socket(_) => Access::Socket,
        Bind::Address(_) => {
            let reference = written.token.as_ref();
            let reference = reference.context("an admin address needs `admin: {token: …}`")?;
            Access::Token(secret(files, &reference.value)?)
        }
    };
    let server = portcullis_admin::start(&bind, access, view());
    Ok((probes, Some(server.context("cannot listen for the admin API")?)))
}

pub(crate) fn secret(files: &dyn Sources, reference: &Reference) -> anyhow::Result<String> {
    let bytes = files.read(&reference.to_string()).map_err(anyhow::Error::msg)?;
    let text = std::str::from_utf8(&bytes)?.trim().to_owned();
    anyhow::ensure!(text.len() >= 16, "the admin token has fewer than 16 characters");
    Ok(text)
}
