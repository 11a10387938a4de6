//! Policies that use each part of the contract once, and nothing else.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Barrier, LazyLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http::StatusCode;
use portcullis_core::policy::{BodyFilter, BodyUse, ReplyBody};
use portcullis_core::registry::{Compile, Entry, PolicyConfig, Registry, Site};
use portcullis_core::services::Fetch;
use portcullis_core::{
    Exchange, Fields, Phase, Policy, Problem, Reply, ResponseHead, Services, Step, codes,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// The policies that ship, and those of this module.
#[must_use]
pub fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
        let shipped = portcullis_policies::registry();
        let mut all = vec![
            Entry::policy::<Shout>(),
            Entry::policy::<Filter>(),
            Entry::policy::<Ask>(),
            Entry::policy::<Streamed>(),
            Entry::policy::<Replace>(),
            Entry::policy::<Panic>(),
            Entry::policy::<Hold>(),
        ];
        all.extend(shipped.policies.iter().map(|entry| Entry { ..*entry }));
        Registry { policies: all.leak(), ..shipped }
    });
    &REGISTRY
}

macro_rules! policy_config {
    ($type:ident, $name:literal, $example:literal) => {
        impl PolicyConfig for $type {
            const NAME: &'static str = $name;
            const EXAMPLE: &'static str = $example;

            fn compile(self, _: &Site<'_>, _: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
                Some(Arc::new(self))
            }
        }
    };
}

/// Buffers both bodies, at most so many bytes each, and writes them in capitals.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Shout(usize);
policy_config!(Shout, "test_shout", "1000");

impl Policy for Shout {
    fn phase(&self) -> Phase {
        Phase::Transform
    }

    fn request_body(&self) -> BodyUse {
        BodyUse::Buffered { bytes_max: self.0 }
    }

    fn response_body(&self) -> BodyUse {
        BodyUse::Buffered { bytes_max: self.0 }
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        let louder = [&exchange.request_body.to_ascii_uppercase()[..], b"!"].concat();
        exchange.request_body = louder.into();
        Step::Continue
    }

    fn on_response<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        _: &'a mut ResponseHead,
        _: &'a dyn Services,
    ) -> Step<'a> {
        let louder = [&exchange.response_body.to_ascii_uppercase()[..], b"?"].concat();
        exchange.response_body = louder.into();
        Step::Continue
    }
}

/// Filters both bodies as they pass: writes each byte twice, then this at the end, and adds the
/// trailer `x-filtered`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Filter(String);
policy_config!(Filter, "test_filter", "end");

struct Doubling(String);

impl BodyFilter for Doubling {
    fn on_data(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Problem> {
        if chunk.contains(&b'\0') {
            return Err(Problem::new(codes::MALFORMED_REQUEST));
        }
        out.extend(chunk.iter().flat_map(|byte| [*byte, *byte]));
        if end {
            out.extend_from_slice(self.0.as_bytes());
        }
        Ok(())
    }

    fn on_trailers(&mut self, trailers: &mut Fields) {
        trailers.append(b"x-filtered", b"yes");
    }
}

impl Policy for Filter {
    fn phase(&self) -> Phase {
        Phase::Transform
    }

    fn request_body(&self) -> BodyUse {
        BodyUse::Stream
    }

    fn response_body(&self) -> BodyUse {
        BodyUse::Stream
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        Step::Continue
    }

    fn request_filter(&self, _: &Exchange) -> Option<Box<dyn BodyFilter>> {
        Some(Box::new(Doubling(self.0.clone())))
    }

    fn response_filter(&self, _: &Exchange) -> Option<Box<dyn BodyFilter>> {
        Some(Box::new(Doubling(self.0.clone())))
    }
}

/// Waits for what this URL answers, both ways, and writes it into a field.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Ask(String);
policy_config!(Ask, "test_ask", "http://world/answer");

impl Policy for Ask {
    fn phase(&self) -> Phase {
        Phase::Authorise
    }

    fn on_request<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        services: &'a dyn Services,
    ) -> Step<'a> {
        Step::Wait(Box::pin(async move {
            match services.fetch(Fetch::get(&self.0)).await {
                Ok(fetched) => exchange.request.fields.set(b"x-asked", &fetched.body),
                Err(error) => {
                    return Step::Refuse(Problem::new(codes::KEYS_UNAVAILABLE).detail(error));
                }
            }
            Step::Continue
        }))
    }

    fn on_response<'a>(
        &'a self,
        _: &'a mut Exchange,
        response: &'a mut ResponseHead,
        services: &'a dyn Services,
    ) -> Step<'a> {
        Step::Wait(Box::pin(async move {
            if let Ok(fetched) = services.fetch(Fetch::get(&self.0)).await {
                response.fields.set(b"x-asked", &fetched.body);
            }
            Step::Continue
        }))
    }
}

/// Answers with a stream of so many pieces `piece N;`, each only after a wait.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Streamed {
    pieces: u32,
    /// The stream ends in a problem.
    #[serde(default)]
    fails: bool,
}
policy_config!(Streamed, "test_stream", "{ pieces: 3 }");

struct Pieces {
    next: u32,
    of: Streamed,
    waited: bool,
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "piece {}", self.next)
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, Problem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.waited = !self.waited;
        if self.waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.next == self.of.pieces {
            let end = self.of.fails.then(|| Err(Problem::new(codes::INTERNAL)));
            self.of.fails = false;
            return Poll::Ready(end);
        }
        self.next += 1;
        Poll::Ready(Some(Ok(format!("piece {};", self.next).into())))
    }
}

impl Policy for Streamed {
    fn phase(&self) -> Phase {
        Phase::Forward
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        let pieces = Pieces { next: 0, of: self.clone(), waited: false };
        let body = ReplyBody::Stream(Box::pin(pieces));
        Step::Reply(Reply { head: ResponseHead::new(StatusCode::OK), body })
    }
}

/// Puts another answer in the place of whatever comes: with this status and body.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Replace {
    status: u16,
    body: String,
}
policy_config!(Replace, "test_replace", "{ status: 200, body: x }");

impl Policy for Replace {
    fn phase(&self) -> Phase {
        Phase::Answer
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        Step::Continue
    }

    fn on_response<'a>(
        &'a self,
        _: &'a mut Exchange,
        response: &'a mut ResponseHead,
        _: &'a dyn Services,
    ) -> Step<'a> {
        let mut head = ResponseHead::new(StatusCode::from_u16(self.status).unwrap());
        head.fields.append(b"x-replaced", response.status.as_str().as_bytes());
        Step::Reply(Reply { head, body: ReplyBody::Bytes(self.body.clone().into()) })
    }
}

/// Where a policy has a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Panic {
    OnRequest,
    OnResponse,
    AfterWait,
    InFilter,
    InRequestFilter,
}
policy_config!(Panic, "test_panic", "on_request");

struct Broken;

impl BodyFilter for Broken {
    fn on_data(&mut self, _: &[u8], _: bool, _: &mut Vec<u8>) -> Result<(), Problem> {
        panic!("a test's panic in a filter")
    }
}

/// Where a worker and a test meet.
pub static HELD: LazyLock<Barrier> = LazyLock::new(|| Barrier::new(2));

/// Keeps the whole worker from anything else between two meetings at [`HELD`].
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Hold(bool);
policy_config!(Hold, "test_hold", "true");

impl Policy for Hold {
    fn phase(&self) -> Phase {
        Phase::Validate
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        if self.0 {
            HELD.wait();
            HELD.wait();
        }
        Step::Continue
    }
}

impl Policy for Panic {
    fn phase(&self) -> Phase {
        Phase::Validate
    }

    fn request_body(&self) -> BodyUse {
        match self {
            Self::InRequestFilter => BodyUse::Stream,
            _ => BodyUse::Untouched,
        }
    }

    fn response_body(&self) -> BodyUse {
        match self {
            Self::InFilter => BodyUse::Stream,
            _ => BodyUse::Untouched,
        }
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, services: &'a dyn Services) -> Step<'a> {
        match self {
            Self::OnRequest => panic!("a test's panic on the way down"),
            Self::AfterWait => Step::Wait(Box::pin(async {
                let fetched = services.fetch(Fetch::get("http://nowhere/")).await;
                panic!("a test's panic after {fetched:?}")
            })),
            Self::OnResponse | Self::InFilter | Self::InRequestFilter => Step::Continue,
        }
    }

    fn on_response<'a>(
        &'a self,
        _: &'a mut Exchange,
        _: &'a mut ResponseHead,
        _: &'a dyn Services,
    ) -> Step<'a> {
        match self {
            Self::OnResponse => panic!("a test's panic on the way up"),
            _ => Step::Continue,
        }
    }

    fn request_filter(&self, _: &Exchange) -> Option<Box<dyn BodyFilter>> {
        Some(Box::new(Broken))
    }

    fn response_filter(&self, _: &Exchange) -> Option<Box<dyn BodyFilter>> {
        Some(Box::new(Broken))
    }
}
