//! Signed tokens of an issuer (RFC 7519, RFC 8725, RFC 9068).
//!
//! The way of a token: seen before? → header → key → signature → claims → identity, remembered
//! until it expires. The algorithm and the key come from the configuration and
//! the issuer's key set; of the token only its key id chooses among those.

mod answers;
mod id_token;
mod keys;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::auth::{Authenticator, Presented, Verify};
use portcullis_core::services::LocalFuture;
use portcullis_core::{Exchange, Known, Now, Problem, RequestHead, Services, Span, codes};

use super::remembered::{Found, Remembered};
use super::{Checked, after_scheme, refuse, told};
use keys::KeySet;
use source::Keys;
use token::{Header, IssuerHint, Rules};

pub(super) use answers::{MEDIA_TYPE, Naming, SignedAnswers, is_among, time};
pub(super) use id_token::{Expected, IdTokens, Refusal, Taken};
pub(crate) use settings::Jwt;
pub(super) use settings::{Claim, Names};

const SCHEME: &str = "Bearer";
/// Longer tokens are refused unread; a head may be 64 KiB.
const TOKEN_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
struct Compiled {
    rules: Rules,
    hint: IssuerHint,
    keys: Arc<Keys>,
    remembered: Arc<Remembered>,
    challenge: Challenges,
}

/// Values of `WWW-Authenticate` (RFC 6750 §3).
#[derive(Debug)]
pub(super) struct Challenges {
    pub(super) missing: String,
    pub(super) invalid: String,
    pub(super) expired: String,
}

impl Challenges {
    pub(super) fn new(realm: &str) -> Self {
        let realm: String = realm.chars().filter(|c| *c != '"' && *c != '\\').collect();
        let missing = format!("Bearer realm=\"{realm}\"");
        let invalid = format!("{missing}, error=\"invalid_token\"");
        let expired = format!("{invalid}, error_description=\"the token has expired\"");
        Self { missing, invalid, expired }
    }
}

/// Where the token is; the first of several.
fn bearer(request: &RequestHead) -> Option<Span> {
    bearers(request).next()
}

fn bearers(request: &RequestHead) -> impl Iterator<Item = Span> {
    let fields = request.fields.live().filter(|field| field.known == Known::Authorization);
    fields.filter_map(|field| {
        let at = after_scheme(field.value.of(request.fields.bytes()), SCHEME)?;
        let start = field.value.start as usize;
        Some(Span::new(start + at.start, start + at.end))
    })
}

/// What came of a token that was not remembered.
enum Outcome {
    Good(Checked),
    /// Its key is not among those at hand.
    KeyUnknown,
}

impl Compiled {
    fn invalid(&self, detail: &str) -> Problem {
        refuse(codes::CREDENTIALS_INVALID, &self.challenge.invalid, detail)
    }

    fn expired(&self) -> Problem {
        refuse(codes::CREDENTIALS_EXPIRED, &self.challenge.expired, "the token has expired")
    }

    async fn verify_new(
        &self,
        token: &[u8],
        hash: u128,
        exchange: &Exchange,
        services: &dyn Services,
    ) -> Checked {
        match Header::read(token) {
            Ok(header) => self.with_keys(token, hash, &header, exchange.now, services).await,
            Err(detail) => Err(self.invalid(detail)),
        }
    }

    /// Verifies with the keys at hand, else with those that a fetch brings.
    async fn with_keys(
        &self,
        token: &[u8],
        hash: u128,
        header: &Header,
        now: Now,
        services: &dyn Services,
    ) -> Checked {
        if let Err(detail) = self.rules.admits(header) {
            return Err(self.invalid(detail));
        }
        if let Some(set) = self.keys.current()
            && let Outcome::Good(verified) = self.with_set(token, hash, header, &set, now)
        {
            return verified;
        }
        if !self.keys.can_be_fetched() {
            return Err(self.invalid("no key with the token's key id"));
        }
        let refreshed = self.keys.refresh(services).await;
        if let Some(set) = self.keys.current()
            && let Outcome::Good(verified) =
                self.with_set(token, hash, header, &set, services.now())
        {
            return verified;
        }
        match refreshed {
            Ok(()) => Err(self.invalid("no key with the token's key id")),
            // Whether the token is good cannot be told, so it is not said to be bad.
            Err(away) => Err(Problem::new(codes::KEYS_UNAVAILABLE)
                .detail(away.reason)
                .retry_after(away.retry_after)),
        }
    }

    fn with_set(
        &self,
        token: &[u8],
        hash: u128,
        header: &Header,
        set: &KeySet,
        now: Now,
    ) -> Outcome {
        let mut detail = match &header.kid {
            Some(kid) if !set.knows(kid) => return Outcome::KeyUnknown,
            Some(_) => "the key is not for the token's algorithm",
            // No fetch could tell whose it is, so it is tried with what fits.
            None => "no key fits the token's algorithm",
        };
        for key in set.candidates(header.kid.as_deref(), header.algorithm) {
            match self.rules.verify(token, header, key) {
                Ok(claims) => return Outcome::Good(self.accept(claims, token, hash, set, now)),
                Err(reason) => detail = reason,
            }
        }
        Outcome::Good(Err(self.invalid(detail)))
    }

    /// The signature is good; are the claims?
    fn accept(
        &self,
        claims: token::Claims,
        token: &[u8],
        hash: u128,
        set: &KeySet,
        now: Now,
    ) -> Checked {
        let accepted = match self.rules.accept(claims, now) {
            Ok(accepted) => accepted,
            Err(detail) => return Err(self.invalid(detail)),
        };
        let expired = accepted.usable_until <= now.wall;
        let identity = Arc::new(accepted.identity);
        // An expired one as well: it must not cost a verification each time.
        self.remembered.insert(
            hash,
            token.len(),
            set.version,
            accepted.usable_until,
            Arc::clone(&identity),
        );
        if expired { Err(self.expired()) } else { Ok(identity) }
    }
}

impl Authenticator for Compiled {
    fn presented(&self, exchange: &Exchange) -> Presented {
        let request = &exchange.request;
        match bearer(request) {
            None => Presented::Nothing,
            Some(span) => match self.hint.is_foreign(span.of(request.fields.bytes())) {
                true => Presented::Foreign(span),
                false => Presented::Mine(span),
            },
        }
    }

    fn challenge(&self) -> &str {
        &self.challenge.missing
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, services: &'a dyn Services) -> Verify<'a> {
        let mut found = bearers(&exchange.request);
        let Some(span) = found.next() else {
            let code = codes::CREDENTIALS_MISSING;
            let problem = refuse(code, &self.challenge.missing, "no bearer token");
            return Verify::Done(Err(problem.into()));
        };
        if found.next().is_some() {
            let problem = Problem::new(codes::CREDENTIALS_AMBIGUOUS);
            return Verify::Done(Err(problem.detail("two bearer tokens").into()));
        }
        let token = span.of(exchange.request.fields.bytes());
        if token.len() > TOKEN_BYTES_MAX {
            return Verify::Done(Err(self.invalid("the token is too long").into()));
        }
        let hash = self.remembered.hash(token, services);
        match self.remembered.find(hash, self.keys.version(), exchange.now.wall) {
            Found::Good(identity) => Verify::Done(Ok(identity.into())),
            Found::Expired => Verify::Done(Err(self.expired().into())),
            Found::Nothing => {
                let verified = self.verify_new(token, hash, exchange, services);
                Verify::Wait(Box::pin(async { told(verified.await) }))
            }
        }
    }

    fn is_access_token(&self) -> bool {
        true
    }

    fn conceal(&self, request: &mut RequestHead) {
        request.fields.remove_if(|known, _, value| {
            known == Known::Authorization && after_scheme(value, SCHEME).is_some()
        });
    }

    fn upkeep<'a>(&'a self, services: &'a dyn Services) -> Option<LocalFuture<'a, Duration>> {
        self.keys.can_be_fetched().then(|| Box::pin(self.keys.upkeep(services)) as _)
    }
}
