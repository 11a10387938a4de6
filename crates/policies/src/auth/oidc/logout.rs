//! The end of a session: here at once, then at the provider: of its refresh token (RFC 7009), and
//! by the browser of its own session there (OpenID Connect RP-Initiated Logout 1.0).

use std::time::Duration;

use http::{Method, StatusCode};
use portcullis_core::policy::Reply;
use portcullis_core::{Exchange, Problem, RequestHead, Services, codes};

use super::login::redirect;
use super::session::Session;
use super::{Compiled, with_parameters};
use crate::auth::cross_site;
use crate::oauth::discovery::Which;
use crate::oauth::form::Form;

impl Compiled {
    pub(super) async fn log_out(
        &self,
        exchange: &Exchange,
        services: &dyn Services,
    ) -> Result<Reply, Problem> {
        let request = &exchange.request;
        self.wants_out(request)?;
        let origin = self.origin(exchange)?;
        let shelf = self.jar.of(origin.secure);
        let session = shelf.session(request);
        let session =
            session.and_then(|sealed| self.open::<Session>(&self.session_context, &sealed));
        if let Some((session, _)) = &session {
            let now = services.now().wall;
            let until = now + session.max_age(now, &self.lasting) + Duration::from_secs(1);
            self.renewals.end(self.hash(&session.id, services), until);
            // Else whoever has copied it could go on at the provider, and its other gateways with
            // the cookie.
            if let Some(token) = &session.refresh_token {
                self.provider.revoke(token, services).await;
            }
        }
        let mut cookies = shelf.forget_session(request);
        cookies.extend(shelf.logins(request).iter().map(|(id, _)| shelf.forget_login(id)));
        let back = format!("{}{}", origin.text, self.after_logout);
        let metadata = self.provider.metadata(services).await.ok();
        let endpoint = metadata.as_ref().and_then(|all| all.endpoint(Which::EndSession).ok());
        let location = match endpoint {
            // Ended here whether or not the provider has anything to end.
            None => self.after_logout.to_string(),
            Some(endpoint) => {
                let mut form = Form::default()
                    .with("client_id", &*self.provider.client.id)
                    .with("post_logout_redirect_uri", back);
                if let Some((session, _)) = &session {
                    form.push("id_token_hint", &session.id_token);
                }
                with_parameters(endpoint, form)
            }
        };
        let mut reply = redirect(StatusCode::SEE_OTHER, &location, &cookies);
        // So that going back in the browser shows no page of the session.
        reply.head.fields.append(b"clear-site-data", b"\"cache\"");
        Ok(reply)
    }

    /// Nobody is logged out by a page of another site: neither by a form nor by an image.
    fn wants_out(&self, request: &RequestHead) -> Result<(), Problem> {
        match request.method {
            Method::POST => self.guard.same_origin(request),
            Method::GET => match cross_site::fetch_site(request) {
                Some(b"same-origin" | b"same-site" | b"none") => Ok(()),
                _ => Err(Problem::new(codes::ORIGIN_NOT_ALLOWED)
                    .detail("a logout that no page of this site asked for")),
            },
            _ => Err(Problem::new(codes::METHOD_NOT_ALLOWED).field("allow", "GET, POST")),
        }
    }
}
