//! Who the gateway is to an authorization server, and how it proves it (RFC 6749 §2.3, RFC 7523).

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use portcullis_core::Services;
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::registry::{Compile, Site};
use portcullis_core::services::Fetch;
use schemars::JsonSchema;
use serde::Deserialize;

use super::assertion::{self, SigningKey};
use super::form::{self, Form};
use super::hidden::Hidden;

/// Who the gateway is to the authorization server, and how it proves it: by a secret, or by
/// signing with a private key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OAuthClient")]
pub(crate) struct ClientConfig {
    /// The client's id at the authorization server.
    id: Spanned<String>,
    /// Its secret: `file:PATH` or `env:NAME`, read again when it changes.
    #[serde(default)]
    secret: Option<Spanned<String>>,
    /// How the secret is sent: `client_secret_basic` (in `Authorization`) or `client_secret_post`
    /// (in the form). Default: `client_secret_basic`.
    #[serde(default)]
    method: Option<Spanned<SecretMethod>>,
    /// Instead of a secret: the private key that signs the client's assertions
    /// (`private_key_jwt`), `file:PATH` or `env:NAME`: PKCS #8 in PEM; RSA signs with RS256, P-256
    /// with ES256, P-384 with ES384, Ed25519 with EdDSA.
    #[serde(default)]
    key: Option<Spanned<String>>,
    /// The key's id in the key set that the authorization server has of this client. Default: the
    /// assertions name none.
    #[serde(default)]
    key_id: Option<String>,
    /// Who the assertions are for (`aud`). Default: the issuer, where there is one, else the URL
    /// of the endpoint.
    #[serde(default)]
    assertion_audience: Option<String>,
}

/// How a secret is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ClientSecretMethod")]
enum SecretMethod {
    ClientSecretBasic,
    ClientSecretPost,
}

/// The compiled form.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: Arc<str>,
    proof: Proof,
}

#[derive(Clone, Debug)]
enum Proof {
    /// The whole value of `Authorization`.
    Basic(Hidden),
    Post(Hidden),
    Signed {
        key: Arc<SigningKey>,
        audience: Option<Arc<str>>,
    },
}

/// Without what proves it: another secret is still the same client.
impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl ClientConfig {
    /// `key` is where it stands in the settings of `site`; `None` after an error.
    pub(crate) fn compile(
        &self,
        key: &str,
        site: &Site<'_>,
        with: &mut Compile<'_>,
    ) -> Option<Client> {
        let resource = format!("{}.{key}", site.resource);
        let id: Arc<str> = self.id.value.as_str().into();
        if id.is_empty() {
            let resource = format!("{resource}.id");
            with.findings.error("invalid-value", self.id.span, resource, "must not be empty");
            return None;
        }
        let site = Site { resource: &resource, span: self.id.span, ..*site };
        let proof = match (&self.secret, &self.key) {
            (Some(secret), None) => self.by_secret(&id, secret, &site, with)?,
            (None, Some(key)) => self.by_key(key, &site, with)?,
            (Some(_), Some(key)) => {
                let message = "a client has a `secret` or a `key`";
                with.findings.error("invalid-value", key.span, resource, message);
                return None;
            }
            (None, None) => {
                let message = "`secret` or `key` is missing: nothing proves who the client is";
                with.findings.error("missing-key", self.id.span, resource, message);
                return None;
            }
        };
        Some(Client { id, proof })
    }

    fn by_secret(
        &self,
        id: &str,
        secret: &Spanned<String>,
        site: &Site<'_>,
        with: &mut Compile<'_>,
    ) -> Option<Proof> {
        if self.key_id.is_some() || self.assertion_audience.is_some() {
            let message = "`key_id` and `assertion_audience` are for a `key`";
            with.findings.error("invalid-value", site.span, site.resource, message);
            return None;
        }
        let secret = read_secret("secret", secret, site, with)?;
        match self.method.as_ref().map(|method| method.value) {
            Some(SecretMethod::ClientSecretPost) => Some(Proof::Post(secret)),
            Some(SecretMethod::ClientSecretBasic) | None => Some(Proof::Basic(basic(id, &secret))),
        }
    }

    fn by_key(
        &self,
        key: &Spanned<String>,
        site: &Site<'_>,
        with: &mut Compile<'_>,
    ) -> Option<Proof> {
        if let Some(method) = &self.method {
            let message = "`method` is for a `secret`";
            with.findings.error("invalid-value", method.span, site.resource, message);
            return None;
        }
        let pem = read_secret("key", key, site, with)?;
        match SigningKey::from_pem(pem.bytes(), self.key_id.clone()) {
            Ok(signing) => Some(Proof::Signed {
                key: Arc::new(signing),
                audience: self.assertion_audience.as_deref().map(Into::into),
            }),
            Err(reason) => {
                let resource = format!("{}.key", site.resource);
                let message = format!("`{}` cannot sign: {reason}", key.value);
                with.findings.error("unusable-keys", key.span, resource, message);
                None
            }
        }
    }
}

/// The bytes of a secret, without the line's end that editors leave. Written as it is, it would
/// stand in a file that many can read, so only references are taken.
pub(crate) fn read_secret(
    key: &str,
    reference: &Spanned<String>,
    site: &Site<'_>,
    with: &mut Compile<'_>,
) -> Option<Hidden> {
    let resource = format!("{}.{key}", site.resource);
    if !reference.starts_with("file:") && !reference.starts_with("env:") {
        let finding = "a secret does not stand in the configuration";
        with.findings.push(
            Finding::error("invalid-value", reference.span, resource, finding)
                .help("write `file:PATH` or `env:NAME`"),
        );
        return None;
    }
    let bytes = with.read(site, reference.span, reference)?;
    let secret = bytes.trim_ascii();
    if secret.is_empty() {
        let message = format!("`{}` is empty", reference.value);
        with.findings.error("invalid-value", reference.span, resource, message);
        return None;
    }
    Some(Hidden::new(secret))
}

/// RFC 6749 §2.3.1: both are encoded as in a form before they are joined.
fn basic(id: &str, secret: &Hidden) -> Hidden {
    let mut pair = Vec::new();
    form::encode(id.as_bytes(), &mut pair);
    pair.push(b':');
    form::encode(secret.bytes(), &mut pair);
    Hidden::from(format!("Basic {}", STANDARD.encode(pair)).as_str())
}

/// An answer is a few names and a token.
const ANSWER_BYTES_MAX: usize = 256 << 10;

impl Client {
    /// A POST of this form to an endpoint, with what proves who the client is.
    ///
    /// # Errors
    /// For the operator: it cannot be signed.
    pub(crate) async fn post(
        &self,
        url: &str,
        issuer: Option<&str>,
        mut form: Form,
        services: &dyn Services,
    ) -> Result<Fetch, String> {
        let mut fields = vec![
            ("accept".to_owned(), "application/json".to_owned()),
            ("content-type".to_owned(), form::CONTENT_TYPE.to_owned()),
        ];
        match &self.proof {
            Proof::Basic(value) => {
                let value = String::from_utf8_lossy(value.bytes()).into_owned();
                fields.push(("authorization".to_owned(), value));
            }
            Proof::Post(secret) => {
                form.push("client_id", &*self.id);
                form.push("client_secret", secret.bytes());
            }
            Proof::Signed { key, audience } => {
                let audience = audience.as_deref().or(issuer).unwrap_or(url);
                let signed = assertion::sign(key, &self.id, audience, services).await?;
                form.push("client_id", &*self.id);
                form.push("client_assertion_type", assertion::TYPE);
                form.push("client_assertion", signed);
            }
        }
        Ok(Fetch {
            method: Method::POST,
            fields,
            body: form.into_body(),
            body_bytes_max: ANSWER_BYTES_MAX,
            ..Fetch::get(url)
        })
    }
}

#[cfg(test)]
mod tests;
