//! What policies do to requests on purpose, carried out and counted. A request that is late on
//! purpose takes up what it would at a slow backend: its seats in the bulkheads and its deadlines.
//!
//! Which requests those are is the policy's business.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use portcullis_core::exchange::Held;
use portcullis_core::{Problem, codes};
use portcullis_snapshot::Route;
use portcullis_telemetry::metrics::Fault;

use crate::client::{Client, ClientError};
use crate::deadline::Wait;
use crate::gateway::Active;
use crate::slot::{Slot, Trip};
use crate::worker::Worker;

/// Lets the request wait, as long as the route and its client would for an answer. Whoever fails
/// here has not been at the backend, and counts for neither it nor its variant.
pub(crate) async fn hold<C: Client>(
    worker: &Rc<Worker>,
    active: &Active,
    client: &mut C,
    slot: &mut Slot,
    route: &Route,
    held: Held,
) -> Result<(), ClientError> {
    note(worker, active, &mut slot.trip, Fault::Delay);
    let meant_for = (slot.trip.backend.take(), slot.trip.variant.take());
    let response = route.timeouts.response.unwrap_or(Duration::MAX);
    client.deadline().set(Wait::ResponseHead, worker.coarse_now().saturating_add(response));
    let since = worker.shared.world.clock().mono();
    let mut sleep = pin!(worker.shared.world.clock().sleep(held.wait));
    let waited = poll_fn(|cx| {
        if sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(true));
        }
        if let Poll::Ready(gone) = client.poll_gone(cx) {
            return Poll::Ready(Err(gone));
        }
        match client.deadline().check(cx) {
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(Ok(false)),
        }
    });
    let in_time = waited.await;
    slot.exchange.now = worker.shared.world.clock().now();
    slot.trip.waited(slot.exchange.now.mono.saturating_sub(since));
    if !in_time? {
        let problem =
            Problem::new(codes::FAULT_INJECTED).answered(StatusCode::GATEWAY_TIMEOUT, None);
        return Err(ClientError::Refused(problem.detail("the time was over while it waited")));
    }
    if let Some(problem) = held.then {
        note(worker, active, &mut slot.trip, Fault::Abort);
        return Err(ClientError::Refused(problem));
    }
    (slot.trip.backend, slot.trip.variant) = meant_for;
    Ok(())
}

/// Counts the refusal if it is one on purpose.
pub(crate) fn refused(worker: &Worker, active: &Active, trip: &mut Trip, problem: &Problem) {
    if problem.code.name == codes::FAULT_INJECTED.name {
        note(worker, active, trip, Fault::Abort);
    }
}

fn note(worker: &Worker, active: &Active, trip: &mut Trip, fault: Fault) {
    trip.fault = Some(match (trip.fault, fault) {
        (Some(_), Fault::Abort) => "delay, abort",
        (_, fault) => fault.label(),
    });
    if let Some(series) = trip.route.and_then(|route| active.routes.get(route)) {
        series.faulted(worker.metrics.id(), fault);
    }
}
