//! What `serve` needs of the client's side of an exchange, whatever protocol it speaks.

use std::rc::Rc;
use std::task::{Context, Poll};

use http::Method;
use portcullis_core::{Fields, Problem, ResponseHead};

use crate::deadline::Deadline;
use crate::listener::Place;
use crate::wire::Progress;
use crate::worker::Worker;

/// Why an exchange cannot go on with this client.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// The connection or stream is gone; nobody is there to be told.
    Gone(String),
    /// What the client sent is refused.
    Refused(Problem),
}

/// How the body of an answer is to be framed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Respond<'a> {
    /// The request's method: an answer to HEAD has no body.
    pub(crate) method: &'a Method,
    /// The length to declare for a body that is left out.
    pub(crate) declared: Option<u64>,
    /// The answer grants an upgrade: what follows, both ways, is another protocol's.
    pub(crate) tunnel: bool,
}

/// One exchange's view of the client. Writing queues; only [`Client::poll_flush`] sends.
pub(crate) trait Client {
    /// Hands the next pieces of the request body to `sink`, waiting for one if `read` is set.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        read: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<Progress, ClientError>>;

    /// The client sends its body only after a 100, and none of it is here.
    fn awaits_continue(&self) -> bool;

    /// The request's trailers, once its body has ended.
    fn trailers(&self) -> Option<&Fields>;

    /// Queues a 1xx head.
    fn interim(&mut self, worker: &Worker, head: &ResponseHead);

    /// Queues the head of the answer.
    fn begin(&mut self, worker: &Worker, head: &ResponseHead, how: Respond<'_>);

    /// Queues a piece of its body.
    fn write(&mut self, worker: &Worker, data: &[u8]);

    /// Queues the end of it, or of this direction of a tunnel.
    fn finish(&mut self, worker: &Worker, trailers: Option<&Fields>);

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
    ) -> Poll<Result<(), ClientError>>;

    /// Ready, with a reason, when nobody waits for the answer any more; as far as the protocol
    /// tells without reading on.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<ClientError>;

    /// Ends the exchange so that what was sent cannot look complete.
    fn abort(&mut self);

    fn deadline(&self) -> &Rc<Deadline>;

    /// The listener that the client has connected to.
    fn place(&self) -> &Place;
}
