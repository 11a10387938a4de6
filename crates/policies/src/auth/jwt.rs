//! Signed tokens of an issuer (RFC 7519, RFC 8725, RFC 9068).
//!
//! The way of a token: seen before? → header → key → signature → claims → identity, remembered
//! until it expires → of this client? The algorithm and the key come from the configuration and
//! the issuer's key set; of the token only its key id chooses among those.

mod answers;
mod forms;
mod id_token;
mod keys;
#[cfg(feature = "planted-faults")]
mod mistakes;
mod revoked;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::auth::{Authenticator, IssuerKeys, Presented, Verify};
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::services::LocalFuture;
use portcullis_core::{Exchange, Identity, Now, Problem, RequestHead, Services, codes};

use super::confirmation::Bound;
use super::cross_site::Guard;
use super::place::Places;
use super::remembered::{Found, Proven, Remembered};
use super::{Checked, refuse, told};
use keys::KeySet;
use source::Keys;
use token::{Accepted, Header, IssuerHint, Rules};

pub(super) use answers::{MEDIA_TYPE, Naming, SignedAnswers, is_among, time};
pub(super) use forms::{Claim, Names};
pub(super) use id_token::{Expected, IdTokens, Refusal, Taken};
pub(crate) use settings::Jwt;

const SCHEME: &str = "Bearer";
/// Longer ID tokens are refused, and access tokens unless the operator says otherwise.
const TOKEN_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
struct Compiled {
    rules: Rules,
    hint: IssuerHint,
    keys: Arc<Keys>,
    remembered: Arc<Remembered>,
    challenge: Challenges,
    places: Places,
    /// For tokens in a cookie.
    pages: Guard,
    /// Longer tokens are refused unread.
    token_bytes_max: usize,
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

/// What came of a token that was not remembered.
enum Outcome {
    Told(Result<Proven, Problem>),
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
        #[cfg(feature = "planted-faults")]
        if let Some(claims) = mistakes::believed(token, || self.keys.current()) {
            let accepted = self.rules.accept(claims, token, exchange.now);
            let accepted = accepted.map_err(|detail| self.invalid(detail))?;
            return Ok(Arc::new(accepted.identity));
        }
        let header = Header::read(token, self.rules.typ.as_deref());
        let header = header.map_err(|detail| self.invalid(detail))?;
        let Proven { identity, bound, .. } =
            self.with_keys(token, hash, &header, exchange.now, services).await?;
        self.of_its_client(identity, bound, exchange)
    }

    /// Whether the client is the one that a good token is bound to.
    fn of_its_client(&self, identity: Arc<Identity>, bound: Bound, exchange: &Exchange) -> Checked {
        match bound.holds(exchange) {
            Ok(()) => Ok(identity),
            Err(detail) => Err(self.invalid(detail)),
        }
    }

    /// Of the key set and of the list of revoked tokens: what was remembered with another of either
    /// is verified again.
    fn version(&self, of_keys: u64) -> u64 {
        of_keys.wrapping_add(self.rules.revoked.era)
    }

    /// Verifies with the keys at hand, else with those that a fetch brings.
    async fn with_keys(
        &self,
        token: &[u8],
        hash: u128,
        header: &Header,
        now: Now,
        services: &dyn Services,
    ) -> Result<Proven, Problem> {
        if let Err(detail) = self.rules.admits(header) {
            return Err(self.invalid(detail));
        }
        if let Some(set) = self.keys.current()
            && let Outcome::Told(verified) = self.with_set(token, hash, header, &set, now)
        {
            return verified;
        }
        if !self.keys.can_be_fetched() {
            return Err(self.invalid("no key with the token's key id"));
        }
        let refreshed = self.keys.refresh(services).await;
        if let Some(set) = self.keys.current()
            && let Outcome::Told(verified) =
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
            Some(kid) if !set.knows(kid) && !is_planted(Fault::UnknownKeyTriesAll) => {
                return Outcome::KeyUnknown;
            }
            Some(_) => "the key is not for the token's algorithm",
            // No fetch could tell whose it is, so it is tried with what fits.
            None => "no key fits the token's algorithm",
        };
        for key in self.rules.candidates(set, header) {
            match self.rules.verify(token, header, key) {
                Ok(claims) => return Outcome::Told(self.accept(claims, token, hash, set, now)),
                Err(reason) => detail = reason,
            }
        }
        Outcome::Told(Err(self.invalid(detail)))
    }

    /// The signature is good; are the claims?
    fn accept(
        &self,
        claims: token::Claims,
        token: &[u8],
        hash: u128,
        set: &KeySet,
        now: Now,
    ) -> Result<Proven, Problem> {
        let accepted = match self.rules.accept(claims, token, now) {
            Ok(accepted) => accepted,
            Err(detail) => return Err(self.invalid(detail)),
        };
        let Accepted { identity, usable_until, bound } = accepted;
        let verified = Proven { identity: Arc::new(identity), usable_until, bound };
        // An expired one as well: it must not cost a verification each time.
        self.remembered.insert(hash, token.len(), self.version(set.version), &verified);
        if usable_until <= now.wall { Err(self.expired()) } else { Ok(verified) }
    }
}

impl Authenticator for Compiled {
    fn presented(&self, exchange: &Exchange) -> Presented {
        let request = &exchange.request;
        match self.places.glance(request) {
            Presented::Mine(span)
                if self.hint.is_foreign(span.of(request.fields.bytes()), self.token_bytes_max)
                    && !is_planted(Fault::IssuerNotChecked) =>
            {
                Presented::Foreign(span)
            }
            presented => presented,
        }
    }

    fn challenge(&self) -> &str {
        &self.challenge.missing
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, services: &'a dyn Services) -> Verify<'a> {
        let request = &exchange.request;
        let span = match self.places.look(request) {
            Presented::Mine(span) => span,
            Presented::Several => {
                let problem = Problem::new(codes::CREDENTIALS_AMBIGUOUS);
                return Verify::Done(Err(problem.detail("more than one token").into()));
            }
            _ => {
                let code = codes::CREDENTIALS_MISSING;
                let problem = refuse(code, &self.challenge.missing, "no token");
                return Verify::Done(Err(problem.into()));
            }
        };
        let token = span.of(request.fields.bytes());
        if token.len() > self.token_bytes_max {
            return Verify::Done(Err(self.invalid("the token is too long").into()));
        }
        if self.places.in_cookie(span, request)
            && let Err(problem) = self.pages.check(exchange)
        {
            return Verify::Done(Err(problem.into()));
        }
        let hash = self.remembered.hash(token, services);
        let version = self.version(self.keys.version());
        match self.remembered.find(hash, version, exchange.now.wall) {
            Found::Good(identity, Bound::ToNothing) => Verify::Done(Ok(identity.into())),
            Found::Good(identity, bound) => {
                Verify::Done(told(self.of_its_client(identity, bound, exchange)))
            }
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
        self.places.conceal(request);
    }

    fn secret_parameters(&self) -> &[Box<str>] {
        self.places.parameters()
    }

    fn issuer_keys(&self) -> Option<IssuerKeys> {
        self.keys.standing()
    }

    fn upkeep<'a>(&'a self, services: &'a dyn Services) -> Option<LocalFuture<'a, Duration>> {
        self.keys.can_be_fetched().then(|| Box::pin(self.keys.upkeep(services)) as _)
    }
}
