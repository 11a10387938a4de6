//! One copy after another to a mirror: sent once, its answer read to its end and thrown away.
//!
//! The backend's breaker, bulkhead, balancer and pool see it like any request, but it never waits
//! for a seat, is never sent again, and no client hears of it.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use portcullis_core::{RequestHead, ResponseHead};
use portcullis_http1::{RequestWire, request_framing};
use portcullis_snapshot::Chosen;
use portcullis_telemetry::metrics::{CopyResult, NoCopy};
use portcullis_upstream::{Ask, Tried, Verdict};

use super::Job;
use crate::backend::{Begin, HeadFailure, Leg};
use crate::call::{self, Told, ends_badly, told};
use crate::circuit;
use crate::deadline::{Deadline, Wait};
use crate::dial::{self, NoConnection};
use crate::forward::{Failure, name_host};
use crate::hedge::poll_end;
use crate::pool::Line;
use crate::retry::discard;
use crate::serve::unwound;
use crate::wire::Progress;
use crate::worker::Worker;

/// How much of an answer is read. One that is longer ends with its connection.
const ANSWER_BYTES_MAX: u64 = 10 << 20;

/// Sends copies for as long as there are any.
pub(super) async fn run(worker: Rc<Worker>, line: Line) {
    while let Some(job) = worker.mirrors.queue.next(line) {
        let bytes = job.bytes;
        if unwound(pin!(send(&worker, job))).await.is_none() {
            worker.metrics.panicked();
        }
        worker.mirrors.queue.release(bytes);
    }
}

async fn send(worker: &Rc<Worker>, mut job: Job) {
    let outcome = exchange(worker, &mut job).await;
    let (series, id) = (&job.pair.series, worker.metrics.id());
    match outcome {
        Ok(result) => series.sent(id, result),
        Err(reason) => series.skipped(id, reason),
    }
}

/// One exchange with the mirror. An error: there was none.
async fn exchange(worker: &Rc<Worker>, job: &mut Job) -> Result<CopyResult, NoCopy> {
    let clock = worker.shared.world.clock();
    let backend = Arc::clone(&job.backend);
    if worker.coarse_now() >= job.queued.saturating_add(job.timeout) {
        return Err(NoCopy::Expired);
    }
    let since = clock.mono();
    let entered = circuit::enter(&backend, since).map_err(|_| NoCopy::BreakerOpen)?;
    let seat = backend.capacity.requests.try_enter(backend.requests_max).ok_or(NoCopy::Busy)?;
    let set = backend.endpoints.load();
    let (now, random) = (since, worker.random());
    let ask = Ask { now, random, key: job.key, ..Ask::default() };
    let begun = set.balancer.start(ask, &Tried::default());
    let (index, mut in_flight) = begun.ok_or(NoCopy::Unavailable)?;
    let deadline = worker.deadlines.add();
    let until = worker.coarse_now().saturating_add(job.timeout);
    deadline.set_ceiling(Wait::Mirror, until);
    job.wish.ceiling = until;
    let mut answer = ResponseHead::default();
    let (mut leg, ended) = ask_for(worker, &deadline, job, set.at(index), &mut answer).await?;
    let took = clock.mono().saturating_sub(since);
    let mut verdict = verdict(&ended, leg.as_ref(), job, &answer);
    let mut whole = false;
    if let (Ok(()), Some(leg)) = (&ended, &mut leg) {
        compare(worker, job, answer.status.as_u16(), took);
        whole = body(worker, &deadline, job, leg, &answer).await;
        let is_call = told(leg, &job.request, &answer) == Told::Later;
        if is_call && ends_badly(leg.trailers(), &job.request) {
            verdict = Some(Verdict::Status);
        }
    }
    if let Some(verdict) = verdict {
        let now = clock.mono();
        if let Some(change) = set.balancer.ended(&mut in_flight, verdict, took, now) {
            circuit::tell(&backend.name, Some(in_flight.endpoint().url()), change);
        }
        if let Some(entered) = entered {
            entered.judged(verdict.is_failure(), now);
        }
        if backend.adaptive && verdict == Verdict::Well {
            backend.capacity.answered(took, now, backend.requests_max);
        }
    }
    match leg {
        Some(leg) => discard(worker, leg, whole, &backend),
        None => worker.pool.wake_one(Line::of(&backend)),
    }
    drop(seat);
    Ok(match ended {
        Ok(()) => CopyResult::Answered,
        Err(Failure::Timeout) => CopyResult::Late,
        Err(_) => CopyResult::Failed,
    })
}

/// Sends the request and waits for the final head. Without a leg there was no connection.
async fn ask_for(
    worker: &Rc<Worker>,
    deadline: &Rc<Deadline>,
    job: &mut Job,
    to: Chosen<'_>,
    answer: &mut ResponseHead,
) -> Result<(Option<Leg>, Result<(), Failure>), NoCopy> {
    let id = worker.metrics.id();
    job.backend_series.attempt(id, false);
    let mut leg = match dial::acquire(worker, deadline, &job.backend, to, job.wish).await {
        Ok(leg) => leg,
        Err(NoConnection::Busy(_)) => return Err(NoCopy::Busy),
        Err(NoConnection::Late) => return Ok((None, Err(Failure::Timeout))),
        Err(NoConnection::Failed(error)) => {
            to.endpoint.connect_failed(worker.shared.world.clock().mono());
            return Ok((None, Err(Failure::Head(HeadFailure::Cut(error)))));
        }
    };
    if !leg.is_reused() {
        job.backend_series.connected(id);
    }
    name_host(&mut job.request, &job.backend, to);
    begin(worker, job, &mut leg);
    deadline.set(Wait::Mirror, job.wish.ceiling);
    let ended = head(worker, deadline, &mut leg, &job.request, answer).await;
    Ok((Some(leg), ended))
}

/// What the head says about the endpoint, or that there is none; `None`: nothing.
fn verdict(
    ended: &Result<(), Failure>,
    leg: Option<&Leg>,
    job: &Job,
    answer: &ResponseHead,
) -> Option<Verdict> {
    match (ended, leg) {
        (Ok(()), _) if answer.status.is_server_error() => Some(Verdict::Status),
        (Ok(()), Some(leg)) if told(leg, &job.request, answer) == Told::Fault => {
            Some(Verdict::Status)
        }
        (Ok(()), _) => Some(Verdict::Well),
        // As for requests: what is closed while it idles, or says that it goes, is in good order.
        (Err(Failure::Head(HeadFailure::Refused(_))), _) => None,
        (Err(Failure::Head(HeadFailure::Silent(_))), Some(leg)) if leg.is_reused() => None,
        // There was no room for a connection in time, for which no endpoint is to blame.
        (Err(Failure::Timeout), None) => None,
        (Err(_), _) => Some(Verdict::Error),
    }
}

/// Queues all of the request.
fn begin(worker: &Worker, job: &Job, leg: &mut Leg) {
    let request = &job.request;
    let wire = RequestWire {
        accepts_trailers: job.accepts_trailers,
        ..RequestWire::new(request_framing(request))
    };
    leg.begin(&worker.buffers, request, &Begin { wire, accept: None });
    if !job.body.is_empty() {
        leg.write(&worker.buffers, &job.body);
    }
    leg.finish(&worker.buffers, job.trailers.as_ref());
}

/// Waits for the final head.
async fn head(
    worker: &Worker,
    deadline: &Deadline,
    leg: &mut Leg,
    request: &RequestHead,
    answer: &mut ResponseHead,
) -> Result<(), Failure> {
    poll_fn(|cx| match poll_end(cx, worker, leg, &request.method, answer) {
        Poll::Ready(end) => Poll::Ready(end.map(drop)),
        Poll::Pending => match deadline.check(cx) {
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(Err(Failure::Timeout)),
        },
    })
    .await
}

/// Reads the body away. Whether all of it came.
async fn body(
    worker: &Worker,
    deadline: &Deadline,
    job: &Job,
    leg: &mut Leg,
    answer: &ResponseHead,
) -> bool {
    let mut bytes = 0;
    while bytes <= ANSWER_BYTES_MAX {
        let progress = poll_fn(|cx| {
            // The mirror may have answered before it had taken all of the request.
            let _sent = leg.poll_flush(cx, &worker.buffers);
            let mut sink = |data: &[u8]| bytes += data.len() as u64;
            match leg.poll_body(cx, &worker.buffers, true, &mut sink) {
                Poll::Pending if deadline.check(cx).is_err() => Poll::Ready(None),
                poll => poll.map(Some),
            }
        });
        match progress.await {
            Some(Ok(Progress::More)) => {}
            Some(Ok(Progress::End)) => {
                let grpc = call::status(leg, &job.request, answer);
                job.pair.mirror_ended(worker, bytes, grpc);
                return true;
            }
            Some(Err(_)) => {
                leg.endpoint().broke_off();
                return false;
            }
            None => return false,
        }
    }
    false
}

/// Compares what is known from the head.
fn compare(worker: &Worker, job: &Job, status: u16, took: Duration) {
    let pair = &job.pair;
    pair.status.set(Some(status));
    pair.series.answered(worker.metrics.id(), pair.real, (status, took));
    let real = pair.real.0;
    if real == status {
        return;
    }
    let Some(untold) = worker.mirrors.tells(worker.coarse_now()) else { return };
    let path = String::from_utf8_lossy(job.request.path());
    tracing::info!(
        route = &*pair.route,
        request_id = pair.request_id.as_str(),
        method = job.request.method.as_str(),
        path = &*path,
        status = real,
        mirror = &*job.backend.name,
        mirror_status = status,
        untold,
        "a mirror answered otherwise"
    );
}
