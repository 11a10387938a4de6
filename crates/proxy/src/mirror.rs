//! Copies of requests for a route's mirror: which are made, what is in them, and what their answers
//! are compared with.
//!
//! A copy is made when the backend has answered, so that the mirror gets nothing that the backend
//! has not got, and nobody waits for it: it goes into a bounded queue ([`queue`]), and tasks of
//! their own send it ([`send`]).

mod queue;
mod send;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::exchange::RequestId;
use portcullis_core::{BodyLength, Fields, RequestHead, Span};
use portcullis_snapshot::{Backend, Mirror, Route};
use portcullis_telemetry::metrics::{BackendSeries, MirrorSeries, NoCopy};

use crate::client::Client;
use crate::dial::Wish;
use crate::gateway::Active;
use crate::pool::Line;
use crate::prepare;
use crate::relay::Upload;
use crate::slot::Slot;
use crate::worker::Worker;
use queue::Queue;

/// Between two lines of the log about answers that differ, of one worker.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Turns the exchange's random number, so that being drawn has nothing to do with its variant.
const TURN: u32 = 16;

/// The copies of one worker.
#[derive(Debug, Default)]
pub(crate) struct Mirrors {
    queue: Queue<Job>,
    /// When a difference may be told next, and how many were not since the last.
    quiet: Cell<(Duration, u64)>,
}

/// A copy that is to be sent.
#[derive(Debug)]
struct Job {
    backend: Arc<Backend>,
    backend_series: Arc<BackendSeries>,
    pair: Rc<Pair>,
    request: RequestHead,
    accepts_trailers: bool,
    body: Bytes,
    trailers: Option<Fields>,
    /// What the backend's balancer hashes.
    key: Option<u64>,
    wish: Wish,
    /// When it was put into the queue.
    queued: Duration,
    timeout: Duration,
    bytes: usize,
}

/// An answer that counts and that of the mirror.
#[derive(Debug)]
pub(crate) struct Pair {
    series: Arc<MirrorSeries>,
    route: Arc<str>,
    request_id: RequestId,
    /// Status, and the time to the head.
    real: (u16, Duration),
    status: Cell<Option<u16>>,
    /// How the two answers have ended. Either may be the first.
    real_end: Cell<Option<End>>,
    end: Cell<Option<End>>,
}

/// The end of an answer of which all has come.
#[derive(Clone, Copy, Debug)]
struct End {
    /// Of its body.
    bytes: u64,
    /// gRPC's status, of a call.
    grpc: Option<u8>,
}

impl Pair {
    /// The client has been sent all of the backend's answer, as it was.
    pub(crate) fn real_ended(&self, worker: &Worker, bytes: u64, grpc: Option<u8>) {
        self.real_end.set(Some(End { bytes, grpc }));
        self.compare_ends(worker);
    }

    fn mirror_ended(&self, worker: &Worker, bytes: u64, grpc: Option<u8>) {
        self.end.set(Some(End { bytes, grpc }));
        self.compare_ends(worker);
    }

    fn compare_ends(&self, worker: &Worker) {
        let (Some(real), Some(mirror)) = (self.real_end.get(), self.end.get()) else { return };
        // Of answers that differ anyway nothing more is said.
        if self.status.get() == Some(self.real.0) {
            let id = worker.metrics.id();
            if real.grpc != mirror.grpc {
                self.series.differs(id);
            }
            self.series.sized(id, real.bytes, mirror.bytes);
        }
    }
}

/// A request of which a copy is wanted, while its backend is asked. Dropped without an answer of
/// the backend there is none.
pub(crate) struct Drawn<'a> {
    worker: &'a Rc<Worker>,
    active: &'a Active,
    route: &'a Route,
    mirror: &'a Mirror,
    series: &'a Arc<MirrorSeries>,
    fate: Option<NoCopy>,
}

impl Drop for Drawn<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.fate {
            self.series.skipped(self.worker.metrics.id(), reason);
        }
    }
}

/// Decides whether a copy of the request is wanted, and has its body kept then. To be called when
/// it is known what the backend gets.
pub(crate) fn draw<'a, C: Client>(
    worker: &'a Rc<Worker>,
    active: &'a Active,
    client: &C,
    slot: &Slot,
    (route, mirror): (&'a Route, &'a Mirror),
    upload: &mut Upload,
    upgrades: bool,
) -> Option<Drawn<'a>> {
    if !mirror.draws(slot.exchange.random.rotate_left(TURN)) {
        return None;
    }
    let series = active.mirrors.get(route.index as usize)?.as_ref()?;
    let mut drawn = Drawn { worker, active, route, mirror, series, fate: None };
    let request = &slot.exchange.request;
    drawn.fate = if upgrades {
        Some(NoCopy::Upgrade)
    } else if !mirror.copies(&request.method) {
        Some(NoCopy::UnsafeMethod)
    } else if matches!(request.body, BodyLength::Known(n) if n > mirror.body_bytes_max as u64) {
        Some(NoCopy::BodyMax)
    } else if !client.place().pressure().is_none() {
        Some(NoCopy::Overloaded)
    } else {
        None
    };
    if drawn.fate.is_some() {
        return None;
    }
    if request.body != BodyLength::Empty {
        upload.keep_copy(mirror.body_bytes_max);
    }
    drawn.fate = Some(NoCopy::Unanswered);
    Some(drawn)
}

impl Drawn<'_> {
    /// The backend has answered, `took` after it was asked: the copy goes on its way, if all of the
    /// request is here and there is room for it. `authority` is what the client has asked for.
    pub(crate) fn copy(
        mut self,
        slot: &mut Slot,
        upload: &mut Upload,
        (authority, wish): (Span, Wish),
        took: Duration,
    ) {
        self.fate = self.try_copy(slot, upload, (authority, wish), took).err();
    }

    fn try_copy(
        &self,
        slot: &mut Slot,
        upload: &mut Upload,
        (authority, wish): (Span, Wish),
        took: Duration,
    ) -> Result<(), NoCopy> {
        let Self { worker, active, route, mirror, series, .. } = *self;
        if !upload.is_complete() {
            return Err(NoCopy::Unfinished);
        }
        let most = mirror.body_bytes_max;
        let (body, trailers) = upload.take_copy(most).ok_or(NoCopy::BodyMax)?;
        let index = usize::from(mirror.backend);
        let backend = &active.snapshot.backends[index];
        let line = Line::of(backend);
        let exchange = &slot.exchange;
        let head_bytes = exchange.request.fields.bytes().len();
        let bytes = size_of::<Job>() + head_bytes + body.len();
        if !worker.mirrors.queue.has_room(line, bytes) {
            return Err(NoCopy::QueueFull);
        }
        let mut request = exchange.request.clone();
        request.authority = authority;
        let owned = (backend.forwarded, backend.forward_certificate);
        prepare::tell_mirror(&mut request.fields, &route.name, owned);
        let pair = Rc::new(Pair {
            series: Arc::clone(series),
            route: Arc::clone(&route.name),
            request_id: exchange.request_id,
            real: (slot.response.status.as_u16(), took),
            status: Cell::default(),
            real_end: Cell::default(),
            end: Cell::default(),
        });
        let job = Job {
            backend: Arc::clone(backend),
            backend_series: Arc::clone(&active.backends[index]),
            pair: Rc::clone(&pair),
            request,
            accepts_trailers: slot.accepts_trailers,
            body,
            trailers,
            key: backend.hash.as_ref().and_then(|hash| hash.of(exchange)),
            wish: Wish { upgrade: false, by: None, ..wish },
            queued: worker.coarse_now(),
            timeout: mirror.timeout,
            bytes,
        };
        if worker.mirrors.queue.push(line, bytes, job) {
            tokio::task::spawn_local(send::run(Rc::clone(worker), line));
        }
        slot.trip.mirrored = Some(pair);
        Ok(())
    }
}

impl Mirrors {
    /// Whether a difference is told now, and then how many were not before it.
    fn tells(&self, now: Duration) -> Option<u64> {
        let (next, untold) = self.quiet.get();
        let told = now >= next;
        self.quiet.set(if told { (now + TOLD_EVERY, 0) } else { (next, untold + 1) });
        told.then_some(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_difference_a_second_is_told() {
        let mirrors = Mirrors::default();
        let at = |ms| mirrors.tells(Duration::from_millis(ms));
        let told = [0, 1, 999, 1000, 1001, 3000, 4000].map(at);
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1), Some(0)]);
    }
}
