//! What backends know the gateway by: a secret, a token of its own, or one exchanged for the
//! caller's (RFC 6749 §4.4, RFC 8693).
//!
//! It is attached after the caller was authenticated, in place of whatever the client sent under
//! that name. Without it nothing is sent. Who may call is not its business.

mod asking;
mod exchanged;
mod granted;
mod settings;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::known::is_alias;
use portcullis_core::policy::Attached;
use portcullis_core::services::LocalFuture;
use portcullis_core::{Exchange, Phase, Policy, Problem, ResponseHead, Services, Step, codes};

use crate::oauth::hidden::Hidden;
use exchanged::Exchanged;
use granted::Granted;
use token::Token;

pub(crate) use settings::Credential;

#[derive(Debug)]
struct Compiled {
    header: Box<str>,
    source: Source,
    clear_text: bool,
}

#[derive(Debug)]
enum Source {
    /// The whole value of the field.
    Fixed(Hidden),
    Granted(Granted),
    Exchanged(Exchanged),
}

/// There is none, for the operator; and when to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Away {
    reason: String,
    retry_after: Duration,
}

/// What a look at what is at hand comes to.
enum Found<'a> {
    Nothing,
    Value(&'a Hidden),
    Token(Arc<Token>),
    Away(Away),
}

impl Compiled {
    fn attach(&self, value: &Hidden, exchange: &mut Exchange) {
        exchange.request.fields.append(self.header.as_bytes(), value.bytes());
    }

    fn find(&self, exchange: &Exchange, services: &dyn Services) -> Found<'_> {
        match &self.source {
            Source::Fixed(value) => Found::Value(value),
            Source::Granted(granted) => {
                granted.at_hand(exchange.now.mono).map_or(Found::Nothing, Found::Token)
            }
            Source::Exchanged(exchanged) => exchanged.at_hand(exchange, services),
        }
    }

    async fn obtain(
        &self,
        exchange: &Exchange,
        services: &dyn Services,
    ) -> Result<Arc<Token>, Away> {
        match &self.source {
            Source::Granted(granted) => granted.obtain(services).await,
            Source::Exchanged(exchanged) => exchanged.obtain(exchange, services).await,
            Source::Fixed(_) => {
                Err(Away { reason: "it is at hand".to_owned(), retry_after: Duration::ZERO })
            }
        }
    }
}

fn refuse<'s>(away: Away) -> Step<'s> {
    let problem = Problem::new(codes::BACKEND_CREDENTIAL_UNAVAILABLE);
    Step::Refuse(problem.detail(away.reason).retry_after(away.retry_after))
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        Phase::Transform
    }

    fn request_fields(&self) -> Vec<&str> {
        vec![&*self.header]
    }

    fn attaches(&self) -> Option<Attached> {
        let from_access_token = matches!(self.source, Source::Exchanged(_));
        Some(Attached { clear_text: self.clear_text, from_access_token })
    }

    fn on_request<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        services: &'a dyn Services,
    ) -> Step<'a> {
        let header = self.header.as_bytes();
        exchange.request.fields.remove_if(|_, name, _| is_alias(name, header));
        match self.find(exchange, services) {
            Found::Value(value) => self.attach(value, exchange),
            Found::Token(token) => self.attach(&token.value, exchange),
            Found::Nothing | Found::Away(_) if services.is_offline() => {}
            Found::Away(away) => return refuse(away),
            Found::Nothing => {
                return Step::Wait(Box::pin(async move {
                    match self.obtain(exchange, services).await {
                        Ok(token) => {
                            self.attach(&token.value, exchange);
                            Step::Continue
                        }
                        Err(away) => refuse(away),
                    }
                }));
            }
        }
        Step::Continue
    }

    fn on_response<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        response: &'a mut ResponseHead,
        services: &'a dyn Services,
    ) -> Step<'a> {
        // A backend that repeats what it was sent tells no client.
        let header = self.header.as_bytes();
        response.fields.remove_if(|_, name, _| is_alias(name, header));
        if response.status.as_u16() == 401 {
            let sent = exchange.request.fields.get(header);
            let token = match &self.source {
                Source::Fixed(_) => None,
                Source::Granted(granted) => granted.held(),
                Source::Exchanged(exchanged) => exchanged.held(exchange, services),
            };
            if let Some(token) = token.filter(|token| Some(token.value.bytes()) == sent) {
                token.distrust(exchange.now.mono);
            }
        }
        Step::Continue
    }

    fn upkeep<'a>(&'a self, services: &'a dyn Services) -> Option<LocalFuture<'a, Duration>> {
        match &self.source {
            Source::Fixed(_) => None,
            Source::Granted(granted) => Some(Box::pin(granted.upkeep(services))),
            Source::Exchanged(exchanged) => exchanged.upkeep(services),
        }
    }
}
