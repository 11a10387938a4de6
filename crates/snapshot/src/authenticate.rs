//! The authentication of a route: all the kinds of credential it takes, asked once.
//!
//! Exactly one credential may be presented, and a bad one refuses even where another would do or
//! none is needed. What a credential is, and whether it is good, is for the authenticators to say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::auth::{Accepted, Denied, Own, Presented, Verify};
use portcullis_core::head::{RequestHead, Span};
use portcullis_core::known::is_alias;
use portcullis_core::limit::{Algorithm, LimitKey, LimitSpec};
use portcullis_core::planted::{self, Fault, is_planted};
use portcullis_core::policy::BodyUse;
use portcullis_core::services::Lease;
use portcullis_core::{
    Exchange, Identity, Known, Phase, Policy, Problem, ResponseHead, Services, Step, codes, query,
};

use crate::snapshot::NamedAuthenticator;

/// Bad credentials from one address before its further verifications are put off. Credentials that
/// are remembered as good are not verified again and never slowed.
static FAILURES: LimitSpec =
    LimitSpec { count: 20, per: Duration::from_secs(60), algorithm: Algorithm::Window };

/// Any-of over the authenticators of one route.
#[derive(Debug)]
pub struct Authenticate {
    any_of: Vec<NamedAuthenticator>,
    optional: bool,
    forward_credential: bool,
    /// The value of `WWW-Authenticate`: every challenge, once.
    challenge: String,
    /// Whatever the authenticators own of the fields toward the backend, in lower case.
    owned: Vec<Box<str>>,
    /// Query parameters that are credentials for any of them.
    secret: Vec<Box<str>>,
}

/// What a look at the head found.
enum Found {
    Nothing,
    /// More than one credential.
    Several,
    /// One, for nobody here.
    Foreign,
    /// One, for this authenticator and perhaps later ones. Without a span it is ambient.
    For(usize, Option<Span>),
}

/// The one credential, who is to verify it, and their answer where that was immediate.
struct Candidate {
    by: usize,
    span: Option<Span>,
    refused: Option<Denied>,
}

impl Authenticate {
    #[must_use]
    pub fn new(any_of: Vec<NamedAuthenticator>, optional: bool, forward_credential: bool) -> Self {
        let mut challenges: Vec<&str> = Vec::new();
        for entry in &any_of {
            let challenge = entry.authenticator.challenge();
            if !challenge.is_empty() && !challenges.contains(&challenge) {
                challenges.push(challenge);
            }
        }
        let challenge = challenges.join(", ");
        let owned = any_of.iter().flat_map(|entry| entry.authenticator.owned_fields());
        let owned = owned.filter(|_| !is_planted(Fault::CopiedFieldKept)).cloned().collect();
        let secret = any_of.iter().flat_map(|entry| entry.authenticator.secret_parameters());
        let secret = secret.cloned().collect();
        Self { any_of, optional, forward_credential, challenge, owned, secret }
    }

    fn find(&self, exchange: &Exchange) -> Found {
        let request = &exchange.request;
        // A second `Authorization` is a second credential, whoever reads which of them.
        let second = request.fields.known_all(Known::Authorization).nth(1);
        if second.is_some() && !is_planted(Fault::SecondCredentialWins) {
            return Found::Several;
        }
        let mut found = Found::Nothing;
        let mut seen: Option<Span> = None;
        let mut ambient = None;
        for (at, entry) in self.any_of.iter().enumerate() {
            let (span, mine) = match entry.authenticator.presented(exchange) {
                Presented::Nothing => continue,
                Presented::Ambient => {
                    ambient.get_or_insert(at);
                    continue;
                }
                Presented::Several => return Found::Several,
                Presented::Foreign(span) => (span, false),
                Presented::Mine(span) => (span, true),
            };
            if seen.is_some_and(|seen| seen != span) {
                return Found::Several;
            }
            seen = Some(span);
            match found {
                Found::Nothing | Found::Foreign if mine => found = Found::For(at, Some(span)),
                Found::Nothing => found = Found::Foreign,
                _ => {}
            }
        }
        match (&found, ambient) {
            (Found::Nothing, Some(at)) => Found::For(at, None),
            _ => found,
        }
    }

    /// The others that claim the same credential, asked when those before them refused it.
    fn next(&self, after: usize, span: Option<Span>, exchange: &Exchange) -> Option<usize> {
        let same = span.map_or(Presented::Ambient, Presented::Mine);
        (after + 1..self.any_of.len())
            .find(|at| self.any_of[*at].authenticator.presented(exchange) == same)
    }

    fn accept(&self, by: usize, span: Option<Span>, accepted: Accepted, exchange: &mut Exchange) {
        exchange.access_token = span.filter(|_| self.any_of[by].authenticator.is_access_token());
        if !self.forward_credential && !is_planted(Fault::CredentialForwarded) {
            self.any_of[by].authenticator.conceal(&mut exchange.request);
        }
        let Accepted { identity, cookies, withheld } = accepted;
        for withheld in &withheld {
            exchange.request.fields.remove_if(|_, name, _| is_alias(name, withheld.as_bytes()));
        }
        for (name, value) in &identity.fields {
            exchange.request.fields.append(name.as_bytes(), value);
        }
        exchange.cookies.extend(cookies);
        exchange.identity = Some(identity);
    }

    /// What a client says in fields that only an authenticator may set is not heard.
    fn remove_owned(&self, request: &mut RequestHead) {
        if !self.owned.is_empty() {
            request.fields.remove_if(|_, name, _| {
                self.owned.iter().any(|owned| is_alias(name, owned.as_bytes()))
            });
        }
    }

    /// A page whose own URL had a credential says so in what it loads after.
    fn clean_referer(&self, request: &mut RequestHead) {
        if self.secret.is_empty() {
            return;
        }
        let referer = request.fields.get(b"referer");
        if let Some(rest) = referer.and_then(|url| query::strip_url(url, &self.secret)) {
            request.fields.set(b"referer", &rest);
        }
    }

    fn refusal(&self, code: &'static codes::Code) -> Problem {
        self.challenged(Problem::new(code))
    }

    /// No scheme of HTTP asks for what an authenticator without a challenge goes by.
    fn challenged(&self, problem: Problem) -> Problem {
        match self.challenge.as_str() {
            "" => problem,
            challenge => problem.field("www-authenticate", challenge),
        }
    }

    /// `explain` and `check` state who is calling instead of showing a credential.
    fn assume<'s>(&self, identity: &Arc<Identity>, exchange: &mut Exchange) -> Step<'s> {
        if self.any_of.iter().any(|entry| entry.name == identity.auth) {
            exchange.identity = Some(Arc::clone(identity));
            return Step::Continue;
        }
        let detail = format!("this route does not take credentials of `{}`", identity.auth);
        Step::Refuse(self.refusal(codes::CREDENTIALS_INVALID).detail(detail))
    }

    /// The way of every credential that is not known to be good at once.
    async fn verify_slowly<'a>(
        &'a self,
        candidate: Candidate,
        exchange: &'a mut Exchange,
        services: &'a dyn Services,
    ) -> Step<'a> {
        let Candidate { mut by, span, mut refused } = candidate;
        let address = address_key(exchange.client_ip);
        if self.failures_left(address, 0, services).await == Some(0) {
            return Step::Refuse(slowed());
        }
        let problem = loop {
            let result = match refused.take() {
                Some(denied) => Err(denied),
                None => match self.any_of[by].authenticator.verify(exchange, services) {
                    Verify::Done(result) => result,
                    Verify::Wait(future) => future.await,
                },
            };
            match result {
                Ok(accepted) => {
                    self.accept(by, span, accepted, exchange);
                    return Step::Continue;
                }
                Err(Denied::Reply(reply)) if reply.head.status.as_u16() == 401 => {
                    return match self.may_fail(address, services).await {
                        true => Step::Reply(reply),
                        false => Step::Refuse(slowed()),
                    };
                }
                Err(Denied::Reply(reply)) => return Step::Reply(reply),
                // Whether this one would take it is not known, so nobody else's no is final.
                Err(Denied::Problem(problem)) if problem.code.status != 401 => break problem,
                Err(Denied::Problem(problem)) => match self.next(by, span, exchange) {
                    Some(next) => by = next,
                    None => break problem,
                },
            }
        };
        if problem.code.status == 401 && !self.may_fail(address, services).await {
            return Step::Refuse(slowed());
        }
        let told = problem.fields.iter().any(|(name, _)| *name == "www-authenticate");
        Step::Refuse(match told {
            true => problem,
            false if problem.code.status == 401 => self.challenged(problem),
            false => problem,
        })
    }

    /// Counts a failure, and says whether the address had one left.
    async fn may_fail(&self, address: LimitKey, services: &dyn Services) -> bool {
        self.failures_left(address, 1, services).await.is_some()
    }

    /// How many failures the address has left after `want` more; `None` when it has not so many.
    async fn failures_left(
        &self,
        key: LimitKey,
        want: u32,
        services: &dyn Services,
    ) -> Option<u32> {
        let grant = match services.lease(key, &FAILURES, want) {
            Lease::Ready(grant) => grant,
            // Counting failures must never be the reason why nobody gets in.
            Lease::Wait(future) => match future.await {
                Ok(grant) => grant,
                Err(_) => return Some(u32::MAX),
            },
        };
        (grant.granted >= want).then_some(grant.remaining)
    }
}

fn slowed() -> Problem {
    Problem::new(codes::AUTHENTICATION_SLOWED).retry_after(FAILURES.per)
}

/// An address, or an IPv6 network of 64 bits, set apart from the keys of configured limits.
fn address_key(address: IpAddr) -> LimitKey {
    const TAG: u128 = 0x6175_7468_2066_6169_6c75_7265_7320_6f66;
    let bits = match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()) | 1 << 64,
        IpAddr::V6(address) => address.to_bits() >> 64,
    };
    // Limiters choose a shard by some of the bits, so all of them have to vary.
    LimitKey((bits ^ TAG).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

impl Policy for Authenticate {
    fn phase(&self) -> Phase {
        Phase::Authenticate
    }

    fn request_body(&self) -> BodyUse {
        BodyUse::widest(self.any_of.iter().map(|entry| entry.authenticator.request_body()))
    }

    fn request_fields(&self) -> Vec<&str> {
        self.owned.iter().map(|name| &**name).collect()
    }

    fn on_request<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        services: &'a dyn Services,
    ) -> Step<'a> {
        self.remove_owned(&mut exchange.request);
        self.clean_referer(&mut exchange.request);
        if planted::is_not_asked(exchange) {
            return Step::Continue;
        }
        if is_planted(Fault::EverybodyRefused) {
            return Step::Refuse(self.refusal(codes::CREDENTIALS_INVALID));
        }
        if let Some(identity) = exchange.assumed.clone() {
            return self.assume(&identity, exchange);
        }
        if let Some(entry) =
            self.any_of.iter().find(|entry| entry.authenticator.intercepts(exchange))
        {
            return answered(entry.authenticator.answer(exchange, services));
        }
        let (at, span) = match self.find(exchange) {
            Found::Nothing if self.optional => return Step::Continue,
            Found::Nothing => {
                let host = self.any_of.iter().find(|entry| entry.authenticator.invites(exchange));
                return match host {
                    Some(entry) => answered(entry.authenticator.answer(exchange, services)),
                    None => Step::Refuse(self.refusal(codes::CREDENTIALS_MISSING)),
                };
            }
            Found::Several => return Step::Refuse(Problem::new(codes::CREDENTIALS_AMBIGUOUS)),
            Found::Foreign => {
                let detail = "no authenticator of this route knows the credential";
                return Step::Refuse(self.refusal(codes::CREDENTIALS_INVALID).detail(detail));
            }
            Found::For(at, span) => (at, span),
        };
        // What costs anything answers `Wait`, and is not begun before it is polled.
        let refused = match self.any_of[at].authenticator.verify(exchange, services) {
            Verify::Done(Ok(accepted)) => Ok(accepted),
            Verify::Done(Err(denied)) => Err(Some(denied)),
            Verify::Wait(_) => Err(None),
        };
        match refused {
            Ok(accepted) => {
                self.accept(at, span, accepted, exchange);
                Step::Continue
            }
            Err(refused) => {
                let candidate = Candidate { by: at, span, refused };
                Step::Wait(Box::pin(self.verify_slowly(candidate, exchange, services)))
            }
        }
    }

    fn on_response<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        response: &'a mut ResponseHead,
        _: &'a dyn Services,
    ) -> Step<'a> {
        for cookie in exchange.cookies.drain(..) {
            response.fields.append(b"set-cookie", cookie.as_bytes());
        }
        Step::Continue
    }
}

/// An authenticator answers by itself.
fn answered(own: Own<'_>) -> Step<'_> {
    Step::Wait(Box::pin(async move {
        match own.await {
            Ok(reply) => Step::Reply(reply),
            Err(problem) => Step::Refuse(problem),
        }
    }))
}

#[cfg(test)]
mod tests;
