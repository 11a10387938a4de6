//! The way of one request, top to bottom. Read this file first.
//!
//! HTTP/1.1 and HTTP/2 both come here, with a head that is filled in and a [`Client`] to answer.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use portcullis_core::exchange::Connection;
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::services::LocalFuture;
use portcullis_core::{Exchange, Problem, Reply, codes, grpc};
use portcullis_snapshot::{RequestBody, Verdict, decide};

use crate::bounds;
use crate::certificate;
use crate::circuit;
use crate::client::{Client, ClientError};
use crate::deadline::Wait;
use crate::fault;
use crate::finish::finish;
use crate::forward::{Arrived, forward};
use crate::gateway::Active;
use crate::listener::Place;
use crate::max_forwards;
use crate::patience;
use crate::slot::Slot;
use crate::watch::Watch;
use crate::wire::Progress;
use crate::worker::Worker;

/// Where the answer comes from.
pub(crate) enum Answer {
    Backend(Arrived),
    Here(Reply),
    /// The client is gone: nobody is to be answered.
    Nobody(String),
}

/// Answers one request.
pub(crate) async fn serve<C: Client>(worker: &Rc<Worker>, client: &mut C, slot: &mut Slot) {
    worker.catch_up();
    let active = worker.active();
    seat(client.place(), slot);
    let outcome = unwound(pin!(answer(worker, &active, client, slot))).await;
    let answer = match outcome {
        Some(Ok(answer)) => answer,
        Some(Err(ClientError::Gone(reason))) => Answer::Nobody(reason),
        Some(Err(ClientError::Refused(problem))) => {
            if let Some(bound) = bounds::of_problem(&problem) {
                worker.metrics.bound(bound);
            }
            refuse(slot, problem)
        }
        None => panicked(worker, slot),
    };
    finish(worker, &active, client, slot, answer).await;
    client.deadline().lift_ceiling();
}

/// Where the listener stands in the configuration that answers. A reload may have moved it since
/// the client connected, or taken it away: then nothing of the new configuration is this client's.
fn seat(place: &Place, slot: &mut Slot) {
    let connection = &mut slot.exchange.connection;
    let listener = if place.is_closed() { u16::MAX } else { place.index() };
    if connection.listener != listener {
        *connection = Rc::new(Connection { listener, ..Connection::clone(connection) });
    }
    if place.is_closed() {
        let problem = Problem::new(codes::MISDIRECTED_REQUEST).detail("its listener is gone");
        slot.refused.get_or_insert(problem);
    } else if let Err(problem) = certificate::seat(&place.listener(), &mut slot.exchange) {
        slot.refused.get_or_insert(problem);
    }
}

/// The way down: route, policies, backend. Each `?` is an early answer.
async fn answer<C: Client>(
    worker: &Rc<Worker>,
    active: &Active,
    client: &mut C,
    slot: &mut Slot,
) -> Result<Answer, ClientError> {
    if let Some(problem) = slot.refused.take() {
        return Err(ClientError::Refused(problem));
    }
    let snapshot = &active.snapshot;
    let Slot { exchange, trip, .. } = slot;
    let mut watch = Watch::new(worker, active, client.place());
    let mut body = Body { worker, client, received: &mut trip.bytes_in };
    let decision = decide(snapshot, exchange, &mut body, &worker.shared.world, &mut watch).await;
    trip.route = decision.route.map(|index| index.0 as usize);
    trip.seen = decision.seen;
    let (route, number) = match (decision.verdict, trip.route) {
        (Verdict::Forward { backend, variant }, Some(route)) => {
            trip.variant = variant;
            (route, backend)
        }
        (Verdict::Reply(reply), _) => return Ok(Answer::Here(reply)),
        (Verdict::Refuse(problem), Some(route))
            if is_planted(Fault::AuthAfterForward) && snapshot.routes[route].to.is_some() =>
        {
            let (route, backend) = (&snapshot.routes[route], &snapshot.backends[0]);
            drop(forward(worker, active, client, slot, route, backend).await);
            return Err(ClientError::Refused(problem));
        }
        (Verdict::Refuse(problem), _) => {
            fault::refused(worker, active, trip, &problem);
            return Err(ClientError::Refused(problem));
        }
        (Verdict::Forward { .. } | Verdict::Unknown { .. }, _) => {
            return Err(ClientError::Refused(Problem::new(codes::INTERNAL)));
        }
    };
    if let Some(reply) = max_forwards::spend(&mut exchange.request) {
        return Ok(Answer::Here(reply));
    }
    trip.backend = Some(usize::from(number));
    let backend = &snapshot.backends[usize::from(number)];
    let route = &snapshot.routes[route];
    let connection = &exchange.connection;
    let trusted = || {
        let listener = &snapshot.listeners[usize::from(connection.listener)];
        listener.trusts(connection.peer.ip().to_canonical())
    };
    let asked = patience::asked(&mut exchange.request, route, trusted);
    if let Some(total) = [asked, route.timeouts.total].into_iter().flatten().min() {
        client.deadline().set_ceiling(Wait::Total, trip.begun.saturating_add(total));
    }
    let entered = circuit::enter(backend, slot.exchange.now.mono)?;
    let mut arrived = forward(worker, active, client, slot, route, backend).await;
    if let Some(entered) = entered {
        match &mut arrived {
            Ok(Arrived { call: Some(call), .. }) => call.hold(entered.keep()),
            _ => {
                let ceiling = client.deadline().ceiling();
                entered.ended(&arrived, slot, route, ceiling, worker.shared.world.clock().mono());
            }
        }
    }
    arrived.map(Answer::Backend)
}

/// The only place where a problem becomes an answer.
pub(crate) fn refuse(slot: &mut Slot, mut problem: Problem) -> Answer {
    slot.trip.note(&mut problem);
    let Exchange { request, request_id, .. } = &slot.exchange;
    Answer::Here(match grpc::is_grpc(&request.fields) {
        true => problem.into_grpc_reply(request_id.as_str()),
        false => problem.into_reply(request_id.as_str()),
    })
}

/// The answer to a request over which something panicked.
pub(crate) fn panicked(worker: &Worker, slot: &mut Slot) -> Answer {
    worker.metrics.panicked();
    refuse(slot, Problem::new(codes::INTERNAL).detail("panic"))
}

/// Runs a future where it is, since they are large; `None` if it panicked. A panic is our bug and
/// costs one request.
pub(crate) async fn unwound<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// The request's body, for policies that want the whole of it.
struct Body<'a, C> {
    worker: &'a Worker,
    client: &'a mut C,
    received: &'a mut u64,
}

impl<C: Client> RequestBody for Body<'_, C> {
    fn collect(&mut self, bytes_max: usize) -> LocalFuture<'_, Result<Bytes, Problem>> {
        Box::pin(async move {
            let mut whole = Vec::new();
            loop {
                let progress = poll_fn(|cx| {
                    let mut sink = |data: &[u8]| whole.extend_from_slice(data);
                    self.client.poll_body(cx, self.worker, true, &mut sink)
                });
                let progress = progress.await;
                *self.received = whole.len() as u64;
                if whole.len() > bytes_max {
                    return Err(Problem::new(codes::BODY_TOO_LARGE));
                }
                match progress {
                    Ok(Progress::End) => return Ok(whole.into()),
                    Ok(Progress::More) => {}
                    Err(ClientError::Refused(problem)) => return Err(problem),
                    Err(ClientError::Gone(reason)) => {
                        return Err(Problem::new(codes::MALFORMED_REQUEST).detail(reason));
                    }
                }
            }
        })
    }
}
