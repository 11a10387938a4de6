//! From a decision to a response head: choose an endpoint, connect, send, wait.
//!
//! What to choose and how long to hold it against an endpoint is `upstream`'s business. A request
//! is sent to another endpoint only if nothing of it was sent, or if it is idempotent and a
//! connection from the pool turned out to be closed (RFC 9110 §9.2.2).

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use portcullis_core::policy::BodyUse;
use portcullis_core::{BodyLength, Problem, codes};
use portcullis_http1::{HeadLimits, RequestWire, ResponseFacts, ResponseKind, request_framing};
use portcullis_snapshot::{Backend, HostHeader, Route};
use portcullis_upstream::{EndpointIndex, InFlight, Permit, Tried};

use crate::backend::{BackendConnection, HeadFailure};
use crate::client::{Client, ClientError};
use crate::deadline::{Deadline, Expired, Wait};
use crate::gateway::Active;
use crate::prepare;
use crate::relay::{Filters, Upload};
use crate::slot::Slot;
use crate::worker::Worker;

/// Endpoints tried for one request.
const ATTEMPTS_MAX: u32 = 4;

/// A response that has begun to arrive.
pub(crate) struct Arrived {
    pub(crate) connection: Box<BackendConnection>,
    pub(crate) facts: ResponseFacts,
    pub(crate) upload: Upload,
    pub(crate) idle_max: usize,
    _in_flight: InFlight,
}

/// Why there is no response.
enum Failure {
    Client(ClientError),
    Head(HeadFailure),
    Switching,
    Timeout,
}

pub(crate) async fn forward<C: Client>(
    worker: &Rc<Worker>,
    active: &Active,
    client: &mut C,
    slot: &mut Slot,
    route: &Route,
    backend: &Arc<Backend>,
) -> Result<Arrived, ClientError> {
    let peer = slot.exchange.connection.peer.ip().to_canonical();
    let listener = &active.snapshot.listeners[usize::from(slot.exchange.connection.listener)];
    let trusts = |hop| listener.trusts(hop);
    prepare::prepare(&mut slot.exchange, peer, trusts, backend.forwarded).map_err(refused)?;
    let mut upload = upload(slot, route, listener.timeouts.body);
    let series = &active.backends[usize::from(backend.index)];
    let mut tried = Tried::default();
    let authority = slot.exchange.request.authority;
    loop {
        let now = slot.exchange.now.mono;
        let random = slot.exchange.random.rotate_left(slot.trip.retries + 32);
        let Some(index) = backend.balancer.pick(now, random, &tried) else {
            return Err(refused(unavailable(slot)));
        };
        let endpoint = Arc::clone(backend.balancer.endpoint(index));
        slot.trip.endpoint = Some(Arc::clone(&endpoint));
        series.attempt(worker.metrics.id(), slot.trip.retries > 0);
        let in_flight = endpoint.start_request();
        let mut connection = match acquire(worker, client, backend, index).await {
            Ok(connection) => connection,
            Err(NoConnection::Busy) => {
                return Err(refused(Problem::new(codes::BACKEND_BUSY).detail(&*backend.name)));
            }
            Err(NoConnection::Failed(error)) => {
                slot.exchange.now = worker.shared.world.clock().now();
                endpoint.connect_failed(slot.exchange.now.mono);
                slot.trip.detail = format!("{}: {error}", endpoint.url());
                if !tried.insert(index) || slot.trip.retries + 1 >= ATTEMPTS_MAX {
                    return Err(refused(unavailable(slot)));
                }
                slot.trip.retries += 1;
                continue;
            }
        };
        if !connection.reused {
            series.connected(worker.metrics.id());
        }
        slot.exchange.request.authority = authority;
        name_host(slot, backend, index);
        let result = heads(worker, client, slot, route, &mut connection, &mut upload).await;
        slot.trip.bytes_in = upload.received;
        let failure = match result {
            Ok(facts) => {
                let waited = worker.shared.world.clock().mono().saturating_sub(now);
                slot.trip.backend_time = Some(slot.trip.backend_time.unwrap_or_default() + waited);
                let idle_max = backend.idle_max as usize;
                return Ok(Arrived { connection, facts, upload, idle_max, _in_flight: in_flight });
            }
            Err(failure) => failure,
        };
        let stale = matches!(failure, Failure::Head(HeadFailure::Silent(_)));
        if stale
            && connection.reused
            && upload.is_untouched()
            && slot.exchange.request.method.is_idempotent()
            && slot.trip.retries + 1 < ATTEMPTS_MAX
        {
            slot.trip.retries += 1;
            slot.response.clear();
            upload.restart();
            continue;
        }
        return Err(explain(failure, &connection));
    }
}

/// The request's body as the route wants it sent.
fn upload(slot: &mut Slot, route: &Route, pause: Duration) -> Upload {
    let exchange = &mut slot.exchange;
    let policies = &route.policies[..slot.trip.seen];
    let chain: Vec<_> = match route.request_body {
        BodyUse::Untouched => Vec::new(),
        _ => policies.iter().filter_map(|placed| placed.policy.request_filter(exchange)).collect(),
    };
    let buffered = policies
        .iter()
        .any(|placed| matches!(placed.policy.request_body(), BodyUse::Buffered { .. }));
    let mut filters = Filters::new(chain);
    let mut held = buffered.then(|| std::mem::take(&mut exchange.request_body));
    if let Some(body) = &mut held {
        if !filters.is_empty() {
            let mut out = Vec::new();
            let run = filters.run(body, true, &mut |data: &[u8]| out.extend_from_slice(data));
            // A filter that refuses a body that a policy has accepted cuts it off here.
            if run.is_ok() {
                *body = out.into();
            }
        }
        exchange.request.body = BodyLength::of(body.len() as u64);
    } else if !filters.is_empty() && exchange.request.body != BodyLength::Empty {
        exchange.request.body = BodyLength::Unknown;
    }
    Upload::new(held, filters, route.body_bytes_max, slot.trip.bytes_in, pause)
}

enum NoConnection {
    Busy,
    Failed(io::Error),
}

async fn acquire<C: Client>(
    worker: &Rc<Worker>,
    client: &mut C,
    backend: &Backend,
    index: EndpointIndex,
) -> Result<Box<BackendConnection>, NoConnection> {
    let endpoint = backend.balancer.endpoint(index);
    if let Some(connection) = worker.pool.take(endpoint) {
        return Ok(connection);
    }
    let deadline = Rc::clone(client.deadline());
    deadline.set(Wait::Connect, worker.coarse_now() + backend.connect_timeout);
    let permit = match backend.capacity.connections.try_acquire(backend.connections_max) {
        Some(permit) => permit,
        None => match queue(worker, &deadline, backend, index).await? {
            Room::Idle(connection) => return Ok(connection),
            Room::New(permit) => permit,
        },
    };
    let address = backend.endpoint(index);
    let tls = match (&backend.tls, &address.server_name) {
        (Some(tls), Some(name)) if address.https => Some((&tls.config, name)),
        _ => None,
    };
    let now = worker.coarse_now();
    let connect = worker.pool.connect(&address.host, address.port, tls, now);
    let mut connect = std::pin::pin!(connect);
    let io = poll_fn(|cx| match deadline.check(cx) {
        Ok(()) => connect.as_mut().poll(cx),
        Err(Expired(_)) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
    })
    .await
    .map_err(NoConnection::Failed)?;
    endpoint.connected();
    Ok(Box::new(BackendConnection::new(io, Arc::clone(endpoint), Some(permit))))
}

enum Room {
    Idle(Box<BackendConnection>),
    New(Permit),
}

/// Waits until there is a connection or room for one.
async fn queue(
    worker: &Rc<Worker>,
    deadline: &Deadline,
    backend: &Backend,
    index: EndpointIndex,
) -> Result<Room, NoConnection> {
    let capacity = &backend.capacity;
    let pending = capacity.pending.try_acquire(backend.pending_max);
    let _pending = pending.ok_or(NoConnection::Busy)?;
    let endpoint = backend.balancer.endpoint(index);
    poll_fn(|cx| {
        if let Some(connection) = worker.pool.take(endpoint) {
            return Poll::Ready(Ok(Room::Idle(connection)));
        }
        // Looked at first, since each refusal is counted as a request that met the limit.
        if capacity.connections.used() < backend.connections_max
            && let Some(permit) = capacity.connections.try_acquire(backend.connections_max)
        {
            return Poll::Ready(Ok(Room::New(permit)));
        }
        if deadline.check(cx).is_err() {
            return Poll::Ready(Err(NoConnection::Busy));
        }
        worker.pool.queue(cx.waker());
        Poll::Pending
    })
    .await
}

fn name_host(slot: &mut Slot, backend: &Backend, index: EndpointIndex) {
    let request = &mut slot.exchange.request;
    let name = match &backend.host {
        // HTTP/1.0 may name no host; a backend gets to see one all the same.
        HostHeader::Preserve if !request.authority.is_empty() => return,
        HostHeader::Preserve | HostHeader::Endpoint => &backend.endpoint(index).authority,
        HostHeader::Name(name) => name,
    };
    request.authority = request.fields.intern(name.as_bytes());
}

/// Sends the request and waits for a final head, while the body is on its way.
async fn heads<C: Client>(
    worker: &Rc<Worker>,
    client: &mut C,
    slot: &mut Slot,
    route: &Route,
    connection: &mut BackendConnection,
    upload: &mut Upload,
) -> Result<ResponseFacts, Failure> {
    let request = &slot.exchange.request;
    let wire = RequestWire {
        accepts_trailers: slot.accepts_trailers,
        ..RequestWire::new(request_framing(request))
    };
    connection.begin(&worker.buffers, request, &wire);
    let limits = HeadLimits::default();
    let response = &mut slot.response;
    let method = &request.method;
    let pause = upload.pause();
    client.deadline().set(Wait::RequestBody, worker.coarse_now().saturating_add(pause));
    let mut begun = false;
    let mut awaiting = false;
    poll_fn(|cx| {
        if !begun {
            begun = true;
            upload.begin(cx, worker, client, connection).map_err(Failure::Client)?;
        }
        if let Poll::Ready(result) = upload.poll(cx, worker, client, connection) {
            result.map_err(Failure::Client)?;
            if !awaiting {
                awaiting = true;
                let timeout = route.timeouts.response.unwrap_or(Duration::MAX);
                let at = worker.coarse_now().saturating_add(timeout);
                client.deadline().set(Wait::ResponseHead, at);
            }
        }
        loop {
            let head = connection.poll_head(cx, &worker.buffers, &limits, method, response);
            match head {
                Poll::Ready(Ok(facts)) => match facts.kind {
                    ResponseKind::Final => return Poll::Ready(Ok(facts)),
                    ResponseKind::Switching => return Poll::Ready(Err(Failure::Switching)),
                    ResponseKind::Interim => {
                        if response.status.as_u16() == 103 {
                            client.interim(worker, response);
                            let sent = client.poll_flush(cx, worker);
                            if let Poll::Ready(Err(error)) = sent {
                                return Poll::Ready(Err(Failure::Client(error)));
                            }
                        }
                    }
                },
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Head(error))),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(gone) = client.poll_gone(cx) {
            return Poll::Ready(Err(Failure::Client(gone)));
        }
        match client.deadline().check(cx) {
            Ok(()) => Poll::Pending,
            Err(Expired(_)) => Poll::Ready(Err(Failure::Timeout)),
        }
    })
    .await
}

fn refused(problem: Problem) -> ClientError {
    ClientError::Refused(problem)
}

fn unavailable(slot: &mut Slot) -> Problem {
    let detail = std::mem::take(&mut slot.trip.detail);
    match detail.is_empty() {
        true => Problem::new(codes::BACKEND_UNAVAILABLE).detail("no endpoint is in service"),
        false => Problem::new(codes::BACKEND_UNREACHABLE).detail(detail),
    }
}

fn explain(failure: Failure, connection: &BackendConnection) -> ClientError {
    let url = connection.endpoint.url();
    let problem = match failure {
        Failure::Client(error) => return error,
        Failure::Timeout => Problem::new(codes::BACKEND_TIMEOUT).detail(url),
        Failure::Switching => {
            Problem::new(codes::BACKEND_MALFORMED).detail(format_args!("{url}: 101 unasked"))
        }
        Failure::Head(HeadFailure::Malformed(error)) => {
            Problem::new(codes::BACKEND_MALFORMED).detail(format_args!("{url}: {error}"))
        }
        Failure::Head(HeadFailure::Silent(error) | HeadFailure::Cut(error)) => {
            Problem::new(codes::BACKEND_CLOSED).detail(format_args!("{url}: {error}"))
        }
    };
    refused(problem)
}
