//! The subsets of backends that routes keep to: each backend numbers its own.

use std::collections::HashMap;

use portcullis_config::{Subset as Written, Target, WhenEmpty};
use portcullis_core::finding::Finding;
use portcullis_upstream::subset::{SUBSETS_MAX, Terms};

use super::Compiler;

impl<'a> Compiler<'a, '_> {
    /// Of each backend that any route names, in the order in which they are written.
    pub(super) fn all_subsets(&mut self) -> HashMap<&'a str, Vec<Terms>> {
        let config = self.config;
        let mut all: HashMap<&str, Vec<Terms>> = HashMap::new();
        for route in &config.routes {
            for target in &route.to {
                let Some(written) = &target.subset else { continue };
                let of_backend = all.entry(&target.backend.value).or_default();
                let terms = terms(written);
                if of_backend.contains(&terms) {
                    continue;
                }
                if of_backend.len() == SUBSETS_MAX {
                    let message =
                        format!("`{}` has more than {SUBSETS_MAX} subsets", target.backend.value);
                    let resource = format!("{}.to", route.resource);
                    self.push(Finding::error("too-many", written.span, resource, message));
                    return all;
                }
                of_backend.push(terms);
            }
        }
        all
    }

    /// What the backend calls the subset that a target keeps to.
    pub(super) fn subset(&mut self, resource: &str, target: &Target) -> Option<u16> {
        let written = target.subset.as_ref()?;
        let terms = terms(written);
        self.check_subset(resource, target, &terms);
        let numbered = self.subsets.get(target.backend.value.as_str())?;
        numbered.iter().position(|one| *one == terms).map(|number| number as u16)
    }

    fn check_subset(&mut self, resource: &str, target: &Target, terms: &Terms) {
        let config = self.config;
        let named = config.backends.iter().find(|named| named.name == target.backend.value);
        let (Some(named), Some(written)) = (named, &target.subset) else { return };
        let (why, help) = match &named.value.discover {
            Some(discover) if discover.value.file.is_some() => return,
            Some(_) => ("what DNS finds has no labels", "a file of endpoints can say labels"),
            None => {
                let mut listed = named.value.endpoints.iter().map(super::listed);
                if listed.any(|one| terms.has(&one)) {
                    return;
                }
                ("no endpoint has these labels", "say `labels` of endpoints")
            }
        };
        let message = format!("the subset {terms} of `{}` is empty: {why}", named.name);
        let finding = Finding::warning("empty-subset", written.span, resource, message);
        self.push(finding.related(named.span, "this backend").help(help));
    }
}

fn terms(written: &Written) -> Terms {
    let boxed = |(name, value): (&String, &String)| (name.as_str().into(), value.as_str().into());
    Terms {
        labels: written.labels.iter().map(boxed).collect(),
        or_any: written.empty == WhenEmpty::Any,
    }
}
