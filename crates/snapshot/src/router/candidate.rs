//! A pattern ready to be tried on a request whose host and path already fit.

use std::sync::Arc;

use http::Method;
use portcullis_core::exchange::Params;
use portcullis_core::head::{Fields, RequestHead, Span};
use portcullis_core::planted;

use super::automaton::Expression;
use super::pattern::{Condition, PathPattern, RouteIndex, RoutePattern, Segment, ValuePattern};

/// The methods that have a bit; any other is compared as text. `HEAD` shares the bit of `GET`.
const NAMED: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"];

/// A set of methods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MethodSet {
    any: bool,
    bits: u16,
    others: Vec<Method>,
}

impl MethodSet {
    pub(super) fn of(methods: &[Method]) -> Self {
        let mut set = Self { any: methods.is_empty(), ..Self::default() };
        for method in methods {
            match bit_of(method.as_str().as_bytes()) {
                0 if !set.others.contains(method) => set.others.push(method.clone()),
                bit => set.bits |= bit,
            }
        }
        set
    }

    #[must_use]
    pub fn is_any(&self) -> bool {
        self.any
    }

    pub(super) fn contains(&self, asked: Asked<'_>) -> bool {
        self.any
            || self.bits & asked.bit != 0
            || (asked.bit == 0 && self.others.iter().any(|m| m.as_str().as_bytes() == asked.name))
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.any |= other.any;
        self.bits |= other.bits;
        for method in &other.others {
            if !self.others.contains(method) {
                self.others.push(method.clone());
            }
        }
    }

    /// The names, `HEAD` after `GET`, for `Allow` (RFC 9110 §10.2.1). Empty for any method.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let named = NAMED.iter().enumerate().filter(|(at, _)| self.bits & (1 << at) != 0);
        let named = named.flat_map(|(at, name)| {
            let head = (at == 0).then_some("HEAD");
            std::iter::once(*name).chain(head)
        });
        named.chain(self.others.iter().map(Method::as_str))
    }

    /// A method of both sets, or none.
    pub(super) fn common(&self, other: &Self) -> Option<String> {
        let pick = |set: &Self| set.names().next().map(str::to_owned);
        match (self.any, other.any) {
            (true, true) => Some("GET".to_owned()),
            (true, false) => pick(other),
            (false, true) => pick(self),
            (false, false) => self
                .names()
                .find(|name| other.contains(Asked::name(name.as_bytes())))
                .map(str::to_owned),
        }
    }
}

fn bit_of(name: &[u8]) -> u16 {
    match name {
        b"GET" | b"HEAD" => 1,
        b"POST" => 1 << 1,
        b"PUT" => 1 << 2,
        b"DELETE" => 1 << 3,
        b"PATCH" => 1 << 4,
        b"OPTIONS" => 1 << 5,
        b"CONNECT" => 1 << 6,
        b"TRACE" => 1 << 7,
        _ => 0,
    }
}

/// The method a request is routed by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    bit: u16,
    name: &'a [u8],
}

impl<'a> Asked<'a> {
    pub(super) fn name(name: &'a [u8]) -> Self {
        Self { bit: bit_of(name), name }
    }

    /// `HEAD` goes where `GET` goes; a CORS preflight goes where the request it asks for will go.
    pub(super) fn of(head: &'a RequestHead) -> Self {
        let other = preflight(head).or_else(|| planted::routed_method(head));
        Self::name(other.unwrap_or(head.method.as_str().as_bytes()))
    }
}

/// The method a CORS preflight asks for (Fetch standard, "CORS-preflight request").
#[must_use]
pub fn preflight(head: &RequestHead) -> Option<&[u8]> {
    if head.method != Method::OPTIONS || head.fields.get(b"origin").is_none() {
        return None;
    }
    head.fields.get(b"access-control-request-method").filter(|method| !method.is_empty())
}

/// One pattern, compiled. Host and path were compared by the tree that led here.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) route: RouteIndex,
    /// One bit a listener.
    pub(super) listeners: u64,
    pub(super) methods: MethodSet,
    pub(super) headers: Box<[Condition]>,
    pub(super) query: Box<[Condition]>,
    pub(super) regex: Option<Expression>,
    /// Which segments of the path are captured.
    pub(super) captures: Box<[u16]>,
    /// As what; shared with the exchanges that take this route.
    pub(super) names: Option<Arc<[Box<str>]>>,
}

impl Candidate {
    pub(super) fn new(pattern: &RoutePattern) -> Self {
        let (regex, segments) = match &pattern.path {
            PathPattern::Exact(_) => (None, &[][..]),
            PathPattern::Template(segments) | PathPattern::Prefix(segments) => {
                (None, segments.as_slice())
            }
            PathPattern::Regex(expression) => (Some(expression.clone()), &[][..]),
        };
        let captures: Box<[u16]> =
            (0..).zip(segments).filter_map(|(at, segment)| segment.capture().map(|_| at)).collect();
        let names = segments.iter().filter_map(Segment::capture).map(Box::from);
        let names = (!captures.is_empty()).then(|| names.collect());
        let bits =
            |all: u64, listener: &u16| all | 1_u64.checked_shl(u32::from(*listener)).unwrap_or(0);
        let listeners = match pattern.listeners.as_slice() {
            [] => u64::MAX,
            some => some.iter().fold(0, bits),
        };
        Self {
            route: pattern.route,
            listeners,
            methods: MethodSet::of(&pattern.methods),
            headers: pattern.headers.clone().into(),
            query: pattern.query.clone().into(),
            regex,
            captures,
            names,
        }
    }

    /// The part of the order of precedence that follows host and path; less is better.
    pub(super) fn order(&self) -> Order {
        let more = std::cmp::Reverse;
        (self.methods.is_any(), more(self.headers.len()), more(self.query.len()))
    }

    /// All but host, path and method.
    pub(super) fn conditions_hold(&self, asked: &Ask<'_>) -> bool {
        self.listeners & asked.listener != 0
            && self.headers.iter().all(|condition| header_holds(condition, asked.fields))
            && self.query.iter().all(|condition| query_holds(condition, asked.query))
    }
}

impl Candidate {
    /// Notes what the pattern captures of the head's path.
    pub(super) fn capture(&self, head: &RequestHead, params: &mut Params) {
        let Some(names) = &self.names else { return };
        params.names = Some(Arc::clone(names));
        let mut wanted = self.captures.iter().map(|at| usize::from(*at)).peekable();
        let mut slots = params.values.iter_mut();
        let mut start = head.path.start as usize + 1;
        for (at, segment) in head.path()[1..].split(|byte| *byte == b'/').enumerate() {
            if wanted.next_if_eq(&at).is_some()
                && let Some(slot) = slots.next()
            {
                *slot = Span::new(start, start + segment.len());
            }
            if wanted.peek().is_none() {
                break;
            }
            start += segment.len() + 1;
        }
    }
}

pub(super) type Order = (bool, std::cmp::Reverse<usize>, std::cmp::Reverse<usize>);

/// What is asked of the router, taken from the head once.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) listener: u64,
    pub(super) method: Asked<'a>,
    pub(super) fields: &'a Fields,
    pub(super) query: Option<&'a [u8]>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(listener: u16, head: &'a RequestHead) -> Self {
        Self {
            listener: 1_u64.checked_shl(u32::from(listener)).unwrap_or(0),
            method: Asked::of(head),
            fields: &head.fields,
            query: head.query(),
        }
    }
}

/// Whether the field is there, once, with such a value.
pub(crate) fn header_holds(condition: &Condition, fields: &Fields) -> bool {
    let mut values = fields.get_all(condition.name.as_bytes());
    let Some(first) = values.next() else { return false };
    match &condition.value {
        ValuePattern::Present => true,
        value => value.accepts(first) && values.next().is_none(),
    }
}

/// Whether the parameter is there, once, with such a value.
pub(crate) fn query_holds(condition: &Condition, query: Option<&[u8]>) -> bool {
    let pairs = query.unwrap_or_default().split(|byte| *byte == b'&').map(|pair| {
        let split = pair.iter().position(|byte| *byte == b'=');
        split.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]))
    });
    let mut values =
        pairs.filter(|(name, _)| !name.is_empty() && decodes_to(name, condition.name.as_bytes()));
    let Some((_, first)) = values.next() else { return false };
    let plain = !first.iter().any(|byte| matches!(byte, b'%' | b'+'));
    match &condition.value {
        ValuePattern::Present => true,
        _ if values.next().is_some() => false,
        ValuePattern::Exact(want) => decodes_to(first, want.as_bytes()),
        ValuePattern::Regex(expression) if !plain => {
            expression.is_match(&decode(first).collect::<Vec<u8>>())
        }
        ValuePattern::Prefix(start) if !plain => decode(first).take(start.len()).eq(start.bytes()),
        value => value.accepts(first),
    }
}

fn decodes_to(raw: &[u8], want: &[u8]) -> bool {
    raw.len() >= want.len() && decode(raw).eq(want.iter().copied())
}

/// `application/x-www-form-urlencoded`: `+` is a space, a `%` that begins no octet is itself.
fn decode(raw: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        rest = after;
        Some(match (first, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            (byte, _) => *byte,
        })
    })
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(condition: (&str, ValuePattern), query: &str) -> bool {
        let condition = Condition { name: condition.0.to_owned(), value: condition.1 };
        query_holds(&condition, Some(query.as_bytes()))
    }

    #[test]
    fn a_second_value_cannot_ride_past_a_condition() {
        let exact = || ("a b", ValuePattern::Exact("1&2".to_owned()));
        assert!(query(exact(), "x&a+b=1%262&y=3"));
        assert!(query(exact(), "a%20b=1%262"));
        assert!(!query(exact(), "a+b=1%262&a%20b=9"));
        assert!(!query(exact(), "a+b=1&2"));
        assert!(query(("a", ValuePattern::Present), "a&a=2"));
        assert!(!query(("a", ValuePattern::Present), "=a&b"));

        let mut fields = Fields::default();
        fields.append(b"X-A", b"1");
        let condition = Condition { name: "x-a".into(), value: ValuePattern::Exact("1".into()) };
        assert!(header_holds(&condition, &fields));
        fields.append(b"x-a", b"2");
        assert!(!header_holds(&condition, &fields));
    }

    #[test]
    fn get_brings_head() {
        let set = MethodSet::of(&[Method::GET, Method::from_bytes(b"REPORT").unwrap()]);
        assert_eq!(set.names().collect::<Vec<_>>(), ["GET", "HEAD", "REPORT"]);
        assert!(set.contains(Asked::name(b"HEAD")));
        assert!(set.contains(Asked::name(b"REPORT")));
        assert!(!set.contains(Asked::name(b"REPORTS")));
        assert!(!set.contains(Asked::name(b"POST")));
    }
}
