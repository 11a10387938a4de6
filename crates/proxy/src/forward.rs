//! From a decision to a response head: choose an endpoint, connect, send, wait.
//!
//! What to choose and how long to hold it against an endpoint is `upstream`'s business, whether a
//! request is sent again that of `retry`.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use portcullis_core::policy::BodyUse;
use portcullis_core::{BodyLength, Problem, RequestHead, Version, codes, websocket};
use portcullis_http1::{HeadLimits, RequestWire, request_framing};
use portcullis_snapshot::{Backend, Chosen, HostHeader, Route};
use portcullis_upstream::{EndpointIndex, InFlight, Tried, Verdict};

use crate::backend::{Begin, HeadFailure, HeadKind, Leg};
use crate::bulkhead::{self, Seats};
use crate::call::{Call, Told, told};
use crate::certificate;
use crate::circuit;
use crate::client::{Client, ClientError};
use crate::deadline::{Expired, Wait};
use crate::dial::{self, NoConnection, Wish};
use crate::fault;
use crate::gateway::Active;
use crate::hedge::{Race, Runner};
use crate::mirror;
use crate::patience;
use crate::prepare;
use crate::relay::{Filters, Upload};
use crate::retry::{Tries, discard, pause};
use crate::slot::Slot;
use crate::worker::Worker;

/// 1xx heads before the final one.
pub(crate) const INTERIMS_MAX: u32 = 32;
/// How long a backend may leave `Expect: 100-continue` without an answer.
const CONTINUE: Duration = Duration::from_secs(1);

/// When whoever finds no endpoint in service may come again: by then those who look for endpoints
/// have looked once more.
const UNAVAILABLE: Duration = Duration::from_secs(5);

/// A response that has begun to arrive.
pub(crate) struct Arrived {
    pub(crate) leg: Leg,
    pub(crate) kind: HeadKind,
    pub(crate) upload: Upload,
    pub(crate) idle_max: usize,
    pub(crate) seats: Seats,
    pub(crate) in_flight: InFlight,
    /// A call of gRPC, of which only the end tells what came of it.
    pub(crate) call: Option<Box<Call>>,
}

/// Why there is no response.
pub(crate) enum Failure {
    Client(ClientError),
    Head(HeadFailure),
    NoWebSocket,
    Timeout,
    /// The time of one try is over; there may be others.
    Try,
    /// It is time to ask another endpoint as well.
    Slow,
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
    let extended = slot.websocket && slot.exchange.request.version == Version::Http2;
    if extended && !route.websocket {
        let detail = "the route upgrades nothing";
        return Err(refused(Problem::new(codes::METHOD_NOT_ALLOWED).detail(detail)));
    }
    prepare::prepare(&mut slot.exchange, peer, trusts, backend.forwarded).map_err(refused)?;
    if let (Some(variant), Some(to)) = (slot.trip.variant, &route.to) {
        let name = &to.variants[usize::from(variant.at)].name;
        prepare::tell_variant(&mut slot.exchange.request.fields, name);
    }
    if backend.forward_certificate {
        certificate::forward(&mut slot.exchange);
    }
    let mut upload = upload(slot, route, listener.timeouts.body);
    let accept = match slot.websocket && route.websocket {
        true => Some(open_websocket(worker, slot)),
        false => None,
    };
    let wish = Wish {
        upgrade: accept.is_some(),
        client: slot.exchange.connection.peer,
        bind: listener.bind.tcp(),
        by: None,
        ceiling: client.deadline().ceiling(),
    };
    let drawn = route.mirror.as_ref().and_then(|mirror| {
        let of = (route, mirror);
        mirror::draw(worker, active, client, slot, of, &mut upload, accept.is_some())
    });
    let series = &active.backends[usize::from(backend.index)];
    let seats = bulkhead::enter(worker, client, slot, route, backend).await?;
    if let Some(held) = slot.exchange.held.take() {
        // Boxed, since hardly any request is late on purpose.
        Box::pin(fault::hold(worker, active, client, slot, route, *held)).await?;
    }
    let key = backend.hash.as_ref().and_then(|hash| hash.of(&slot.exchange));
    let set = backend.endpoints.load();
    let authority = slot.exchange.request.authority;
    let home = set.home(&slot.exchange);
    let tried = Tried::default();
    let subset =
        route.to.as_ref().and_then(|to| to.subset(slot.trip.variant.map(|picked| picked.at)));
    let mut tries = Tries { route, backend, set: &set, tried, key, home, subset, authority };
    let mut hedged = accept.is_some();
    backend.budget.request();
    let mut chosen = None;
    loop {
        let mut now = slot.exchange.now.mono;
        if now >= wish.ceiling {
            worker.metrics.deadline(Wait::Total.kind());
            return Err(refused(late(&backend.name)));
        }
        let Some((mut index, mut in_flight)) = tries.start(slot, chosen.take()) else {
            return Err(refused(unavailable(slot, &tries)));
        };
        let to = set.at(index);
        let endpoint = Arc::clone(to.endpoint);
        slot.trip.endpoint = Some(Arc::clone(&endpoint));
        series.attempt(worker.metrics.id(), slot.trip.retries > 0);
        if let Some(local) = set.balancer.is_in_own_zone(index) {
            series.zoned(worker.metrics.id(), local);
        }
        let deadline = Rc::clone(client.deadline());
        let wish = Wish { by: slot.trip.answer_by, ..wish };
        let mut leg = match dial::acquire(worker, &deadline, backend, to, wish).await {
            Ok(leg) => leg,
            Err(NoConnection::Late) => return Err(refused(late(endpoint.url()))),
            Err(NoConnection::Busy(why)) => {
                let detail = format_args!("no connection to backend {}: {why}", backend.name);
                let problem = Problem::new(codes::BACKEND_BUSY).detail(detail);
                return Err(refused(problem.retry_after(bulkhead::RETRY_AFTER)));
            }
            Err(NoConnection::Failed(error)) => {
                slot.exchange.now = worker.shared.world.clock().now();
                endpoint.connect_failed(slot.exchange.now.mono);
                let waited = slot.exchange.now.mono.saturating_sub(now);
                circuit::tried(&tries, &mut in_flight, Verdict::Error, waited, now);
                slot.trip.detail = format!("{}: {error}", endpoint.url());
                if !tries.after_connect(slot, index) {
                    return Err(refused(unavailable(slot, &tries)));
                }
                slot.trip.retries += 1;
                continue;
            }
        };
        if !leg.is_reused() {
            series.connected(worker.metrics.id());
        }
        address(worker, slot, &tries, index, wish.ceiling);
        slot.trip.hedge_after = if hedged { None } else { tries.hedge_after(slot) };
        let mut outcome = match accept.is_none() || takes_connect(&leg) {
            true => heads(worker, client, slot, route, &mut leg, &mut upload, accept).await,
            false => Err(Failure::NoWebSocket),
        };
        slot.trip.bytes_in = upload.received;
        if matches!(outcome, Err(Failure::Slow)) {
            hedged = true;
            let first = Runner { leg, index, in_flight, since: now };
            let race = Race { worker, series, tries: &mut tries, upload: &upload, wish };
            let heard;
            // Few requests come here, and what they need is not to be in the way of the others.
            (heard, outcome) = Box::pin(race.run(client, slot, first)).await;
            Runner { leg, index, in_flight, since: now } = heard;
            slot.trip.endpoint = Some(Arc::clone(leg.endpoint()));
        }
        // To a client of extended CONNECT it would say that there is a WebSocket (RFC 8441 §5).
        if matches!(outcome, Ok(HeadKind::Final { .. }))
            && extended
            && slot.response.status.is_success()
        {
            outcome = Err(Failure::NoWebSocket);
        }
        let waited = worker.shared.world.clock().mono().saturating_sub(now);
        let head = &slot.response;
        let verdict = circuit::verdict(&outcome, head, slot, route, &leg, now + waited);
        if backend.adaptive && tells_of_load(&outcome, verdict) {
            backend.capacity.answered(waited, now + waited, backend.requests_max);
        }
        let goes_on = outcome.is_ok() && told(&leg, &slot.exchange.request, head) == Told::Later;
        if let Some(verdict) = verdict.filter(|_| !goes_on) {
            circuit::tried(&tries, &mut in_flight, verdict, waited, now);
        }
        if let Some(next) = tries.next(worker, client, slot, (&leg, index), &outcome, &upload) {
            let whole = outcome.is_ok() && upload.is_complete();
            discard(worker, leg, whole, backend);
            drop(in_flight);
            slot.trip.retries += 1;
            slot.response.clear();
            upload.restart();
            if next.endpoint.is_some() {
                slot.trip.waited(waited);
                pause(worker, client, next.wait).await?;
                slot.exchange.now = worker.shared.world.clock().now();
            }
            chosen = next.endpoint;
            continue;
        }
        let kind = match outcome {
            Ok(kind) => kind,
            Err(failure) => return Err(explain(failure, &leg)),
        };
        slot.trip.waited(waited);
        if route.retry.hedge.is_some() {
            backend.tail.observe(waited);
        }
        if let Some(drawn) = drawn {
            drawn.copy(slot, &mut upload, (authority, wish), waited);
        }
        let secure = slot.exchange.connection.tls.is_some();
        set.stay(home, index, secure, &mut slot.response.fields);
        if let (HeadKind::Tunnel, Some(accept)) = (kind, &accept) {
            grant_websocket(slot, accept);
        }
        let idle_max = backend.idle_max as usize;
        let call = goes_on.then(|| Call::new(backend, &set, &in_flight, waited, now + waited));
        return Ok(Arrived { leg, kind, upload, idle_max, seats, in_flight, call });
    }
}

/// Whether how long this took says how much the backend has to do: an answer that is no failure, or
/// none in time. What fails does so quickly or slowly for reasons of its own.
fn tells_of_load(outcome: &Result<HeadKind, Failure>, verdict: Option<Verdict>) -> bool {
    match outcome {
        Ok(_) => verdict == Some(Verdict::Well),
        Err(Failure::Timeout | Failure::Try) => true,
        Err(_) => false,
    }
}

/// The request's body as the route wants it sent.
fn upload(slot: &mut Slot, route: &Route, pause: Duration) -> Upload {
    let exchange = &mut slot.exchange;
    if slot.websocket && route.websocket {
        // What opens a WebSocket has no body, whatever a policy may have made of it.
        exchange.request.body = BodyLength::Empty;
        let (none, most) = (Filters::default(), route.body_bytes_max);
        return Upload::new(None, none, None, most, slot.trip.bytes_in, pause);
    }
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
    // Without a body there are no trailers.
    let decided = match exchange.request.body {
        BodyLength::Empty => None,
        _ => route.request_fields.clone(),
    };
    let keeps = keeps_body(slot, route) && held.is_none();
    let (most, received) = (route.body_bytes_max, slot.trip.bytes_in);
    let upload = Upload::new(held, filters, decided, most, received, pause);
    if keeps { upload.keep(route.retry.body_bytes_max) } else { upload }
}

/// Whether the body may have to be sent again, and is short enough as far as one can tell.
fn keeps_body(slot: &Slot, route: &Route) -> bool {
    let (retry, request) = (&route.retry, &slot.exchange.request);
    let fits = match request.body {
        BodyLength::Empty => false,
        BodyLength::Known(length) => length <= retry.body_bytes_max as u64,
        BodyLength::Unknown => true,
    };
    fits && retry.repeats() && (retry.non_idempotent || request.method.is_idempotent())
}

/// Says in the head what only this endpoint is told: its host, and how long there is.
pub(crate) fn address(
    worker: &Worker,
    slot: &mut Slot,
    tries: &Tries<'_>,
    index: EndpointIndex,
    ceiling: Duration,
) {
    let request = &mut slot.exchange.request;
    request.authority = tries.authority;
    name_host(request, tries.backend, tries.set.at(index));
    if ceiling != Duration::MAX {
        let left = ceiling.saturating_sub(worker.shared.world.clock().mono());
        patience::tell(request, tries.route, left);
    }
}

pub(crate) fn name_host(request: &mut RequestHead, backend: &Backend, to: Chosen<'_>) {
    let name = match &backend.host {
        // HTTP/1.0 may name no host; a backend gets to see one all the same.
        HostHeader::Preserve if !request.authority.is_empty() => return,
        HostHeader::Preserve | HostHeader::Endpoint => &to.address.authority,
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
    leg: &mut Leg,
    upload: &mut Upload,
    accept: Option<[u8; 28]>,
) -> Result<HeadKind, Failure> {
    let request = &slot.exchange.request;
    // The backend decides whether the body is to be sent, unless it is here already.
    let mut holds = client.awaits_continue() && !upload.is_held();
    let wire = RequestWire {
        accepts_trailers: slot.accepts_trailers,
        expect_continue: holds,
        upgrade: accept.map(|_| &b"websocket"[..]),
        ..RequestWire::new(request_framing(request))
    };
    leg.begin(&worker.buffers, request, &Begin { wire, accept });
    let limits = HeadLimits::default();
    let response = &mut slot.response;
    let answer_by = &mut slot.trip.answer_by;
    let method = &request.method;
    let deadline = Rc::clone(client.deadline());
    match holds {
        true => deadline.set(Wait::Continue, worker.coarse_now() + CONTINUE),
        false => {
            deadline.set(Wait::RequestBody, worker.coarse_now().saturating_add(upload.pause()))
        }
    }
    let hedge_after = slot.trip.hedge_after;
    let mut patience: Option<Pin<Box<dyn Future<Output = ()> + '_>>> = None;
    let mut begun = false;
    let mut awaiting = false;
    let mut interims = 0;
    poll_fn(|cx| {
        loop {
            if holds {
                // What cannot be sent shows when the head is read.
                let _sent = leg.poll_flush(cx, &worker.buffers);
                if deadline.check(cx).is_err() {
                    // A backend that says nothing must not keep the client from sending for ever
                    // (RFC 9110 §10.1.1).
                    holds = false;
                    let at = worker.coarse_now().saturating_add(upload.pause());
                    deadline.set(Wait::RequestBody, at);
                }
            }
            if !holds && !begun {
                begun = true;
                upload.begin(cx, worker, client, leg).map_err(Failure::Client)?;
            }
            if begun && let Poll::Ready(result) = upload.poll(cx, worker, client, leg) {
                result.map_err(Failure::Client)?;
                if !awaiting {
                    awaiting = true;
                    let now = worker.coarse_now();
                    let within =
                        |wait: Option<Duration>| now.saturating_add(wait.unwrap_or(Duration::MAX));
                    // All tries together have as long as one would have.
                    let by = *answer_by.get_or_insert(within(route.timeouts.response));
                    let try_by = within(route.retry.per_try);
                    match try_by < by {
                        true => deadline.set(Wait::Try, try_by),
                        false => deadline.set(Wait::ResponseHead, by),
                    }
                    let whole = upload.is_complete() && upload.is_repeatable();
                    if let Some(after) = hedge_after.filter(|_| whole) {
                        patience = Some(Box::pin(worker.shared.world.clock().sleep(after)));
                    }
                }
            }
            match leg.poll_head(cx, &worker.buffers, &limits, method, response) {
                Poll::Ready(Ok(HeadKind::Interim)) => {
                    interims += 1;
                    if interims > INTERIMS_MAX {
                        let failure = HeadFailure::Malformed("too many interim answers".to_owned());
                        return Poll::Ready(Err(Failure::Head(failure)));
                    }
                    if holds && response.status == StatusCode::CONTINUE {
                        holds = false;
                        let at = worker.coarse_now().saturating_add(upload.pause());
                        deadline.set(Wait::RequestBody, at);
                    }
                    if response.status.as_u16() == 103 {
                        client.interim(worker, response);
                        if let Poll::Ready(Err(error)) = client.poll_flush(cx, worker) {
                            return Poll::Ready(Err(Failure::Client(error)));
                        }
                    }
                }
                Poll::Ready(Ok(kind)) => {
                    if holds {
                        upload.abandon();
                    }
                    return Poll::Ready(Ok(kind));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Head(error))),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(gone) = client.poll_gone(cx) {
            return Poll::Ready(Err(Failure::Client(gone)));
        }
        if let Some(patience) = &mut patience
            && patience.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(Failure::Slow));
        }
        match deadline.check(cx) {
            Ok(()) => Poll::Pending,
            Err(Expired(Wait::Try)) => Poll::Ready(Err(Failure::Try)),
            Err(Expired(_)) => Poll::Ready(Err(Failure::Timeout)),
        }
    })
    .await
}

/// What a WebSocket's opening needs of the head (RFC 6455 §4.1): the client's key, or one of the
/// gateway's own for a client that has none because it speaks HTTP/2 (RFC 8441 §5). Returns the
/// backend's right answer to it.
fn open_websocket(worker: &Worker, slot: &mut Slot) -> [u8; 28] {
    let fields = &mut slot.exchange.request.fields;
    if slot.exchange.request.version == Version::Http2 {
        let random = [worker.random().to_le_bytes(), worker.random().to_le_bytes()].concat();
        fields.set(b"sec-websocket-key", STANDARD.encode(random).as_bytes());
    }
    websocket::accept_key(fields.get(b"sec-websocket-key").unwrap_or_default())
}

/// Makes the answer to the client of the backend's, which may speak another version.
fn grant_websocket(slot: &mut Slot, accept: &[u8; 28]) {
    let response = &mut slot.response;
    response.body = BodyLength::Unknown;
    response.fields.remove(b"sec-websocket-accept");
    if slot.exchange.request.version == Version::Http2 {
        response.status = StatusCode::OK;
    } else {
        response.status = StatusCode::SWITCHING_PROTOCOLS;
        response.fields.append(b"sec-websocket-accept", accept);
    }
}

/// HTTP/2 carries a WebSocket only where the backend's settings say so (RFC 8441 §3).
fn takes_connect(leg: &Leg) -> bool {
    match leg {
        Leg::H1(_) => true,
        Leg::H2(stream) => stream.takes_connect(),
    }
}

fn late(url: &str) -> Problem {
    Problem::new(codes::BACKEND_TIMEOUT).detail(url)
}

fn refused(problem: Problem) -> ClientError {
    ClientError::Refused(problem)
}

fn unavailable(slot: &mut Slot, tries: &Tries<'_>) -> Problem {
    let detail = std::mem::take(&mut slot.trip.detail);
    if !detail.is_empty() {
        return Problem::new(codes::BACKEND_UNREACHABLE).detail(detail);
    }
    let ask = tries.ask(slot);
    match tries.set.balancer.opens_in(&ask) {
        Some(wait) => circuit::open("every endpoint's", wait),
        None => {
            let problem = Problem::new(codes::BACKEND_UNAVAILABLE).retry_after(UNAVAILABLE);
            let subsets = &tries.set.balancer.settings().subsets;
            match ask.subset.and_then(|number| subsets.get(usize::from(number))) {
                Some(subset) => {
                    problem.detail(format_args!("no endpoint with {subset} is in service"))
                }
                None => problem.detail("no endpoint is in service"),
            }
        }
    }
}

fn explain(failure: Failure, leg: &Leg) -> ClientError {
    let url = leg.endpoint().url();
    let problem = match failure {
        Failure::Client(error) => return error,
        Failure::Timeout | Failure::Try | Failure::Slow => late(url),
        Failure::NoWebSocket => {
            Problem::new(codes::BACKEND_MALFORMED).detail(format_args!("{url} opens no WebSocket"))
        }
        Failure::Head(HeadFailure::Malformed(error)) => {
            Problem::new(codes::BACKEND_MALFORMED).detail(format_args!("{url}: {error}"))
        }
        Failure::Head(
            HeadFailure::Refused(error) | HeadFailure::Silent(error) | HeadFailure::Cut(error),
        ) => Problem::new(codes::BACKEND_CLOSED).detail(format_args!("{url}: {error}")),
    };
    refused(problem)
}
