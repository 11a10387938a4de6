//! Tokens that are bound to a key (RFC 7800): whoever else has them cannot use them.
//!
//! Only certificates of the connection can be proven here (RFC 8705 §3); a token that is bound to
//! something else is refused, not taken for one that is bound to nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_core::Exchange;
use portcullis_core::planted::{Fault, is_planted};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

/// What a token is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    ToNothing,
    /// SHA-256 of the client's certificate.
    ToCertificate([u8; 32]),
}

impl Bound {
    /// Reads `cnf`.
    ///
    /// # Errors
    /// For the log.
    pub(super) fn of(claims: &Map<String, Value>) -> Result<Self, &'static str> {
        let Some(confirmation) = claims.get("cnf") else { return Ok(Self::ToNothing) };
        let members = confirmation.as_object().filter(|members| !members.is_empty());
        let members = members.ok_or("the token's `cnf` is no confirmation")?;
        if members.len() > 1 || !members.contains_key("x5t#S256") {
            return Err("the token is bound to a key that cannot be proven here");
        }
        let hash = members.get("x5t#S256").and_then(Value::as_str);
        let hash = hash.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let hash = hash.and_then(|bytes| bytes.try_into().ok());
        hash.map(Self::ToCertificate).ok_or("the token's `cnf` is no hash of a certificate")
    }

    /// # Errors
    /// For the log: whoever sends the token is not the one that it is for.
    pub(super) fn holds(self, exchange: &Exchange) -> Result<(), &'static str> {
        let Self::ToCertificate(hash) = self else { return Ok(()) };
        if is_planted(Fault::BindingIgnored) {
            return Ok(());
        }
        match &exchange.certificate {
            None => Err("the token is bound to a certificate, and the client shows none"),
            Some(certificate) if bool::from(certificate.sha256.ct_eq(&hash)) => Ok(()),
            Some(_) => Err("the token is bound to another certificate than the client's"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portcullis_core::exchange::ClientCertificate;
    use serde_json::json;

    use super::*;

    fn check(claims: &Value, certificate: Option<[u8; 32]>) -> Result<(), &'static str> {
        let certificate = certificate
            .map(|sha256| Arc::new(ClientCertificate { sha256, ..ClientCertificate::default() }));
        let exchange = Exchange { certificate, ..Exchange::default() };
        Bound::of(claims.as_object().unwrap())?.holds(&exchange)
    }

    #[test]
    fn only_who_has_the_certificate_may_use_the_token() {
        let hash = URL_SAFE_NO_PAD.encode([7; 32]);
        let bound = json!({ "cnf": { "x5t#S256": hash } });
        assert_eq!(check(&bound, Some([7; 32])), Ok(()));
        for certificate in [None, Some([8; 32])] {
            assert!(check(&bound, certificate).is_err());
            assert_eq!(check(&json!({}), certificate), Ok(()));
        }
        for odd in [
            json!(null),
            json!({}),
            json!("x"),
            json!({ "jkt": "x" }),
            json!({ "x5t#S256": 7 }),
            json!({ "x5t#S256": "AAAA" }),
            json!({ "x5t#S256": format!("{hash}=") }),
            json!({ "x5t#S256": hash, "jkt": "x" }),
        ] {
            assert!(check(&json!({ "cnf": odd }), Some([7; 32])).is_err(), "{odd}");
        }
    }
}
