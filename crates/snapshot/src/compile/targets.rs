//! Where routes send their requests: names of backends become numbers, conditions are compiled.

use portcullis_config::{OneOrMany, Route as Written, When as WrittenWhen};
use portcullis_core::finding::Finding;
use portcullis_upstream::Split;

use super::Compiler;
use super::backends::hash_key;
use crate::backend::HashKey;
use crate::targets::{Targets, Variant, When};

impl Compiler<'_, '_> {
    pub(super) fn targets(&mut self, written: &Written) -> Option<Targets> {
        let config = self.config;
        let sticky = self.sticky_keys(written);
        if written.to.is_empty() {
            return None;
        }
        let resource = format!("{}.to", written.resource);
        let mut variants = Vec::new();
        for target in &written.to {
            let name = &target.backend;
            self.used.insert(format!("backends.{}", name.value));
            let when = target.when.iter().map(|when| self.variant_when(when, &resource)).collect();
            let at = (name.span, resource.as_str());
            if let Some(found) = self.resolve("backend", &config.backends, &name.value, at) {
                variants.push(Variant {
                    name: target.name.value.as_str().into(),
                    backend: found as u16,
                    weight: target.weight,
                    when,
                });
            }
        }
        let weights = variants.iter().map(|one| (&*one.name, u64::from(one.weight)));
        let split = Split::new(&written.name, weights);
        Some(Targets { variants, split, sticky })
    }

    fn variant_when(&mut self, written: &WrittenWhen, resource: &str) -> When {
        When {
            headers: self.conditions(&written.headers, resource),
            cookies: self.conditions(&written.cookies, resource),
            query: self.conditions(&written.query, resource),
        }
    }

    fn sticky_keys(&mut self, written: &Written) -> Vec<HashKey> {
        let Some(sticky) = &written.sticky else { return Vec::new() };
        if written.to.len() < 2 {
            let resource = format!("{}.sticky", written.resource);
            let message = "`sticky` has no effect: there are no variants to stay at";
            self.push(Finding::warning("no-effect", sticky.span, resource, message));
        }
        let OneOrMany(keys) = &sticky.value;
        keys.iter().map(hash_key).collect()
    }
}
