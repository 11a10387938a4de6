//! Requests that are signed: HTTP Message Signatures (RFC 9421), with `Content-Digest` (RFC 9530)
//! for the body.
//!
//! The way of a signature: which of those in the request → its key, by `keyid` → does it cover what
//! it has to, and is it of now → the signature base, made of the request as the client wrote it →
//! signature → digest of the body → nonce. The algorithm is the key's own; what a signature says of
//! it is only compared. Everything but the signature itself costs no more than a hash.

mod components;
mod digest;
mod keys;
mod settings;
#[cfg(test)]
mod tests;
mod written;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::auth::{Authenticator, Presented, Verify};
use portcullis_core::codes::Code;
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::policy::BodyUse;
use portcullis_core::services::{Unavailable, offload};
use portcullis_core::{Exchange, Identity, Problem, RequestHead, Services, codes};

use super::listed::ByName;
use super::nonces::{Nonces, Spent};
use super::{Checked, told};
use crate::key::Secret;
use components::Original;
use digest::Digests;
use keys::Key;
use settings::Choice;
use written::Chosen;

pub(crate) use settings::Signature;

/// A longer body is hashed away from the worker.
const HASHED_HERE_BYTES_MAX: usize = 64 << 10;
const NONCE_BYTES_MAX: usize = 256;

const OTHER_BODY: &str = "the body has another digest";

#[derive(Debug)]
struct Compiled {
    keys: ByName<Key>,
    choice: Choice,
    /// Identifiers of the components that a signature has to cover.
    required: Vec<Box<str>>,
    /// Whether a body has to be covered, by its digest.
    body_bytes_max: Option<usize>,
    window: Duration,
    nonce_required: bool,
    nonces: Arc<Nonces>,
    secret: Secret,
}

/// Why a signature is refused: the code, and why for the log.
type Refusal = (&'static Code, &'static str);

fn invalid<T>(detail: &'static str) -> Result<T, Refusal> {
    Err((codes::CREDENTIALS_INVALID, detail))
}

fn problem((code, detail): Refusal) -> Problem {
    Problem::new(code).detail(detail)
}

/// A signature about which all is known but whether it is one.
struct Prepared<'a> {
    key: &'a Key,
    base: Vec<u8>,
    signature: Vec<u8>,
    nonce: Option<u128>,
    /// That the body has to have; none where it is not covered.
    digests: Digests,
    body: Bytes,
}

impl Compiled {
    fn prepare<'a>(
        &'a self,
        exchange: &Exchange,
        services: &dyn Services,
    ) -> Result<Prepared<'a>, Refusal> {
        let request = &exchange.request;
        let Some(chosen) = written::choose(request, &self.choice)? else {
            return Err((codes::CREDENTIALS_MISSING, "no signature"));
        };
        let key = self.key(&chosen, exchange.now.wall)?;
        self.check_time(&chosen, exchange.now.wall)?;
        let nonce = self.nonce(&chosen, services)?;
        let components = chosen.components()?;
        let has_body = !exchange.request_body.is_empty();
        for required in &self.required {
            let is_moot = &**required == digest::COMPONENT && !has_body;
            let is_covered = components::cover(&components, required);
            if !is_moot && !is_covered && !is_planted(Fault::UncoveredAccepted) {
                return invalid("the signature does not cover all that it has to");
            }
        }
        let signature = written::signature(request, &chosen.label)?;
        let original = Original::of(request);
        let base = components::base(&components, &chosen.parameters(), &original);
        let base = base.or_else(invalid)?;
        let covers_digest = components::cover(&components, digest::COMPONENT);
        let digests = match self.body_bytes_max.is_some() && covers_digest {
            true => Digests::of(request).or_else(invalid)?,
            false => Digests::default(),
        };
        let body = exchange.request_body.clone();
        Ok(Prepared { key, base, signature, nonce, digests, body })
    }

    fn key(&self, chosen: &Chosen, wall: Duration) -> Result<&Key, Refusal> {
        let Some(id) = chosen.text("keyid")? else { return invalid("no key id") };
        let Some(key) = self.keys.get(id) else { return invalid("no such key") };
        if chosen.text("alg")?.is_some_and(|named| named != key.algorithm.name()) {
            return invalid("the signature names another algorithm than its key's");
        }
        if key.period.expires <= wall {
            return Err((codes::CREDENTIALS_EXPIRED, "the key has expired"));
        }
        if wall < key.period.not_before {
            return invalid("the key is not valid yet");
        }
        Ok(key)
    }

    fn check_time(&self, chosen: &Chosen, wall: Duration) -> Result<(), Refusal> {
        let Some(created) = chosen.time("created")? else {
            return invalid("it does not say when it was made");
        };
        if created > wall + self.window {
            return invalid("it was made in the future");
        }
        if created + self.window < wall && !is_planted(Fault::OldSignatureAccepted) {
            return Err((codes::CREDENTIALS_EXPIRED, "it was made too long ago"));
        }
        match chosen.time("expires")? {
            Some(expires) if expires <= wall => {
                Err((codes::CREDENTIALS_EXPIRED, "the signature has expired"))
            }
            _ => Ok(()),
        }
    }

    fn nonce(&self, chosen: &Chosen, services: &dyn Services) -> Result<Option<u128>, Refusal> {
        const PURPOSE: u64 = 0x6e_6f6e_6365;
        match chosen.text("nonce")? {
            None if self.nonce_required => invalid("no nonce"),
            None => Ok(None),
            Some(nonce) if !(1..=NONCE_BYTES_MAX).contains(&nonce.len()) => {
                invalid("a nonce of no length that is taken")
            }
            Some(nonce) => {
                let mut hasher = self.secret.hasher(services, PURPOSE);
                hasher.text(chosen.text("keyid")?.unwrap_or_default().as_bytes());
                hasher.text(nonce.as_bytes());
                Ok(Some(hasher.finish()))
            }
        }
    }

    /// Whether this is the first time that it is seen; the last step, since it is remembered.
    fn spend(&self, prepared: &Prepared<'_>, mono: Duration) -> Result<Arc<Identity>, Refusal> {
        if let Some(nonce) = prepared.nonce {
            // Whenever it was made, it is too old after this.
            let lifetime = self.window * 2 + Duration::from_secs(1);
            match self.nonces.spend(nonce, mono, lifetime) {
                Ok(()) => {}
                Err(Spent::Before) if is_planted(Fault::NonceReplayed) => {}
                Err(Spent::Before) => return invalid("its nonce was used before"),
                Err(Spent::Full) => {
                    return Err((codes::AUTHORIZER_UNAVAILABLE, "no room for another nonce"));
                }
            }
        }
        Ok(Arc::clone(&prepared.key.identity))
    }

    /// All steps, where none of them takes long.
    fn verify_here(
        &self,
        prepared: &Prepared<'_>,
        mono: Duration,
    ) -> Result<Arc<Identity>, Refusal> {
        prepared.check_signature()?;
        prepared.check_body()?;
        self.spend(prepared, mono)
    }

    async fn verify_slowly(&self, prepared: Prepared<'_>, services: &dyn Services) -> Checked {
        if !prepared.is_large() {
            return self.verify_here(&prepared, services.now().mono).map_err(problem);
        }
        // The signature first: only who has a key makes us hash a large body.
        prepared.check_signature().map_err(problem)?;
        let (digests, body) = (prepared.digests.clone(), prepared.body.clone());
        let hashed = offload(services, move || digests.are_of(&body)).await;
        let is_right = hashed.map_err(|Unavailable(reason)| {
            Problem::new(codes::AUTHORIZER_UNAVAILABLE).detail(reason)
        })?;
        let right = if is_right { Ok(()) } else { invalid(OTHER_BODY) };
        right.and_then(|()| self.spend(&prepared, services.now().mono)).map_err(problem)
    }
}

impl Prepared<'_> {
    fn is_large(&self) -> bool {
        !self.digests.is_empty() && self.body.len() > HASHED_HERE_BYTES_MAX
    }

    fn check_signature(&self) -> Result<(), Refusal> {
        let is_good = || self.key.verify(&self.base, &self.signature);
        match is_planted(Fault::MessageNotVerified) || is_good() {
            true => Ok(()),
            false => invalid("the signature is not the key's"),
        }
    }

    fn check_body(&self) -> Result<(), Refusal> {
        match self.digests.are_of(&self.body) {
            true => Ok(()),
            false => invalid(OTHER_BODY),
        }
    }
}

impl Authenticator for Compiled {
    fn presented(&self, exchange: &Exchange) -> Presented {
        let request = &exchange.request;
        let Some(span) = written::place(request) else { return Presented::Nothing };
        match written::choose(request, &self.choice) {
            Ok(None) => Presented::Nothing,
            // One that cannot be read is refused, and not overlooked.
            Ok(Some(_)) | Err(_) => Presented::Mine(span),
        }
    }

    /// No scheme of HTTP authentication asks for a signature.
    fn challenge(&self) -> &str {
        ""
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, services: &'a dyn Services) -> Verify<'a> {
        let prepared = match self.prepare(exchange, services) {
            Ok(prepared) => prepared,
            Err(refusal) => return Verify::Done(Err(problem(refusal).into())),
        };
        if prepared.key.is_quick() && !prepared.is_large() {
            let verified = self.verify_here(&prepared, exchange.now.mono);
            return Verify::Done(told(verified.map_err(problem)));
        }
        let verified = self.verify_slowly(prepared, services);
        Verify::Wait(Box::pin(async { told(verified.await) }))
    }

    /// Signatures under other labels are for others.
    fn conceal(&self, request: &mut RequestHead) {
        if let Ok(Some(chosen)) = written::choose(request, &self.choice) {
            written::remove(request, &chosen.label);
        }
    }

    fn request_body(&self) -> BodyUse {
        match self.body_bytes_max {
            Some(bytes_max) => BodyUse::Buffered { bytes_max },
            None => BodyUse::Untouched,
        }
    }
}
