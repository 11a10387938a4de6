//! One connection to an endpoint, as an HTTP/1.1 client.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Method;
use portcullis_core::{Fields, RequestHead, ResponseHead};
use portcullis_http1::{
    BodyDecoder, Framing, HeadLimits, ParsedResponse, ResponseFacts, ResponseKind, encode_chunk,
    encode_last_chunk, encode_request, parse_response,
};
use portcullis_upstream::{Endpoint, Permit};

use crate::backend::{Begin, HeadFailure, HeadKind};
use crate::buffer::Buffers;
use crate::io::Io;
use crate::wire::{Progress, ReadError, Wire};

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) endpoint: Arc<Endpoint>,
    /// The client that a PROXY protocol header has named: it serves this one only.
    pub(crate) behalf: Option<SocketAddr>,
    /// Counts against the backend's `connections_max` for as long as the connection lives.
    _permit: Option<Permit>,
    /// It has carried an exchange before, so the backend may have closed it meanwhile.
    pub(crate) reused: bool,
    /// So far nothing forbids another exchange on it.
    reusable: bool,
    framing: Framing,
    decoder: BodyDecoder,
    /// What grants the upgrade that was asked for.
    accept: Option<[u8; 28]>,
    tunnel: bool,
}

impl Connection {
    pub(crate) fn new(io: Io, endpoint: Arc<Endpoint>, permit: Option<Permit>) -> Self {
        Self {
            wire: Wire::new(io),
            endpoint,
            behalf: None,
            _permit: permit,
            reused: false,
            reusable: true,
            framing: Framing::None,
            decoder: BodyDecoder::None,
            accept: None,
            tunnel: false,
        }
    }

    pub(crate) fn begin(&mut self, buffers: &Buffers, head: &RequestHead, begin: &Begin<'_>) {
        self.wire.written = 0;
        self.framing = begin.wire.framing;
        self.accept = begin.accept;
        encode_request(head, &begin.wire, self.wire.out(buffers));
    }

    pub(crate) fn write(&mut self, buffers: &Buffers, data: &[u8]) {
        match self.framing {
            Framing::Chunked => encode_chunk(data, self.wire.out(buffers)),
            _ => self.wire.out(buffers).extend_from_slice(data),
        }
    }

    pub(crate) fn finish(&mut self, buffers: &Buffers, trailers: Option<&Fields>) {
        if self.tunnel {
            self.wire.end();
        } else if self.framing == Framing::Chunked {
            encode_last_chunk(trailers, self.wire.out(buffers));
        }
    }

    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        limits: &HeadLimits,
        method: &Method,
        head: &mut ResponseHead,
    ) -> Poll<Result<HeadKind, HeadFailure>> {
        loop {
            if !self.wire.inbox.is_empty() {
                match parse_response(self.wire.inbox.bytes(), limits, method, head) {
                    Ok(ParsedResponse::Complete(facts)) => {
                        self.wire.inbox.consume(facts.consumed, buffers);
                        return Poll::Ready(self.understand(head, &facts));
                    }
                    Ok(ParsedResponse::Partial) => {
                        if self.wire.inbox.room(buffers).is_none() {
                            self.wire.inbox.grow();
                        }
                    }
                    Err(error) => {
                        return Poll::Ready(Err(HeadFailure::Malformed(error.to_string())));
                    }
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

    fn understand(
        &mut self,
        head: &ResponseHead,
        facts: &ResponseFacts,
    ) -> Result<HeadKind, HeadFailure> {
        self.decoder = BodyDecoder::new(head.body, facts.chunked);
        self.reusable = facts.keep_alive && !facts.until_close;
        match facts.kind {
            ResponseKind::Interim => Ok(HeadKind::Interim),
            ResponseKind::Final => Ok(HeadKind::Final { declared: facts.declared_length }),
            ResponseKind::Switching => {
                let malformed = |why: &str| Err(HeadFailure::Malformed(why.to_owned()));
                let Some(accept) = self.accept else { return malformed("101 unasked") };
                let protocol = facts.upgrade.map(|span| span.of(head.fields.bytes()));
                if !protocol.is_some_and(|name| name.eq_ignore_ascii_case(b"websocket")) {
                    return malformed("101 to another protocol");
                }
                let mut accepts = head.fields.get_all(b"sec-websocket-accept");
                if accepts.next() != Some(&accept[..]) || accepts.next().is_some() {
                    return malformed("101 with a wrong sec-websocket-accept");
                }
                self.tunnel = true;
                self.reusable = false;
                self.decoder = BodyDecoder::UntilClose;
                Ok(HeadKind::Tunnel)
            }
        }
    }

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
