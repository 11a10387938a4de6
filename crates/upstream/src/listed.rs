//! An endpoint as a source names it: the one type that every way of finding endpoints ends in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One endpoint, before anything is known of how it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// `scheme://host[:port]` or `unix:PATH`.
    pub url: Box<str>,
    /// The host that stands for it in `Host` and in TLS, where the URL has a bare address that was
    /// found under that name.
    pub name: Option<Box<str>>,
    /// 0 takes no requests.
    pub weight: u32,
    /// Used before those of a higher number.
    pub priority: u16,
    pub zone: Option<Box<str>>,
    pub labels: BTreeMap<Box<str>, Box<str>>,
    pub state: ListedState,
    /// What the source calls the version that it was last seen in; empty for the configuration.
    pub source_version: Arc<str>,
    /// When its source last named it.
    pub seen_at: Duration,
}

/// What a source says of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListedState {
    #[default]
    Active,
    /// It finishes what it has and gets nothing new.
    Draining,
}

impl Listed {
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            name: None,
            weight: 1,
            priority: 0,
            zone: None,
            labels: BTreeMap::new(),
            state: ListedState::Active,
            source_version: "".into(),
            seen_at: Duration::ZERO,
        }
    }

    /// Its share of new requests.
    #[must_use]
    pub fn share(&self) -> u32 {
        match self.state {
            ListedState::Active => self.weight,
            ListedState::Draining => 0,
        }
    }

    /// Whether the other one means the same, whenever it was seen.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.url == other.url
            && self.name == other.name
            && self.weight == other.weight
            && self.priority == other.priority
            && self.zone == other.zone
            && self.labels == other.labels
            && self.state == other.state
    }
}
