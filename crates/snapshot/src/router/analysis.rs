//! What is wrong with a set of patterns: ties, and routes that no request reaches.
//!
//! Reachability is shown, not argued: a pattern is reachable when the router itself answers one
//! of its witnesses with its route. Only when all witnesses go elsewhere is it called shadowed,
//! and only where they stand for every request of the pattern; else nothing is proved.

use std::collections::HashSet;

use super::automaton::Search;
use super::candidate::Candidate;
use super::languages::Languages;
use super::pattern::{Condition, HostPattern, PathPattern, RouteIndex, RoutePattern, ValuePattern};
use super::tree::Tree;
pub use super::witness::Example;
use super::witness::{Fresh, Values};
use super::{LISTENERS_MAX, Router};

/// Most pairs of patterns compared for ties on one host.
const PAIRS_MAX: usize = 1_000_000;
/// Most pairs of expressions compared for ties on one host.
const EXPRESSION_PAIRS_MAX: usize = 5_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterFinding {
    pub kind: FindingKind,
    /// Position of the pattern in the router's input, and its route.
    pub pattern: usize,
    pub route: RouteIndex,
    /// The route it ties with, or that takes its requests.
    pub other: Option<RouteIndex>,
    /// A request that shows it.
    pub example: Option<Example>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// Both routes match the example and neither is better.
    Tie,
    /// Better routes take every request of the route.
    Unreachable,
    /// Better routes take every request of one pattern or host of the route, not of all.
    PartlyUnreachable,
    /// The conditions of the pattern contradict each other.
    NeverMatches,
    /// `HEAD` without `GET`: it goes where `GET` goes.
    HeadAlone,
    /// Neither a tie nor its absence could be shown within the bound.
    TieCannotProve,
    /// Neither reachability nor its absence could be shown within the bound.
    ReachCannotProve,
}

impl FindingKind {
    /// Whether a router with this finding must not serve.
    #[must_use]
    pub const fn is_error(self) -> bool {
        matches!(self, Self::Tie | Self::Unreachable | Self::NeverMatches | Self::HeadAlone)
    }
}

pub(super) fn analyse(
    router: &Router,
    patterns: &[RoutePattern],
    listeners: u16,
) -> Vec<RouterFinding> {
    let mut analysis = Analysis::new(router, patterns, listeners);
    for host in analysis.hosts() {
        analysis.ties(&host);
    }
    analysis.reachability();
    analysis.findings.sort_by_key(|finding| (finding.pattern, finding.other));
    analysis.findings
}

pub(super) struct Analysis<'a> {
    router: &'a Router,
    pub(super) patterns: &'a [RoutePattern],
    pub(super) fresh: Fresh,
    pub(super) listeners: u16,
    pub(super) languages: Languages,
    tied: HashSet<(RouteIndex, RouteIndex)>,
    findings: Vec<RouterFinding>,
}

enum Reach {
    Yes,
    /// All witnesses go to better routes; the first of them.
    No(RouteIndex, Example),
    Never,
    Unknown(Option<(RouteIndex, Example)>),
}

impl<'a> Analysis<'a> {
    pub(super) fn new(router: &'a Router, patterns: &'a [RoutePattern], listeners: u16) -> Self {
        Self {
            router,
            patterns,
            fresh: Fresh::new(patterns),
            listeners: listeners.clamp(1, LISTENERS_MAX),
            languages: Languages::default(),
            tied: HashSet::new(),
            findings: Vec::new(),
        }
    }

    fn hosts(&self) -> Vec<HostPattern> {
        let mut hosts: Vec<HostPattern> =
            self.patterns.iter().flat_map(|pattern| pattern.hosts.iter().cloned()).collect();
        hosts.push(HostPattern::Any);
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    fn candidate(&self, number: usize) -> &Candidate {
        &self.router.candidates[number]
    }

    fn report(&mut self, kind: FindingKind, pattern: usize, other: Option<(RouteIndex, Example)>) {
        let (other, example) = other.unzip();
        let route = self.patterns[pattern].route;
        self.findings.push(RouterFinding { kind, pattern, route, other, example });
    }

    /// Patterns of equal host and path share a list, so only these can tie, and expressions.
    fn ties(&mut self, host: &HostPattern) {
        let router = self.router;
        let Some(tree) = router.tree(host) else { return };
        let mut pairs = 0;
        for leaf in tree.leaves() {
            self.ties_of_list(host, leaf, false, PAIRS_MAX, &mut pairs);
        }
        pairs = 0;
        self.ties_of_list(host, &tree.regexes, true, EXPRESSION_PAIRS_MAX, &mut pairs);
    }

    fn ties_of_list(
        &mut self,
        host: &HostPattern,
        list: &[u32],
        expressions: bool,
        pairs_max: usize,
        pairs: &mut usize,
    ) {
        for (at, one) in list.iter().enumerate() {
            let one = *one as usize;
            for other in list[at + 1..].iter().map(|other| *other as usize) {
                if self.candidate(one).order() != self.candidate(other).order() {
                    break;
                }
                let routes = (self.patterns[one].route, self.patterns[other].route);
                if routes.0 == routes.1 || self.tied.contains(&routes) {
                    continue;
                }
                *pairs += 1;
                if *pairs > pairs_max {
                    self.report(FindingKind::TieCannotProve, one, None);
                    return;
                }
                match self.common_request(host, one, other, expressions) {
                    Common::Nothing => continue,
                    Common::Request(example) => {
                        self.report(FindingKind::Tie, other, Some((routes.0, example)));
                    }
                    Common::Unknown => {
                        let example = Example::default();
                        self.report(FindingKind::TieCannotProve, other, Some((routes.0, example)));
                        if let Some(last) = self.findings.last_mut() {
                            last.example = None;
                        }
                    }
                }
                self.tied.insert(routes);
            }
        }
    }

    fn common_request(
        &mut self,
        host: &HostPattern,
        one: usize,
        other: usize,
        expressions: bool,
    ) -> Common {
        let (a, b) = (self.candidate(one), self.candidate(other));
        let listeners = a.listeners & b.listeners & self.all_listeners();
        let Some(method) = a.methods.common(&b.methods) else { return Common::Nothing };
        if listeners == 0 {
            return Common::Nothing;
        }
        let headers = self.fresh.values(&a.headers, &b.headers);
        let query = self.fresh.values(&a.query, &b.query);
        let (headers, query) = match (headers, query) {
            (Values::Never, _) | (_, Values::Never) => return Common::Nothing,
            (Values::Some(headers), Values::Some(query)) => (headers, query),
            _ => return Common::Unknown,
        };
        let path = if expressions {
            match self.languages.common(&self.patterns[one].path, &self.patterns[other].path) {
                Search::Word(word) => String::from_utf8_lossy(&word).into_owned(),
                Search::Empty => return Common::Nothing,
                Search::Unknown => return Common::Unknown,
            }
        } else {
            self.fresh.paths(&self.patterns[one].path, 0).swap_remove(0)
        };
        let listener = listeners.trailing_zeros() as u16;
        let host = self.fresh.host(host);
        Common::Request(Example { listener, method, host, path, query, headers })
    }

    fn all_listeners(&self) -> u64 {
        u64::MAX >> (LISTENERS_MAX - self.listeners)
    }

    fn reachability(&mut self) {
        let mut reached: HashSet<RouteIndex> = HashSet::new();
        let mut dead = Vec::new();
        for number in 0..self.patterns.len() {
            let pattern = &self.patterns[number];
            let head = |method: &http::Method| *method == http::Method::HEAD;
            if pattern.methods.iter().any(head) && !pattern.methods.contains(&http::Method::GET) {
                self.report(FindingKind::HeadAlone, number, None);
            }
            let hosts = pattern.hosts.as_slice();
            let hosts = if hosts.is_empty() { &[HostPattern::Any] } else { hosts };
            for host in hosts {
                match self.reach(number, host) {
                    Reach::Yes => {
                        reached.insert(pattern.route);
                    }
                    Reach::No(by, example) => dead.push((number, by, example)),
                    Reach::Never => {
                        reached.insert(pattern.route);
                        self.report(FindingKind::NeverMatches, number, None);
                    }
                    Reach::Unknown(by) => {
                        reached.insert(pattern.route);
                        if !self.tied.iter().any(|(_, second)| *second == pattern.route) {
                            self.report(FindingKind::ReachCannotProve, number, by);
                        }
                    }
                }
            }
        }
        let mut reported = HashSet::new();
        for (number, by, example) in dead {
            let route = self.patterns[number].route;
            let partly = reached.contains(&route);
            let first = reported.insert(route);
            // A tie is the cause where there is one; being last in the file is not a second fault.
            if self.tied.iter().any(|(_, second)| *second == route) {
                continue;
            }
            if partly {
                self.report(FindingKind::PartlyUnreachable, number, Some((by, example)));
            } else if first {
                self.report(FindingKind::Unreachable, number, Some((by, example)));
            }
        }
    }

    fn reach(&mut self, number: usize, host: &HostPattern) -> Reach {
        let pattern = &self.patterns[number];
        let headers = self.fresh.values(&pattern.headers, &[]);
        let query = self.fresh.values(&pattern.query, &[]);
        let (headers, query) = match (headers, query) {
            (Values::Never, _) | (_, Values::Never) => return Reach::Never,
            (Values::Some(headers), Values::Some(query)) => (headers, query),
            _ => return Reach::Unknown(None),
        };
        let open = Example { headers, query, host: self.fresh.host(host), ..Example::default() };
        let Some(tree) = self.router.tree(host) else { return Reach::Unknown(None) };
        let mut outcome = Outcome::default();
        for example in self.openings(number, &open) {
            let done = if matches!(pattern.path, PathPattern::Regex(_)) {
                self.try_expression(number, tree, &example, &mut outcome)
            } else {
                self.fresh.paths(&pattern.path, tree.depth).into_iter().any(|path| {
                    self.try_request(number, Example { path, ..example.clone() }, &mut outcome)
                })
            };
            if done {
                return Reach::Yes;
            }
        }
        match outcome {
            Outcome { first: Some((by, example)), proved: true } => Reach::No(by, example),
            Outcome { first, .. } => Reach::Unknown(first),
        }
    }

    /// One example without a path for each listener and method that the pattern names; the
    /// presentable ones first.
    fn openings(&self, number: usize, open: &Example) -> Vec<Example> {
        let candidate = self.candidate(number);
        let methods: Vec<String> = if candidate.methods.is_any() {
            vec!["GET".to_owned(), self.fresh.method.clone()]
        } else {
            candidate.methods.names().map(str::to_owned).collect()
        };
        let listeners = candidate.listeners & self.all_listeners();
        (0..self.listeners)
            .filter(|listener| listeners & (1 << listener) != 0)
            .flat_map(|listener| methods.iter().map(move |method| (listener, method.clone())))
            .map(|(listener, method)| Example { listener, method, ..open.clone() })
            .collect()
    }

    /// Whether the request reaches the pattern's route; if not, notes who takes it.
    fn try_request(&self, number: usize, example: Example, outcome: &mut Outcome) -> bool {
        let pattern = &self.patterns[number];
        let Some(taker) = self.router.find_candidate(example.listener, &example.head()) else {
            return false;
        };
        let taker = self.candidate(taker as usize);
        if taker.route == pattern.route {
            return true;
        }
        outcome.proved &=
            implied(&taker.headers, &pattern.headers) && implied(&taker.query, &pattern.query);
        outcome.first.get_or_insert((taker.route, example));
        false
    }

    /// As `try_request`, for all paths of the pattern's expression.
    fn try_expression(
        &mut self,
        number: usize,
        tree: &Tree,
        example: &Example,
        outcome: &mut Outcome,
    ) -> bool {
        let path = &self.patterns[number].path;
        let with = |word: Vec<u8>| Example {
            path: String::from_utf8_lossy(&word).into_owned(),
            ..example.clone()
        };
        match self.languages.outside(path, &[]) {
            Search::Word(word) => {
                if self.try_request(number, with(word), outcome) {
                    return true;
                }
            }
            Search::Empty | Search::Unknown => {
                outcome.proved = false;
                return false;
            }
        }
        let better = better_paths(self.router, self.patterns, number, tree, example);
        match self.languages.outside(path, &better) {
            Search::Word(word) => self.try_request(number, with(word), outcome),
            Search::Empty => false,
            Search::Unknown => {
                outcome.proved = false;
                false
            }
        }
    }
}

/// The paths of all candidates that would be preferred, were only their paths to match.
fn better_paths<'a>(
    router: &Router,
    patterns: &'a [RoutePattern],
    number: usize,
    tree: &Tree,
    example: &Example,
) -> Vec<&'a PathPattern> {
    let head = example.head();
    let before = tree.regexes.iter().take_while(|other| **other as usize != number);
    tree.leaves()
        .flatten()
        .chain(before)
        .filter(|other| router.admits_but_for_path(**other, example.listener, &head))
        .map(|other| &patterns[*other as usize].path)
        .collect()
}

enum Common {
    Request(Example),
    Nothing,
    Unknown,
}

struct Outcome {
    first: Option<(RouteIndex, Example)>,
    proved: bool,
}

impl Default for Outcome {
    fn default() -> Self {
        Self { first: None, proved: true }
    }
}

/// Whether whatever fulfils `given` fulfils `conditions` as well.
fn implied(conditions: &[Condition], given: &[Condition]) -> bool {
    conditions.iter().all(|condition| {
        let mut same = given.iter().filter(|other| other.name == condition.name);
        same.any(|other| match (&condition.value, &other.value) {
            (ValuePattern::Present, _) => true,
            (value, ValuePattern::Exact(text)) => value.accepts(text.as_bytes()),
            (ValuePattern::Prefix(short), ValuePattern::Prefix(long)) => long.starts_with(short),
            (ValuePattern::Regex(one), ValuePattern::Regex(other)) => one == other,
            _ => false,
        })
    })
}
