//! Requests that keep to the endpoints with some labels.
//!
//! Who is in a subset is decided when the endpoints change; a choice only asks for its number.
//! What is held against an endpoint is one for all subsets and for the whole backend, and
//! priorities and zones count within a subset as they do in the whole.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::balancer::{Ask, Balancer, EndpointIndex, Settings};
use crate::endpoint::Rank;
use crate::listed::Listed;
use crate::part::Part;
use crate::tried::Tried;

/// Subsets of one backend.
pub const SUBSETS_MAX: usize = 64;

/// Which endpoints a request may go to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Terms {
    /// All of them, with these values.
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// Where none of them is usable, any other will do.
    pub or_any: bool,
}

impl Terms {
    #[must_use]
    pub fn has(&self, one: &Listed) -> bool {
        self.labels.iter().all(|(name, value)| one.labels.get(name) == Some(value))
    }
}

/// `version=v2,region=eu`
impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.labels.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

/// How a subset does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub endpoints: usize,
    /// Of them, those that get requests and are not down.
    pub usable: usize,
}

#[derive(Debug)]
pub(crate) struct Subset {
    part: Part,
    or_any: bool,
}

impl Subset {
    pub(crate) fn new(whole: &Balancer, terms: &Terms, listed: &[Listed]) -> Option<Self> {
        let mut settings = Settings { subsets: Vec::new(), ..whole.settings().clone() };
        if terms.or_any {
            // The last that is well is used, and then others: nobody is asked who may be down.
            settings.panic_threshold = 0;
        }
        let part = Part::new(settings, whole.members(), listed, |one| terms.has(one))?;
        Some(Self { part, or_any: terms.or_any })
    }

    /// Whether a request of it may go there.
    pub(crate) fn admits(&self, index: EndpointIndex) -> bool {
        self.or_any || self.part.inner(index).is_some()
    }

    pub(crate) fn pick(&self, whole: &Balancer, ask: Ask, tried: &Tried) -> Option<EndpointIndex> {
        let ask = Ask { subset: None, ..ask };
        let index = self.part.pick(ask, tried);
        if !self.or_any {
            return index;
        }
        let usable = |index: &EndpointIndex| whole.endpoint(*index).rank(ask.now) < Rank::Down;
        index.filter(usable).or_else(|| whole.pick(ask, tried))
    }

    pub(crate) fn standing(&self, now: Duration) -> Standing {
        let usable = self.part.balancer.candidates();
        Standing {
            endpoints: self.part.balancer.members().len(),
            usable: usable.filter(|(_, member)| member.endpoint.rank(now) < Rank::Down).count(),
        }
    }
}
