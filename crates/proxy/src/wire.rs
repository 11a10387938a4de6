//! An HTTP/1.1 connection in either role: bytes received and not consumed, bytes written and not
//! sent. What they mean is `http1`'s business.

use std::io;
use std::task::{Context, Poll, ready};

use portcullis_http1::{BodyDecoder, BodyError};

use crate::buffer::{Buffers, Held, Inbox};
use crate::io::Io;

#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) io: Io,
    pub(crate) inbox: Inbox,
    /// Encoded and not yet sent; leased while not empty.
    out: Vec<u8>,
    sent: usize,
    /// While much of that waits for the peer.
    held: Option<Held>,
    /// Bytes that went to the socket, ever.
    pub(crate) written: u64,
    /// Whether the peer has ended its side.
    pub(crate) ended: bool,
    /// A write has met a reset, which reading then does not meet again: it finds an end in good
    /// order, and what ends with the connection would look complete.
    reset: bool,
    /// Nothing more comes from this side: to be said when all is sent.
    ending: bool,
}

/// Why a body cannot be read on.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    Body(BodyError),
}

impl ReadError {
    /// For people.
    pub(crate) fn into_error(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::Body(error) => {
                io::Error::other(format!("the body is broken: {}", error.reason()))
            }
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    End,
}

impl Wire {
    pub(crate) fn new(io: Io) -> Self {
        Self {
            io,
            inbox: Inbox::default(),
            out: Vec::new(),
            sent: 0,
            held: None,
            written: 0,
            ended: false,
            reset: false,
            ending: false,
        }
    }

    /// Reads once, after what is in the inbox; 0 is the end of the stream. The inbox must have
    /// room. Holds no buffer while pending.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        let Some(room) = self.inbox.room(buffers) else {
            return Poll::Ready(Err(io::ErrorKind::StorageFull.into()));
        };
        match self.io.poll_read(cx, room) {
            Poll::Ready(Ok(0)) if self.reset => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            Poll::Ready(Ok(n)) => {
                self.inbox.filled(n);
                self.ended |= n == 0;
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.inbox.park(buffers);
                Poll::Pending
            }
        }
    }

    /// Where to encode what is to be sent.
    pub(crate) fn out(&mut self, buffers: &Buffers) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = buffers.lease_write();
        }
        &mut self.out
    }

    /// Ends this side once everything encoded is sent; for what has no other end.
    pub(crate) fn end(&mut self) {
        self.ending = true;
    }

    /// Encoded and not yet taken by the kernel.
    pub(crate) fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Ready when everything encoded has gone to the kernel.
    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let Poll::Ready(written) = self.io.poll_write(cx, &self.out[self.sent..]) else {
                self.held = buffers.hold(self.unsent());
                return Poll::Pending;
            };
            let n = written.inspect_err(|error| {
                self.reset |= error.kind() == io::ErrorKind::ConnectionReset;
            })?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
            self.written += n as u64;
        }
        if self.sent > 0 {
            buffers.give_write(std::mem::take(&mut self.out));
            self.sent = 0;
            self.held = None;
        }
        ready!(self.io.poll_flush(cx))?;
        if self.ending {
            ready!(self.io.poll_shutdown(cx))?;
            self.ending = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Hands the body data at hand to `sink`, reading once if there is none and `read` is set.
    ///
    /// Without `read` it is ready at once: `More` then means that nothing more is at hand.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        decoder: &mut BodyDecoder,
        read: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<Progress, ReadError>> {
        let mut delivered = false;
        loop {
            loop {
                let step = decoder.decode(self.inbox.bytes()).map_err(ReadError::Body)?;
                if !step.data.is_empty() {
                    sink(&self.inbox.bytes()[step.data.clone()]);
                    delivered = true;
                }
                self.inbox.consume(step.consumed, buffers);
                if step.end {
                    return Poll::Ready(Ok(Progress::End));
                }
                if step.consumed == 0 || self.inbox.is_empty() {
                    break;
                }
            }
            if delivered || !read {
                return Poll::Ready(Ok(Progress::More));
            }
            if ready!(self.poll_fill(cx, buffers))? == 0 {
                decoder.finish().map_err(ReadError::Body)?;
                return Poll::Ready(Ok(Progress::End));
            }
        }
    }

    /// Gives leased memory back; for a connection that goes idle.
    pub(crate) fn rest(&mut self, buffers: &Buffers) {
        self.inbox.park(buffers);
        if self.out.is_empty() {
            buffers.give_write(std::mem::take(&mut self.out));
        }
    }
}
