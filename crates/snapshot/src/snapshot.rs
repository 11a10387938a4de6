//! The compiled configuration as the data plane reads it: plain, public, immutable data.
//!
//! Nothing here knows how it was written. What changes while it serves (health, capacity, whose
//! turn it is, session tickets) lives behind `Arc`s that the next snapshot takes over.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::RetryOn;
use portcullis_core::auth::Authenticator;
use portcullis_core::policy::{BodyUse, Placed, Policy};
use portcullis_upstream::{Bounds, Bulkhead, Directory, Priority};

use crate::backend::Backend;
use crate::listener::Listener;
use crate::mirror::Mirror;
use crate::router::Router;
use crate::targets::{Overridden, Targets};

/// Everything a request needs, under one version. A request sees one snapshot from its first byte
/// to its last.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub version: Version,
    pub router: Arc<Router>,
    /// By [`crate::router::RouteIndex`].
    pub routes: Vec<Arc<Route>>,
    /// By [`portcullis_core::exchange::Connection::listener`].
    pub listeners: Vec<Arc<Listener>>,
    /// By the numbers in [`crate::Variant`].
    pub backends: Vec<Arc<Backend>>,
    /// One for each entry of `auth` that a route uses.
    pub authenticators: Vec<NamedAuthenticator>,
    /// Where endpoint state is found again after a reload; prune it once the old snapshot is gone.
    pub directory: Arc<Directory>,
    /// What operators have said beside the configuration, as far as it decides about requests.
    pub overridden: Option<Arc<Overridden>>,
    /// Every certificate in use, for the expiry forecast.
    pub certificates: Vec<CertificateFacts>,
}

/// Which configuration this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Counts the snapshots that have served in this process; set by whoever swaps.
    pub sequence: u64,
    /// Hexadecimal hash of the configuration's canonical form.
    pub hash: String,
    /// The latest change of what overrides it; 0 while nothing does.
    pub overrides: u64,
}

impl Version {
    /// `config@3-1f0c9a2b`, with `+override@7` where something is overridden: short, for logs and
    /// headers.
    #[must_use]
    pub fn short(&self) -> String {
        let hash = self.hash.get(..8).unwrap_or(&self.hash);
        let overrides = match self.overrides {
            0 => String::new(),
            revision => format!("+override@{revision}"),
        };
        format!("config@{}-{hash}{overrides}", self.sequence)
    }
}

#[derive(Clone, Debug)]
pub struct NamedAuthenticator {
    pub name: Arc<str>,
    pub authenticator: Arc<dyn Authenticator>,
}

/// A certificate that the gateway presents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The listener, or the backend for a client certificate.
    pub owner: String,
    /// The reference it was read from.
    pub source: String,
    /// Names it is valid for, lower case.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

/// One route with everything it inherits.
#[derive(Debug)]
pub struct Route {
    /// `orders`, or `group/orders`.
    pub name: Arc<str>,
    pub index: u32,
    pub access: Access,
    /// What is required of a caller beside a credential, a line for each rule; for people.
    pub require: Vec<String>,
    /// In the order in which they run: by phase, within a phase by the registry.
    pub policies: Vec<Placed>,
    /// `None`: a policy answers (`respond`, `redirect`, `deny`).
    pub to: Option<Targets>,
    /// Who gets copies; only where there is a backend.
    pub mirror: Option<Mirror>,
    pub timeouts: Timeouts,
    /// Where callers say how many milliseconds they still wait, in lower case.
    pub deadline_header: Option<Box<str>>,
    pub retry: Retry,
    /// How many of its requests may be under way at once; outlives reloads.
    pub bulkhead: Option<RouteBulkhead>,
    /// Whose requests are refused first when the gateway has more to do than it can.
    pub priority: Priority,
    /// Longest request body, in bytes.
    pub body_bytes_max: u64,
    /// The most that any policy wants to do with the bodies.
    pub request_body: BodyUse,
    pub response_body: BodyUse,
    /// Request fields that its policies decide about, and no trailer; `None` where there are none.
    pub request_fields: Option<Arc<[Box<str>]>>,
    /// Whether a WebSocket may be opened through it (RFC 6455, RFC 8441).
    pub websocket: bool,
    /// Whether the client's credential reaches the backend.
    pub forward_credential: bool,
    /// What it matches, as written; for people.
    pub matches: Vec<String>,
    /// Listeners it is served on, by position.
    pub listeners: Vec<u16>,
}

/// Who may use a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// One credential for one of these entries of `auth`, with all of the scopes.
    Authenticated {
        auth: Vec<Arc<str>>,
        scopes: Vec<String>,
    },
    /// As above, or none at all. For the audit this is public.
    Optional {
        auth: Vec<Arc<str>>,
        reason: String,
    },
    Public {
        reason: String,
    },
}

impl Access {
    /// Why nobody has to authenticate here, if so.
    #[must_use]
    pub fn public_reason(&self) -> Option<&str> {
        match self {
            Self::Authenticated { .. } => None,
            Self::Optional { reason, .. } | Self::Public { reason } => Some(reason),
        }
    }
}

/// The compartment of one route.
#[derive(Clone, Debug)]
pub struct RouteBulkhead {
    pub bulkhead: Arc<Bulkhead>,
    pub bounds: Bounds,
    /// The longest wait for one's turn.
    pub pending_timeout: Duration,
}

/// When a request is sent to another endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub on: Vec<RetryOn>,
    /// The first one included.
    pub attempts: u32,
    /// From the request's last byte sent to the head of the answer to this try.
    pub per_try: Option<Duration>,
    /// Whatever the method is.
    pub non_idempotent: bool,
    /// How much of a body is kept.
    pub body_bytes_max: usize,
    /// When a second endpoint is asked though the first has not failed; `None` is never.
    pub hedge: Option<Hedge>,
}

/// How long the first endpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// As long as nineteen of twenty answers of its backend take.
    P95,
    After(Duration),
}

impl Retry {
    /// Whether something may be sent again that a backend may have begun with.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.attempts > 1
            && (self.per_try.is_some()
                || self.hedge.is_some()
                || self.on.iter().any(|on| *on != RetryOn::Connect))
    }
}

/// `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's last byte sent to the head of the backend's answer.
    pub response: Option<Duration>,
    /// From the request's head to the answer's last byte.
    pub total: Option<Duration>,
    /// Without a byte moving in either body.
    pub idle: Option<Duration>,
    /// Without a byte moving either way after an upgrade; `total` and `idle` end with it.
    pub upgrade_idle: Option<Duration>,
    /// From the upgrade to its end.
    pub upgrade_lifetime: Option<Duration>,
}

impl Snapshot {
    /// Every policy once, whatever number of routes shares it; for upkeep.
    #[must_use]
    pub fn policies(&self) -> Vec<Arc<dyn Policy>> {
        let mut seen = std::collections::HashSet::new();
        let placed = self.routes.iter().flat_map(|route| &route.policies);
        placed
            .filter(|placed| seen.insert(Arc::as_ptr(&placed.policy).cast::<()>()))
            .map(|placed| Arc::clone(&placed.policy))
            .collect()
    }

    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| *route.name == *name)
    }

    #[must_use]
    pub fn backend(&self, name: &str) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| *backend.name == *name)
    }
}
