//! Moving bodies: from the client to the backend while an answer is awaited, and back.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::known::is_alias;
use portcullis_core::policy::BodyFilter;
use portcullis_core::{Fields, Problem, codes};

use crate::backend::Leg;
use crate::client::{Client, ClientError};
use crate::deadline::{Expired, Wait};
use crate::prepare;
use crate::wire::Progress;
use crate::worker::Worker;

/// A chain of body filters; empty for nearly every exchange.
#[derive(Default)]
pub(crate) struct Filters {
    chain: Vec<Box<dyn BodyFilter>>,
    /// Output of one filter, input of the next.
    between: [Vec<u8>; 2],
}

impl Filters {
    pub(crate) fn new(chain: Vec<Box<dyn BodyFilter>>) -> Self {
        Self { chain, between: Default::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    /// Sends a piece through the chain; `sink` gets what comes out at its end.
    pub(crate) fn run(
        &mut self,
        data: &[u8],
        end: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Problem> {
        if self.chain.is_empty() {
            sink(data);
            return Ok(());
        }
        let [from, to] = &mut self.between;
        from.clear();
        from.extend_from_slice(data);
        for filter in &mut self.chain {
            to.clear();
            filter.on_data(from, end, to)?;
            std::mem::swap(from, to);
        }
        if !from.is_empty() {
            sink(from);
        }
        Ok(())
    }

    /// The trailers to send on: none of the gateway's own names nor of those that were decided
    /// about in the head, and as the filters want them.
    pub(crate) fn trailers(
        &mut self,
        trailers: Option<&Fields>,
        decided: Option<&[Box<str>]>,
    ) -> Option<Fields> {
        let mut trailers = trailers?.clone();
        prepare::remove_owned(&mut trailers);
        if let Some(decided) = decided {
            let fits = |name: &[u8]| decided.iter().any(|one| is_alias(name, one.as_bytes()));
            trailers.remove_if(|_, name, _| fits(name));
        }
        for filter in &mut self.chain {
            filter.on_trailers(&mut trailers);
        }
        Some(trailers).filter(|trailers| !trailers.is_empty())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// All of it is with the backend's connection.
    Complete,
    /// The backend takes no more; whether it answers is another matter.
    Abandoned,
}

/// The request body on its way to the backend.
pub(crate) struct Upload {
    state: State,
    /// A body that was buffered for a policy.
    held: Option<Bytes>,
    filters: Filters,
    /// See [`portcullis_snapshot::Route::request_fields`].
    decided: Option<Arc<[Box<str>]>>,
    bytes_max: u64,
    /// Body bytes received from the client.
    pub(crate) received: u64,
    /// How long the client may pause.
    pause: Duration,
    /// What was sent, while it may have to be sent again.
    kept: Option<Box<Kept>>,
}

/// The beginning of a body.
struct Kept {
    /// As the backend got it.
    bytes: Vec<u8>,
    bytes_max: usize,
    /// Up to so many may be sent again; `None`: it is not kept for that.
    repeats_max: Option<usize>,
    /// It is all of it, with these trailers.
    ended: Option<Option<Fields>>,
    /// It is to be sent again before anything else.
    due: bool,
}

fn keep(kept: &mut Option<Box<Kept>>, data: &[u8]) {
    match kept {
        Some(beginning) if beginning.bytes.len() + data.len() <= beginning.bytes_max => {
            beginning.bytes.extend_from_slice(data);
        }
        // Too long: then it is sent once.
        _ => *kept = None,
    }
}

impl Kept {
    fn new(bytes_max: usize, repeats_max: Option<usize>) -> Box<Self> {
        Box::new(Self { bytes: Vec::new(), bytes_max, repeats_max, ended: None, due: false })
    }

    fn repeats(&self) -> bool {
        self.repeats_max.is_some_and(|most| self.bytes.len() <= most)
    }
}

impl Upload {
    pub(crate) fn new(
        held: Option<Bytes>,
        filters: Filters,
        decided: Option<Arc<[Box<str>]>>,
        bytes_max: u64,
        received: u64,
        pause: Duration,
    ) -> Self {
        let (state, kept) = (State::Open, None);
        Self { state, held, filters, decided, bytes_max, received, pause, kept }
    }

    /// The same, keeping so much of what it sends.
    pub(crate) fn keep(self, bytes_max: usize) -> Self {
        Self { kept: Some(Kept::new(bytes_max, Some(bytes_max))), ..self }
    }

    /// Keeps so much of what it sends for a copy as well. Nothing is sent again because of that.
    pub(crate) fn keep_copy(&mut self, bytes_max: usize) {
        match &mut self.kept {
            Some(kept) => kept.bytes_max = kept.bytes_max.max(bytes_max),
            None if self.held.is_some() => {}
            None => self.kept = Some(Kept::new(bytes_max, None)),
        }
    }

    /// All of what was sent, with its trailers, which is not kept any longer; `None` if it is
    /// longer than that. To be called when it is complete and not sent again any more.
    pub(crate) fn take_copy(&mut self, bytes_max: usize) -> Option<(Bytes, Option<Fields>)> {
        let (body, trailers) = match (&self.held, self.kept.take()) {
            (Some(held), _) => (held.clone(), None),
            (None, Some(kept)) => (kept.bytes.into(), kept.ended.flatten()),
            (None, None) if self.received == 0 => (Bytes::new(), None),
            (None, None) => return None,
        };
        (body.len() <= bytes_max).then_some((body, trailers))
    }

    /// All that was taken from the client is still here: the request may be sent again.
    pub(crate) fn is_repeatable(&self) -> bool {
        let kept = || self.kept.as_ref().is_some_and(|kept| kept.repeats());
        self.received == 0 || self.held.is_some() || kept()
    }

    pub(crate) const fn pause(&self) -> Duration {
        self.pause
    }

    pub(crate) fn restart(&mut self) {
        self.state = State::Open;
        if let Some(kept) = &mut self.kept {
            kept.due = !kept.bytes.is_empty() || kept.ended.is_some();
        }
    }

    /// Queues all of a body that was sent once for another backend, which gets it beside the first.
    /// Only what is complete and repeatable is here whole.
    pub(crate) fn repeat(&self, worker: &Worker, backend: &mut Leg) {
        let kept = self.kept.as_deref();
        let bytes = self.held.as_deref().or(kept.map(|kept| &*kept.bytes)).unwrap_or_default();
        if !bytes.is_empty() {
            backend.write(&worker.buffers, bytes);
        }
        let trailers = kept.and_then(|kept| kept.ended.as_ref()?.as_ref());
        backend.finish(&worker.buffers, trailers);
    }

    /// The answer is here and the client was not asked for its body: it is not wanted any more.
    pub(crate) fn abandon(&mut self) {
        self.state = State::Abandoned;
    }

    /// The body waits here, whole.
    pub(crate) const fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state != State::Open
    }

    /// The whole request was sent, so that what the backend says is about all of it.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Queues what is at hand, so that head and first bytes go in one write.
    pub(crate) fn begin<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut C,
        backend: &mut Leg,
    ) -> Result<(), ClientError> {
        match self.poll_take(cx, worker, client, backend, false) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Moves what can be moved. Ready when the upload is over and what was queued is sent.
    pub(crate) fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut C,
        backend: &mut Leg,
    ) -> Poll<Result<(), ClientError>> {
        loop {
            match backend.poll_flush(cx, &worker.buffers) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.state = State::Abandoned,
            }
            if self.is_over() {
                return Poll::Ready(Ok(()));
            }
            match self.poll_take(cx, worker, client, backend, true) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result?,
            }
        }
    }

    fn poll_take<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut C,
        backend: &mut Leg,
        read: bool,
    ) -> Poll<Result<(), ClientError>> {
        if let Some(body) = &self.held {
            if !body.is_empty() {
                backend.write(&worker.buffers, body);
            }
            backend.finish(&worker.buffers, None);
            self.state = State::Complete;
            return Poll::Ready(Ok(()));
        }
        if let Some(kept) = &mut self.kept
            && std::mem::take(&mut kept.due)
        {
            if !kept.bytes.is_empty() {
                backend.write(&worker.buffers, &kept.bytes);
            }
            if let Some(trailers) = &kept.ended {
                backend.finish(&worker.buffers, trailers.as_ref());
                self.state = State::Complete;
            }
            return Poll::Ready(Ok(()));
        }
        let before = self.received;
        let mut problem = None;
        let progress = {
            let Self { filters, received, bytes_max, kept, .. } = self;
            let mut sink = |data: &[u8]| {
                *received += data.len() as u64;
                if problem.is_some() {
                    return;
                }
                if *received > *bytes_max {
                    problem = Some(Problem::new(codes::BODY_TOO_LARGE));
                    return;
                }
                let mut write = |data: &[u8]| {
                    if kept.is_some() {
                        keep(kept, data);
                    }
                    backend.write(&worker.buffers, data);
                };
                problem = filters.run(data, false, &mut write).err();
            };
            client.poll_body(cx, worker, read, &mut sink)
        };
        if let Some(problem) = problem {
            return Poll::Ready(Err(ClientError::Refused(problem)));
        }
        match progress {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(Progress::More)) => {
                if self.received > before {
                    client.deadline().set(Wait::RequestBody, worker.coarse_now() + self.pause);
                }
            }
            Poll::Ready(Ok(Progress::End)) => {
                if !self.filters.is_empty() {
                    let Self { filters, kept, .. } = self;
                    let mut write = |data: &[u8]| {
                        if kept.is_some() {
                            keep(kept, data);
                        }
                        backend.write(&worker.buffers, data);
                    };
                    let run = filters.run(&[], true, &mut write);
                    run.map_err(ClientError::Refused)?;
                }
                let trailers = self.filters.trailers(client.trailers(), self.decided.as_deref());
                backend.finish(&worker.buffers, trailers.as_ref());
                if let Some(kept) = &mut self.kept {
                    kept.ended = Some(trailers);
                }
                self.state = State::Complete;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Why an answer could not be brought to its end.
#[derive(Debug)]
pub(crate) enum Cut {
    Client(String),
    Backend(String),
    Gateway(String),
}

/// The response body on its way to the client.
pub(crate) struct Download<'a> {
    pub(crate) backend: &'a mut Leg,
    pub(crate) upload: &'a mut Upload,
    pub(crate) filters: Filters,
    pub(crate) sent: &'a mut u64,
    /// How long backend and client may pause.
    pub(crate) pause: Duration,
    pub(crate) ended: bool,
}

impl Download<'_> {
    /// Queues what came with the head, so that both go in one write.
    pub(crate) fn begin<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut C,
    ) -> Result<(), Cut> {
        match self.poll_take(cx, worker, client, false) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when the client has been sent everything.
    pub(crate) fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut C,
    ) -> Poll<Result<(), Cut>> {
        if !self.upload.is_over()
            && let Poll::Ready(Err(_)) = self.upload.poll(cx, worker, client, self.backend)
        {
            // The answer is under way: it goes on, and the connection to the client ends with it.
            self.upload.state = State::Abandoned;
        }
        loop {
            match client.poll_flush(cx, worker) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if self.ended => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(gone(error))),
            }
            match self.poll_take(cx, worker, client, true) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(cut)) => return Poll::Ready(Err(cut)),
                Poll::Pending => {
                    if !self.ended
                        && let Poll::Ready(error) = client.poll_gone(cx)
                    {
                        return Poll::Ready(Err(gone(error)));
                    }
                    return match client.deadline().check(cx) {
                        Ok(()) => Poll::Pending,
                        Err(Expired(wait)) => {
                            Poll::Ready(Err(Cut::Backend(format!("too slow: {}", wait.name()))))
                        }
                    };
                }
            }
        }
    }

    fn poll_take<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut C,
        read: bool,
    ) -> Poll<Result<(), Cut>> {
        let before = *self.sent;
        let mut problem = None;
        let progress = {
            let Self { filters, sent, .. } = self;
            let mut write = |data: &[u8]| {
                **sent += data.len() as u64;
                client.write(worker, data);
            };
            let mut sink = |data: &[u8]| {
                if problem.is_none() {
                    problem = filters.run(data, false, &mut write).err();
                }
            };
            self.backend.poll_body(cx, &worker.buffers, read, &mut sink)
        };
        if let Some(problem) = problem {
            return Poll::Ready(Err(Cut::Backend(problem.code.name.to_owned())));
        }
        match progress {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Cut::Backend(format!("{error:?}")))),
            Poll::Ready(Ok(Progress::More)) => {
                if *self.sent > before {
                    let at = worker.coarse_now().saturating_add(self.pause);
                    client.deadline().set(Wait::ResponseBody, at);
                }
            }
            Poll::Ready(Ok(Progress::End)) => {
                if !self.filters.is_empty() {
                    let sent = &mut *self.sent;
                    let mut write = |data: &[u8]| {
                        *sent += data.len() as u64;
                        client.write(worker, data);
                    };
                    let run = self.filters.run(&[], true, &mut write);
                    run.map_err(|problem| Cut::Backend(problem.code.name.to_owned()))?;
                }
                let trailers = self.filters.trailers(self.backend.trailers(), None);
                client.finish(worker, trailers.as_ref());
                self.ended = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}

pub(crate) fn gone(error: ClientError) -> Cut {
    Cut::Client(match error {
        ClientError::Gone(reason) => reason,
        ClientError::Refused(problem) => problem.code.name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five bytes have been taken from the client and sent.
    fn sent(upload: Upload) -> Upload {
        let mut upload = upload;
        upload.received = 5;
        upload.state = State::Complete;
        if upload.kept.is_some() {
            keep(&mut upload.kept, b"12345");
        }
        upload
    }

    fn upload() -> Upload {
        Upload::new(None, Filters::default(), None, 100, 0, Duration::ZERO)
    }

    fn copied(mut upload: Upload, bytes_max: usize) -> Upload {
        upload.keep_copy(bytes_max);
        upload
    }

    #[test]
    fn what_is_kept_for_a_copy_is_not_sent_again() {
        let repeats = |upload: Upload| sent(upload).is_repeatable();
        assert!(!repeats(upload()));
        assert!(!repeats(copied(upload(), 9)));
        assert!(repeats(upload().keep(5)) && !repeats(upload().keep(4)));
        assert!(repeats(copied(upload().keep(5), 9)) && repeats(copied(upload().keep(9), 5)));
        assert!(!repeats(copied(upload().keep(4), 9)));
    }

    #[test]
    fn a_copy_is_whole_or_none() {
        let copy = |upload: Upload, most| sent(upload).take_copy(most).map(|(body, _)| body);
        let whole = Some(Bytes::from_static(b"12345"));
        assert_eq!(copy(copied(upload(), 5), 5), whole);
        assert_eq!(copy(copied(upload(), 4), 4), None);
        assert_eq!(copy(copied(upload().keep(9), 5), 5), whole);
        // Kept for another reason, and too long for this one.
        assert_eq!(copy(copied(upload().keep(9), 4), 4), None);
        assert_eq!(copy(copied(upload().keep(4), 4), 4), None);
        let held = || Upload { held: Some(Bytes::from_static(b"12345")), ..upload() };
        assert_eq!((copy(copied(held(), 5), 5), copy(copied(held(), 4), 4)), (whole, None));
        assert_eq!(upload().take_copy(0).map(|(body, _)| body), Some(Bytes::new()));
    }
}
