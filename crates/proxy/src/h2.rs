//! A client's HTTP/2 connection by the `h2` crate: each stream is one exchange for `serve`.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderValue, Method, Response};
use portcullis_core::exchange::Connection;
use portcullis_core::{BodyLength, Fields, Problem, ResponseHead, codes};
use portcullis_snapshot::ListenerLimits;

use crate::client::{Client, ClientError, Respond};
use crate::deadline::{Deadline, Expired, Wait};
use crate::h2_guard::Guard;
use crate::h2_head;
use crate::listener::Place;
use crate::outbox::Outbox;
use crate::serve::serve;
use crate::wire::{Progress, Wire};
use crate::worker::Worker;

const WINDOW_STREAM: u32 = 64 * 1024;
const WINDOW_CONNECTION: u32 = 1024 * 1024;
const SEND_BUFFER: usize = 64 * 1024;
/// What may be held of small DATA frames that nobody has taken yet, beside their bytes: the `h2`
/// crate counts as much as each of them lacks to 256. One of gRPC's streams comes in many.
const SMALL_FRAMES: usize = 2 * WINDOW_CONNECTION as usize;
/// Streams that the `h2` crate resets over a client's errors, within one turn of its loop or in
/// all: what comes in its own time is the guard's.
const RESETS_MAX: usize = 1024;
/// How long a client has to take note of the end.
const LINGER: Duration = Duration::from_secs(5);

fn builder(limits: &ListenerLimits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(WINDOW_STREAM)
        .initial_connection_window_size(WINDOW_CONNECTION)
        .max_concurrent_streams(limits.streams_max)
        // What is above the limit, and not absurd, is to be answered, logged and counted as any
        // other refusal is. `h2` answers what is above this by itself.
        .max_header_list_size(limits.head_bytes_max.saturating_mul(2))
        .max_concurrent_reset_streams(limits.streams_max as usize)
        // The guard counts every reset, and would be told too late if this were less.
        .max_pending_accept_reset_streams(limits.frames.resets_per_minute as usize)
        .max_local_error_reset_streams(Some(RESETS_MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES)
        .enable_connect_protocol();
    builder
}

/// Serves a connection to its end.
pub(crate) async fn connection(
    worker: Rc<Worker>,
    wire: Wire,
    place: Rc<Place>,
    facts: Rc<Connection>,
) {
    let deadline = worker.deadlines.add();
    let listener = place.listener();
    deadline.set(Wait::Head, worker.coarse_now() + listener.timeouts.head);
    let guard = Guard::new(&worker, wire, &listener.limits.frames);
    let alarm = guard.alarm();
    let handshake = builder(&listener.limits).handshake::<_, Bytes>(guard);
    let mut handshake = std::pin::pin!(handshake);
    let connection = poll_fn(|cx| match deadline.check(cx) {
        Ok(()) => handshake.as_mut().poll(cx).map(Result::ok),
        Err(_) => Poll::Ready(None),
    });
    let Some(mut connection) = connection.await else { return };
    let streams = Rc::new(Cell::new(0_usize));
    let (mut told, mut calmed) = (false, false);
    let (idle, head) = (listener.timeouts.keep_alive, listener.timeouts.head);
    let (head_deadline, mut head_since) = (worker.deadlines.add(), None);
    drop(listener);
    deadline.set(Wait::Idle, worker.coarse_now() + idle);
    loop {
        let accepted = poll_fn(|cx| {
            if (worker.is_draining() || place.is_closed()) && !told {
                told = true;
                connection.graceful_shutdown();
            }
            if calmed {
                // Nothing puts off the end.
            } else if streams.get() > 0 {
                deadline.set(Wait::Idle, worker.coarse_now() + idle);
            } else if told && deadline.waits_for() == Wait::Idle {
                // A client that does not answer the good-bye must not hold up a drain.
                deadline.set(Wait::Linger, worker.coarse_now() + LINGER);
            }
            if deadline.check(cx).is_err() {
                if told {
                    return Poll::Ready(None);
                }
                told = true;
                connection.graceful_shutdown();
                deadline.set(Wait::Linger, worker.coarse_now() + LINGER);
                // It has just been set.
                let _waits = deadline.check(cx);
            }
            while !calmed {
                let accepted = connection.poll_accept(cx);
                if head_since != alarm.head_since() {
                    head_since = alarm.head_since();
                    let at = head_since.map_or(Duration::MAX, |since| since + head);
                    head_deadline.set(Wait::Head, at);
                }
                let late = head_deadline.check(cx).err().map(|_| Reason::ENHANCE_YOUR_CALM);
                let Some(reason) = alarm.reason().or(late) else { return accepted };
                (calmed, told) = (true, true);
                connection.abrupt_shutdown(reason);
                deadline.set(Wait::Linger, worker.coarse_now() + LINGER);
                // It has just been set.
                let _waits = deadline.check(cx);
            }
            // Streams that were not accepted yet are dropped.
            while let Poll::Ready(accepted) = connection.poll_accept(cx) {
                if !matches!(accepted, Some(Ok(_))) {
                    return Poll::Ready(None);
                }
            }
            Poll::Pending
        });
        let Some(Ok((request, mut respond))) = accepted.await else { return };
        alarm.accepted(respond.stream_id().as_u32());
        // A stream that was reset before anybody saw it is no work for a backend.
        if poll_fn(|cx| Poll::Ready(respond.poll_reset(cx).is_ready())).await {
            continue;
        }
        streams.set(streams.get() + 1);
        let counted = Counted(Rc::clone(&streams));
        let (place, facts) = (Rc::clone(&place), Rc::clone(&facts));
        let job = StreamJob { place, facts, request, respond };
        let worker = Rc::clone(&worker);
        // The future is small: an exchange runs at a desk.
        tokio::task::spawn_local(async move {
            let _counted = counted;
            let mut desk = worker.lease_stream_desk();
            desk.run(Some(job)).await;
            worker.give_stream_desk(desk);
        });
    }
}

struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One exchange for a desk.
pub(crate) struct StreamJob {
    place: Rc<Place>,
    facts: Rc<Connection>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

/// The work behind a desk: one exchange.
pub(crate) async fn exchange(worker: &Rc<Worker>, job: StreamJob) {
    let StreamJob { place, facts, request, respond } = job;
    let mut slot = worker.lease_slot(&facts);
    let (parts, body) = request.into_parts();
    let ended = body.is_end_stream();
    let listener = place.listener();
    let filled = h2_head::fill(&mut slot.exchange.request, &parts, ended, &listener, &facts);
    match filled {
        Ok(websocket) => slot.websocket = websocket,
        Err(problem) => slot.refused = Some(problem),
    }
    slot.accepts_trailers = parts.headers.get("te").is_some_and(|te| te == "trailers");
    worker.begin(&mut slot, &place);
    let deadline = worker.deadlines.add();
    deadline.set(Wait::RequestBody, worker.coarse_now() + listener.timeouts.body);
    let awaits_continue = parts.headers.contains_key(http::header::EXPECT) && !ended;
    let mut client = H2 {
        body,
        trailers: None,
        respond,
        out: Outbox::default(),
        aborted: false,
        without_body: false,
        awaits_continue,
        deadline,
        place: Rc::clone(&place),
    };
    serve(worker, &mut client, &mut slot).await;
    worker.give_slot(slot);
}

/// One stream.
struct H2 {
    body: RecvStream,
    trailers: Option<Fields>,
    respond: SendResponse<Bytes>,
    out: Outbox,
    aborted: bool,
    without_body: bool,
    /// The client sends its body only after a 100.
    awaits_continue: bool,
    deadline: Rc<Deadline>,
    place: Rc<Place>,
}

fn gone(error: impl std::fmt::Display) -> ClientError {
    ClientError::Gone(error.to_string())
}

impl Client for H2 {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        _: &Worker,
        read: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<Progress, ClientError>> {
        if !read {
            let end = self.body.is_end_stream();
            return Poll::Ready(Ok(if end { Progress::End } else { Progress::More }));
        }
        if let Err(Expired(wait)) = self.deadline.check(cx) {
            let problem = Problem::new(codes::REQUEST_TIMEOUT).detail(wait.name());
            return Poll::Ready(Err(ClientError::Refused(problem)));
        }
        let data = self.body.poll_data(cx);
        if data.is_pending() && std::mem::take(&mut self.awaits_continue) {
            let mut response = Response::new(());
            *response.status_mut() = http::StatusCode::CONTINUE;
            // A stream that is over is noticed below.
            drop(self.respond.send_informational(response));
        }
        match ready!(data) {
            Some(Ok(data)) => {
                sink(&data);
                // What has been taken may be sent anew; it fails only for a stream that is over.
                drop(self.body.flow_control().release_capacity(data.len()));
                Poll::Ready(Ok(Progress::More))
            }
            Some(Err(error)) => Poll::Ready(Err(gone(error))),
            None => {
                let trailers = ready!(self.body.poll_trailers(cx)).map_err(gone)?;
                self.trailers = trailers.map(|map| h2_head::trailers(&map));
                Poll::Ready(Ok(Progress::End))
            }
        }
    }

    fn awaits_continue(&self) -> bool {
        self.awaits_continue
    }

    fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }

    fn interim(&mut self, _: &Worker, head: &ResponseHead) {
        if head.status.as_u16() == 103 {
            let mut response = Response::new(());
            *response.status_mut() = head.status;
            *response.headers_mut() = h2_head::headers(&head.fields);
            // A stream that is over gets no hints.
            drop(self.respond.send_informational(response));
        }
    }

    fn begin(&mut self, _: &Worker, head: &ResponseHead, how: Respond<'_>) {
        self.without_body = !how.tunnel
            && (*how.method == Method::HEAD
                || matches!(head.status.as_u16(), 204 | 304)
                || head.body == BodyLength::Empty);
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.version_mut() = http::Version::HTTP_2;
        let mut map = h2_head::headers(&head.fields);
        let length = match head.body {
            _ if how.tunnel => None,
            _ if head.status.as_u16() == 204 => None,
            _ if *how.method == Method::HEAD || head.status.as_u16() == 304 => how.declared,
            // A gRPC client would take it for metadata.
            BodyLength::Empty if head.fields.get(b"grpc-status").is_some() => None,
            BodyLength::Empty => Some(0),
            BodyLength::Known(length) => Some(length),
            BodyLength::Unknown => None,
        };
        if let Some(length) = length {
            map.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.headers_mut() = map;
        match self.respond.send_response(response, self.without_body) {
            Ok(send) => self.out.open(send, self.without_body),
            Err(_) => self.aborted = true,
        }
    }

    fn write(&mut self, worker: &Worker, data: &[u8]) {
        self.out.push(&worker.buffers, data);
    }

    fn finish(&mut self, _: &Worker, trailers: Option<&Fields>) {
        self.out.end(trailers);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, _: &Worker) -> Poll<Result<(), ClientError>> {
        if self.aborted {
            return Poll::Ready(Err(gone("the stream was reset")));
        }
        match self.out.poll_flush(cx) {
            Poll::Ready(result) => Poll::Ready(result.map_err(gone)),
            Poll::Pending => match self.deadline.check(cx) {
                Ok(()) => Poll::Pending,
                Err(Expired(wait)) => Poll::Ready(Err(gone(wait.name()))),
            },
        }
    }

    /// A stream that was reset must not keep a backend busy: resetting costs the client nothing.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<ClientError> {
        let reset = match self.out.is_open() {
            true => self.out.poll_reset(cx),
            false => self.respond.poll_reset(cx),
        };
        reset.map(|reset| match reset {
            Ok(reason) => gone(format_args!("the client reset the stream: {reason}")),
            Err(error) => gone(error),
        })
    }

    fn abort(&mut self) {
        self.aborted = true;
        match self.out.is_open() {
            true => self.out.reset(Reason::INTERNAL_ERROR),
            false => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    fn deadline(&self) -> &Rc<Deadline> {
        &self.deadline
    }

    fn place(&self) -> &Place {
        &self.place
    }
}
