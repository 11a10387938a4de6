//! A certificate authority of the test's own, and files that exist only in memory.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::registry::Sources;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
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
        authority.distinguished_name.push(DnType::CommonName, "test authority");
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
        self.client_as(None, alpn)
    }

    /// The same for clients with a certificate of their own.
    #[must_use]
    pub fn client_as(&self, identity: Option<&Identity>, alpn: &[&str]) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(self.roots());
        let mut config = match identity {
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(identity.der(), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Whom such clients trust.
    #[must_use]
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// For a backend that speaks TLS.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server_for(None)
    }

    /// For one that takes clients of this authority only.
    #[must_use]
    pub fn server_for(&self, clients: Option<&Authority>) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.issuer.der().clone()).unwrap();
                let provider = Arc::new(aws_lc_rs::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            None => builder.with_no_client_auth(),
        };
        Arc::new(builder.with_single_cert(chain, key).unwrap())
    }

    /// The files `ca.pem`, `cert.pem` and `key.pem`, and `more`.
    #[must_use]
    pub fn files(&self, more: &[(&str, &str)]) -> Files {
        let own = [("ca.pem", &*self.ca), ("cert.pem", &self.certificate), ("key.pem", &self.key)];
        let all = own.iter().chain(more);
        Files(all.map(|(name, text)| (format!("file:{name}"), text.as_bytes().into())).collect())
    }
}

/// An authority of clients.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The certificates between it and the one that is trusted, its own first; in PEM.
    between: Vec<String>,
}

/// A certificate that a client presents, with its key, in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its own first.
    pub chain: Vec<String>,
    pub key: String,
}

impl Authority {
    /// One that signs itself.
    ///
    /// # Panics
    /// Never: these parameters are good.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(Self::params(name), key).unwrap();
        Self { issuer, between: Vec::new() }
    }

    /// One that this one has signed.
    ///
    /// # Panics
    /// Never: these parameters are good.
    #[must_use]
    pub fn under(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::signed_by(Self::params(name), key, &self.issuer).unwrap();
        let between = [issuer.pem()].into_iter().chain(self.between.iter().cloned()).collect();
        Self { issuer, between }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A client's certificate with this number, for `NUMBER.clients.test` and changed before it is
    /// signed.
    ///
    /// # Panics
    /// If it cannot be signed so.
    #[must_use]
    pub fn client(&self, number: u64, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut leaf = CertificateParams::new([format!("{number}.clients.test")]).unwrap();
        leaf.serial_number = Some(number.into());
        leaf.distinguished_name = DistinguishedName::new();
        leaf.distinguished_name.push(DnType::CommonName, format!("client {number}"));
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut leaf);
        let key = KeyPair::generate().unwrap();
        let own = leaf.signed_by(&key, &self.issuer).unwrap().pem();
        let chain = [own].into_iter().chain(self.between.iter().cloned()).collect();
        Identity { chain, key: key.serialize_pem() }
    }

    /// A list that revokes these numbers and is good until the beginning of that year.
    ///
    /// # Panics
    /// If there is no such year.
    #[must_use]
    pub fn revoking(&self, numbers: &[u64], until: i32) -> String {
        let revoked = |number: &u64| RevokedCertParams {
            serial_number: (*number).into(),
            revocation_time: date_time_ymd(2001, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2001, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: numbers.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Identity {
    /// The chain as rustls has it.
    ///
    /// # Panics
    /// Over what is not PEM.
    #[must_use]
    pub fn der(&self) -> Vec<CertificateDer<'static>> {
        let one = |pem: &String| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        self.chain.iter().map(one).collect()
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
