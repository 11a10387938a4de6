//! The state of one exchange, leased from the worker's free list and given back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Exchange, Problem, ResponseHead};
use portcullis_snapshot::Picked;
use portcullis_upstream::Endpoint;

use crate::mirror::Pair;

/// Everything an exchange needs that is not the client's or the backend's connection.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) exchange: Exchange,
    pub(crate) response: ResponseHead,
    /// The head was refused; there is nothing to route.
    pub(crate) refused: Option<Problem>,
    /// The client asks for WebSocket, well-formed (RFC 6455 §4.2.1, RFC 8441).
    pub(crate) websocket: bool,
    /// `TE: trailers`.
    pub(crate) accepts_trailers: bool,
    pub(crate) trip: Trip,
}

/// How far a request got, for the way up and for the log.
#[derive(Debug, Default)]
pub(crate) struct Trip {
    /// When the head was complete, by the monotonic clock.
    pub(crate) begun: Duration,
    pub(crate) route: Option<usize>,
    /// How many of the route's policies saw the request.
    pub(crate) seen: usize,
    pub(crate) backend: Option<usize>,
    /// Which of the route's variants, where there are several.
    pub(crate) variant: Option<Picked>,
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// That the answer broke off has been held against the endpoint already.
    pub(crate) judged: bool,
    /// What was done to it on purpose.
    pub(crate) fault: Option<&'static str>,
    pub(crate) retries: u32,
    /// Until when there has to be an answer, once all of a request has been sent.
    pub(crate) answer_by: Option<Duration>,
    /// How long the endpoint has before a second one is asked as well.
    pub(crate) hedge_after: Option<Duration>,
    /// What is to be compared with the answer of the route's mirror.
    pub(crate) mirrored: Option<Rc<Pair>>,
    /// Waiting for the backend, all attempts together.
    pub(crate) backend_time: Option<Duration>,
    /// When an upgrade was granted: what comes after is no request's duration.
    pub(crate) granted: Option<Duration>,
    /// Body bytes.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) problem: Option<&'static str>,
    pub(crate) detail: String,
}

impl Trip {
    /// Adds a try's time.
    pub(crate) fn waited(&mut self, waited: Duration) {
        self.backend_time = Some(self.backend_time.unwrap_or_default() + waited);
    }

    /// Notes a problem; its private half stays here.
    pub(crate) fn note(&mut self, problem: &mut Problem) {
        self.problem = Some(problem.code.name);
        self.detail = std::mem::take(&mut problem.detail);
    }
}

impl Slot {
    /// Forgets the exchange and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.exchange.clear();
        self.response.clear();
        self.refused = None;
        self.websocket = false;
        self.accepts_trailers = false;
        self.trip = Trip::default();
    }
}
