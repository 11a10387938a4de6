//! The order of precedence as the documentation states it, one comparison after another, over a
//! plain list. What the router is tested against.

use std::cmp::Ordering;

use portcullis_core::RequestHead;

use super::candidate::{Ask, Candidate};
use super::pattern::{HostPattern, PathPattern, RouteIndex, RoutePattern, Segment};

/// The best of all patterns that match; of equally good ones the first.
pub(super) fn find(
    patterns: &[RoutePattern],
    listener: u16,
    head: &RequestHead,
) -> Option<RouteIndex> {
    let mut best: Option<(usize, HostPattern)> = None;
    for (number, pattern) in patterns.iter().enumerate() {
        for host in hosts(pattern) {
            if !matches(pattern, &host, listener, head) {
                continue;
            }
            let better = best.as_ref().is_none_or(|(champion, champions_host)| {
                compare(pattern, &host, &patterns[*champion], champions_host) == Ordering::Greater
            });
            if better {
                best = Some((number, host));
            }
        }
    }
    best.map(|(number, _)| patterns[number].route)
}

fn hosts(pattern: &RoutePattern) -> Vec<HostPattern> {
    if pattern.hosts.is_empty() { vec![HostPattern::Any] } else { pattern.hosts.clone() }
}

fn matches(pattern: &RoutePattern, host: &HostPattern, listener: u16, head: &RequestHead) -> bool {
    let name = std::str::from_utf8(head.host()).unwrap();
    let host_fits = match host {
        HostPattern::Exact(host) => name == host,
        HostPattern::Wildcard(suffix) => name.ends_with(&format!(".{suffix}")),
        HostPattern::Any => true,
    };
    let ask = Ask::new(listener, head);
    let candidate = Candidate::new(pattern);
    host_fits
        && path_fits(&pattern.path, std::str::from_utf8(head.path()).unwrap())
        && candidate.methods.contains(ask.method)
        && candidate.conditions_hold(&ask)
}

fn path_fits(pattern: &PathPattern, path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let parts: Vec<&str> = rest.split('/').collect();
    let fits = |segments: &[Segment]| {
        segments.iter().zip(&parts).all(|(segment, part)| match segment {
            Segment::Literal(text) => text == part,
            Segment::Capture(_) => !part.is_empty(),
        })
    };
    match pattern {
        PathPattern::Exact(_) => pattern.to_string() == path,
        PathPattern::Template(segments) => segments.len() == parts.len() && fits(segments),
        PathPattern::Prefix(segments) => segments.len() <= parts.len() && fits(segments),
        PathPattern::Regex(expression) => expression.is_match(path.as_bytes()),
    }
}

fn compare(
    a: &RoutePattern,
    a_host: &HostPattern,
    b: &RoutePattern,
    b_host: &HostPattern,
) -> Ordering {
    let host = |host: &HostPattern| match host {
        HostPattern::Exact(_) => (2, 0),
        HostPattern::Wildcard(suffix) => (1, suffix.len()),
        HostPattern::Any => (0, 0),
    };
    host(a_host)
        .cmp(&host(b_host))
        .then_with(|| compare_paths(&a.path, &b.path))
        .then_with(|| (!a.methods.is_empty()).cmp(&!b.methods.is_empty()))
        .then_with(|| a.headers.len().cmp(&b.headers.len()))
        .then_with(|| a.query.len().cmp(&b.query.len()))
}

fn compare_paths(a: &PathPattern, b: &PathPattern) -> Ordering {
    let class = |path: &PathPattern| match path {
        PathPattern::Exact(_) => 3,
        PathPattern::Template(_) => 2,
        PathPattern::Prefix(_) => 1,
        PathPattern::Regex(_) => 0,
    };
    class(a).cmp(&class(b)).then_with(|| match (a, b) {
        (PathPattern::Template(a), PathPattern::Template(b)) => literals_first(a, b),
        (PathPattern::Prefix(a), PathPattern::Prefix(b)) => {
            a.len().cmp(&b.len()).then_with(|| literals_first(a, b))
        }
        _ => Ordering::Equal,
    })
}

fn literals_first(a: &[Segment], b: &[Segment]) -> Ordering {
    let literal = |segment: &Segment| matches!(segment, Segment::Literal(_));
    a.iter().map(literal).cmp(b.iter().map(literal))
}
