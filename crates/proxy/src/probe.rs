//! Active health checks: asks endpoints how they are. What the answers mean is `upstream`'s.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Method, StatusCode};
use portcullis_core::{BodyLength, Fields, RequestHead, ResponseHead, grpc};
use portcullis_http1::{HeadLimits, RequestWire, request_framing};
use portcullis_snapshot::{
    Backend, Chosen, EndpointAddress, ExpectedField, HealthProbe, HealthQuestion, HostHeader,
};
use portcullis_telemetry::metrics::Bound;
use portcullis_upstream::{Endpoint, Outcome};

use crate::backend::{Begin, HeadFailure, HeadKind, Leg};
use crate::deadline::Wait;
use crate::dial;
use crate::grpc_health;
use crate::socket::is_exhausted;
use crate::wire::{Progress, ReadError};
use crate::worker::Worker;

/// How often due checks are looked for.
const LOOK: Duration = Duration::from_millis(100);
/// What is read of an answer's body, where anybody wants to know.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Runs on the first worker: checks are few, and their results are shared.
pub(crate) async fn run(worker: Rc<Worker>) {
    let clock = worker.shared.world.clock().clone();
    loop {
        let now = clock.mono();
        for backend in &worker.active().snapshot.backends {
            let Some(probe) = &backend.health else { continue };
            let set = backend.endpoints.load();
            for to in set.iter() {
                if to.endpoint.check_due().is_some_and(|due| due <= now) {
                    to.endpoint.check_begun(&probe.settings, now);
                    let (endpoint, address) = (Arc::clone(to.endpoint), to.address.clone());
                    let check = check(Rc::clone(&worker), Arc::clone(backend), endpoint, address);
                    tokio::task::spawn_local(check);
                }
            }
        }
        clock.sleep(LOOK).await;
    }
}

async fn check(
    worker: Rc<Worker>,
    backend: Arc<Backend>,
    endpoint: Arc<Endpoint>,
    address: EndpointAddress,
) {
    let Some(probe) = &backend.health else { return };
    let to = Chosen { endpoint: &endpoint, address: &address };
    let deadline = worker.deadlines.add();
    deadline.set(Wait::Connect, worker.coarse_now() + probe.timeout);
    let mut ask = std::pin::pin!(ask(&worker, &backend, probe, to));
    let answer = poll_fn(|cx| match deadline.check(cx) {
        Ok(()) => ask.as_mut().poll(cx),
        Err(_) => Poll::Ready(Err(Unwell::Ill(io::ErrorKind::TimedOut.into()))),
    })
    .await;
    if let Err(Unwell::Ill(error)) = &answer
        && is_exhausted(error)
    {
        // It is the gateway that has none left, which says nothing about the endpoint.
        worker.metrics.bound(Bound::Descriptors);
        return;
    }
    let outcome = match &answer {
        Ok(()) => Outcome::Pass,
        Err(Unwell::Ill(_)) => Outcome::Fail,
        Err(Unwell::Foreign(_)) => Outcome::Foreign,
    };
    let reason = answer.err().map(|unwell| match unwell {
        Unwell::Ill(error) => error.to_string(),
        Unwell::Foreign(why) => why,
    });
    let now = worker.shared.world.clock().mono();
    if let Some(transition) = endpoint.check_ended(&probe.settings, outcome, now) {
        tracing::info!(backend = &*backend.name, endpoint = endpoint.url(), ?transition, reason);
    }
}

/// Why an endpoint gets no requests.
enum Unwell {
    Ill(io::Error),
    /// It is another service.
    Foreign(String),
}

impl From<io::Error> for Unwell {
    fn from(error: io::Error) -> Self {
        Self::Ill(error)
    }
}

/// Whether who answers is who should. Every answer says so, also one that tells of a failure.
fn recognise(probe: &HealthProbe, response: &ResponseHead) -> Result<(), Unwell> {
    let Some(ExpectedField { name, value }) = &probe.header else { return Ok(()) };
    match response.fields.get(name) {
        Some(found) if found == &**value => Ok(()),
        found => {
            let name = name.escape_ascii();
            Err(Unwell::Foreign(match found {
                Some(found) => {
                    format!("another service answers: {name} is {}", found.escape_ascii())
                }
                None => format!("another service answers: there is no {name}"),
            }))
        }
    }
}

/// Whether the endpoint is well; the error says why it is not.
async fn ask(
    worker: &Worker,
    backend: &Backend,
    probe: &HealthProbe,
    to: Chosen<'_>,
) -> Result<(), Unwell> {
    let mut leg = dial::fresh(worker, backend, to).await?;
    // What speaks no HTTP is none of the service's either.
    let garbled = |error: io::Error| match (error.kind(), &probe.header) {
        (io::ErrorKind::InvalidData, Some(_)) => {
            Unwell::Foreign(format!("something else answers: {error}"))
        }
        _ => Unwell::Ill(error),
    };
    match &probe.question {
        HealthQuestion::Connect => Ok(()),
        HealthQuestion::Http { path, host, statuses, contains } => {
            let mut head = head(backend, to, host.as_ref(), path);
            head.method = Method::GET;
            let response = exchange(worker, &mut leg, &head, &[]).await.map_err(garbled)?;
            recognise(probe, &response)?;
            let status = response.status.as_u16();
            if !statuses.iter().any(|(first, last)| (*first..=*last).contains(&status)) {
                return Err(io::Error::other(format!("status {status}")).into());
            }
            let Some(wanted) = contains else { return Ok(()) };
            let body = body(worker, &mut leg).await?;
            match body.windows(wanted.len()).any(|window| window == &**wanted) {
                true => Ok(()),
                false => Err(io::Error::other("the answer does not contain what it should").into()),
            }
        }
        HealthQuestion::Grpc { service } => {
            let mut head = head(backend, to, None, grpc_health::PATH);
            head.method = Method::POST;
            head.fields.append(b"content-type", grpc::CONTENT_TYPE);
            let question = grpc_health::question(service);
            head.body = BodyLength::of(question.len() as u64);
            let response = exchange(worker, &mut leg, &head, &question).await.map_err(garbled)?;
            recognise(probe, &response)?;
            if response.status != StatusCode::OK {
                let status = response.status.as_u16();
                return Err(io::Error::other(format!("status {status}")).into());
            }
            let body = body(worker, &mut leg).await?;
            let told = |fields: &Fields| fields.get(b"grpc-status").map(<[u8]>::to_vec);
            let status = leg.trailers().and_then(told).or_else(|| told(&response.fields));
            grpc_health::answer(status.as_deref(), &body).map_err(io::Error::other)?;
            Ok(())
        }
    }
}

fn head(backend: &Backend, to: Chosen<'_>, host: Option<&Arc<str>>, path: &str) -> RequestHead {
    let mut head = RequestHead::default();
    let host = match (host, &backend.host) {
        (Some(host), _) | (None, HostHeader::Name(host)) => host,
        _ => &to.address.authority,
    };
    head.authority = head.fields.intern(host.as_bytes());
    head.path = head.fields.intern(path.as_bytes());
    head.fields.append(b"user-agent", b"portcullis-health");
    head
}

/// Sends a request with its body, and reads the head of the answer.
async fn exchange(
    worker: &Worker,
    leg: &mut Leg,
    head: &RequestHead,
    sent: &[u8],
) -> io::Result<ResponseHead> {
    let accepts_trailers = !sent.is_empty();
    let wire = RequestWire { accepts_trailers, ..RequestWire::new(request_framing(head)) };
    leg.begin(&worker.buffers, head, &Begin { wire, accept: None });
    if !sent.is_empty() {
        leg.write(&worker.buffers, sent);
        leg.finish(&worker.buffers, None);
    }
    poll_fn(|cx| leg.poll_flush(cx, &worker.buffers)).await?;
    let mut response = ResponseHead::default();
    let limits = HeadLimits::default();
    loop {
        let kind =
            poll_fn(|cx| leg.poll_head(cx, &worker.buffers, &limits, &head.method, &mut response));
        let kind = kind.await.map_err(HeadFailure::into_error)?;
        if matches!(kind, HeadKind::Final { .. }) {
            return Ok(response);
        }
    }
}

/// The body's beginning.
async fn body(worker: &Worker, leg: &mut Leg) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut sink = |data: &[u8]| body.extend_from_slice(data);
        let progress = poll_fn(|cx| leg.poll_body(cx, &worker.buffers, true, &mut sink)).await;
        let progress = progress.map_err(ReadError::into_error)?;
        if matches!(progress, Progress::End) || body.len() >= BODY_BYTES_MAX {
            body.truncate(BODY_BYTES_MAX);
            return Ok(body);
        }
    }
}
