//! Tells the endpoints and the breakers what became of requests, and refuses those that a breaker
//! does not let through. What follows from it is `upstream`'s business.

use std::time::Duration;

use portcullis_core::codes::Fault;
use portcullis_core::{Problem, ResponseHead, codes};
use portcullis_snapshot::{Backend, BackendBreaker, Route};
use portcullis_upstream::breaker::{Change, Pass};
use portcullis_upstream::{InFlight, Verdict};

use crate::backend::{HeadFailure, HeadKind, Leg};
use crate::call::{Told, told};
use crate::client::ClientError;
use crate::forward::{Arrived, Failure};
use crate::retry::Tries;
use crate::slot::Slot;

/// Leave of a backend's breaker. Dropped before it is decided what the request came to, it says
/// nothing about the backend.
pub(crate) struct Entered<'a> {
    backend: &'a Backend,
    breaker: &'a BackendBreaker,
    pass: Option<Pass>,
}

/// Asks the breaker of the backend, if it has one.
pub(crate) fn enter<'a>(
    backend: &'a Backend,
    now: Duration,
) -> Result<Option<Entered<'a>>, ClientError> {
    let Some(breaker) = &backend.breaker else { return Ok(None) };
    match breaker.state.enter(now) {
        Ok(pass) => Ok(Some(Entered { backend, breaker, pass: Some(pass) })),
        Err(wait) => Err(ClientError::Refused(open("the backend's", wait))),
    }
}

impl Entered<'_> {
    /// What it came to is known later, by others.
    pub(crate) fn keep(mut self) -> Option<Pass> {
        self.pass.take()
    }

    /// All tries are over; `ceiling` is when they had to be.
    pub(crate) fn ended(
        self,
        outcome: &Result<Arrived, ClientError>,
        slot: &Slot,
        route: &Route,
        ceiling: Duration,
        now: Duration,
    ) {
        let failed = match outcome {
            Ok(arrived) => {
                let (request, head) = (&slot.exchange.request, &slot.response);
                head.status.is_server_error() || told(&arrived.leg, request, head) == Told::Fault
            }
            // What the gateway refused by itself (503) says nothing about the backend.
            Err(ClientError::Refused(problem)) if problem.code.fault == Fault::Backend => {
                match problem.code.status {
                    503 => return,
                    // The caller had no more time, which is no failure of the backend.
                    504 if now >= ceiling && !is_late(slot, route, now) => return,
                    _ => true,
                }
            }
            Err(_) => return,
        };
        self.judged(failed, now);
    }

    /// It is decided what the request came to.
    pub(crate) fn judged(mut self, failed: bool, now: Duration) {
        let Some(pass) = self.pass.take() else { return };
        let BackendBreaker { terms, state } = self.breaker;
        if let Some(change) = state.ended(terms, pass, failed, now) {
            tell(&self.backend.name, None, change);
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.breaker.state.abandoned(pass);
        }
    }
}

pub(crate) fn open(whose: &str, wait: Duration) -> Problem {
    let detail = format_args!("{whose} circuit breaker is open");
    Problem::new(codes::BACKEND_CIRCUIT_OPEN).detail(detail).retry_after(wait)
}

/// Whether there should have been an answer by what the route says, whatever the caller's deadline.
fn is_late(slot: &Slot, route: &Route, now: Duration) -> bool {
    let total = route.timeouts.total.map(|total| slot.trip.begun.saturating_add(total));
    [slot.trip.answer_by, total].into_iter().flatten().any(|by| now >= by)
}

/// What one try says about its endpoint, if it ended with this head; `None`: nothing.
pub(crate) fn verdict(
    outcome: &Result<HeadKind, Failure>,
    head: &ResponseHead,
    slot: &Slot,
    route: &Route,
    leg: &Leg,
    now: Duration,
) -> Option<Verdict> {
    match outcome {
        Ok(_) if head.status.is_server_error() => Some(Verdict::Status),
        Ok(_) if told(leg, &slot.exchange.request, head) == Told::Fault => Some(Verdict::Status),
        Ok(_) => Some(Verdict::Well),
        // What is closed while it idles, or says that it goes, does so in good order.
        Err(Failure::Head(HeadFailure::Refused(_))) => None,
        Err(Failure::Head(HeadFailure::Silent(_))) if leg.is_reused() => None,
        Err(Failure::Head(_) | Failure::Try) => Some(Verdict::Error),
        // The client may be the one who has no time left, or is slow to send its body.
        Err(Failure::Timeout) => is_late(slot, route, now).then_some(Verdict::Error),
        Err(Failure::Client(_) | Failure::NoWebSocket | Failure::Slow) => None,
    }
}

/// A try is over, `took` after `began`.
pub(crate) fn tried(
    tries: &Tries<'_>,
    in_flight: &mut InFlight,
    verdict: Verdict,
    took: Duration,
    began: Duration,
) {
    let balancer = &tries.set.balancer;
    if let Some(change) = balancer.ended(in_flight, verdict, took, began + took) {
        tell(&tries.backend.name, Some(in_flight.endpoint().url()), change);
    }
}

pub(crate) fn tell(backend: &str, endpoint: Option<&str>, change: Change) {
    match change {
        Change::Opened { open, ended: 0, .. } => {
            tracing::warn!(backend, endpoint, ?open, "circuit breaker: a probe failed");
        }
        Change::Opened { open, ended, failed } => {
            tracing::warn!(backend, endpoint, ?open, failed, of = ended, "circuit breaker opened");
        }
        Change::Closed => tracing::info!(backend, endpoint, "circuit breaker closed"),
    }
}
