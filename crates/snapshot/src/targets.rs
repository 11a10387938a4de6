//! Where a route sends its requests: variants, their shares, and who gets which.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::{Exchange, Known};
use portcullis_upstream::{AnalysisSettings, Change, Overrides, Split};

use crate::backend::HashKey;
use crate::router::{Condition, header_holds, query_holds};
use crate::snapshot::{Route, Snapshot};

/// The variants of a route and their shares.
#[derive(Clone, Debug)]
pub struct Targets {
    /// At least one.
    pub variants: Vec<Variant>,
    /// By the configured weights.
    pub split: Split,
    /// What keeps a client at its variant: the first that a request has.
    pub sticky: Vec<HashKey>,
    /// What brings one of two variants up.
    pub canary: Option<Canary>,
}

/// A variant that is compared with the only other one.
#[derive(Clone, Debug)]
pub struct Canary {
    /// Into [`Targets::variants`].
    pub canary: usize,
    pub baseline: usize,
    pub settings: AnalysisSettings,
}

/// A backend under the name that it has on one route.
#[derive(Clone, Debug)]
pub struct Variant {
    pub name: Arc<str>,
    /// Into [`Snapshot::backends`].
    pub backend: u16,
    pub weight: u32,
    /// Which of the backend's endpoints it keeps to, as the backend numbers its subsets.
    pub subset: Option<u16>,
    /// A request that meets any of these is its own, whatever the weights are.
    pub when: Vec<When>,
}

/// The variant of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Into [`Targets::variants`].
    pub at: u16,
    pub by: PickedBy,
}

/// What decided which variant it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickedBy {
    /// Its `when` holds for the request, whatever the weights are.
    When,
    /// The client stays where it is, as the weights have it.
    Sticky,
    /// Drawn by the weights.
    Weights,
}

impl PickedBy {
    /// What decided, by the word that the configuration has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::When => "when",
            Self::Sticky => "sticky",
            Self::Weights => "weights",
        }
    }
}

/// Conditions, all of which must hold.
#[derive(Clone, Debug, Default)]
pub struct When {
    pub headers: Vec<Condition>,
    pub cookies: Vec<Condition>,
    pub query: Vec<Condition>,
}

impl When {
    fn holds(&self, exchange: &Exchange) -> bool {
        let request = &exchange.request;
        self.headers.iter().all(|condition| header_holds(condition, &request.fields))
            && self.query.iter().all(|condition| query_holds(condition, request.query()))
            && self.cookies.iter().all(|condition| {
                let value = cookie(exchange, condition.name.as_bytes());
                value.is_some_and(|value| condition.value.accepts(value))
            })
    }
}

impl Targets {
    /// The only backend there is.
    #[must_use]
    pub fn only(&self) -> Option<u16> {
        match self.variants.as_slice() {
            [only] => Some(only.backend),
            _ => None,
        }
    }

    /// The subset of the variant that has the request, or of the only one.
    #[must_use]
    pub fn subset(&self, variant: Option<u16>) -> Option<u16> {
        self.variants.get(usize::from(variant.unwrap_or(0)))?.subset
    }

    /// Which variant has the request; `split` has the weights that hold now. `None`: all are 0.
    #[must_use]
    pub fn choose(&self, exchange: &Exchange, split: &Split) -> Option<Picked> {
        let asks = |variant: &Variant| variant.when.iter().any(|when| when.holds(exchange));
        let (at, by) = match self.variants.iter().position(asks) {
            Some(asked) => (asked, PickedBy::When),
            None => match self.sticky.iter().find_map(|key| key.of(exchange)) {
                Some(key) => (split.stick(key)?, PickedBy::Sticky),
                None => (split.pick(exchange.random)?, PickedBy::Weights),
            },
        };
        Some(Picked { at: at as u16, by })
    }

    /// The shares by these weights, by the variants' names. One that is not named weighs nothing.
    #[must_use]
    pub fn weighed(&self, route: &str, weights: &[(String, u64)]) -> Split {
        let weight = |name: &str| {
            let found = weights.iter().find(|(written, _)| written == name);
            found.map_or(0, |(_, weight)| *weight)
        };
        Split::new(route, self.variants.iter().map(|one| (&*one.name, weight(&one.name))))
    }
}

/// The first cookie of that name.
pub(crate) fn cookie<'a>(exchange: &'a Exchange, name: &[u8]) -> Option<&'a [u8]> {
    let fields = exchange.request.fields.known_all(Known::Cookie);
    let mut pairs = fields.flat_map(|field| field.split(|byte| *byte == b';'));
    pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"="))
}

/// The weights that hold in place of the configured ones, by [`Route::index`].
pub type Overridden = HashMap<u32, Overruled>;

/// The weights that an override has given a route.
#[derive(Clone, Debug)]
pub struct Overruled {
    /// Of the override.
    pub revision: u64,
    pub split: Split,
}

impl Snapshot {
    /// The same configuration under these overrides. Those of routes that it does not have, and
    /// those that give something only to variants that it does not have, are passed over: they
    /// may come back.
    #[must_use]
    pub fn under(self, overrides: &Overrides) -> Self {
        let weights = overrides.list().iter().filter_map(|one| match &one.change {
            Change::Weights { route, weights } => {
                let route = self.route(route)?;
                let split = route.to.as_ref()?.weighed(&route.name, weights);
                let revision = one.revision;
                (!split.is_empty()).then_some((route.index, Overruled { revision, split }))
            }
            Change::Service { .. } => None,
        });
        let overridden: Overridden = weights.collect();
        let mut version = self.version.clone();
        version.overrides = overrides.revision();
        let overridden = (!overridden.is_empty()).then(|| Arc::new(overridden));
        Self { version, overridden, ..self }
    }

    /// Whether an override holds in place of the weights of the route of this name.
    #[must_use]
    pub fn is_weighed(&self, name: &str) -> bool {
        let overridden = self.overridden.as_ref();
        let route = self.route(name);
        route.zip(overridden).is_some_and(|(route, all)| all.contains_key(&route.index))
    }

    /// The shares that a route's variants have now.
    #[must_use]
    pub fn split<'a>(&'a self, route: &Route, targets: &'a Targets) -> &'a Split {
        self.overruled(route).map_or(&targets.split, |overruled| &overruled.split)
    }

    /// What holds in place of a route's configured weights.
    #[must_use]
    pub fn overruled(&self, route: &Route) -> Option<&Overruled> {
        self.overridden.as_ref().and_then(|all| all.get(&route.index))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use portcullis_upstream::{Override, Service};

    use super::*;
    use crate::testing::{Files, compiled, exchange};

    const CONFIG: &str = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
routes:
  orders:
    match: /**
    public: a test
    sticky: [cookie:user, ip]
    to:
      stable: { backend: v1, weight: 90 }
      canary: { backend: v2, weight: 10, when: [{ headers: { x-beta: "1" }, query: { q: { present: true } } }, { cookies: { beta: { prefix: "y" } } }] }
      trial: { backend: v2, when: { headers: { x-trial: { present: true } } } }
backends: { v1: "http://10.0.0.1", v2: "http://10.0.0.2" }
"#;

    fn chosen(snapshot: &Snapshot, request: &str) -> String {
        let exchange = exchange(snapshot, request);
        let route = &snapshot.routes[0];
        let targets = route.to.as_ref().unwrap();
        let picked = targets.choose(&exchange, snapshot.split(route, targets));
        picked.map_or("none".to_owned(), |picked| {
            let name = &targets.variants[usize::from(picked.at)].name;
            format!("{name} by {}", picked.by.name())
        })
    }

    #[track_caller]
    fn check(snapshot: &Snapshot, requests: &[&str], expected: &Expect) {
        let said = requests.iter().map(|one| format!("{one}: {}\n", chosen(snapshot, one)));
        expected.assert_eq(&said.collect::<String>());
    }

    fn set(overrides: &mut Overrides, change: Change) {
        let one = Override {
            revision: 0,
            change,
            author: "me".to_owned(),
            reason: String::new(),
            set_at: std::time::Duration::ZERO,
            until: None,
        };
        overrides.set(one).unwrap();
    }

    #[test]
    fn conditions_come_before_weights_and_the_first_has_the_request() {
        let snapshot = compiled(CONFIG, &Files::default()).ok();
        check(
            &snapshot,
            &[
                "GET http://h/",
                "GET http://h/ x-beta:1",
                "GET http://h/?q x-beta:1",
                "GET http://h/?q x-beta:2",
                "GET http://h/ cookie:a=b;beta=yes",
                "GET http://h/ cookie:beta=no;beta=yes",
                "GET http://h/ x-trial:",
                "GET http://h/?q x-trial: x-beta:1",
            ],
            &expect![[r#"
                GET http://h/: stable by sticky
                GET http://h/ x-beta:1: stable by sticky
                GET http://h/?q x-beta:1: canary by when
                GET http://h/?q x-beta:2: stable by sticky
                GET http://h/ cookie:a=b;beta=yes: canary by when
                GET http://h/ cookie:beta=no;beta=yes: stable by sticky
                GET http://h/ x-trial:: trial by when
                GET http://h/?q x-trial: x-beta:1: canary by when
            "#]],
        );
    }

    #[test]
    fn an_override_holds_beside_the_configuration_and_is_told_in_its_version() {
        let snapshot = compiled(CONFIG, &Files::default()).ok();
        let mut overrides = Overrides::default();
        let to = |name: &str, weight| Change::Weights {
            route: "orders".to_owned(),
            weights: vec![(name.to_owned(), weight)],
        };
        set(&mut overrides, to("canary", 1));
        let gone = Change::Weights { route: "gone".to_owned(), weights: vec![] };
        set(&mut overrides, gone);
        let service = Service::Draining;
        let (backend, endpoint) = ("v1".to_owned(), "http://10.0.0.1".to_owned());
        set(&mut overrides, Change::Service { backend, endpoint, service });
        let under = snapshot.clone().under(&overrides);
        assert_eq!(chosen(&under, "GET http://h/"), "canary by sticky");
        assert_eq!(chosen(&under, "GET http://h/ x-trial:"), "trial by when");
        assert!(under.version.short().ends_with("+override@3"), "{}", under.version.short());
        // Nothing is left when they are cleared.
        overrides.take(|_| true);
        let after = under.clone().under(&overrides);
        assert_eq!(chosen(&after, "GET http://h/"), "stable by sticky");
        assert_eq!(after.version, snapshot.version);
        // Where none of its variants is left, what is written holds.
        assert!(under.is_weighed("orders") && !under.is_weighed("gone"));
        set(&mut overrides, to("unknown", 1));
        let unknown = snapshot.clone().under(&overrides);
        assert_eq!(chosen(&unknown, "GET http://h/"), "stable by sticky");
        assert!(!unknown.is_weighed("orders"));
    }

    #[test]
    fn a_client_stays_where_it_is() {
        let snapshot = compiled(CONFIG, &Files::default()).ok();
        let at = |user: u32| chosen(&snapshot, &format!("GET http://h/ cookie:user={user}"));
        let canary = (0..1000).filter(|user| at(*user) == "canary by sticky").count();
        assert!((60..140).contains(&canary), "{canary}");
        assert!((0..50).all(|user| at(user) == at(user)));
    }
}
