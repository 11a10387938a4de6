//! Requests made up to show what a pattern matches.
//!
//! A witness uses a word that no pattern mentions wherever a pattern leaves a choice. Whatever
//! else matches such a request does so by leaving the same choice open, so it matches every
//! request that differs only there. This is what lets a few requests stand for all.

use std::fmt;

use http::Method;
use portcullis_core::{RequestHead, Span};

use super::automaton::{Expression, Language, Search, shortest};
use super::pattern::{Condition, HostPattern, PathPattern, RoutePattern, Segment, ValuePattern};

/// The bytes of header and query values, the readable ones first.
const VALUE_ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ\
    -._~/:;,=+*@!$%&'()[]{}<>|^`\"#?\\ ";

/// A request, as far as routing looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    pub listener: u16,
    pub method: String,
    pub host: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
}

impl Example {
    pub(super) fn head(&self) -> RequestHead {
        let mut head = RequestHead {
            method: Method::from_bytes(self.method.as_bytes()).unwrap_or_default(),
            ..RequestHead::default()
        };
        head.authority = head.fields.intern(self.host.as_bytes());
        head.host = head.authority;
        head.path = head.fields.intern(self.path.as_bytes());
        head.query = self.written_query().map(|query| head.fields.intern(query.as_bytes()));
        head.target = Span::default();
        for (name, value) in &self.headers {
            head.fields.append(name.as_bytes(), value.as_bytes());
        }
        head
    }

    /// What stands in the request line: the path, and the query behind a `?`.
    #[must_use]
    pub fn target(&self) -> String {
        match self.written_query() {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    fn written_query(&self) -> Option<String> {
        let pairs: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("&"))
    }
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") })
        .collect()
}

/// `GET api.example.com/orders?a=1 with x-version: 2`
impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.host, self.target())?;
        for (at, (name, value)) in self.headers.iter().enumerate() {
            write!(f, "{} {name}: {value}", if at == 0 { " with" } else { "," })?;
        }
        Ok(())
    }
}

/// Words that no pattern mentions.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) word: String,
    pub(super) method: String,
}

impl Fresh {
    pub(super) fn new(patterns: &[RoutePattern]) -> Self {
        let mut mentioned = String::new();
        let mut mention = |text: &str| {
            mentioned.push_str(text);
            mentioned.push('\n');
        };
        for pattern in patterns {
            for host in &pattern.hosts {
                mention(&host.to_string());
            }
            mention(&pattern.path.to_string());
            for method in &pattern.methods {
                mention(method.as_str());
            }
            for condition in pattern.headers.iter().chain(&pattern.query) {
                match &condition.value {
                    ValuePattern::Present => {}
                    ValuePattern::Exact(text) | ValuePattern::Prefix(text) => mention(text),
                    ValuePattern::Regex(expression) => mention(expression.source()),
                }
            }
        }
        let first = |words: &[&str]| {
            let numbered = (0..).map(|number| format!("{}{number}", words[0]));
            let mut all = words.iter().map(|word| (*word).to_owned()).chain(numbered);
            all.find(|word| !mentioned.contains(word.as_str())).unwrap_or_default()
        };
        Self { word: first(&["any", "some", "other"]), method: first(&["METHOD", "PROBE"]) }
    }

    pub(super) fn host(&self, pattern: &HostPattern) -> String {
        match pattern {
            HostPattern::Exact(host) => host.clone(),
            HostPattern::Wildcard(suffix) => format!("{}.{suffix}", self.word),
            HostPattern::Any => self.word.clone(),
        }
    }

    /// Paths that stand for all of a pattern's, with prefixes continued up to `depth` segments
    /// beyond the deepest pattern. None for an expression.
    pub(super) fn paths(&self, pattern: &PathPattern, depth: usize) -> Vec<String> {
        match pattern {
            PathPattern::Exact(_) => vec![pattern.to_string()],
            PathPattern::Template(segments) => vec![self.fill(segments)],
            PathPattern::Prefix(segments) => {
                let mut base = self.fill(segments);
                let mut paths = Vec::new();
                for _ in segments.len()..=depth + 1 {
                    if !base.is_empty() {
                        paths.push(base.clone());
                    }
                    paths.push(format!("{base}/"));
                    base = format!("{base}/{}", self.word);
                }
                paths.push(base);
                paths
            }
            PathPattern::Regex(_) => Vec::new(),
        }
    }

    fn fill(&self, segments: &[Segment]) -> String {
        segments.iter().fold(String::new(), |path, segment| match segment {
            Segment::Literal(text) => path + "/" + text,
            Segment::Capture(_) => path + "/" + &self.word,
        })
    }

    /// One value for every name that fulfils all conditions on it, of both lists.
    pub(super) fn values(&self, one: &[Condition], other: &[Condition]) -> Values {
        let mut values: Vec<(String, String)> = Vec::new();
        for condition in one.iter().chain(other) {
            if values.iter().any(|(name, _)| *name == condition.name) {
                continue;
            }
            let same = one.iter().chain(other).filter(|other| other.name == condition.name);
            match self.value(&same.map(|other| &other.value).collect::<Vec<_>>()) {
                Search::Word(word) => {
                    let value = String::from_utf8_lossy(&word).into_owned();
                    values.push((condition.name.clone(), value));
                }
                Search::Empty => return Values::Never,
                Search::Unknown => return Values::Unknown,
            }
        }
        Values::Some(values)
    }

    fn value(&self, conditions: &[&ValuePattern]) -> Search {
        let exact = conditions.iter().find_map(|condition| match condition {
            ValuePattern::Exact(text) => Some(text.as_bytes().to_vec()),
            _ => None,
        });
        let longest = conditions
            .iter()
            .filter_map(|condition| match condition {
                ValuePattern::Prefix(text) => Some(text.as_str()),
                _ => None,
            })
            .max_by_key(|text| text.len())
            .unwrap_or_default();
        let open = format!("{longest}{}", self.word).into_bytes();
        let word = exact.clone().unwrap_or(open);
        if conditions.iter().all(|condition| condition.accepts(&word)) {
            return Search::Word(word);
        }
        if exact.is_some() {
            return Search::Empty;
        }
        let mut languages = Vec::new();
        for condition in conditions {
            let language = match condition {
                ValuePattern::Regex(expression) => expression.language(),
                ValuePattern::Prefix(text) => {
                    Expression::new(&format!("{}.*", regex_syntax::escape(text)))
                        .ok()
                        .and_then(|expression| expression.language())
                }
                _ => continue,
            };
            let Some(language) = language else { return Search::Unknown };
            languages.push(language);
        }
        let languages: Vec<&Language> = languages.iter().collect();
        match shortest(&languages, &[], VALUE_ALPHABET) {
            // There may still be a value with bytes that a readable example has no use for.
            Search::Empty if !is_empty(&languages) => Search::Unknown,
            found => found,
        }
    }
}

fn is_empty(languages: &[&Language]) -> bool {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    matches!(shortest(languages, &[], &all), Search::Empty)
}

pub(super) enum Values {
    Some(Vec<(String, String)>),
    /// The conditions contradict each other.
    Never,
    Unknown,
}
