//! Whether a try that failed is followed by another one, by which endpoint, and when.
//!
//! What one try came to is `forward`'s business, how many there may be is `upstream`'s
//! [`portcullis_upstream::Budget`].

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use portcullis_core::{ResponseHead, Span, grpc};
use portcullis_snapshot::{Backend, EndpointSet, RetryOn, Route};
use portcullis_upstream::{Ask, EndpointIndex, InFlight, Tried, backoff};

use crate::backend::{HeadFailure, HeadKind, Leg};
use crate::client::{Client, ClientError};
use crate::deadline::Wait;
use crate::forward::Failure;
use crate::pool::Line;
use crate::relay::Upload;
use crate::slot::Slot;
use crate::wire::Progress;
use crate::worker::Worker;

/// A backend that wants to be left alone for longer is.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);
/// How much of an answer that nobody gets is read to keep its connection.
const DISCARD_MAX: usize = 64 * 1024;

/// The tries of one request.
pub(crate) struct Tries<'a> {
    pub(crate) route: &'a Route,
    pub(crate) backend: &'a Backend,
    pub(crate) set: &'a EndpointSet,
    pub(crate) tried: Tried,
    /// What the balancer hashes.
    pub(crate) key: Option<u64>,
    /// Where the client's cookie says that it has been.
    pub(crate) home: Option<EndpointIndex>,
    /// Which endpoints it keeps to.
    pub(crate) subset: Option<u16>,
    /// The host as the client asked for it.
    pub(crate) authority: Span,
}

/// What another try takes.
#[derive(Debug, PartialEq, Eq)]
enum Again {
    /// No backend has begun with the request: at once, wherever.
    AtOnce,
    /// Elsewhere, and not before so long.
    Elsewhere(Duration),
}

/// The next try.
pub(crate) struct Next {
    /// Where, if that is decided already.
    pub(crate) endpoint: Option<EndpointIndex>,
    pub(crate) wait: Duration,
}

impl Tries<'_> {
    pub(crate) fn ask(&self, slot: &Slot) -> Ask {
        let random = slot.exchange.random.rotate_left(slot.trip.retries + 32);
        let (now, subset) = (slot.exchange.now.mono, self.subset);
        Ask { now, random, key: self.key, home: self.home, subset }
    }

    pub(crate) fn pick(&self, slot: &Slot) -> Option<EndpointIndex> {
        self.set.balancer.pick(self.ask(slot), &self.tried)
    }

    /// Begins a try, at the endpoint that was chosen if that still takes one.
    pub(crate) fn start(
        &self,
        slot: &Slot,
        chosen: Option<EndpointIndex>,
    ) -> Option<(EndpointIndex, InFlight)> {
        let (balancer, ask) = (&self.set.balancer, self.ask(slot));
        let begun = chosen.and_then(|index| {
            let in_flight = balancer.endpoint(index).start(ask.now)?;
            Some((index, in_flight))
        });
        begun.or_else(|| balancer.start(ask, &self.tried))
    }

    /// Whether one more is within what the route allows.
    pub(crate) fn more(&self, slot: &Slot) -> bool {
        slot.trip.retries + 1 < self.route.retry.attempts
    }

    /// Whether a backend may get it twice.
    pub(crate) fn repeats(&self, slot: &Slot) -> bool {
        slot.exchange.request.method.is_idempotent() || self.route.retry.non_idempotent
    }

    /// After no connection could be made: nothing was sent, so that anything may go elsewhere.
    pub(crate) fn after_connect(&mut self, slot: &Slot, index: EndpointIndex) -> bool {
        let allowed = self.route.retry.on.contains(&RetryOn::Connect) && self.more(slot);
        self.tried.insert(index) && allowed
    }

    /// What follows on this outcome; `None` if it is the answer.
    pub(crate) fn next<C: Client>(
        &mut self,
        worker: &Worker,
        client: &C,
        slot: &Slot,
        (leg, index): (&Leg, EndpointIndex),
        outcome: &Result<HeadKind, Failure>,
        upload: &Upload,
    ) -> Option<Next> {
        if !self.more(slot) || !upload.is_repeatable() {
            return None;
        }
        let now = worker.shared.world.clock().mono();
        let next = match self.again(slot, leg, outcome)? {
            Again::AtOnce => Next { endpoint: None, wait: Duration::ZERO },
            Again::Elsewhere(least) => {
                let random = slot.exchange.random.rotate_left(slot.trip.retries + 8);
                let wait = backoff::wait(slot.trip.retries + 1, random).max(least);
                let by = slot.trip.answer_by.unwrap_or(Duration::MAX);
                if now.saturating_add(wait) >= client.deadline().ceiling().min(by) {
                    return None;
                }
                if !self.tried.insert(index) {
                    return None;
                }
                Next { endpoint: Some(self.pick(slot)?), wait }
            }
        };
        // What was picked is claimed only when the next try starts.
        self.backend.budget.take(now).then_some(next)
    }

    fn again(&self, slot: &Slot, leg: &Leg, outcome: &Result<HeadKind, Failure>) -> Option<Again> {
        let retry = &self.route.retry;
        let idempotent = slot.exchange.request.method.is_idempotent();
        let repeatable = self.repeats(slot);
        let elsewhere =
            |allowed: bool| (repeatable && allowed).then_some(Again::Elsewhere(Duration::ZERO));
        match outcome {
            Err(Failure::Head(HeadFailure::Refused(_))) => Some(Again::AtOnce),
            Err(Failure::Head(HeadFailure::Silent(_))) if leg.is_reused() && idempotent => {
                Some(Again::AtOnce)
            }
            Err(Failure::Head(HeadFailure::Silent(_))) => {
                elsewhere(retry.on.contains(&RetryOn::Reset))
            }
            // A stream of HTTP/2 has its head whole or not at all.
            Err(Failure::Head(HeadFailure::Cut(_))) if matches!(leg, Leg::H2(_)) => {
                elsewhere(retry.on.contains(&RetryOn::Reset))
            }
            // What is no HTTP is as good an answer as a 502, which it would become.
            Err(Failure::Head(HeadFailure::Malformed(_))) => {
                elsewhere(retry.on.contains(&RetryOn::Status(502)))
            }
            Err(Failure::Try) => elsewhere(true),
            Ok(HeadKind::Final { .. }) if repeatable && fails(&retry.on, &slot.response) => {
                let after = retry_after(&slot.response)?;
                (after <= RETRY_AFTER_MAX).then_some(Again::Elsewhere(after))
            }
            _ => None,
        }
    }
}

/// What only the trailers say comes too late: the client has the head, and may have messages.
pub(crate) fn fails(on: &[RetryOn], response: &ResponseHead) -> bool {
    on.contains(&RetryOn::Status(response.status.as_u16()))
        || (on.iter().any(|one| matches!(one, RetryOn::Grpc(_)))
            && grpc::status(&response.fields)
                .is_some_and(|status| on.contains(&RetryOn::Grpc(status))))
}

/// `None` for a time that is not told in seconds, which is longer than a request waits.
fn retry_after(response: &ResponseHead) -> Option<Duration> {
    let number = |value| std::str::from_utf8(value).ok()?.trim().parse().ok();
    if let Some(value) = response.fields.get(b"grpc-retry-pushback-ms") {
        // One that is negative, or no number, says never (gRFC A6).
        return number(value).map(Duration::from_millis);
    }
    let Some(value) = response.fields.get(b"retry-after") else { return Some(Duration::ZERO) };
    number(value).map(Duration::from_secs)
}

/// Ends with a try that is followed by another one. If all of its answer has come, which nobody
/// gets, its connection is kept; one that still owes an answer never is.
pub(crate) fn discard(worker: &Worker, leg: Leg, whole: bool, backend: &Backend) {
    if let Leg::H1(mut connection) = leg
        && whole
    {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut seen, mut before) = (0, usize::MAX);
        // What is at hand only: more would have to be waited for.
        while seen != before && seen < DISCARD_MAX {
            before = seen;
            let mut sink = |data: &[u8]| seen += data.len();
            match connection.poll_body(&mut cx, &worker.buffers, false, &mut sink) {
                Poll::Ready(Ok(Progress::More)) => {}
                _ => break,
            }
        }
        if connection.is_reusable() {
            worker.pool.give(connection, backend.idle_max as usize, worker.coarse_now());
        }
    }
    worker.pool.wake_one(Line::of(backend));
}

/// Waits before the next try, unless the client is gone meanwhile.
pub(crate) async fn pause<C: Client>(
    worker: &Rc<Worker>,
    client: &mut C,
    wait: Duration,
) -> Result<(), ClientError> {
    if wait.is_zero() {
        return Ok(());
    }
    // Whatever the last try was waiting for is over.
    client.deadline().set(Wait::ResponseHead, Duration::MAX);
    let mut sleep = pin!(worker.shared.world.clock().sleep(wait));
    poll_fn(|cx| match client.poll_gone(cx) {
        Poll::Ready(gone) => Poll::Ready(Err(gone)),
        Poll::Pending => sleep.as_mut().poll(cx).map(Ok),
    })
    .await
}
