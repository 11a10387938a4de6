//! `private_key_jwt`: a client proves who it is by signing (RFC 7523 §2.2, OpenID Connect Core §9).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use portcullis_core::Services;
use portcullis_core::services::offload;
use serde_json::json;

pub(crate) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An assertion is used at once.
const LIFETIME: Duration = Duration::from_secs(60);

/// A private key, and what it signs with.
#[derive(Debug)]
pub(crate) struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
    id: Option<String>,
}

impl SigningKey {
    /// The kind of key decides the algorithm. That it can sign is tried here, once.
    ///
    /// # Errors
    /// For the operator.
    pub(crate) fn from_pem(pem: &[u8], id: Option<String>) -> Result<Self, &'static str> {
        let kinds = [
            (EncodingKey::from_rsa_pem(pem), &[Algorithm::RS256][..]),
            (EncodingKey::from_ec_pem(pem), &[Algorithm::ES256, Algorithm::ES384]),
            (EncodingKey::from_ed_pem(pem), &[Algorithm::EdDSA]),
        ];
        let found = kinds.into_iter().find_map(|(key, algorithms)| Some((key.ok()?, algorithms)));
        let (key, algorithms) = found.ok_or("it is no private key (PKCS #8) in PEM")?;
        let can =
            |algorithm: &&Algorithm| jsonwebtoken::crypto::sign(b"", &key, **algorithm).is_ok();
        match algorithms.iter().find(can) {
            Some(algorithm) => Ok(Self { algorithm: *algorithm, key, id }),
            None => Err("RSA from 2048 bits, P-256, P-384 and Ed25519 can"),
        }
    }
}

/// An assertion of this client for an audience, which is good once and for a minute.
///
/// # Errors
/// For the operator.
pub(crate) async fn sign(
    key: &Arc<SigningKey>,
    client: &str,
    audience: &str,
    services: &dyn Services,
) -> Result<String, String> {
    let mut id = [0; 16];
    services.random(&mut id);
    let issued = services.now().wall.as_secs();
    let claims = json!({
        "iss": client,
        "sub": client,
        "aud": audience,
        "jti": URL_SAFE_NO_PAD.encode(id),
        "iat": issued,
        "exp": issued + LIFETIME.as_secs(),
    });
    let mut header = jsonwebtoken::Header::new(key.algorithm);
    header.kid.clone_from(&key.id);
    let key = Arc::clone(key);
    // A signature by RSA takes about a millisecond, in which others would wait.
    let signed = offload(services, move || jsonwebtoken::encode(&header, &claims, &key.key).ok());
    let signed = signed.await.map_err(|error| error.to_string())?;
    signed.ok_or_else(|| "the client's assertion cannot be signed".to_owned())
}

#[cfg(test)]
mod tests;
