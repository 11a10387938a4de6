//! Certificates of the gateway under audit, and those of its clients, by authorities that are made
//! for the audit and forgotten with it.
//!
//! The names are those of the operator's certificates where these can be read, since by them the
//! gateway tells connections apart. Private keys of the operator are never read.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_config::{Config, Match};
use portcullis_core::registry::Sources;
use portcullis_snapshot::unverified::Anybody;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What goes wrong with certificates is a matter of the machine: no entropy, no memory.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An authority.
pub(crate) struct Authority {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self, Failure> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// A client's certificate and key, changed before it is signed.
    pub(crate) fn client(
        &self,
        serial: u64,
        change: impl FnOnce(&mut CertificateParams) -> Result<(), Failure>,
    ) -> Result<ClientIdentity, Failure> {
        let mut leaf = CertificateParams::new(Vec::new())?;
        leaf.serial_number = Some(serial.into());
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut leaf)?;
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &self.issuer)?;
        Ok(ClientIdentity { chain: vec![certificate.der().clone()], key: key.serialize_der() })
    }
}

/// What a client presents in a handshake.
#[derive(Clone, Debug)]
pub(crate) struct ClientIdentity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// PKCS #8.
    pub(crate) key: Vec<u8>,
}

/// A pair for each reference to a certificate or a key of a listener.
pub(crate) fn of_listeners(
    config: &Config,
    written: &dyn Sources,
    made: &mut HashMap<String, Arc<[u8]>>,
) -> Result<(), Failure> {
    let hosts = hosts(config);
    for named in &config.listeners {
        let pairs = named.value.tls.iter().flat_map(|tls| &tls.value.certificates);
        for (number, pair) in pairs.enumerate() {
            let (certificate, key) = (pair.cert.value.to_string(), pair.key.value.to_string());
            let names = match written.read(&certificate).ok().and_then(|pem| names(&pem)) {
                Some(names) => names,
                // Nobody can tell which of several is for which host.
                None if number == 0 => hosts.clone(),
                None => vec![format!("certificate-{number}.invalid")],
            };
            pair_for(names, (certificate, key), made)?;
        }
    }
    Ok(())
}

/// What backends are verified with, and what the gateway presents to them.
pub(crate) fn of_backends(
    config: &Config,
    made: &mut HashMap<String, Arc<[u8]>>,
) -> Result<(), Failure> {
    for named in &config.backends {
        let Some(tls) = &named.value.tls else { continue };
        if let Some(ca) = &tls.value.ca {
            let authority = Authority::new("audit authority of backends")?;
            made.insert(ca.value.to_string(), authority.issuer.pem().into_bytes().into());
        }
        if let (Some(certificate), Some(key)) = (&tls.value.cert, &tls.value.key) {
            let references = (certificate.value.to_string(), key.value.to_string());
            pair_for(vec!["audit.invalid".to_owned()], references, made)?;
        }
    }
    Ok(())
}

/// Puts a certificate for these names, and its key, where they are referred to.
fn pair_for(
    names: Vec<String>,
    (certificate, key): (String, String),
    made: &mut HashMap<String, Arc<[u8]>>,
) -> Result<(), Failure> {
    let pair = KeyPair::generate()?;
    let signed = CertificateParams::new(names)?.self_signed(&pair)?;
    made.insert(certificate, signed.pem().into_bytes().into());
    made.insert(key, pair.serialize_pem().into_bytes().into());
    Ok(())
}

/// The authority that verifies backends, for configurations that rest on the system's.
pub(crate) fn roots() -> Result<Arc<RootCertStore>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(Authority::new("audit authority of backends")?.issuer.der().clone())?;
    Ok(Arc::new(roots))
}

/// The names in a certificate.
fn names(pem: &[u8]) -> Option<Vec<String>> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let alternative = certificate.subject_alternative_name().ok()??;
    let names = alternative.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress([a, b, c, d]) => {
            Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string())
        }
        _ => None,
    });
    Some(names.collect()).filter(|names: &Vec<String>| !names.is_empty())
}

/// Every host that a route names.
fn hosts(config: &Config) -> Vec<String> {
    let matches = config.routes.iter().flat_map(|route| &route.matches);
    let named = matches.flat_map(|Match { hosts, .. }| hosts);
    let named = named.map(|host| host.value.to_ascii_lowercase()).filter(|host| host != "*");
    let mut hosts: Vec<String> = named.filter(|host| !host.starts_with('[')).collect();
    hosts.push("localhost".to_owned());
    hosts.sort();
    hosts.dedup();
    hosts
}

/// How clients of the audit make connections. The gateway is the audit's own, so nobody has to ask
/// whether it is the right one.
pub(crate) fn client(
    identity: Option<&ClientIdentity>,
    http2: bool,
) -> Result<Arc<ClientConfig>, Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Anybody::new(provider));
    let mut config = match identity {
        Some(identity) => {
            let key = PrivateKeyDer::Pkcs8(identity.key.clone().into());
            builder.with_client_auth_cert(identity.chain.clone(), key)?
        }
        None => builder.with_no_client_auth(),
    };
    let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    // A session that is resumed would not show that the certificate is asked for.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
