//! When an endpoint that misbehaves gets no more requests, as written.

use std::borrow::Cow;

use portcullis_core::decode::short_or_long;
use portcullis_core::node::{Node, Value};
use portcullis_core::units::PositiveDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

/// `true`, `off` (or `false`), or a map that says how. The word `on` needs quotes in YAML, where
/// some read it as a boolean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch<T>(pub Option<T>);

impl<T> Default for Switch<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: JsonSchema> JsonSchema for Switch<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        format!("{}::Switch<{}>", module_path!(), T::schema_id()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let word = json_schema!({ "type": "string", "enum": ["on", "off"] });
        let boolean = json_schema!({ "type": "boolean" });
        short_or_long(vec![boolean, word], T::json_schema(generator))
    }
}

impl<'de, T: Default + serde::de::DeserializeOwned> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        match (&node.value, node.as_str()) {
            (Value::Bool(true), _) | (_, Some("on")) => Ok(Self(Some(T::default()))),
            // The schema knows no other word.
            (Value::Bool(false), _) | (_, Some(_)) => Ok(Self(None)),
            _ => T::deserialize(&node).map(|long| Self(Some(long))).map_err(D::Error::custom),
        }
    }
}

/// Endpoints that fail or dawdle more than the others of their backend get no requests for a while:
/// `true`, `off`, or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outliers {
    /// Errors in a row after which an endpoint is out: no connection, a reset, no answer in time,
    /// an answer that is no HTTP. Any answer ends the row. 0 for never. Default: 5.
    #[schemars(range(max = 1000))]
    pub in_a_row: u32,
    /// By how many per cent more of its requests fail than of all others together: errors as
    /// above, or answers with a status of 500 and more, each for itself. What all endpoints answer
    /// with 500 takes none of them out. Default: 30.
    #[schemars(range(min = 1, max = 100))]
    pub excess: u32,
    /// Whether statuses count. Default: `true`.
    pub statuses: bool,
    /// How many times as long its answers take as those of the others: 2 or more. For backends
    /// whose requests are alike. Default: however long they take, it stays.
    #[schemars(range(min = 2, max = 1000))]
    pub slower: Option<u32>,
    /// Requests of about the last five seconds without which nothing is judged but errors in a
    /// row: of the endpoint, and of the others together. Default: 20.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_min: u32,
    /// How long an endpoint is out, 15 % more or less. Each further time in a row it is twice as
    /// long; each such time in which it behaves halves the next one again. Default: `10s`.
    pub eject: PositiveDuration,
    /// The longest time out. Default: `5m`.
    pub eject_max: PositiveDuration,
    /// Of a hundred endpoints so many are out at most; the last one never is. Default: 50.
    #[schemars(range(min = 0, max = 100))]
    pub ejected_max: u32,
}

impl Default for Outliers {
    fn default() -> Self {
        Self {
            in_a_row: 5,
            excess: 30,
            statuses: true,
            slower: None,
            requests_min: 20,
            eject: PositiveDuration::from_secs(10),
            eject_max: PositiveDuration::from_secs(300),
            ejected_max: 50,
        }
    }
}

/// Refuses requests at once while too many of them fail, and finds out by a few whether things are
/// better: `true`, `off`, or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// What has one: `endpoint` (requests go to the others meanwhile), `backend` (requests are
    /// refused with a 503), or `both`. Default: `both`.
    pub of: BreakerOf,
    /// Of a hundred requests so many have to fail: no answer, or one with a status of 500 and more.
    /// Default: 50.
    #[schemars(range(min = 1, max = 100))]
    pub percent: u32,
    /// Fewer requests in the window open nothing. Default: 20.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_min: u32,
    /// How far back requests count. Default: `5s`.
    pub window: PositiveDuration,
    /// How long it is open. Each time that it is no better then it is twice as long. Default: `5s`.
    pub open: PositiveDuration,
    /// The longest time. Default: `30s`.
    pub open_max: PositiveDuration,
    /// Requests that are let through after that, all of which have to succeed. Default: 3.
    #[schemars(range(min = 1, max = 63))]
    pub probes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            of: BreakerOf::default(),
            percent: 50,
            requests_min: 20,
            window: PositiveDuration::from_secs(5),
            open: PositiveDuration::from_secs(5),
            open_max: PositiveDuration::from_secs(30),
            probes: 3,
        }
    }
}

/// What a breaker protects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerOf {
    /// Each endpoint has its own.
    Endpoint,
    /// One for the whole.
    Backend,
    /// Both.
    #[default]
    Both,
}
