//! A limit as an operator writes it: `100/s per client`, or the long form.
//!
//! It stands here and not with the limits policy since the configuration language, its schema and
//! the policy speak it alike. Counting is not done here.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::decode::Fault;
use crate::units::{PositiveDuration, format_duration, parse_duration};

const EXAMPLE: &str = "write for example `100/s per client` or `1000/10m burst 50 per ip+route`";

/// One limit. Short form: `COUNT/[N](s|m|h|d) [burst N] [per KEY[+KEY]…]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LimitConfig {
    pub rate: RateConfig,
    /// Empty: one counter for everybody.
    pub key: Vec<KeyPart>,
    pub algorithm: LimitAlgorithm,
    pub name: Option<String>,
    pub shadow: bool,
}

/// A limit: `COUNT/[N](s|m|h|d) [burst N] [per KEY[+KEY]]`, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongLimit {
    /// How many requests in which time.
    rate: RateConfig,
    /// Who has a counter of their own: `ip` (an IPv6 network of 64 bits counts as one), `client`,
    /// `tenant`, `route`, `header:NAME`, `claim:NAME`, one of them or a list, whose values are then
    /// counted together. Without it there is one counter for everybody.
    #[serde(default)]
    key: KeyParts,
    /// `window`: never more than `count` in any window of length `per`. `bucket`: `count` per `per`
    /// on average, and up to `burst` at once after a quiet time. Default: `bucket` where a `burst`
    /// is given, else `window`.
    #[serde(default)]
    algorithm: Option<LimitAlgorithm>,
    /// Name in `RateLimit` headers, metrics and logs. Default: made from rate and key.
    #[serde(default)]
    #[schemars(length(min = 1, max = 64))]
    name: Option<String>,
    /// Counts and reports, and refuses nobody. Default: `false`.
    #[serde(default)]
    shadow: bool,
}

/// How many requests in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateConfig {
    /// Requests; at least 1.
    #[schemars(range(min = 1))]
    pub count: u32,
    /// The time in which they may come: `1s`, `10m`, `24h`.
    pub per: PositiveDuration,
    /// How many may come at once after a quiet time; makes the algorithm `bucket`. Default with
    /// `bucket`: `count`.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitAlgorithm {
    Window,
    Bucket,
}

/// What a limit counts by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyPart {
    Ip,
    Client,
    Tenant,
    Route,
    /// The value of a request header, by its lower-case name.
    Header(String),
    /// A claim of the verified token.
    Claim(String),
}

impl KeyPart {
    /// Whether the value is known only once the request is authenticated.
    #[must_use]
    pub fn needs_identity(&self) -> bool {
        matches!(self, Self::Client | Self::Tenant | Self::Claim(_))
    }
}

impl LimitConfig {
    /// The number a `bucket` may grant at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.rate.burst.unwrap_or(self.rate.count)
    }
}

impl From<LongLimit> for LimitConfig {
    fn from(long: LongLimit) -> Self {
        let default = match long.rate.burst {
            Some(_) => LimitAlgorithm::Bucket,
            None => LimitAlgorithm::Window,
        };
        Self {
            rate: long.rate,
            key: long.key.0,
            algorithm: long.algorithm.unwrap_or(default),
            name: long.name,
            shadow: long.shadow,
        }
    }
}

impl FromStr for LimitConfig {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let mut words = words(text);
        let Some((rate, at)) = words.next() else {
            return Err(Fault::new(0..text.len(), "an empty limit").help(EXAMPLE));
        };
        let mut rate = parse_rate(rate, at)?;
        let mut key = Vec::new();
        while let Some((word, at)) = words.next() {
            match word {
                "burst" if rate.burst.is_none() && key.is_empty() => {
                    let (word, at) = words.next().ok_or_else(|| {
                        Fault::new(at.clone(), "`burst` needs a number").help(EXAMPLE)
                    })?;
                    rate.burst = Some(parse_count(word, at, "burst")?);
                }
                "per" if key.is_empty() => {
                    let (word, at) = words.next().ok_or_else(|| {
                        Fault::new(at.clone(), "`per` needs a key").help(KEYS_HELP)
                    })?;
                    key = parse_keys(word, at.start)?;
                }
                _ => {
                    let message = format!("unexpected `{word}` in a limit");
                    return Err(Fault::new(at, message).help(EXAMPLE));
                }
            }
        }
        let algorithm = match rate.burst {
            Some(_) => LimitAlgorithm::Bucket,
            None => LimitAlgorithm::Window,
        };
        Ok(Self { rate, key, algorithm, name: None, shadow: false })
    }
}

impl fmt::Display for LimitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = format_duration(self.rate.per.0);
        let unit = per.strip_prefix('1').filter(|rest| !rest.contains(|c: char| c.is_numeric()));
        write!(f, "{}/{}", self.rate.count, unit.unwrap_or(&per))?;
        if let Some(burst) = self.rate.burst {
            write!(f, " burst {burst}")?;
        }
        for (index, part) in self.key.iter().enumerate() {
            let join = if index == 0 { " per " } else { "+" };
            write!(f, "{join}{part}")?;
        }
        Ok(())
    }
}

fn words(text: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    text.split(' ').filter(|word| !word.is_empty()).map(move |word| {
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        (word, start..start + word.len())
    })
}

fn parse_rate(word: &str, at: Range<usize>) -> Result<RateConfig, Fault> {
    let Some((count, per)) = word.split_once('/') else {
        return Err(Fault::new(at, format!("`{word}` is not a rate")).help(EXAMPLE));
    };
    let slash = at.start + count.len();
    let count = parse_count(count, at.start..slash, "count")?;
    let per_at = slash + 1..at.end;
    // `100/s` is `100/1s`.
    let parsed = match per.starts_with(|c: char| c.is_ascii_digit()) {
        true => parse_duration(per),
        false => parse_duration(&format!("1{per}")),
    };
    match parsed {
        Ok(per) if !per.is_zero() && per >= Duration::from_secs(1) => {
            Ok(RateConfig { count, per: PositiveDuration(per), burst: None })
        }
        Ok(_) => Err(Fault::new(per_at, "the time of a limit is at least one second")),
        Err(_) => {
            let message = format!("`{per}` is not a unit of time for a limit");
            Err(Fault::new(per_at, message)
                .help("one of `s`, `m`, `h`, `d`, or with a number: `10m`"))
        }
    }
}

fn parse_count(word: &str, at: Range<usize>, what: &str) -> Result<u32, Fault> {
    match word.parse::<u32>() {
        Ok(0) => Err(Fault::new(at, format!("the {what} of a limit is at least 1"))),
        Ok(count) if word.starts_with(|c: char| c.is_ascii_digit()) => Ok(count),
        _ => {
            let message = format!("`{word}` is not a {what} from 1 to {}", u32::MAX);
            Err(Fault::new(at, message).help(EXAMPLE))
        }
    }
}

const KEYS_HELP: &str =
    "keys: `ip`, `client`, `tenant`, `route`, `header:NAME`, `claim:NAME`, joined by `+`";

fn parse_keys(word: &str, start: usize) -> Result<Vec<KeyPart>, Fault> {
    let mut keys = Vec::new();
    let mut at = start;
    for part in word.split('+') {
        let key: KeyPart = part.parse().map_err(|fault: Fault| fault.shifted(at))?;
        if keys.contains(&key) {
            return Err(Fault::new(at..at + part.len(), format!("the key `{part}` twice")));
        }
        keys.push(key);
        at += part.len() + 1;
    }
    Ok(keys)
}

impl FromStr for KeyPart {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fault = |message: String| Err(Fault::new(0..text.len(), message).help(KEYS_HELP));
        let token = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*-.^_`|~".contains(&b))
        };
        match (text, text.split_once(':')) {
            ("ip", _) => Ok(Self::Ip),
            ("client", _) => Ok(Self::Client),
            ("tenant", _) => Ok(Self::Tenant),
            ("route", _) => Ok(Self::Route),
            (_, Some(("header", name))) if token(name) => {
                Ok(Self::Header(name.to_ascii_lowercase()))
            }
            (_, Some(("header", name))) => fault(format!("`{name}` is not a header name")),
            (_, Some(("claim", name))) if !name.is_empty() => Ok(Self::Claim(name.to_owned())),
            _ => fault(format!("unknown key `{text}`")),
        }
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip => f.write_str("ip"),
            Self::Client => f.write_str("client"),
            Self::Tenant => f.write_str("tenant"),
            Self::Route => f.write_str("route"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Claim(name) => write!(f, "claim:{name}"),
        }
    }
}

/// One key, or a list of them.
#[derive(Clone, Debug, Default)]
struct KeyParts(Vec<KeyPart>);

impl<'de> Deserialize<'de> for KeyParts {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> serde::de::Visitor<'de> for Forms {
            type Value = KeyParts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key or a list of keys")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<KeyParts, E> {
                parse_keys(text, 0).map(KeyParts).map_err(E::custom)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<KeyParts, A::Error> {
                let mut keys = Vec::new();
                while let Some(key) = seq.next_element::<KeyPart>()? {
                    keys.push(key);
                }
                Ok(KeyParts(keys))
            }
        }

        from.deserialize_any(Forms)
    }
}

impl JsonSchema for KeyParts {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LimitKeys".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "string", "x-format": "limit-keys", "x-expected": "a key such as `ip`" },
                {
                    "type": "array",
                    "items": generator.subschema_for::<KeyPart>(),
                    "minItems": 1,
                    "uniqueItems": true,
                },
            ],
        })
    }
}

/// For the shape check: the whole of a short key list.
pub(crate) fn check_keys(text: &str) -> Result<(), Fault> {
    parse_keys(text, 0).map(drop)
}

crate::written_as_text! {
    KeyPart: "limit-key", "a key such as `ip`",
        r"^(ip|client|tenant|route|header:.+|claim:.+)$";
}

crate::written_short_or_long! {
    LimitConfig = LongLimit: "limit", "a limit such as `100/s per client`",
        r"^ *[1-9][0-9]*/([0-9]+[smhd]|[smhd])( +burst +[0-9]+)?( +per +[^ ]+)? *$";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Findings;
    use crate::node::{Key, Node, SourceSpan, Value};

    fn short(text: &str) -> String {
        match text.parse::<LimitConfig>() {
            Ok(limit) => format!("{limit} {:?}", limit.algorithm),
            Err(fault) => format!("{:?} {}", fault.at, fault.message),
        }
    }

    #[test]
    fn the_short_form() {
        let cases = [
            ("100/s per client", "100/s per client Window"),
            ("100/1s", "100/s Window"),
            ("1000/10m burst 50 per ip+route", "1000/10m burst 50 per ip+route Bucket"),
            ("5/d per header:X-Api per", "21..24 unexpected `per` in a limit"),
            ("5/d per claim:plan+tenant", "5/d per claim:plan+tenant Window"),
            ("5/d per header:X-Api", "5/d per header:x-api Window"),
            ("100", "0..3 `100` is not a rate"),
            ("100/ms", "4..6 the time of a limit is at least one second"),
            ("100/week", "4..8 `week` is not a unit of time for a limit"),
            ("0/s", "0..1 the count of a limit is at least 1"),
            ("+5/s", "0..2 `+5` is not a count from 1 to 4294967295"),
            ("9999999999/s", "0..10 `9999999999` is not a count from 1 to 4294967295"),
            ("5/s per", "4..7 `per` needs a key"),
            ("5/s per ip+clent", "11..16 unknown key `clent`"),
            ("5/s per ip+ip", "11..13 the key `ip` twice"),
            ("5/s per header:", "8..15 `` is not a header name"),
            ("5/s per ip burst 3", "11..16 unexpected `burst` in a limit"),
            ("", "0..0 an empty limit"),
        ];
        for (text, expected) in cases {
            assert_eq!(short(text), expected, "{text}");
        }
    }

    #[test]
    fn the_long_form_means_the_same() {
        let span = SourceSpan::default();
        let int = |value| Node::new(span, Value::Int(value));
        let text = |value: &str| Node::new(span, Value::Str(value.to_owned()));
        let map = |entries: Vec<(&str, Node)>| {
            let entries = entries.into_iter().map(|(k, v)| (Key::new(k, span), v)).collect();
            Node::new(span, Value::Map(entries))
        };
        let rate = map(vec![("count", int(100)), ("per", text("1s"))]);
        let long = map(vec![("rate", rate), ("key", text("client+route"))]);
        let mut findings = Findings::new();
        let long: Option<LimitConfig> = long.decode("limits[0]", &mut findings);
        assert_eq!(long, "100/s per client+route".parse().ok(), "{findings:?}");
    }
}
