//! Mirrors of routes: the backend that gets copies becomes a number, and what makes no sense is
//! said.

use portcullis_config::Route as Written;
use portcullis_core::finding::Finding;

use super::Compiler;
use crate::mirror::Mirror;

impl Compiler<'_, '_> {
    pub(super) fn mirror(&mut self, written: &Written) -> Option<Mirror> {
        let config = self.config;
        let mirror = written.mirror.as_ref()?;
        let resource = format!("{}.mirror", written.resource);
        let to = &mirror.value.to;
        self.used.insert(format!("backends.{}", to.value));
        let at = (to.span, resource.as_str());
        let backend = self.resolve("backend", &config.backends, &to.value, at)?;
        if written.to.is_empty() {
            let message = "`mirror` has no effect: the route has no backend";
            self.push(Finding::warning("no-effect", mirror.span, resource, message));
            return None;
        }
        if written.to.iter().any(|target| target.backend.value == to.value) {
            let message = format!("`{}` gets requests of this route and copies of them", to.value);
            let finding = Finding::warning("mirrored-twice", to.span, resource, message);
            self.push(finding.help("copies are meant for a backend that has none of its requests"));
        }
        let written = &mirror.value;
        let body_bytes_max = usize::try_from(written.body_max.0).unwrap_or(usize::MAX);
        let (backend, timeout) = (backend as u16, written.timeout.0);
        let mut mirror = Mirror::new(backend, written.percent, body_bytes_max, timeout);
        mirror.unsafe_methods = written.unsafe_methods;
        Some(mirror)
    }
}
