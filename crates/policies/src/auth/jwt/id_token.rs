//! ID tokens (OpenID Connect Core 1.0 §2): who logged in, as an issuer says it to one client.
//!
//! A token of this kind is good once, at the login or the refresh that brought it; what is kept of
//! it afterwards is for whoever asked. It is never taken from a request.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use portcullis_core::auth::IssuerKeys;
use portcullis_core::carry::Carry;
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::{Identity, Services};
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::forms::Claim;
use super::source::{Keys, Location};
use super::token::{Claims, Header, Rules};

const CLOCK_SKEW: Duration = Duration::from_secs(30);
const REFRESH_EVERY: Duration = Duration::from_secs(600);

/// Verifies the ID tokens that an issuer has made for one client.
#[derive(Debug)]
pub(in crate::auth) struct IdTokens {
    rules: Rules,
    keys: Arc<Keys>,
    client_id: Box<str>,
}

/// Whose tokens, and what they are taken for.
#[derive(Debug)]
pub(in crate::auth) struct Taken<'a> {
    pub(in crate::auth) auth: &'a str,
    pub(in crate::auth) issuer: &'a str,
    pub(in crate::auth) client_id: &'a str,
    pub(in crate::auth) ca: Option<Arc<[u8]>>,
    pub(in crate::auth) client: Option<&'a Claim>,
    pub(in crate::auth) tenant: Option<&'a Claim>,
    pub(in crate::auth) scopes: Option<&'a Claim>,
}

/// What a token has to agree with beside the client.
#[derive(Clone, Copy)]
pub(in crate::auth) struct Expected<'a> {
    /// That of the login. After a refresh it may be missing, and not be another.
    pub(in crate::auth) nonce: Option<&'a str>,
    /// The token before, after a refresh: it is the same person.
    pub(in crate::auth) before: Option<&'a str>,
    pub(in crate::auth) access_token: &'a [u8],
}

/// Why a token is not taken.
#[derive(Debug)]
pub(in crate::auth) enum Refusal {
    Bad(&'static str),
    /// There are no keys to tell.
    Away(String),
}

impl From<&'static str> for Refusal {
    fn from(detail: &'static str) -> Self {
        Self::Bad(detail)
    }
}

impl IdTokens {
    pub(in crate::auth) fn new(taken: &Taken<'_>, carry: &mut Carry) -> Self {
        let audience = [taken.client_id.to_owned()];
        let mut rules = Rules::new(taken.auth, taken.issuer, &audience, None);
        let path = |claim: Option<&Claim>| claim.map(|claim| claim.0.clone());
        rules.clock_skew = CLOCK_SKEW;
        // `azp` is the gateway itself, so what names a client elsewhere names nobody here.
        rules.client = path(taken.client).or_else(|| Some("sub".into()));
        rules.tenant = path(taken.tenant);
        rules.scopes = path(taken.scopes);
        let keys = carry.keep("oidc-keys", taken.auth, &(taken.issuer, &taken.ca), || {
            let location = Location::Discovery { issuer: taken.issuer.to_owned() };
            Keys::remote(location, taken.ca.clone(), REFRESH_EVERY)
        });
        Self { rules, keys, client_id: taken.client_id.into() }
    }

    /// Verifies a token that the issuer's token endpoint gave (§3.1.3.7, §12.2).
    pub(in crate::auth) async fn verify(
        &self,
        token: &str,
        expected: Expected<'_>,
        services: &dyn Services,
    ) -> Result<(), Refusal> {
        if token.len() > super::TOKEN_BYTES_MAX {
            return Err("the ID token is too long".into());
        }
        let header = Header::read(token.as_bytes(), None)?;
        self.rules.admits(&header)?;
        if is_access_token(token) {
            return Err("an access token is no ID token".into());
        }
        let claims = self.signed(token, &header, services).await?;
        let now = services.now();
        self.agrees(&claims, &header, expected)?;
        let accepted = self.rules.accept(claims, token.as_bytes(), now)?;
        match accepted.usable_until <= now.wall {
            true => Err("the ID token has expired".into()),
            false => Ok(()),
        }
    }

    /// The claims of a token with a good signature of the issuer's, for this client.
    async fn signed(
        &self,
        token: &str,
        header: &Header,
        services: &dyn Services,
    ) -> Result<Claims, Refusal> {
        match self.signed_by_known(token, header) {
            Some(Ok(claims)) => return Ok(claims),
            Some(Err(detail)) => return Err(detail.into()),
            None => {}
        }
        let refreshed = self.keys.refresh(services).await;
        match (self.signed_by_known(token, header), refreshed) {
            (Some(signed), _) => signed.map_err(Refusal::Bad),
            (None, Ok(())) => Err("no key with the ID token's key id".into()),
            (None, Err(away)) => Err(Refusal::Away(away.reason)),
        }
    }

    /// `None` where the keys at hand cannot tell.
    fn signed_by_known(
        &self,
        token: &str,
        header: &Header,
    ) -> Option<Result<Claims, &'static str>> {
        let set = self.keys.current()?;
        if header.kid.as_deref().is_some_and(|kid| !set.knows(kid)) {
            return None;
        }
        let mut detail = "no key fits the ID token's algorithm";
        for key in self.rules.candidates(&set, header) {
            match self.rules.verify(token.as_bytes(), header, key) {
                Ok(claims) => return Some(Ok(claims)),
                Err(reason) => detail = reason,
            }
        }
        Some(Err(detail))
    }

    /// What an ID token has beside the claims of every token.
    fn agrees(
        &self,
        claims: &Claims,
        header: &Header,
        expected: Expected<'_>,
    ) -> Result<(), &'static str> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("sub").is_none_or(str::is_empty) {
            return Err("the ID token names nobody");
        }
        if !claims.contains_key("iat") {
            return Err("the ID token lacks `iat`");
        }
        let several = claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
        match claims.get("azp") {
            Some(azp) if azp.as_str() != Some(&*self.client_id) => {
                return Err("the ID token is for another client to use");
            }
            None if several => return Err("the ID token has several audiences and no `azp`"),
            _ => {}
        }
        let nonce = claims.get("nonce");
        let found = nonce.and_then(Value::as_str);
        let same = |expected: &str| {
            found.is_some_and(|found| bool::from(found.as_bytes().ct_eq(expected.as_bytes())))
        };
        match expected.before.map(read) {
            None if is_planted(Fault::LoginNonceNotChecked) => {}
            None if !expected.nonce.is_some_and(same) => {
                return Err("the nonce is not that of the login");
            }
            Some(before) => {
                let before = before.ok_or("the session's ID token cannot be read")?;
                if before.get("sub") != claims.get("sub") {
                    return Err("the refreshed ID token is of somebody else");
                }
                if nonce.is_some() && before.get("nonce") != nonce {
                    return Err("the nonce is not that of the login");
                }
            }
            None => {}
        }
        match claims.get("at_hash") {
            Some(hash) if hash.as_str() != Some(&half_hash(header, expected.access_token)) => {
                Err("the access token is not the one that the ID token came with")
            }
            _ => Ok(()),
        }
    }

    /// Who logged in, from a token that was verified when it came; `scope` is what was granted.
    pub(in crate::auth) fn identity(&self, token: &str, scope: &str) -> Option<Identity> {
        let mut identity = self.rules.identity(read(token)?).ok()?;
        if self.rules.scopes.is_none() {
            identity.scopes = scope.split(' ').filter(|s| !s.is_empty()).map(Into::into).collect();
        }
        Some(identity)
    }

    /// How long after its coming an ID token ends.
    pub(in crate::auth) fn lifetime(token: &str, now: Duration) -> Option<Duration> {
        let expires = read(token)?.get("exp").and_then(super::token::seconds)?;
        Some(expires.saturating_sub(now))
    }

    pub(in crate::auth) fn standing(&self) -> Option<IssuerKeys> {
        self.keys.standing()
    }

    pub(in crate::auth) async fn upkeep(&self, services: &dyn Services) -> Duration {
        self.keys.upkeep(services).await
    }
}

/// The claims of a token that was verified before.
fn read(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// RFC 9068 §2.1: access tokens say what they are.
fn is_access_token(token: &str) -> bool {
    let header = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header = header.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    header.is_some_and(|header| {
        let kind = header.get("typ").and_then(Value::as_str).unwrap_or_default();
        kind.to_ascii_lowercase().ends_with("at+jwt")
    })
}

/// `at_hash` (§3.1.3.6): the left half of the hash that goes with the signature's.
fn half_hash(header: &Header, access_token: &[u8]) -> String {
    let algorithm = match header.algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => &digest::SHA384,
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => &digest::SHA512,
        _ => &digest::SHA256,
    };
    let whole = digest(algorithm, access_token);
    URL_SAFE_NO_PAD.encode(&whole.as_ref()[..whole.as_ref().len() / 2])
}
