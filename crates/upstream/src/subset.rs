//! Where endpoints stand and what they are labelled with, and the part of a backend that has some
//! labels.

use std::collections::BTreeMap;

/// What is said of an endpoint beside its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub zone: Option<Box<str>>,
    pub labels: Labels,
}

/// Names and values.
pub type Labels = BTreeMap<Box<str>, Box<str>>;

/// Which endpoints of a backend a request may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subset {
    /// Of [`crate::balancer::Settings::subsets`].
    pub number: u16,
    /// Any endpoint will do when none of the subset is well; otherwise there is none then.
    pub or_any: bool,
}

impl Place {
    /// Whether it has all of these labels.
    #[must_use]
    pub fn has(&self, labels: &Labels) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}
