//! A JSON Web Key Set (RFC 7517), as far as it can verify.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// A set with more is refused: whoever is tried by one token without a key id is tried with all.
const KEYS_MAX: usize = 100;
/// 2048 bits; shorter RSA keys can be broken.
const RSA_BYTES_MIN: usize = 256;

/// Public keys of an issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    /// Which of an issuer's sets it is; what was verified with another is not remembered.
    pub(super) version: u64,
    keys: Vec<VerifyingKey>,
}

#[derive(Debug)]
pub(super) struct VerifyingKey {
    kid: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    /// Whether there is one algorithm that it is for; else the rules say which of several.
    pub(super) pinned: bool,
    pub(super) key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<Box<str>>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a key set. Keys that cannot verify signatures (symmetric, for encryption, too short,
    /// of unknown kinds) are left out, as RFC 7517 §5 asks.
    ///
    /// # Errors
    /// A sentence for the operator: not a key set, or nothing in it can be used.
    pub(super) fn parse(json: &[u8], version: u64) -> Result<Self, String> {
        let Document { keys } =
            serde_json::from_slice(json).map_err(|error| format!("not a JSON key set: {error}"))?;
        if keys.len() > KEYS_MAX {
            return Err(format!("{} keys, at most {KEYS_MAX} are read", keys.len()));
        }
        let found = keys.len();
        let keys: Vec<_> = keys.into_iter().filter_map(|key| read(key).ok()).collect();
        match keys.is_empty() {
            true => Err(format!("none of {found} keys can verify a signature")),
            false => Ok(Self { version, keys }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// [`Self::parse`] for the operator's own file: what is in it is meant, so a key that is weak
    /// or contradicts itself is an error, not left out.
    pub(super) fn parse_own(json: &[u8]) -> Result<Self, String> {
        let set = Self::parse(json, 1)?;
        let Document { keys } =
            serde_json::from_slice(json).map_err(|error| format!("not a JSON key set: {error}"))?;
        for (at, key) in keys.into_iter().enumerate() {
            let kid = key.get("kid").and_then(Value::as_str).map(|kid| format!(" (`{kid}`)"));
            if let Err(Unfit::Bad(reason)) = read(key) {
                return Err(format!("key {}{}: {reason}", at + 1, kid.unwrap_or_default()));
            }
        }
        Ok(set)
    }

    pub(super) fn knows(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// The keys that may have signed this: by id where the token has one, and always by algorithm.
    pub(super) fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &VerifyingKey> {
        let of_id = move |key: &&VerifyingKey| kid.is_none() || key.kid.as_deref() == kid;
        self.keys.iter().filter(of_id).filter(move |key| key.algorithms.contains(&algorithm))
    }
}

/// A number without its leading zeros.
fn significant(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// Why a key verifies nothing.
enum Unfit {
    /// It is for something else, or of a kind that is not known here (RFC 7517 §5).
    Elsewhere,
    Bad(&'static str),
}

fn read(jwk: Value) -> Result<VerifyingKey, Unfit> {
    let jwk = Jwk::deserialize(jwk).map_err(|_| Unfit::Bad("not a JSON Web Key"))?;
    if jwk.usage.as_ref().is_some_and(|usage| usage != "sig") {
        return Err(Unfit::Elsewhere);
    }
    if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err(Unfit::Elsewhere);
    }
    let (mut algorithms, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => rsa(&jwk)?,
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            let algorithm = if curve == "P-256" { Algorithm::ES256 } else { Algorithm::ES384 };
            let key = match (&jwk.x, &jwk.y) {
                (Some(x), Some(y)) => DecodingKey::from_ec_components(x, y).ok(),
                _ => None,
            };
            (vec![algorithm], key.ok_or(Unfit::Bad("no point of its curve"))?)
        }
        ("OKP", Some("Ed25519")) => {
            let key = jwk.x.as_ref().and_then(|x| DecodingKey::from_ed_components(x).ok());
            (vec![Algorithm::EdDSA], key.ok_or(Unfit::Bad("no point of its curve"))?)
        }
        ("oct", _) => return Err(Unfit::Bad("a shared secret, and those are not accepted")),
        // Whether or not its curve is known: it says that it is for what another curve is for.
        _ if jwk.alg.as_deref().is_some_and(|alg| alg.parse::<Algorithm>().is_ok()) => {
            return Err(Unfit::Bad("its `alg` is not for a key of this kind"));
        }
        _ => return Err(Unfit::Elsewhere),
    };
    if let Some(name) = jwk.alg {
        // RFC 9864 names the curve.
        let only = if name == "Ed25519" { "EdDSA" } else { &name };
        let Ok(only) = only.parse::<Algorithm>() else { return Err(Unfit::Elsewhere) };
        algorithms.retain(|algorithm| *algorithm == only);
    }
    let pinned = algorithms.len() == 1;
    match algorithms.is_empty() {
        true => Err(Unfit::Bad("its `alg` is not for a key of this kind")),
        false => Ok(VerifyingKey { kid: jwk.kid, algorithms, pinned, key }),
    }
}

fn rsa(jwk: &Jwk) -> Result<(Vec<Algorithm>, DecodingKey), Unfit> {
    let number = |text: &Option<String>| {
        let text = text.as_ref().map(|text| text.trim_end_matches('=')).unwrap_or_default();
        URL_SAFE_NO_PAD.decode(text).map_err(|_| Unfit::Bad("`n` or `e` is not base64url"))
    };
    let (n, e) = (number(&jwk.n)?, number(&jwk.e)?);
    if significant(&n).len() < RSA_BYTES_MIN {
        return Err(Unfit::Bad("an RSA key of fewer than 2048 bits"));
    }
    // RFC 8017 §3.1: odd and at least 3. With 1 everybody can sign.
    if e.last().is_none_or(|last| last % 2 == 0) || significant(&e) == [1] {
        return Err(Unfit::Bad("an RSA key whose exponent is even or less than 3"));
    }
    let algorithms = vec![
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ];
    Ok((algorithms, DecodingKey::from_rsa_raw_components(&n, &e)))
}
