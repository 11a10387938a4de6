//! What outlives a reload: endpoints, capacities, retry budgets and breakers by name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::breaker::Breaker;
use crate::budget::{Budget, Terms};
use crate::capacity::Capacity;
use crate::endpoint::{Endpoint, Service};
use crate::tail::Tail;

/// Finds the state of a backend and of its endpoints again when a new snapshot names them.
///
/// It holds them weakly: what no snapshot names is gone, and a snapshot that failed to compile
/// leaves nothing behind. An endpoint is known by its backend's name, its URL and how it is spoken
/// to: two backends with the same endpoint judge it apart, since their checks may differ, and
/// connections made in another protocol are not used again.
#[derive(Debug)]
pub struct Directory {
    seed: u64,
    backends: Mutex<HashMap<Box<str>, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    capacity: Weak<Capacity>,
    budget: Weak<Budget>,
    tail: Weak<Tail>,
    breaker: Weak<Breaker>,
    endpoints: HashMap<Box<str>, Weak<Endpoint>>,
    /// What operators have said about endpoints, by URL; also such as are not there now.
    services: HashMap<Box<str>, Service>,
}

impl Directory {
    /// `seed` varies the times of health checks; give each process another one.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, backends: Mutex::default() }
    }

    /// `spoken` is how connections are made, as far as it makes old ones useless.
    #[must_use]
    pub fn endpoint(&self, backend: &str, url: &str, spoken: &str) -> Arc<Endpoint> {
        // No URL has blanks.
        let key = format!("{url} {spoken}");
        self.with(backend, |known| {
            if let Some(found) = known.endpoints.get(&*key).and_then(Weak::upgrade) {
                return found;
            }
            let made = Arc::new(Endpoint::new(url, self.seed ^ fingerprint(backend, url)));
            made.set_service(known.services.get(url).copied().unwrap_or_default());
            known.endpoints.insert(key.into(), Arc::downgrade(&made));
            made
        })
    }

    /// What operators say now, as (backend, URL, service), in place of all that they said before.
    /// Endpoints that come later learn of it when they are made.
    pub fn set_services<'a>(&self, said: impl Iterator<Item = (&'a str, &'a str, Service)>) {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        backends.values_mut().for_each(|known| known.services.clear());
        for (backend, url, service) in said {
            backends.entry(backend.into()).or_default().services.insert(url.into(), service);
        }
        for known in backends.values() {
            for endpoint in known.endpoints.values().filter_map(Weak::upgrade) {
                let said = known.services.get(endpoint.url()).copied();
                endpoint.set_service(said.unwrap_or_default());
            }
        }
    }

    #[must_use]
    pub fn capacity(&self, backend: &str) -> Arc<Capacity> {
        self.with(backend, |known| {
            known.capacity.upgrade().unwrap_or_else(|| {
                let made = Arc::new(Capacity::default());
                known.capacity = Arc::downgrade(&made);
                made
            })
        })
    }

    /// Other terms are another budget, which begins anew.
    #[must_use]
    pub fn budget(&self, backend: &str, terms: Terms) -> Arc<Budget> {
        self.with(backend, |known| {
            let kept = known.budget.upgrade().filter(|kept| kept.terms() == terms);
            kept.unwrap_or_else(|| {
                let made = Arc::new(Budget::new(terms));
                known.budget = Arc::downgrade(&made);
                made
            })
        })
    }

    #[must_use]
    pub fn tail(&self, backend: &str) -> Arc<Tail> {
        self.with(backend, |known| {
            known.tail.upgrade().unwrap_or_else(|| {
                let made = Arc::new(Tail::default());
                known.tail = Arc::downgrade(&made);
                made
            })
        })
    }

    /// The breaker of the whole backend, in whatever state it is.
    #[must_use]
    pub fn breaker(&self, backend: &str) -> Arc<Breaker> {
        self.with(backend, |known| {
            known.breaker.upgrade().unwrap_or_else(|| {
                let made = Arc::new(Breaker::default());
                known.breaker = Arc::downgrade(&made);
                made
            })
        })
    }

    /// Forgets the names of what no snapshot uses any more. To be called after a swap.
    pub fn prune(&self) {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        backends.retain(|_, known| {
            known.endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
            let said = !known.services.is_empty();
            said || !known.endpoints.is_empty() || known.capacity.strong_count() > 0
        });
    }

    fn with<T>(&self, backend: &str, act: impl FnOnce(&mut Known) -> T) -> T {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        act(backends.entry(backend.into()).or_default())
    }
}

/// FNV-1a over both names.
fn fingerprint(backend: &str, url: &str) -> u64 {
    let bytes = backend.bytes().chain([0]).chain(url.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_found_again_by_name_while_a_snapshot_uses_it() {
        let directory = Directory::new(1);
        let before = directory.endpoint("orders", "http://a", "h1");
        let _busy = before.start_request();
        let after = directory.endpoint("orders", "http://a", "h1");
        assert_eq!(after.in_flight(), 1);
        for (backend, spoken) in [("users", "h1"), ("orders", "h2")] {
            let other = directory.endpoint(backend, "http://a", spoken);
            assert!(!Arc::ptr_eq(&before, &other), "{backend} {spoken}");
        }
        let capacity = directory.capacity("orders");
        let _permit = capacity.connections.try_acquire(9);
        assert_eq!(directory.capacity("orders").connections.used(), 1);
        let budget = directory.budget("orders", Terms::default());
        assert!(Arc::ptr_eq(&budget, &directory.budget("orders", Terms::default())));
        let tail = directory.tail("orders");
        assert!(Arc::ptr_eq(&tail, &directory.tail("orders")));
        let other = directory.budget("orders", Terms { percent: 5, ..Terms::default() });
        assert!(!Arc::ptr_eq(&budget, &other));
        let breaker = directory.breaker("orders");
        assert!(Arc::ptr_eq(&breaker, &directory.breaker("orders")));
    }

    #[test]
    fn what_operators_say_holds_for_endpoints_that_come_later_too() {
        let directory = Directory::new(1);
        let there = directory.endpoint("orders", "http://a", "h1");
        let other = directory.endpoint("users", "http://a", "h1");
        let said = [("orders", "http://a"), ("orders", "http://b")];
        let said = said.map(|(backend, url)| (backend, url, Service::Draining));
        directory.set_services(said.into_iter());
        directory.prune();
        let later = directory.endpoint("orders", "http://b", "h1");
        let again = directory.endpoint("orders", "http://a", "h2");
        let services = [&there, &other, &later, &again].map(|endpoint| endpoint.service());
        let (active, draining) = (Service::Active, Service::Draining);
        assert_eq!(services, [draining, active, draining, draining]);
        directory.set_services(said.into_iter().skip(1));
        assert_eq!([there.service(), later.service()], [active, draining]);
        directory.set_services(std::iter::empty());
        assert_eq!(later.service(), active);
    }

    #[test]
    fn what_no_snapshot_names_is_forgotten() {
        let directory = Directory::new(1);
        let kept = directory.endpoint("orders", "http://a", "");
        drop(directory.endpoint("orders", "http://b", ""));
        drop(directory.endpoint("gone", "http://c", ""));
        directory.prune();
        let backends = directory.backends.lock().unwrap();
        assert_eq!(backends.len(), 1);
        assert_eq!(backends["orders"].endpoints.len(), 1);
        drop(kept);
    }
}
