//! Keeps requests from piling up before an endpoint that is slow or gone: `LIFECYCLE.md`.
//!
//! It counts what is in flight and what failed. What failing is, and what is done instead, is for
//! the caller to say.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Requests to one endpoint at once, over all workers.
const IN_FLIGHT_MAX: u32 = 512;
/// Failures in a row that open it.
const FAILURES_MAX: u32 = 5;
/// How long it stays open the first time; doubles each time the trial fails.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_flight: u32,
    /// In a row.
    failures: u32,
    open: Option<Open>,
    /// Counts openings and closings. Who began before the last one has nothing to say any more.
    era: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Duration,
    pause: Duration,
    /// One request is out to see whether the endpoint is well again.
    trying: bool,
}

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shut {
    pub(crate) reason: &'static str,
    pub(crate) retry_after: Duration,
}

/// Leave for one request. Dropped without a word, it says nothing about the endpoint.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    era: u64,
    trial: bool,
}

impl Breaker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, now: Duration) -> Result<Permit<'_>, Shut> {
        let mut state = self.lock();
        if state.in_flight >= IN_FLIGHT_MAX {
            let reason = "too many requests are with the endpoint already";
            return Err(Shut { reason, retry_after: PAUSE_FIRST });
        }
        let mut trial = false;
        if let Some(open) = &mut state.open {
            if open.trying || now < open.until {
                let retry_after = open.until.saturating_sub(now).max(PAUSE_FIRST);
                return Err(Shut {
                    reason: "the endpoint has failed and is left alone",
                    retry_after,
                });
            }
            open.trying = true;
            trial = true;
        }
        state.in_flight += 1;
        Ok(Permit { breaker: self, era: state.era, trial })
    }
}

impl Permit<'_> {
    /// The endpoint has answered.
    pub(crate) fn succeeded(self) {
        let mut state = self.breaker.lock();
        if state.era != self.era {
            return;
        }
        state.failures = 0;
        if state.open.take().is_some() {
            state.era += 1;
        }
    }

    /// It has not, or with a failure of its own.
    pub(crate) fn failed(self, now: Duration) {
        let mut state = self.breaker.lock();
        if state.era != self.era {
            return;
        }
        state.failures += 1;
        let pause = match state.open {
            Some(open) => (open.pause * 2).min(PAUSE_MAX),
            None if state.failures >= FAILURES_MAX => PAUSE_FIRST,
            None => return,
        };
        state.open = Some(Open { until: now + pause, pause, trying: false });
        state.failures = 0;
        state.era += 1;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.breaker.lock();
        state.in_flight -= 1;
        if self.trial
            && state.era == self.era
            && let Some(open) = &mut state.open
        {
            open.trying = false;
        }
    }
}

#[cfg(test)]
mod tests;
