//! Clients by their certificate.
//!
//! That its chain holds is for the listener to see to, at the handshake and ever after; here is
//! decided whom it names, and whether that one is let in. The certificate speaks for a request only
//! where its head presents no other credential.

mod settings;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, PoisonError, RwLock};

use portcullis_core::auth::{Authenticator, Presented, Verify};
use portcullis_core::certificate::{CertificateName, spiffe_id};
use portcullis_core::codes::Code;
use portcullis_core::exchange::ClientCertificate;
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::{Exchange, Identity, Problem, RequestHead, Services, codes, hex};
use serde_json::{Map, Value};

use super::told;

pub(crate) use settings::Mtls;

/// Certificates whose client is remembered; all are forgotten at once where there are more.
const REMEMBERED_MAX: usize = 4096;

/// Whom one entry of `allow` lets in, and as what.
#[derive(Debug)]
struct Allowed {
    name: CertificateName,
    client: Option<String>,
    tenant: Option<String>,
    scopes: Vec<String>,
}

/// A part of a certificate that names somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum CertificatePart {
    /// The whole subject, as in RFC 4514: `CN=shop,O=Example`.
    Subject,
    CommonName,
    Organization,
    OrganizationalUnit,
    /// The first DNS name.
    Dns,
    /// The first URI.
    Uri,
    /// The SPIFFE ID.
    Spiffe,
    /// The SPIFFE ID's trust domain.
    TrustDomain,
    /// The first e-mail address.
    Email,
    /// The serial number, in hexadecimal.
    Serial,
    /// The fingerprint of the whole certificate, in hexadecimal.
    Sha256,
}

type ByDigest = HashMap<[u8; 32], Arc<Identity>, BuildHasherDefault<DefaultHasher>>;

#[derive(Debug)]
struct Compiled {
    auth: Arc<str>,
    /// Empty: everybody.
    allow: Vec<Allowed>,
    client: Option<CertificatePart>,
    tenant: Option<CertificatePart>,
    scopes: Vec<String>,
    remembered: RwLock<ByDigest>,
}

impl Compiled {
    fn check(&self, exchange: &Exchange) -> Result<Arc<Identity>, Problem> {
        let refuse = |code: &'static Code, detail: &str| Problem::new(code).detail(detail);
        let Some(certificate) = &exchange.certificate else {
            return Err(refuse(codes::CREDENTIALS_MISSING, "no client certificate"));
        };
        if certificate.not_after <= exchange.now.wall {
            return Err(refuse(codes::CREDENTIALS_EXPIRED, "the certificate has expired"));
        }
        let remembered = self.remembered.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = remembered.get(&certificate.sha256) {
            return Ok(Arc::clone(identity));
        }
        drop(remembered);
        let identity = self.identify(certificate);
        let identity = identity.map_err(|detail| {
            let ClientCertificate { subject, serial, .. } = &**certificate;
            let detail = format!("{detail}: subject `{subject}`, serial {serial}");
            refuse(codes::CREDENTIALS_INVALID, &detail)
        })?;
        let identity = Arc::new(identity);
        let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(certificate.sha256, Arc::clone(&identity));
        Ok(identity)
    }

    /// Whom the certificate names, or why it lets nobody in.
    fn identify(&self, certificate: &ClientCertificate) -> Result<Identity, &'static str> {
        let allowed = self.allow.iter().find_map(|one| Some((one, one.name.find(certificate)?)));
        let nobody = allowed.is_none() && !self.allow.is_empty();
        if nobody && !is_planted(Fault::CertificateNameIgnored) {
            return Err("no entry of `allow` fits the certificate");
        }
        let entry = allowed.map(|(entry, _)| entry);
        let named = match (entry.and_then(|entry| entry.client.clone()), self.client, allowed) {
            (Some(client), _, _) => Some(client),
            (None, Some(part), _) => part.of(certificate),
            (None, None, Some((_, name))) => Some(name.to_owned()),
            (None, None, None) => CertificatePart::Subject.of(certificate),
        };
        let client = named.filter(|client| !client.is_empty());
        let client = client.ok_or("the certificate does not have what `client` asks for")?;
        let mut identity = Identity::new(Arc::clone(&self.auth), client);
        identity.tenant = match (entry.and_then(|entry| entry.tenant.clone()), self.tenant) {
            (Some(tenant), _) => Some(tenant),
            (None, Some(part)) => {
                let tenant = part.of(certificate);
                Some(tenant.ok_or("the certificate does not have what `tenant` asks for")?)
            }
            (None, None) => None,
        };
        let own = entry.map(|entry| entry.scopes.as_slice()).unwrap_or_default();
        identity.scopes = self.scopes.iter().chain(own).cloned().collect();
        identity.claims = claims(certificate);
        Ok(identity)
    }
}

impl CertificatePart {
    fn of(self, certificate: &ClientCertificate) -> Option<String> {
        match self {
            Self::Subject => Some(certificate.subject.clone()).filter(|name| !name.is_empty()),
            Self::CommonName => certificate.common_name.clone(),
            Self::Organization => certificate.organization.clone(),
            Self::OrganizationalUnit => certificate.organizational_unit.clone(),
            Self::Dns => certificate.dns.first().cloned(),
            Self::Uri => certificate.uris.first().cloned(),
            Self::Spiffe => spiffe_id(certificate).map(|(id, _)| id.to_owned()),
            Self::TrustDomain => spiffe_id(certificate).map(|(_, domain)| domain.to_owned()),
            Self::Email => certificate.emails.first().cloned(),
            Self::Serial => Some(certificate.serial.clone()),
            Self::Sha256 => Some(hex::of_bytes(&certificate.sha256)),
        }
    }
}

/// For `require`, limits and headers.
fn claims(certificate: &ClientCertificate) -> Map<String, Value> {
    let mut claims = Map::new();
    let single = [
        ("subject", Some(&certificate.subject)),
        ("common_name", certificate.common_name.as_ref()),
        ("organization", certificate.organization.as_ref()),
        ("organizational_unit", certificate.organizational_unit.as_ref()),
        ("serial", Some(&certificate.serial)),
        ("sha256", Some(&hex::of_bytes(&certificate.sha256))),
    ];
    for (name, value) in single {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            claims.insert(name.to_owned(), value.clone().into());
        }
    }
    let lists =
        [("dns", &certificate.dns), ("uri", &certificate.uris), ("email", &certificate.emails)];
    for (name, values) in lists.into_iter().filter(|(_, values)| !values.is_empty()) {
        claims.insert(name.to_owned(), values.clone().into());
    }
    claims
}

impl Authenticator for Compiled {
    fn presented(&self, exchange: &Exchange) -> Presented {
        match exchange.certificate {
            Some(_) => Presented::Ambient,
            None => Presented::Nothing,
        }
    }

    /// No scheme of HTTP asks for a certificate: that is the handshake's business.
    fn challenge(&self) -> &str {
        ""
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, _: &'a dyn Services) -> Verify<'a> {
        Verify::Done(told(self.check(exchange)))
    }

    /// There is nothing of it in the head: `Client-Cert` is always the gateway's.
    fn conceal(&self, _: &mut RequestHead) {}

    fn needs_certificate(&self) -> bool {
        true
    }
}
