//! A certificate authority of the test's own, and files that exist only in memory.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::registry::Sources;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The name in the certificate.
pub const SERVER_NAME: &str = "localhost";

/// One authority and one certificate for `localhost`, `*.example.com` and 127.0.0.1.
#[derive(Clone, Debug)]
pub struct Pki {
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    #[must_use]
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With a leaf that is changed before it is signed.
    #[must_use]
    pub fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let names = [SERVER_NAME, "*.example.com", "127.0.0.1"].map(str::to_owned);
        let mut leaf = CertificateParams::new(names).unwrap();
        change(&mut leaf);
        let key = KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        Self { ca: issuer.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// What clients of a gateway with this certificate are set up with.
    #[must_use]
    pub fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// For a backend that speaks TLS.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
    }

    /// The files `ca.pem`, `cert.pem` and `key.pem`, and `more`.
    #[must_use]
    pub fn files(&self, more: &[(&str, &str)]) -> Files {
        let own = [("ca.pem", &*self.ca), ("cert.pem", &self.certificate), ("key.pem", &self.key)];
        let all = own.iter().chain(more);
        Files(all.map(|(name, text)| (format!("file:{name}"), text.as_bytes().into())).collect())
    }
}

/// Files by reference.
#[derive(Clone, Debug, Default)]
pub struct Files(HashMap<String, Arc<[u8]>>);

impl Sources for Files {
    fn read(&self, reference: &str) -> Result<Arc<[u8]>, String> {
        let found = self.0.get(reference).cloned();
        found.ok_or_else(|| format!("cannot read `{reference}`: there is no such file"))
    }
}
