//! Certificates and keys: read, matched, dated; and the rustls settings made of them.
//!
//! TLS 1.2 and 1.3 with rustls's default suites, all of them forward-secret and authenticated;
//! key exchange prefers X25519MLKEM768. The provider is always named, so that no other crate's
//! choice for the process can change it.

use std::sync::Arc;

use portcullis_config::{ListenerTls as WrittenTls, Reference};
use portcullis_core::certificate::CertificateName;
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::registry::Site;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, Error, RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Compiler;
use crate::backend::Protocol;
use crate::identity::Identified;
use crate::listener::ListenerTls;
use crate::snapshot::CertificateFacts;
use crate::tls::Certificates;
use crate::unverified::Anybody;

/// A certificate that expires within this is worth a word.
const EXPIRES_SOON: i64 = 21 * 86_400;

static VERSIONS: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS13, &rustls::version::TLS12];

/// Tickets that the last snapshot's connections were given stay good.
#[derive(Debug)]
struct Tickets(Option<Arc<dyn ProducesTickets>>);

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Compiler<'_, '_> {
    /// The TLS of one listener; `None` after an error.
    pub(super) fn listener_tls(
        &mut self,
        name: &str,
        resource: &str,
        written: &WrittenTls,
        http2: bool,
    ) -> Option<ListenerTls> {
        let client = written.client.as_ref().map(|client| {
            self.client_certificates(&format!("{resource}.client"), &(&client.value).into())
        });
        let mut keys = Vec::new();
        for (at, pair) in written.certificates.iter().enumerate() {
            let resource = format!("{resource}.certificates[{at}]");
            keys.push(self.pair(name, &resource, &pair.cert, &pair.key));
        }
        let keys = keys.into_iter().collect::<Option<Vec<_>>>()?;
        let client = match client {
            Some(client) => Some(client?),
            None => None,
        };
        let certificates = Arc::new(Certificates::new(keys));
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&VERSIONS)
            .map(|builder| {
                match &client {
                    Some(client) => builder.with_client_cert_verifier(client.verifier()),
                    None => builder.with_no_client_auth(),
                }
                .with_cert_resolver(Arc::clone(&certificates) as _)
            });
        // A resumed session is not asked for a certificate again: a ticket is good only where, and
        // as long as, what it was given under is what is asked.
        let asked = client.as_ref().map(|client| client.id);
        let tickets = self
            .with
            .carry
            .keep("tls-tickets", name, &asked, || Tickets(aws_lc_rs::Ticketer::new().ok()));
        let (Ok(mut config), Some(ticketer)) = (config, &tickets.0) else {
            let message = "TLS cannot be set up on this machine";
            self.with.findings.error("tls", None, resource, message);
            return None;
        };
        config.ticketer = Arc::clone(ticketer);
        // Tickets resume both versions; a cache of sessions would only take memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = alpn(if http2 { Protocol::Auto } else { Protocol::H1 });
        Some(ListenerTls { config: Arc::new(config), certificates, client })
    }

    /// Reads a chain and its key and sees whether they belong together.
    pub(super) fn pair(
        &mut self,
        owner: &str,
        resource: &str,
        cert: &Spanned<Reference>,
        key: &Spanned<Reference>,
    ) -> Option<(Arc<CertifiedKey>, Vec<String>)> {
        let chain = self.chain(resource, cert);
        let key_bytes = self.read(resource, key);
        let (chain, key_bytes) = (chain?, key_bytes?);
        let mut report = |span, message: String| {
            self.with.findings.error("certificate", span, resource, message);
            None
        };
        let Ok(private) = PrivateKeyDer::from_pem_slice(&key_bytes) else {
            let message = format!("`{}` has no private key in PEM", key.value);
            return report(key.span, message);
        };
        let leaf = chain[0].clone();
        let certified = match CertifiedKey::from_der(chain, private, &provider()) {
            Ok(certified) => certified,
            Err(Error::InconsistentKeys(_)) => {
                let message = format!("the key is not that of `{}`", cert.value);
                return report(key.span, message);
            }
            Err(error) => {
                let message = format!("certificate and key cannot be used: {error}");
                return report(key.span, message);
            }
        };
        let Some(facts) = facts(owner, &cert.value.0, &leaf) else {
            return report(cert.span, format!("`{}` is not an X.509 certificate", cert.value));
        };
        self.date(resource, cert, &facts);
        let names = facts.names.clone();
        self.certificates.push(facts);
        Some((Arc::new(certified), names))
    }

    /// The certificates in a PEM file.
    fn chain(
        &mut self,
        resource: &str,
        from: &Spanned<Reference>,
    ) -> Option<Vec<CertificateDer<'static>>> {
        let bytes = self.read(resource, from)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match chain {
            Ok(chain) if !chain.is_empty() => Some(chain),
            _ => {
                let message = format!("`{}` has no certificates in PEM", from.value);
                self.with.findings.error("certificate", from.span, resource, message);
                None
            }
        }
    }

    pub(super) fn read(&mut self, resource: &str, from: &Spanned<Reference>) -> Option<Arc<[u8]>> {
        let site = Site { owner: resource, resource, span: from.span };
        self.compile().read(&site, from.span, &from.value.0)
    }

    /// An expired certificate does not keep a configuration from serving: refusing the change that
    /// is to replace it would help nobody.
    fn date(&mut self, resource: &str, cert: &Spanned<Reference>, facts: &CertificateFacts) {
        let now = self.with.now.wall.as_secs() as i64;
        let left = facts.not_after - now;
        let message = if left < 0 {
            format!("the certificate expired {} days ago", -left / 86_400)
        } else if facts.not_before > now {
            "the certificate is not valid yet".to_owned()
        } else if left < EXPIRES_SOON {
            format!("the certificate expires in {} days", left / 86_400)
        } else {
            return;
        };
        self.push(Finding::warning("certificate-date", cert.span, resource, message));
    }

    /// The authorities in a PEM file.
    pub(super) fn authorities(
        &mut self,
        resource: &str,
        ca: &Spanned<Reference>,
    ) -> Option<Arc<RootCertStore>> {
        let chain = self.chain(resource, ca)?;
        let mut store = RootCertStore::empty();
        for authority in chain {
            if let Some(facts) = facts("", &ca.value.0, &authority) {
                self.date(resource, ca, &facts);
            }
            if store.add(authority).is_err() {
                let message = format!("`{}` has a certificate that cannot be trusted", ca.value);
                self.with.findings.error("certificate", ca.span, resource, message);
                return None;
            }
        }
        Some(Arc::new(store))
    }
}

/// What is offered, best first (RFC 7301).
pub(super) fn alpn(protocol: Protocol) -> Vec<Vec<u8>> {
    let offered: &[&[u8]] = match protocol {
        Protocol::Auto => &[b"h2", b"http/1.1"],
        Protocol::H1 => &[b"http/1.1"],
        Protocol::H2 => &[b"h2"],
    };
    offered.iter().map(|name| name.to_vec()).collect()
}

/// Which backends are taken for right.
pub(super) enum Trust {
    /// With a certificate for one of these, or where there are none for the name asked for.
    Named(Vec<CertificateName>),
    Anybody,
}

/// The client side, towards a backend. It offers nothing by ALPN yet.
pub(super) fn client(
    roots: Arc<RootCertStore>,
    trust: Trust,
    own: Option<Arc<CertifiedKey>>,
) -> Option<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&VERSIONS).ok()?;
    let builder = match trust {
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Anybody::new(provider()))
        }
        Trust::Named(names) if !names.is_empty() => {
            let identified = Identified { roots, names, provider: provider() };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(identified))
        }
        Trust::Named(_) => builder.with_root_certificates(roots),
    };
    Some(match own {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    })
}

/// Whom a certificate is for and until when; names by subjectAltName only (RFC 9110 §4.3.4).
fn facts(owner: &str, source: &str, leaf: &CertificateDer<'_>) -> Option<CertificateFacts> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|names| &names.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Some(CertificateFacts {
        owner: owner.to_owned(),
        source: source.to_owned(),
        names: names.collect(),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}
