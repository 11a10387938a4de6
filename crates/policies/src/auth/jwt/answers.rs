//! What an issuer says of a token when it is asked: the claims, plain or signed (RFC 9701).
//!
//! Who asks, and what an answer is good for, is the business of `introspection`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation, decode};
use portcullis_core::auth::IssuerKeys;
use portcullis_core::carry::Carry;
use portcullis_core::{Identity, Services};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::forms::Claim;
use super::keys::{KeySet, VerifyingKey};
use super::source::{Keys, Location};
use super::token::{Claims, Rules, seconds};

pub(in crate::auth) const MEDIA_TYPE: &str = "application/token-introspection+jwt";

/// An answer is of now; the clocks may differ by this much.
const AGE_MAX: Duration = Duration::from_secs(60);
const REFRESH_EVERY: Duration = Duration::from_secs(600);

/// Takes claims for an identity.
#[derive(Debug)]
pub(in crate::auth) struct Naming(Rules);

impl Naming {
    pub(in crate::auth) fn new(
        auth: &str,
        client: Option<&Claim>,
        tenant: Option<&Claim>,
        scopes: Option<&Claim>,
    ) -> Self {
        let path = |claim: Option<&Claim>| claim.map(|claim| claim.0.clone());
        let mut rules = Rules::new(auth, "", &[], Some(&[]));
        (rules.client, rules.tenant, rules.scopes) = (path(client), path(tenant), path(scopes));
        Self(rules)
    }

    /// # Errors
    /// For the log.
    pub(in crate::auth) fn identity(&self, claims: Claims) -> Result<Identity, &'static str> {
        self.0.identity(claims)
    }
}

/// A time in a claim (RFC 7519 §2), if it is there and one.
pub(in crate::auth) fn time(claims: &Claims, name: &str) -> Option<Result<Duration, ()>> {
    claims.get(name).map(|value| seconds(value).ok_or(()))
}

/// Verifies answers that an issuer has signed for one client.
#[derive(Debug)]
pub(in crate::auth) struct SignedAnswers {
    issuer: Box<str>,
    client_id: Box<str>,
    keys: Arc<Keys>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
}

impl SignedAnswers {
    pub(in crate::auth) fn new(
        auth: &str,
        issuer: &str,
        client_id: &str,
        ca: Option<&Arc<[u8]>>,
        carry: &mut Carry,
    ) -> Self {
        let keys = carry.keep("introspection-keys", auth, &(issuer, ca), || {
            let location = Location::Discovery { issuer: issuer.to_owned() };
            Keys::remote(location, ca.cloned(), REFRESH_EVERY)
        });
        Self { issuer: issuer.into(), client_id: client_id.into(), keys }
    }

    pub(in crate::auth) fn standing(&self) -> Option<IssuerKeys> {
        self.keys.standing()
    }

    pub(in crate::auth) async fn upkeep(&self, services: &dyn Services) -> Duration {
        self.keys.upkeep(services).await
    }

    /// What a signed answer says.
    ///
    /// # Errors
    /// For the operator: it is not of this issuer, for this client, and of now.
    pub(in crate::auth) async fn open(
        &self,
        answer: &[u8],
        services: &dyn Services,
    ) -> Result<Claims, String> {
        let header = read_header(answer)?;
        let algorithm: Algorithm =
            header.alg.parse().map_err(|_| "the answer's algorithm is not known")?;
        let kid = header.kid.as_deref();
        let by_known = |set: Option<Arc<KeySet>>| {
            let set = set.filter(|set| kid.is_none_or(|kid| set.knows(kid)))?;
            let mut fitting = set.candidates(kid, algorithm);
            Some(fitting.find_map(|key| verify(answer, algorithm, key)))
        };
        let claims = match by_known(self.keys.current()) {
            Some(found) => found,
            None => {
                let refreshed = self.keys.refresh(services).await;
                match (by_known(self.keys.current()), refreshed) {
                    (Some(found), _) => found,
                    (None, Ok(())) => None,
                    (None, Err(away)) => return Err(away.reason),
                }
            }
        };
        let claims = claims.ok_or("the answer's signature is not good")?;
        self.accept(claims, services.now().wall).map_err(str::to_owned)
    }

    /// RFC 9701 §5.
    fn accept(&self, mut claims: Claims, now: Duration) -> Result<Claims, &'static str> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err("the answer is of another issuer");
        }
        if !is_among(claims.get("aud"), &self.client_id) {
            return Err("the answer is for another client");
        }
        let issued = time(&claims, "iat").and_then(Result::ok);
        let issued = issued.ok_or("the answer does not say when it was made")?;
        if issued.abs_diff(now) > AGE_MAX {
            return Err("the answer is of another time");
        }
        match claims.remove("token_introspection") {
            Some(Value::Object(said)) => Ok(said),
            _ => Err("the answer has no `token_introspection`"),
        }
    }
}

/// One name, or a list that has it.
pub(in crate::auth) fn is_among(value: Option<&Value>, name: &str) -> bool {
    match value {
        Some(Value::String(only)) => only == name,
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(name)),
        _ => false,
    }
}

fn read_header(answer: &[u8]) -> Result<Header, &'static str> {
    let header = answer.split(|byte| *byte == b'.').next().unwrap_or_default();
    let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| "the answer is no signed token")?;
    let header: Header =
        serde_json::from_slice(&json).map_err(|_| "the answer's header is no JOSE header")?;
    if header.crit.is_some() {
        return Err("the answer's header has `crit`");
    }
    let kind = header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
    match kind.strip_prefix("application/").unwrap_or(&kind) {
        "token-introspection+jwt" => Ok(header),
        _ => Err("the answer's `typ` is that of another kind of token"),
    }
}

/// A key set holds public keys only, each for its own algorithms.
fn verify(answer: &[u8], algorithm: Algorithm, key: &VerifyingKey) -> Option<Claims> {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    // Those of the token, if any, are within; of the answer, see `accept`.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    decode::<Claims>(answer, &key.key, &validation).ok().map(|read| read.claims)
}
