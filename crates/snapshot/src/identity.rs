//! Whether who answers at an endpoint is who it is to be: a backend's `tls: { identity: … }`.
//!
//! An address, and the name that leads to it, may come to belong to another service of the same
//! authority. Then a certificate for that name is no proof, but one with the service's own name is:
//! a SPIFFE ID, or a DNS name that no other service has. It takes the place of the host's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::certificate::CertificateName;
use portcullis_core::exchange::ClientCertificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use crate::client_certificates::facts::read;

/// Takes a certificate that an authority vouches for, and that has one of these names.
#[derive(Debug)]
pub(crate) struct Identified {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) names: Vec<CertificateName>,
    pub(crate) provider: Arc<CryptoProvider>,
}

/// The name that a text stands for.
///
/// # Errors
/// What the operator has to write.
pub(crate) fn name(text: &str) -> Result<CertificateName, &'static str> {
    match text {
        _ if text.parse::<IpAddr>().is_ok() => Err("an address is nobody's name"),
        _ if text.starts_with("spiffe:") => CertificateName::spiffe(text),
        _ if text.contains(':') => CertificateName::uri(text),
        _ => CertificateName::dns(text),
    }
}

/// Somebody else answers; whom the certificate names.
struct Somebody(String);

impl std::fmt::Display for Somebody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the certificate is that of {}, which is none of `tls.identity`", self.0)
    }
}

/// As which it comes to the log.
impl std::fmt::Debug for Somebody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Somebody {}

fn refused(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

/// Names are for the log: as many as say who it is.
fn told(certificate: &ClientCertificate) -> String {
    const TOLD_MAX: usize = 4;
    let all: Vec<&str> =
        certificate.uris.iter().chain(&certificate.dns).map(String::as_str).collect();
    match all.len() {
        0 => "nobody".to_owned(),
        count if count > TOLD_MAX => format!("{} and others", all[..TOLD_MAX].join(", ")),
        _ => all.join(", "),
    }
}

impl ServerCertVerifier for Identified {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, between, now, algorithms)?;
        let wall = Duration::from_secs(now.as_secs());
        let certificate = read(std::slice::from_ref(leaf), wall)
            .map_err(|why| refused(Somebody(format!("somebody who cannot be told ({why})"))))?;
        match self.names.iter().any(|name| name.find(&certificate).is_some()) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(refused(Somebody(told(&certificate)))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
