//! Active health checks: asks endpoints how they are. What the answers mean is `upstream`'s.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Method;
use portcullis_core::{RequestHead, ResponseHead};
use portcullis_http1::{Framing, HeadLimits, RequestWire, ResponseKind};
use portcullis_snapshot::{Backend, HostHeader};
use portcullis_upstream::{EndpointIndex, Outcome};

use crate::backend::BackendConnection;
use crate::deadline::Wait;
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
    let mut ask = std::pin::pin!(ask(&worker, &backend, index));
    let status = poll_fn(|cx| match deadline.check(cx) {
        Ok(()) => ask.as_mut().poll(cx),
        Err(_) => Poll::Ready(None),
    })
    .await;
    let outcome = match status.is_some_and(|status| probe.is_healthy(status)) {
        true => Outcome::Pass,
        false => Outcome::Fail,
    };
    let endpoint = backend.balancer.endpoint(index);
    let now = worker.shared.world.clock().mono();
    if let Some(transition) = endpoint.check_ended(&probe.settings, outcome, now) {
        tracing::info!(backend = &*backend.name, endpoint = endpoint.url(), ?transition, ?status);
    }
}

/// The status of the endpoint's answer, if there is one.
async fn ask(worker: &Worker, backend: &Backend, index: EndpointIndex) -> Option<u16> {
    let probe = backend.health.as_ref()?;
    let address = backend.endpoint(index);
    let tls = match (&backend.tls, &address.server_name) {
        (Some(tls), Some(name)) if address.https => Some((&tls.config, name)),
        _ => None,
    };
    let now = worker.coarse_now();
    let io = worker.pool.connect(&address.host, address.port, tls, now).await.ok()?;
    let endpoint = Arc::clone(backend.balancer.endpoint(index));
    let mut connection = BackendConnection::new(io, endpoint, None);
    let mut head = RequestHead { method: Method::GET, ..RequestHead::default() };
    let host = match (&probe.host, &backend.host) {
        (Some(host), _) | (None, HostHeader::Name(host)) => host,
        _ => &address.authority,
    };
    head.authority = head.fields.intern(host.as_bytes());
    head.path = head.fields.intern(probe.path.as_bytes());
    head.fields.append(b"user-agent", b"portcullis-health");
    connection.begin(&worker.buffers, &head, &RequestWire::new(Framing::None));
    poll_fn(|cx| connection.poll_flush(cx, &worker.buffers)).await.ok()?;
    let mut response = ResponseHead::default();
    let limits = HeadLimits::default();
    loop {
        let facts = poll_fn(|cx| {
            connection.poll_head(cx, &worker.buffers, &limits, &head.method, &mut response)
        });
        if facts.await.ok()?.kind == ResponseKind::Final {
            return Some(response.status.as_u16());
        }
    }
}
