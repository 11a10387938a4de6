//! Signed tokens, as an identity provider makes them, and the key set that they are verified with.

use anyhow::Context as _;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

pub const NAME: &str = "https://idp.example.com/";
pub const AUDIENCE: &str = "orders";

/// After every clock of the bench.
const EXPIRY: u64 = 4_000_000_000;

/// A token of about 700 bytes, and the JSON of its issuer's key set.
///
/// # Errors
/// The cryptographic library has no randomness.
pub fn token() -> anyhow::Result<(String, Value)> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let point = pair.public_key().as_ref();
    let coordinate = |at| anyhow::Ok(URL_SAFE_NO_PAD.encode(point.get(at).context("a point")?));
    let (x, y) = (coordinate(1..33)?, coordinate(33..65)?);
    let key_set = json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k1", "alg": "ES256", "use": "sig" },
    ] });
    let claims = json!({
        "iss": NAME, "aud": AUDIENCE, "sub": "user-1", "client_id": "shop", "plan": "gold",
        "exp": EXPIRY, "iat": 1_780_000_000_u64, "scope": "orders:read orders:write",
        "roles": ["buyer", "seller", "clerk"], "padding": "x".repeat(200),
    });
    let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) };
    let key = EncodingKey::from_ec_der(pair.to_pkcs8v1()?.as_ref());
    Ok((jsonwebtoken::encode(&header, &claims, &key)?, key_set))
}
