//! The caller's access token exchanged for another one, that the backend takes (RFC 8693).
//!
//! One for each caller's token, remembered until it ends; requests with one token exchange it once.
//! That the caller's token is good has been verified before, and is not asked here.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::services::LocalFuture;
use portcullis_core::{Exchange, Services};

use super::asking::Asking;
use super::token::Token;
use super::{Away, Found};
use crate::flight::{Flights, Grounded};
use crate::oauth::answer::Failure;
use crate::oauth::breaker::Breaker;
use crate::oauth::kept::{Kept, Room};

/// How long a token that the server does not exchange is not shown to it again.
const REFUSED_FOR: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Exchanged {
    pub(super) asking: Asking,
    pub(super) state: Arc<State>,
}

/// What outlives a reload.
#[derive(Debug)]
pub(super) struct State {
    pub(super) known: Kept<Known>,
    pub(super) asking: Flights<Result<Arc<Token>, Away>>,
    pub(super) breaker: Breaker,
}

/// What came of a caller's token.
#[derive(Clone, Debug)]
pub(super) enum Known {
    Token(Arc<Token>),
    Refused { reason: Arc<str>, until: Duration },
}

/// The caller's own token. It may be concealed from the backend; its bytes are there still.
fn subject(exchange: &Exchange) -> Option<&[u8]> {
    exchange.access_token.map(|span| span.of(exchange.request.fields.bytes()))
}

fn no_subject() -> Away {
    let reason = "the caller has no access token to exchange".to_owned();
    Away { reason, retry_after: RETRY_AFTER }
}

impl Exchanged {
    /// A token that can be sent now, or why there is none and will be none soon.
    pub(super) fn at_hand(&self, exchange: &Exchange, services: &dyn Services) -> Found<'static> {
        let Some(subject) = subject(exchange) else { return Found::Away(no_subject()) };
        let now = exchange.now.mono;
        match self.state.known.find(self.state.known.hash(subject, services)) {
            Some(Known::Token(token)) if token.is_usable(now) && !token.is_distrusted() => {
                Found::Token(token)
            }
            Some(Known::Refused { reason, until }) if now < until => {
                Found::Away(Away { reason: reason.to_string(), retry_after: until - now })
            }
            _ => Found::Nothing,
        }
    }

    /// The token that the caller's was last exchanged for.
    pub(super) fn held(&self, exchange: &Exchange, services: &dyn Services) -> Option<Arc<Token>> {
        match self.state.known.find(self.state.known.hash(subject(exchange)?, services))? {
            Known::Token(token) => Some(token),
            Known::Refused { .. } => None,
        }
    }

    pub(super) async fn obtain(
        &self,
        exchange: &Exchange,
        services: &dyn Services,
    ) -> Result<Arc<Token>, Away> {
        let subject = subject(exchange).ok_or_else(no_subject)?;
        let hash = self.state.known.hash(subject, services);
        let asked = self.state.asking.run(
            hash,
            || Ok::<_, Infallible>(()),
            async || self.exchange(subject, hash, services).await,
        );
        let reason = match asked.await {
            Ok(outcome) => return outcome,
            Err(Grounded::BrokenOff) => "the exchange was broken off",
            Err(_) => "too many requests wait for an exchange",
        };
        Err(Away { reason: reason.to_owned(), retry_after: RETRY_AFTER })
    }

    /// Exchanges it, if the server is well, and remembers what comes of it.
    async fn exchange(
        &self,
        subject: &[u8],
        hash: u128,
        services: &dyn Services,
    ) -> Result<Arc<Token>, Away> {
        let asked = match self.state.breaker.enter(services.now().mono) {
            Ok(permit) => {
                let asked = self.asking.ask(Some(subject), services).await;
                match &asked {
                    Err(Failure::Unavailable(_)) => permit.failed(services.now().mono),
                    _ => permit.succeeded(),
                }
                asked.map_err(|failure| (failure, RETRY_AFTER))
            }
            Err(shut) => Err((Failure::Unavailable(shut.reason.to_owned()), shut.retry_after)),
        };
        let known = &self.state.known;
        let now = services.now().mono;
        match asked {
            Ok(token) => {
                let token = Arc::new(token);
                let bytes = subject.len() + token.value.bytes().len();
                known.insert(hash, Room::Good, bytes, Known::Token(Arc::clone(&token)));
                Ok(token)
            }
            Err((Failure::Refused(reason), _)) => {
                let until = now + REFUSED_FOR;
                let refused = Known::Refused { reason: reason.as_str().into(), until };
                known.insert(hash, Room::Bad, reason.len(), refused);
                Err(Away { reason, retry_after: REFUSED_FOR })
            }
            Err((Failure::Unavailable(reason), retry_after)) => match known.find(hash) {
                // A backend has refused it, and there is no other.
                Some(Known::Token(token)) if token.is_usable(now) => {
                    token.trust_again();
                    Ok(token)
                }
                _ => Err(Away { reason, retry_after }),
            },
        }
    }

    pub(super) fn upkeep<'a>(
        &'a self,
        services: &'a dyn Services,
    ) -> Option<LocalFuture<'a, Duration>> {
        let endpoint = &self.asking.endpoint;
        endpoint.is_discovered().then(|| {
            Box::pin(async { endpoint.upkeep(services).await.unwrap_or(RETRY_AFTER) }) as _
        })
    }
}
