//! What operators have changed at run time, beside the configuration: weights of a route, an
//! endpoint taken out of service.
//!
//! A list with a revision for each change, and nothing else: names are not resolved here, nothing
//! is applied, and the time is an argument.

use std::fmt;
use std::time::Duration;

use crate::endpoint::Service;

/// Overrides in force at once.
pub const OVERRIDES_MAX: usize = 1_000;

/// What is overridden. At most one override has the same subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The weights of a route's variants; one that is not named weighs nothing.
    Weights { route: String, weights: Vec<(String, u64)> },
    /// Whether an endpoint gets requests.
    Service { backend: String, endpoint: String, service: Service },
}

impl Change {
    fn is_about(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Weights { route: one, .. }, Self::Weights { route: other, .. }) => one == other,
            (
                Self::Service { backend, endpoint, .. },
                Self::Service { backend: other_backend, endpoint: other_endpoint, .. },
            ) => backend == other_backend && endpoint == other_endpoint,
            _ => false,
        }
    }
}

/// One change, with who made it and until when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Counts the changes of this process; also what it is cleared by.
    pub revision: u64,
    pub change: Change,
    pub author: String,
    pub reason: String,
    /// Since 1970.
    pub set_at: Duration,
    /// By the monotonic clock; `None`: until it is cleared.
    pub until: Option<Duration>,
}

/// The overrides in force.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    revision: u64,
    list: Vec<Override>,
}

/// There are [`OVERRIDES_MAX`] already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there are {OVERRIDES_MAX} overrides already: clear some")
    }
}

impl std::error::Error for TooMany {}

impl Overrides {
    /// Puts one in force, in place of one about the same thing. Its revision is given here.
    ///
    /// # Errors
    /// There are too many already.
    pub fn set(&mut self, mut one: Override) -> Result<u64, TooMany> {
        let rest = self.list.iter().filter(|old| !old.change.is_about(&one.change)).count();
        if rest >= OVERRIDES_MAX {
            return Err(TooMany);
        }
        self.list.retain(|old| !old.change.is_about(&one.change));
        self.revision += 1;
        one.revision = self.revision;
        self.list.push(one);
        Ok(self.revision)
    }

    /// Takes away those that `ends` says so of. What is taken is a change too.
    pub fn take(&mut self, ends: impl Fn(&Override) -> bool) -> Vec<Override> {
        let taken: Vec<_> = self.list.extract_if(.., |one| ends(one)).collect();
        self.revision += u64::from(!taken.is_empty());
        taken
    }

    /// Takes away those whose time is over.
    pub fn expire(&mut self, now: Duration) -> Vec<Override> {
        self.take(|one| one.until.is_some_and(|until| until <= now))
    }

    #[must_use]
    pub fn list(&self) -> &[Override] {
        &self.list
    }

    /// The M of `override@M`: of the last change; 0 while nothing is overridden.
    #[must_use]
    pub fn revision(&self) -> u64 {
        if self.list.is_empty() { 0 } else { self.revision }
    }

    /// The override of a route's weights.
    #[must_use]
    pub fn of_route(&self, name: &str) -> Option<&Override> {
        let is_it =
            |one: &&Override| matches!(&one.change, Change::Weights { route, .. } if route == name);
        self.list.iter().find(is_it)
    }

    /// What was said about an endpoint.
    #[must_use]
    pub fn of_endpoint(&self, of: &str, url: &str) -> Service {
        let said = self.list.iter().find_map(|one| match &one.change {
            Change::Service { backend, endpoint, service } if backend == of && endpoint == url => {
                Some(*service)
            }
            _ => None,
        });
        said.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(route: &str, canary: u64) -> Override {
        let weights = vec![("canary".to_owned(), canary)];
        one(Change::Weights { route: route.to_owned(), weights })
    }

    fn one(change: Change) -> Override {
        Override {
            revision: 0,
            change,
            author: "me".to_owned(),
            reason: "a test".to_owned(),
            set_at: Duration::ZERO,
            until: None,
        }
    }

    #[test]
    fn the_latest_about_one_thing_counts_and_each_change_has_a_revision() {
        let mut overrides = Overrides::default();
        assert_eq!(overrides.revision(), 0);
        assert_eq!(overrides.set(weights("orders", 5)), Ok(1));
        assert_eq!(overrides.set(weights("users", 5)), Ok(2));
        assert_eq!(overrides.set(weights("orders", 10)), Ok(3));
        assert_eq!(overrides.list().len(), 2);
        assert_eq!(overrides.of_route("orders").map(|one| one.revision), Some(3));
        assert_eq!(overrides.of_route("none"), None);
        let drain = Change::Service {
            backend: "orders".to_owned(),
            endpoint: "http://a".to_owned(),
            service: Service::Draining,
        };
        assert_eq!(overrides.set(one(drain)), Ok(4));
        assert_eq!(overrides.of_endpoint("orders", "http://a"), Service::Draining);
        assert_eq!(overrides.of_endpoint("users", "http://a"), Service::Active);
        assert_eq!(overrides.take(|one| one.revision == 4).len(), 1);
        assert_eq!(overrides.of_endpoint("orders", "http://a"), Service::Active);
        // Clearing is a change that the log can tell from what was before.
        assert_eq!(overrides.revision(), 5);
        assert!(overrides.take(|one| one.revision == 4).is_empty());
        assert_eq!(overrides.take(|_| true).len(), 2);
        assert_eq!(overrides.revision(), 0);
    }

    #[test]
    fn an_override_ends_when_its_time_is_over() {
        let mut overrides = Overrides::default();
        let until = Some(Duration::from_secs(10));
        overrides.set(Override { until, ..weights("orders", 5) }).unwrap();
        overrides.set(weights("users", 5)).unwrap();
        assert!(overrides.expire(Duration::from_secs(9)).is_empty());
        let ended = overrides.expire(Duration::from_secs(10));
        assert_eq!((ended.len(), ended[0].revision), (1, 1));
        assert_eq!(overrides.list().len(), 1);
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut overrides = Overrides::default();
        for number in 0..OVERRIDES_MAX {
            overrides.set(weights(&number.to_string(), 1)).unwrap();
        }
        assert_eq!(overrides.set(weights("more", 1)), Err(TooMany));
        assert!(overrides.set(weights("0", 2)).is_ok());
    }
}
