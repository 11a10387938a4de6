//! Login for browsers: OpenID Connect, authorization code flow with PKCE (RFC 9700).
//!
//! A login and a session are in the browser's cookies, encrypted, and nowhere else; the states are
//! in `oidc/LIFECYCLE.md`. A session is a credential like any other: it is recognised, verified and
//! concealed. What is particular is that it begins and ends here, and that a browser sends it by
//! itself, so that requests of other sites' pages are refused ([`super::cross_site`]).

mod attempt;
mod jar;
mod login;
mod logout;
mod place;
mod provider;
mod query;
mod renewals;
mod sealing;
mod session;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::auth::{
    Accepted, Authenticator, Denied, IssuerKeys, Own, Presented, Verified, Verify,
};
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::services::LocalFuture;
use portcullis_core::{Exchange, Identity, Problem, RequestHead, Services, codes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cookies;
use super::cross_site::Guard;
use super::jwt::IdTokens;
use super::remembered::{Found, Proven, Remembered};
use crate::key::Secret;
use crate::oauth::form::Form;
use jar::Jar;
use place::Origin;
use provider::Provider;
use renewals::{Outcome, Renewals};
use sealing::Keyring;
use session::{Lasting, Session, Standing};

pub(crate) use settings::Oidc;

const PURPOSE: u64 = 0x6f69_6463;

#[derive(Debug)]
struct Compiled {
    /// What sealed texts are bound to.
    session_context: Box<[u8]>,
    login_context: Box<[u8]>,
    /// Of every authorization request.
    request: Vec<(&'static str, String)>,
    /// What is asked for.
    scope: String,
    /// The callback and the logout.
    own_paths: [Box<str>; 2],
    after_logout: Box<str>,
    origin: Option<Box<str>>,
    lasting: Lasting,
    keyring: Keyring,
    jar: Jar,
    guard: Guard,
    id_tokens: IdTokens,
    provider: Provider,
    secret: Secret,
    remembered: Arc<Remembered>,
    renewals: Arc<Renewals>,
}

impl Compiled {
    fn callback_path(&self) -> &str {
        &self.own_paths[0]
    }

    /// # Errors
    /// Where the session would go over the network in clear text.
    fn origin(&self, exchange: &Exchange) -> Result<Origin, Problem> {
        Origin::of(exchange, self.origin.as_deref()).ok_or_else(|| {
            login::failed("no login without TLS; where a proxy before this ends it, set `origin`")
        })
    }

    fn seal(
        &self,
        context: &[u8],
        what: &impl Serialize,
        services: &dyn Services,
    ) -> Result<String, Problem> {
        let json = serde_json::to_vec(what).ok();
        let sealed = json.and_then(|json| self.keyring.seal(context, &json, services));
        sealed.ok_or_else(|| Problem::new(codes::INTERNAL).detail("cannot encrypt a cookie"))
    }

    /// What was sealed, and whether by a key that seals no more.
    fn open<T: DeserializeOwned>(&self, context: &[u8], sealed: &[u8]) -> Option<(T, bool)> {
        let opened = self.keyring.open(context, sealed)?;
        Some((serde_json::from_slice(&opened.plain).ok()?, opened.by_old_key))
    }

    fn hash(&self, text: &str, services: &dyn Services) -> u128 {
        let mut hasher = self.secret.hasher(services, PURPOSE);
        hasher.text(text.as_bytes());
        hasher.finish()
    }

    /// A session that is not good: whoever looks at a page logs in again, others get a 401.
    fn again<'a>(
        &'a self,
        expired: bool,
        detail: &'static str,
        exchange: &'a Exchange,
        services: &'a dyn Services,
    ) -> Verify<'a> {
        if place::is_navigation(&exchange.request) {
            return Verify::Wait(Box::pin(async move {
                Err(match self.begin(exchange, services).await {
                    Ok(reply) => Denied::Reply(reply),
                    Err(problem) => problem.into(),
                })
            }));
        }
        let code = if expired { codes::CREDENTIALS_EXPIRED } else { codes::CREDENTIALS_INVALID };
        let problem = Problem::new(code).detail(detail);
        Verify::Done(Err(self.forgetting(problem, exchange).into()))
    }

    /// Takes the session from the browser, so that it comes with nothing the next time.
    fn forgetting(&self, problem: Problem, exchange: &Exchange) -> Problem {
        let secure = place::is_secure(exchange, self.origin.as_deref());
        let cookies = secure.map(|secure| self.jar.of(secure).forget_session(&exchange.request));
        let cookies = cookies.into_iter().flatten();
        cookies.fold(problem, |problem, cookie| problem.field("set-cookie", cookie))
    }

    fn identity(&self, session: &Session) -> Result<Arc<Identity>, Problem> {
        let identity = self.id_tokens.identity(&session.id_token, &session.scope);
        let identity = identity.ok_or_else(|| {
            Problem::new(codes::CREDENTIALS_INVALID).detail("the session names no client any more")
        });
        Ok(Arc::new(identity?))
    }

    /// A good session, which the browser is given anew.
    fn renewed(&self, session: &Session, exchange: &Exchange, services: &dyn Services) -> Verified {
        let identity = self.identity(session)?;
        let origin = self.origin(exchange)?;
        let sealed = self.seal(&self.session_context, session, services)?;
        let max_age = session.max_age(services.now().wall, &self.lasting);
        let shelf = self.jar.of(origin.secure);
        // One that has grown too long stays as it was, for as long as that is good.
        let cookies = shelf.keep_session(&sealed, max_age, &exchange.request);
        Ok(Accepted { cookies: cookies.unwrap_or_default(), ..identity.into() })
    }

    async fn refresh<'a>(
        &'a self,
        session: Session,
        good_until: Duration,
        exchange: &'a Exchange,
        services: &'a dyn Services,
    ) -> Verified {
        let now = services.now().wall;
        let id = self.hash(&session.id, services);
        let key = id ^ self.hash(session.refresh_token.as_deref().unwrap_or_default(), services);
        let job = async || self.refreshed(&session, services).await;
        let outcome = self.renewals.refresh(key, now, job).await;
        let now = services.now().wall;
        let over = |detail: &str| {
            let detail = format!("the session could not be refreshed: {detail}");
            Problem::new(codes::CREDENTIALS_EXPIRED).detail(detail)
        };
        let problem = match outcome {
            Outcome::Refreshed(_) if self.renewals.has_ended(id, now) => over("it has ended"),
            Outcome::Refreshed(session) => return self.renewed(&session, exchange, services),
            Outcome::Over(detail) => over(&detail),
            Outcome::Unavailable(_) if now < good_until => {
                return Ok(self.identity(&session)?.into());
            }
            Outcome::Unavailable(reason) => login::unavailable(reason),
        };
        if problem.code.status != 401 {
            return Err(problem.into());
        }
        match self.again(true, "the session could not be refreshed", exchange, services) {
            Verify::Wait(login) => login.await,
            Verify::Done(_) => Err(self.forgetting(problem, exchange).into()),
        }
    }
}

/// The URL of an endpoint, which may have parameters of its own, with more.
fn with_parameters(endpoint: &str, form: Form) -> String {
    let between = if endpoint.contains('?') { '&' } else { '?' };
    format!("{endpoint}{between}{}", form.into_query())
}

impl Authenticator for Compiled {
    fn presented(&self, exchange: &Exchange) -> Presented {
        let Some(secure) = place::is_secure(exchange, self.origin.as_deref()) else {
            return Presented::Nothing;
        };
        let name = self.jar.of(secure).session_name().as_bytes();
        cookies::named(&exchange.request, name).next().map_or(Presented::Nothing, Presented::Mine)
    }

    /// No scheme of HTTP asks for a session.
    fn challenge(&self) -> &str {
        ""
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, services: &'a dyn Services) -> Verify<'a> {
        if let Err(problem) = self.guard.check(exchange) {
            return Verify::Done(Err(problem.into()));
        }
        let secure = place::is_secure(exchange, self.origin.as_deref());
        let sealed = secure.and_then(|secure| self.jar.of(secure).session(&exchange.request));
        let Some(sealed) = sealed else {
            return self.again(false, "pieces of a session", exchange, services);
        };
        let now = exchange.now.wall;
        let endings = self.renewals.endings();
        let hash = self.remembered.hash(&sealed, services);
        if let Found::Good(identity, _) = self.remembered.find(hash, endings, now) {
            return Verify::Done(Ok(identity.into()));
        }
        let opened = self.open::<Session>(&self.session_context, &sealed);
        let Some((mut session, by_old_key)) = opened else {
            return self.again(false, "the session is none of ours", exchange, services);
        };
        let has_ended = self.renewals.has_ended(self.hash(&session.id, services), now);
        if has_ended && !is_planted(Fault::EndedSessionAccepted) {
            return self.again(true, "the session was ended", exchange, services);
        }
        let renew = match session.standing(now, &self.lasting) {
            Standing::Ended => {
                return self.again(true, "the session is over", exchange, services);
            }
            Standing::Due { until } => {
                return Verify::Wait(Box::pin(self.refresh(session, until, exchange, services)));
            }
            Standing::Renew => true,
            Standing::Good { .. } => by_old_key,
        };
        if renew {
            session.seen = now.as_secs();
            return Verify::Done(self.renewed(&session, exchange, services));
        }
        Verify::Done(match self.identity(&session) {
            Ok(identity) => {
                if let Standing::Good { until } = session.standing(now, &self.lasting) {
                    let identity = Arc::clone(&identity);
                    let session = Proven::unbound(identity, until);
                    self.remembered.insert(hash, sealed.len(), endings, &session);
                }
                Ok(identity.into())
            }
            Err(problem) => Err(self.forgetting(problem, exchange).into()),
        })
    }

    fn conceal(&self, request: &mut RequestHead) {
        self.jar.conceal(request);
    }

    fn intercepts(&self, exchange: &Exchange) -> bool {
        let path = exchange.request.path();
        self.own_paths.iter().any(|own| path == own.as_bytes())
    }

    fn own_paths(&self) -> &[Box<str>] {
        &self.own_paths
    }

    fn invites(&self, exchange: &Exchange) -> bool {
        place::is_navigation(&exchange.request)
    }

    fn answer<'a>(&'a self, exchange: &'a Exchange, services: &'a dyn Services) -> Own<'a> {
        let path = exchange.request.path();
        if path == self.callback_path().as_bytes() {
            Box::pin(self.callback(exchange, services))
        } else if self.intercepts(exchange) {
            Box::pin(self.log_out(exchange, services))
        } else {
            Box::pin(self.begin(exchange, services))
        }
    }

    fn issuer_keys(&self) -> Option<IssuerKeys> {
        self.id_tokens.standing()
    }

    fn upkeep<'a>(&'a self, services: &'a dyn Services) -> Option<LocalFuture<'a, Duration>> {
        Some(Box::pin(async move {
            let keys = self.id_tokens.upkeep(services).await;
            keys.min(self.provider.upkeep(services).await)
        }))
    }
}
