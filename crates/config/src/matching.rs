//! Which requests a route takes, as written. Reading hosts and paths as patterns, and finding ties
//! among them, is the router's business.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use portcullis_core::decode::{Entries, Fault, Spanned, short_or_long};
use portcullis_core::node::{Node, SourceSpan, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::forms::OneOrMany;

/// A set of requests. A request is in it when it meets every part.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// Where the whole of it stands.
    pub span: SourceSpan,
    /// `api.example.com`, `*.example.com` or `*`. Empty: any host.
    pub hosts: Vec<Spanned<String>>,
    /// At least one; any of them will do.
    pub paths: Vec<PathText>,
    /// Upper case. Empty: any method.
    pub methods: Vec<Spanned<String>>,
    pub headers: Vec<Condition>,
    pub query: Vec<Condition>,
}

/// A path as written, and which of its grammars it is in.
#[derive(Clone, Debug, PartialEq)]
pub enum PathText {
    /// `/a/b`, `/a/**`, `/users/{id}`.
    Pattern(Spanned<String>),
    /// A regular expression for the whole path.
    Regex(Spanned<String>),
}

impl PathText {
    #[must_use]
    pub fn text(&self) -> &Spanned<String> {
        match self {
            Self::Pattern(text) | Self::Regex(text) => text,
        }
    }
}

/// A condition on a header field or a query parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Header names in lower case.
    pub name: Spanned<String>,
    pub value: ValueText,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ValueText {
    /// There is such a field, whatever its value.
    Present,
    Exact(Spanned<String>),
    Prefix(Spanned<String>),
    /// For the whole value.
    Regex(Spanned<String>),
}

/// The short form: `HOST/PATH`, `HOST` (any path) or `/PATH` (any host).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShortMatch {
    /// Bytes of the host; empty for any host.
    host: std::ops::Range<usize>,
    path: Option<std::ops::Range<usize>>,
}

impl FromStr for ShortMatch {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        const EXAMPLE: &str = "write for example `api.example.com/orders/**` or `/orders/**`";
        if let Some(at) = text.find("://") {
            return Err(Fault::new(0..at + 3, "a match has no scheme")
                .help("write the host and the path only; `on:` names the listener"));
        }
        if let Some(at) = text.find([' ', '?', '#']) {
            let message = format!("a match cannot have {:?} in it", &text[at..=at]);
            let help = match &text[at..=at] {
                "?" => "conditions on the query stand in the long form under `query:`",
                _ => EXAMPLE,
            };
            return Err(Fault::new(at..at + 1, message).help(help));
        }
        let slash = text.find('/').unwrap_or(text.len());
        let host = &text[..slash];
        if text.is_empty() {
            return Err(Fault::new(0..0, "an empty match").help(EXAMPLE));
        }
        if let Some(colon) = host.find(':').filter(|_| !host.starts_with('[')) {
            return Err(Fault::new(colon..slash, "a match has no port")
                .help("which port a request came in by is said by `on:`, with a listener's name"));
        }
        Ok(Self { host: 0..slash, path: (slash < text.len()).then_some(slash..text.len()) })
    }
}

/// Which requests: `HOST/PATH`, `HOST`, `/PATH`, or a map, all of whose parts must fit.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongMatch {
    /// Hosts, any of which will do: `api.example.com`, `*.example.com` (one or more labels in place
    /// of the `*`), `*`. Compared without case and port. Without it: any host.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true), length(min = 1))]
    hosts: Option<Vec<Spanned<String>>>,
    /// A path or a list, any of which will do: `/a/b` is that path only; `/a/**` is `/a`, `/a/` and
    /// everything below, never `/ab`; `{name}` stands for one whole segment that is not empty.
    /// Compared with the canonical path. Without it: any path.
    #[serde(default)]
    path: Option<OneOrMany<Spanned<String>>>,
    /// A regular expression for the whole canonical path, in place of `path`. Of two routes the
    /// one with a `path` is the more specific.
    #[serde(default)]
    regex: Option<Spanned<String>>,
    /// Methods, any of which will do. `GET` includes `HEAD`. Without it: any method.
    #[serde(default)]
    methods: Option<OneOrMany<Spanned<Method>>>,
    /// gRPC calls: `pkg.Service/Method`, or `pkg.Service/*` for all methods of a service. Short for
    /// `POST` and the path `/pkg.Service/Method` or `/pkg.Service/**`, so it stands in place of
    /// `path` and `regex`.
    #[serde(default)]
    grpc: Option<Spanned<GrpcCall>>,
    /// Conditions on header fields, all of which must hold: `NAME: value` is that value exactly;
    /// or `{prefix: …}`, `{regex: …}`, `{present: true}`. All but `present` ask for exactly one
    /// such field.
    #[serde(default)]
    headers: Entries<LongValue>,
    /// Conditions on query parameters, written as those on `headers`.
    #[serde(default)]
    query: Entries<LongValue>,
}

/// `pkg.Service/Method` or `pkg.Service/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrpcCall {
    service: String,
    /// `None`: all of them.
    method: Option<String>,
}

impl FromStr for GrpcCall {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        const EXAMPLE: &str =
            "write for example `shop.v1.Orders/*`, or `shop.v1.Orders/Get` for one method";
        let fault = |at: std::ops::Range<usize>, what: &str| {
            Fault::new(at.clone(), format!("`{}` is not {what}", &text[at])).help(EXAMPLE)
        };
        let Some((service, method)) = text.split_once('/') else {
            return Err(fault(0..text.len(), "a service and a method"));
        };
        let is_name = |name: &str| {
            !name.starts_with(|c: char| c.is_ascii_digit())
                && !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !service.split('.').all(is_name) {
            return Err(fault(0..service.len(), "the full name of a service"));
        }
        let method = match method {
            "*" => None,
            method if is_name(method) => Some(method.to_owned()),
            _ => return Err(fault(service.len() + 1..text.len(), "a method or `*`")),
        };
        Ok(Self { service: service.to_owned(), method })
    }
}

impl fmt::Display for GrpcCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.method.as_deref().unwrap_or("*"))
    }
}

portcullis_core::written_as_text! {
    GrpcCall: "grpc-call", "a call such as `shop.v1.Orders/*`",
        r"^[A-Za-z0-9_.]+/(\*|[A-Za-z0-9_]+)$";
}

/// A method in upper case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(pub String);

impl JsonSchema for Method {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Method".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "enum": ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "QUERY", "TRACE"],
        })
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self)
    }
}

/// A value of a condition: a text, or a map with one of three keys.
#[derive(Clone, Debug)]
pub(crate) struct LongValue(ValueText);

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ValueForm {
    /// The value begins with this.
    Prefix(Spanned<String>),
    /// A regular expression for the whole value.
    Regex(Spanned<String>),
    /// There is such a field, whatever its value.
    Present(True),
}

/// Only `true` can be said.
#[derive(Clone, Debug)]
struct True;

impl JsonSchema for True {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "True".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean", "const": true, "x-expected": "`true`" })
    }
}

impl<'de> Deserialize<'de> for True {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match bool::deserialize(from)? {
            true => Ok(Self),
            false => Err(D::Error::custom("only `true` can be said here")),
        }
    }
}

impl JsonSchema for LongValue {
    fn schema_name() -> Cow<'static, str> {
        "ConditionValue".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut forms = ValueForm::json_schema(generator);
        let mut branches = vec![json_schema!({ "type": "string" }).to_value()];
        if let Some(serde_json::Value::Array(list)) = forms.remove("oneOf") {
            branches.extend(list);
        }
        json_schema!({ "anyOf": branches })
    }
}

impl<'de> Deserialize<'de> for LongValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if let Value::Str(text) = node.value {
            return Ok(Self(ValueText::Exact(Spanned::new(text, node.span))));
        }
        Ok(Self(match ValueForm::deserialize(&node).map_err(D::Error::custom)? {
            ValueForm::Prefix(text) => ValueText::Prefix(text),
            ValueForm::Regex(text) => ValueText::Regex(text),
            ValueForm::Present(True) => ValueText::Present,
        }))
    }
}

impl Match {
    /// Any request: what a route without `match` in a group without one would take.
    #[must_use]
    pub fn any(span: SourceSpan) -> Self {
        let path = PathText::Pattern(Spanned::new("/**".to_owned(), span));
        Self {
            span,
            hosts: Vec::new(),
            paths: vec![path],
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
        }
    }

    fn short(text: &str, span: SourceSpan) -> Result<Self, Fault> {
        let ShortMatch { host, path } = text.parse()?;
        let part = |at: std::ops::Range<usize>| {
            Spanned::new(text[at.clone()].to_owned(), span.within(text, &at))
        };
        let mut short = Self::any(span);
        if !host.is_empty() {
            short.hosts.push(part(host));
        }
        if let Some(path) = path {
            short.paths = vec![PathText::Pattern(part(path))];
        }
        Ok(short)
    }

    fn long(mut long: LongMatch, span: SourceSpan) -> Result<Self, &'static str> {
        if let Some(grpc) = long.grpc.take() {
            if long.path.is_some() || long.regex.is_some() {
                return Err("`grpc` says the path: it cannot stand with `path` or `regex`");
            }
            let post = Spanned::new(Method("POST".to_owned()), grpc.span);
            let methods = long.methods.get_or_insert_with(|| OneOrMany(vec![post]));
            if methods.iter().any(|method| method.value.0 != "POST") {
                return Err("`grpc` says the method: it is always POST");
            }
            let GrpcCall { service, method } = grpc.value;
            let path = format!("/{service}/{}", method.as_deref().unwrap_or("**"));
            long.path = Some(OneOrMany(vec![Spanned::new(path, grpc.span)]));
        }
        let paths = match (long.path, long.regex) {
            (Some(_), Some(_)) => return Err("`path` and `regex` cannot stand together"),
            (Some(paths), None) => paths.0.into_iter().map(PathText::Pattern).collect(),
            (None, Some(regex)) => vec![PathText::Regex(regex)],
            (None, None) => Self::any(span).paths,
        };
        Ok(Self {
            span,
            hosts: long.hosts.unwrap_or_default(),
            paths,
            methods: long
                .methods
                .unwrap_or_default()
                .0
                .into_iter()
                .map(|method| Spanned::new(method.value.0, method.span))
                .collect(),
            headers: conditions(long.headers, true),
            query: conditions(long.query, false),
        })
    }
}

/// Conditions by name; `lower` for names that are compared without case.
pub(crate) fn conditions(entries: Entries<LongValue>, lower: bool) -> Vec<Condition> {
    let condition = |(key, value): (portcullis_core::node::Key, LongValue)| Condition {
        name: match lower {
            true => Spanned::new(key.name.to_ascii_lowercase(), key.span),
            false => Spanned::new(key.name, key.span),
        },
        value: value.0,
    };
    entries.0.into_iter().map(condition).collect()
}

impl JsonSchema for Match {
    fn schema_name() -> Cow<'static, str> {
        "Match".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let short = json_schema!({
            "type": "string",
            "pattern": "^[^ ?#]+$",
            "x-format": "match",
            "x-expected": "a match such as `api.example.com/orders/**`",
        });
        short_or_long(vec![short], LongMatch::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for Match {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if let Value::Str(text) = &node.value {
            return Self::short(text, node.span).map_err(D::Error::custom);
        }
        let long = LongMatch::deserialize(&node).map_err(D::Error::custom)?;
        Self::long(long, node.span).map_err(D::Error::custom)
    }
}
