//! What operators change at run time, put in force: a new pointer beside the same snapshot, so that
//! a request sees all of a change or nothing of it.
//!
//! What an override is, and when it ends, is `upstream`'s business.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_snapshot::Snapshot;
use portcullis_upstream::overrides::TooMany;
use portcullis_upstream::{Change, Override, Overrides};

use crate::gateway::{Active, Gateway, Shared};

/// Why there is no such override.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    #[error("there is no route `{0}`")]
    NoRoute(String),
    #[error("the route `{0}` has no variants to weigh")]
    NoVariants(String),
    #[error("the route `{route}` has no variant `{name}`: it has {known}")]
    NoVariant { route: String, name: String, known: String },
    #[error("at least one weight must be more than 0")]
    NoWeight,
    #[error("a weight is at most 1000000")]
    Heavy,
    #[error("the backend `{backend}` has no endpoint `{endpoint}`")]
    NoEndpoint { backend: String, endpoint: String },
    #[error("`{ANALYSIS}` is how a route's analysis signs: sign otherwise")]
    Author,
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// Who changes the weights of routes with an `analysis`.
pub(crate) const ANALYSIS: &str = "analysis";

/// Who changes something, why, and for how long.
#[derive(Clone, Debug)]
pub struct Order {
    pub change: Change,
    pub author: String,
    pub reason: String,
    /// `None`: until it is cleared.
    pub lasts: Option<Duration>,
}

/// The most that a variant can weigh.
const WEIGHT_MAX: u64 = 1_000_000;

impl Gateway {
    /// Puts an override in force, in place of one about the same thing. Gives its revision.
    ///
    /// # Errors
    /// The configuration that serves has nothing of that name, or there are too many.
    pub fn set_override(&self, order: Order) -> Result<u64, OverrideError> {
        check(&self.snapshot(), &order.change)?;
        if order.author == ANALYSIS {
            return Err(OverrideError::Author);
        }
        Ok(self.shared.set_override(&mut self.shared.overrides(), order)?)
    }

    /// Ends the override of this revision, or all; says how many.
    pub fn clear_overrides(&self, revision: Option<u64>) -> usize {
        let is_meant = |one: &Override| revision.is_none_or(|revision| one.revision == revision);
        self.shared.end_overrides("cleared", |all| all.take(is_meant))
    }

    /// Those in force, also such as the configuration that serves has nothing to do with.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        self.shared.overrides().clone()
    }
}

impl Shared {
    /// Held over every swap, since both make what serves of both.
    pub(crate) fn overrides(&self) -> MutexGuard<'_, Overrides> {
        self.overrides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With the lock that its caller has, perhaps to see first what holds.
    pub(crate) fn set_override(
        &self,
        overrides: &mut Overrides,
        order: Order,
    ) -> Result<u64, TooMany> {
        let Order { change, author, reason, lasts } = order;
        let now = self.world.clock().now();
        let until = lasts.map(|lasts| now.mono.saturating_add(lasts));
        let one = Override { revision: 0, change, author, reason, set_at: now.wall, until };
        let revision = overrides.set(one.clone())?;
        let Override { change, author, reason, .. } = &one;
        tracing::info!(revision, ?change, author, reason, "an override is in force");
        self.put_in_force(overrides);
        Ok(revision)
    }

    /// Ends those whose time is over.
    pub(crate) fn expire_overrides(&self, now: Duration) {
        if self.overrides().list().iter().any(|one| one.until.is_some_and(|until| until <= now)) {
            self.end_overrides("expired", |all| all.expire(now));
        }
    }

    fn end_overrides(
        &self,
        how: &str,
        take: impl FnOnce(&mut Overrides) -> Vec<Override>,
    ) -> usize {
        let mut overrides = self.overrides();
        let ended = take(&mut overrides);
        if ended.is_empty() {
            return 0;
        }
        tell_ended(&ended, how);
        self.put_in_force(&overrides);
        ended.len()
    }

    fn put_in_force(&self, overrides: &Overrides) {
        let active = Arc::clone(&self.active.borrow());
        let snapshot = Snapshot::clone(&active.snapshot).under(overrides);
        serve_endpoints(&snapshot, overrides);
        self.active.send_replace(Arc::new(Active::under(&active, snapshot)));
    }
}

pub(crate) fn tell_ended(ended: &[Override], how: &str) {
    for Override { revision, change, author, .. } in ended {
        tracing::info!(revision, ?change, author, how, "an override has ended");
    }
}

/// Lets endpoints know what was said about them, also those that are found later.
pub(crate) fn serve_endpoints(snapshot: &Snapshot, overrides: &Overrides) {
    snapshot.directory.set_services(overrides.list().iter().filter_map(|one| match &one.change {
        Change::Service { backend, endpoint, service } => Some((&**backend, &**endpoint, *service)),
        Change::Weights { .. } => None,
    }));
}

fn check(snapshot: &Snapshot, change: &Change) -> Result<(), OverrideError> {
    match change {
        Change::Service { backend, endpoint, .. } => {
            let found = snapshot.backend(backend).is_some_and(|backend| {
                backend.endpoints.load().iter().any(|one| one.endpoint.url() == endpoint)
            });
            let (backend, endpoint) = (backend.clone(), endpoint.clone());
            if found { Ok(()) } else { Err(OverrideError::NoEndpoint { backend, endpoint }) }
        }
        Change::Weights { route: name, weights } => {
            let route = snapshot.route(name);
            let route = route.ok_or_else(|| OverrideError::NoRoute(name.clone()))?;
            let variants = route.to.as_ref().map(|to| &to.variants[..]).unwrap_or_default();
            if variants.len() < 2 {
                return Err(OverrideError::NoVariants(name.clone()));
            }
            let known = |name: &str| variants.iter().any(|variant| *variant.name == *name);
            if let Some((unknown, _)) = weights.iter().find(|(name, _)| !known(name)) {
                let names = variants.iter().map(|variant| format!("`{}`", variant.name));
                let known = names.collect::<Vec<_>>().join(", ");
                let (route, name) = (name.clone(), unknown.clone());
                return Err(OverrideError::NoVariant { route, name, known });
            }
            if weights.iter().all(|(_, weight)| *weight == 0) {
                return Err(OverrideError::NoWeight);
            }
            match weights.iter().any(|(_, weight)| *weight > WEIGHT_MAX) {
                true => Err(OverrideError::Heavy),
                false => Ok(()),
            }
        }
    }
}
