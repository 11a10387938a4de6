//! A client's HTTP/1.1 connection: heads in, exchanges one after another, until it closes.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Method;
use portcullis_core::exchange::Connection;
use portcullis_core::{
    BodyLength, Fields, Problem, RequestHead, ResponseHead, Scheme, Span, Version, codes, websocket,
};
use portcullis_http1::{
    BodyDecoder, Connection as Persistence, Framing, HeadLimits, ParsedRequest, RequestContext,
    RequestError, ResponseWire, encode_chunk, encode_interim, encode_last_chunk, encode_response,
    parse_request, response_framing,
};

use crate::client::{Client, ClientError, Respond};
use crate::deadline::{Deadline, Expired, Wait};
use crate::io::Io;
use crate::listener::Place;
use crate::serve::serve;
use crate::slot::Slot;
use crate::wire::{Progress, ReadError, Wire};
use crate::worker::Worker;

/// What a client's HTTP/2 connection begins with (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Body bytes that are read and thrown away so that a connection can go on.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// And so that a client that is still sending gets to read the answer before a reset.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);

pub(crate) struct H1 {
    pub(crate) wire: Wire,
    pub(crate) place: Rc<Place>,
    pub(crate) facts: Rc<Connection>,
    deadline: Rc<Deadline>,
    /// Another request may follow.
    persist: bool,
    /// No request was read yet.
    fresh: bool,
    version: Version,
    decoder: BodyDecoder,
    /// The client sends its body only after a 100.
    awaits_continue: bool,
    framing: Framing,
    without_body: bool,
    tunnel: bool,
    aborted: bool,
}

/// One exchange for a desk.
pub(crate) struct Job {
    pub(crate) connection: Box<H1>,
    pub(crate) slot: Box<Slot>,
}

enum Next {
    Request(Box<Slot>),
    Refused(Box<Slot>, Problem),
    Http2,
    Closed,
}

/// Serves a connection to its end. The future is small: an exchange runs at a desk.
pub(crate) async fn connection(
    worker: Rc<Worker>,
    io: Io,
    place: Rc<Place>,
    facts: Rc<Connection>,
) {
    let mut connection = Box::new(H1::new(&worker, io, place, facts));
    loop {
        let slot = match poll_fn(|cx| connection.poll_next(cx, &worker)).await {
            Next::Request(slot) => slot,
            Next::Refused(mut slot, problem) => {
                slot.refused = Some(problem);
                slot
            }
            Next::Http2 => {
                let H1 { wire, place, facts, deadline, .. } = *connection;
                // It would go on to count as that of a head.
                drop(deadline);
                // Boxed, so that an idle HTTP/1.1 connection does not carry the other's size.
                return Box::pin(crate::h2::connection(worker, wire, place, facts)).await;
            }
            Next::Closed => return connection.wire.io.close(),
        };
        let mut desk = worker.lease_desk();
        let job = desk.run(Job { connection, slot }).await;
        worker.give_desk(desk);
        worker.give_slot(job.slot);
        connection = job.connection;
        if connection.aborted {
            return connection.wire.io.reset();
        }
        if !connection.persist {
            return connection.linger(&worker).await;
        }
        connection.wire.rest(&worker.buffers);
        let idle = connection.place.listener().timeouts.keep_alive;
        connection.deadline.set(Wait::Idle, worker.coarse_now() + idle);
    }
}

/// The work behind a desk: one exchange and what it leaves behind.
pub(crate) async fn exchange(worker: &Rc<Worker>, job: &mut Job) {
    let Job { connection, slot } = job;
    serve(worker, &mut **connection, slot).await;
    if connection.persist && !connection.decoder.is_complete() {
        connection.persist = connection.drain(worker).await;
    }
}

impl H1 {
    fn new(worker: &Rc<Worker>, io: Io, place: Rc<Place>, facts: Rc<Connection>) -> Self {
        let deadline = worker.deadlines.add();
        deadline.set(Wait::Head, worker.coarse_now() + place.listener().timeouts.head);
        Self {
            wire: Wire::new(io),
            place,
            facts,
            deadline,
            persist: true,
            fresh: true,
            version: Version::Http11,
            decoder: BodyDecoder::None,
            awaits_continue: false,
            framing: Framing::None,
            without_body: false,
            tunnel: false,
            aborted: false,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, worker: &Rc<Worker>) -> Poll<Next> {
        loop {
            if !self.wire.inbox.is_empty() {
                if let Some(next) = self.parse(worker) {
                    self.fresh = false;
                    return Poll::Ready(next);
                }
                if self.deadline.waits_for() == Wait::Idle {
                    let head = self.place.listener().timeouts.head;
                    self.deadline.set(Wait::Head, worker.coarse_now() + head);
                }
            }
            match self.wire.poll_fill(cx, &worker.buffers) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Closed),
                Poll::Ready(Ok(_)) => continue,
                Poll::Pending => {}
            }
            // Only now: a request that is here already is served, not met with a reset.
            if (worker.is_draining() || self.place.is_closed()) && self.wire.inbox.is_empty() {
                return Poll::Ready(Next::Closed);
            }
            return match self.deadline.check(cx) {
                Ok(()) => Poll::Pending,
                Err(Expired(wait)) => Poll::Ready(self.too_slow(worker, wait)),
            };
        }
    }

    /// Looks at the bytes at hand; `None` asks for more.
    fn parse(&mut self, worker: &Rc<Worker>) -> Option<Next> {
        let bytes = self.wire.inbox.bytes();
        // With TLS only ALPN says so (RFC 9113 §3.2).
        if self.fresh && self.facts.tls.is_none() && self.place.listener().http2 {
            let seen = bytes.len().min(PREFACE.len());
            if bytes[..seen] == PREFACE[..seen] {
                return (seen == PREFACE.len()).then_some(Next::Http2);
            }
        }
        let listener = self.place.listener();
        let scheme = if self.facts.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let context = RequestContext { scheme, paths: &listener.paths };
        let mut slot = worker.lease_slot(&self.facts);
        let limits = head_limits(&listener.limits);
        let parsed = parse_request(bytes, &limits, &mut slot.exchange.request, &context);
        match parsed {
            Ok(ParsedRequest::Partial) => {
                worker.give_slot(slot);
                if self.wire.inbox.room(&worker.buffers).is_none() {
                    self.wire.inbox.grow();
                }
                None
            }
            Ok(ParsedRequest::Complete(facts)) => {
                self.wire.inbox.consume(facts.consumed, &worker.buffers);
                let request = &slot.exchange.request;
                self.version = request.version;
                self.persist = facts.keep_alive && !worker.is_draining() && !self.place.is_closed();
                self.awaits_continue = facts.expect_continue;
                self.decoder = BodyDecoder::new(request.body, facts.chunked);
                slot.accepts_trailers = facts.accepts_trailers;
                slot.websocket = facts.upgrade.is_some_and(|span| asks_websocket(request, span));
                worker.begin(&mut slot, &self.place);
                Some(Next::Request(slot))
            }
            Err(error) => {
                worker.begin(&mut slot, &self.place);
                Some(self.refuse(slot, problem_of(&error)))
            }
        }
    }

    fn too_slow(&mut self, worker: &Rc<Worker>, wait: Wait) -> Next {
        if self.wire.inbox.is_empty() {
            return Next::Closed;
        }
        let mut slot = worker.lease_slot(&self.facts);
        worker.begin(&mut slot, &self.place);
        let problem = Problem::new(codes::REQUEST_TIMEOUT).detail(wait.name());
        self.refuse(slot, problem)
    }

    /// The framing of whatever follows is unknown: answer and close.
    fn refuse(&mut self, slot: Box<Slot>, problem: Problem) -> Next {
        self.persist = false;
        self.decoder = BodyDecoder::None;
        self.version = Version::Http11;
        Next::Refused(slot, problem)
    }

    /// Reads the rest of a small body away, so that the next request can be found.
    async fn drain(&mut self, worker: &Worker) -> bool {
        if self.awaits_continue {
            return false;
        }
        let body = self.place.listener().timeouts.body;
        self.deadline.set(Wait::RequestBody, worker.coarse_now() + body);
        let mut drained = 0;
        while drained < DRAIN_BYTES_MAX {
            let progress = poll_fn(|cx| {
                self.poll_body(cx, worker, true, &mut |data: &[u8]| drained += data.len())
            })
            .await;
            match progress {
                Ok(Progress::End) => return true,
                Ok(Progress::More) => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Closes so that the client can still read what was sent: a close with unread input would
    /// reset the connection (RFC 9112 §9.6).
    async fn linger(mut self: Box<Self>, worker: &Worker) {
        self.deadline.set(Wait::Linger, worker.coarse_now() + LINGER);
        let mut left = LINGER_BYTES_MAX;
        poll_fn(|cx| {
            if self.deadline.check(cx).is_err() {
                return Poll::Ready(());
            }
            if self.wire.poll_flush(cx, &worker.buffers).is_pending() {
                return Poll::Pending;
            }
            if self.wire.io.poll_shutdown(cx).is_pending() {
                return Poll::Pending;
            }
            loop {
                let n = self.wire.inbox.bytes().len();
                self.wire.inbox.consume(n, &worker.buffers);
                match ready!(self.wire.poll_fill(cx, &worker.buffers)) {
                    Ok(n) if n > 0 && n <= left => left -= n,
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }
}

impl Client for H1 {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        read: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<Progress, ClientError>> {
        if self.decoder.is_complete() {
            return Poll::Ready(Ok(Progress::End));
        }
        if self.awaits_continue && read && self.wire.inbox.is_empty() {
            self.awaits_continue = false;
            self.interim(worker, &ResponseHead::new(http::StatusCode::CONTINUE));
        }
        if let Err(Expired(wait)) = self.deadline.check(cx) {
            // What has not come in time is not waited for a second time.
            self.persist = false;
            let problem = Problem::new(codes::REQUEST_TIMEOUT).detail(wait.name());
            return Poll::Ready(Err(ClientError::Refused(problem)));
        }
        if read {
            // The 100 above, if any. What is under way to a client that does not read stays queued.
            let _sent = self.wire.poll_flush(cx, &worker.buffers);
        }
        let Self { wire, decoder, .. } = self;
        wire.poll_body(cx, &worker.buffers, decoder, read, sink).map_err(|error| match error {
            ReadError::Io(error) => ClientError::Gone(error.to_string()),
            ReadError::Body(portcullis_http1::BodyError::Truncated) => {
                ClientError::Gone("the connection ended within the body".to_owned())
            }
            ReadError::Body(error) => {
                self.persist = false;
                let code = match error.status().as_u16() {
                    431 => codes::HEAD_TOO_LARGE,
                    _ => codes::MALFORMED_REQUEST,
                };
                ClientError::Refused(Problem::new(code).detail(error.reason()))
            }
        })
    }

    fn awaits_continue(&self) -> bool {
        self.awaits_continue && self.wire.inbox.is_empty() && !self.decoder.is_complete()
    }

    fn trailers(&self) -> Option<&Fields> {
        self.decoder.trailers()
    }

    fn interim(&mut self, worker: &Worker, head: &ResponseHead) {
        if self.version != Version::Http10 {
            encode_interim(head, self.wire.out(&worker.buffers));
        }
    }

    fn begin(&mut self, worker: &Worker, head: &ResponseHead, how: Respond<'_>) {
        if how.tunnel {
            self.tunnel = true;
            self.persist = false;
            self.framing = Framing::None;
            self.decoder = BodyDecoder::UntilClose;
            let connection = Persistence::Upgrade(b"websocket");
            let wire = ResponseWire { framing: Framing::None, connection };
            return encode_response(head, &wire, self.wire.out(&worker.buffers));
        }
        self.framing = response_framing(head, how.method, self.version, how.declared);
        self.without_body = *how.method == Method::HEAD
            || head.status.is_informational()
            || matches!(head.status.as_u16(), 204 | 304);
        let until_close =
            self.framing == Framing::None && !self.without_body && head.body == BodyLength::Unknown;
        // A client whose body is refused unread would wait for a 100 that never comes.
        let unread = self.awaits_continue && !self.decoder.is_complete();
        // Whoever is misdirected is to come by another connection.
        let misdirected = head.status == http::StatusCode::MISDIRECTED_REQUEST;
        self.persist &= !until_close && !unread && !misdirected && !worker.is_draining();
        let connection = match (self.persist, self.version) {
            (false, _) => Persistence::Close,
            (true, Version::Http10) => Persistence::KeepAlive,
            (true, _) => Persistence::Unsaid,
        };
        let wire = ResponseWire { framing: self.framing, connection };
        encode_response(head, &wire, self.wire.out(&worker.buffers));
    }

    fn write(&mut self, worker: &Worker, data: &[u8]) {
        if self.without_body {
            return;
        }
        match self.framing {
            Framing::Chunked => encode_chunk(data, self.wire.out(&worker.buffers)),
            _ => self.wire.out(&worker.buffers).extend_from_slice(data),
        }
    }

    fn finish(&mut self, worker: &Worker, trailers: Option<&Fields>) {
        if self.tunnel {
            self.wire.end();
        } else if self.framing == Framing::Chunked && !self.without_body {
            encode_last_chunk(trailers, self.wire.out(&worker.buffers));
        }
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
    ) -> Poll<Result<(), ClientError>> {
        match self.wire.poll_flush(cx, &worker.buffers) {
            Poll::Ready(result) => {
                Poll::Ready(result.map_err(|error| ClientError::Gone(error.to_string())))
            }
            Poll::Pending => match self.deadline.check(cx) {
                Ok(()) => Poll::Pending,
                Err(Expired(wait)) => {
                    Poll::Ready(Err(ClientError::Gone(format!("too slow: {}", wait.name()))))
                }
            },
        }
    }

    /// An end of input is no sign: a client may close its half after its last request.
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<ClientError> {
        Poll::Pending
    }

    fn abort(&mut self) {
        self.persist = false;
        self.aborted = true;
    }

    fn deadline(&self) -> &Rc<Deadline> {
        &self.deadline
    }

    fn place(&self) -> &Place {
        &self.place
    }
}

/// Whether a request that would upgrade opens a WebSocket as RFC 6455 §4.2.1 has it. If not it is
/// an ordinary request, as HTTP allows (RFC 9110 §7.8).
fn asks_websocket(request: &RequestHead, protocols: Span) -> bool {
    let fields = &request.fields;
    let only = |name: &'static [u8]| {
        let mut all = fields.get_all(name);
        all.next().filter(|_| all.next().is_none())
    };
    protocols.of(fields.bytes()).eq_ignore_ascii_case(b"websocket")
        && request.method == Method::GET
        && request.version == Version::Http11
        && request.body == BodyLength::Empty
        && only(b"sec-websocket-version") == Some(b"13")
        && only(b"sec-websocket-key").is_some_and(websocket::is_key)
}

fn head_limits(limits: &portcullis_snapshot::ListenerLimits) -> HeadLimits {
    HeadLimits {
        head_bytes_max: limits.head_bytes_max as usize,
        fields_max: limits.fields_max as usize,
        target_bytes_max: limits.target_bytes_max as usize,
    }
}

/// What a client is told about a head that was refused.
pub(crate) fn problem_of(error: &RequestError) -> Problem {
    let code = match error {
        RequestError::MissingHost | RequestError::DuplicateHost | RequestError::Host(_) => {
            codes::HOST_REFUSED
        }
        RequestError::Path(_) => codes::PATH_REFUSED,
        _ => match error.status().as_u16() {
            405 => codes::METHOD_NOT_ALLOWED,
            414 => codes::TARGET_TOO_LONG,
            417 => codes::EXPECTATION_FAILED,
            421 => codes::MISDIRECTED_REQUEST,
            431 => codes::HEAD_TOO_LARGE,
            505 => codes::VERSION_NOT_SUPPORTED,
            _ => codes::MALFORMED_REQUEST,
        },
    };
    Problem::new(code).detail(error.reason())
}
