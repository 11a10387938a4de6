//! Path patterns as languages, built when first needed and kept for one analysis.

use std::collections::HashMap;

use super::automaton::{Expression, Language, Search, shortest};
use super::pattern::{PathPattern, Segment};

/// Most patterns joined into one automaton.
const UNION_MAX: usize = 4_000;

/// The bytes of paths, the readable ones first. No `%`: an example is plain.
const PATH_ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ\
    /-._~!$&'()*+,=:@";

/// Paths without empty and dot segments, which the canonical path does not have.
const CANONICAL: &str = "/(?:(?:[^./][^/]*|\\.[^./][^/]*|\\.\\.[^/]+)/)*\
    (?:[^./][^/]*|\\.[^./][^/]*|\\.\\.[^/]+)?";

#[derive(Default)]
pub(super) struct Languages {
    canonical: Option<Language>,
    by_source: HashMap<String, Option<Language>>,
}

impl Languages {
    /// A path that both patterns match.
    pub(super) fn common(&mut self, one: &PathPattern, other: &PathPattern) -> Search {
        let (one, other) = (expression(one), expression(other));
        self.search(&[one, other], None)
    }

    /// A path that the pattern matches and none of `outside` does.
    pub(super) fn outside(&mut self, inside: &PathPattern, outside: &[&PathPattern]) -> Search {
        if outside.len() > UNION_MAX {
            return Search::Unknown;
        }
        let mut all = Vec::new();
        for pattern in outside {
            let Some(expression) = expression(pattern) else { return Search::Unknown };
            all.push(expression);
        }
        let union = if all.is_empty() {
            None
        } else {
            match Language::union(&all) {
                None => return Search::Unknown,
                union => union,
            }
        };
        self.search(&[expression(inside)], union.as_ref())
    }

    fn search(&mut self, inside: &[Option<Expression>], outside: Option<&Language>) -> Search {
        if self.canonical.is_none() {
            self.canonical = Expression::new(CANONICAL).ok().and_then(|e| e.language());
        }
        let mut sources = Vec::new();
        for expression in inside {
            let Some(expression) = expression else { return Search::Unknown };
            let source = expression.source().to_owned();
            self.by_source.entry(source.clone()).or_insert_with(|| expression.language());
            sources.push(source);
        }
        let mut languages = Vec::new();
        for language in sources.iter().filter_map(|source| self.by_source.get(source)) {
            let Some(language) = language else { return Search::Unknown };
            languages.push(language);
        }
        let Some(canonical) = &self.canonical else { return Search::Unknown };
        let outside: Vec<&Language> = outside.into_iter().collect();
        let mut canonical_only = languages.clone();
        canonical_only.push(canonical);
        match shortest(&canonical_only, &outside, PATH_ALPHABET) {
            // Only bytes or segments that a plain example does not have: possible, not shown.
            Search::Empty if !matches!(anything(&languages, &outside), Search::Empty) => {
                Search::Unknown
            }
            found => found,
        }
    }
}

fn anything(inside: &[&Language], outside: &[&Language]) -> Search {
    let Some(rooted) = Expression::new("/.*").ok().and_then(|rooted| rooted.language()) else {
        return Search::Unknown;
    };
    let alphabet: Vec<u8> = (b'!'..=b'~').filter(|byte| !b"?#".contains(byte)).collect();
    let mut inside = inside.to_vec();
    inside.push(&rooted);
    shortest(&inside, outside, &alphabet)
}

/// The pattern as an expression; `None` when that would be too long.
fn expression(pattern: &PathPattern) -> Option<Expression> {
    let (segments, tail): (Vec<String>, _) = match pattern {
        PathPattern::Regex(expression) => return Some(expression.clone()),
        PathPattern::Exact(texts) => (texts.iter().map(|t| regex_syntax::escape(t)).collect(), ""),
        PathPattern::Template(segments) => (segments.iter().map(part).collect(), ""),
        PathPattern::Prefix(segments) if segments.is_empty() => (vec![".*".to_owned()], ""),
        PathPattern::Prefix(segments) => (segments.iter().map(part).collect(), "(?:/.*)?"),
    };
    let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
    Expression::new(&(path + tail)).ok()
}

fn part(segment: &Segment) -> String {
    match segment {
        Segment::Literal(text) => regex_syntax::escape(text),
        Segment::Capture(_) => "[^/]+".to_owned(),
    }
}
