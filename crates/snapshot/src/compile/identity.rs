//! Who a backend's endpoints are to be, as `tls.identity` says it. Verifying is done elsewhere.

use portcullis_config::BackendTls;
use portcullis_core::certificate::CertificateName;
use portcullis_core::finding::Finding;

use super::Compiler;
use crate::identity::name;

impl Compiler<'_, '_> {
    /// The names of `tls.identity`; none where it says nothing. `None` after an error.
    pub(super) fn identity(
        &mut self,
        resource: &str,
        written: &BackendTls,
    ) -> Option<Vec<CertificateName>> {
        let Some(identity) = &written.identity else { return Some(Vec::new()) };
        let mut names = Vec::new();
        for one in identity.iter() {
            let (message, help) = match (&written.unverified, name(&one.value)) {
                (Some(_), _) => ("nobody's identity is verified", "remove `unverified`"),
                (None, Err(help)) => ("no certificate could have this name", help),
                (None, Ok(name)) => {
                    names.push(name);
                    continue;
                }
            };
            let at = format!("{resource}.identity");
            self.push(Finding::error("identity", one.span, at, message).help(help));
        }
        let whole = names.len() == identity.iter().count() && !names.is_empty();
        whole.then_some(names)
    }
}
