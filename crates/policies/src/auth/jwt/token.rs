//! What is read of a token, and what is demanded of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation, decode};
use memchr::memchr;
use memchr::memmem::Finder;
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::{Identity, Now};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::{Map, Value};

use super::forms::{Binding, Required, Signature};
use super::keys::{KeySet, VerifyingKey};
use super::revoked::Revoked;
use crate::auth::confirmation::Bound;

/// A header is an algorithm and some names.
const HEADER_BYTES_MAX: usize = 4 << 10;
/// RFC 7515 §4.1.4 sets no bound; a key's name that is longer is not one.
const KID_BYTES_MAX: usize = 256;
/// A client's name goes into header fields, keys and every log line.
const NAME_BYTES_MAX: usize = 256;

pub(super) type Claims = Map<String, Value>;

/// What a token says of itself before anything is verified.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
}

#[derive(Deserialize)]
struct RawHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    typ: Option<Cow<'a, str>>,
    /// Whether it is there, whatever it says.
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(from).map(|_| true)
}

/// A `typ` as it is compared: `application/` goes without saying (RFC 7515 §4.1.9).
fn media_type(typ: &str) -> &str {
    match typ.split_at_checked(12) {
        Some((prefix, kind)) if prefix.eq_ignore_ascii_case("application/") => kind,
        _ => typ,
    }
}

impl Header {
    /// `typ` is the one that tokens must have, where that is said.
    ///
    /// # Errors
    /// For the log: why it cannot be a token of ours.
    pub(super) fn read(token: &[u8], typ: Option<&str>) -> Result<Self, &'static str> {
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(_), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("not a signed token: three parts are needed");
        };
        if header.len() > HEADER_BYTES_MAX {
            return Err("the token's header is too long");
        }
        let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| "the header is not base64url")?;
        let raw: RawHeader<'_> =
            serde_json::from_slice(&json).map_err(|_| "the header is not a JOSE header")?;
        // RFC 7515 §4.1.11: what is critical and not understood must be refused, and we understand
        // none.
        if raw.crit {
            return Err("the header has `crit`");
        }
        // RFC 8725 §3.11: tokens for other purposes say so.
        let found = raw.typ.as_deref().map(media_type);
        let fits = |wanted: &[&str]| {
            found.is_some_and(|found| wanted.iter().any(|typ| found.eq_ignore_ascii_case(typ)))
        };
        let good = match typ {
            Some(typ) => fits(&[media_type(typ)]),
            None => found.is_none() || fits(&["JWT", "at+jwt"]),
        };
        if !good {
            return Err("the token's `typ` is that of another kind of token");
        }
        if raw.kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
            return Err("the token's key id is too long");
        }
        let algorithm = raw.alg.parse().map_err(|_| "the token's algorithm is not known")?;
        Ok(Self { algorithm, kid: raw.kid.map(Cow::into_owned) })
    }
}

fn all_algorithms() -> Vec<Algorithm> {
    Signature::ALL.iter().map(|signature| signature.algorithm()).collect()
}

fn is_rsa_but_rs256(algorithm: Algorithm) -> bool {
    use Algorithm::{PS256, PS384, PS512, RS384, RS512};
    matches!(algorithm, RS384 | RS512 | PS256 | PS384 | PS512)
}

/// Where a claim is: its name, or a dotted path to it.
pub(super) type ClaimPath = Box<str>;

/// What is demanded of tokens, and what they are taken for.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) auth: Arc<str>,
    pub(super) issuer: String,
    /// What the library checks, for each algorithm that is allowed.
    validations: Vec<(Algorithm, Validation)>,
    pub(super) clock_skew: Duration,
    pub(super) client: Option<ClaimPath>,
    pub(super) tenant: Option<ClaimPath>,
    pub(super) scopes: Option<ClaimPath>,
    pub(super) typ: Option<String>,
    pub(super) required: Vec<Required>,
    pub(super) bound: Option<Binding>,
    pub(super) revoked: Revoked,
    /// What a key may verify that does not say its algorithm: RFC 8725 §3.1 wants one for each key,
    /// so of RSA's six it is the usual one, unless the operator says which.
    unpinned: Vec<Algorithm>,
}

/// A token whose every claim is in order, but for the time.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) identity: Identity,
    /// Expiry and clock skew, since 1970.
    pub(super) usable_until: Duration,
    pub(super) bound: Bound,
}

impl Rules {
    pub(super) fn new(
        auth: &str,
        issuer: &str,
        audience: &[String],
        written: Option<&[Algorithm]>,
    ) -> Self {
        let algorithms = written.map_or_else(all_algorithms, <[_]>::to_vec);
        let validation = |algorithm: Algorithm| {
            let mut validation = Validation::new(algorithm);
            validation.set_issuer(&[issuer]);
            validation.set_audience(audience);
            // Without this, a token that lacks one of them would pass.
            validation.set_required_spec_claims(&["exp", "iss", "aud"]);
            // The library would ask the operating system for the time; see `accept`.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation.validate_aud = !is_planted(Fault::AudienceNotChecked);
            if is_planted(Fault::IssuerNotChecked) {
                validation.iss = None;
            }
            (algorithm, validation)
        };
        Self {
            auth: auth.into(),
            issuer: issuer.to_owned(),
            validations: algorithms.iter().map(|algorithm| validation(*algorithm)).collect(),
            unpinned: match written {
                Some(written) => written.to_vec(),
                None => algorithms
                    .into_iter()
                    .filter(|algorithm| !is_rsa_but_rs256(*algorithm))
                    .collect(),
            },
            clock_skew: Duration::ZERO,
            client: None,
            tenant: None,
            scopes: None,
            typ: None,
            required: Vec::new(),
            bound: None,
            revoked: Revoked::default(),
        }
    }

    /// The keys of a set that are to verify a token with this header.
    pub(super) fn candidates<'s>(
        &self,
        set: &'s KeySet,
        header: &'s Header,
    ) -> impl Iterator<Item = &'s VerifyingKey> {
        let unpinned = self.unpinned.contains(&header.algorithm);
        let kid = header.kid.as_deref().filter(|_| !is_planted(Fault::UnknownKeyTriesAll));
        let found = set.candidates(kid, header.algorithm);
        found.filter(move |key| key.pinned || unpinned)
    }

    /// # Errors
    /// For the log.
    pub(super) fn admits(&self, header: &Header) -> Result<(), &'static str> {
        match self.validations.iter().any(|(algorithm, _)| *algorithm == header.algorithm) {
            true => Ok(()),
            false => Err("the token's algorithm is not allowed"),
        }
    }

    /// Checks signature, issuer and audience.
    ///
    /// # Errors
    /// For the log: what does not hold. Never a part of the token.
    pub(super) fn verify(
        &self,
        token: &[u8],
        header: &Header,
        key: &VerifyingKey,
    ) -> Result<Claims, &'static str> {
        use jsonwebtoken::errors::ErrorKind;
        let allowed = self.validations.iter().find(|(allowed, _)| *allowed == header.algorithm);
        let (_, validation) = allowed.ok_or("the token's algorithm is not allowed")?;
        let verified = decode::<Claims>(token, &key.key, validation);
        verified.map(|data| data.claims).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => "the signature is not good",
            ErrorKind::InvalidIssuer => "the token is of another issuer",
            ErrorKind::InvalidAudience => "the token is for another audience",
            ErrorKind::MissingRequiredClaim(_) => "the token lacks `exp`, `iss` or `aud`",
            _ => "the token cannot be read",
        })
    }

    /// Takes verified claims for an identity. Whether it has expired is for the caller to see.
    ///
    /// # Errors
    /// For the log.
    pub(super) fn accept(
        &self,
        claims: Claims,
        token: &[u8],
        now: Now,
    ) -> Result<Accepted, &'static str> {
        // The library takes a list with the issuer in it.
        let issuer = claims.get("iss").and_then(Value::as_str);
        if issuer != Some(&self.issuer) && !is_planted(Fault::IssuerNotChecked) {
            return Err("the token's `iss` is not the issuer");
        }
        let time = |name: &str| claims.get(name).map(|value| seconds(value).ok_or(()));
        let expires = time("exp").and_then(Result::ok).ok_or("the token's `exp` is no time")?;
        let latest = now.wall + self.clock_skew;
        match time("nbf") {
            Some(Err(())) => return Err("the token's `nbf` is no time"),
            Some(Ok(begins)) if begins > latest && !is_planted(Fault::NotBeforeNotChecked) => {
                return Err("the token is not valid yet");
            }
            _ => {}
        }
        match time("iat") {
            Some(Err(())) => return Err("the token's `iat` is no time"),
            Some(Ok(issued)) if issued > latest => {
                return Err("the token was issued in the future");
            }
            _ => {}
        }
        if self.revoked.has(token, &claims) {
            return Err("the token has been revoked");
        }
        let bound = Bound::of(&claims)?;
        if self.bound == Some(Binding::Required) && bound == Bound::ToNothing {
            return Err("the token is not bound to a certificate");
        }
        let identity = self.identity(claims)?;
        if !self.required.iter().all(|required| required.is_met_by(&identity)) {
            return Err("the token lacks a required claim, or its value is another");
        }
        let ends = if is_planted(Fault::ExpiryNotChecked) { Duration::MAX } else { expires };
        let usable_until = ends.saturating_add(self.clock_skew);
        Ok(Accepted { identity, usable_until, bound })
    }

    /// # Errors
    /// For the log.
    pub(super) fn identity(&self, claims: Claims) -> Result<Identity, &'static str> {
        let mut identity = Identity { claims, ..Identity::default() };
        let client = match &self.client {
            Some(path) => text(identity.claim(path)),
            None => {
                ["client_id", "azp", "sub"].iter().find_map(|name| text(identity.claims.get(*name)))
            }
        };
        let client = client.ok_or("the token names no client")?;
        let tenant = self.tenant.as_ref().and_then(|path| text(identity.claim(path)));
        for name in std::iter::once(&client).chain(&tenant) {
            if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
                return Err("the token's client or tenant is not a name");
            }
        }
        let scopes = match &self.scopes {
            Some(path) => scopes(identity.claim(path)),
            None => scopes(identity.claims.get("scope").or_else(|| identity.claims.get("scp"))),
        };
        let claims = std::mem::take(&mut identity.claims);
        Ok(Identity { tenant, scopes, claims, ..Identity::new(Arc::clone(&self.auth), client) })
    }
}

impl Required {
    /// A list meets it by one of its items.
    fn is_met_by(&self, identity: &Identity) -> bool {
        let Some(found) = identity.claim(&self.path).filter(|found| !found.is_null()) else {
            return false;
        };
        let is = |found: &Value| self.values.iter().any(|wanted| is_same(found, wanted));
        match found {
            _ if self.values.is_empty() => true,
            Value::Array(items) => items.iter().any(is),
            found => is(found),
        }
    }
}

/// `1` and `1.0` are the same number.
fn is_same(found: &Value, wanted: &Value) -> bool {
    match (found.as_f64(), wanted.as_f64()) {
        (Some(found), Some(wanted)) => found.to_bits() == wanted.to_bits(),
        _ => found == wanted,
    }
}

/// `NumericDate` (RFC 7519 §2): seconds since 1970, which may have a fraction.
pub(super) fn seconds(value: &Value) -> Option<Duration> {
    match value.as_u64() {
        Some(whole) => Some(Duration::from_secs(whole)),
        None => value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    value?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// One text with spaces between (RFC 8693 §4.2), or a list.
fn scopes(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => {
            text.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect()
        }
        Some(Value::Array(items)) => items.iter().filter_map(|item| text(Some(item))).collect(),
        _ => Vec::new(),
    }
}

/// Tells a token of another issuer from one of ours at a glance.
///
/// `"iss":"…"` in base64 looks one of three ways, by where it begins; one of them is found in
/// nearly every token of ours, without decoding it. What it says is not trusted: it only decides
/// who is to verify the token.
#[derive(Debug)]
pub(super) struct IssuerHint {
    issuer: String,
    looks: [Finder<'static>; 3],
}

#[derive(Deserialize)]
struct Issued<'a> {
    #[serde(borrow)]
    iss: Option<Cow<'a, str>>,
}

impl IssuerHint {
    pub(super) fn new(issuer: &str) -> Self {
        let claim = format!("\"iss\":{}", Value::from(issuer));
        let looks = [0, 1, 2].map(|offset| {
            let mut bytes = vec![0; offset];
            bytes.extend_from_slice(claim.as_bytes());
            let encoded = STANDARD_NO_PAD.encode(&bytes).replace('+', "-").replace('/', "_");
            // Only digits that hold nothing but bits of the claim.
            let whole = (offset * 8).div_ceil(6)..bytes.len() * 8 / 6;
            Finder::new(&encoded.as_bytes()[whole]).into_owned()
        });
        Self { issuer: issuer.to_owned(), looks }
    }

    /// Whether it is a well-formed token that names another issuer.
    pub(super) fn is_foreign(&self, token: &[u8], bytes_max: usize) -> bool {
        let Some(dot) = memchr(b'.', token) else { return false };
        // To the end of the token: a signature looks like this once in a few ages.
        let rest = &token[dot + 1..];
        if self.looks.iter().any(|look| look.find(rest).is_some()) {
            return false;
        }
        let payload = &rest[..memchr(b'.', rest).unwrap_or(rest.len())];
        if payload.len() > bytes_max {
            return false;
        }
        let Ok(json) = URL_SAFE_NO_PAD.decode(payload) else { return false };
        let issued = serde_json::from_slice::<Issued<'_>>(&json).ok();
        issued.and_then(|issued| issued.iss).is_some_and(|issuer| issuer != self.issuer)
    }
}
