//! A request's way into the bulkheads of its route and of its backend: at once, after a wait in
//! line, or not at all. What may be inside, and who is next, is `upstream`'s business.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use portcullis_core::{Problem, codes};
use portcullis_snapshot::{Backend, Route};
use portcullis_upstream::{Bounds, Bulkhead, Full, Seat};

use crate::client::{Client, ClientError};
use crate::deadline::{Expired, Wait};
use crate::pool::Line;
use crate::slot::Slot;
use crate::worker::Worker;

/// When whoever is refused may come again: room is made from one moment to the next.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a request occupies while it is under way.
#[derive(Debug)]
pub(crate) struct Seats {
    backend: Seat,
    _route: Option<Seat>,
}

impl Seats {
    /// Where requests wait that may use the connection after this one.
    pub(crate) fn line(&self) -> Line {
        Line::at(self.backend.bulkhead())
    }
}

/// One bulkhead, as the configuration that serves has it.
#[derive(Clone, Copy)]
struct Door<'a> {
    bulkhead: &'a Arc<Bulkhead>,
    bounds: Bounds,
    timeout: Duration,
    kind: &'static str,
    name: &'a str,
}

/// The route's bulkhead first: a request that waits for its backend is under way for its route.
pub(crate) async fn enter<C: Client>(
    worker: &Rc<Worker>,
    client: &mut C,
    slot: &mut Slot,
    route: &Route,
    backend: &Backend,
) -> Result<Seats, ClientError> {
    let of_route = route.bulkhead.as_ref().map(|of| Door {
        bulkhead: &of.bulkhead,
        bounds: of.bounds,
        timeout: of.pending_timeout,
        kind: "route",
        name: &route.name,
    });
    let of_backend = Door {
        bulkhead: &backend.capacity.requests,
        bounds: Bounds { requests_max: backend.requests_max, pending_max: backend.pending_max },
        timeout: backend.pending_timeout,
        kind: "backend",
        name: &backend.name,
    };
    let mut seat = None;
    if let Some(door) = of_route {
        seat = Some(door.enter(worker, client, slot).await?);
    }
    Ok(Seats { backend: of_backend.enter(worker, client, slot).await?, _route: seat })
}

impl Door<'_> {
    async fn enter<C: Client>(
        self,
        worker: &Rc<Worker>,
        client: &mut C,
        slot: &mut Slot,
    ) -> Result<Seat, ClientError> {
        match self.bulkhead.try_enter(self.bounds.requests_max) {
            Some(seat) => Ok(seat),
            // Boxed, since hardly any request ever waits.
            None => Box::pin(self.wait(worker, client, slot)).await,
        }
    }

    async fn wait<C: Client>(
        self,
        worker: &Rc<Worker>,
        client: &mut C,
        slot: &mut Slot,
    ) -> Result<Seat, ClientError> {
        let line = self.bulkhead.wait(self.bounds, Waker::noop());
        let mut line = line.map_err(|Full| self.refusal("pending_max wait already"))?;
        client.deadline().set(Wait::Queue, worker.coarse_now() + self.timeout);
        let seat = poll_fn(|cx| {
            if let Poll::Ready(seat) = line.poll(cx) {
                return Poll::Ready(Ok(Ok(seat)));
            }
            if let Poll::Ready(gone) = client.poll_gone(cx) {
                return Poll::Ready(Err(gone));
            }
            match client.deadline().check(cx) {
                Ok(()) => Poll::Pending,
                Err(expired) => Poll::Ready(Ok(Err(expired))),
            }
        })
        .await?;
        slot.exchange.now = worker.shared.world.clock().now();
        seat.map_err(|Expired(wait)| {
            line.give_up();
            match wait {
                Wait::Queue => self.refusal("no turn within pending_timeout"),
                // The time of the whole exchange is over.
                _ => ClientError::Refused(Problem::new(codes::BACKEND_TIMEOUT).detail(self)),
            }
        })
    }

    fn refusal(&self, why: &str) -> ClientError {
        let detail = format!("{self}: {why}");
        let problem = Problem::new(codes::BACKEND_BUSY).detail(detail).retry_after(RETRY_AFTER);
        ClientError::Refused(problem)
    }
}

impl fmt::Display for Door<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = self.bulkhead.bound(self.bounds.requests_max);
        write!(f, "{bound} requests of {} {} are under way", self.kind, self.name)
    }
}
