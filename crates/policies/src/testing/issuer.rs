//! An issuer of tokens: its keys and what it signs.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::START;

pub(crate) const ISSUER: &str = "https://idp.example/";

/// Claims of a good token, some of them changed; `null` removes one.
pub(crate) fn claims(changes: &Value) -> Value {
    let now = START.wall.as_secs();
    let mut claims =
        json!({ "iss": ISSUER, "aud": "orders", "sub": "alice", "exp": now + 300, "iat": now });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

pub(crate) fn jwks(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

/// A request with this token.
pub(crate) fn bearer(token: &str) -> String {
    format!("192.0.2.7 GET / | Authorization: Bearer {token}")
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Es256,
    Es384,
    Rsa,
    Ed25519,
}

pub(crate) struct Signer {
    kid: String,
    algorithm: Algorithm,
    secret: EncodingKey,
    public: Value,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key of this kind as PKCS #8 in PEM, and the public one as a JWK.
pub(crate) fn key_pair(kind: Kind) -> (String, Value) {
    let (secret, public) = match kind {
        Kind::Es256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            (pair.to_pkcs8v1().unwrap().as_ref().to_vec(), ec(&pair, Algorithm::ES256, "P-256").2)
        }
        Kind::Es384 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
            (pair.to_pkcs8v1().unwrap().as_ref().to_vec(), ec(&pair, Algorithm::ES384, "P-384").2)
        }
        Kind::Rsa => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let public = pair.public_key();
            let n = encode(public.modulus().big_endian_without_leading_zero());
            let e = encode(public.exponent().big_endian_without_leading_zero());
            let secret: Pkcs8V1Der<'_> = pair.as_der().unwrap();
            (secret.as_ref().to_vec(), json!({ "kty": "RSA", "n": n, "e": e }))
        }
        Kind::Ed25519 => {
            let pair = Ed25519KeyPair::generate().unwrap();
            let x = encode(pair.public_key());
            let public = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
            (pair.to_pkcs8v1().unwrap().as_ref().to_vec(), public)
        }
    };
    let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");
    (format!("{begin}\n{}\n{end}\n", STANDARD.encode(secret)), public)
}

impl Signer {
    /// With a key that is made at this moment.
    pub(crate) fn new(kid: &str, kind: Kind) -> Self {
        let (algorithm, secret, public) = match kind {
            Kind::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
                ec(&pair, Algorithm::ES256, "P-256")
            }
            Kind::Es384 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
                ec(&pair, Algorithm::ES384, "P-384")
            }
            Kind::Rsa => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
                let public = pair.public_key();
                let n = encode(public.modulus().big_endian_without_leading_zero());
                let e = encode(public.exponent().big_endian_without_leading_zero());
                let secret: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                let text = STANDARD.encode(secret.as_ref());
                let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");
                let pem = format!("{begin}\n{text}\n{end}\n");
                let secret = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
                (Algorithm::RS256, secret, json!({ "kty": "RSA", "n": n, "e": e }))
            }
            Kind::Ed25519 => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let x = encode(pair.public_key());
                let secret = EncodingKey::from_ed_der(pair.to_pkcs8().unwrap().as_ref());
                (Algorithm::EdDSA, secret, json!({ "kty": "OKP", "crv": "Ed25519", "x": x }))
            }
        };
        Self { kid: kid.to_owned(), algorithm, secret, public }
    }

    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = self.public.clone();
        jwk["kid"] = self.kid.as_str().into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        let algorithm = format!("{:?}", self.algorithm);
        self.sign(&json!({ "alg": algorithm, "typ": "JWT", "kid": self.kid }), claims)
    }

    /// With claims that may be any text.
    pub(crate) fn sign_text(&self, claims: &str) -> String {
        let algorithm = format!("{:?}", self.algorithm);
        self.sign_both(&json!({ "alg": algorithm, "kid": self.kid }), claims)
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// With a header and claims that may be any text.
    pub(crate) fn sign_under(&self, header: &str, claims: &str) -> String {
        self.sign_with(self.algorithm, header, claims)
    }

    /// With a header that may say anything.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_both(header, &claims.to_string())
    }

    fn sign_both(&self, header: &Value, claims: &str) -> String {
        let algorithm = match header["alg"] == "PS256" {
            true => Algorithm::PS256,
            false => self.algorithm,
        };
        self.sign_with(algorithm, &header.to_string(), claims)
    }

    fn sign_with(&self, algorithm: Algorithm, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.secret, algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

fn ec(pair: &EcdsaKeyPair, algorithm: Algorithm, curve: &str) -> (Algorithm, EncodingKey, Value) {
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let public = json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) });
    (algorithm, EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()), public)
}
