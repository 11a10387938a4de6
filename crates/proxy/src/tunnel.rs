//! After an upgrade was granted: bytes both ways, as they come, until both sides have ended.
//!
//! What passes is not understood, only its frame boundaries are followed, so that a good-bye of the
//! gateway's own (a Close frame with 1001, RFC 6455 §7.4.1) can be put between two frames.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use portcullis_core::websocket::{FrameTracker, close_frame};

use crate::backend::Leg;
use crate::client::{Client, ClientError};
use crate::deadline::Wait;
use crate::relay::{Cut, gone};
use crate::wire::Progress;
use crate::worker::Worker;

/// How long both sides have to answer a good-bye, or the end of the other.
const GRACE: Duration = Duration::from_secs(5);

/// "Going away" (RFC 6455 §7.4.1).
const GOING_AWAY: u16 = 1001;

pub(crate) struct Tunnel<'a> {
    leg: &'a mut Leg,
    /// How long nothing may move.
    idle: Duration,
    up: Way<'a>,
    down: Way<'a>,
    leaving: bool,
}

/// One direction.
struct Way<'a> {
    frames: FrameTracker,
    bytes: &'a mut u64,
    farewell: Farewell,
    /// Frames to a server are masked (RFC 6455 §5.1).
    mask: Option<[u8; 4]>,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    None,
    /// At the next boundary of frames.
    Due,
    /// Whatever still comes is dropped.
    Said,
}

impl<'a> Tunnel<'a> {
    /// `mask` is for the one frame that the gateway may send to the backend.
    pub(crate) fn new(
        leg: &'a mut Leg,
        idle: Duration,
        mask: [u8; 4],
        bytes_in: &'a mut u64,
        bytes_out: &'a mut u64,
    ) -> Self {
        let way = |bytes, mask| Way {
            frames: FrameTracker::default(),
            bytes,
            farewell: Farewell::None,
            mask,
            ended: false,
        };
        Self {
            leg,
            idle,
            up: way(bytes_in, Some(mask)),
            down: way(bytes_out, None),
            leaving: false,
        }
    }

    /// Ready when both directions have ended, or one side did not follow in time.
    pub(crate) fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut C,
    ) -> Poll<Result<(), Cut>> {
        let expired = client.deadline().check(cx).is_err();
        if self.leaving && expired {
            return Poll::Ready(Ok(()));
        }
        if !self.leaving && (expired || worker.is_draining()) {
            self.up.farewell = Farewell::Due;
            self.up.take_leave(&mut |frame| self.leg.write(&worker.buffers, frame));
            self.down.farewell = Farewell::Due;
            self.down.take_leave(&mut |frame| client.write(worker, frame));
            self.leave(worker, client);
        }
        let before = *self.up.bytes + *self.down.bytes;
        let up = self.poll_up(cx, worker, client)?;
        let down = self.poll_down(cx, worker, client)?;
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.leaving {
            // The deadline is that of the grace.
        } else if self.up.ended || self.down.ended {
            self.leave(worker, client);
        } else if *self.up.bytes + *self.down.bytes > before {
            let at = worker.coarse_now().saturating_add(self.idle);
            client.deadline().set(Wait::Tunnel, at);
        }
        // It has just been set, or looked at above.
        let _waits = client.deadline().check(cx);
        Poll::Pending
    }

    fn leave<C: Client>(&mut self, worker: &Worker, client: &C) {
        self.leaving = true;
        client.deadline().lift_ceiling();
        client.deadline().set(Wait::Linger, worker.coarse_now() + GRACE);
    }

    /// Ready when the client has ended its side and the backend knows.
    fn poll_up<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut C,
    ) -> Result<Poll<()>, Cut> {
        let Self { leg, up, .. } = self;
        loop {
            match leg.poll_flush(cx, &worker.buffers) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Err(error)) => return Err(Cut::Backend(error.to_string())),
                Poll::Ready(Ok(())) if up.ended => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(())) => {}
            }
            let mut sink = |data: &[u8]| {
                up.pass(data, &mut |piece| leg.write(&worker.buffers, piece));
            };
            match client.poll_body(cx, worker, true, &mut sink) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(Progress::More)) => {}
                Poll::Ready(Ok(Progress::End)) => {
                    up.ended = true;
                    leg.finish(&worker.buffers, None);
                }
                Poll::Ready(Err(error)) => return Err(gone(error)),
            }
        }
    }

    /// Ready when the backend has ended its side and the client knows.
    fn poll_down<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut C,
    ) -> Result<Poll<()>, Cut> {
        let Self { leg, down, .. } = self;
        loop {
            match client.poll_flush(cx, worker) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Err(error)) => return Err(gone(error)),
                Poll::Ready(Ok(())) if down.ended => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(())) => {}
            }
            let mut sink = |data: &[u8]| {
                down.pass(data, &mut |piece| client.write(worker, piece));
            };
            match leg.poll_body(cx, &worker.buffers, true, &mut sink) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(Progress::More)) => {}
                Poll::Ready(Ok(Progress::End)) => {
                    down.ended = true;
                    client.finish(worker, None);
                }
                Poll::Ready(Err(error)) => return Err(Cut::Backend(format!("{error:?}"))),
            }
        }
    }

    /// Says the end to whoever has not been told, as far as that goes without waiting.
    pub(crate) fn poll_end<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut C,
    ) -> Poll<Result<(), ClientError>> {
        if !self.down.ended {
            self.down.ended = true;
            client.finish(worker, None);
        }
        ready!(client.poll_flush(cx, worker))?;
        Poll::Ready(Ok(()))
    }
}

impl Way<'_> {
    fn pass(&mut self, data: &[u8], write: &mut dyn FnMut(&[u8])) {
        *self.bytes += data.len() as u64;
        let whole = match self.farewell {
            Farewell::Said => return,
            Farewell::None => data,
            Farewell::Due => match self.frames.boundary_in(data) {
                Some(at) => &data[..at],
                None => data,
            },
        };
        self.frames.feed(whole);
        if !whole.is_empty() {
            write(whole);
        }
        self.take_leave(write);
    }

    /// Says good-bye where that is due and possible; nobody says it twice.
    fn take_leave(&mut self, write: &mut dyn FnMut(&[u8])) {
        if self.farewell == Farewell::Due && self.frames.at_boundary() {
            self.farewell = Farewell::Said;
            if !self.frames.saw_close() {
                let (frame, length) = close_frame(GOING_AWAY, self.mask);
                write(&frame[..length]);
            }
        }
    }
}
