//! What an authenticator is: one kind of credential, recognised and verified.
//!
//! A route may name several. The composite that asks each of them lives in `snapshot`, once: a
//! request presents exactly one credential, and a bad one refuses.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::codes;
use crate::exchange::Exchange;
use crate::head::{RequestHead, Span};
use crate::identity::Identity;
use crate::policy::{BodyUse, Reply};
use crate::problem::Problem;
use crate::services::{LocalFuture, Services};

/// Whether a request carries a credential of this kind, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented {
    Nothing,
    /// A credential of this kind that somebody else must verify: a token of another issuer.
    Foreign(Span),
    /// A credential for this authenticator. Two authenticators may claim the same span.
    Mine(Span),
    /// More than one credential of this kind: one refuses, whichever is good.
    Several,
    /// The connection or the request as a whole speaks for the client: a certificate, or whatever
    /// an external authorizer goes by. It counts only where the head presents nothing else.
    Ambient,
}

/// What a good credential gives.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub identity: Arc<Identity>,
    /// Values of `Set-Cookie` for the answer: a session that was renewed.
    pub cookies: Vec<String>,
    /// Fields of the client that the backend does not get, though the route forwards credentials.
    pub withheld: Vec<Box<str>>,
}

impl From<Arc<Identity>> for Accepted {
    fn from(identity: Arc<Identity>) -> Self {
        Self { identity, cookies: Vec::new(), withheld: Vec::new() }
    }
}

/// What a bad one gives.
#[derive(Debug)]
pub enum Denied {
    Problem(Problem),
    /// The answer in whole: an external authorizer's, or the way to a login.
    Reply(Reply),
}

impl From<Problem> for Denied {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

pub type Verified = Result<Accepted, Denied>;

/// The outcome of a verification.
#[expect(missing_debug_implementations, reason = "a future has nothing to show")]
pub enum Verify<'a> {
    /// Decided at once: the common case, since verified credentials are remembered.
    Done(Verified),
    Wait(LocalFuture<'a, Verified>),
}

/// How it stands with the keys that an authenticator has from an issuer; for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IssuerKeys {
    /// Those that can verify; 0 before the first have come.
    pub count: usize,
    /// When the issuer gave them last, since 1970. `None` where that is not known.
    pub given: Option<Duration>,
    pub fetched: u64,
    /// Fetches that brought nothing from the issuer.
    pub failed: u64,
}

/// An answer that an authenticator makes by itself.
pub type Own<'a> = LocalFuture<'a, Result<Reply, Problem>>;

pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Cheap and without side effects: looks, does not verify.
    fn presented(&self, exchange: &Exchange) -> Presented;

    /// The value for `WWW-Authenticate` (RFC 9110 §11.6.1) when nothing was presented; empty where
    /// there is nothing to say.
    fn challenge(&self) -> &str;

    fn verify<'a>(&'a self, exchange: &'a Exchange, services: &'a dyn Services) -> Verify<'a>;

    /// Removes the credential, so that no backend sees it.
    fn conceal(&self, request: &mut RequestHead);

    /// Fields toward the backend that only [`Identity::fields`] may set. What a client sends under
    /// these names, or under aliases of them, is removed from every request.
    fn owned_fields(&self) -> &[Box<str>] {
        &[]
    }

    /// Whether it goes by the client's certificate, so that a route that takes it has to be on
    /// listeners that ask for one.
    fn needs_certificate(&self) -> bool {
        false
    }

    /// Whether the credential is an OAuth 2.0 access token, which may be exchanged for another one
    /// toward a backend (RFC 8693). What is none is shown to no authorization server.
    fn is_access_token(&self) -> bool {
        false
    }

    /// Parameters of the query that are credentials. Whatever their values, they are taken out of
    /// the `Referer` of every request, and nobody writes them to a log, a trace or an answer: those
    /// have no query in them at all. Out of the query itself [`Self::conceal`] takes them.
    fn secret_parameters(&self) -> &[Box<str>] {
        &[]
    }

    /// What it does with a request's body before it verifies: covers it with a signature.
    fn request_body(&self) -> BodyUse {
        BodyUse::Untouched
    }

    /// Whether a request is its own business and no backend's: the end of a login. Asked before
    /// anything else, on every route that takes this kind.
    fn intercepts(&self, _: &Exchange) -> bool {
        false
    }

    /// Paths of requests that it [intercepts](Self::intercepts): each has to be within a route that
    /// takes this kind, or nobody would ask.
    fn own_paths(&self) -> &[Box<str>] {
        &[]
    }

    /// Whether it answers, instead of a 401, a request that presents nothing: the way to a login.
    fn invites(&self, _: &Exchange) -> bool {
        false
    }

    /// Answers a request that it [intercepts](Self::intercepts) or [invites](Self::invites).
    fn answer<'a>(&'a self, _: &'a Exchange, _: &'a dyn Services) -> Own<'a> {
        Box::pin(async { Err(Problem::new(codes::INTERNAL).detail("no answer of its own")) })
    }

    /// The keys that it fetches, if it fetches any.
    fn issuer_keys(&self) -> Option<IssuerKeys> {
        None
    }

    /// As [`crate::policy::Policy::upkeep`].
    fn upkeep<'a>(&'a self, _services: &'a dyn Services) -> Option<LocalFuture<'a, Duration>> {
        None
    }
}
