//! Sends the client elsewhere.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use portcullis_core::decode::{Fault, Spanned};
use portcullis_core::finding::Finding;
use portcullis_core::path::check_query;
use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::{
    Exchange, Phase, Policy, Problem, Reply, ReplyBody, ResponseHead, Services, Step, codes,
    written_short_or_long,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::template::PathTemplate;

/// A redirect; its short form is where to.
#[derive(Clone, Debug)]
pub(crate) struct Redirect {
    to: Spanned<String>,
    status: u16,
    keep_path: bool,
    keep_query: bool,
}

/// Sends the client elsewhere instead of asking a backend.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongRedirect {
    /// Where to: an absolute URL (`https://www.example.com/new`) or a path (`/new`). `{name}` in
    /// its path is what the route's path captured under that name.
    to: Spanned<String>,
    /// 301, 302, 303, 307 or 308. 307 and 308 keep the method and the body; 301 and 308 are
    /// remembered by clients, some for ever. Default: 307.
    #[serde(default = "default_status")]
    #[schemars(range(min = 301, max = 308))]
    status: u16,
    /// Whether the path of the request is added to that of `to`. Default: `false`.
    #[serde(default)]
    keep_path: bool,
    /// Whether the query of the request is added, unless `to` has one. Default: `true`.
    #[serde(default = "default_keep_query")]
    keep_query: bool,
}

fn default_status() -> u16 {
    307
}

fn default_keep_query() -> bool {
    true
}

impl From<LongRedirect> for Redirect {
    fn from(long: LongRedirect) -> Self {
        let LongRedirect { to, status, keep_path, keep_query } = long;
        Self { to, status, keep_path, keep_query }
    }
}

impl std::str::FromStr for Redirect {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let to = Spanned { value: text.to_owned(), ..Spanned::default() };
        Ok(Self { to, status: default_status(), keep_path: false, keep_query: true })
    }
}

written_short_or_long! {
    Redirect = LongRedirect: "redirect", "a URL or a path", "^(https?://|/)";
}

impl PolicyConfig for Redirect {
    const NAME: &'static str = "redirect";
    const EXAMPLE: &'static str = r#"{ to: "https://www.example.com", keep_path: true }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
        let before = with.findings.errors();
        let mut wrong = |key: &str, fault: Fault| {
            let resource = format!("{}.{key}", site.resource);
            let mut finding = Finding::error("invalid-value", site.span, resource, fault.message);
            finding.help = fault.help;
            with.findings.push(finding);
        };
        let status = StatusCode::from_u16(self.status).ok();
        let status = status.filter(|status| matches!(status.as_u16(), 301..=303 | 307 | 308));
        if status.is_none() {
            wrong("status", Fault::new(0..0, "a redirect is 301, 302, 303, 307 or 308"));
        }
        let target = target(&self.to, self.keep_path);
        if let Err(fault) = &target {
            wrong("to", fault.clone());
        }
        if with.findings.errors() > before {
            return None;
        }
        let (origin, path, query) = target.ok()?;
        Some(Arc::new(Compiled {
            status: status?,
            origin,
            path,
            query,
            keep_path: self.keep_path,
            keep_query: self.keep_query,
        }))
    }
}

type Target = (Box<str>, PathTemplate, Option<Box<str>>);

/// Origin (may be empty), path and query. Nothing of a request ever becomes part of the origin.
fn target(to: &str, keep_path: bool) -> Result<Target, Fault> {
    let fault = |message: &str| Err(Fault::new(0..to.len(), format!("`{to}`: {message}")));
    let origin_end = match to.find("://") {
        _ if to.starts_with("//") => return fault("a URL begins with its scheme"),
        _ if to.starts_with('/') => 0,
        Some(scheme) if matches!(&to[..scheme], "http" | "https") => {
            let authority = &to[scheme + 3..];
            let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
            let host = &authority[..end];
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
            if host.is_empty() || !host.bytes().all(plain) {
                return fault("not a host; parameters may stand in the path only");
            }
            scheme + 3 + end
        }
        _ => return fault("write an `http://` or `https://` URL, or a path that begins with `/`"),
    };
    let (origin, rest) = to.split_at(origin_end);
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    if let Some(query) = query
        && (check_query(query.as_bytes()).is_err() || query.contains(['{', '}']))
    {
        return fault("not a query; parameters may stand in the path only");
    }
    if !path.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`|#".contains(&b)) {
        return fault("not a path");
    }
    let path = match (keep_path, path) {
        (true, path) => path.trim_end_matches('/'),
        (false, "") => "/",
        (false, path) => path,
    };
    Ok((origin.into(), PathTemplate::parse(path)?, query.map(Into::into)))
}

#[derive(Debug)]
struct Compiled {
    status: StatusCode,
    origin: Box<str>,
    path: PathTemplate,
    query: Option<Box<str>>,
    keep_path: bool,
    keep_query: bool,
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        Phase::Forward
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        match self.location(exchange) {
            Ok(location) => {
                let mut head = ResponseHead::new(self.status);
                head.fields.append(b"location", &location);
                Step::Reply(Reply { head, body: ReplyBody::Bytes(Bytes::new()) })
            }
            Err(name) => Step::Refuse(
                Problem::new(codes::INTERNAL)
                    .detail(format_args!("redirect: the route captures no `{name}`")),
            ),
        }
    }
}

impl Compiled {
    fn location(&self, exchange: &Exchange) -> Result<Vec<u8>, &str> {
        let mut location = Vec::with_capacity(256);
        location.extend_from_slice(self.origin.as_bytes());
        self.path.append(exchange, &mut location)?;
        if self.keep_path {
            let path = exchange.request.path();
            // `//host` without an origin before it would be another site.
            let slashes = path.iter().take_while(|byte| **byte == b'/').count();
            location.push(b'/');
            location.extend_from_slice(&path[slashes..]);
        }
        match (&self.query, exchange.request.query()) {
            (Some(query), _) => {
                location.push(b'?');
                location.extend_from_slice(query.as_bytes());
            }
            (None, Some(query)) if self.keep_query => {
                location.push(b'?');
                location.extend_from_slice(query);
            }
            _ => {}
        }
        Ok(location)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{check, check_many};

    fn location(yaml: &str, request: &str) -> String {
        let world = crate::testing::World::default();
        let seen = world.run(&*world.policy("redirect", yaml), request);
        seen.replace("reply ", "").replace("\n< location:", "")
    }

    #[test]
    fn where_to() {
        for (yaml, request, expected) in [
            ("https://a.example", "/x", "307 https://a.example/"),
            ("/new", "/x?q=1", "307 /new?q=1"),
            ("/new?p=2", "/x?q=1", "307 /new?p=2"),
            ("{ to: /new, keep_query: false, status: 303 }", "/x?q=1", "303 /new"),
            (
                "{ to: \"https://a.example\", keep_path: true, status: 308 }",
                "/x/y?q",
                "308 https://a.example/x/y?q",
            ),
            (
                "{ to: \"https://a.example:8443/b/\", keep_path: true }",
                "/",
                "307 https://a.example:8443/b/",
            ),
            ("{ to: /, keep_path: true }", "//evil.example/x", "307 /evil.example/x"),
            ("\"/items/{id}\"", "/x | :param id=7", "307 /items/7"),
        ] {
            assert_eq!(location(yaml, &format!("192.0.2.7 GET {request}")), expected, "{yaml}");
        }
    }

    #[test]
    fn a_parameter_that_is_not_there_is_our_fault() {
        let want = expect!["500 internal | redirect: the route captures no `id`"];
        check("redirect", "\"/items/{id}\"", "192.0.2.7 GET /x", &want);
    }

    #[test]
    fn a_request_never_chooses_the_site() {
        for (to, want) in [
            (
                "\"https://{id}.example/\"",
                expect![
                    "error invalid-value at redirect.to: `https://{id}.example/`: not a host; parameters may stand in the path only"
                ],
            ),
            (
                "\"//evil.example\"",
                expect![
                    "error invalid-value at redirect.to: `//evil.example`: a URL begins with its scheme"
                ],
            ),
            (
                "\"javascript://a\"",
                expect![
                    "error invalid-value at redirect.to: `javascript://a`: write an `http://` or `https://` URL, or a path that begins with `/`"
                ],
            ),
            (
                "\"https://user@a.example\"",
                expect![
                    "error invalid-value at redirect.to: `https://user@a.example`: not a host; parameters may stand in the path only"
                ],
            ),
            (
                "\"/a?b={id}\"",
                expect![
                    "error invalid-value at redirect.to: `/a?b={id}`: not a query; parameters may stand in the path only"
                ],
            ),
            (
                "{ to: /a, status: 304 }",
                expect![
                    "error invalid-value at redirect.status: a redirect is 301, 302, 303, 307 or 308"
                ],
            ),
        ] {
            check_many("redirect", to, &["192.0.2.7 GET /x"], &want);
        }
    }
}
