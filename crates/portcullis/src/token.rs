//! `portcullis token`: signed tokens for tests, and the key set that they are verified with. The
//! gateway itself never signs anything.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portcullis_proxy::Clock;
use rcgen::KeyPair;
use serde_json::{Map, Value, json};

use crate::{cli, output};

pub(crate) fn run(arguments: &cli::Token) -> anyhow::Result<ExitCode> {
    let path = arguments.key.display();
    let pem =
        std::fs::read_to_string(&arguments.key).with_context(|| format!("cannot read {path}"))?;
    let SigningKey { algorithm, key, public } =
        SigningKey::from_pem(&pem).with_context(|| path.to_string())?;
    if arguments.key_set {
        output::print_json(&key_set(&arguments.kid, algorithm, public))?;
    } else {
        let header = Header { kid: Some(arguments.kid.clone()), ..Header::new(algorithm) };
        output::print(&(jsonwebtoken::encode(&header, &claims(arguments), &key)? + "\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
    /// As a JSON Web Key, without its name.
    public: Value,
}

impl SigningKey {
    /// A key says by its kind what it can sign with.
    fn from_pem(pem: &str) -> anyhow::Result<Self> {
        if pem.contains("BEGIN EC PRIVATE KEY") {
            bail!("in an old form; `openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW` converts it");
        }
        let pair = KeyPair::from_pem(pem).ok().context("not an unencrypted private key in PEM")?;
        let pem = pem.as_bytes();
        let kind = pair.algorithm();
        let (algorithm, key) = if *kind == rcgen::PKCS_ECDSA_P256_SHA256 {
            (Algorithm::ES256, EncodingKey::from_ec_pem(pem)?)
        } else if *kind == rcgen::PKCS_ECDSA_P384_SHA384 {
            (Algorithm::ES384, EncodingKey::from_ec_pem(pem)?)
        } else if *kind == rcgen::PKCS_ED25519 {
            // RFC 8037 §2. The library cannot say it of a key file that has the public half too.
            let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
            let public = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
            let key = EncodingKey::from_ed_pem(pem)?;
            return Ok(Self { algorithm: Algorithm::EdDSA, key, public });
        } else if pair.is_compatible(&rcgen::PKCS_RSA_SHA256) {
            (Algorithm::RS256, EncodingKey::from_rsa_pem(pem)?)
        } else {
            bail!("a key of a kind that signs no tokens; take P-256, P-384, Ed25519 or RSA");
        };
        let public = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm)?)?;
        Ok(Self { algorithm, key, public })
    }
}

fn key_set(kid: &str, algorithm: Algorithm, mut public: Value) -> Value {
    public["kid"] = kid.into();
    public["alg"] = format!("{algorithm:?}").into();
    public["use"] = "sig".into();
    json!({ "keys": [public] })
}

fn claims(arguments: &cli::Token) -> Map<String, Value> {
    let now = Clock::real().now().wall;
    let mut claims = Map::new();
    let mut claim = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
    claim("iss", arguments.issuer.clone().into());
    claim("sub", arguments.client.clone().into());
    claim("client_id", arguments.client.clone().into());
    match arguments.audience.as_slice() {
        [only] => claim("aud", only.clone().into()),
        several => claim("aud", several.to_vec().into()),
    }
    if !arguments.scopes.is_empty() {
        claim("scope", arguments.scopes.join(" ").into());
    }
    claim("iat", now.as_secs().into());
    claim("exp", (now + arguments.expires_in).as_secs().into());
    for (name, value) in &arguments.claims {
        claim(name, value.clone());
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_key_signs_with_its_own_algorithm() {
        for (kind, algorithm) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
            (&rcgen::PKCS_ED25519, Algorithm::EdDSA),
            (&rcgen::PKCS_RSA_SHA256, Algorithm::RS256),
        ] {
            let pem = KeyPair::generate_for(kind).unwrap().serialize_pem();
            let found = SigningKey::from_pem(&pem).unwrap();
            assert_eq!(found.algorithm, algorithm);
            jsonwebtoken::encode(&Header::new(algorithm), &json!({}), &found.key).unwrap();
        }
        assert!(SigningKey::from_pem("no key").is_err());
    }
}
