//! Lets pages of other sites read our answers (the CORS protocol of the Fetch standard).
//!
//! It protects nobody from a client that is not a browser: that is what `auth` is for.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::head::{Fields, is_token};
use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::units::Duration;
use portcullis_core::{
    Exchange, Known, Phase, Policy, Problem, Reply, ReplyBody, RequestHead, ResponseHead, Services,
    Step, codes,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::origin;

/// Lets pages of the listed sites read the answers, refusals included, and answers preflights.
///
/// A preflight (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) is answered before
/// authentication: 204 for a listed origin, `403 origin-not-allowed` for another. Any other request
/// goes on whatever its origin; the answer then lacks the fields that would let the page read it.
/// `Access-Control-*` fields of the backend are replaced.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cors {
    /// Sites that may read: `https://shop.example`, with a port where it is not the scheme's own.
    /// `["*"]` is every site, and cannot be combined with `credentials`.
    #[schemars(length(min = 1))]
    origins: Vec<Spanned<String>>,
    /// Methods a page may use. Default: `[GET, HEAD, POST]`.
    #[serde(default = "default_methods")]
    methods: Vec<Spanned<String>>,
    /// Request headers a page may set, beside the few that it always may. Default:
    /// `[authorization, content-type]`.
    #[serde(default = "default_headers")]
    headers: Vec<Spanned<String>>,
    /// Response headers a page may read, beside the few that it always may. Default: none.
    #[serde(default)]
    expose: Vec<Spanned<String>>,
    /// How long a browser may keep the answer to a preflight; some keep it for less. Default:
    /// `10m`.
    #[serde(default = "default_max_age")]
    max_age: Duration,
    /// Whether a page may send cookies and client certificates. Default: `false`.
    #[serde(default)]
    credentials: bool,
}

fn default_methods() -> Vec<Spanned<String>> {
    unplaced(&["GET", "HEAD", "POST"])
}

fn default_headers() -> Vec<Spanned<String>> {
    unplaced(&["authorization", "content-type"])
}

fn default_max_age() -> Duration {
    Duration::from_secs(600)
}

fn unplaced(names: &[&str]) -> Vec<Spanned<String>> {
    names.iter().map(|name| Spanned { value: (*name).to_owned(), ..Spanned::default() }).collect()
}

impl PolicyConfig for Cors {
    const NAME: &'static str = "cors";
    const EXAMPLE: &'static str = r#"{ origins: ["https://shop.example"] }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
        let before = with.findings.errors();
        let mut error = |list: &str, index: usize, item: &Spanned<String>, message: String| {
            let resource = format!("{}.{list}[{index}]", site.resource);
            with.findings.push(Finding::error("invalid-value", item.span, resource, message));
        };
        let any = self.origins.iter().any(|origin| **origin == "*");
        for (index, origin) in self.origins.iter().enumerate() {
            let wrong = match origin.as_str() {
                "*" if self.credentials => {
                    Err("`*` with `credentials` would let every site act for its visitors".into())
                }
                "*" if self.origins.len() > 1 => Err("`*` stands alone".into()),
                "*" => Ok(()),
                origin => origin::check(origin),
            };
            if let Err(message) = wrong {
                error("origins", index, origin, message);
            }
        }
        for (name, list) in
            [("methods", &self.methods), ("headers", &self.headers), ("expose", &self.expose)]
        {
            for (index, item) in list.iter().enumerate() {
                if !is_token(item.as_bytes()) || **item == "*" {
                    error(name, index, item, format!("`{}` is not a name", **item));
                }
            }
        }
        if with.findings.errors() > before {
            return None;
        }
        let join = |list: &[Spanned<String>]| {
            let names: Vec<&str> = list.iter().map(|name| name.as_str()).collect();
            names.join(", ")
        };
        Some(Arc::new(Compiled {
            origins: match any {
                true => Origins::Any,
                false => {
                    Origins::Listed(self.origins.into_iter().map(|origin| origin.value).collect())
                }
            },
            methods: join(&self.methods),
            headers: join(&self.headers),
            expose: join(&self.expose),
            max_age_s: self.max_age.0.as_secs().to_string(),
            credentials: self.credentials,
        }))
    }
}

#[derive(Debug)]
enum Origins {
    Any,
    Listed(Vec<String>),
}

#[derive(Debug)]
struct Compiled {
    origins: Origins,
    methods: String,
    headers: String,
    expose: String,
    max_age_s: String,
    credentials: bool,
}

impl Compiled {
    /// The value of `Access-Control-Allow-Origin` for this request.
    fn allowed<'a>(&'a self, request: &'a RequestHead) -> Option<&'a [u8]> {
        let origin = only(request, Known::Origin)?;
        match &self.origins {
            Origins::Any => Some(b"*"),
            Origins::Listed(list) => {
                list.iter().any(|listed| listed.as_bytes() == origin).then_some(origin)
            }
        }
    }

    fn preflight(&self, allowed: &[u8]) -> Reply {
        let mut head = ResponseHead::new(StatusCode::NO_CONTENT);
        let fields = &mut head.fields;
        fields.append(b"access-control-allow-origin", allowed);
        fields.append(b"access-control-allow-methods", self.methods.as_bytes());
        if !self.headers.is_empty() {
            fields.append(b"access-control-allow-headers", self.headers.as_bytes());
        }
        fields.append(b"access-control-max-age", self.max_age_s.as_bytes());
        if self.credentials {
            fields.append(b"access-control-allow-credentials", b"true");
        }
        Reply { head, body: ReplyBody::Bytes(Bytes::new()) }
    }
}

/// The field's value, where it stands once: two origins are none.
fn only(request: &RequestHead, known: Known) -> Option<&[u8]> {
    let mut values = request.fields.known_all(known);
    values.next().filter(|_| values.next().is_none())
}

fn is_preflight(request: &RequestHead) -> bool {
    request.method == Method::OPTIONS
        && request.fields.known(Known::Origin).is_some()
        && request.fields.get(b"access-control-request-method").is_some()
}

/// Every answer depends on who asks, also the one for nobody: a cache must not mix them.
fn vary(fields: &mut Fields) {
    let named = |value: &[u8]| {
        value.split(|byte| *byte == b',').any(|name| {
            let name = name.trim_ascii();
            name == b"*" || name.eq_ignore_ascii_case(b"origin")
        })
    };
    if !fields.get_all(b"vary").any(named) {
        fields.append(b"vary", b"Origin");
    }
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        Phase::Answer
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        let request = &exchange.request;
        if !is_preflight(request) {
            return Step::Continue;
        }
        match self.allowed(request) {
            Some(allowed) => Step::Reply(self.preflight(allowed)),
            None => {
                let origin = request.fields.known(Known::Origin).unwrap_or_default();
                let detail = String::from_utf8_lossy(&origin[..origin.len().min(256)]);
                Step::Refuse(Problem::new(codes::ORIGIN_NOT_ALLOWED).detail(detail))
            }
        }
    }

    fn on_response<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        response: &'a mut ResponseHead,
        _: &'a dyn Services,
    ) -> Step<'a> {
        let fields = &mut response.fields;
        vary(fields);
        if is_preflight(&exchange.request) {
            return Step::Continue;
        }
        let ours = b"access-control-";
        fields.remove_if(|_, name, _| {
            name.len() > ours.len() && name[..ours.len()].eq_ignore_ascii_case(ours)
        });
        if let Some(allowed) = self.allowed(&exchange.request) {
            fields.append(b"access-control-allow-origin", allowed);
            if self.credentials {
                fields.append(b"access-control-allow-credentials", b"true");
            }
            if !self.expose.is_empty() {
                fields.append(b"access-control-expose-headers", self.expose.as_bytes());
            }
        }
        Step::Continue
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{check, check_many};

    #[test]
    fn a_listed_site_may_read() {
        check_many(
            "cors",
            r#"{ origins: ["https://shop.example", "http://localhost:3000"], expose: [x-total], credentials: true }"#,
            &[
                "192.0.2.7 GET / | Origin: https://shop.example",
                "192.0.2.7 GET / | Origin: http://localhost:3000 | :answer 200 vary=Accept,origin access-control-allow-origin=*",
                "192.0.2.7 GET / | Origin: https://evil.example | :answer 200 Access-Control-Allow-Origin=*",
                "192.0.2.7 GET / | Origin: https://shop.example | Origin: https://evil.example",
                "192.0.2.7 GET / | Origin: https://shop.example.evil.example",
                "192.0.2.7 GET / | Origin: null",
                "192.0.2.7 GET /",
            ],
            &expect![[r#"
                continue
                < vary: Origin
                < access-control-allow-origin: https://shop.example
                < access-control-allow-credentials: true
                < access-control-expose-headers: x-total
                continue
                < vary: Accept,origin
                < access-control-allow-origin: http://localhost:3000
                < access-control-allow-credentials: true
                < access-control-expose-headers: x-total
                continue
                < vary: Origin
                continue
                < vary: Origin
                continue
                < vary: Origin
                continue
                < vary: Origin
                continue
                < vary: Origin"#]],
        );
    }

    #[test]
    fn preflights_are_answered_here() {
        check_many(
            "cors",
            r#"{ origins: ["https://shop.example"], methods: [GET, PUT], max_age: 1h }"#,
            &[
                "192.0.2.7 OPTIONS / | Origin: https://shop.example | Access-Control-Request-Method: PUT",
                "192.0.2.7 OPTIONS / | Origin: https://evil.example | Access-Control-Request-Method: PUT",
                "192.0.2.7 OPTIONS / | Origin: https://shop.example",
            ],
            &expect![[r#"
                reply 204
                < access-control-allow-origin: https://shop.example
                < access-control-allow-methods: GET, PUT
                < access-control-allow-headers: authorization, content-type
                < access-control-max-age: 3600
                < vary: Origin
                403 origin-not-allowed | https://evil.example
                < vary: Origin
                continue
                < vary: Origin
                < access-control-allow-origin: https://shop.example"#]],
        );
    }

    #[test]
    fn every_site_may_read_without_credentials() {
        check(
            "cors",
            r#"{ origins: ["*"] }"#,
            "192.0.2.7 GET / | Origin: https://any.example",
            &expect![[r#"
                continue
                < vary: Origin
                < access-control-allow-origin: *"#]],
        );
    }

    #[test]
    fn what_would_never_match_does_not_compile() {
        check(
            "cors",
            r#"{ origins: ["shop.example", "https://shop.example/", "https://Shop.example", "https://shop.example:443", "https://*.shop.example", "null", "*"], methods: ["*"] }"#,
            "192.0.2.7 GET /",
            &expect![[r#"
                error invalid-value at cors.origins[0]: `shop.example` is not an origin: write `https://shop.example`
                error invalid-value at cors.origins[1]: an origin has no path: write `https://shop.example`
                error invalid-value at cors.origins[2]: browsers send origins in lower case: write `https://shop.example`
                error invalid-value at cors.origins[3]: browsers leave out the default port: write `https://shop.example`
                error invalid-value at cors.origins[4]: `https://*.shop.example` is not an origin: each is written out, without patterns
                error invalid-value at cors.origins[5]: `null` is not an origin: write `https://shop.example`
                error invalid-value at cors.origins[6]: `*` stands alone
                error invalid-value at cors.methods[0]: `*` is not a name"#]],
        );
        let want = expect![
            "error invalid-value at cors.origins[0]: `*` with `credentials` would let every site act for its visitors"
        ];
        check("cors", r#"{ origins: ["*"], credentials: true }"#, "192.0.2.7 GET /", &want);
    }
}
