//! Changes the path and the query that the backend sees.
//!
//! The result is made canonical like what clients send. Routing has happened: a rewrite chooses no
//! other route.

use std::sync::Arc;

use portcullis_core::decode::{Fault, Spanned};
use portcullis_core::finding::Finding;
use portcullis_core::head::Span;
use portcullis_core::path::{Canonical, PathRules, Treatment, canonicalise, check_query};
use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::{Exchange, Phase, Policy, Problem, Services, Step, codes};
use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::template::PathTemplate;

/// A regex that compiles to more than this is refused.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Changes the path and the query that the backend sees; the access log keeps what the client sent.
///
/// One of `strip_prefix`, `prefix`, `path` and `regex`, with or without `query`; or `query` alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rewrite {
    /// Takes this off the beginning: `/shop` makes `/shop/cart` into `/cart` and `/shop` into `/`.
    /// A path that does not begin with these segments (`/shopping`) stays as it is.
    #[serde(default)]
    strip_prefix: Option<Spanned<String>>,
    /// Puts another beginning in the place of one, by whole segments.
    #[serde(default)]
    prefix: Option<Prefix>,
    /// The whole new path. `{name}` is what the route's path captured under that name.
    #[serde(default)]
    path: Option<Spanned<String>>,
    /// Replaces what a regular expression finds first. A path in which it finds nothing stays as it
    /// is.
    #[serde(default)]
    regex: Option<Replace>,
    /// The new query, without `?`; an empty one removes it. Default: the query stays.
    #[serde(default)]
    query: Option<Spanned<String>>,
}

/// One beginning in the place of another.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Prefix {
    /// The beginning to replace: `/v1`.
    from: Spanned<String>,
    /// What stands there instead: `/api/v2`.
    to: Spanned<String>,
}

/// A regular expression and what to put in the place of what it finds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Replace {
    /// The expression, in the syntax of the Rust crate `regex`; it sees the canonical path. Begin
    /// it with `^` and end it with `$` where the whole path is meant.
    #[serde(rename = "match")]
    pattern: Spanned<String>,
    /// The replacement. `$1` or `${name}` is what a group captured, `$$` is a dollar sign.
    with: Spanned<String>,
}

impl PolicyConfig for Rewrite {
    const NAME: &'static str = "rewrite";
    const EXAMPLE: &'static str = "{ strip_prefix: /shop }";

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
        let Self { strip_prefix, prefix, path, regex, query } = self;
        let ways = [strip_prefix.is_some(), prefix.is_some(), path.is_some(), regex.is_some()];
        let before = with.findings.errors();
        let mut wrong = |span, key: &str, fault: Fault| {
            let resource = format!("{}.{key}", site.resource);
            let mut finding = Finding::error("invalid-value", span, resource, fault.message);
            finding.help = fault.help;
            with.findings.push(finding);
        };
        let mut way = None;
        match ways.iter().filter(|way| **way).count() {
            0 if query.is_some() => way = Some(Way::Keep),
            1 => {}
            _ => {
                let names = "`strip_prefix`, `prefix`, `path`, `regex`";
                let message = format!("exactly one of {names} is needed, or `query` alone");
                with.findings.error("missing-key", site.span, site.resource, message);
                return None;
            }
        }
        if let Some(from) = strip_prefix {
            match literal(&from) {
                Ok(from) => way = Some(Way::Prefix { from, to: Box::default() }),
                Err(fault) => wrong(from.span, "strip_prefix", fault),
            }
        }
        if let Some(Prefix { from, to }) = prefix {
            match (literal(&from), literal(&to)) {
                (Ok(from), Ok(to)) => way = Some(Way::Prefix { from, to }),
                (a, b) => {
                    a.err().into_iter().for_each(|fault| wrong(from.span, "prefix.from", fault));
                    b.err().into_iter().for_each(|fault| wrong(to.span, "prefix.to", fault));
                }
            }
        }
        if let Some(text) = path {
            match template(&text) {
                Ok(template) => way = Some(Way::Path(template)),
                Err(fault) => wrong(text.span, "path", fault),
            }
        }
        if let Some(Replace { pattern, with }) = regex {
            match expression(&pattern) {
                Err(fault) => wrong(pattern.span, "regex.match", fault),
                Ok(regex) => match replacement(&with, &regex) {
                    Err(fault) => wrong(with.span, "regex.with", fault),
                    Ok(()) => {
                        let with = with.value.into_bytes().into();
                        way = Some(Way::Regex(Box::new(regex), with));
                    }
                },
            }
        }
        if let Some(query) = &query
            && let Err(error) = check_query(query.as_bytes())
        {
            wrong(query.span, "query", Fault::new(0..0, format!("not a query: {error}")));
        }
        if with.findings.errors() > before {
            return None;
        }
        let query = query.map(|query| query.value.into_bytes().into());
        way.map(|way| Arc::new(Compiled { way, query }) as Arc<dyn Policy>)
    }
}

/// A beginning without the slash at its end.
fn literal(text: &str) -> Result<Box<[u8]>, Fault> {
    canonical(text.as_bytes(), text)?;
    Ok(text.trim_end_matches('/').as_bytes().into())
}

fn template(text: &str) -> Result<PathTemplate, Fault> {
    let template = PathTemplate::parse(text)?;
    canonical(&template.sample(), text)?;
    Ok(template)
}

/// What an operator writes is canonical as it stands, so that it is what the backend sees.
fn canonical(path: &[u8], text: &str) -> Result<(), Fault> {
    if path.contains(&b'?') {
        return Err(Fault::new(0..text.len(), "a path has no query: see `query`"));
    }
    let mut out = Vec::new();
    match canonicalise(path, &PathRules::default(), &mut out) {
        Ok(Canonical::Unchanged) => Ok(()),
        Ok(Canonical::Rewritten) => {
            let better = String::from_utf8_lossy(&out).into_owned();
            let fault = Fault::new(0..text.len(), format!("`{text}` is not in canonical form"));
            Err(fault.help(format!("the same as `{better}`")))
        }
        Err(error) => Err(Fault::new(0..text.len(), format!("`{text}` is not a path: {error}"))),
    }
}

fn expression(pattern: &str) -> Result<Regex, Fault> {
    // Canonical paths are ASCII.
    let built = RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build();
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Fault::new(0..pattern.len(), format!("not a regular expression: {last}"))
    })
}

/// Refuses groups that the expression does not have; they would silently be empty.
fn replacement(with: &str, regex: &Regex) -> Result<(), Fault> {
    let mut rest = with;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
            continue;
        }
        let name = match rest.strip_prefix('{') {
            Some(braced) => braced.split('}').next().unwrap_or_default(),
            None => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                &rest[..end.unwrap_or(rest.len())]
            }
        };
        let known = match name.parse::<usize>() {
            Ok(index) => index < regex.captures_len(),
            Err(_) => regex.capture_names().flatten().any(|known| known == name),
        };
        if !known {
            let fault = Fault::new(0..with.len(), format!("the expression has no group `{name}`"));
            return Err(fault.help("write `${1}x` where a letter follows, `$$` for a dollar sign"));
        }
    }
    Ok(())
}

#[derive(Debug)]
enum Way {
    Keep,
    Prefix { from: Box<[u8]>, to: Box<[u8]> },
    Path(PathTemplate),
    Regex(Box<Regex>, Box<[u8]>),
}

#[derive(Debug)]
struct Compiled {
    way: Way,
    query: Option<Box<[u8]>>,
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        Phase::Transform
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        if let Err(problem) = self.rewrite(exchange) {
            return Step::Refuse(problem);
        }
        if let Some(query) = &self.query {
            exchange.request.set_query((!query.is_empty()).then_some(query));
        }
        Step::Continue
    }
}

impl Compiled {
    fn rewrite(&self, exchange: &mut Exchange) -> Result<(), Problem> {
        match &self.way {
            Way::Keep => Ok(()),
            Way::Prefix { from, to } => {
                let path = exchange.request.path();
                let Some(rest) = path.strip_prefix(&**from) else { return Ok(()) };
                if !rest.is_empty() && rest[0] != b'/' {
                    return Ok(());
                }
                let rest = Span::new(
                    exchange.request.path.start as usize + from.len(),
                    exchange.request.path.end(),
                );
                let (path, ()) = exchange.request.fields.intern_with(|out| {
                    out.extend_from_slice(to);
                    out.extend_from_within(rest.start as usize..rest.end());
                    if to.is_empty() && rest.is_empty() {
                        out.push(b'/');
                    }
                });
                settle(exchange, path)
            }
            Way::Path(template) => {
                let mut path = Vec::with_capacity(128);
                template.append(exchange, &mut path).map_err(|name| {
                    Problem::new(codes::INTERNAL)
                        .detail(format_args!("rewrite: the route captures no `{name}`"))
                })?;
                let path = exchange.request.fields.intern(&path);
                settle(exchange, path)
            }
            Way::Regex(regex, with) => {
                let path = regex.replace(exchange.request.path(), &**with).into_owned();
                let path = exchange.request.fields.intern(&path);
                settle(exchange, path)
            }
        }
    }
}

/// Takes the new path, canonical.
fn settle(exchange: &mut Exchange, path: Span) -> Result<(), Problem> {
    // What the host's own rules let through may stay.
    let rules = PathRules {
        encoded_slash: Treatment::Keep,
        semicolon: Treatment::Keep,
        merge_slashes: true,
    };
    let mut canonical = Vec::new();
    let request = &mut exchange.request;
    match canonicalise(path.of(request.fields.bytes()), &rules, &mut canonical) {
        Ok(Canonical::Unchanged) => request.path = path,
        Ok(Canonical::Rewritten) => request.set_path(&canonical),
        Err(error) => {
            let detail = format_args!("rewritten: {error}");
            return Err(Problem::new(codes::PATH_REFUSED).detail(detail));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{World, check};

    fn path(yaml: &str, request: &str) -> String {
        let world = World::default();
        let seen = world.run(&*world.policy("rewrite", yaml), request);
        seen.replace("continue\n> GET ", "")
    }

    #[test]
    fn prefixes_are_whole_segments() {
        for (yaml, before, after) in [
            ("{ strip_prefix: /shop }", "/shop/cart", "/cart"),
            ("{ strip_prefix: /shop }", "/shop", "/"),
            ("{ strip_prefix: /shop }", "/shop/", "/"),
            ("{ strip_prefix: /shop/ }", "/shop/cart?a=1", "/cart?a=1"),
            ("{ strip_prefix: /shop }", "/shopping", "continue"),
            ("{ strip_prefix: /shop }", "/a/shop", "continue"),
            ("{ prefix: { from: /v1, to: /api/v2 } }", "/v1/a", "/api/v2/a"),
            ("{ prefix: { from: /v1, to: /api/v2/ } }", "/v1", "/api/v2"),
            ("{ prefix: { from: /, to: /api } }", "/a", "/api/a"),
            ("{ prefix: { from: /, to: /api } }", "/", "/api/"),
            ("{ prefix: { from: /v1, to: / } }", "/v1/a", "/a"),
        ] {
            assert_eq!(path(yaml, &format!("192.0.2.7 GET {before}")), after, "{yaml} {before}");
        }
    }

    #[test]
    fn templates_and_expressions() {
        let request = "192.0.2.7 GET /users/7/a.b?x=1 | :param id=7";
        for (yaml, after) in [
            ("{ path: \"/people/{id}\" }", "/people/7?x=1"),
            ("{ path: /fixed, query: \"\" }", "/fixed"),
            ("{ query: \"y=2\" }", "/users/7/a.b?y=2"),
            (
                "{ regex: { match: \"^/users/([0-9]+)/(?<rest>.*)$\", with: \"/u/$1/-/${rest}\" } }",
                "/u/7/-/a.b?x=1",
            ),
            ("{ regex: { match: \"[.]b\", with: \"$$\" } }", "/users/7/a$?x=1"),
            ("{ regex: { match: nowhere, with: x } }", "continue"),
        ] {
            assert_eq!(path(yaml, request), after, "{yaml}");
        }
    }

    /// What comes out is canonical, or refused.
    #[test]
    fn the_result_is_read_as_if_a_client_had_sent_it() {
        let yaml = "{ regex: { match: \"^/a\", with: \"\" } }";
        assert_eq!(path(yaml, "192.0.2.7 GET /a//b"), "/b");
        check(
            "rewrite",
            yaml,
            "192.0.2.7 GET /ab",
            &expect!["400 path-refused | rewritten: path-not-absolute"],
        );
        let yaml = "{ regex: { match: \"-\", with: \".\" } }";
        assert_eq!(path(yaml, "192.0.2.7 GET /x/.-/y"), "/y");
        check(
            "rewrite",
            "{ path: \"/{missing}\" }",
            "192.0.2.7 GET /a",
            &expect!["500 internal | rewrite: the route captures no `missing`"],
        );
    }

    #[test]
    fn what_is_no_path_does_not_compile() {
        let check =
            |yaml, want: expect_test::Expect| check("rewrite", yaml, "192.0.2.7 GET /", &want);
        check(
            "{}",
            expect![
                "error missing-key at rewrite: exactly one of `strip_prefix`, `prefix`, `path`, `regex` is needed, or `query` alone"
            ],
        );
        check(
            "{ path: /a, strip_prefix: /b }",
            expect![
                "error missing-key at rewrite: exactly one of `strip_prefix`, `prefix`, `path`, `regex` is needed, or `query` alone"
            ],
        );
        check(
            "{ strip_prefix: shop }",
            expect![
                "error invalid-value at rewrite.strip_prefix: `shop` is not a path: path-not-absolute"
            ],
        );
        check(
            "{ path: /a/../b }",
            expect![
                "error invalid-value at rewrite.path: `/a/../b` is not in canonical form (the same as `/b`)"
            ],
        );
        check(
            "{ path: \"/a?b\" }",
            expect!["error invalid-value at rewrite.path: a path has no query: see `query`"],
        );
        check(
            "{ path: \"/{\" }",
            expect!["error invalid-value at rewrite.path: a parameter is written `{name}`"],
        );
        check(
            "{ query: \"a b\" }",
            expect!["error invalid-value at rewrite.query: not a query: path-control-byte"],
        );
        check(
            "{ regex: { match: \"(\", with: a } }",
            expect![
                "error invalid-value at rewrite.regex.match: not a regular expression: unclosed group"
            ],
        );
        check(
            "{ regex: { match: \"a{1000}{1000}\", with: a } }",
            expect![
                "error invalid-value at rewrite.regex.match: not a regular expression: Compiled regex exceeds size limit of 1048576 bytes."
            ],
        );
        check(
            "{ regex: { match: \"(a)\", with: \"$2\" } }",
            expect![
                "error invalid-value at rewrite.regex.with: the expression has no group `2` (write `${1}x` where a letter follows, `$$` for a dollar sign)"
            ],
        );
        check(
            "{ regex: { match: \"(a)\", with: \"$1x\" } }",
            expect![
                "error invalid-value at rewrite.regex.with: the expression has no group `1x` (write `${1}x` where a letter follows, `$$` for a dollar sign)"
            ],
        );
    }
}
