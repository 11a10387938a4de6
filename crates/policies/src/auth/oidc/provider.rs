//! The OpenID provider, as a login asks it: where to send the browser, and what a code or a refresh
//! token comes to.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::Services;

use crate::oauth::answer::{self, Failure, TokenAnswer};
use crate::oauth::breaker::Breaker;
use crate::oauth::client::Client;
use crate::oauth::discovery::{Discovery, Metadata, Which};
use crate::oauth::form::Form;

/// Somebody waits to be logged out.
const REVOKED_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Provider {
    pub(super) issuer: Arc<str>,
    pub(super) client: Client,
    pub(super) ca: Option<Arc<[u8]>>,
    pub(super) discovery: Arc<Discovery>,
    pub(super) breaker: Arc<Breaker>,
}

impl Provider {
    /// # Errors
    /// For the operator: the issuer does not answer, and did not before.
    pub(super) async fn metadata(&self, services: &dyn Services) -> Result<Arc<Metadata>, String> {
        self.discovery.metadata(services).await
    }

    /// Tokens for an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5).
    pub(super) async fn redeem(
        &self,
        code: &str,
        verifier: &str,
        redirect_uri: &str,
        services: &dyn Services,
    ) -> Result<TokenAnswer, Failure> {
        let form = Form::default()
            .with("grant_type", "authorization_code")
            .with("code", code)
            .with("redirect_uri", redirect_uri)
            .with("code_verifier", verifier);
        self.tokens(form, services).await
    }

    /// Tokens for a refresh token (RFC 6749 §6).
    pub(super) async fn refresh(
        &self,
        refresh_token: &str,
        services: &dyn Services,
    ) -> Result<TokenAnswer, Failure> {
        let form = Form::default()
            .with("grant_type", "refresh_token")
            .with("refresh_token", refresh_token);
        self.tokens(form, services).await
    }

    /// Tells the provider to take a refresh token no more (RFC 7009 §2.1), and what it has given
    /// with it. Where it cannot be told, the token ends by itself.
    pub(super) async fn revoke(&self, refresh_token: &str, services: &dyn Services) {
        let Ok(metadata) = self.metadata(services).await else { return };
        let Ok(url) = metadata.endpoint(Which::Revocation) else { return };
        let Ok(permit) = self.breaker.enter(services.now().mono) else { return };
        let form =
            Form::default().with("token", refresh_token).with("token_type_hint", "refresh_token");
        let fetch = self.client.post(url, Some(&self.issuer), form, services).await;
        let Ok(mut fetch) = fetch else { return permit.succeeded() };
        fetch.ca.clone_from(&self.ca);
        fetch.timeout = REVOKED_WITHIN;
        match services.fetch(fetch).await {
            Ok(_) => permit.succeeded(),
            Err(_) => permit.failed(services.now().mono),
        }
    }

    async fn tokens(&self, form: Form, services: &dyn Services) -> Result<TokenAnswer, Failure> {
        let away = |reason: String| Failure::Unavailable(reason);
        let metadata = self.metadata(services).await.map_err(away)?;
        let url = metadata.endpoint(Which::Token).map_err(away)?;
        let permit = self.breaker.enter(services.now().mono);
        let permit = permit.map_err(|shut| away(format!("{url}: {}", shut.reason)))?;
        let mut fetch =
            self.client.post(url, Some(&self.issuer), form, services).await.map_err(away)?;
        fetch.ca.clone_from(&self.ca);
        let answered = services.fetch(fetch).await.map_err(|error| away(error.to_string()));
        let tokens = answered.and_then(|fetched| answer::read(url, &fetched));
        match &tokens {
            Err(Failure::Unavailable(_)) => permit.failed(services.now().mono),
            _ => permit.succeeded(),
        }
        tokens
    }

    pub(super) async fn upkeep(&self, services: &dyn Services) -> Duration {
        self.discovery.upkeep(services).await
    }
}
