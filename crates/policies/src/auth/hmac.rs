//! Requests that carry a code under a shared secret, as webhooks do: of their body and, where the
//! sender tells it, of the time.
//!
//! The way of one: what does the sender say → is it of now → the code, by every secret that could
//! be the sender's, over the body as it came → was it there before? What of the request is signed
//! is for the sender to say, and seldom more than this: not its method, path or other fields.
//! Senders that sign these use HTTP Message Signatures, which are `signature`'s.

mod form;
mod keys;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::auth::{Authenticator, Presented, Verify};
use portcullis_core::codes::Code;
use portcullis_core::policy::BodyUse;
use portcullis_core::services::{Unavailable, offload};
use portcullis_core::{Exchange, Identity, Problem, RequestHead, Services, codes};
use subtle::ConstantTimeEq as _;

use super::nonces::{Nonces, Spent};
use super::place::Places;
use super::{Checked, told};
use crate::key::Secret;
use form::{Form, Signed};
use keys::Key;

pub(crate) use settings::Hmac;

/// What is hashed more is hashed away from the worker: the body, once for each key.
const HASHED_HERE_BYTES_MAX: usize = 64 << 10;

const PURPOSE: u64 = 0x0068_6d61_6300;

#[derive(Debug)]
struct Compiled {
    checker: Arc<Checker>,
    places: Places,
    window: Duration,
    body_bytes_max: usize,
    /// Where a request is taken once.
    nonces: Option<Arc<Nonces>>,
    secret: Secret,
}

/// What decides whose a request is; it may do so on another thread.
#[derive(Debug)]
struct Checker {
    form: Form,
    keys: Vec<Key>,
}

/// Whose a code is, by the number of the key, and which of those that were sent.
type Match = (usize, usize);

impl Checker {
    fn find(&self, signed: &Signed, body: &[u8]) -> Option<Match> {
        let mut found = None;
        // All of them each time, so that the time it takes says nothing of where they differ.
        for (at, key) in self.keys.iter().enumerate() {
            let code = self.form.code(&key.secret, signed, body);
            for (sent, tag) in signed.tags.iter().enumerate() {
                if bool::from(code.as_ref().ct_eq(tag)) {
                    found = found.or(Some((at, sent)));
                }
            }
        }
        found
    }
}

/// Why a request is refused: the code, and why for the log.
type Refusal = (&'static Code, &'static str);

fn invalid<T>(detail: &'static str) -> Result<T, Refusal> {
    Err((codes::CREDENTIALS_INVALID, detail))
}

fn problem((code, detail): Refusal) -> Problem {
    Problem::new(code).detail(detail)
}

impl Compiled {
    /// All that can be told without the secrets.
    fn read(&self, exchange: &Exchange) -> Result<Signed, Refusal> {
        let request = &exchange.request;
        let value = match self.places.look(request) {
            Presented::Mine(span) => span.of(request.fields.bytes()),
            Presented::Several => {
                return Err((codes::CREDENTIALS_AMBIGUOUS, "the signature is there twice"));
            }
            _ => return Err((codes::CREDENTIALS_MISSING, "no signature")),
        };
        let signed = self.checker.form.read(value, request).or_else(invalid)?;
        if let Some(made) = signed.made {
            let wall = exchange.now.wall;
            if made > wall.saturating_add(self.window) {
                return invalid("it was made in the future");
            }
            if made.saturating_add(self.window) < wall {
                return Err((codes::CREDENTIALS_EXPIRED, "it was made too long ago"));
            }
        }
        Ok(signed)
    }

    /// What a code that was found, or not, comes to. The last step, since it is remembered.
    fn accept(
        &self,
        found: Option<Match>,
        signed: &Signed,
        exchange: &Exchange,
        services: &dyn Services,
    ) -> Result<Arc<Identity>, Refusal> {
        let Some((at, sent)) = found else { return invalid("the signature is of no key") };
        let key = &self.checker.keys[at];
        // Only who knows the secret learns this.
        if key.period.expires <= exchange.now.wall {
            return Err((codes::CREDENTIALS_EXPIRED, "the key has expired"));
        }
        if exchange.now.wall < key.period.not_before {
            return invalid("the key is not valid yet");
        }
        if let Some(nonces) = &self.nonces {
            let mut hasher = self.secret.hasher(services, PURPOSE);
            hasher.text(key.id.as_bytes());
            hasher.text(&signed.tags[sent]);
            // Whenever it was made, it is too old after this.
            let lifetime = self.window * 2 + Duration::from_secs(1);
            match nonces.spend(hasher.finish(), services.now().mono, lifetime) {
                Ok(()) => {}
                Err(Spent::Before) => return invalid("it was there before"),
                Err(Spent::Full) => {
                    return Err((codes::AUTHORIZER_UNAVAILABLE, "no room for another request"));
                }
            }
        }
        Ok(Arc::clone(&key.identity))
    }

    async fn verify_aside(
        &self,
        signed: Signed,
        body: Bytes,
        exchange: &Exchange,
        services: &dyn Services,
    ) -> Checked {
        let checker = Arc::clone(&self.checker);
        let work = move || (checker.find(&signed, &body), signed);
        let (found, signed) = offload(services, work).await.map_err(|Unavailable(reason)| {
            Problem::new(codes::AUTHORIZER_UNAVAILABLE).detail(reason)
        })?;
        self.accept(found, &signed, exchange, services).map_err(problem)
    }
}

impl Authenticator for Compiled {
    fn presented(&self, exchange: &Exchange) -> Presented {
        self.places.glance(&exchange.request)
    }

    /// No scheme of HTTP authentication asks for a signature.
    fn challenge(&self) -> &str {
        ""
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, services: &'a dyn Services) -> Verify<'a> {
        let signed = match self.read(exchange) {
            Ok(signed) => signed,
            Err(refusal) => return Verify::Done(Err(problem(refusal).into())),
        };
        let body = &exchange.request_body;
        if body.len().saturating_mul(self.checker.keys.len()) <= HASHED_HERE_BYTES_MAX {
            let found = self.checker.find(&signed, body);
            let accepted = self.accept(found, &signed, exchange, services);
            return Verify::Done(told(accepted.map_err(problem)));
        }
        let verified = self.verify_aside(signed, body.clone(), exchange, services);
        Verify::Wait(Box::pin(async { told(verified.await) }))
    }

    fn conceal(&self, request: &mut RequestHead) {
        self.places.conceal(request);
    }

    fn request_body(&self) -> BodyUse {
        BodyUse::Buffered { bytes_max: self.body_bytes_max }
    }
}
