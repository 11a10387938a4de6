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
use std::time::Duration;

use http::StatusCode;
use portcullis_core::auth::IssuerKeys;
use portcullis_core::services::{self, Fetch};
use portcullis_core::{Now, Services};

use super::keys::KeySet;
use crate::flight::{Flight, Grounded};
use crate::oauth::discovery;

/// Between fetches that requests begin.
const REQUESTED_EVERY: Duration = Duration::from_secs(60);
/// How often upkeep looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After the first failed fetch of the background; doubles with each, up to the refresh interval.
const RETRY_FIRST: Duration = Duration::from_secs(1);

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
    /// For how long keys are good that the issuer does not give again.
    age_max: Option<Duration>,
    /// That of the current set, for a look without the lock; 0 before the first.
    version: AtomicU64,
    /// One fetch at a time; ends with why the issuer itself did not give its keys. Its lock is
    /// taken before that of the state, never within.
    flight: Flight<Result<(), String>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    set: Option<Arc<KeySet>>,
    /// Of the current set's text.
    content: u64,
    /// Why the last fetch failed, if it did.
    failure: Option<String>,
    /// When a request last began a fetch.
    requested: Option<Duration>,
    /// When upkeep fetches next.
    due: Duration,
    /// Fetches of upkeep that failed in a row.
    failures: u32,
    /// When the issuer gave the current set last, since 1970.
    given: Option<Duration>,
    /// Fetches by how they ended, since the start.
    fetched: u64,
    failed: u64,
}

impl Keys {
    pub(super) fn fixed(set: KeySet) -> Self {
        let version = AtomicU64::new(set.version);
        let state = State { set: Some(Arc::new(set)), ..State::default() };
        Self {
            location: Location::File,
            ca: None,
            refresh_every: Duration::MAX,
            age_max: None,
            version,
            flight: Flight::default(),
            state: Mutex::new(state),
        }
    }

    pub(super) fn remote(
        location: Location,
        ca: Option<Arc<[u8]>>,
        refresh_every: Duration,
    ) -> Self {
        Self {
            location,
            ca,
            refresh_every,
            age_max: None,
            version: AtomicU64::new(0),
            flight: Flight::default(),
            state: Mutex::default(),
        }
    }

    /// Keys that the issuer has not given for so long are used no longer.
    pub(super) fn with_age_max(self, age_max: Option<Duration>) -> Self {
        Self { age_max, ..self }
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

    /// For the metrics; `None` where nothing is fetched.
    pub(super) fn standing(&self) -> Option<IssuerKeys> {
        let state = self.lock();
        let count = state.set.as_ref().map_or(0, |set| set.len());
        let State { given, fetched, failed, .. } = *state;
        self.can_be_fetched().then_some(IssuerKeys { count, given, fetched, failed })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made as a whole, so a poisoned state is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a fetch or waits for the one in flight. `Ok` means that the issuer itself has
    /// answered since this was called: a key that is not there now does not exist.
    pub(super) async fn refresh(&self, services: &dyn Services) -> Result<(), Away> {
        let now = services.now().mono;
        let fetched = self.flight.run(
            || self.may_fetch(now),
            async || {
                let fetched = self.fetch(services).await;
                self.take(fetched, services.now())
            },
        );
        let away = |reason: &str| Away { reason: reason.to_owned(), retry_after: LOOK_EVERY };
        match fetched.await {
            Ok(outcome) => outcome.map_err(|reason| away(&reason)),
            Err(Grounded::Refused(away)) => Err(away),
            Err(Grounded::Crowded) => Err(away("too many requests wait for the issuer's keys")),
            Err(Grounded::BrokenOff) => Err(away("the fetch of the issuer's keys was broken off")),
        }
    }

    /// Whether a request may begin a fetch; if so, it is taken to do so.
    fn may_fetch(&self, now: Duration) -> Result<(), Away> {
        let mut state = self.lock();
        let next = state.requested.map(|last| (last + REQUESTED_EVERY).saturating_sub(now));
        if let Some(wait) = next.filter(|wait| !wait.is_zero()) {
            let reason = "the issuer's keys were asked for less than a minute ago";
            let reason = state.failure.as_deref().unwrap_or(reason).to_owned();
            return Err(Away { reason, retry_after: wait.max(RETRY_FIRST) });
        }
        state.requested = Some(now);
        Ok(())
    }

    /// Work in the background; returns when to look again.
    pub(super) async fn upkeep(&self, services: &dyn Services) -> Duration {
        self.forget_old(services.now().wall);
        let now = services.now().mono;
        let due = self.lock().due;
        // A fetch that nobody was left to end is made up for.
        let is_due = now >= due || self.flight.was_broken_off();
        let Some(lead) = is_due.then(|| self.flight.begin()).flatten() else {
            return due.saturating_sub(now).clamp(RETRY_FIRST, LOOK_EVERY);
        };
        let fetched = self.fetch(services).await;
        let failed = fetched.is_err();
        let now = services.now();
        lead.end(self.take(fetched, now));
        let mut state = self.lock();
        state.failures = if failed { state.failures.saturating_add(1) } else { 0 };
        let wait = match state.failures {
            0 => self.refresh_every,
            n => (RETRY_FIRST * 2_u32.saturating_pow(n.min(16) - 1)).min(self.refresh_every),
        };
        state.due = now.mono + wait;
        wait.clamp(RETRY_FIRST, LOOK_EVERY)
    }

    /// Without keys nobody is let in, so tokens that were verified with these go with them.
    fn forget_old(&self, wall: Duration) {
        let mut state = self.lock();
        if state.set.is_some() && self.is_too_old(state.given, wall) {
            state.set = None;
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn is_too_old(&self, given: Option<Duration>, wall: Duration) -> bool {
        let Some(age_max) = self.age_max else { return false };
        // What says nothing of its age may be of any.
        given.is_none_or(|given| wall.saturating_sub(given) > age_max)
    }

    /// Takes what was fetched into use.
    fn take(&self, fetched: Result<Fetched, String>, now: Now) -> Result<(), String> {
        let mut state = self.lock();
        let outcome = fetched.and_then(|fetched| self.install(&mut state, &fetched, now));
        if outcome.is_ok() {
            state.due = now.mono + self.refresh_every;
            state.fetched += 1;
        } else {
            state.failed += 1;
        }
        state.failure = outcome.clone().err();
        outcome
    }

    /// The text of the key set, and whether it is from before.
    async fn fetch(&self, services: &dyn Services) -> Result<Fetched, String> {
        let (url, stale) = match &self.location {
            Location::File => return Err("the keys are in a file".to_owned()),
            Location::Url(url) => (url.clone(), false),
            Location::Discovery { issuer } => {
                let found =
                    discovery::ask(issuer, self.ca.as_ref(), discovery::TIMEOUT, services).await?;
                (found.metadata.jwks_uri()?.to_owned(), found.stale)
            }
        };
        let good = |text: &[u8]| KeySet::parse(text, 0).is_ok();
        let fetched = self.get(&url, good, services).await?;
        Ok(Fetched { stale: stale || fetched.stale, ..fetched })
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
            StatusCode::OK => {
                let text = answer.body.to_vec();
                let age = if answer.stale { age(&answer) } else { Some(Duration::ZERO) };
                Ok(Fetched { text, stale: answer.stale, age })
            }
            status => Err(format!("{url} answers {}", status.as_u16())),
        }
    }
}

struct Fetched {
    text: Vec<u8>,
    stale: bool,
    /// Since the issuer gave it.
    age: Option<Duration>,
}

/// What an answer from the disk says of itself.
fn age(answer: &services::Fetched) -> Option<Duration> {
    let (_, value) = answer.fields.iter().find(|(name, _)| &**name == "age")?;
    str::from_utf8(value).ok()?.parse().ok().map(Duration::from_secs)
}

impl Keys {
    fn install(&self, state: &mut State, fetched: &Fetched, now: Now) -> Result<(), String> {
        // What was kept from before is better than nothing, and not better than what we have.
        let given = fetched.age.map(|age| now.wall.saturating_sub(age));
        let too_old = fetched.stale && self.is_too_old(given, now.wall);
        if !fetched.stale || (state.set.is_none() && !too_old) {
            let mut hasher = DefaultHasher::new();
            fetched.text.hash(&mut hasher);
            let content = hasher.finish();
            if state.set.is_none() || content != state.content {
                let version = self.version() + 1;
                state.set = Some(Arc::new(KeySet::parse(&fetched.text, version)?));
                state.content = content;
                self.version.store(version, Ordering::Release);
            }
            state.given = given;
        }
        match fetched.stale {
            true if state.set.is_none() => {
                Err("the issuer does not answer; its last keys are too old".to_owned())
            }
            true => Err("the issuer does not answer; its last keys are in use".to_owned()),
            false => Ok(()),
        }
    }
}
