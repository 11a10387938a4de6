//! What others have believed of tokens: for the audit's own tests, which plant such mistakes
//! ([`portcullis_core::planted`]). Nothing that ships has this module in it.

#![expect(clippy::disallowed_methods, reason = "these are the mistakes that others have made")]

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous, decode, decode_header};
use portcullis_core::planted::{Fault, is_planted};

use super::keys::KeySet;
use super::token::Claims;

/// The claims of a token that is believed for no good reason.
pub(super) fn believed(token: &[u8], keys: impl FnOnce() -> Option<Arc<KeySet>>) -> Option<Claims> {
    if is_planted(Fault::SignatureNotChecked) {
        return dangerous::insecure_decode::<Claims>(token).ok().map(|data| data.claims);
    }
    if is_planted(Fault::AlgorithmNone) {
        return without_signature(token);
    }
    if is_planted(Fault::EmbeddedKeyTrusted) {
        let header = decode_header(token).ok()?;
        let key = DecodingKey::from_jwk(&header.jwk?).ok()?;
        return verified(token, &key, header.alg);
    }
    if is_planted(Fault::AlgorithmFromToken) {
        let header = decode_header(token).ok()?;
        let set = keys().filter(|_| header.alg == Algorithm::HS256)?;
        let all = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::ES384];
        let mut keys = all.iter().flat_map(|algorithm| set.candidates(None, *algorithm));
        return keys.find_map(|key| {
            let secret = DecodingKey::from_secret(key.key.try_get_as_bytes().ok()?);
            verified(token, &secret, Algorithm::HS256)
        });
    }
    None
}

fn verified(token: &[u8], key: &DecodingKey, algorithm: Algorithm) -> Option<Claims> {
    let mut validation = Validation::new(algorithm);
    validation.validate_aud = false;
    validation.validate_exp = false;
    decode::<Claims>(token, key, &validation).ok().map(|data| data.claims)
}

/// Of a token whose header says that there is none.
fn without_signature(token: &[u8]) -> Option<Claims> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut parts = token.split(|byte| *byte == b'.');
    let mut json = || URL_SAFE_NO_PAD.decode(parts.next()?).ok();
    let header: Claims = serde_json::from_slice(&json()?).ok()?;
    let says_none = header.get("alg")?.as_str()?.eq_ignore_ascii_case("none");
    says_none.then(json).flatten().and_then(|claims| serde_json::from_slice(&claims).ok())
}
