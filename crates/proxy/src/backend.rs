//! One connection to an endpoint, as an HTTP/1.1 client.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Method;
use portcullis_core::{Fields, RequestHead, ResponseHead};
use portcullis_http1::{
    BodyDecoder, Framing, HeadLimits, ParsedResponse, RequestWire, ResponseError, ResponseFacts,
    encode_chunk, encode_last_chunk, encode_request, parse_response,
};
use portcullis_upstream::{Endpoint, Permit};

use crate::buffer::Buffers;
use crate::io::Io;
use crate::wire::{Progress, ReadError, Wire};

#[derive(Debug)]
pub(crate) struct BackendConnection {
    pub(crate) wire: Wire,
    pub(crate) endpoint: Arc<Endpoint>,
    /// Counts against the backend's `connections_max` for as long as the connection lives.
    _permit: Option<Permit>,
    /// It has carried an exchange before, so the backend may have closed it meanwhile.
    pub(crate) reused: bool,
    /// So far nothing forbids another exchange on it.
    reusable: bool,
    framing: Framing,
    decoder: BodyDecoder,
}

/// Why no response head could be had.
#[derive(Debug)]
pub(crate) enum HeadFailure {
    /// The connection ended or broke before a byte of a response.
    Silent(io::Error),
    /// It ended or broke within the head.
    Cut(io::Error),
    Malformed(ResponseError),
}

impl BackendConnection {
    pub(crate) fn new(io: Io, endpoint: Arc<Endpoint>, permit: Option<Permit>) -> Self {
        Self {
            wire: Wire::new(io),
            endpoint,
            _permit: permit,
            reused: false,
            reusable: true,
            framing: Framing::None,
            decoder: BodyDecoder::None,
        }
    }

    /// Queues the head of a request.
    pub(crate) fn begin(&mut self, buffers: &Buffers, head: &RequestHead, wire: &RequestWire<'_>) {
        self.wire.written = 0;
        self.framing = wire.framing;
        encode_request(head, wire, self.wire.out(buffers));
    }

    /// Queues a piece of the request's body.
    pub(crate) fn write(&mut self, buffers: &Buffers, data: &[u8]) {
        match self.framing {
            Framing::Chunked => encode_chunk(data, self.wire.out(buffers)),
            _ => self.wire.out(buffers).extend_from_slice(data),
        }
    }

    /// Queues the end of the request's body.
    pub(crate) fn finish(&mut self, buffers: &Buffers, trailers: Option<&Fields>) {
        if self.framing == Framing::Chunked {
            encode_last_chunk(trailers, self.wire.out(buffers));
        }
    }

    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
    ) -> Poll<io::Result<()>> {
        self.wire.poll_flush(cx, buffers)
    }

    /// Reads the next head, interim ones included.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        limits: &HeadLimits,
        method: &Method,
        head: &mut ResponseHead,
    ) -> Poll<Result<ResponseFacts, HeadFailure>> {
        loop {
            if !self.wire.inbox.is_empty() {
                match parse_response(self.wire.inbox.bytes(), limits, method, head) {
                    Ok(ParsedResponse::Complete(facts)) => {
                        self.wire.inbox.consume(facts.consumed, buffers);
                        self.decoder = BodyDecoder::new(head.body, facts.chunked);
                        self.reusable = facts.keep_alive && !facts.until_close;
                        return Poll::Ready(Ok(facts));
                    }
                    Ok(ParsedResponse::Partial) => {
                        if self.wire.inbox.room(buffers).is_none() {
                            self.wire.inbox.grow();
                        }
                    }
                    Err(error) => return Poll::Ready(Err(HeadFailure::Malformed(error))),
                }
            }
            let result = ready!(self.wire.poll_fill(cx, buffers));
            let error = match result {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            let silent = self.wire.inbox.is_empty();
            return Poll::Ready(Err(match silent {
                true => HeadFailure::Silent(error),
                false => HeadFailure::Cut(error),
            }));
        }
    }

    /// Hands pieces of the response's body to `sink`; see [`Wire::poll_body`].
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        read: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<Progress, ReadError>> {
        self.wire.poll_body(cx, buffers, &mut self.decoder, read, sink)
    }

    pub(crate) fn trailers(&self) -> Option<&Fields> {
        self.decoder.trailers()
    }

    /// Whether another exchange may follow: all was read, all was sent, nothing came out of turn.
    pub(crate) fn is_reusable(&self) -> bool {
        self.reusable
            && self.decoder.is_complete()
            && self.wire.inbox.is_empty()
            && self.wire.unsent() == 0
            && !self.wire.ended
    }
}
