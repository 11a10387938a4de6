//! Tests that stand beside the routes they test: a request, who sends it, and what must come of it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use portcullis_core::calendar::Time;
use portcullis_core::decode::{Entries, Fault, Spanned, short_or_long};
use portcullis_core::node::{Node, SourceSpan, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::text::Name;

/// One test of the configuration.
#[derive(Clone, Debug)]
pub struct InlineTest {
    pub span: SourceSpan,
    /// As it reads in a report: the short form, or `REQUEST as NAME`.
    pub title: String,
    pub request: TestRequest,
    /// The address the request comes from. `None`: 192.0.2.1, which is nobody's.
    pub from: Option<std::net::IpAddr>,
    /// When it comes. `None`: now.
    pub at: Option<Time>,
    /// Who sends it; `None`: nobody in particular, without a credential.
    pub caller: Option<Caller>,
    pub headers: Vec<(String, String)>,
    pub expect: Expect,
}

/// Method and URL of a test. The scheme and the port choose the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRequest {
    pub method: String,
    pub https: bool,
    /// With the port, if one is written.
    pub authority: String,
    /// Path and query.
    pub target: String,
}

/// Somebody whose credential an `auth` entry has accepted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// The `auth` entry.
    pub auth: Spanned<Name>,
    /// Default: `test`.
    #[serde(default)]
    pub client: Option<String>,
    /// Default: none.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Default: none.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Roles, as the claim `roles`. Default: none.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Claims of the token, by name. Default: none.
    #[serde(default)]
    pub claims: Entries<Node>,
    /// The certificate that the client has presented and the listener has accepted. Default: none.
    #[serde(default)]
    pub certificate: Option<TestCertificate>,
}

impl Caller {
    fn of(auth: Spanned<Name>) -> Self {
        Self {
            auth,
            client: None,
            tenant: None,
            scopes: Vec::new(),
            roles: Vec::new(),
            claims: Entries::default(),
            certificate: None,
        }
    }
}

/// What a client's certificate says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestCertificate {
    /// DNS names. Default: none.
    #[serde(default)]
    pub dns: Vec<String>,
    /// URIs, a SPIFFE ID among them. Default: none.
    #[serde(default)]
    pub uri: Vec<String>,
    /// The subject, as in RFC 4514. Default: none.
    #[serde(default)]
    pub subject: String,
}

/// What must come of a test's request. Every part that is written must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The status of the answer that the gateway makes itself. A request that goes to a backend has
    /// none here, since the backend is not asked.
    #[serde(default)]
    #[schemars(range(min = 100, max = 599))]
    pub status: Option<Spanned<u16>>,
    /// Full name of the route that has the request, which passes all its policies.
    #[serde(default)]
    pub route: Option<Spanned<String>>,
    /// Name of a backend that the request may go to.
    #[serde(default)]
    pub backend: Option<Spanned<String>>,
    /// Code of the problem that the gateway answers with: `token-expired`.
    #[serde(default)]
    pub problem: Option<Spanned<String>>,
}

/// One test: `GET https://… [as NAME [with scopes a,b roles r tenant t]] => 401|ROUTE`, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongTest {
    /// `METHOD URL`.
    request: TestRequest,
    /// The address the request comes from. Default: `192.0.2.1`.
    #[serde(default)]
    from: Option<Spanned<String>>,
    /// When it comes: `2026-11-24T12:00:00Z`. Default: now.
    #[serde(default)]
    at: Option<Time>,
    /// Whose accepted credential it presents: an `auth` entry, or a map with `auth`, `client`,
    /// `tenant`, `scopes`, `roles`, `claims`, `certificate`. Default: none is presented.
    #[serde(default, rename = "as")]
    caller: Option<CallerForms>,
    /// Header fields of the request.
    #[serde(default)]
    headers: Entries<String>,
    /// What must come of it: a status, the name of a route, or a map.
    expect: ExpectForms,
}

#[derive(Clone, Debug)]
struct CallerForms(Caller);

#[derive(Clone, Debug)]
struct ExpectForms(Expect);

/// `GET https://… [as NAME [with scopes a,b roles r tenant t]] => 401|route`.
#[derive(Clone, Debug)]
pub(crate) struct ShortTest {
    request: TestRequest,
    auth: Option<(Name, Range<usize>)>,
    scopes: Vec<String>,
    roles: Vec<String>,
    tenant: Option<String>,
    expect: (String, Range<usize>),
}

const EXAMPLE: &str = "write for example `GET https://api.example.com/orders as idp with scopes orders:read => orders`";

impl FromStr for ShortTest {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let Some(arrow) = text.rfind("=>") else {
            let message = "a test needs `=>` and what must come of the request";
            return Err(Fault::new(0..text.len(), message).help(EXAMPLE));
        };
        let mut words = words(&text[..arrow]);
        let (Some(method), Some(url)) = (words.next(), words.next()) else {
            let message = "a test begins with a method and a URL";
            return Err(Fault::new(0..arrow, message).help(EXAMPLE));
        };
        let request = TestRequest::of(text, method, url)?;
        let mut auth = None;
        let mut with = With::default();
        while let Some(word) = words.next() {
            match &text[word.clone()] {
                "as" if auth.is_none() => {
                    let Some(name) = words.next() else {
                        return Err(Fault::new(word, "`as` needs the name of an `auth` entry"));
                    };
                    let parsed = text[name.clone()].parse::<Name>();
                    auth = Some((parsed.map_err(|fault| fault.shifted(name.start))?, name));
                }
                // `with` begins what the caller has; more of it may follow.
                "with" if auth.is_some() && !with.begun => {
                    with.begun = true;
                    with.part(text, word, &mut words)?;
                }
                "scopes" | "roles" | "tenant" if with.begun => {
                    with.named(text, word, &mut words)?;
                }
                other => {
                    let message = format!("unexpected `{other}` in a test");
                    return Err(Fault::new(word, message).help(EXAMPLE));
                }
            }
        }
        let after = arrow + 2;
        let mut outcome = self::words(&text[after..]);
        let (Some(expect), None) = (outcome.next(), outcome.next()) else {
            let message = "`=>` needs one status or the name of one route";
            return Err(Fault::new(arrow..text.len(), message).help(EXAMPLE));
        };
        let at = expect.start + after..expect.end + after;
        check_outcome(&text[at.clone()]).map_err(|message| Fault::new(at.clone(), message))?;
        let With { scopes, roles, tenant, .. } = with;
        let expect = (text[at.clone()].to_owned(), at);
        Ok(Self { request, auth, scopes, roles, tenant, expect })
    }
}

/// What a caller has, as the words of a short test say it.
#[derive(Default)]
struct With {
    begun: bool,
    scopes: Vec<String>,
    roles: Vec<String>,
    tenant: Option<String>,
}

impl With {
    /// What follows `with`.
    fn part(
        &mut self,
        text: &str,
        with: Range<usize>,
        words: &mut impl Iterator<Item = Range<usize>>,
    ) -> Result<(), Fault> {
        let named = words
            .next()
            .filter(|word| matches!(&text[word.clone()], "scopes" | "roles" | "tenant"));
        let Some(named) = named else {
            let message = "`with` needs `scopes`, `roles` or `tenant`, and then what they are";
            return Err(Fault::new(with, message).help(EXAMPLE));
        };
        self.named(text, named, words)
    }

    fn named(
        &mut self,
        text: &str,
        name: Range<usize>,
        words: &mut impl Iterator<Item = Range<usize>>,
    ) -> Result<(), Fault> {
        let said = &text[name.clone()];
        let again = match said {
            "scopes" => !self.scopes.is_empty(),
            "roles" => !self.roles.is_empty(),
            _ => self.tenant.is_some(),
        };
        let list = words.next().map(|list| &text[list]).filter(|_| !again);
        let Some(list) = list else {
            let message = format!("`{said}` is said once, with a list: `a,b`");
            return Err(Fault::new(name, message).help(EXAMPLE));
        };
        let split = || list.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect();
        match said {
            "scopes" => self.scopes = split(),
            "roles" => self.roles = split(),
            _ => self.tenant = Some(list.to_owned()),
        }
        Ok(())
    }
}

fn check_outcome(text: &str) -> Result<(), String> {
    let number = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(100..=599) => Ok(()),
        _ if number => Err(format!("`{text}` is not a status from 100 to 599")),
        _ => Ok(()),
    }
}

/// The places of the words of a text.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.split_ascii_whitespace().map(move |word| {
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        start..start + word.len()
    })
}

impl FromStr for TestRequest {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let mut words = words(text);
        let (Some(method), Some(url), None) = (words.next(), words.next(), words.next()) else {
            let message = "a request is a method and a URL";
            return Err(Fault::new(0..text.len(), message)
                .help("write for example `GET https://api.example.com/orders`"));
        };
        Self::of(text, method, url)
    }
}

impl TestRequest {
    fn of(text: &str, method: Range<usize>, url: Range<usize>) -> Result<Self, Fault> {
        let name = &text[method.clone()];
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
            return Err(Fault::new(method, format!("`{name}` is not a method"))
                .help("methods are written in capitals: `GET`"));
        }
        let whole = &text[url.clone()];
        let (https, rest) = match (whole.strip_prefix("https://"), whole.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => {
                return Err(Fault::new(url, format!("`{whole}` is not a URL with a scheme"))
                    .help("write for example `https://api.example.com/orders`"));
            }
        };
        let slash = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(slash);
        if authority.is_empty() {
            return Err(Fault::new(url, format!("`{whole}` has no host")));
        }
        let target = match target.as_bytes().first() {
            Some(b'/') => target.to_owned(),
            _ => format!("/{target}"),
        };
        Ok(Self { method: name.to_owned(), https, authority: authority.to_owned(), target })
    }
}

impl fmt::Display for TestRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{} {scheme}://{}{}", self.method, self.authority, self.target)
    }
}

portcullis_core::written_as_text! {
    TestRequest: "test-request", "a request such as `GET https://api.example.com/orders`",
        r"^ *[A-Z-]+ +https?://[^ ]+ *$";
}

impl Expect {
    fn outcome(text: &str, span: SourceSpan) -> Self {
        match text.parse() {
            Ok(status) => Self { status: Some(Spanned::new(status, span)), ..Self::default() },
            Err(_) => Self { route: Some(Spanned::new(text.to_owned(), span)), ..Self::default() },
        }
    }
}

impl InlineTest {
    fn short(text: &str, span: SourceSpan) -> Result<Self, Fault> {
        let short: ShortTest = text.parse()?;
        let caller = short.auth.map(|(name, at)| Caller {
            tenant: short.tenant,
            scopes: short.scopes,
            roles: short.roles,
            ..Caller::of(Spanned::new(name, span.within(text, &at)))
        });
        let (outcome, at) = short.expect;
        Ok(Self {
            span,
            title: text.trim().to_owned(),
            request: short.request,
            from: None,
            at: None,
            caller,
            headers: Vec::new(),
            expect: Expect::outcome(&outcome, span.within(text, &at)),
        })
    }

    fn long(long: LongTest, span: SourceSpan) -> Result<Self, String> {
        let from = long
            .from
            .map(|from| from.parse().map_err(|_| format!("`{}` is not an IP address", from.value)));
        let caller = long.caller.map(|forms| forms.0);
        let title = match &caller {
            Some(caller) => format!("{} as {}", long.request, caller.auth.value),
            None => long.request.to_string(),
        };
        Ok(Self {
            span,
            title,
            request: long.request,
            from: from.transpose()?,
            at: long.at,
            caller,
            headers: long.headers.0.into_iter().map(|(key, value)| (key.name, value)).collect(),
            expect: long.expect.0,
        })
    }
}

impl JsonSchema for InlineTest {
    fn schema_name() -> Cow<'static, str> {
        "InlineTest".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let short = json_schema!({
            "type": "string",
            "pattern": "^ *[A-Z-]+ +https?://[^ ]+ .*=> *[^ ]+ *$",
            "x-format": "test",
            "x-expected": "a test such as `GET https://api.example.com/ => 401`",
        });
        short_or_long(vec![short], LongTest::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for InlineTest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if let Value::Str(text) = &node.value {
            return Self::short(text, node.span).map_err(D::Error::custom);
        }
        let long = LongTest::deserialize(&node).map_err(D::Error::custom)?;
        Self::long(long, node.span).map_err(D::Error::custom)
    }
}

impl JsonSchema for CallerForms {
    fn schema_name() -> Cow<'static, str> {
        "Caller".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<Name>();
        short_or_long(vec![name], Caller::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for CallerForms {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if node.is_map() {
            return Caller::deserialize(&node).map(Self).map_err(D::Error::custom);
        }
        let auth = Spanned::deserialize(&node).map_err(D::Error::custom)?;
        Ok(Self(Caller::of(auth)))
    }
}

impl JsonSchema for ExpectForms {
    fn schema_name() -> Cow<'static, str> {
        "Expect".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let status = json_schema!({
            "type": "integer", "minimum": 100, "maximum": 599, "x-expected": "a status",
        });
        let route = json_schema!({
            "type": "string", "minLength": 1, "x-expected": "the name of a route",
        });
        short_or_long(vec![status, route], Expect::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for ExpectForms {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        match &node.value {
            Value::Int(status) => Ok(Self(Expect::outcome(&status.to_string(), node.span))),
            Value::Str(route) => Ok(Self(Expect::outcome(route, node.span))),
            _ => Expect::deserialize(&node).map(Self).map_err(D::Error::custom),
        }
    }
}
