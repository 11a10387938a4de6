//! A second request, to another endpoint, where the first is slow: the first good answer is heard,
//! and the other request is given up.
//!
//! When the second is sent is the route's to say, how many there may be the backend's budget's.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Method;
use portcullis_core::ResponseHead;
use portcullis_http1::{HeadLimits, RequestWire, request_framing};
use portcullis_snapshot::Hedge;
use portcullis_telemetry::metrics::BackendSeries;
use portcullis_upstream::{EndpointIndex, InFlight, Verdict};

use crate::backend::{Begin, HeadFailure, HeadKind, Leg};
use crate::circuit;
use crate::client::Client;
use crate::deadline::{Expired, Wait};
use crate::dial::{self, NoConnection, Wish};
use crate::forward::{Failure, INTERIMS_MAX, address};
use crate::pool::Line;
use crate::relay::Upload;
use crate::retry::{Tries, discard, fails};
use crate::slot::Slot;
use crate::worker::Worker;

/// A request that was sent, and waits for the head of its answer.
pub(crate) struct Runner {
    pub(crate) leg: Leg,
    pub(crate) index: EndpointIndex,
    pub(crate) in_flight: InFlight,
    /// When it was begun with.
    pub(crate) since: Duration,
}

/// What a race is about.
pub(crate) struct Race<'a, 'b> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) series: &'a BackendSeries,
    pub(crate) tries: &'a mut Tries<'b>,
    pub(crate) upload: &'a Upload,
    pub(crate) wish: Wish,
}

pub(crate) type End = Result<HeadKind, Failure>;

impl Tries<'_> {
    /// How long the first endpoint has before a second one is asked as well; `None`: for ever.
    pub(crate) fn hedge_after(&self, slot: &Slot) -> Option<Duration> {
        let hedge = self.route.retry.hedge?;
        let apart = self.set.balancer.members().len() > 1;
        match hedge {
            _ if !apart || !self.more(slot) || !self.repeats(slot) => None,
            Hedge::After(wait) => Some(wait),
            Hedge::P95 => self.backend.tail.p95(),
        }
    }
}

impl Race<'_, '_> {
    /// From when the first turned out to be slow. Gives back who is heard, and what it has said:
    /// its head is the slot's.
    pub(crate) async fn run<C: Client>(
        mut self,
        client: &mut C,
        slot: &mut Slot,
        mut first: Runner,
    ) -> (Runner, End) {
        let (worker, backend) = (self.worker, self.tries.backend);
        self.bound(client, slot);
        let Some((index, mut in_flight)) = self.choose(slot, first.index) else {
            let end = wait(worker, client, slot, &mut first.leg).await;
            return (first, end);
        };
        let since = slot.exchange.now.mono;
        let to = self.tries.set.at(index);
        let endpoint = Arc::clone(to.endpoint);
        self.series.attempt(worker.metrics.id(), true);
        self.series.hedged(worker.metrics.id());
        if let Some(local) = self.tries.set.balancer.is_in_own_zone(index) {
            self.series.zoned(worker.metrics.id(), local);
        }
        let deadline = worker.deadlines.add();
        let mut dialling = Box::pin(dial::acquire(worker, &deadline, backend, to, self.wish));
        let mut leg = None;
        let mut other = ResponseHead::default();
        let (mut end, mut other_end) = (None, None);
        let second_heard = poll_fn(|cx| {
            if end.is_none() {
                let head = poll_end(
                    cx,
                    worker,
                    &mut first.leg,
                    &slot.exchange.request.method,
                    &mut slot.response,
                );
                end = ready_or_none(head);
            }
            if leg.is_none()
                && other_end.is_none()
                && let Poll::Ready(dialled) = dialling.as_mut().poll(cx)
            {
                match dialled {
                    Ok(made) => leg = Some(self.send(slot, made, index)),
                    Err(reason) => {
                        if let NoConnection::Failed(_) = reason {
                            let now = worker.shared.world.clock().mono();
                            endpoint.connect_failed(now);
                            let took = now.saturating_sub(since);
                            circuit::tried(self.tries, &mut in_flight, Verdict::Error, took, since);
                        }
                        other_end = Some(Err(Failure::Slow));
                    }
                }
            }
            if let Some(leg) = &mut leg
                && other_end.is_none()
            {
                other_end = ready_or_none(poll_end(
                    cx,
                    worker,
                    leg,
                    &slot.exchange.request.method,
                    &mut other,
                ));
            }
            let on = &self.tries.route.retry.on;
            let is_good = |end: &Option<End>, head: &ResponseHead| {
                matches!(end, Some(Ok(_))) && !fails(on, head)
            };
            if is_good(&end, &slot.response) {
                return Poll::Ready(false);
            }
            if is_good(&other_end, &other) {
                return Poll::Ready(true);
            }
            if end.is_some() && other_end.is_some() {
                // An answer, whatever it is, says more than none.
                return Poll::Ready(matches!((&end, &other_end), (Some(Err(_)), Some(Ok(_)))));
            }
            if let Some(failure) = poll_over(cx, client) {
                end = Some(Err(failure));
                return Poll::Ready(false);
            }
            Poll::Pending
        })
        .await;
        drop(dialling);
        match leg {
            Some(leg) => {
                let mut second = Runner { leg, index, in_flight, since };
                if second_heard {
                    std::mem::swap(&mut slot.response, &mut other);
                    (first, second) = (second, first);
                    (end, other_end) = (other_end, end);
                }
                self.lost(slot, second, other_end.as_ref(), &other);
            }
            // A connection that was being made leaves room for whoever waits for some.
            None => worker.pool.wake_one(Line::of(backend)),
        }
        (first, end.unwrap_or(Err(Failure::Timeout)))
    }

    /// All that both may take.
    fn bound<C: Client>(&self, client: &C, slot: &Slot) {
        let by = slot.trip.answer_by.unwrap_or(Duration::MAX);
        let per_try = self.tries.route.retry.per_try;
        let try_by = per_try.map(|wait| self.worker.coarse_now().saturating_add(wait));
        match try_by {
            Some(try_by) if try_by < by => client.deadline().set(Wait::Try, try_by),
            _ => client.deadline().set(Wait::ResponseHead, by),
        }
    }

    /// Another endpoint, if there is one and the budget allows it.
    fn choose(
        &mut self,
        slot: &mut Slot,
        first: EndpointIndex,
    ) -> Option<(EndpointIndex, InFlight)> {
        slot.exchange.now = self.worker.shared.world.clock().now();
        if !self.tries.tried.insert(first) {
            return None;
        }
        let index = self.tries.pick(slot)?;
        if !self.tries.backend.budget.take(slot.exchange.now.mono) {
            return None;
        }
        let (index, in_flight) = self.tries.start(slot, Some(index))?;
        if !self.tries.tried.insert(index) {
            return None;
        }
        slot.trip.retries += 1;
        Some((index, in_flight))
    }

    fn send(&self, slot: &mut Slot, mut leg: Leg, index: EndpointIndex) -> Leg {
        let worker = self.worker;
        if !leg.is_reused() {
            self.series.connected(worker.metrics.id());
        }
        address(worker, slot, self.tries, index, self.wish.ceiling);
        let request = &slot.exchange.request;
        let wire = RequestWire {
            accepts_trailers: slot.accepts_trailers,
            ..RequestWire::new(request_framing(request))
        };
        leg.begin(&worker.buffers, request, &Begin { wire, accept: None });
        self.upload.repeat(worker, &mut leg);
        leg
    }

    /// Ends with the one that is not heard. If it has ended by itself that counts as any other end;
    /// of one that was given up it is known that it takes at least so long.
    fn lost(&self, slot: &Slot, runner: Runner, end: Option<&End>, head: &ResponseHead) {
        let Tries { backend, route, set, .. } = *self.tries;
        let now = self.worker.shared.world.clock().mono();
        let Runner { leg, mut in_flight, since, .. } = runner;
        let waited = now.saturating_sub(since);
        let verdict = end.and_then(|end| circuit::verdict(end, head, slot, route, &leg, now));
        match verdict {
            Some(verdict) => {
                backend.tail.observe(waited);
                circuit::tried(self.tries, &mut in_flight, verdict, waited, since);
            }
            None if since < slot.exchange.now.mono => {
                backend.tail.observe(waited);
                set.balancer.given_up(&in_flight, waited, now);
            }
            // The second one, given up soon after it began, would make its endpoint look quick.
            None => {}
        }
        discard(self.worker, leg, false, backend);
    }
}

fn ready_or_none(poll: Poll<End>) -> Option<End> {
    match poll {
        Poll::Ready(end) => Some(end),
        Poll::Pending => None,
    }
}

/// For the first alone, where there is no second.
async fn wait<C: Client>(
    worker: &Rc<Worker>,
    client: &mut C,
    slot: &mut Slot,
    leg: &mut Leg,
) -> End {
    poll_fn(|cx| {
        match poll_end(cx, worker, leg, &slot.exchange.request.method, &mut slot.response) {
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending => match poll_over(cx, client) {
                Some(failure) => Poll::Ready(Err(failure)),
                None => Poll::Pending,
            },
        }
    })
    .await
}

/// The client is gone, or the time is over.
fn poll_over<C: Client>(cx: &mut Context<'_>, client: &mut C) -> Option<Failure> {
    if let Poll::Ready(gone) = client.poll_gone(cx) {
        return Some(Failure::Client(gone));
    }
    match client.deadline().check(cx) {
        Ok(()) => None,
        Err(Expired(Wait::Try)) => Some(Failure::Try),
        Err(Expired(_)) => Some(Failure::Timeout),
    }
}

/// Sends what is queued and reads the final head. Interim ones are of no use to the client, who
/// may come to hear the other.
pub(crate) fn poll_end(
    cx: &mut Context<'_>,
    worker: &Worker,
    leg: &mut Leg,
    method: &Method,
    response: &mut ResponseHead,
) -> Poll<End> {
    for _ in 0..INTERIMS_MAX {
        // What cannot be sent shows when the head is read.
        let _sent = leg.poll_flush(cx, &worker.buffers);
        let limits = HeadLimits::default();
        match ready!(leg.poll_head(cx, &worker.buffers, &limits, method, response)) {
            Ok(HeadKind::Interim) => {}
            Ok(kind) => return Poll::Ready(Ok(kind)),
            Err(error) => return Poll::Ready(Err(Failure::Head(error))),
        }
    }
    let failure = HeadFailure::Malformed("too many interim answers".to_owned());
    Poll::Ready(Err(Failure::Head(failure)))
}
