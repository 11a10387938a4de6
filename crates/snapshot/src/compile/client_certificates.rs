//! Client certificates: authorities and revocation lists, read and dated.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{CertificateHeader, ClientMode, ClientTls, CrlDepth, Reference};
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::listeners::BuiltListener;
use super::routes::BuiltRoute;
use super::{Compiler, tls};
use crate::client_certificates::ClientCertificates;
use crate::snapshot::Access;

/// What is asked of the certificates of one listener's clients.
pub(super) struct Asked<'a> {
    ca: &'a Spanned<Reference>,
    crl: Option<&'a Spanned<Reference>>,
    depth: CrlDepth,
    required: bool,
}

impl<'a> From<&'a ClientTls> for Asked<'a> {
    fn from(written: &'a ClientTls) -> Self {
        let ClientTls { ca, mode, crl, crl_depth } = written;
        let required = *mode == ClientMode::Require;
        Self { ca, crl: crl.as_ref(), depth: *crl_depth, required }
    }
}

impl<'a> From<&'a CertificateHeader> for Asked<'a> {
    fn from(written: &'a CertificateHeader) -> Self {
        let CertificateHeader { ca, crl, crl_depth } = written;
        Self { ca, crl: crl.as_ref(), depth: *crl_depth, required: false }
    }
}

/// Revocation lists, and when the first of them expires.
struct Lists {
    lists: Vec<CertificateRevocationListDer<'static>>,
    until: Duration,
}

impl Compiler<'_, '_> {
    /// `None` after an error. What is unchanged is kept over a reload.
    pub(super) fn client_certificates(
        &mut self,
        resource: &str,
        asked: &Asked<'_>,
    ) -> Option<Arc<ClientCertificates>> {
        let roots = self.authorities(resource, asked.ca);
        let lists = match asked.crl {
            Some(crl) => self.revocation_lists(resource, crl),
            None => Some(Lists { lists: Vec::new(), until: Duration::MAX }),
        };
        let (roots, Lists { lists, until }) = (roots?, lists?);
        // Two chains may lead to one authority: what is trusted is its name and its key.
        let mut seen = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            seen.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        add(&[u8::from(asked.required), asked.depth as u8]);
        for root in &roots.roots {
            add(&root.subject);
            add(&root.subject_public_key_info);
            add(root.name_constraints.as_deref().unwrap_or_default());
        }
        lists.iter().for_each(|list| add(list));
        let mut id = [0; 8];
        id.copy_from_slice(&seen.finalize().as_bytes()[..8]);
        let id = u64::from_le_bytes(id);
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, tls::provider())
            .with_crls(lists)
            .enforce_revocation_expiration();
        if asked.depth == CrlDepth::Leaf {
            builder = builder.only_check_end_entity_revocation();
        }
        if !asked.required {
            builder = builder.allow_unauthenticated();
        }
        let verifier = match builder.build() {
            Ok(verifier) => verifier,
            Err(error) => {
                let span = asked.crl.unwrap_or(asked.ca).span;
                let message = format!("client certificates cannot be verified: {error}");
                self.push(Finding::error("certificate", span, resource, message));
                return None;
            }
        };
        Some(self.with.carry.keep("client-certificates", resource, &id, || {
            ClientCertificates::new(id, asked.required, verifier, until)
        }))
    }

    fn revocation_lists(&mut self, resource: &str, crl: &Spanned<Reference>) -> Option<Lists> {
        let resource = format!("{resource}.crl");
        let bytes = self.read(&resource, crl)?;
        let lists =
            CertificateRevocationListDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        let mut error = |message: String| {
            self.with.findings.error("revocation-list", crl.span, &*resource, message);
            None
        };
        let lists = match lists {
            Ok(lists) if !lists.is_empty() => lists,
            _ => return error(format!("`{}` has no revocation lists in PEM", crl.value)),
        };
        let mut ends = Vec::new();
        for list in &lists {
            let parsed = CertificateRevocationList::from_der(list).ok();
            let end = parsed.and_then(|(_, list)| {
                Some((list.issuer().to_string(), list.next_update()?.timestamp()))
            });
            // One that never ends would say for ever that nothing has been revoked since.
            let Some(end) = end else {
                return error(format!("`{}` has a list that does not say when it ends", crl.value));
            };
            ends.push(end);
        }
        let now = self.with.now.wall.as_secs() as i64;
        for (issuer, _) in ends.iter().filter(|(_, end)| *end <= now) {
            let message = format!("the revocation list of `{issuer}` has expired");
            let finding = Finding::warning("revocation-list-date", crl.span, &*resource, message);
            self.push(
                finding.help("no certificate of this authority is taken until it is renewed"),
            );
        }
        let until = ends.iter().map(|(_, end)| u64::try_from(*end).unwrap_or_default()).min();
        Some(Lists { lists, until: until.map_or(Duration::MAX, Duration::from_secs) })
    }

    /// A route that goes by certificates is of no use where nobody asks for any.
    pub(super) fn check_certificates(
        &mut self,
        listeners: &[BuiltListener],
        routes: &[BuiltRoute],
    ) {
        for built in routes {
            let route = &built.route;
            let (Access::Authenticated { auth, .. } | Access::Optional { auth, .. }) =
                &route.access
            else {
                continue;
            };
            let needs = |name: &&Arc<str>| {
                let entry = self.auth.get(&***name).and_then(Option::as_ref);
                entry.is_some_and(|entry| entry.authenticator.needs_certificate())
            };
            let Some(name) = auth.iter().find(needs).cloned() else { continue };
            for number in &route.listeners {
                let listener = &listeners[usize::from(*number)];
                // The written one: what did not compile was meant all the same.
                let written = &self.config.listeners[usize::from(*number)].value;
                let asks = written.tls.as_ref().is_some_and(|tls| tls.client.is_some());
                if asks || written.certificate_header.is_some() {
                    continue;
                }
                let message = format!(
                    "`{}` takes certificates by `{name}`, and `{}` asks for none",
                    route.name, listener.listener.name
                );
                let resource = format!("{}.auth", built.resource);
                let finding =
                    Finding::error("no-client-certificate", built.span, resource, message)
                        .related(listener.span, "this listener")
                        .help("add `client: { ca: \"file:PATH\" }` to the listener's `tls`");
                self.push(finding);
            }
        }
    }
}
