//! One request to a token endpoint.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::Services;

use super::token::Token;
use crate::oauth::answer::{self, Failure};
use crate::oauth::client::Client;
use crate::oauth::endpoint::Endpoint;
use crate::oauth::form::Form;

/// Whom the gateway asks for tokens, and what for.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) endpoint: Endpoint,
    pub(super) client: Client,
    pub(super) ca: Option<Arc<[u8]>>,
    pub(super) timeout: Duration,
    /// Parameters that are the same each time.
    pub(super) parameters: Vec<(&'static str, String)>,
}

impl Asking {
    /// A new token. `subject` is the caller's, if it is exchanged.
    ///
    /// # Errors
    /// For the operator; nothing of any token is in it.
    pub(super) async fn ask(
        &self,
        subject: Option<&[u8]>,
        services: &dyn Services,
    ) -> Result<Token, Failure> {
        let unavailable = Failure::Unavailable;
        let asked = services.now().mono;
        let url = self.endpoint.url(services).await.map_err(unavailable)?;
        let mut form = Form::default();
        for (name, value) in &self.parameters {
            form.push(name, value);
        }
        if let Some(subject) = subject {
            form.push("subject_token", subject);
        }
        let post = self.client.post(&url, self.endpoint.issuer(), form, services);
        let mut fetch = post.await.map_err(unavailable)?;
        fetch.ca.clone_from(&self.ca);
        let spent = services.now().mono.saturating_sub(asked);
        fetch.timeout = self.timeout.saturating_sub(spent).max(Duration::from_millis(1));
        let asked = services.now().mono;
        let fetched = services.fetch(fetch).await;
        let fetched = fetched.map_err(|error| unavailable(error.to_string()))?;
        let answer = answer::read(&url, &fetched)?;
        Token::new(&answer, asked)
            .ok_or_else(|| unavailable(format!("{url} answers a token that has ended")))
    }
}
