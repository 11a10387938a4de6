//! A token of the gateway's own, by client credentials (RFC 6749 §4.4): one for everybody.
//!
//! The background fetches it and refreshes it before its end, so that requests find it at hand; a
//! request that does not waits for a fetch that all share. States and edges: `LIFECYCLE.md`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::Services;

use super::Away;
use super::asking::Asking;
use super::token::Token;
use crate::flight::{Flight, Grounded};

/// After the first failure; doubles with each.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often the background looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Granted {
    pub(super) asking: Asking,
    pub(super) held: Arc<Held>,
}

/// What outlives a reload.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Its lock is taken before that of the state, never within.
    flight: Flight<Result<Arc<Token>, Away>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Arc<Token>>,
    /// Fetches that failed in a row, and how the last one did.
    failures: u32,
    reason: String,
    /// No fetch begins before.
    next: Duration,
}

impl Granted {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.held.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn held(&self) -> Option<Arc<Token>> {
        self.lock().token.clone()
    }

    /// A token that can be sent now.
    pub(super) fn at_hand(&self, now: Duration) -> Option<Arc<Token>> {
        let state = self.lock();
        let token = state.token.as_ref().filter(|token| token.is_usable(now))?;
        let may_be_replaced = token.is_distrusted() && now >= state.next;
        (!may_be_replaced).then(|| Arc::clone(token))
    }

    /// A new token, else the one that there is.
    pub(super) async fn obtain(&self, services: &dyn Services) -> Result<Arc<Token>, Away> {
        let now = services.now().mono;
        let fetched =
            self.held.flight.run(|| self.may_fetch(now), async || self.fetch(services).await);
        let crowded = |reason: &str| Away { reason: reason.to_owned(), retry_after: RETRY_FIRST };
        let away = match fetched.await {
            Ok(Ok(token)) => return Ok(token),
            Ok(Err(away)) | Err(Grounded::Refused(away)) => away,
            Err(Grounded::Crowded) => crowded("too many requests wait for the token"),
            Err(Grounded::BrokenOff) => crowded("the request for the token was broken off"),
        };
        let now = services.now().mono;
        self.held().filter(|token| token.is_usable(now)).ok_or(away)
    }

    fn may_fetch(&self, now: Duration) -> Result<(), Away> {
        let state = self.lock();
        match state.next.checked_sub(now).filter(|wait| !wait.is_zero()) {
            Some(retry_after) => Err(Away { reason: state.reason.clone(), retry_after }),
            None => Ok(()),
        }
    }

    async fn fetch(&self, services: &dyn Services) -> Result<Arc<Token>, Away> {
        let asked = self.asking.ask(None, services).await;
        let now = services.now().mono;
        let mut state = self.lock();
        match asked {
            Ok(token) => {
                let token = Arc::new(token);
                *state = State { token: Some(Arc::clone(&token)), ..State::default() };
                Ok(token)
            }
            Err(failure) => {
                let wait = RETRY_FIRST * 2_u32.saturating_pow(state.failures.min(16));
                let wait = wait.min(RETRY_MAX);
                state.failures = state.failures.saturating_add(1);
                failure.reason().clone_into(&mut state.reason);
                state.next = now + wait;
                if let Some(token) = &state.token {
                    token.trust_again();
                }
                Err(Away { reason: state.reason.clone(), retry_after: wait })
            }
        }
    }

    /// Work in the background; returns when to look again.
    pub(super) async fn upkeep(&self, services: &dyn Services) -> Duration {
        self.asking.endpoint.upkeep(services).await;
        let now = services.now().mono;
        if self.due() <= now
            && let Some(lead) = self.held.flight.begin()
        {
            lead.end(self.fetch(services).await);
        }
        let now = services.now().mono;
        self.due().saturating_sub(now).clamp(RETRY_FIRST, LOOK_EVERY)
    }

    /// When the background fetches next.
    fn due(&self) -> Duration {
        let state = self.lock();
        let wanted = state.token.as_ref().map_or(Duration::ZERO, |token| token.refresh_at());
        wanted.max(state.next)
    }
}
