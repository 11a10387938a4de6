//! When a request is sent again, as written.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use portcullis_core::decode::{Fault, short_or_long};
use portcullis_core::node::{Node, Value};
use portcullis_core::units::{DurationOrOff, PositiveDuration, Size};
use portcullis_core::written_as_text;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// The most that may be kept of a body.
const BODY_MAX: Size = Size::mib(1);

/// What may be tried again, how often, and at what cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub on: Vec<RetryOn>,
    pub attempts: u32,
    pub per_try: DurationOrOff,
    pub non_idempotent: bool,
    pub body_max: Size,
    pub hedge: Hedge,
}

/// When a second endpoint is asked though the first has not failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hedge {
    #[default]
    Off,
    /// When nineteen of twenty answers would be there.
    P95,
    After(Duration),
}

impl FromStr for Hedge {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text {
            "off" => Ok(Self::Off),
            "p95" => Ok(Self::P95),
            _ => text.parse().map(|PositiveDuration(wait)| Self::After(wait)),
        }
    }
}

impl fmt::Display for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::P95 => f.write_str("p95"),
            Self::After(wait) => PositiveDuration(*wait).fmt(f),
        }
    }
}

written_as_text! {
    Hedge: "hedge", "`p95`, a duration such as `50ms`, or `off`", r"^(off|p95|([0-9]+(d|h|ms|m|s))+)$";
}

impl Retry {
    /// What holds where nothing is written.
    #[must_use]
    pub fn unwritten() -> Self {
        let on = vec![RetryOn::Connect];
        Self { on, attempts: 4, body_max: Size(0), ..LongRetry::default().into() }
    }
}

/// A failure after which a request may go to another endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    Connect,
    Reset,
    /// An answer with this status.
    Status(u16),
    /// A status of gRPC.
    Grpc(u8),
}

/// The statuses of gRPC after which another try may do better, as they are written.
const GRPC: [(&str, u8); 5] = [
    ("cancelled", 1),
    ("deadline_exceeded", 4),
    ("internal", 13),
    ("resource_exhausted", 8),
    ("unavailable", 14),
];

impl JsonSchema for RetryOn {
    fn schema_name() -> Cow<'static, str> {
        "RetryOn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let statuses = GRPC.iter().map(|(name, _)| *name);
        let names: Vec<&str> = ["connect", "reset"].into_iter().chain(statuses).collect();
        json_schema!({ "anyOf": [
            { "type": "string", "enum": names },
            { "type": "integer", "minimum": 502, "maximum": 504 },
        ]})
    }
}

impl<'de> Deserialize<'de> for RetryOn {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        match &node.value {
            Value::Int(502) => Ok(Self::Status(502)),
            Value::Int(503) => Ok(Self::Status(503)),
            Value::Int(504) => Ok(Self::Status(504)),
            Value::Str(name) if name == "connect" => Ok(Self::Connect),
            Value::Str(name) if name == "reset" => Ok(Self::Reset),
            Value::Str(name)
                if let Some((_, status)) = GRPC.iter().find(|(one, _)| one == name) =>
            {
                Ok(Self::Grpc(*status))
            }
            _ => Err(D::Error::custom(
                "expected `connect`, `reset`, 502, 503, 504, or of gRPC `unavailable`, \
                 `resource_exhausted`, `internal`, `deadline_exceeded` or `cancelled`",
            )),
        }
    }
}

/// When a request is sent to another endpoint of its backend: a map, or `off` for never.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct LongRetry {
    /// After which failures: `connect` (no connection), `reset` (the connection or the stream ended
    /// before the first byte of an answer), `502`, `503`, `504` (answers of the backend with that
    /// status; `502` also what is not HTTP) and `unavailable` (gRPC's status 14 in the head of an
    /// answer, with nothing after it). Of gRPC's statuses also `resource_exhausted`, `internal`,
    /// `deadline_exceeded` and `cancelled` may be named. A `Retry-After` of more than two seconds
    /// is respected by not trying again, and so is gRPC's `grpc-retry-pushback-ms`.
    /// Default: `[connect, reset, 502, 503, 504, unavailable]`.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    on: Vec<RetryOn>,
    /// How often it is sent at most, the first time included. No endpoint gets it twice.
    /// Default: 2.
    #[schemars(range(min = 2, max = 8))]
    attempts: u32,
    /// How long one try waits for the head of its answer after the request's last byte was sent;
    /// then the next one is made. `timeout` bounds all tries together. Default: `off`.
    per_try: DurationOrOff,
    /// Whether requests may be repeated whose method is not idempotent, such as `POST`, and with it
    /// all of gRPC. Their backend must bear to get them twice. Default: `false`.
    non_idempotent: bool,
    /// How much of a body is kept to be sent again; with a larger one there is no second try, at
    /// most `1MiB`. Default: `64KiB`.
    body_max: Size,
    /// Whether a second endpoint is asked where the first is slow, and when: after a duration, or
    /// after what nineteen of twenty answers of the backend take (`p95`, once there have been 32).
    /// The first good answer is passed on, and the other request is given up. It counts as one of
    /// the `attempts`, takes from the backend's `retry_budget`, and is made only where the request
    /// may be repeated. Default: `off`.
    hedge: Hedge,
}

impl Default for LongRetry {
    fn default() -> Self {
        use RetryOn::{Connect, Grpc, Reset, Status};
        Self {
            on: vec![Connect, Reset, Status(502), Status(503), Status(504), Grpc(14)],
            attempts: 2,
            per_try: DurationOrOff::OFF,
            non_idempotent: false,
            body_max: Size::kib(64),
            hedge: Hedge::Off,
        }
    }
}

impl From<LongRetry> for Retry {
    fn from(long: LongRetry) -> Self {
        Self {
            on: long.on,
            attempts: long.attempts,
            per_try: long.per_try,
            non_idempotent: long.non_idempotent,
            body_max: long.body_max,
            hedge: long.hedge,
        }
    }
}

impl JsonSchema for Retry {
    fn schema_name() -> Cow<'static, str> {
        "Retry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let off = json_schema!({ "type": "string", "enum": ["off"] });
        short_or_long(vec![off], LongRetry::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for Retry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if node.as_str().is_some() {
            // The schema knows no other text.
            return Ok(Self { on: Vec::new(), attempts: 1, ..LongRetry::default().into() });
        }
        let long = LongRetry::deserialize(&node).map_err(D::Error::custom)?;
        if long.body_max > BODY_MAX {
            return Err(D::Error::custom("`body_max` of `retry` is at most `1MiB`"));
        }
        Ok(long.into())
    }
}
