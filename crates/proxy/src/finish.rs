//! The way up, and the only way out: each policy that saw the request sees the answer, in reverse;
//! the answer is sent; the request is counted and logged exactly once.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::policy::{BodyUse, ReplyBody};
use portcullis_core::{BodyLength, Exchange, Known, Problem, Step, Version, codes};
use portcullis_snapshot::{PickedBy, Route};
use portcullis_telemetry::metrics::{Observation, RouteSeries};
use portcullis_telemetry::recent::Decided;
use portcullis_telemetry::record::Record;

use crate::backend::{HeadKind, Leg};
use crate::bounds;
use crate::call;
use crate::client::{Client, Respond};
use crate::deadline::Wait;
use crate::forward::Arrived;
use crate::gateway::Active;
use crate::relay::{Cut, Download, Filters, gone};
use crate::serve::{Answer, panicked, refuse, unwound};
use crate::slot::{Slot, Trip};
use crate::tunnel::Tunnel;
use crate::wire::Progress;
use crate::worker::Worker;

pub(crate) async fn finish<C: Client>(
    worker: &Rc<Worker>,
    active: &Active,
    client: &mut C,
    slot: &mut Slot,
    answer: Answer,
) {
    let route = slot.trip.route.map(|route| &*active.snapshot.routes[route]);
    let mut source = settle(slot, answer);
    if let Some(route) = route
        && !matches!(source, Source::Nobody)
    {
        let passed = unwound(pin!(way_up(worker, client, slot, route, source))).await;
        source = match passed {
            Some(source) => source,
            None => {
                let answer = panicked(worker, slot);
                settle(slot, answer)
            }
        };
    }
    if is_false_grant(slot, &source) {
        let problem = Problem::new(codes::METHOD_NOT_ALLOWED).detail("no WebSocket here");
        let answer = refuse(slot, problem);
        source = settle(slot, answer);
    }
    let cut = match source {
        Source::Nobody => Some(Cut::Client(std::mem::take(&mut slot.trip.detail))),
        source => {
            let id = slot.exchange.request_id;
            slot.response.fields.remove_known(Known::XRequestId);
            slot.response.fields.append_known(Known::XRequestId, id.as_bytes());
            // Whoever answers or passes on an answer without one says when (RFC 9110 §6.6.1).
            if slot.response.fields.known(Known::Date).is_none() {
                worker.append_date(&mut slot.response.fields, slot.exchange.now.wall);
            }
            let sent = unwound(pin!(send(worker, active, client, slot, route, source))).await;
            match sent {
                Some(sent) => sent.err(),
                None => {
                    worker.metrics.panicked();
                    Some(Cut::Gateway("panic".to_owned()))
                }
            }
        }
    };
    let mut status = slot.response.status.as_u16();
    if let Some(cut) = cut {
        client.abort();
        if let (Cut::Backend(_), Some(endpoint), false) =
            (&cut, &slot.trip.endpoint, slot.trip.judged)
        {
            endpoint.broke_off();
        }
        let (code, reason) = match cut {
            Cut::Client(reason) => ("client-closed", reason),
            Cut::Backend(reason) => ("backend-closed", reason),
            Cut::Gateway(reason) => (codes::INTERNAL.name, reason),
        };
        if slot.trip.problem.is_none() && code == "client-closed" && slot.trip.bytes_out == 0 {
            status = 0;
        }
        slot.trip.problem = Some(code);
        slot.trip.detail = reason;
    }
    record(worker, active, slot, route, status);
}

/// Whether an answer would tell a client of extended CONNECT that it has a WebSocket, which any 2xx
/// does (RFC 8441 §5).
fn is_false_grant(slot: &Slot, source: &Source) -> bool {
    let granted = matches!(source, Source::Backend(arrived) if arrived.kind == HeadKind::Tunnel);
    let extended = slot.websocket && slot.exchange.request.version == Version::Http2;
    extended && !granted && slot.response.status.is_success()
}

/// Where the body of the answer comes from; its head is in the slot.
#[expect(
    clippy::large_enum_variant,
    reason = "most are the largest, and a box would be an allocation for each request"
)]
enum Source {
    Backend(Arrived),
    Bytes(Bytes),
    Stream(Pin<Box<dyn futures_core::Stream<Item = Result<Bytes, Problem>>>>),
    Nobody,
}

fn settle(slot: &mut Slot, answer: Answer) -> Source {
    let reply = match answer {
        Answer::Backend(arrived) => return Source::Backend(arrived),
        Answer::Nobody(reason) => {
            slot.trip.detail = reason;
            return Source::Nobody;
        }
        Answer::Here(reply) => reply,
    };
    slot.response = reply.head;
    match reply.body {
        ReplyBody::Bytes(bytes) => {
            slot.response.body = BodyLength::of(bytes.len() as u64);
            Source::Bytes(bytes)
        }
        ReplyBody::Stream(stream) => {
            slot.response.body = BodyLength::Unknown;
            Source::Stream(stream)
        }
    }
}

async fn way_up<C: Client>(
    worker: &Rc<Worker>,
    client: &mut C,
    slot: &mut Slot,
    route: &Route,
    mut source: Source,
) -> Source {
    let policies = &route.policies[..slot.trip.seen];
    if let BodyUse::Buffered { bytes_max } = route.response_body {
        source = buffer(worker, client, slot, source, bytes_max).await;
    }
    for placed in policies.iter().rev() {
        let mut replaced = None;
        let mut waited = false;
        {
            let Slot { exchange, response, .. } = &mut *slot;
            let mut step = placed.policy.on_response(exchange, response, &worker.shared.world);
            loop {
                match step {
                    Step::Continue => break,
                    Step::Wait(future) => {
                        waited = true;
                        step = future.await;
                    }
                    Step::Reply(reply) => break replaced = Some(Ok(reply)),
                    Step::Refuse(problem) => break replaced = Some(Err(problem)),
                }
            }
        }
        if waited {
            slot.exchange.now = worker.shared.world.clock().now();
        }
        // What a replaced answer has not sent yet is dropped, with its connection.
        let answer = match replaced {
            None => continue,
            Some(Ok(reply)) => Answer::Here(reply),
            Some(Err(problem)) => refuse(slot, problem),
        };
        source = settle(slot, answer);
        show(slot, &source);
    }
    if let (Source::Bytes(_), BodyUse::Buffered { .. }) = (&source, route.response_body) {
        let whole = std::mem::take(&mut slot.exchange.response_body);
        slot.response.body = BodyLength::of(whole.len() as u64);
        return Source::Bytes(whole);
    }
    source
}

/// Lets the policies that are still to come see the body of an answer made here.
fn show(slot: &mut Slot, source: &Source) {
    slot.exchange.response_body = match source {
        Source::Bytes(bytes) => bytes.clone(),
        _ => Bytes::new(),
    };
}

/// Puts the whole body of a backend's answer into the exchange.
async fn buffer<C: Client>(
    worker: &Rc<Worker>,
    client: &mut C,
    slot: &mut Slot,
    source: Source,
    bytes_max: usize,
) -> Source {
    let mut arrived = match source {
        // What comes out of a tunnel has no end that could be waited for.
        Source::Backend(arrived) if arrived.kind != HeadKind::Tunnel => arrived,
        other => {
            show(slot, &other);
            return other;
        }
    };
    let mut whole = Vec::new();
    let problem = loop {
        let progress = poll_fn(|cx| {
            let mut sink = |data: &[u8]| whole.extend_from_slice(data);
            match arrived.leg.poll_body(cx, &worker.buffers, true, &mut sink) {
                Poll::Pending if client.deadline().check(cx).is_err() => Poll::Ready(None),
                poll => poll.map(Some),
            }
        });
        match progress.await {
            Some(Ok(_)) if whole.len() > bytes_max => break Some(codes::BACKEND_BODY_TOO_LARGE),
            Some(Ok(Progress::End)) => break None,
            Some(Ok(Progress::More)) => {}
            Some(Err(_)) => break Some(codes::BACKEND_CLOSED),
            None => break Some(codes::BACKEND_TIMEOUT),
        }
    };
    // What is too large for a policy is no failure of whoever sent it.
    let cut = problem
        .filter(|code| *code != codes::BACKEND_BODY_TOO_LARGE)
        .map(|code| Cut::Backend(code.name.to_owned()));
    let ended = cut.as_ref().map_or(Ok(&()), Err);
    hang_up(worker, &mut arrived, &slot.exchange, &mut slot.trip.judged, ended);
    if let Some(code) = problem {
        let problem = Problem::new(code);
        if let Some(bound) = bounds::of_problem(&problem) {
            worker.metrics.bound(bound);
        }
        let answer = refuse(slot, problem);
        let source = settle(slot, answer);
        show(slot, &source);
        return source;
    }
    put_away(worker, arrived);
    slot.exchange.response_body = whole.into();
    Source::Bytes(slot.exchange.response_body.clone())
}

async fn send<C: Client>(
    worker: &Rc<Worker>,
    active: &Active,
    client: &mut C,
    slot: &mut Slot,
    route: Option<&Route>,
    source: Source,
) -> Result<(), Cut> {
    // `idle: off` is no deadline; an answer to what no route took has the default one.
    let pause = route.map_or(Some(Duration::from_secs(60)), |route| route.timeouts.idle);
    let pause = pause.unwrap_or(Duration::MAX);
    client.deadline().set(Wait::ResponseBody, worker.coarse_now().saturating_add(pause));
    match source {
        Source::Backend(mut arrived) => {
            let filters = response_filters(slot, route);
            let mirrored = slot.trip.mirrored.take().filter(|_| filters.is_empty());
            let (declared, tunnel) = match arrived.kind {
                HeadKind::Final { declared } => (declared, false),
                HeadKind::Tunnel => (None, true),
                HeadKind::Interim => (None, false),
            };
            let respond = Respond { method: &slot.exchange.request.method, declared, tunnel };
            client.begin(worker, &slot.response, respond);
            if tunnel {
                return through(worker, active, client, slot, route, arrived).await;
            }
            let mut download = Download {
                backend: &mut arrived.leg,
                upload: &mut arrived.upload,
                filters,
                sent: &mut slot.trip.bytes_out,
                pause,
                ended: false,
            };
            let mut begun = false;
            let (in_flight, call) = (&mut arrived.in_flight, &mut arrived.call);
            let mut probe = call.as_ref().is_some_and(|call| call.is_probe(in_flight));
            let ended = poll_fn(|cx| {
                if !begun {
                    begun = true;
                    download.begin(cx, worker, client)?;
                }
                let over = download.poll(cx, worker, client);
                if probe && *download.sent > 0 {
                    probe = false;
                    let now = worker.shared.world.clock().mono();
                    call.iter_mut().for_each(|call| call.heard(in_flight, now));
                }
                over
            })
            .await;
            hang_up(worker, &mut arrived, &slot.exchange, &mut slot.trip.judged, ended.as_ref());
            ended?;
            if let Some(mirrored) = mirrored {
                let (request, head) = (&slot.exchange.request, &slot.response);
                let grpc = call::status(&arrived.leg, request, head);
                mirrored.real_ended(worker, slot.trip.bytes_out, grpc);
            }
            put_away(worker, arrived);
        }
        Source::Bytes(bytes) => {
            let declared = Some(bytes.len() as u64);
            let method = &slot.exchange.request.method;
            let respond = Respond { method, declared, tunnel: false };
            client.begin(worker, &slot.response, respond);
            if !bytes.is_empty() {
                client.write(worker, &bytes);
            }
            client.finish(worker, None);
            slot.trip.bytes_out = bytes.len() as u64;
            poll_fn(|cx| client.poll_flush(cx, worker)).await.map_err(gone)?;
        }
        Source::Stream(mut stream) => {
            let method = &slot.exchange.request.method;
            let respond = Respond { method, declared: None, tunnel: false };
            client.begin(worker, &slot.response, respond);
            let sent = &mut slot.trip.bytes_out;
            poll_fn(|cx| poll_stream(cx, worker, client, stream.as_mut(), sent)).await?;
            client.finish(worker, None);
            poll_fn(|cx| client.poll_flush(cx, worker)).await.map_err(gone)?;
        }
        Source::Nobody => {}
    }
    Ok(())
}

/// A call of gRPC has told all that it tells: how it ended counts.
fn hang_up(
    worker: &Worker,
    arrived: &mut Arrived,
    exchange: &Exchange,
    judged: &mut bool,
    ended: Result<&(), &Cut>,
) {
    if let Some(call) = arrived.call.take() {
        let now = worker.shared.world.clock().mono();
        let end = ended.map(|()| arrived.leg.trailers());
        *judged = call.ended(&mut arrived.in_flight, &exchange.request, end, now);
    }
}

/// Counts an upgraded connection for as long as it is one.
struct Upgraded<'a>(&'a RouteSeries, &'a Worker);

impl<'a> Upgraded<'a> {
    fn new(series: &'a RouteSeries, worker: &'a Worker) -> Self {
        series.upgrade_began(worker.metrics.id());
        Self(series, worker)
    }
}

impl Drop for Upgraded<'_> {
    fn drop(&mut self) {
        self.0.upgrade_ended(self.1.metrics.id());
    }
}

/// Serves an upgraded connection to its end.
async fn through<C: Client>(
    worker: &Rc<Worker>,
    active: &Active,
    client: &mut C,
    slot: &mut Slot,
    route: Option<&Route>,
    mut arrived: Arrived,
) -> Result<(), Cut> {
    let series = slot.trip.route.and_then(|route| active.routes.get(route));
    let _counted = series.map(|series| Upgraded::new(series, worker));
    let timeouts = route.map(|route| route.timeouts).unwrap_or_default();
    let idle = timeouts.upgrade_idle.unwrap_or(Duration::MAX);
    let now = worker.coarse_now();
    let lifetime = timeouts.upgrade_lifetime.unwrap_or(Duration::MAX);
    client.deadline().set_ceiling(Wait::TunnelLife, now.saturating_add(lifetime));
    client.deadline().set(Wait::Tunnel, now.saturating_add(idle));
    slot.trip.granted = Some(worker.shared.world.clock().mono());
    let mask = (worker.random() as u32).to_le_bytes();
    let Trip { bytes_in, bytes_out, .. } = &mut slot.trip;
    let mut tunnel = Tunnel::new(&mut arrived.leg, idle, mask, bytes_in, bytes_out);
    poll_fn(|cx| tunnel.poll(cx, worker, client)).await?;
    poll_fn(|cx| tunnel.poll_end(cx, worker, client)).await.map_err(gone)
}

/// Moves a policy's stream to the client, one piece at a time.
fn poll_stream<C: Client>(
    cx: &mut Context<'_>,
    worker: &Worker,
    client: &mut C,
    mut stream: Pin<&mut dyn futures_core::Stream<Item = Result<Bytes, Problem>>>,
    sent: &mut u64,
) -> Poll<Result<(), Cut>> {
    loop {
        std::task::ready!(client.poll_flush(cx, worker)).map_err(gone)?;
        match std::task::ready!(stream.as_mut().poll_next(cx)) {
            None => return Poll::Ready(Ok(())),
            Some(Ok(piece)) => {
                *sent += piece.len() as u64;
                client.write(worker, &piece);
            }
            Some(Err(problem)) => {
                return Poll::Ready(Err(Cut::Backend(problem.code.name.to_owned())));
            }
        }
    }
}

fn response_filters(slot: &mut Slot, route: Option<&Route>) -> Filters {
    let Some(route) = route.filter(|route| route.response_body != BodyUse::Untouched) else {
        return Filters::default();
    };
    let policies = route.policies[..slot.trip.seen].iter().rev();
    let chain: Vec<_> =
        policies.filter_map(|placed| placed.policy.response_filter(&slot.exchange)).collect();
    if !chain.is_empty() && slot.response.body != BodyLength::Empty {
        slot.response.body = BodyLength::Unknown;
    }
    Filters::new(chain)
}

/// Back to the pool, if the connection is fit for another exchange.
fn put_away(worker: &Worker, arrived: Arrived) {
    let Arrived { leg, upload, idle_max, seats, .. } = arrived;
    match leg {
        Leg::H1(connection) if upload.is_complete() && connection.is_reusable() => {
            worker.pool.give(connection, idle_max, worker.coarse_now());
        }
        leg => drop(leg),
    }
    worker.pool.wake_one(seats.line());
}

fn record(worker: &Worker, active: &Active, slot: &Slot, route: Option<&Route>, status: u16) {
    let Slot { exchange, trip, .. } = slot;
    let now = worker.shared.world.clock().mono();
    let duration = now.saturating_sub(trip.begun);
    let answered = trip.granted.unwrap_or(now).saturating_sub(trip.begun);
    let added = answered.saturating_sub(trip.backend_time.unwrap_or_default());
    let series = trip.route.and_then(|route| active.routes.get(route));
    let seen = Observation {
        method: (&exchange.request.method).into(),
        status,
        duration: answered,
        backend: trip.backend_time,
        gateway_added: added,
        bytes_in: trip.bytes_in,
        bytes_out: trip.bytes_out,
    };
    worker.metrics.request(series.unwrap_or(&active.no_route), &seen);
    let variant = trip.variant.zip(trip.route).zip(route.and_then(|route| route.to.as_ref()));
    let variant = variant.map(|((picked, route), to)| {
        let at = usize::from(picked.at);
        active.variants[route][at].observe(worker.metrics.id(), status, answered);
        (&*to.variants[at].name, picked.by)
    });
    // What an override says counts unless the request was its variant's in any case.
    let weighed = variant.filter(|(_, by)| *by != PickedBy::When).and(route);
    let overruled = weighed.and_then(|route| active.snapshot.overruled(route));
    let identity = exchange.identity.as_deref();
    let listener = active.snapshot.listeners.get(usize::from(exchange.connection.listener));
    let backend = trip.backend.and_then(|backend| active.snapshot.backends.get(backend));
    let decided = Decided {
        time: exchange.now.wall,
        request_id: exchange.request_id.as_bytes(),
        client: exchange.client_ip,
        config: &active.config,
        listener: listener.map_or("", |listener| &listener.name),
        protocol: exchange.request.version.as_str(),
        method: exchange.request.method.as_str(),
        host: exchange.request.host(),
        path: exchange.request.path(),
        route: route.map(|route| &*route.name),
        identity: identity.map(|identity| &*identity.key),
        backend: backend.map(|backend| &*backend.name),
        variant: variant.map(|(name, _)| name),
        picked_by: variant.map(|(_, by)| by.name()),
        overridden_by: overruled.map(|overruled| overruled.revision),
        endpoint: trip.endpoint.as_ref().map(|endpoint| endpoint.url()),
        fault: trip.fault,
        status,
        problem: trip.problem,
        detail: Some(&*trip.detail).filter(|detail| !detail.is_empty()),
    };
    let asked = route.map_or(&[][..], |route| &route.policies[..trip.seen]).iter();
    let asked = asked.map(|placed| (placed.phase.name(), placed.name));
    worker.shared.recent.note(worker.index, &decided, asked);
    let Some(log) = worker.log() else { return };
    let record = Record {
        time: decided.time,
        request_id: decided.request_id,
        trace_id: exchange.trace.trace_id,
        client: decided.client,
        identity: decided.identity,
        tenant: identity.and_then(|identity| identity.tenant.as_deref()),
        listener: decided.listener,
        route: decided.route,
        backend: decided.backend,
        variant: decided.variant,
        endpoint: decided.endpoint,
        fault: decided.fault,
        method: decided.method,
        host: decided.host,
        path: decided.path,
        status,
        problem: decided.problem,
        detail: decided.detail,
        bytes_in: trip.bytes_in,
        bytes_out: trip.bytes_out,
        duration,
        backend_duration: trip.backend_time,
        gateway_added: added,
        retries: trip.retries,
        protocol: decided.protocol,
        tls: exchange.connection.tls.as_ref().map(|tls| tls.version),
        config: decided.config,
        user_agent: None,
    };
    log.borrow_mut().write(now, &record);
}
