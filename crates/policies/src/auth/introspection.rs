//! Tokens that only their issuer can read, which is asked about each (RFC 7662).
//!
//! The way of a token: known? → ask, once for all who wait → what the issuer says → identity, known
//! for a short time. Whether the issuer's word can be had is kept apart from what it is: without it
//! nobody passes, and nobody's token is called bad.

mod saying;
mod settings;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::auth::{Authenticator, IssuerKeys, Presented, Verify};
use portcullis_core::services::LocalFuture;
use portcullis_core::{
    Exchange, Identity, Known, Now, Problem, RequestHead, Services, Span, codes,
};

use super::confirmation::Bound;
use super::jwt::{Challenges, MEDIA_TYPE, Naming, SignedAnswers};
use super::{Checked, after_scheme, refuse, told};
use crate::flight::{Flights, Grounded};
use crate::oauth::breaker::Breaker;
use crate::oauth::client::Client;
use crate::oauth::endpoint::Endpoint;
use crate::oauth::form::Form;
use crate::oauth::kept::{Kept, Room};
use saying::{Rules, Saying};

pub(crate) use settings::Introspection;

const SCHEME: &str = "Bearer";
/// Longer tokens are refused unasked.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// How long a token that the issuer does not know is refused without asking again.
const BAD_FOR: Duration = Duration::from_secs(5);
/// What is advised where nobody knows when the issuer is back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Compiled {
    endpoint: Endpoint,
    client: Client,
    ca: Option<Arc<[u8]>>,
    timeout: Duration,
    rules: Rules,
    naming: Naming,
    /// Verifies answers, where only signed ones are taken.
    signed: Option<SignedAnswers>,
    /// How long an answer is taken for true; `None`: it is asked for each time.
    cache: Option<Duration>,
    /// How long a good answer is taken for true when no other is to be had.
    last_known: Duration,
    state: Arc<State>,
    challenge: Challenges,
}

/// What outlives a reload.
#[derive(Debug)]
struct State {
    known: Kept<Learned>,
    asking: Flights<Word>,
    breaker: Breaker,
}

/// What an issuer has said of a token, and when it was asked.
#[derive(Clone, Debug)]
struct Learned {
    verdict: Verdict,
    at: Duration,
}

#[derive(Clone, Debug)]
enum Verdict {
    Good(Arc<Good>),
    Bad(&'static str),
}

#[derive(Debug)]
struct Good {
    identity: Arc<Identity>,
    /// Since 1970.
    expires: Option<Duration>,
    bound: Bound,
}

/// What comes of asking.
#[derive(Clone, Debug)]
enum Word {
    Said(Verdict),
    Nothing { reason: String, retry_after: Duration },
}

fn bearers(request: &RequestHead) -> impl Iterator<Item = Span> {
    let fields = request.fields.live().filter(|field| field.known == Known::Authorization);
    fields.filter_map(|field| {
        let at = after_scheme(field.value.of(request.fields.bytes()), SCHEME)?;
        let start = field.value.start as usize;
        Some(Span::new(start + at.start, start + at.end))
    })
}

/// `b64token` (RFC 6750 §2.1), which is all that a token may be made of.
fn is_token(text: &[u8]) -> bool {
    let body = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    body > 0 && text[..body].iter().all(plain)
}

impl Compiled {
    fn invalid(&self, detail: &str) -> Problem {
        refuse(codes::CREDENTIALS_INVALID, &self.challenge.invalid, detail)
    }

    /// What the issuer has said holds for the time that it was said for.
    fn judge(&self, verdict: &Verdict, exchange: &Exchange, now: Now) -> Checked {
        let good = match verdict {
            Verdict::Good(good) => good,
            Verdict::Bad(detail) => return Err(self.invalid(detail)),
        };
        if good.expires.is_some_and(|expires| expires <= now.wall) {
            let detail = "the token has expired";
            return Err(refuse(codes::CREDENTIALS_EXPIRED, &self.challenge.expired, detail));
        }
        good.bound.holds(exchange).map_err(|detail| self.invalid(detail))?;
        Ok(Arc::clone(&good.identity))
    }

    /// What is known well enough not to ask.
    fn known(&self, hash: u128, now: Now) -> Option<Verdict> {
        let cache = self.cache?;
        let Learned { verdict, at } = self.state.known.find(hash)?;
        let holds = match verdict {
            Verdict::Good(_) => cache,
            Verdict::Bad(_) => cache.min(BAD_FOR),
        };
        (now.mono.saturating_sub(at) < holds).then_some(verdict)
    }

    async fn ask(
        &self,
        token: &[u8],
        hash: u128,
        exchange: &Exchange,
        services: &dyn Services,
    ) -> Checked {
        let asked = self.state.asking.run(
            hash,
            || Ok::<_, Infallible>(()),
            async || self.learn(token, hash, services).await,
        );
        let (reason, retry_after) = match asked.await {
            Ok(Word::Said(verdict)) => return self.judge(&verdict, exchange, services.now()),
            Ok(Word::Nothing { reason, retry_after }) => (reason, retry_after),
            Err(Grounded::BrokenOff) => {
                ("the request to the issuer was broken off".into(), RETRY_AFTER)
            }
            Err(_) => ("too many requests wait for the issuer".into(), RETRY_AFTER),
        };
        let now = services.now();
        if let Some(Learned { verdict: verdict @ Verdict::Good(_), at }) =
            self.state.known.find(hash)
            && now.mono.saturating_sub(at) < self.last_known
        {
            return self.judge(&verdict, exchange, now);
        }
        Err(Problem::new(codes::AUTHORIZER_UNAVAILABLE).detail(reason).retry_after(retry_after))
    }

    /// Asks the issuer, if it is well, and remembers what it says.
    async fn learn(&self, token: &[u8], hash: u128, services: &dyn Services) -> Word {
        let begun = services.now();
        let permit = match self.state.breaker.enter(begun.mono) {
            Ok(permit) => permit,
            Err(shut) => {
                let reason = shut.reason.to_owned();
                return Word::Nothing { reason, retry_after: shut.retry_after };
            }
        };
        let saying = self.introspect(token, begun, services).await;
        let now = services.now();
        let saying = match saying {
            Ok(saying) => saying,
            Err(reason) => {
                permit.failed(now.mono);
                return Word::Nothing { reason, retry_after: RETRY_AFTER };
            }
        };
        permit.succeeded();
        let (verdict, room) = match self.rules.judge(saying, &self.naming, now) {
            Ok(good) => (Verdict::Good(Arc::new(good)), Room::Good),
            Err(detail) => (Verdict::Bad(detail), Room::Bad),
        };
        let bytes = match &verdict {
            Verdict::Good(good) => token.len() + good.size(),
            Verdict::Bad(_) => 0,
        };
        // It was true at some moment after the question, and may have become false since.
        let learned = Learned { verdict: verdict.clone(), at: begun.mono };
        self.state.known.insert(hash, room, bytes, learned);
        Word::Said(verdict)
    }

    /// # Errors
    /// For the operator: the issuer does not say.
    async fn introspect(
        &self,
        token: &[u8],
        begun: Now,
        services: &dyn Services,
    ) -> Result<Saying, String> {
        let url = self.endpoint.url(services).await?;
        let form = Form::default().with("token", token).with("token_type_hint", "access_token");
        let mut fetch = self.client.post(&url, self.endpoint.issuer(), form, services).await?;
        if self.signed.is_some() {
            fetch.fields.retain(|(name, _)| name != "accept");
            fetch.fields.push(("accept".to_owned(), MEDIA_TYPE.to_owned()));
        }
        fetch.ca.clone_from(&self.ca);
        // What went before has taken a part of it.
        let spent = services.now().mono.saturating_sub(begun.mono);
        fetch.timeout = self.timeout.saturating_sub(spent).max(Duration::from_millis(1));
        let answer = services.fetch(fetch).await.map_err(|error| error.to_string())?;
        if answer.status.as_u16() != 200 {
            return Err(format!("{url} answers {}", answer.status.as_u16()));
        }
        let saying = match &self.signed {
            None => Saying::read(&answer.body),
            Some(signed) => {
                let kind = answer.content_type.as_deref().unwrap_or_default();
                let kind = kind.split(';').next().unwrap_or_default().trim();
                if !kind.eq_ignore_ascii_case(MEDIA_TYPE) {
                    return Err(format!("{url} answers unsigned"));
                }
                signed.open(answer.body.trim_ascii(), services).await.and_then(Saying::of)
            }
        };
        saying.map_err(|reason| format!("{url}: {reason}"))
    }
}

impl Good {
    /// About what it takes: its claims, and what is made of them.
    fn size(&self) -> usize {
        fn of(value: &serde_json::Value) -> usize {
            use serde_json::Value;
            32 + match value {
                Value::String(text) => text.len(),
                Value::Array(items) => items.iter().map(of).sum(),
                Value::Object(map) => map.iter().map(|(name, value)| name.len() + of(value)).sum(),
                _ => 0,
            }
        }
        let claims = self.identity.claims.iter();
        256 + claims.map(|(name, value)| name.len() + of(value)).sum::<usize>()
    }
}

impl Authenticator for Compiled {
    fn presented(&self, exchange: &Exchange) -> Presented {
        bearers(&exchange.request).next().map_or(Presented::Nothing, Presented::Mine)
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
        if !is_token(token) {
            return Verify::Done(Err(self.invalid("no token is made of this").into()));
        }
        let hash = self.state.known.hash(token, services);
        match self.known(hash, exchange.now) {
            Some(verdict) => Verify::Done(told(self.judge(&verdict, exchange, exchange.now))),
            None => {
                let asked = self.ask(token, hash, exchange, services);
                Verify::Wait(Box::pin(async { told(asked.await) }))
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

    fn issuer_keys(&self) -> Option<IssuerKeys> {
        self.signed.as_ref().and_then(SignedAnswers::standing)
    }

    fn upkeep<'a>(&'a self, services: &'a dyn Services) -> Option<LocalFuture<'a, Duration>> {
        if !self.endpoint.is_discovered() && self.signed.is_none() {
            return None;
        }
        Some(Box::pin(async {
            let found = self.endpoint.upkeep(services).await;
            let keys = match &self.signed {
                Some(signed) => Some(signed.upkeep(services).await),
                None => None,
            };
            found.into_iter().chain(keys).min().unwrap_or(RETRY_AFTER)
        }))
    }
}
