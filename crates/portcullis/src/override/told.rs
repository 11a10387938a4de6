//! Overrides as the admin API is told of them, and tells of them.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_proxy::{Gateway, Order};
use portcullis_telemetry::timestamp::Stamp;
use portcullis_upstream::{Change, Override, Service};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Names of authors and reasons are kept, so they have an end.
const TEXT_BYTES_MAX: usize = 200;
/// A year: what is to hold for longer belongs into the configuration.
const LASTS_S_MAX: u64 = 365 * 86_400;

/// What somebody wants overridden: one of `weights` and `endpoint`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weights: Option<Weights>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<EndpointState>,
    /// Who says so. Nobody checks it: whoever reaches the admin API may say anything.
    pub(crate) author: String,
    #[serde(default)]
    pub(crate) reason: String,
    /// Seconds; without it, until it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lasts_s: Option<u64>,
}

/// The weights of a route's variants, by their names; 0 for those that are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Weights {
    pub(crate) route: String,
    pub(crate) to: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointState {
    pub(crate) backend: String,
    pub(crate) url: String,
    pub(crate) state: State,
}

/// What an endpoint may be put into. Out of it again it comes by clearing the override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Draining,
    Disabled,
}

impl State {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Draining => "drain",
            Self::Disabled => "disable",
        }
    }
}

/// An override in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weights: Option<Weights>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<EndpointState>,
    pub(crate) author: String,
    pub(crate) reason: String,
    pub(crate) set_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ends_in_s: Option<u64>,
    /// The configuration that serves has something of that name.
    pub(crate) in_use: bool,
}

/// What is in force, in the order in which it was set.
pub(crate) fn list(gateway: &Gateway) -> Value {
    let overrides = gateway.overrides();
    let shown: Vec<Shown> = overrides.list().iter().map(|one| show(gateway, one)).collect();
    // Plain texts and numbers: there is nothing in them that JSON cannot hold.
    serde_json::to_value(shown).unwrap_or_default()
}

fn show(gateway: &Gateway, one: &Override) -> Shown {
    let snapshot = gateway.snapshot();
    let now = gateway.world().clock().mono();
    let (mut weights, mut endpoint) = (None, None);
    let in_use = match &one.change {
        Change::Weights { route, weights: to } => {
            weights = Some(Weights { route: route.clone(), to: to.iter().cloned().collect() });
            snapshot.is_weighed(route)
        }
        Change::Service { backend, endpoint: url, service } => {
            let state = match service {
                Service::Disabled => State::Disabled,
                Service::Draining | Service::Active => State::Draining,
            };
            let (name, url) = (backend.clone(), url.clone());
            let has = |url: &str| {
                let backend = snapshot.backend(backend);
                backend.is_some_and(|one| {
                    one.endpoints.load().iter().any(|known| known.endpoint.url() == url)
                })
            };
            let in_use = has(&url);
            endpoint = Some(EndpointState { backend: name, url, state });
            in_use
        }
    };
    Shown {
        revision: one.revision,
        weights,
        endpoint,
        author: one.author.clone(),
        reason: one.reason.clone(),
        set_at: String::from_utf8_lossy(Stamp::default().text(one.set_at)).into_owned(),
        ends_in_s: one.until.map(|until| until.saturating_sub(now).as_secs()),
        in_use,
    }
}

/// Puts in force what is written in the body of a request.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn set(gateway: &Gateway, written: &[u8]) -> Result<Value, String> {
    let wanted: Wanted = serde_json::from_slice(written).map_err(|error| error.to_string())?;
    let Wanted { weights, endpoint, author, reason, lasts_s } = wanted;
    if author.trim().is_empty() {
        return Err("`author` says who wants it".to_owned());
    }
    if author.len().max(reason.len()) > TEXT_BYTES_MAX {
        return Err(format!("`author` and `reason` have at most {TEXT_BYTES_MAX} bytes"));
    }
    if [&author, &reason].into_iter().any(|text| text.contains(char::is_control)) {
        return Err("`author` and `reason` have no control characters".to_owned());
    }
    if lasts_s.is_some_and(|lasts| !(1..=LASTS_S_MAX).contains(&lasts)) {
        return Err(format!(
            "`lasts_s` is 1 to {LASTS_S_MAX}: leave it out for what holds until it is cleared"
        ));
    }
    let change = match (weights, endpoint) {
        (Some(Weights { route, to }), None) => {
            Change::Weights { route, weights: to.into_iter().collect() }
        }
        (None, Some(EndpointState { backend, url, state })) => {
            let service = match state {
                State::Draining => Service::Draining,
                State::Disabled => Service::Disabled,
            };
            Change::Service { backend, endpoint: url, service }
        }
        _ => return Err("one of `weights` and `endpoint` is needed".to_owned()),
    };
    let lasts = lasts_s.map(Duration::from_secs);
    let set = gateway.set_override(Order { change, author, reason, lasts });
    let revision = set.map_err(|error| error.to_string())?;
    Ok(json!({ "revision": revision, "config": gateway.snapshot().version.short() }))
}
