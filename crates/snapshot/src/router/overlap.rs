//! Where open routes and guarded ones touch: requests that both match, and paths that both serve by
//! different methods.
//!
//! Each is shown by a request, and that request is put to the router itself: what is reported is
//! what the gateway does.

use std::collections::{HashMap, HashSet};

use super::automaton::Search;
use super::candidate::MethodSet;
use super::languages::Languages;
use super::pattern::{HostPattern, PathPattern, RouteIndex, RoutePattern, Segment};
use super::witness::{Example, Fresh, Values};
use super::{LISTENERS_MAX, Router};

/// Most pairs of patterns that are compared.
const PAIRS_MAX: usize = 4_000_000;
/// Most pairs in which one is an expression.
const EXPRESSION_PAIRS_MAX: usize = 5_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    pub kind: OverlapKind,
    /// Position of the open route's pattern in the router's input.
    pub pattern: usize,
    pub open: RouteIndex,
    pub guarded: RouteIndex,
    /// A request that shows it.
    pub example: Example,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverlapKind {
    /// The open route takes what the guarded one matches as well.
    OpenWithinGuarded,
    /// The guarded route takes part of what the open one matches.
    GuardedWithinOpen,
    /// The open route takes `OPTIONS` where the guarded one takes other methods.
    Options,
    /// The open route takes some methods where the guarded one takes others.
    Methods,
}

impl Router {
    /// The overlaps of open patterns and guarded ones, at most one of a kind for two routes; and
    /// whether that is all of them.
    #[must_use]
    pub fn overlaps(
        &self,
        patterns: &[RoutePattern],
        listeners: u16,
        is_open: &dyn Fn(RouteIndex) -> bool,
        is_guarded: &dyn Fn(RouteIndex) -> bool,
    ) -> (Vec<Overlap>, bool) {
        let of = |wanted: &dyn Fn(RouteIndex) -> bool| -> Vec<usize> {
            (0..patterns.len()).filter(|at| wanted(patterns[*at].route)).collect()
        };
        let (open, guarded) = (of(is_open), of(is_guarded));
        let mut search = Overlaps {
            router: self,
            patterns,
            fresh: Fresh::new(patterns),
            listeners: u64::MAX >> (LISTENERS_MAX - listeners.clamp(1, LISTENERS_MAX)),
            languages: Languages::default(),
            expressions: 0,
            complete: true,
            seen: HashSet::new(),
            found: Vec::new(),
        };
        let mut by_beginning: HashMap<Option<&str>, Vec<usize>> = HashMap::new();
        for guarded in guarded {
            by_beginning.entry(beginning(&patterns[guarded].path)).or_default().push(guarded);
        }
        let mut left = PAIRS_MAX;
        for open in open {
            let first = beginning(&patterns[open].path);
            let touching = by_beginning
                .iter()
                .filter(|(other, _)| first.is_none() || other.is_none() || first == **other);
            let mut touching: Vec<usize> = touching.flat_map(|(_, all)| all.clone()).collect();
            // As they are written, so that the same one is named each time.
            touching.sort_unstable();
            search.complete &= touching.len() <= left;
            touching.truncate(left);
            left -= touching.len();
            touching.into_iter().for_each(|guarded| search.pair(open, guarded));
        }
        (search.found, search.complete)
    }
}

impl PathPattern {
    /// A path of the pattern that begins with a word which nobody has thought of, if an expression
    /// leaves the beginning open.
    #[must_use]
    pub fn of_any_beginning(&self) -> Option<String> {
        let stranger = Self::Prefix(vec![Segment::Literal("qzx".to_owned())]);
        match Languages::default().common(self, &stranger) {
            Search::Word(word) => Some(String::from_utf8_lossy(&word).into_owned()),
            Search::Empty | Search::Unknown => None,
        }
    }
}

struct Overlaps<'a> {
    router: &'a Router,
    patterns: &'a [RoutePattern],
    fresh: Fresh,
    listeners: u64,
    languages: Languages,
    expressions: usize,
    complete: bool,
    seen: HashSet<(OverlapKind, RouteIndex, RouteIndex)>,
    found: Vec<Overlap>,
}

impl Overlaps<'_> {
    fn pair(&mut self, open: usize, guarded: usize) {
        let (a, b) = (&self.patterns[open], &self.patterns[guarded]);
        let (one, other) = (&self.router.candidates[open], &self.router.candidates[guarded]);
        let listeners = one.listeners & other.listeners & self.listeners;
        if listeners == 0 {
            return;
        }
        let hosts = common_hosts(&a.hosts, &b.hosts);
        if hosts.is_empty() {
            return;
        }
        let Some(path) = self.common_path(open, guarded) else { return };
        let headers = self.fresh.values(&one.headers, &other.headers);
        let query = self.fresh.values(&one.query, &other.query);
        let (Values::Some(headers), Values::Some(query)) = (headers, query) else {
            // Contradictions have no request in common; what cannot be made up is not shown.
            return;
        };
        let (method, apart) = match one.methods.common(&other.methods) {
            Some(method) => (method, None),
            None => apart(&one.methods),
        };
        let listener = listeners.trailing_zeros() as u16;
        for host in hosts {
            let host = self.fresh.host(host);
            let example = Example {
                listener,
                method: method.clone(),
                host,
                path: path.clone(),
                query: query.clone(),
                headers: headers.clone(),
            };
            self.show(open, guarded, apart, example);
        }
    }

    /// Notes whose the request is, if it is one of the two's.
    fn show(
        &mut self,
        pattern: usize,
        guarded: usize,
        apart: Option<OverlapKind>,
        example: Example,
    ) {
        let (open, guarded) = (self.patterns[pattern].route, self.patterns[guarded].route);
        let Some(taker) = self.router.find_candidate(example.listener, &example.head()) else {
            return;
        };
        let taker = self.router.candidates[taker as usize].route;
        let kind = match apart {
            _ if taker == guarded => OverlapKind::GuardedWithinOpen,
            _ if taker != open => return,
            None => OverlapKind::OpenWithinGuarded,
            Some(kind) => kind,
        };
        if self.seen.insert((kind, open, guarded)) {
            self.found.push(Overlap { kind, pattern, open, guarded, example });
        }
    }

    fn common_path(&mut self, one: usize, other: usize) -> Option<String> {
        let (one, other) = (&self.patterns[one].path, &self.patterns[other].path);
        if !matches!(one, PathPattern::Regex(_)) && !matches!(other, PathPattern::Regex(_)) {
            return self.merged(one, other);
        }
        self.expressions += 1;
        if self.expressions > EXPRESSION_PAIRS_MAX {
            self.complete = false;
            return None;
        }
        match self.languages.common(one, other) {
            Search::Word(word) => Some(String::from_utf8_lossy(&word).into_owned()),
            Search::Empty => None,
            Search::Unknown => {
                self.complete = false;
                None
            }
        }
    }

    /// A path that both match, neither an expression.
    fn merged(&self, one: &PathPattern, other: &PathPattern) -> Option<String> {
        let ((a, a_open), (b, b_open)) = (parts(one)?, parts(other)?);
        let length = a.len().max(b.len());
        if !a_open && a.len() < length || !b_open && b.len() < length {
            return None;
        }
        let mut path = String::new();
        for at in 0..length {
            path.push('/');
            path.push_str(match (a.get(at).copied().flatten(), b.get(at).copied().flatten()) {
                (Some(a), Some(b)) if a != b => return None,
                (Some(text), _) | (None, Some(text)) => text,
                (None, None) => &self.fresh.word,
            });
        }
        Some(if path.is_empty() { "/".to_owned() } else { path })
    }
}

/// The first segment, if there is no choice.
fn beginning(path: &PathPattern) -> Option<&str> {
    match path {
        PathPattern::Exact(texts) => texts.first().map(String::as_str),
        PathPattern::Template(segments) | PathPattern::Prefix(segments) => {
            segments.first().and_then(literal)
        }
        PathPattern::Regex(_) => None,
    }
}

/// The segments, `None` where any will do, and whether more may follow.
fn parts(path: &PathPattern) -> Option<(Vec<Option<&str>>, bool)> {
    match path {
        PathPattern::Exact(texts) => {
            Some((texts.iter().map(|text| Some(text.as_str())).collect(), false))
        }
        PathPattern::Template(segments) => Some((segments.iter().map(literal).collect(), false)),
        PathPattern::Prefix(segments) => Some((segments.iter().map(literal).collect(), true)),
        PathPattern::Regex(_) => None,
    }
}

fn literal(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Literal(text) => Some(text),
        Segment::Capture(_) => None,
    }
}

/// The method that only the open pattern has, and what that makes of the two.
fn apart(open: &MethodSet) -> (String, Option<OverlapKind>) {
    let mut names = open.names();
    if open.names().any(|name| name == "OPTIONS") {
        return ("OPTIONS".to_owned(), Some(OverlapKind::Options));
    }
    (names.next().unwrap_or("GET").to_owned(), Some(OverlapKind::Methods))
}

/// The hosts that both lists cover, each as the narrower of the two says it.
fn common_hosts<'a>(one: &'a [HostPattern], other: &'a [HostPattern]) -> Vec<&'a HostPattern> {
    const ANY: &[HostPattern] = &[HostPattern::Any];
    let or_any = |list: &'a [HostPattern]| if list.is_empty() { ANY } else { list };
    let mut common = Vec::new();
    for a in or_any(one) {
        for b in or_any(other) {
            let narrower = match (covers(a, b), covers(b, a)) {
                (true, _) => b,
                (false, true) => a,
                (false, false) => continue,
            };
            if !common.contains(&narrower) {
                common.push(narrower);
            }
        }
    }
    common
}

/// Whether every host of `inner` is one of `outer`.
fn covers(outer: &HostPattern, inner: &HostPattern) -> bool {
    let below = |host: &str, suffix: &str| {
        host.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    };
    match (outer, inner) {
        (HostPattern::Any, _) => true,
        (HostPattern::Exact(outer), HostPattern::Exact(inner)) => outer == inner,
        (HostPattern::Wildcard(outer), HostPattern::Exact(inner)) => below(inner, outer),
        (HostPattern::Wildcard(outer), HostPattern::Wildcard(inner)) => {
            outer == inner || below(inner, outer)
        }
        _ => false,
    }
}
