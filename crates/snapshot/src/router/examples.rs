//! Requests that reach a route, for whoever wants to send them.
//!
//! Shown, not argued: of the witnesses of a pattern those remain that the router itself gives to
//! the pattern's route. What a route does with them is not known here.

use super::analysis::Analysis;
use super::automaton::Search;
use super::candidate::MethodSet;
use super::pattern::{HostPattern, PathPattern, RoutePattern};
use super::witness::{Example, Values};
use super::{LISTENERS_MAX, Router};

/// Paths of one pattern on one host and listener: `/a`, `/a/` and something below.
const PATHS_MAX: usize = 3;

impl Router {
    /// For each of the patterns that this router was compiled from: a request for each of its
    /// hosts, listeners and witnesses of its path that reaches its route. None where a better
    /// route takes them all, or where no witness could be found within the bound.
    ///
    /// The method of an example is the first that the pattern names, and `GET` where it names
    /// none.
    #[must_use]
    pub fn examples(&self, patterns: &[RoutePattern], listeners: u16) -> Vec<Vec<Example>> {
        let mut analysis = Analysis::new(self, patterns, listeners);
        (0..patterns.len()).map(|number| self.examples_of(number, &mut analysis)).collect()
    }

    fn examples_of(&self, number: usize, analysis: &mut Analysis<'_>) -> Vec<Example> {
        let patterns = analysis.patterns;
        let pattern = &patterns[number];
        let headers = analysis.fresh.values(&pattern.headers, &[]);
        let query = analysis.fresh.values(&pattern.query, &[]);
        let (Values::Some(headers), Values::Some(query)) = (headers, query) else {
            return Vec::new();
        };
        let methods = MethodSet::of(&pattern.methods);
        let method = methods.names().next().unwrap_or("GET").to_owned();
        let words = match &pattern.path {
            PathPattern::Regex(_) => analysis.words(number),
            _ => Vec::new(),
        };
        let hosts = pattern.hosts.as_slice();
        let hosts = if hosts.is_empty() { &[HostPattern::Any] } else { hosts };
        let mut examples = Vec::new();
        for host in hosts {
            // What is deeper than all patterns is taken by none that is not as open as this one.
            let depth = self.tree(host).map_or(0, |tree| tree.depth);
            let mut paths = words.clone();
            paths.extend(analysis.fresh.paths(&pattern.path, depth));
            let host = analysis.fresh.host(host);
            for listener in listeners_of(pattern, analysis.listeners) {
                let enough = examples.len() + PATHS_MAX;
                for path in &paths {
                    let example = Example {
                        listener,
                        method: method.clone(),
                        host: host.clone(),
                        path: path.clone(),
                        query: query.clone(),
                        headers: headers.clone(),
                    };
                    let taker = self.find_candidate(listener, &example.head());
                    let taker = taker.map(|taker| self.candidates[taker as usize].route);
                    if taker == Some(pattern.route) && examples.len() < enough {
                        examples.push(example);
                    }
                }
            }
        }
        examples
    }
}

fn listeners_of(pattern: &RoutePattern, listeners: u16) -> Vec<u16> {
    match pattern.listeners.as_slice() {
        [] => (0..listeners.min(LISTENERS_MAX)).collect(),
        some => some.to_vec(),
    }
}

impl Analysis<'_> {
    /// Paths of an expression: the shortest, and the shortest that no other pattern has.
    fn words(&mut self, number: usize) -> Vec<String> {
        let path = &self.patterns[number].path;
        let others = self.patterns.iter().enumerate().filter(|(other, _)| *other != number);
        let others: Vec<&PathPattern> = others.map(|(_, other)| &other.path).collect();
        let mut words = Vec::new();
        for outside in [&[][..], &others] {
            if let Search::Word(word) = self.languages.outside(path, outside) {
                let word = String::from_utf8_lossy(&word).into_owned();
                if !words.contains(&word) {
                    words.push(word);
                }
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use http::Method;

    use super::super::pattern::{Condition, RouteIndex, ValuePattern};
    use super::*;

    fn pattern(route: u32, host: &str, path: &str) -> RoutePattern {
        RoutePattern {
            route: RouteIndex(route),
            hosts: vec![HostPattern::parse(host).unwrap()],
            path: match path.strip_prefix('~') {
                Some(source) => PathPattern::regex(source).unwrap(),
                None => PathPattern::parse(path).unwrap(),
            },
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            listeners: vec![0],
        }
    }

    fn check(patterns: &[RoutePattern], expected: &Expect) {
        let (router, _) = Router::compile(patterns, 2);
        let mut out = String::new();
        for examples in router.examples(patterns, 2) {
            let texts: Vec<String> =
                examples.iter().map(|example| format!("{} {example}", example.listener)).collect();
            out += &texts.join(" | ");
            out.push('\n');
        }
        expected.assert_eq(&out);
    }

    #[test]
    fn each_form_of_pattern_has_requests_that_reach_it() {
        let mut conditioned = pattern(3, "*", "/a/{id}");
        conditioned.methods = vec![Method::POST];
        conditioned.listeners = vec![0, 1];
        conditioned.headers =
            vec![Condition { name: "x-v".to_owned(), value: ValuePattern::Exact("2".to_owned()) }];
        conditioned.query =
            vec![Condition { name: "q".to_owned(), value: ValuePattern::Prefix("p&".to_owned()) }];
        check(
            &[
                pattern(0, "a.example", "/a/**"),
                pattern(1, "*.example", "/a/b"),
                pattern(2, "*", "~/r[0-9]+"),
                conditioned,
            ],
            &expect![[r#"
                0 GET a.example/a | 0 GET a.example/a/ | 0 GET a.example/a/any
                0 GET any.example/a/b
                0 GET any/r0
                0 POST any/a/any?q=p%26any with x-v: 2 | 1 POST any/a/any?q=p%26any with x-v: 2
            "#]],
        );
    }

    #[test]
    fn what_a_better_route_takes_is_no_example() {
        check(
            &[
                pattern(0, "*", "/**"),
                pattern(1, "*", "/any"),
                pattern(2, "*", "~/(any|b)"),
                pattern(3, "*", "/b"),
            ],
            &expect![[r#"
                0 GET some/ | 0 GET some/some | 0 GET some/some/
                0 GET some/any

                0 GET some/b
            "#]],
        );
    }
}
