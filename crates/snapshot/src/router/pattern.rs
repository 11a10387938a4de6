//! What the router is built from: hosts, paths, methods and conditions, as plain values.
//!
//! The written configuration is not known here; `crate::routes` turns it into these.

use std::fmt;

use http::Method;
use portcullis_core::exchange::Params;

use super::automaton::{Expression, ExpressionError};

/// Most segments of a path pattern. A longer one is refused.
const SEGMENTS_MAX: usize = 64;

/// Position of a route in the snapshot's list of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteIndex(pub u32);

/// One set of requests that belongs to a route. A route may have several.
#[derive(Clone, Debug)]
pub struct RoutePattern {
    pub route: RouteIndex,
    /// Empty means any host.
    pub hosts: Vec<HostPattern>,
    pub path: PathPattern,
    /// Empty means any method. `GET` includes `HEAD`; `HEAD` alone is refused.
    pub methods: Vec<Method>,
    /// All must hold.
    pub headers: Vec<Condition>,
    /// All must hold.
    pub query: Vec<Condition>,
    /// Listeners by position; empty means any.
    pub listeners: Vec<u16>,
}

/// Hosts are compared in canonical form: lower case, without the port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    Exact(String),
    /// `*.example.com`, held as `example.com`: one or more labels before it.
    Wildcard(String),
    Any,
}

impl HostPattern {
    /// Reads `api.example.com`, `*.example.com` or `*`.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let host = text.to_ascii_lowercase();
        if host == "*" {
            return Ok(Self::Any);
        }
        if let Some(suffix) = host.strip_prefix("*.") {
            check_labels(suffix)?;
            return Ok(Self::Wildcard(suffix.to_owned()));
        }
        if host.starts_with('[') {
            let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let address = inner.and_then(|inner| inner.parse::<std::net::Ipv6Addr>().ok());
            let Some(address) = address else {
                return Err(PatternError::new("is not an IPv6 address in brackets"));
            };
            return Ok(Self::Exact(format!("[{address}]")));
        }
        check_labels(&host)?;
        Ok(Self::Exact(host))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

fn check_labels(host: &str) -> Result<(), PatternError> {
    if host.len() > 253 {
        return Err(PatternError::new("is longer than 253 characters"));
    }
    for label in host.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(PatternError::new(
                "has a label that is empty or longer than 63 characters",
            ));
        }
        if label.contains('*') {
            return Err(PatternError::new("may have a `*` only as its whole first label"));
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !label.bytes().all(fits) {
            return Err(PatternError::new("has a character that no host name has"));
        }
    }
    Ok(())
}

/// Which paths. All forms are of the canonical path.
#[derive(Clone, Debug, PartialEq)]
pub enum PathPattern {
    /// `/a/b`: this path only.
    Exact(Vec<String>),
    /// `/users/{id}`: as many segments, each literal or any one non-empty segment.
    Template(Vec<Segment>),
    /// `/a/**`: `/a`, `/a/` and everything below, never `/ab`. May have captures.
    Prefix(Vec<Segment>),
    /// The whole path, from its first byte to its last.
    Regex(Expression),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// Sorts before a capture: a literal is the more specific of the two.
    Literal(String),
    Capture(String),
}

impl PathPattern {
    /// Reads `/a/b`, `/a/**`, `/users/{id}` or `/users/{id}/**`; literals must be canonical.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PatternError::new("must begin with `/`"));
        };
        let mut segments = Vec::new();
        let mut tail = false;
        for part in rest.split('/') {
            if tail {
                return Err(PatternError::new("may have `**` only as its last segment"));
            }
            if part == "**" {
                tail = true;
            } else {
                segments.push(Segment::parse(part)?);
            }
        }
        if segments.len() > SEGMENTS_MAX {
            return Err(PatternError(format!("has more than {SEGMENTS_MAX} segments")));
        }
        let empty_at = segments.iter().position(|s| *s == Segment::Literal(String::new()));
        if empty_at.is_some_and(|at| tail || at + 1 < segments.len()) {
            return Err(PatternError::new("has an empty segment (`//`)"));
        }
        let mut names: Vec<&str> = segments.iter().filter_map(Segment::capture).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(PatternError::new("uses one name for two segments"));
        }
        if names.len() > Params::MAX {
            return Err(PatternError(format!("captures more than {} segments", Params::MAX)));
        }
        let captures = !names.is_empty();
        Ok(match (tail, captures) {
            (true, _) => Self::Prefix(segments),
            (false, true) => Self::Template(segments),
            (false, false) => Self::Exact(segments.iter().map(Segment::text).collect()),
        })
    }

    /// Whether it holds this canonical path, whatever other patterns there are.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let found = || path.strip_prefix('/').unwrap_or(path).split('/');
        let fits = |(segment, found): (&Segment, &str)| match segment {
            Segment::Literal(text) => text == found,
            Segment::Capture(_) => !found.is_empty(),
        };
        match self {
            Self::Exact(segments) => found().eq(segments.iter().map(String::as_str)),
            Self::Template(segments) => {
                found().count() == segments.len() && segments.iter().zip(found()).all(fits)
            }
            Self::Prefix(segments) => {
                found().count() >= segments.len() && segments.iter().zip(found()).all(fits)
            }
            Self::Regex(expression) => expression.is_match(path.as_bytes()),
        }
    }

    /// How many segments; none for an expression.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Exact(segments) => segments.len(),
            Self::Template(segments) | Self::Prefix(segments) => segments.len(),
            Self::Regex(_) => 0,
        }
    }

    /// # Errors
    /// What is wrong with the expression, or that it is too large.
    pub fn regex(source: &str) -> Result<Self, ExpressionError> {
        Expression::new(source).map(Self::Regex)
    }
}

impl Segment {
    fn parse(part: &str) -> Result<Self, PatternError> {
        let inner = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        if let Some(name) = inner {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(fits) {
                return Err(PatternError(format!("`{{{name}}}` is not a name of a segment")));
            }
            return Ok(Self::Capture(name.to_owned()));
        }
        if part.contains(['{', '}']) {
            return Err(PatternError::new("may have `{name}` only as a whole segment"));
        }
        if part.contains('*') {
            return Err(PatternError::new("may have `**` only as its last segment, and no `*`"));
        }
        if part.contains(['?', '#']) {
            return Err(PatternError::new("may not hold `?` or `#`; queries have `query:`"));
        }
        Ok(Self::Literal(part.to_owned()))
    }

    pub(super) fn capture(&self) -> Option<&str> {
        match self {
            Self::Capture(name) => Some(name),
            Self::Literal(_) => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Literal(text) | Self::Capture(text) => text.clone(),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(segments) => segments.iter().try_for_each(|text| write!(f, "/{text}")),
            Self::Template(segments) => segments.iter().try_for_each(|part| write!(f, "/{part}")),
            Self::Prefix(segments) => {
                segments.iter().try_for_each(|part| write!(f, "/{part}"))?;
                f.write_str("/**")
            }
            Self::Regex(expression) => write!(f, "regex {}", expression.source()),
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Capture(name) => write!(f, "{{{name}}}"),
        }
    }
}

/// A condition on one header field or one query parameter.
///
/// All but `Present` ask for exactly one occurrence of the name, so that a second one cannot
/// carry a value past the condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Header names in lower case; query names decoded.
    pub name: String,
    pub value: ValuePattern,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ValuePattern {
    Present,
    Exact(String),
    Prefix(String),
    /// The whole value.
    Regex(Expression),
}

/// `x-version: 2`, `x-version: v*`, `x-version ~ v[0-9]`, `x-version`
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.value {
            ValuePattern::Present => f.write_str(name),
            ValuePattern::Exact(text) => write!(f, "{name}: {text}"),
            ValuePattern::Prefix(text) => write!(f, "{name}: {text}*"),
            ValuePattern::Regex(expression) => write!(f, "{name} ~ {}", expression.source()),
        }
    }
}

impl ValuePattern {
    pub(crate) fn accepts(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(want) => value == want.as_bytes(),
            Self::Prefix(start) => value.starts_with(start.as_bytes()),
            Self::Regex(expression) => expression.is_match(value),
        }
    }
}

/// Why a host or path cannot stand in a pattern; completes a sentence that begins with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(String);

impl PatternError {
    fn new(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}
