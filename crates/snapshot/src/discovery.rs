//! What a backend knows of the place that its endpoints come from, and what came from there so far.
//! It outlives reloads while the place is the same. Nobody is asked here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_upstream::roster::Update;
use portcullis_upstream::{Endpoint, Listed, Roster};

/// A place that endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub place: Place,
    /// Empty: as the system is set up.
    pub resolvers: Vec<std::net::SocketAddr>,
    pub ttl_min: Duration,
    pub ttl_max: Duration,
    pub allow_empty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The addresses of a name.
    Dns { scheme: Scheme, name: String, port: u16 },
    /// The SRV records of a name.
    Srv { scheme: Scheme, name: String },
    /// A file, relative to the configuration.
    File { path: String },
}

/// What is spoken to endpoints that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
    H2c,
}

impl Scheme {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns { scheme, name, port } => write!(f, "dns {}://{name}:{port}", scheme.name()),
            Self::Srv { scheme, name } => write!(f, "srv {}://{name}", scheme.name()),
            Self::File { path } => write!(f, "file {path}"),
        }
    }
}

/// The place and what is known from it.
#[derive(Debug)]
pub struct Discovery {
    pub origin: Origin,
    since: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    roster: Roster,
    facts: Facts,
}

/// How finding goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// When the place last answered.
    pub listed_at: Option<Duration>,
    /// What the place calls what it answered last.
    pub version: Arc<str>,
    /// Good answers, failures, and answers that were empty and not believed.
    pub listings: u64,
    pub failures: u64,
    pub held: u64,
    /// Why the last attempt failed; `None` if it did not.
    pub error: Option<String>,
}

impl Discovery {
    #[must_use]
    pub fn new(origin: Origin, now: Duration) -> Self {
        let roster = Roster::new(origin.allow_empty);
        Self { origin, since: now, state: Mutex::new(State { roster, facts: Facts::default() }) }
    }

    #[must_use]
    pub fn facts(&self) -> Facts {
        self.state().facts.clone()
    }

    /// Since the place last answered, or since it is asked if it never has.
    #[must_use]
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.state().facts.listed_at.unwrap_or(self.since))
    }

    /// What the backend is to have now.
    #[must_use]
    pub fn serving(&self) -> Vec<Listed> {
        self.state().roster.serving().cloned().collect()
    }

    /// The place has named all of its endpoints.
    pub fn listed(&self, mut listing: Vec<Listed>, version: Arc<str>, now: Duration) -> Update {
        for one in &mut listing {
            one.seen_at = now;
            one.source_version = Arc::clone(&version);
        }
        let mut state = self.state();
        let verdict = state.roster.listed(listing, now);
        let facts = &mut state.facts;
        facts.listings += 1;
        facts.held += u64::from(verdict == Update::Held);
        facts.listed_at = Some(now);
        facts.version = version;
        facts.error = None;
        verdict
    }

    /// The place could not be asked, or what it answered is of no use. Returns whether that is
    /// news.
    pub fn failed(&self, error: &str) -> bool {
        let facts = &mut self.state().facts;
        facts.failures += 1;
        let news = facts.error.as_deref() != Some(error);
        facts.error = Some(error.to_owned());
        news
    }

    /// As [`Roster::settle`], from what is known of the endpoints.
    pub fn settle<'a>(
        &self,
        endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
        now: Duration,
    ) -> bool {
        let mut state = self.state();
        if !state.roster.is_settling() {
            return false;
        }
        let proven: std::collections::HashSet<&str> =
            endpoints.filter(|one| one.is_proven()).map(|one| one.url()).collect();
        state.roster.settle(|url| proven.contains(url), now)
    }

    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.state().roster.is_settling()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
