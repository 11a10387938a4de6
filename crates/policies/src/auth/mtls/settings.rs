//! What an operator writes about clients with certificates, and how it compiles.

use std::sync::{Arc, RwLock};

use portcullis_core::auth::Authenticator;
use portcullis_core::certificate::CertificateName;
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::registry::{AuthConfig, Compile, Site};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Allowed, CertificatePart, Compiled};

/// Takes the certificate that the client has presented in the handshake.
///
/// The listener says who signs them and which are revoked (`tls.client`), or that a trusted hop
/// hands them on (`certificate_header`). A certificate counts where the request itself presents no
/// credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mtls {
    /// Whose certificates let in: any that fits one entry. Default: all that the listener takes.
    #[serde(default)]
    #[schemars(length(min = 1))]
    allow: Option<Vec<Spanned<AllowedCertificate>>>,
    /// The part of the certificate that names the client. Default: the name that fits the entry of
    /// `allow`; the subject, where that is a fingerprint or there is no `allow`.
    #[serde(default)]
    client: Option<CertificatePart>,
    /// The part that names the tenant; a certificate without it is refused. Default: there are no
    /// tenants.
    #[serde(default)]
    tenant: Option<CertificatePart>,
    /// Scopes that all of them have. Default: none.
    #[serde(default)]
    scopes: Vec<String>,
}

/// One kind of certificate: exactly one of `dns`, `uri`, `spiffe`, `email`, `common_name`,
/// `subject` and `sha256`, and who that is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AllowedCertificate {
    /// A DNS name among its alternative names; `*.example.com` is one label before it.
    #[serde(default)]
    dns: Option<Spanned<String>>,
    /// A URI among its alternative names; `*` is one whole segment of the path, `**` at the end
    /// one or more.
    #[serde(default)]
    uri: Option<Spanned<String>>,
    /// Its SPIFFE ID; `*` and `**` as in `uri`: `spiffe://example.com/ns/*/sa/shop`.
    #[serde(default)]
    spiffe: Option<Spanned<String>>,
    /// An e-mail address among its alternative names; `*@example.com` is everybody there.
    #[serde(default)]
    email: Option<Spanned<String>>,
    /// The common name of its subject, exactly.
    #[serde(default)]
    common_name: Option<Spanned<String>>,
    /// Its whole subject, exactly, as in RFC 4514: `CN=shop,O=Example`.
    #[serde(default)]
    subject: Option<Spanned<String>>,
    /// The SHA-256 of the whole certificate, in hexadecimal.
    #[serde(default)]
    sha256: Option<Spanned<String>>,
    /// What the client is called, instead of by a part of the certificate.
    #[serde(default)]
    client: Option<String>,
    /// Its tenant. Default: what `tenant` of all says.
    #[serde(default)]
    tenant: Option<String>,
    /// Scopes that these have beside those of all. Default: none.
    #[serde(default)]
    scopes: Vec<String>,
}

type Read = fn(&str) -> Result<CertificateName, &'static str>;

impl AuthConfig for Mtls {
    const NAME: &'static str = "mtls";
    const EXAMPLE: &'static str = r#"{ allow: [{ dns: "*.svc.example.com" }] }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let Self { allow, client, tenant, scopes } = self;
        let before = with.findings.errors();
        let mut allowed = Vec::new();
        for (at, entry) in allow.into_iter().flatten().enumerate() {
            let resource = format!("{}.allow[{at}]", site.resource);
            allowed.extend(compile(&entry, &resource, with));
        }
        if with.findings.errors() > before {
            return None;
        }
        Some(Arc::new(Compiled {
            auth: site.owner.into(),
            allow: allowed,
            client,
            tenant,
            scopes,
            remembered: RwLock::default(),
        }))
    }
}

fn compile(
    entry: &Spanned<AllowedCertificate>,
    resource: &str,
    with: &mut Compile<'_>,
) -> Option<Allowed> {
    let span = entry.span;
    let AllowedCertificate { client, tenant, scopes, .. } = &entry.value;
    let common_name: Read = |text| not_empty(text).map(CertificateName::CommonName);
    let subject: Read = |text| not_empty(text).map(CertificateName::Subject);
    let written: Vec<(&str, &Spanned<String>, Read)> = [
        ("dns", &entry.dns, CertificateName::dns as Read),
        ("uri", &entry.uri, CertificateName::uri),
        ("spiffe", &entry.spiffe, CertificateName::spiffe),
        ("email", &entry.email, CertificateName::email),
        ("common_name", &entry.common_name, common_name),
        ("subject", &entry.subject, subject),
        ("sha256", &entry.sha256, CertificateName::sha256),
    ]
    .into_iter()
    .filter_map(|(key, text, read)| Some((key, text.as_ref()?, read)))
    .collect();
    let [(key, text, read)] = written.as_slice() else {
        let message = "an entry has exactly one of `dns`, `uri`, `spiffe`, `email`, \
                       `common_name`, `subject` and `sha256`";
        with.findings.error("invalid-value", span, resource, message);
        return None;
    };
    match read(text) {
        Ok(name) => Some(Allowed {
            name,
            client: client.clone(),
            tenant: tenant.clone(),
            scopes: scopes.clone(),
        }),
        Err(expected) => {
            let message = format!("`{}` does not say which certificates", text.value);
            let finding =
                Finding::error("invalid-value", text.span, format!("{resource}.{key}"), message);
            with.findings.push(finding.help(expected));
            None
        }
    }
}

fn not_empty(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("an empty name fits nobody"),
        _ => Ok(text.to_owned()),
    }
}
