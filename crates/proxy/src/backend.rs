//! An exchange's leg to an endpoint, whatever protocol it speaks there.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Method;
use portcullis_core::{Fields, RequestHead, ResponseHead};
use portcullis_http1::{HeadLimits, RequestWire};
use portcullis_upstream::Endpoint;

use crate::backend_h1::Connection;
use crate::backend_h2::Stream;
use crate::buffer::Buffers;
use crate::wire::{Progress, ReadError};

/// Writing queues; only [`Leg::poll_flush`] sends.
#[derive(Debug)]
pub(crate) enum Leg {
    H1(Box<Connection>),
    H2(Box<Stream>),
}

/// What a head says beside its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadKind {
    /// 1xx: another head follows.
    Interim,
    Final {
        /// Content-Length as sent; to HEAD and with 304 it describes a body that is not there.
        declared: Option<u64>,
    },
    /// The upgrade that was asked for is granted: from here on both sides send what they like.
    Tunnel,
}

/// Why no response head could be had.
#[derive(Debug)]
pub(crate) enum HeadFailure {
    /// The backend says that it did not begin with the request (RFC 9113 §8.7): whatever it was,
    /// it can be sent again.
    Refused(io::Error),
    /// The connection ended or broke before a byte of a response.
    Silent(io::Error),
    /// It ended or broke within the head.
    Cut(io::Error),
    Malformed(String),
}

impl HeadFailure {
    /// For people; what is no HTTP is told by its kind, too.
    pub(crate) fn into_error(self) -> io::Error {
        match self {
            Self::Refused(why) | Self::Silent(why) | Self::Cut(why) => io::Error::other(why),
            Self::Malformed(why) => {
                let why = format!("the answer is no HTTP: {why}");
                io::Error::new(io::ErrorKind::InvalidData, why)
            }
        }
    }
}

/// What is to be sent beside the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin<'a> {
    pub(crate) wire: RequestWire<'a>,
    /// The `Sec-WebSocket-Accept` that grants the upgrade, if one is asked for.
    pub(crate) accept: Option<[u8; 28]>,
}

impl Leg {
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        match self {
            Self::H1(connection) => &connection.endpoint,
            Self::H2(stream) => stream.endpoint(),
        }
    }

    /// The connection has carried an exchange before, so the backend may have closed it meanwhile.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::H1(connection) => connection.reused,
            Self::H2(stream) => stream.reused,
        }
    }

    /// Queues the head of a request.
    pub(crate) fn begin(&mut self, buffers: &Buffers, head: &RequestHead, begin: &Begin<'_>) {
        match self {
            Self::H1(connection) => connection.begin(buffers, head, begin),
            Self::H2(stream) => stream.begin(head, begin),
        }
    }

    /// Queues a piece of the request's body.
    pub(crate) fn write(&mut self, buffers: &Buffers, data: &[u8]) {
        match self {
            Self::H1(connection) => connection.write(buffers, data),
            Self::H2(stream) => stream.out.push(buffers, data),
        }
    }

    /// Queues the end of the request's body, or of this direction of a tunnel.
    pub(crate) fn finish(&mut self, buffers: &Buffers, trailers: Option<&Fields>) {
        match self {
            Self::H1(connection) => connection.finish(buffers, trailers),
            Self::H2(stream) => stream.finish(trailers),
        }
    }

    /// Ready when everything queued is on its way.
    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::H1(connection) => connection.wire.poll_flush(cx, buffers),
            Self::H2(stream) => stream.out.poll_flush(cx).map_err(io::Error::other),
        }
    }

    /// Reads the next head, interim ones included.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        limits: &HeadLimits,
        method: &Method,
        head: &mut ResponseHead,
    ) -> Poll<Result<HeadKind, HeadFailure>> {
        match self {
            Self::H1(connection) => connection.poll_head(cx, buffers, limits, method, head),
            Self::H2(stream) => stream.poll_head(cx, limits, method, head),
        }
    }

    /// Hands pieces of the response's body to `sink`, reading if there are none and `read` is set.
    ///
    /// Without `read` it is ready at once: `More` then means that nothing more is at hand.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        read: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<Progress, ReadError>> {
        match self {
            Self::H1(connection) => connection.poll_body(cx, buffers, read, sink),
            Self::H2(stream) => stream.poll_body(cx, read, sink),
        }
    }

    pub(crate) fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::H1(connection) => connection.trailers(),
            Self::H2(stream) => stream.trailers.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_is_no_head_is_told_in_words() {
        let told = |failure: HeadFailure| failure.into_error().to_string();
        assert_eq!(told(HeadFailure::Malformed("bad".into())), "the answer is no HTTP: bad");
        let silent = HeadFailure::Silent(io::ErrorKind::UnexpectedEof.into());
        assert_eq!(told(silent), "unexpected end of file");
    }
}
