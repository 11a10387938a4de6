//! What an issuer says of a token, and what is demanded of it (RFC 7662 §2.2).

use std::sync::Arc;

use portcullis_core::Now;
use portcullis_core::planted::{Fault, is_planted};
use serde_json::{Map, Value};

use super::Good;
use crate::auth::confirmation::Bound;
use crate::auth::jwt::{Naming, is_among, time};

/// By how much the issuer's clock may be ahead, where it says that a token is not valid yet.
const CLOCK_SKEW_SECS: u64 = 30;

/// The issuer's word on one token.
#[derive(Debug)]
pub(super) enum Saying {
    Active(Map<String, Value>),
    Inactive,
}

impl Saying {
    /// # Errors
    /// For the operator: it says nothing. That is not to say that a token is bad.
    pub(super) fn read(json: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(json) {
            Ok(Value::Object(said)) => Self::of(said),
            _ => Err("the answer is no JSON object".to_owned()),
        }
    }

    /// # Errors
    /// As [`Self::read`].
    pub(super) fn of(said: Map<String, Value>) -> Result<Self, String> {
        match said.get("active") {
            Some(Value::Bool(true)) => Ok(Self::Active(said)),
            Some(_) if is_planted(Fault::InactiveTokenAccepted) => Ok(Self::Active(said)),
            Some(Value::Bool(false)) => Ok(Self::Inactive),
            _ => Err("the answer does not say whether the token is `active`".to_owned()),
        }
    }
}

/// What is demanded of an active token.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) issuer: Option<Box<str>>,
    /// Any of these; empty: whoever the issuer tells of it.
    pub(super) audience: Vec<String>,
    /// Each claim is one of these, or a list that has one of them.
    pub(super) claims: Vec<(Box<str>, Vec<Value>)>,
}

impl Rules {
    /// # Errors
    /// For the log: what does not hold. Never a part of the token.
    pub(super) fn judge(
        &self,
        saying: Saying,
        naming: &Naming,
        now: Now,
    ) -> Result<Good, &'static str> {
        let claims = match saying {
            Saying::Active(claims) => claims,
            Saying::Inactive => return Err("the issuer says that the token is not active"),
        };
        // Where the issuer says what kind of token it is, it has to be one to bear.
        let kind = claims.get("token_type").and_then(Value::as_str);
        let bearer = |kind: &str| {
            kind.eq_ignore_ascii_case("Bearer") || kind.eq_ignore_ascii_case("access_token")
        };
        if !kind.is_none_or(bearer) {
            return Err("the token is of another kind than a bearer token");
        }
        if let (Some(expected), Some(issuer)) = (&self.issuer, claims.get("iss"))
            && issuer.as_str() != Some(expected)
        {
            return Err("the token is of another issuer");
        }
        let audience = claims.get("aud");
        if !self.audience.is_empty() && !self.audience.iter().any(|name| is_among(audience, name)) {
            return Err("the token is for another audience");
        }
        let expires = match time(&claims, "exp") {
            Some(Err(())) => return Err("the token's `exp` is no time"),
            Some(Ok(expires)) => Some(expires),
            None => None,
        };
        match time(&claims, "nbf") {
            Some(Err(())) => return Err("the token's `nbf` is no time"),
            Some(Ok(begins)) if begins.as_secs() > now.wall.as_secs() + CLOCK_SKEW_SECS => {
                return Err("the token is not valid yet");
            }
            _ => {}
        }
        let bound = Bound::of(&claims)?;
        let identity = naming.identity(claims)?;
        let holds = |(path, allowed): &(Box<str>, Vec<Value>)| match identity.claim(path) {
            Some(Value::Array(has)) => has.iter().any(|one| allowed.contains(one)),
            Some(one) => allowed.contains(one),
            None => false,
        };
        if !self.claims.iter().all(holds) {
            return Err("a claim is not as the configuration requires");
        }
        Ok(Good { identity: Arc::new(identity), expires, bound })
    }
}
