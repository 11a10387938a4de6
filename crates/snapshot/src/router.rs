//! From a request to its route: compiled once, immutable, on the bytes of the canonical head.
//!
//! The order of precedence is total up to ties, and ties are findings. Of all patterns that
//! match a request the best one wins, compared in this order:
//!
//! 1. **host**: exact, then the wildcard with the longest suffix, then any;
//! 2. **path**: exact; then templates (`/users/{id}`), where at the first segment in which two
//!    differ the literal wins; then prefixes (`/a/**`) with more segments first, equally long
//!    ones as templates; then regular expressions;
//! 3. **method**: a pattern that names methods before one that does not;
//! 4. **headers**: more conditions first;
//! 5. **query**: more conditions first.
//!
//! Listeners take part in matching, never in precedence. `HEAD` goes where `GET` goes and a CORS
//! preflight goes where the request it announces will go. Conditions on headers are tried on the
//! preflight itself, which does not carry the headers that it announces.
//!
//! What a route does with a request is not known here.

mod analysis;
mod automaton;
mod candidate;
mod examples;
mod languages;
mod overlap;
mod pattern;
mod tree;
mod witness;

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use portcullis_core::RequestHead;
use portcullis_core::exchange::Params;
use portcullis_core::planted::{self, Fault, is_planted};

pub use analysis::{Example, FindingKind, RouterFinding};
pub use automaton::{Expression, ExpressionError};
pub use candidate::{MethodSet, preflight};
pub(crate) use candidate::{header_holds, query_holds};
pub use overlap::{Overlap, OverlapKind};
pub use pattern::{
    Condition, HostPattern, PathPattern, PatternError, RouteIndex, RoutePattern, Segment,
    ValuePattern,
};

use candidate::{Ask, Candidate};
use tree::{SegmentHasher, Tree};

/// Most listeners the router tells apart.
pub const LISTENERS_MAX: u16 = 64;

type ByHost = HashMap<Box<[u8]>, Tree, BuildHasherDefault<SegmentHasher>>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Router {
    candidates: Vec<Candidate>,
    exact: ByHost,
    /// By the suffix after `*.`.
    wildcard: ByHost,
    any: Tree,
}

impl Router {
    /// Builds the router and says what is wrong with the patterns as a whole.
    ///
    /// `listeners` is how many there are. The router is usable whatever is found: ties go to the
    /// pattern that stands first.
    #[must_use]
    pub fn compile(patterns: &[RoutePattern], listeners: u16) -> (Self, Vec<RouterFinding>) {
        let router = Self::build(patterns);
        let findings = analysis::analyse(&router, patterns, listeners);
        (router, findings)
    }

    fn build(patterns: &[RoutePattern]) -> Self {
        let mut router = Self::default();
        for (number, pattern) in patterns.iter().enumerate() {
            router.candidates.push(Candidate::new(pattern));
            let hosts = pattern.hosts.as_slice();
            let hosts = if hosts.is_empty() { &[HostPattern::Any] } else { hosts };
            for (at, host) in hosts.iter().enumerate() {
                if !hosts[..at].contains(host) {
                    router.tree_mut(host).insert(&pattern.path, number as u32);
                }
            }
        }
        let order: Vec<_> = router.candidates.iter().map(Candidate::order).collect();
        let trees = router.exact.values_mut().chain(router.wildcard.values_mut());
        for tree in trees.chain([&mut router.any]) {
            tree.sort(|candidate| (order[candidate as usize], candidate));
        }
        router
    }

    fn tree_mut(&mut self, host: &HostPattern) -> &mut Tree {
        match host {
            HostPattern::Exact(host) => self.exact.entry(host.as_bytes().into()).or_default(),
            HostPattern::Wildcard(host) => self.wildcard.entry(host.as_bytes().into()).or_default(),
            HostPattern::Any => &mut self.any,
        }
    }

    fn tree(&self, host: &HostPattern) -> Option<&Tree> {
        match host {
            HostPattern::Exact(host) => self.exact.get(host.as_bytes()),
            HostPattern::Wildcard(host) => self.wildcard.get(host.as_bytes()),
            HostPattern::Any => Some(&self.any),
        }
    }

    /// The route of a request that came in by `listener`; `params` then holds its captures.
    #[must_use]
    pub fn find(
        &self,
        listener: u16,
        head: &RequestHead,
        params: &mut Params,
    ) -> Option<RouteIndex> {
        params.names = None;
        let found = match is_planted(Fault::RouteOrder) {
            false => self.find_candidate(listener, head),
            true => self.find_last(listener, head),
        };
        let found = &self.candidates[found? as usize];
        found.capture(head, params);
        Some(found.route)
    }

    /// The wrong way round.
    fn find_last(&self, listener: u16, head: &RequestHead) -> Option<u32> {
        let ask = Ask::new(listener, head);
        let mut last = None;
        let mut note = |number: u32| {
            let candidate = &self.candidates[number as usize];
            if candidate.methods.contains(ask.method) && candidate.conditions_hold(&ask) {
                last = Some(number);
            }
            false
        };
        for tree in self.trees(head.host()) {
            tree.find(head.path(), &mut note);
        }
        last
    }

    fn find_candidate(&self, listener: u16, head: &RequestHead) -> Option<u32> {
        let ask = Ask::new(listener, head);
        let path: &[u8] = &planted::routed_path(head);
        let mut accept = |number: u32| {
            let candidate = &self.candidates[number as usize];
            candidate.methods.contains(ask.method)
                && candidate.conditions_hold(&ask)
                && candidate.regex.as_ref().is_none_or(|regex| regex.is_match(path))
        };
        self.trees(head.host()).find_map(|tree| tree.find(path, &mut accept))
    }

    /// The methods for which the request would have a route; `None` if there is none.
    ///
    /// For requests that [`Self::find`] found no route for: 405 with `Allow`, or 404.
    #[must_use]
    pub fn allowed(&self, listener: u16, head: &RequestHead) -> Option<MethodSet> {
        let ask = Ask::new(listener, head);
        let path = head.path();
        let mut allowed: Option<MethodSet> = None;
        let mut collect = |number: u32| {
            let candidate = &self.candidates[number as usize];
            if candidate.conditions_hold(&ask)
                && candidate.regex.as_ref().is_none_or(|regex| regex.is_match(path))
            {
                allowed.get_or_insert_default().add(&candidate.methods);
            }
            false
        };
        for tree in self.trees(head.host()) {
            tree.find(path, &mut collect);
        }
        allowed
    }

    /// Whether a candidate takes the request if its path does; for the analysis.
    fn admits_but_for_path(&self, number: u32, listener: u16, head: &RequestHead) -> bool {
        let ask = Ask::new(listener, head);
        let candidate = &self.candidates[number as usize];
        candidate.methods.contains(ask.method) && candidate.conditions_hold(&ask)
    }

    /// The trees that cover a host, best first.
    fn trees<'a>(&'a self, host: &'a [u8]) -> impl Iterator<Item = &'a Tree> {
        let exact = self.exact.get(host);
        let mut rest = if self.wildcard.is_empty() { &[][..] } else { host };
        let wildcards = std::iter::from_fn(move || {
            let dot = memchr::memchr(b'.', rest)?;
            rest = &rest[dot + 1..];
            Some(self.wildcard.get(rest))
        });
        exact.into_iter().chain(wildcards.flatten()).chain([&self.any])
    }
}
