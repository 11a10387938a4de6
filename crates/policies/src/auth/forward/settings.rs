//! What an operator writes about an authorizer, and how it compiles.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration as Time;

use http::Uri;
use portcullis_core::auth::Authenticator;
use portcullis_core::decode::{Fault, Spanned};
use portcullis_core::finding::Finding;
use portcullis_core::head::is_token;
use portcullis_core::node::SourceSpan;
use portcullis_core::registry::{AuthConfig, Compile, Site};
use portcullis_core::units::{PositiveDuration, Size};
use portcullis_core::{Known, written_as_text};
use schemars::JsonSchema;

use super::cached::Cached;
use super::circuit::Circuit;
use super::{Compiled, Plan, Shown, Source, Way, grpc, is_told_by_us, over_http};
use crate::key::Secret;

const TIMEOUT_MAX: Time = Time::from_secs(30);
const BODY_BYTES_MAX: u64 = 256 << 10;

/// Asks an external service about each request: by HTTP, as Traefik's ForwardAuth and nginx's
/// `auth_request` do, or by Envoy's `ext_authz` protocol over gRPC, which Open Policy Agent and
/// others speak.
///
/// It is asked where a request shows no other credential that the route takes. Over HTTP any 2xx
/// allows; a 3xx or 4xx is the client's answer. Where it gives no usable answer the request is
/// refused with `authorizer-unavailable` (503).
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forward {
    /// Where to ask by HTTP: an `http://` or `https://` URL. Either this or `grpc`.
    #[serde(default)]
    url: Option<Spanned<String>>,
    /// Where to ask by `envoy.service.auth.v3.Authorization`: `http://HOST:PORT`, or `https://`,
    /// without a path. Either this or `url`.
    #[serde(default)]
    grpc: Option<Spanned<String>>,
    /// How to ask by HTTP: `GET`, `HEAD`, `POST`, or `same` for the request's own method. Default:
    /// `GET`. The request's method is told in `X-Forwarded-Method` in any case.
    #[serde(default)]
    method: Method,
    /// Ask by HTTP at this path followed by the request's own path and query, instead of at the
    /// path of `url`. Default: none.
    #[serde(default)]
    path_prefix: Option<Spanned<String>>,
    /// Fields of the client that the authorizer sees, with all their values. By gRPC `"*"` stands
    /// for all fields. Default: `authorization` and `cookie`.
    #[serde(default)]
    request_headers: Option<Vec<Spanned<String>>>,
    /// Fields of the authorizer's answer that the backend gets. Under these names, and under
    /// spellings that some backends take for them, nothing of a client's ever reaches a backend.
    /// Other fields of the answer are dropped. Default: none.
    #[serde(default)]
    copy_headers: Vec<Spanned<String>>,
    /// Fields of the client that the backend does not get, unless the route says
    /// `forward_credential`. Default: `authorization`.
    #[serde(default)]
    hide_headers: Option<Vec<Spanned<String>>>,
    /// Where the answer names the client: `header:NAME`, or by gRPC `metadata:PATH`. An answer that
    /// allows and names nobody there is refused. Default: the client is `external`.
    #[serde(default)]
    client: Option<Spanned<Source>>,
    /// Where the answer names the tenant, as `client`. Default: there are no tenants.
    #[serde(default)]
    tenant: Option<Spanned<Source>>,
    /// Where the answer has the scopes, with spaces or commas between them or as a list, as
    /// `client`. Without that field there are none. Default: there are no scopes.
    #[serde(default)]
    scopes: Option<Spanned<Source>>,
    /// Told by gRPC with every question, in `context_extensions`. Default: nothing.
    #[serde(default)]
    context: BTreeMap<String, String>,
    /// How long an answer may take, at most `30s`. Default: `2s`.
    #[serde(default = "default_timeout")]
    timeout: PositiveDuration,
    /// What becomes of requests when the authorizer cannot be asked or gives no usable answer:
    /// `refuse` (default), or `{ allow: "<reason>" }`. A client that can make the authorizer fail
    /// passes then; its name is `unchecked`.
    #[serde(default)]
    on_failure: OnFailure,
    /// Show the body as well. A request with a longer body is refused with `body-too-large` (413).
    /// Default: the body is not shown.
    #[serde(default)]
    body: Option<Body>,
    /// Keep what was allowed for a while. Default: every request is asked about.
    #[serde(default)]
    cache: Option<Cache>,
    /// PEM of the authorities to trust at `https://`, instead of the system's: `file:PATH`.
    #[serde(default)]
    ca: Option<Spanned<String>>,
}

fn default_timeout() -> PositiveDuration {
    PositiveDuration::from_secs(2)
}

/// A method to ask by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
enum Method {
    #[default]
    #[serde(rename = "GET")]
    Get,
    #[serde(rename = "HEAD")]
    Head,
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "same")]
    Same,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnFailure {
    #[default]
    Refuse,
    Allow(String),
}

#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Body {
    /// The longest body, at most `256KiB`.
    max: Size,
}

#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cache {
    /// How long what was allowed holds for requests that are alike in all that the authorizer was
    /// told.
    ttl: PositiveDuration,
    /// Fields among `request_headers` that tell clients apart. Requests that are alike in these, in
    /// method, host, path and query then share an answer, whatever else differs. Default: all that
    /// are shown, the client's address and its certificate.
    #[serde(default)]
    #[schemars(length(min = 1))]
    key: Option<Vec<Spanned<String>>>,
}

impl FromStr for Source {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let known = match text.split_once(':') {
            Some(("header", name)) if is_token(name.as_bytes()) => {
                Some(Self::Header(name.to_ascii_lowercase().into()))
            }
            Some(("metadata", path)) if !path.is_empty() => Some(Self::Metadata(path.into())),
            _ => None,
        };
        known.ok_or_else(|| {
            let message = format!("`{text}` is neither `header:NAME` nor `metadata:PATH`");
            Fault::new(0..text.len(), message)
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Metadata(path) => write!(f, "metadata:{path}"),
        }
    }
}

written_as_text! {
    Source: "answer-source", "`header:NAME` or `metadata:PATH`", "^(header|metadata):.+$";
}

/// Findings about one entry.
struct Report<'a, 'b> {
    site: &'a Site<'a>,
    with: &'a mut Compile<'b>,
}

impl Report<'_, '_> {
    fn error(&mut self, key: &str, span: SourceSpan, message: impl Into<String>) {
        let resource = format!("{}.{key}", self.site.resource);
        self.with.findings.push(Finding::error("invalid-value", span, resource, message));
    }

    fn warning(&mut self, code: &'static str, key: &str, span: SourceSpan, finding: [&str; 2]) {
        let resource = format!("{}.{key}", self.site.resource);
        let [message, help] = finding;
        self.with.findings.push(Finding::warning(code, span, resource, message).help(help));
    }
}

impl AuthConfig for Forward {
    const NAME: &'static str = "forward";
    const EXAMPLE: &'static str =
        r#"{ url: "https://authz.example.com/check", copy_headers: [x-user-id] }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let before = with.findings.errors();
        let mut report = Report { site, with };
        let way = self.way(&mut report);
        let plan = self.plan(way, &mut report);
        let key = self.cache_key(&plan, &mut report);
        self.check_bounds(&mut report);
        let ca = match &self.ca {
            Some(reference) => Some(with.read(site, reference.span, reference)?),
            None => None,
        };
        let plan = Plan { ca, ..plan };
        if with.findings.errors() > before {
            return None;
        }
        let url = self.url.as_ref().or(self.grpc.as_ref()).map(|url| &url.value);
        let circuit =
            with.carry.keep("forward-circuit", site.owner, &(url, &plan.ca), Circuit::default);
        let secret = Secret::of(with.carry);
        let cache = self.cache.as_ref().map(|cache| {
            let settings = (&plan, cache.ttl.0, &key);
            with.carry.keep("forward-answers", site.owner, &settings, || {
                Cached::new(cache.ttl.0, key.clone(), secret)
            })
        });
        Some(Arc::new(Compiled { plan, circuit, cache }))
    }
}

impl Forward {
    fn way(&self, report: &mut Report<'_, '_>) -> Way {
        let nowhere = |report: &mut Report<'_, '_>, message: &str| {
            report.error("url", report.site.span, message);
            Way::Http(over_http::Way { url: String::new(), prefix: None, method: None })
        };
        match (&self.url, &self.grpc) {
            (Some(url), None) => self.http(url, report),
            (None, Some(url)) => self.grpc(url, report),
            (None, None) => nowhere(report, "where to ask: `url` or `grpc`"),
            (Some(_), Some(_)) => nowhere(report, "either `url` or `grpc`, not both"),
        }
    }

    fn http(&self, url: &Spanned<String>, report: &mut Report<'_, '_>) -> Way {
        let has_path = destination("url", url, report);
        for (key, is_there) in [
            ("context", !self.context.is_empty()),
            ("client", is_metadata(self.client.as_ref())),
            ("tenant", is_metadata(self.tenant.as_ref())),
            ("scopes", is_metadata(self.scopes.as_ref())),
        ] {
            if is_there {
                report.error(key, url.span, "there is no metadata or context over HTTP");
            }
        }
        if let Some(prefix) = &self.path_prefix {
            let is_path = prefix.starts_with('/')
                && prefix.parse::<Uri>().is_ok()
                && !prefix.contains(['?', '#']);
            if !is_path {
                report.error("path_prefix", prefix.span, "not a path, which begins with `/`");
            }
            if has_path {
                report.error(
                    "url",
                    url.span,
                    "with a `path_prefix` the URL has no path of its own",
                );
            }
        }
        if self.body.is_some() && matches!(self.method, Method::Get | Method::Head) {
            report.error("method", report.site.span, "a body goes with `POST` or `same`");
        }
        let prefix =
            self.path_prefix.as_ref().map(|prefix| prefix.trim_end_matches('/').to_owned());
        let url = match prefix {
            Some(_) => url.trim_end_matches('/').to_owned(),
            None => url.value.clone(),
        };
        let method = match self.method {
            Method::Get => Some(http::Method::GET),
            Method::Head => Some(http::Method::HEAD),
            Method::Post => Some(http::Method::POST),
            Method::Same => None,
        };
        Way::Http(over_http::Way { url, prefix, method })
    }

    fn grpc(&self, url: &Spanned<String>, report: &mut Report<'_, '_>) -> Way {
        if destination("grpc", url, report) {
            report.error("grpc", url.span, "a gRPC service has no path: only scheme, host, port");
        }
        if let Some(prefix) = &self.path_prefix {
            report.error("path_prefix", prefix.span, "only with `url`");
        }
        if self.method != Method::Get {
            report.error("method", report.site.span, "only with `url`");
        }
        let url = format!("{}{}", url.trim_end_matches('/'), grpc::METHOD);
        let context = self.context.iter().map(|(name, value)| (name.clone(), value.clone()));
        Way::Grpc(grpc::Way { url, context: context.collect() })
    }

    fn plan(&self, way: Way, report: &mut Report<'_, '_>) -> Plan {
        let shown = self.shown(&way, report);
        let copied: Box<[Box<str>]> = self
            .copy_headers
            .iter()
            .map(|name| {
                if !is_token(name.as_bytes()) {
                    report.error("copy_headers", name.span, "not a field name");
                } else if !may_be_copied(name) {
                    let message = format!("`{}` has a meaning of its own", name.value);
                    report.error("copy_headers", name.span, message);
                }
                lower(name)
            })
            .collect();
        if let Shown::Named(names) = &shown
            && let Some(name) = names.iter().find(|name| copied.contains(name))
        {
            let message = format!("`{name}` is removed from requests, since `copy_headers` has it");
            report.error("request_headers", report.site.span, message);
        }
        let hidden = match &self.hide_headers {
            Some(names) => names
                .iter()
                .map(|name| {
                    if !is_token(name.as_bytes()) || is_told_by_us(name.as_bytes()) {
                        report.error("hide_headers", name.span, "not a field that can be hidden");
                    }
                    lower(name)
                })
                .collect(),
            None => [Box::from("authorization")].into(),
        };
        let source = |source: &Option<Spanned<Source>>| source.as_ref().map(|it| it.value.clone());
        Plan {
            auth: report.site.owner.into(),
            way,
            shown,
            copied,
            hidden,
            client: source(&self.client),
            tenant: source(&self.tenant),
            scopes: source(&self.scopes),
            timeout: self.timeout.0,
            ca: None,
            body_bytes_max: self.body.as_ref().map(|body| body.max.0 as usize),
            fails_open: matches!(self.on_failure, OnFailure::Allow(_)),
        }
    }

    fn shown(&self, way: &Way, report: &mut Report<'_, '_>) -> Shown {
        let Some(names) = &self.request_headers else {
            return Shown::Named(Box::new(["authorization", "cookie"].map(Box::from)));
        };
        if let (Way::Grpc(_), [all]) = (way, &names[..])
            && **all == "*"
        {
            return Shown::All;
        }
        for name in names {
            let message = match &***name {
                "*" if matches!(way, Way::Http(_)) => {
                    "all fields can be shown by gRPC only: over HTTP what a client says could be \
                     taken for what the gateway says"
                }
                "*" => "`*` stands alone",
                name if !is_token(name.as_bytes()) => "not a field name",
                name if is_told_by_us(name.as_bytes()) => {
                    "what the gateway itself says, or what concerns one connection only"
                }
                _ => continue,
            };
            report.error("request_headers", name.span, message);
        }
        Shown::Named(names.iter().map(lower).collect())
    }

    fn cache_key(&self, plan: &Plan, report: &mut Report<'_, '_>) -> Option<Box<[Box<str>]>> {
        let cache = self.cache.as_ref()?;
        if self.body.is_some() {
            let message = "an answer about one body is none about another: `body` or `cache`";
            report.error("cache", report.site.span, message);
        }
        let names = cache.key.as_ref()?;
        for name in names {
            let is_shown = match &plan.shown {
                Shown::All => is_token(name.as_bytes()),
                Shown::Named(shown) => shown.contains(&lower(name)),
            };
            if !is_shown {
                report.error("cache.key", name.span, "not among `request_headers`");
            }
        }
        Some(names.iter().map(lower).collect())
    }

    fn check_bounds(&self, report: &mut Report<'_, '_>) {
        let span = report.site.span;
        if self.timeout.0 > TIMEOUT_MAX {
            report.error("timeout", span, "at most `30s`");
        }
        if self.body.as_ref().is_some_and(|body| !(1..=BODY_BYTES_MAX).contains(&body.max.0)) {
            report.error("body.max", span, "at least `1`, at most `256KiB`");
        }
        match &self.on_failure {
            OnFailure::Allow(reason) if reason.trim().is_empty() => {
                report.error("on_failure.allow", span, "say why, for whoever reviews it");
            }
            OnFailure::Allow(_) => report.warning(
                "fails-open",
                "on_failure",
                span,
                [
                    "whoever can make the authorizer fail passes unchecked",
                    "leave `on_failure` out, so that nobody passes without an answer",
                ],
            ),
            OnFailure::Refuse => {}
        }
    }
}

fn lower(name: &Spanned<String>) -> Box<str> {
    name.to_ascii_lowercase().into()
}

fn is_metadata(source: Option<&Spanned<Source>>) -> bool {
    source.is_some_and(|source| matches!(source.value, Source::Metadata(_)))
}

/// The gateway speaks for itself under these names, or reads them itself.
fn may_be_copied(name: &str) -> bool {
    let ours = name.get(..11).is_some_and(|begin| begin.eq_ignore_ascii_case("portcullis-"));
    Known::of(name.as_bytes()) == Known::Other && !ours && !is_told_by_us(name.as_bytes())
}

/// Checks where to ask, and says whether there is a path.
fn destination(key: &str, url: &Spanned<String>, report: &mut Report<'_, '_>) -> bool {
    let parsed = url.parse::<Uri>().ok().filter(|uri| {
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && !authority.contains('@')
            && !url.contains('#')
    });
    let Some(uri) = parsed else {
        report.error(key, url.span, "not an `http://` or `https://` URL");
        return false;
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_near = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if uri.scheme_str() == Some("http") && !is_near {
        report.warning(
            "clear-text",
            key,
            url.span,
            [
                "what clients show travels in clear text, and who is on the way can answer",
                "use `https://`, or an authorizer on this host",
            ],
        );
    }
    !matches!(uri.path(), "" | "/") || uri.query().is_some()
}
