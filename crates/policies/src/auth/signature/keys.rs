//! The file that lists who signs, and with which key.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA512, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::Identity;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use crate::auth::listed::{self, Period};

const KEYS_MAX: usize = 100_000;
/// A shorter secret could be guessed from one signature.
const SECRET_BYTES_MIN: usize = 32;
/// 2048 bits; shorter RSA keys can be broken.
const RSA_BYTES_MIN: usize = 256;

/// The algorithms of RFC 9421 §3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Algorithm {
    HmacSha256,
    Ed25519,
    EcdsaP256Sha256,
    EcdsaP384Sha384,
    RsaPssSha512,
    #[serde(rename = "rsa-v1_5-sha256")]
    RsaV15Sha256,
}

impl Algorithm {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Self::RsaPssSha512 => "rsa-pss-sha512",
            Self::RsaV15Sha256 => "rsa-v1_5-sha256",
        }
    }

    fn of_public_keys(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Self::HmacSha256 => None,
            Self::Ed25519 => Some(&ED25519),
            Self::EcdsaP256Sha256 => Some(&ECDSA_P256_SHA256_FIXED),
            Self::EcdsaP384Sha384 => Some(&ECDSA_P384_SHA384_FIXED),
            Self::RsaPssSha512 => Some(&RSA_PSS_2048_8192_SHA512),
            Self::RsaV15Sha256 => Some(&RSA_PKCS1_2048_8192_SHA256),
        }
    }
}

/// One key, as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    /// `keyid` of its signatures.
    id: String,
    algorithm: Algorithm,
    /// PEM of a public key.
    #[serde(default)]
    key: Option<String>,
    /// Base64 of a shared secret.
    #[serde(default)]
    secret: Option<String>,
    client: String,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    expires: Option<String>,
    #[serde(default)]
    not_before: Option<String>,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: Box<str>,
    pub(super) algorithm: Algorithm,
    pub(super) period: Period,
    pub(super) identity: Arc<Identity>,
    material: Material,
}

enum Material {
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "(secret)",
            Self::Public(_) => "(public key)",
        })
    }
}

impl Key {
    /// Whether a signature costs no more than a hash.
    pub(super) fn is_quick(&self) -> bool {
        matches!(self.material, Material::Secret(_))
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            // In constant time.
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Material::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

/// Reads the file: YAML, of which JSON is a part.
///
/// # Errors
/// All that is wrong with it, as sentences for the operator.
pub(super) fn read(text: &[u8], auth: &Arc<str>) -> Result<Vec<Key>, Vec<String>> {
    let entries: Vec<KeyEntry> = listed::entries(text, KEYS_MAX)?;
    let twice = listed::twice("id", entries.iter().map(|entry| entry.id.as_str()));
    let checked = listed::check_all(entries, "key", |entry| check(entry, auth));
    match checked {
        Ok(keys) if twice.is_empty() => Ok(keys),
        Ok(_) => Err(twice),
        Err(wrong) => Err([wrong, twice].concat()),
    }
}

fn check(entry: KeyEntry, auth: &Arc<str>) -> Result<Key, String> {
    let KeyEntry { id, algorithm, key, secret, client, tenant, scopes, expires, not_before } =
        entry;
    if !listed::is_name(&id) || !id.is_ascii() {
        return Err("an `id` is a name in ASCII".to_owned());
    }
    let material = material(algorithm, key.as_deref(), secret.as_deref());
    let material = material.map_err(|why| format!("the {why} `{id}`"))?;
    listed::check_owner(&id, &client, tenant.as_deref(), &scopes)?;
    let period = Period::read(&id, expires.as_deref(), not_before.as_deref())?;
    let mut identity = Identity::new(Arc::clone(auth), client);
    identity.tenant = tenant;
    identity.scopes = scopes;
    // For the log and for limits by key: which of a client's keys it was.
    identity.claims.insert("key_id".to_owned(), id.clone().into());
    Ok(Key { id: id.into(), algorithm, period, identity: Arc::new(identity), material })
}

/// The error says what is wrong, up to whose it is.
fn material(
    algorithm: Algorithm,
    key: Option<&str>,
    secret: Option<&str>,
) -> Result<Material, &'static str> {
    match (algorithm.of_public_keys(), key, secret) {
        (None, None, Some(secret)) => {
            let bytes = STANDARD.decode(secret).map_err(|_| "`secret` is not base64: that of")?;
            if bytes.len() < SECRET_BYTES_MIN {
                return Err("`secret` has less than 32 bytes: that of");
            }
            Ok(Material::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes))))
        }
        (None, ..) => Err("algorithm `hmac-sha256` needs a `secret` and no `key`: that of"),
        (Some(verification), Some(pem), None) => {
            let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
                .map_err(|_| "`key` is no public key (PUBLIC KEY) in PEM: that of")?;
            let is_rsa = matches!(algorithm, Algorithm::RsaPssSha512 | Algorithm::RsaV15Sha256);
            if is_rsa {
                let key = rsa::PublicKey::from_der(&der);
                let key = key.map_err(|_| "`key` is not for the algorithm: that of")?;
                if key.modulus_len() < RSA_BYTES_MIN {
                    return Err("`key` has less than 2048 bits: that of");
                }
            }
            let key = ParsedPublicKey::new(verification, der.as_ref());
            key.map(Material::Public).map_err(|_| "`key` is not for the algorithm: that of")
        }
        (Some(_), ..) => Err("algorithm needs a `key` and no `secret`: that of"),
    }
}
