//! What this process knows of sessions beside their cookies: which are being refreshed, which were
//! just now, which have ended, and which logins are over.
//!
//! Everything here is bounded and none of it is needed: without it a refresh token would be sent
//! twice, or a cookie that was copied before a logout would go on until its end.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::session::Session;
use crate::flight::{Flights, Grounded};
use crate::table::Table;

/// For how long requests that were on their way with the old cookie get the refreshed session:
/// a refresh token is often good once.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Refreshed sessions that are remembered so.
const REFRESHED_MAX: usize = 4096;
/// Sessions that are remembered as ended, and logins as over.
const ENDED_MAX: usize = 64 << 10;
const SPENT_MAX: usize = 16 << 10;

/// What a refresh came to.
#[derive(Clone)]
pub(super) enum Outcome {
    Refreshed(Arc<Session>),
    /// The provider has decided; or who says so is not to be believed.
    Over(String),
    /// The provider cannot be asked.
    Unavailable(String),
}

/// Without what is in it: a session has secrets.
impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refreshed(_) => "refreshed",
            Self::Over(_) => "over",
            Self::Unavailable(_) => "unavailable",
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Renewals {
    flights: Flights<Outcome>,
    refreshed: Noted<Option<Outcome>>,
    ended: Noted<()>,
    spent: Noted<()>,
    /// Grows with each session that ends, so that what is remembered as good is looked at again.
    endings: AtomicU64,
}

impl Renewals {
    /// One refresh of a session at a time; `key` is that of its refresh token.
    pub(super) async fn refresh(
        &self,
        key: u128,
        now: Duration,
        job: impl AsyncFnOnce() -> Outcome,
    ) -> Outcome {
        if let Some(Some(outcome)) = self.refreshed.get(key, now) {
            return outcome;
        }
        let flown = self.flights.run(
            key,
            || Ok::<(), Infallible>(()),
            async || {
                // Somebody else may have ended it between the look above and here.
                if let Some(Some(outcome)) = self.refreshed.get(key, now) {
                    return outcome;
                }
                let outcome = job().await;
                if !matches!(outcome, Outcome::Unavailable(_)) {
                    let until = now + REMEMBERED_FOR;
                    self.refreshed.put(key, Some(outcome.clone()), until, REFRESHED_MAX);
                }
                outcome
            },
        );
        match flown.await {
            Ok(outcome) => outcome,
            Err(Grounded::Crowded) => Outcome::Unavailable("too many refreshes".to_owned()),
            Err(_) => Outcome::Unavailable("the refresh was broken off".to_owned()),
        }
    }

    /// Logged out; `until` is when its cookie would have ended.
    pub(super) fn end(&self, session: u128, until: Duration) {
        self.ended.put(session, (), until, ENDED_MAX);
        self.endings.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn has_ended(&self, session: u128, now: Duration) -> bool {
        self.ended.get(session, now).is_some()
    }

    pub(super) fn endings(&self) -> u64 {
        self.endings.load(Ordering::Acquire)
    }

    /// Whether this login is over; from now on it is. `until` is when it would end by itself.
    pub(super) fn spend(&self, login: u128, now: Duration, until: Duration) -> bool {
        let mut table = self.spent.lock();
        let spent = table.find(login).is_some_and(|slot| now < table.get(slot).until);
        if !spent {
            put(&mut table, login, (), until, SPENT_MAX);
        }
        spent
    }
}

/// Things by key, until a time; the one noted first makes room.
struct Noted<V>(Mutex<Table<Note<V>, 1>>);

#[derive(Debug, Default)]
struct Note<V> {
    until: Duration,
    value: V,
}

impl<V> fmt::Debug for Noted<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Noted")
    }
}

impl<V: Default> Default for Noted<V> {
    fn default() -> Self {
        // The keys are hashes under a secret already.
        Self(Mutex::new(Table::new([0; 2])))
    }
}

impl<V: Default + Clone> Noted<V> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Table<Note<V>, 1>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: u128, now: Duration) -> Option<V> {
        let table = self.lock();
        let note = table.get(table.find(key)?);
        (now < note.until).then(|| note.value.clone())
    }

    fn put(&self, key: u128, value: V, until: Duration, notes_max: usize) {
        put(&mut self.lock(), key, value, until, notes_max);
    }
}

fn put<V: Default>(
    table: &mut Table<Note<V>, 1>,
    key: u128,
    value: V,
    until: Duration,
    notes_max: usize,
) {
    if let Some(slot) = table.find(key) {
        table.remove(slot);
    }
    while table.len() >= notes_max
        && let Some(oldest) = table.oldest(0)
    {
        table.remove(oldest);
    }
    table.insert(key, 0, Note { until, value });
}
