//! What an authenticator is: one kind of credential, recognised and verified.
//!
//! A route may name several. The composite that asks each of them lives in `snapshot`, once: a
//! request presents exactly one credential, and a bad one refuses.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::exchange::Exchange;
use crate::head::{RequestHead, Span};
use crate::identity::Identity;
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
}

/// The outcome of a verification.
#[expect(missing_debug_implementations, reason = "a future has nothing to show")]
pub enum Verify<'a> {
    /// Decided at once: the common case, since verified tokens are remembered.
    Done(Result<Arc<Identity>, Problem>),
    Wait(LocalFuture<'a, Result<Arc<Identity>, Problem>>),
}

pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Cheap and without side effects: looks, does not verify.
    fn presented(&self, request: &RequestHead) -> Presented;

    /// The value for `WWW-Authenticate` (RFC 9110 §11.6.1) when nothing was presented.
    fn challenge(&self) -> &str;

    fn verify<'a>(&'a self, exchange: &'a Exchange, services: &'a dyn Services) -> Verify<'a>;

    /// Removes the credential, so that no backend sees it.
    fn conceal(&self, request: &mut RequestHead);

    /// As [`crate::policy::Policy::upkeep`].
    fn upkeep<'a>(&'a self, _services: &'a dyn Services) -> Option<LocalFuture<'a, Duration>> {
        None
    }
}
