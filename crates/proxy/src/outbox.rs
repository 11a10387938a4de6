//! What is to be sent on one HTTP/2 stream, in either role: pieces of a body as the peer's windows
//! have room for them, then the end.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use portcullis_core::Fields;

use crate::buffer::{Buffers, Held};
use crate::h2_head;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    send: Option<SendStream<Bytes>>,
    queue: VecDeque<Bytes>,
    /// While there is much in the queue.
    held: Option<Held>,
    /// The end is queued, with these trailers.
    ending: Option<Option<HeaderMap>>,
    /// The end is with `h2`.
    complete: bool,
}

impl Outbox {
    /// The head has been sent; `complete` if nothing follows it.
    pub(crate) fn open(&mut self, send: SendStream<Bytes>, complete: bool) {
        self.send = Some(send);
        self.complete = complete;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.send.is_some()
    }

    pub(crate) fn push(&mut self, buffers: &Buffers, data: &[u8]) {
        // There is no waiting for room for nothing.
        if !self.complete && !data.is_empty() {
            self.queue.push_back(Bytes::copy_from_slice(data));
            if self.held.is_none() {
                self.held = buffers.hold(data.len());
            }
        }
    }

    pub(crate) fn end(&mut self, trailers: Option<&Fields>) {
        if !self.complete {
            self.ending = Some(trailers.map(h2_head::headers));
        }
    }

    /// Ready when `h2` has everything that was queued.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Ok(())) };
        while let Some(piece) = self.queue.front_mut() {
            send.reserve_capacity(piece.len());
            let mut room = send.capacity();
            if room == 0 {
                room = match std::task::ready!(send.poll_capacity(cx)) {
                    Some(result) => result?,
                    None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
                };
                if room == 0 {
                    continue;
                }
            }
            let part = piece.split_to(room.min(piece.len()));
            let last = piece.is_empty();
            if last {
                self.queue.pop_front();
            }
            let end = last && self.queue.is_empty() && matches!(self.ending, Some(None));
            send.send_data(part, end)?;
            self.complete |= end;
        }
        self.held = None;
        if !self.complete
            && let Some(trailers) = self.ending.take()
        {
            match trailers {
                Some(trailers) => send.send_trailers(trailers)?,
                None => send.send_data(Bytes::new(), true)?,
            }
            self.complete = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the peer has reset the stream. It has to be open.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        match &mut self.send {
            Some(send) => send.poll_reset(cx),
            None => Poll::Pending,
        }
    }

    pub(crate) fn reset(&mut self, reason: Reason) {
        if let Some(send) = &mut self.send {
            send.send_reset(reason);
        }
    }
}
