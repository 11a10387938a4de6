//! The backends as the admin API shows them: their endpoints as they do now, and how old what is
//! known of them is.

use std::time::Duration;

use portcullis_snapshot::{Backend, Discovery, ListedState, Snapshot};
use portcullis_upstream::{Health, Service};
use serde_json::{Map, Value, json};

pub(crate) fn table(snapshot: &Snapshot, now: Duration) -> Value {
    snapshot.backends.iter().map(|backend| row(backend, now)).collect()
}

fn row(backend: &Backend, now: Duration) -> Value {
    let set = backend.endpoints.load();
    let source = match &backend.discovery {
        None => json!({ "place": "configuration" }),
        Some(discovery) => source(discovery, now),
    };
    let endpoints = set.listed.iter().zip(set.balancer.members()).map(|(listed, member)| {
        let endpoint = &member.endpoint;
        let mut row = json!({
            "url": listed.url,
            "weight": listed.weight,
            "priority": listed.priority,
            "state": match (listed.state, endpoint.service()) {
                (ListedState::Draining, _) | (_, Service::Draining) => "draining",
                (_, Service::Disabled) => "disabled",
                (ListedState::Active, Service::Active) => "active",
            },
            "health": match endpoint.health() {
                Health::Unknown => "unknown",
                Health::Up => "up",
                Health::Down => "down",
                Health::Foreign => "foreign",
            },
            "aside": endpoint.is_aside(now),
            "in_flight": endpoint.in_flight(),
            "requests": endpoint.requests(),
            "connect_failures": endpoint.connect_failures(),
        });
        if let Value::Object(row) = &mut row {
            let some = |text: &Option<Box<str>>| text.as_deref().map(Value::from);
            row.extend(some(&listed.name).map(|name| ("name".to_owned(), name)));
            row.extend(some(&listed.zone).map(|zone| ("zone".to_owned(), zone)));
            if !listed.labels.is_empty() {
                row.insert("labels".to_owned(), json!(listed.labels));
            }
        }
        row
    });
    let mut row = json!({
        "backend": &*backend.name,
        "source": source,
        "endpoints": endpoints.collect::<Vec<_>>(),
    });
    if let Some(terms) = &set.balancer.settings().zone {
        // No share: so few endpoints are well that zones do not count.
        row["zone"] = json!({
            "own": &*terms.own,
            "share": set.balancer.own_zone_share(now),
        });
    }
    let subsets = set.balancer.subsets(now).map(|(terms, standing)| {
        json!({
            "labels": terms.labels,
            "empty": if terms.or_any { "any" } else { "refuse" },
            "endpoints": standing.endpoints,
            "usable": standing.usable,
        })
    });
    let subsets: Vec<Value> = subsets.collect();
    if !subsets.is_empty() {
        row["subsets"] = subsets.into();
    }
    row
}

/// Where endpoints come from, and how long ago that was.
fn source(discovery: &Discovery, now: Duration) -> Value {
    let facts = discovery.facts();
    json!({
        "place": discovery.origin.place.to_string(),
        "age_seconds": discovery.age(now).as_secs(),
        "answered": facts.listed_at.is_some(),
        "version": &*facts.version,
        "listings": facts.listings,
        "failures": facts.failures,
        "held": facts.held,
        "error": facts.error,
    })
}

/// Adds the age of the source to each backend that a row of the route table names.
pub(crate) fn with_sources(mut routes: Value, snapshot: &Snapshot, now: Duration) -> Value {
    let rows = routes.as_array_mut().into_iter().flatten();
    let targets = rows.filter_map(|row| row.get_mut("to")?.as_array_mut()).flatten();
    for target in targets.filter_map(Value::as_object_mut) {
        add_source(target, snapshot, now);
    }
    routes
}

fn add_source(target: &mut Map<String, Value>, snapshot: &Snapshot, now: Duration) {
    let backend = target.get("backend").and_then(Value::as_str);
    let backend = backend.and_then(|name| snapshot.backend(name));
    let Some(discovery) = backend.and_then(|backend| backend.discovery.as_ref()) else { return };
    target.insert("source".to_owned(), discovery.origin.place.to_string().into());
    target.insert("age_seconds".to_owned(), discovery.age(now).as_secs().into());
}
