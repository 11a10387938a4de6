//! Where routes send their requests: names of backends become numbers, conditions are compiled.

use portcullis_config::{OneOrMany, Route as Written, When as WrittenWhen};
use portcullis_core::finding::Finding;
use portcullis_upstream::{AnalysisSettings, Split};

use super::Compiler;
use super::backends::hash_key;
use crate::backend::HashKey;
use crate::targets::{Canary, Targets, Variant, When};

/// Routes with an `analysis`: each has weights and two series of its own.
const CANARIES_MAX: usize = 500;

impl Compiler<'_, '_> {
    pub(super) fn targets(&mut self, written: &Written) -> Option<Targets> {
        let config = self.config;
        let sticky = self.sticky_keys(written);
        if written.to.is_empty() {
            self.canary(written, &[]);
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
                let subset = self.subset(&resource, target);
                variants.push(Variant {
                    name: target.name.value.as_str().into(),
                    backend: found as u16,
                    weight: target.weight,
                    subset,
                    when,
                });
            }
        }
        let weights = variants.iter().map(|one| (&*one.name, u64::from(one.weight)));
        let split = Split::new(&written.name, weights);
        let canary = self.canary(written, &variants);
        Some(Targets { variants, split, sticky, canary })
    }

    fn variant_when(&mut self, written: &WrittenWhen, resource: &str) -> When {
        When {
            headers: self.conditions(&written.headers, resource),
            cookies: self.conditions(&written.cookies, resource),
            query: self.conditions(&written.query, resource),
        }
    }

    fn canary(&mut self, written: &Written, variants: &[Variant]) -> Option<Canary> {
        let analysis = written.analysis.as_ref()?;
        let config = self.config;
        let resource = format!("{}.analysis", written.resource);
        let mut error = |span, message: String, help: &str| {
            let finding = Finding::error("analysis", span, resource.as_str(), message);
            self.push(finding.help(help));
            None
        };
        let name = &analysis.canary;
        let canary = variants.iter().position(|one| *one.name == *name.value.0);
        let Some(canary) = canary else {
            let message = format!("the route has no variant `{}`", name.value.0);
            return error(name.span, message, "`canary` names one of the variants in `to`");
        };
        if variants.len() != 2 {
            let message = format!("there are {} variants, and two are compared", variants.len());
            return error(analysis.span, message, "write the canary and one other into `to`");
        }
        if !analysis.steps.is_sorted_by(|before, after| before < after) {
            let message = "a step is not more than the one before".to_owned();
            return error(analysis.steps.span, message, "write them in ascending order");
        }
        if analysis.steps.first().is_some_and(|percent| percent.0 == 100) {
            let message = "the first step leaves nothing to compare with".to_owned();
            return error(analysis.steps.span, message, "begin with less, for example `[5, 100]`");
        }
        let mut watched = config.routes.iter().filter(|route| route.analysis.is_some());
        if watched.nth(CANARIES_MAX).is_some_and(|first| first.name == written.name) {
            let message = format!("more than {CANARIES_MAX} routes have an analysis");
            return error(analysis.span, message, "take it from those that are promoted");
        }
        let settings = AnalysisSettings {
            steps: analysis.steps.iter().map(|percent| percent.0).collect(),
            every: analysis.every.0,
            requests_min: analysis.requests.into(),
        };
        Some(Canary { canary, baseline: 1 - canary, settings })
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
