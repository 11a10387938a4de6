//! What a policy is: settings that compile, and the thing they compile to.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

use crate::exchange::Exchange;
use crate::head::{Fields, ResponseHead};
use crate::problem::Problem;
use crate::services::{LocalFuture, Services};

/// Where in the request's way a policy runs. Policies run in the order of this enum.
///
/// The order is fixed here, once, so no configuration can put limits before authentication by
/// accident. Canonicalising and routing come before all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Shapes every answer, ours included, and answers preflights: CORS. First in, last out.
    Answer,
    /// Cheap refusals that need no identity: address lists.
    Screen,
    /// Limits whose key needs no identity.
    AdmitEarly,
    /// Who is calling. A route without this phase is public.
    Authenticate,
    /// May this identity do this.
    Authorise,
    /// Limits keyed by identity.
    Admit,
    /// Is the message what the backend expects.
    Validate,
    /// Change the message: headers, paths, translation.
    Transform,
    Cache,
    /// Answers in the backend's place: respond, redirect, deny.
    Forward,
}

impl Phase {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Screen => "screen",
            Self::AdmitEarly => "admit early",
            Self::Authenticate => "authenticate",
            Self::Authorise => "authorise",
            Self::Admit => "admit",
            Self::Validate => "validate",
            Self::Transform => "transform",
            Self::Cache => "cache",
            Self::Forward => "forward",
        }
    }
}

/// What the caller does after a policy has looked.
#[expect(missing_debug_implementations, reason = "a future has nothing to show")]
pub enum Step<'a> {
    Continue,
    Refuse(Problem),
    /// On the way down: the answer is known without the backend. On the way up: this instead.
    Reply(Reply),
    /// The policy has to wait for the world. Most never return this.
    Wait(LocalFuture<'a, Self>),
}

/// An answer made here.
#[derive(Debug)]
pub struct Reply {
    /// Without framing fields: the codec writes those.
    pub head: ResponseHead,
    pub body: ReplyBody,
}

pub enum ReplyBody {
    Bytes(Bytes),
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, Problem>>>>),
}

impl fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Stream(_) => f.write_str("a stream"),
        }
    }
}

/// What a policy does with the bodies of one direction; declared at compile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyUse {
    /// The body never leaves the relay path.
    #[default]
    Untouched,
    /// The whole body is in [`Exchange::request_body`] or [`Exchange::response_body`] before the
    /// policy is called; a longer one is refused.
    Buffered { bytes_max: usize },
    /// Every piece passes a [`BodyFilter`].
    Stream,
}

impl BodyUse {
    /// The most that any of these does.
    #[must_use]
    pub fn widest(uses: impl IntoIterator<Item = Self>) -> Self {
        use BodyUse::{Buffered, Stream, Untouched};
        uses.into_iter().fold(Untouched, |widest, one| match (widest, one) {
            (Buffered { bytes_max: a }, Buffered { bytes_max: b }) => {
                Buffered { bytes_max: a.max(b) }
            }
            (Buffered { bytes_max }, _) | (_, Buffered { bytes_max }) => Buffered { bytes_max },
            (Stream, _) | (_, Stream) => Stream,
            (Untouched, Untouched) => Untouched,
        })
    }
}

/// Sees a body go by and may change it.
pub trait BodyFilter {
    /// Writes what is to be sent on instead of `chunk` to `out`. `end` comes once, perhaps with an
    /// empty chunk.
    ///
    /// # Errors
    /// A problem ends the exchange: as an answer where none has begun, else by cutting it off.
    fn on_data(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Problem>;

    /// Edits the trailers, if the body has any.
    fn on_trailers(&mut self, _trailers: &mut Fields) {}
}

/// What a policy attaches to requests, for a backend to know the gateway by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// It may cross an open network in clear text: somebody has said why.
    pub clear_text: bool,
    /// It is made from the caller's access token, so the route has to ask for one.
    pub from_access_token: bool,
}

/// The compiled form of one policy, shared by every request until the next snapshot.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    fn phase(&self) -> Phase;

    fn request_body(&self) -> BodyUse {
        BodyUse::Untouched
    }

    fn response_body(&self) -> BodyUse {
        BodyUse::Untouched
    }

    /// Names of request fields about which only this policy decides. A trailer that has one of
    /// them, or an alias of it, is not passed on: a client could say there what it cannot say in
    /// the head.
    fn request_fields(&self) -> Vec<&str> {
        Vec::new()
    }

    /// What it attaches for backends, if so; a route is checked for whether it may.
    fn attaches(&self) -> Option<Attached> {
        None
    }

    /// What it does to requests on purpose, in short, if it makes them fail or wait: the listeners
    /// of its routes have to allow that.
    fn faults(&self) -> Option<&str> {
        None
    }

    /// The way down.
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, services: &'a dyn Services)
    -> Step<'a>;

    /// The way up, in reverse order, for every answer to a request this policy has seen: also when
    /// somebody refused it.
    fn on_response<'a>(
        &'a self,
        _exchange: &'a mut Exchange,
        _response: &'a mut ResponseHead,
        _services: &'a dyn Services,
    ) -> Step<'a> {
        Step::Continue
    }

    /// A filter for this exchange's request body; asked for only if `request_body` is `Stream`.
    fn request_filter(&self, _exchange: &Exchange) -> Option<Box<dyn BodyFilter>> {
        None
    }

    /// A filter for this exchange's response body; asked for only if `response_body` is `Stream`.
    fn response_filter(&self, _exchange: &Exchange) -> Option<Box<dyn BodyFilter>> {
        None
    }

    /// Work off the request path, such as refreshing keys. Called once a snapshot serves, and
    /// again after the time it returns.
    fn upkeep<'a>(&'a self, _services: &'a dyn Services) -> Option<LocalFuture<'a, Duration>> {
        None
    }
}

/// A policy in its place on a route.
#[derive(Clone, Debug)]
pub struct Placed {
    pub name: &'static str,
    pub phase: Phase,
    pub policy: Arc<dyn Policy>,
}
