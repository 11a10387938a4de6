//! Calls of gRPC: an answer of 200 is no success before its end has said so.
//!
//! A call that fails at once says so in its head, others in their trailers. Either counts for the
//! endpoint, for its breaker and for that of its backend as an answer of 500 and more does for
//! HTTP. Which statuses do is decided in `core::grpc`, what follows from it in `upstream`.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use portcullis_core::{Fields, RequestHead, ResponseHead, grpc};
use portcullis_snapshot::{Backend, EndpointSet};
use portcullis_upstream::breaker::Pass;
use portcullis_upstream::{InFlight, Verdict};

use crate::backend::Leg;
use crate::circuit::tell;
use crate::relay::Cut;

/// What a head says of how a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is no call, or not one that its service is at fault for.
    Nothing,
    Fault,
    /// Its trailers will say.
    Later,
}

/// gRPC needs HTTP/2, so that nothing else is looked at for long.
pub(crate) fn told(leg: &Leg, request: &RequestHead, head: &ResponseHead) -> Told {
    let is_call = matches!(leg, Leg::H2(_))
        && request.method == Method::POST
        && head.status == StatusCode::OK
        && grpc::is_grpc(&request.fields);
    match is_call.then(|| grpc::status(&head.fields)) {
        Some(None) => Told::Later,
        Some(Some(status)) if is_fault(status, request) => Told::Fault,
        Some(Some(_)) | None => Told::Nothing,
    }
}

fn is_fault(status: u8, request: &RequestHead) -> bool {
    grpc::is_fault(status, request.fields.get(b"grpc-timeout").is_some())
}

/// How a call has ended; `None` for what is none, or has not said.
pub(crate) fn status(leg: &Leg, request: &RequestHead, head: &ResponseHead) -> Option<u8> {
    if !grpc::is_grpc(&request.fields) {
        return None;
    }
    grpc::status(&head.fields).or_else(|| leg.trailers().and_then(grpc::status))
}

/// Whether a call's trailers say that its service is at fault.
pub(crate) fn ends_badly(trailers: Option<&Fields>, request: &RequestHead) -> bool {
    trailers.and_then(grpc::status).is_some_and(|status| is_fault(status, request))
}

/// A call whose answer has begun well. Dropped before its end, it says nothing.
pub(crate) struct Call {
    backend: Arc<Backend>,
    set: Arc<EndpointSet>,
    /// Leave of the backend's breaker.
    pass: Option<Pass>,
    /// Its beginning has been taken for a success, since a breaker waited for it.
    heard: bool,
}

impl Call {
    /// `took` is the time up to the head.
    pub(crate) fn new(
        backend: &Arc<Backend>,
        set: &Arc<EndpointSet>,
        in_flight: &InFlight,
        took: Duration,
        now: Duration,
    ) -> Box<Self> {
        set.balancer.answered(in_flight, took, now);
        let (backend, set) = (Arc::clone(backend), Arc::clone(set));
        Box::new(Self { backend, set, pass: None, heard: false })
    }

    /// The backend's breaker hears of the end too.
    pub(crate) fn hold(&mut self, pass: Option<Pass>) {
        self.pass = pass;
    }

    /// Whether a breaker lets nobody else through before it has heard of this call.
    pub(crate) fn is_probe(&self, in_flight: &InFlight) -> bool {
        in_flight.is_probe() || self.pass.is_some_and(Pass::is_probe)
    }

    /// A message of the answer has come, which is enough for a probe: a stream may live for hours.
    pub(crate) fn heard(&mut self, in_flight: &mut InFlight, now: Duration) {
        if !self.heard && self.is_probe(in_flight) {
            self.heard = true;
            self.judge(in_flight, Verdict::Well, now);
        }
    }

    /// Nothing more comes. Returns whether its end is held against the endpoint.
    pub(crate) fn ended(
        mut self,
        in_flight: &mut InFlight,
        request: &RequestHead,
        end: Result<Option<&Fields>, &Cut>,
        now: Duration,
    ) -> bool {
        let verdict = match end {
            Ok(trailers) if ends_badly(trailers, request) => Verdict::Status,
            Err(Cut::Backend(_)) => Verdict::Error,
            // A client that leaves has heard nothing wrong, and no probe is decided by that.
            Err(Cut::Client(_)) if self.is_probe(in_flight) => return false,
            Err(Cut::Gateway(_)) => return false,
            Ok(_) | Err(Cut::Client(_)) => Verdict::Well,
        };
        if verdict.is_failure() || !self.heard {
            self.judge(in_flight, verdict, now);
        }
        verdict.is_failure()
    }

    fn judge(&mut self, in_flight: &mut InFlight, verdict: Verdict, now: Duration) {
        let change = self.set.balancer.decided(in_flight, verdict, now);
        if let Some(change) = change {
            tell(&self.backend.name, Some(in_flight.endpoint().url()), change);
        }
        let Some(breaker) = &self.backend.breaker else { return };
        let pass = self.pass.take().unwrap_or(Pass::FREE);
        if let Some(change) = breaker.state.ended(&breaker.terms, pass, verdict.is_failure(), now) {
            tell(&self.backend.name, None, change);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let (Some(breaker), Some(pass)) = (&self.backend.breaker, self.pass.take()) {
            breaker.state.abandoned(pass);
        }
    }
}
