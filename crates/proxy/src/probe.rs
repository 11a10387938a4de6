//! Active health checks: asks endpoints how they are. What the answers mean is `upstream`'s.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Method;
use portcullis_core::{RequestHead, ResponseHead};
use portcullis_http1::{Framing, HeadLimits, RequestWire};
use portcullis_snapshot::{Backend, HealthProbe, HostHeader};
use portcullis_telemetry::metrics::Bound;
use portcullis_upstream::{EndpointIndex, Outcome};

use crate::backend::{Begin, HeadKind};
use crate::deadline::Wait;
use crate::dial;
use crate::socket::is_exhausted;
use crate::worker::Worker;

/// How often due checks are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Runs on the first worker: checks are few, and their results are shared.
pub(crate) async fn run(worker: Rc<Worker>) {
    let clock = worker.shared.world.clock().clone();
    loop {
        let now = clock.mono();
        for backend in &worker.active().snapshot.backends {
            let Some(probe) = &backend.health else { continue };
            for (number, member) in backend.balancer.members().iter().enumerate() {
                if member.endpoint.check_due().is_some_and(|due| due <= now) {
                    member.endpoint.check_begun(&probe.settings, now);
                    let index = EndpointIndex(number as u16);
                    let check = check(Rc::clone(&worker), Arc::clone(backend), index);
                    tokio::task::spawn_local(check);
                }
            }
        }
        clock.sleep(LOOK).await;
    }
}

async fn check(worker: Rc<Worker>, backend: Arc<Backend>, index: EndpointIndex) {
    let Some(probe) = &backend.health else { return };
    let deadline = worker.deadlines.add();
    deadline.set(Wait::Connect, worker.coarse_now() + probe.timeout);
    let mut ask = std::pin::pin!(ask(&worker, &backend, probe, index));
    let status = poll_fn(|cx| match deadline.check(cx) {
        Ok(()) => ask.as_mut().poll(cx),
        Err(_) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
    })
    .await;
    if status.as_ref().is_err_and(is_exhausted) {
        // It is the gateway that has none left, which says nothing about the endpoint.
        worker.metrics.bound(Bound::Descriptors);
        return;
    }
    let outcome = match status.as_ref().is_ok_and(|status| probe.is_healthy(*status)) {
        true => Outcome::Pass,
        false => Outcome::Fail,
    };
    let endpoint = backend.balancer.endpoint(index);
    let now = worker.shared.world.clock().mono();
    if let Some(transition) = endpoint.check_ended(&probe.settings, outcome, now) {
        tracing::info!(backend = &*backend.name, endpoint = endpoint.url(), ?transition, ?status);
    }
}

/// The status of the endpoint's answer.
async fn ask(
    worker: &Worker,
    backend: &Backend,
    probe: &HealthProbe,
    index: EndpointIndex,
) -> io::Result<u16> {
    let address = backend.endpoint(index);
    let mut leg = dial::fresh(worker, backend, index).await?;
    let mut head = RequestHead { method: Method::GET, ..RequestHead::default() };
    let host = match (&probe.host, &backend.host) {
        (Some(host), _) | (None, HostHeader::Name(host)) => host,
        _ => &address.authority,
    };
    head.authority = head.fields.intern(host.as_bytes());
    head.path = head.fields.intern(probe.path.as_bytes());
    head.fields.append(b"user-agent", b"portcullis-health");
    let begin = Begin { wire: RequestWire::new(Framing::None), accept: None };
    leg.begin(&worker.buffers, &head, &begin);
    poll_fn(|cx| leg.poll_flush(cx, &worker.buffers)).await?;
    let mut response = ResponseHead::default();
    let limits = HeadLimits::default();
    loop {
        let kind =
            poll_fn(|cx| leg.poll_head(cx, &worker.buffers, &limits, &head.method, &mut response));
        let kind = kind.await.map_err(|failure| io::Error::other(format!("{failure:?}")))?;
        if matches!(kind, HeadKind::Final { .. }) {
            return Ok(response.status.as_u16());
        }
    }
}
