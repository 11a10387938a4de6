//! Keys of issuers, and what they sign: by the letter of RFC 7515, or against it.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::broken;

/// The algorithms the audit signs with; the quickest ones first.
pub(super) const ALGORITHMS: [&str; 9] =
    ["ES256", "EdDSA", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];

/// A key of an issuer.
pub(super) struct SigningKey {
    pub(super) kid: String,
    /// As headers name it: `ES256`.
    pub(super) algorithm: &'static str,
    secret: EncodingKey,
    /// As a JSON Web Key (RFC 7517), without key id.
    public: Value,
    /// The public key as others write it down: DER and PEM of X.509.
    pub(super) der: Vec<u8>,
    /// And as mathematics has it: a point, or a modulus.
    raw: Vec<u8>,
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl SigningKey {
    /// Makes one for the algorithm.
    pub(super) fn new(kid: &str, algorithm: &'static str) -> Result<Self, String> {
        let failed = |what: &'static str| move |_| broken(what);
        let (secret, public, der, raw) = match algorithm {
            "ES256" | "ES384" => {
                let (signing, curve) = match algorithm {
                    "ES256" => (&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
                    _ => (&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
                };
                let pair = EcdsaKeyPair::generate(signing).map_err(failed("a key"))?;
                let public = pair.public_key();
                // An uncompressed point: 4, then both coordinates (SEC 1 §2.3.3).
                let (x, y) = public.as_ref()[1..].split_at(public.as_ref().len() / 2);
                let jwk = json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) });
                let der: PublicKeyX509Der<'_> = public.as_der().map_err(failed("a key"))?;
                let pkcs8 = pair.to_pkcs8v1().map_err(failed("a key"))?;
                (EncodingKey::from_ec_der(pkcs8.as_ref()), jwk, der, public.as_ref().to_vec())
            }
            "EdDSA" => {
                let pair = Ed25519KeyPair::generate().map_err(failed("a key"))?;
                let public = pair.public_key();
                let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(public) });
                let der: PublicKeyX509Der<'_> = public.as_der().map_err(failed("a key"))?;
                let pkcs8 = pair.to_pkcs8().map_err(failed("a key"))?;
                (EncodingKey::from_ed_der(pkcs8.as_ref()), jwk, der, public.as_ref().to_vec())
            }
            _ => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed("a key"))?;
                let public = pair.public_key();
                let modulus = public.modulus().big_endian_without_leading_zero().to_vec();
                let n = encode(&modulus);
                let e = encode(public.exponent().big_endian_without_leading_zero());
                let der: PublicKeyX509Der<'_> = public.as_der().map_err(failed("a key"))?;
                let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(failed("a key"))?;
                let secret = pem("PRIVATE KEY", pkcs8.as_ref());
                let secret = EncodingKey::from_rsa_pem(secret.as_bytes()).map_err(broken)?;
                (secret, json!({ "kty": "RSA", "n": n, "e": e }), der, modulus)
            }
        };
        let der = der.as_ref().to_vec();
        Ok(Self { kid: kid.to_owned(), algorithm, secret, public, der, raw })
    }

    pub(super) fn jwk(&self) -> Value {
        let mut jwk = self.public.clone();
        jwk["kid"] = self.kid.as_str().into();
        jwk["alg"] = self.algorithm.into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// The public key in the forms in which it has been taken for a secret elsewhere.
    pub(super) fn as_secrets(&self) -> Vec<(&'static str, Vec<u8>)> {
        let pem = self.public_pem();
        vec![
            ("PEM", pem.clone().into_bytes()),
            ("PEM without its last line break", pem.trim_end().as_bytes().to_vec()),
            ("DER", self.der.clone()),
            ("JWK", self.jwk().to_string().into_bytes()),
            ("as it is", self.raw.clone()),
        ]
    }

    pub(super) fn header(&self) -> Value {
        json!({ "alg": self.algorithm, "typ": "JWT", "kid": self.kid })
    }

    pub(super) fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &self.der)
    }

    /// The signature alone, in base64url.
    pub(super) fn sign_bytes(&self, bytes: &[u8]) -> Result<String, String> {
        let algorithm: Algorithm = self.algorithm.parse().map_err(broken)?;
        sign(bytes, &self.secret, algorithm).map_err(broken)
    }

    /// With a header that may say anything.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> Result<String, String> {
        let message = message(header, claims);
        let signature = self.sign_bytes(message.as_bytes())?;
        Ok(format!("{message}.{signature}"))
    }
}

/// What is signed.
pub(super) fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string()), encode(claims.to_string()))
}

/// HMAC-SHA-256 in base64url.
pub(super) fn hmac_of(secret: &[u8], bytes: &[u8]) -> Result<String, String> {
    hmac_by("HS256", secret, bytes)
}

/// HMAC by the algorithm of that name, in base64url.
pub(super) fn hmac_by(algorithm: &str, secret: &[u8], bytes: &[u8]) -> Result<String, String> {
    let algorithm: Algorithm = algorithm.parse().map_err(broken)?;
    sign(bytes, &EncodingKey::from_secret(secret), algorithm).map_err(broken)
}

/// With a shared secret.
pub(super) fn hmac(secret: &[u8], header: &Value, claims: &Value) -> Result<String, String> {
    let message = message(header, claims);
    let algorithm = header["alg"].as_str().unwrap_or_default();
    let signature = hmac_by(algorithm, secret, message.as_bytes())?;
    Ok(format!("{message}.{signature}"))
}
