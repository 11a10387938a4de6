//! What a listener asks of client certificates: who signs them, which are revoked.
//!
//! rustls verifies chains, in the handshake and whenever a certificate has to hold once more: after
//! a session was resumed, after a reload, or where a trusted hop hands one on. Reading what a
//! certificate says is done in [`facts`]; whom it lets in is for policies to say.

pub mod facts;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_core::exchange::ClientCertificate;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

/// Certificates that are remembered as good; all are forgotten at once where there are more.
const REMEMBERED_MAX: usize = 1024;
/// Certificates of one chain.
pub const CHAIN_MAX: usize = 10;

type ByDigest = HashMap<[u8; 32], Arc<ClientCertificate>, BuildHasherDefault<DefaultHasher>>;

/// Whose certificates hold.
#[derive(Debug)]
pub struct ClientCertificates {
    /// Fingerprint of everything here that decides.
    pub id: u64,
    /// Whether a connection has to have one.
    pub required: bool,
    verifier: Arc<dyn ClientCertVerifier>,
    /// When the first of the revocation lists expires, since 1970.
    lists_until: Duration,
    remembered: Mutex<ByDigest>,
}

impl ClientCertificates {
    #[must_use]
    pub fn new(
        id: u64,
        required: bool,
        verifier: Arc<dyn ClientCertVerifier>,
        lists_until: Duration,
    ) -> Self {
        let verifier = Arc::new(Legible(verifier));
        Self { id, required, verifier, lists_until, remembered: Mutex::default() }
    }

    /// For the handshake.
    #[must_use]
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// What a handshake has just verified. `chain` is the leaf's first.
    ///
    /// # Errors
    /// For the log: it says what nobody may say.
    pub fn read(
        &self,
        chain: &[CertificateDer<'_>],
        wall: Duration,
    ) -> Result<ClientCertificate, String> {
        let mut certificate = facts::read(chain, wall).map_err(str::to_owned)?;
        certificate.verified_until = certificate.verified_until.min(self.lists_until);
        certificate.verified_by = self.id;
        Ok(certificate)
    }

    /// Verifies a chain, at this time and by what is known now.
    ///
    /// # Errors
    /// For the log: why it does not hold.
    pub fn verify(
        &self,
        chain: &[impl AsRef<[u8]>],
        wall: Duration,
    ) -> Result<Arc<ClientCertificate>, String> {
        let chain: Vec<_> = chain.iter().map(|one| CertificateDer::from(one.as_ref())).collect();
        let [leaf, between @ ..] = chain.as_slice() else {
            return Err("no certificate".to_owned());
        };
        if between.len() >= CHAIN_MAX {
            return Err(format!("more than {CHAIN_MAX} certificates"));
        }
        let digest = facts::digest(leaf);
        if let Some(known) = self.remembered().get(&digest)
            && wall < known.verified_until
        {
            return Ok(Arc::clone(known));
        }
        let now = UnixTime::since_unix_epoch(wall);
        self.verifier.verify_client_cert(leaf, between, now).map_err(|error| error.to_string())?;
        let certificate = Arc::new(self.read(&chain, wall)?);
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, Arc::clone(&certificate));
        Ok(certificate)
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, ByDigest> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses in the handshake, with an alert, what could not be told to anybody after it.
#[derive(Debug)]
struct Legible(Arc<dyn ClientCertVerifier>);

/// Why a certificate that was signed by the right authority is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Illegible(&'static str);

impl ClientCertVerifier for Legible {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(leaf, between, now)?;
        let wall = Duration::from_secs(now.as_secs());
        match facts::read(std::slice::from_ref(leaf), wall) {
            Ok(_) => Ok(verified),
            Err(reason) => {
                let reason = OtherError(Arc::new(Illegible(reason)));
                Err(Error::InvalidCertificate(CertificateError::Other(reason)))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
