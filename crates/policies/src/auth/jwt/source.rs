//! Where the keys of an issuer come from, and when they are asked for.
//!
//! States and edges are in `LIFECYCLE.md` beside this file. One fetch at a time, for all workers: a
//! request that finds an unknown key id begins one or waits for the one in flight. Requests begin
//! at most one a minute; [`Keys::upkeep`] refreshes in the background, whatever requests do.

#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::StatusCode;
use portcullis_core::services::Fetch;
use portcullis_core::{Now, Services};
use serde::Deserialize;

use super::keys::KeySet;

/// Between fetches that requests begin.
const REQUESTED_EVERY: Duration = Duration::from_secs(60);
/// How often upkeep looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After the first failed fetch of the background; doubles with each, up to the refresh interval.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Requests that may wait for one fetch; more are refused at once.
const WAITERS_MAX: usize = 1024;
/// How often a fetch whose request went away is begun again by one that waits for it. Bounded, so
/// that clients who hang up cannot make a storm.
const TAKEOVERS_MAX: u32 = 3;

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Location {
    /// Read at compile; never fetched.
    File,
    /// The key set itself.
    Url(String),
    /// The issuer's discovery document, which says where the key set is.
    Discovery { issuer: String },
}

/// Nobody can say whether a token is good.
#[derive(Clone, Debug)]
pub(super) struct Away {
    pub(super) reason: String,
    pub(super) retry_after: Duration,
}

#[derive(Debug)]
pub(super) struct Keys {
    location: Location,
    ca: Option<Arc<[u8]>>,
    refresh_every: Duration,
    /// That of the current set, for a look without the lock; 0 before the first.
    version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    set: Option<Arc<KeySet>>,
    /// Of the current set's text.
    content: u64,
    flight: Flight,
    /// Fetches that have ended; a waiter waits for the next.
    ended: u64,
    /// How the last one ended.
    failure: Option<String>,
    waiters: Vec<(u64, Waker)>,
    next_waiter: u64,
    takeovers: u32,
    /// When a request last began a fetch.
    requested: Option<Duration>,
    /// When upkeep fetches next.
    due: Duration,
    /// Fetches of upkeep that failed in a row.
    failures: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flight {
    #[default]
    None,
    Flying,
    /// Whoever was fetching went away; one of the waiters begins again.
    Vacant,
}

impl Keys {
    pub(super) fn fixed(set: KeySet) -> Self {
        let version = AtomicU64::new(set.version);
        let state = State { set: Some(Arc::new(set)), ..State::default() };
        Self {
            location: Location::File,
            ca: None,
            refresh_every: Duration::MAX,
            version,
            state: Mutex::new(state),
        }
    }

    pub(super) fn remote(
        location: Location,
        ca: Option<Arc<[u8]>>,
        refresh_every: Duration,
    ) -> Self {
        let state = Mutex::new(State::default());
        Self { location, ca, refresh_every, version: AtomicU64::new(0), state }
    }

    pub(super) fn can_be_fetched(&self) -> bool {
        self.location != Location::File
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.lock().set.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made as a whole, so a poisoned state is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a fetch or waits for the one in flight. `Ok` means that the issuer itself has
    /// answered since this was called: a key that is not there now does not exist.
    pub(super) async fn refresh(&self, services: &dyn Services) -> Result<(), Away> {
        let now = services.now().mono;
        let entered = self.enter(now);
        match entered {
            Entered::Lead(lead) => self.lead(lead, services).await,
            Entered::Refused(away) => Err(away),
            Entered::Wait(mut waiter) => {
                let waited = std::future::poll_fn(|context| waiter.poll(context)).await;
                match waited {
                    Waited::Ended(outcome) => outcome,
                    Waited::Lead(lead) => self.lead(lead, services).await,
                }
            }
        }
    }

    fn enter(&self, now: Duration) -> Entered<'_> {
        let mut state = self.lock();
        let next = state.requested.map(|last| (last + REQUESTED_EVERY).saturating_sub(now));
        let refused = |reason: &str| {
            let retry_after = next.unwrap_or(LOOK_EVERY).max(RETRY_FIRST);
            Entered::Refused(Away { reason: reason.to_owned(), retry_after })
        };
        if state.flight != Flight::None {
            if state.waiters.len() >= WAITERS_MAX {
                return refused("too many requests wait for the issuer's keys");
            }
            let id = state.next_waiter;
            state.next_waiter += 1;
            let ended = state.ended;
            return Entered::Wait(Waiter { keys: self, id, ended });
        }
        if next.is_some_and(|wait| !wait.is_zero()) {
            let reason = "the issuer's keys were asked for less than a minute ago";
            return refused(state.failure.as_deref().unwrap_or(reason));
        }
        state.requested = Some(now);
        state.takeovers = 0;
        state.flight = Flight::Flying;
        Entered::Lead(Lead { keys: self, done: false })
    }

    async fn lead(&self, lead: Lead<'_>, services: &dyn Services) -> Result<(), Away> {
        let fetched = self.fetch(services).await;
        lead.end(fetched, services.now())
    }

    /// Work in the background; returns when to look again.
    pub(super) async fn upkeep(&self, services: &dyn Services) -> Duration {
        let now = services.now().mono;
        let lead = {
            let mut state = self.lock();
            if state.flight == Flight::Flying || now < state.due {
                return state.due.saturating_sub(now).clamp(RETRY_FIRST, LOOK_EVERY);
            }
            state.flight = Flight::Flying;
            Lead { keys: self, done: false }
        };
        let fetched = self.fetch(services).await;
        let failed = fetched.is_err();
        let now = services.now();
        // How it ended is told to those who wait; nobody is told here.
        drop(lead.end(fetched, now));
        let mut state = self.lock();
        state.failures = if failed { state.failures.saturating_add(1) } else { 0 };
        let wait = match state.failures {
            0 => self.refresh_every,
            n => (RETRY_FIRST * 2_u32.saturating_pow(n.min(16) - 1)).min(self.refresh_every),
        };
        state.due = now.mono + wait;
        wait.clamp(RETRY_FIRST, LOOK_EVERY)
    }

    /// The text of the key set, and whether it is from before.
    async fn fetch(&self, services: &dyn Services) -> Result<Fetched, String> {
        let (url, stale) = match &self.location {
            Location::File => return Err("the keys are in a file".to_owned()),
            Location::Url(url) => (url.clone(), false),
            Location::Discovery { issuer } => self.discover(issuer, services).await?,
        };
        let good = |text: &[u8]| KeySet::parse(text, 0).is_ok();
        let fetched = self.get(&url, good, services).await?;
        Ok(Fetched { stale: stale || fetched.stale, ..fetched })
    }

    /// OpenID Connect Discovery 1.0 §4.
    async fn discover(
        &self,
        issuer: &str,
        services: &dyn Services,
    ) -> Result<(String, bool), String> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let good = |text: &[u8]| serde_json::from_slice::<Metadata>(text).is_ok();
        let fetched = self.get(&url, good, services).await?;
        let metadata: Metadata = serde_json::from_slice(&fetched.text)
            .map_err(|error| format!("{url}: not a discovery document: {error}"))?;
        if metadata.issuer != issuer {
            return Err(format!("{url}: is of the issuer `{}`", metadata.issuer));
        }
        // An issuer on loopback may say `http`; nobody else may send us there.
        if !is_trustworthy(&metadata.jwks_uri) {
            return Err(format!("{url}: its `jwks_uri` is not https"));
        }
        Ok((metadata.jwks_uri, fetched.stale))
    }

    async fn get(
        &self,
        url: &str,
        good: fn(&[u8]) -> bool,
        services: &dyn Services,
    ) -> Result<Fetched, String> {
        let fetch = Fetch {
            fields: vec![("accept".to_owned(), "application/json".to_owned())],
            ca: self.ca.clone(),
            keep_last_good: Some(good),
            ..Fetch::get(url)
        };
        let answer = services.fetch(fetch).await.map_err(|error| error.to_string())?;
        match answer.status {
            StatusCode::OK => Ok(Fetched { text: answer.body.to_vec(), stale: answer.stale }),
            status => Err(format!("{url} answers {}", status.as_u16())),
        }
    }
}

/// What is read of a discovery document.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// Whether keys may come from there: nobody on the way can have changed them.
pub(super) fn is_trustworthy(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return url.starts_with("https://") };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let loopback = |address: std::net::IpAddr| address.is_loopback();
    !authority.contains('@') && (host == "localhost" || host.parse().is_ok_and(loopback))
}

struct Fetched {
    text: Vec<u8>,
    stale: bool,
}

enum Entered<'a> {
    Lead(Lead<'a>),
    Wait(Waiter<'a>),
    Refused(Away),
}

enum Waited<'a> {
    Ended(Result<(), Away>),
    Lead(Lead<'a>),
}

/// The duty to end the flight, whatever happens: dropped, it leaves the fetch to a waiter.
struct Lead<'a> {
    keys: &'a Keys,
    done: bool,
}

impl Lead<'_> {
    fn end(mut self, fetched: Result<Fetched, String>, now: Now) -> Result<(), Away> {
        self.done = true;
        let mut state = self.keys.lock();
        let outcome = fetched.and_then(|fetched| self.keys.install(&mut state, &fetched));
        if outcome.is_ok() {
            state.due = now.mono + self.keys.refresh_every;
        }
        end(&mut state, outcome.clone().err());
        outcome.map_err(|reason| Away { reason, retry_after: LOOK_EVERY })
    }
}

impl Keys {
    fn install(&self, state: &mut State, fetched: &Fetched) -> Result<(), String> {
        // What was kept from before is better than nothing, and not better than what we have.
        if !fetched.stale || state.set.is_none() {
            let mut hasher = DefaultHasher::new();
            fetched.text.hash(&mut hasher);
            let content = hasher.finish();
            if state.set.is_none() || content != state.content {
                let version = self.version() + 1;
                state.set = Some(Arc::new(KeySet::parse(&fetched.text, version)?));
                state.content = content;
                self.version.store(version, Ordering::Release);
            }
        }
        match fetched.stale {
            true => Err("the issuer does not answer; its last keys are in use".to_owned()),
            false => Ok(()),
        }
    }
}

fn end(state: &mut State, failure: Option<String>) {
    state.flight = Flight::None;
    state.ended += 1;
    state.failure = failure;
    for (_, waker) in state.waiters.drain(..) {
        waker.wake();
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.keys.lock();
        if state.waiters.is_empty() || state.takeovers == TAKEOVERS_MAX {
            // The background will see to it.
            state.due = Duration::ZERO;
            end(&mut state, Some("the fetch of the issuer's keys was broken off".to_owned()));
            return;
        }
        state.takeovers += 1;
        state.flight = Flight::Vacant;
        for (_, waker) in &state.waiters {
            waker.wake_by_ref();
        }
    }
}

struct Waiter<'a> {
    keys: &'a Keys,
    id: u64,
    ended: u64,
}

impl<'a> Waiter<'a> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Waited<'a>> {
        let mut state = self.keys.lock();
        if state.ended != self.ended {
            let outcome = match &state.failure {
                None => Ok(()),
                Some(reason) => Err(Away { reason: reason.clone(), retry_after: LOOK_EVERY }),
            };
            return Poll::Ready(Waited::Ended(outcome));
        }
        if state.flight == Flight::Vacant {
            state.flight = Flight::Flying;
            state.waiters.retain(|(id, _)| *id != self.id);
            return Poll::Ready(Waited::Lead(Lead { keys: self.keys, done: false }));
        }
        match state.waiters.iter_mut().find(|(id, _)| *id == self.id) {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => state.waiters.push((self.id, context.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.keys.lock();
        state.waiters.retain(|(id, _)| *id != self.id);
        if state.flight == Flight::Vacant && state.waiters.is_empty() {
            state.due = Duration::ZERO;
            end(&mut state, Some("the fetch of the issuer's keys was broken off".to_owned()));
        }
    }
}
