//! What a route matches: written hosts, paths and conditions as patterns of the router, and the
//! router's findings at their places in the files.

use http::Method;
use portcullis_config::{Condition as WrittenCondition, Match, PathText, ValueText};
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::node::SourceSpan;
use portcullis_core::path::{Canonical, RulesByHost as _, canonicalise};

use super::Compiler;
use super::listeners::BuiltListener;
use super::routes::BuiltRoute;
use crate::router::{
    Condition, Expression, FindingKind, HostPattern, PathPattern, RouteIndex, RoutePattern, Router,
    RouterFinding, Segment, ValuePattern,
};

/// A pattern and where it is written.
pub(super) struct BuiltPattern {
    pub(super) pattern: RoutePattern,
    pub(super) span: SourceSpan,
}

impl Compiler<'_, '_> {
    /// The patterns of one `match`, one for each path; empty after an error.
    pub(super) fn patterns(
        &mut self,
        route: RouteIndex,
        written: &Match,
        resource: &str,
        listeners: &[&BuiltListener],
    ) -> Vec<BuiltPattern> {
        let errors = self.with.findings.errors();
        let hosts: Vec<HostPattern> =
            written.hosts.iter().filter_map(|host| self.host(host, resource)).collect();
        let headers = self.conditions(&written.headers, resource);
        let query = self.conditions(&written.query, resource);
        let methods: Vec<Method> = written
            .methods
            .iter()
            .filter_map(|method| Method::from_bytes(method.value.as_bytes()).ok())
            .collect();
        let mut patterns = Vec::new();
        for text in &written.paths {
            let Some(path) = self.path(text, resource) else { continue };
            self.check_canonical(text, &path, &hosts, resource, listeners);
            let pattern = RoutePattern {
                route,
                hosts: hosts.clone(),
                path,
                methods: methods.clone(),
                headers: headers.clone(),
                query: query.clone(),
                listeners: listeners.iter().map(|built| built.listener.index).collect(),
            };
            patterns.push(BuiltPattern { pattern, span: text.text().span });
        }
        // To the router no listener means any: a route that is nowhere would tie with others.
        let nowhere = listeners.is_empty() || self.with.findings.errors() > errors;
        if nowhere { Vec::new() } else { patterns }
    }

    fn host(&mut self, host: &Spanned<String>, resource: &str) -> Option<HostPattern> {
        match HostPattern::parse(&host.value) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let message = format!("the host `{}` {error}", host.value);
                self.push(Finding::error("invalid-match", host.span, resource, message));
                None
            }
        }
    }

    fn path(&mut self, text: &PathText, resource: &str) -> Option<PathPattern> {
        let (parsed, span) = match text {
            PathText::Pattern(path) => {
                let parsed = PathPattern::parse(&path.value);
                (parsed.map_err(|error| format!("the path `{}` {error}", path.value)), path.span)
            }
            PathText::Regex(source) => {
                let parsed = PathPattern::regex(&source.value);
                (parsed.map_err(|error| format!("the regular expression: {error}")), source.span)
            }
        };
        parsed
            .map_err(|message| {
                self.push(Finding::error("invalid-match", span, resource, message));
            })
            .ok()
    }

    pub(super) fn conditions(
        &mut self,
        written: &[WrittenCondition],
        resource: &str,
    ) -> Vec<Condition> {
        let mut conditions = Vec::new();
        for WrittenCondition { name, value } in written {
            let value = match value {
                ValueText::Present => ValuePattern::Present,
                ValueText::Exact(text) => ValuePattern::Exact(text.value.clone()),
                ValueText::Prefix(text) => ValuePattern::Prefix(text.value.clone()),
                ValueText::Regex(source) => match Expression::new(&source.value) {
                    Ok(expression) => ValuePattern::Regex(expression),
                    Err(error) => {
                        let message = format!("the regular expression: {error}");
                        let finding =
                            Finding::error("invalid-match", source.span, resource, message);
                        self.push(finding);
                        continue;
                    }
                },
            };
            conditions.push(Condition { name: name.value.clone(), value });
        }
        conditions
    }

    /// Requests are matched by their canonical path, so a pattern that is not canonical matches
    /// none, whatever it looks like.
    fn check_canonical(
        &mut self,
        text: &PathText,
        path: &PathPattern,
        hosts: &[HostPattern],
        resource: &str,
        listeners: &[&BuiltListener],
    ) {
        let written = match path {
            PathPattern::Regex(_) => return,
            PathPattern::Exact(_) => path.to_string(),
            PathPattern::Template(segments) | PathPattern::Prefix(segments) => {
                let plain = |segment: &Segment| match segment {
                    Segment::Literal(literal) => format!("/{literal}"),
                    Segment::Capture(_) => "/x".to_owned(),
                };
                let path: String = segments.iter().map(plain).collect();
                if path.is_empty() { "/".to_owned() } else { path }
            }
        };
        let host = match hosts {
            [HostPattern::Exact(host)] => host.as_bytes(),
            _ => b"",
        };
        let mut out = Vec::new();
        let mut refusal = None;
        for built in listeners {
            let rules = built.listener.paths.path_rules(host);
            out.clear();
            match canonicalise(written.as_bytes(), &rules, &mut out) {
                Ok(Canonical::Unchanged) => return,
                Ok(Canonical::Rewritten) => {
                    refusal = Some(format!("write `{}`", String::from_utf8_lossy(&out)));
                }
                Err(error) => {
                    let reason = error.reason();
                    refusal.get_or_insert_with(|| format!("requests are refused: {reason}"));
                }
            }
        }
        if let Some(help) = refusal {
            let text = text.text();
            let message = format!("no request has the path `{}`", text.value);
            let finding = Finding::error("path-not-canonical", text.span, resource, message);
            self.push(finding.help(help));
        }
    }

    /// The router over all routes, with its findings reported.
    pub(super) fn router(&mut self, routes: &[BuiltRoute]) -> Router {
        let built: Vec<&BuiltPattern> = routes.iter().flat_map(|route| &route.patterns).collect();
        let patterns: Vec<RoutePattern> = built.iter().map(|built| built.pattern.clone()).collect();
        let listeners = u16::try_from(self.config.listeners.len()).unwrap_or(u16::MAX);
        let (router, findings) = Router::compile(&patterns, listeners);
        for finding in findings {
            let span = built[finding.pattern].span;
            let route = |index: RouteIndex| &routes[index.0 as usize];
            let other = finding.other.map(route);
            self.push(describe(&finding, span, route(finding.route), other));
        }
        router
    }
}

fn describe(
    found: &RouterFinding,
    span: SourceSpan,
    route: &BuiltRoute,
    other: Option<&BuiltRoute>,
) -> Finding {
    let name = &route.route.name;
    let other_name = other.map_or("another route", |other| &other.route.name);
    let example = found.example.as_ref().map(|example| format!("`{example}`"));
    let example = example.as_deref().unwrap_or("some request");
    let (code, message, help) = match found.kind {
        FindingKind::Tie => (
            "route-tie",
            format!(
                "`{name}` and `{other_name}` both match {example}, and neither is more specific"
            ),
            "make one of them more specific: by host, path, methods, headers or query",
        ),
        FindingKind::Unreachable => (
            "route-unreachable",
            format!("no request reaches `{name}`: {example}, for one, goes to `{other_name}`"),
            "remove it, or make its match more specific",
        ),
        FindingKind::PartlyUnreachable => (
            "route-partly-unreachable",
            format!("this part of `{name}` is never reached: {example} goes to `{other_name}`"),
            "remove this path or host from the match",
        ),
        FindingKind::NeverMatches => (
            "match-contradicts",
            format!("no request matches `{name}`: its conditions contradict each other"),
            "two conditions on one name must allow a common value",
        ),
        FindingKind::HeadAlone => (
            "head-alone",
            format!("`{name}` matches HEAD without GET"),
            "HEAD goes where GET goes: add GET, or leave HEAD out",
        ),
        FindingKind::TieCannotProve => (
            "cannot-prove",
            format!(
                "it cannot be proved that `{name}` and `{other_name}` have no request in common"
            ),
            "the one written first has it; simplify the expressions, or add methods or headers",
        ),
        FindingKind::ReachCannotProve => (
            "cannot-prove",
            format!("it cannot be proved that any request reaches `{name}`"),
            "simplify the expressions, so that it can",
        ),
    };
    let resource = format!("{}.match", route.resource);
    let finding = match found.kind.is_error() {
        true => Finding::error(code, span, resource, message),
        false => Finding::warning(code, span, resource, message),
    };
    let finding = finding.help(help);
    match other.and_then(|other| other.patterns.first().map(|pattern| (other, pattern))) {
        Some((other, pattern)) => {
            finding.related(pattern.span, format!("`{}` is here", other.route.name))
        }
        None => finding,
    }
}
