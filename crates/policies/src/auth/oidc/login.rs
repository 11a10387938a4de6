//! To the provider and back: how a login begins, and how it ends in a session.

use http::{Method, StatusCode};
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::policy::{Reply, ReplyBody};
use portcullis_core::{Exchange, Problem, ResponseHead, Services, codes};

use super::attempt::{Answer, Attempt, LASTS, Outcome, to_forget};
use super::place::{Origin, to_return_to};
use super::session::Session;
use super::{Compiled, with_parameters};
use crate::auth::jwt::{Expected, IdTokens, Refusal};
use crate::oauth::answer::{Failure, TokenAnswer};
use crate::oauth::discovery::Which;
use crate::oauth::form::Form;

/// Where the tokens live for no known time.
const LIFETIME: std::time::Duration = std::time::Duration::from_secs(300);

/// The login could not be completed; the detail is for the log.
pub(super) fn failed(detail: impl std::fmt::Display) -> Problem {
    Problem::new(codes::LOGIN_FAILED).detail(detail)
}

/// Nobody can say whether it could be.
pub(super) fn unavailable(detail: impl std::fmt::Display) -> Problem {
    Problem::new(codes::KEYS_UNAVAILABLE)
        .detail(detail)
        .retry_after(std::time::Duration::from_secs(5))
}

/// An answer that sends the browser elsewhere and that nobody keeps.
pub(super) fn redirect(status: StatusCode, location: &str, cookies: &[String]) -> Reply {
    let mut head = ResponseHead::new(status);
    head.fields.append(b"location", location.as_bytes());
    head.fields.append(b"cache-control", b"no-store");
    // The address has a code or a token in it.
    head.fields.append(b"referrer-policy", b"no-referrer");
    for cookie in cookies {
        head.fields.append(b"set-cookie", cookie.as_bytes());
    }
    Reply { head, body: ReplyBody::Bytes(bytes::Bytes::new()) }
}

impl Compiled {
    /// Sends the browser to the provider (RFC 6749 §4.1.1), with a cookie that its answer will be
    /// held against.
    pub(super) async fn begin(
        &self,
        exchange: &Exchange,
        services: &dyn Services,
    ) -> Result<Reply, Problem> {
        let origin = self.origin(exchange)?;
        let metadata = self.provider.metadata(services).await.map_err(unavailable)?;
        let endpoint = metadata.endpoint(Which::Authorization).map_err(unavailable)?;
        let now = services.now().wall;
        let redirect_uri = format!("{}{}", origin.text, self.callback_path());
        let attempt = Attempt::new(redirect_uri, to_return_to(&exchange.request), now, services);
        let sealed = self.seal(&self.login_context, &attempt, services)?;
        let shelf = self.jar.of(origin.secure);
        let begun = shelf.logins(&exchange.request).into_iter();
        let begun = begun.map(|(id, sealed)| {
            let attempt = self.open::<Attempt>(&self.login_context, &sealed);
            (id, attempt.map(|(attempt, _)| attempt))
        });
        let gone = to_forget(begun.collect(), now);
        let mut cookies: Vec<String> = gone.iter().map(|id| shelf.forget_login(id)).collect();
        cookies.push(shelf.keep_login(attempt.id(), &sealed, LASTS));
        let mut form = Form::default();
        for (name, value) in &self.request {
            form.push(name, value);
        }
        let form = form
            .with("redirect_uri", &attempt.redirect_uri)
            .with("state", attempt.state())
            .with("nonce", &attempt.nonce)
            .with("code_challenge", attempt.challenge());
        Ok(redirect(StatusCode::FOUND, &with_parameters(endpoint, form), &cookies))
    }

    /// What the provider has the browser bring (RFC 6749 §4.1.2).
    pub(super) async fn callback(
        &self,
        exchange: &Exchange,
        services: &dyn Services,
    ) -> Result<Reply, Problem> {
        let request = &exchange.request;
        if request.method != Method::GET {
            return Err(Problem::new(codes::METHOD_NOT_ALLOWED).field("allow", "GET"));
        }
        let origin = self.origin(exchange)?;
        let shelf = self.jar.of(origin.secure);
        let answer = Answer::read(request.query().unwrap_or_default()).map_err(failed)?;
        let id = answer.id().ok_or_else(|| failed("the state is none of ours"))?;
        let sealed = shelf.login(id, request).ok_or_else(|| {
            failed("this browser has begun no login with this state, or it is over")
        })?;
        // Whatever comes of it, this login is over.
        let forget = shelf.forget_login(id);
        let ended = self.end(&answer, &sealed, &origin, services).await;
        let (attempt, session) =
            ended.map_err(|problem| problem.field("set-cookie", forget.clone()))?;
        let now = services.now().wall;
        let kept = self.seal(&self.session_context, &session, services)?;
        let max_age = session.max_age(now, &self.lasting);
        let cookies = shelf.keep_session(&kept, max_age, request);
        let mut cookies = cookies.ok_or_else(|| {
            failed(format!("a session of {} bytes does not fit into cookies", kept.len()))
                .field("set-cookie", forget.clone())
        })?;
        cookies.push(forget);
        Ok(redirect(StatusCode::SEE_OTHER, &attempt.return_to, &cookies))
    }

    /// From the provider's answer to a session; every check of RFC 9700 §2.1 is on this way.
    async fn end(
        &self,
        answer: &Answer,
        sealed: &[u8],
        origin: &Origin,
        services: &dyn Services,
    ) -> Result<(Attempt, Session), Problem> {
        let opened = self.open::<Attempt>(&self.login_context, sealed);
        let (attempt, _) = opened.ok_or_else(|| failed("the login's cookie is none of ours"))?;
        let now = services.now().wall;
        let redirect_uri = format!("{}{}", origin.text, self.callback_path());
        attempt.admits(answer, &redirect_uri, now).map_err(failed)?;
        let metadata = self.provider.metadata(services).await.map_err(unavailable)?;
        let always = metadata.authorization_response_iss_parameter_supported;
        answer.is_of(&self.provider.issuer, always).map_err(failed)?;
        let login = self.hash(attempt.state(), services);
        let is_over = self.renewals.spend(login, now, now + LASTS);
        if is_over && !is_planted(Fault::LoginTwice) {
            return Err(failed("this login is over: its answer came a second time"));
        }
        let code = match &answer.outcome {
            Outcome::Code(code) => code,
            Outcome::Error(error) => {
                let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
                let error: String = error.chars().filter(plain).take(64).collect();
                return Err(failed(format!("the provider says {error}")));
            }
        };
        let redeemed =
            self.provider.redeem(code, &attempt.verifier, &attempt.redirect_uri, services);
        let tokens = redeemed.await.map_err(|failure| match failure {
            Failure::Refused(reason) => failed(reason),
            Failure::Unavailable(reason) => unavailable(reason),
        })?;
        let session = self.session(tokens, &attempt.nonce, services).await?;
        Ok((attempt, session))
    }

    async fn session(
        &self,
        tokens: TokenAnswer,
        nonce: &str,
        services: &dyn Services,
    ) -> Result<Session, Problem> {
        let id_token = text(tokens.id_token.as_ref()).ok_or_else(|| {
            failed("the provider gave no ID token; does it know the scope `openid`?")
        })?;
        let access_token = tokens.access_token.bytes();
        let expected = Expected { nonce: Some(nonce), before: None, access_token };
        let verified = self.id_tokens.verify(&id_token, expected, services).await;
        verified.map_err(|refusal| match refusal {
            Refusal::Bad(detail) => failed(detail),
            Refusal::Away(reason) => unavailable(reason),
        })?;
        if self.id_tokens.identity(&id_token, "").is_none() {
            return Err(failed("the ID token names no client"));
        }
        let now = services.now().wall;
        let mut id = [0; 16];
        services.random(&mut id);
        let mut session = Session {
            id: portcullis_core::hex::of_128(u128::from_be_bytes(id)).escape_ascii().to_string(),
            refresh_token: text(tokens.refresh_token.as_ref()),
            // RFC 6749 §5.1: left out where it is what was asked for.
            scope: tokens.scope.unwrap_or_else(|| self.scope.clone()),
            id_token,
            began: now.as_secs(),
            seen: now.as_secs(),
            due: 0,
            until: 0,
        };
        let lifetime = tokens.expires_in.or_else(|| IdTokens::lifetime(&session.id_token, now));
        session.tokens_for(now, lifetime.unwrap_or(LIFETIME));
        Ok(session)
    }

    /// What a refresh token comes to: another session of the same login.
    pub(super) async fn refreshed(
        &self,
        before: &Session,
        services: &dyn Services,
    ) -> super::renewals::Outcome {
        use super::renewals::Outcome;
        let Some(refresh_token) = &before.refresh_token else {
            return Outcome::Over("there is no refresh token".to_owned());
        };
        let tokens = match self.provider.refresh(refresh_token, services).await {
            Ok(tokens) => tokens,
            Err(Failure::Refused(reason)) => return Outcome::Over(reason),
            Err(Failure::Unavailable(reason)) => return Outcome::Unavailable(reason),
        };
        let now = services.now().wall;
        let mut after = Session { seen: now.as_secs(), ..before.clone() };
        if let Some(id_token) = text(tokens.id_token.as_ref()) {
            let access_token = tokens.access_token.bytes();
            let expected = Expected { nonce: None, before: Some(&before.id_token), access_token };
            match self.id_tokens.verify(&id_token, expected, services).await {
                Ok(()) => after.id_token = id_token,
                Err(Refusal::Bad(detail)) => return Outcome::Over(detail.to_owned()),
                // The refresh token may be used up by now, so what it came to is kept; who it is
                // of was verified at the login.
                Err(Refusal::Away(_)) => {}
            }
        }
        if let Some(refresh_token) = text(tokens.refresh_token.as_ref()) {
            after.refresh_token = Some(refresh_token);
        }
        if let Some(scope) = tokens.scope {
            after.scope = scope;
        }
        let lifetime = tokens.expires_in.or_else(|| IdTokens::lifetime(&after.id_token, now));
        after.tokens_for(now, lifetime.unwrap_or(LIFETIME));
        Outcome::Refreshed(std::sync::Arc::new(after))
    }
}

fn text(hidden: Option<&crate::oauth::hidden::Hidden>) -> Option<String> {
    String::from_utf8(hidden?.bytes().to_vec()).ok()
}
