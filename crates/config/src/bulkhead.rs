//! How many requests of a route or a backend may be under way at once, as written.

use portcullis_core::decode::short_or_long;
use portcullis_core::node::{Node, Value};
use portcullis_core::units::PositiveDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use crate::backend::pending_timeout;

/// Whether the bound of a backend's requests follows how long its answers take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Concurrency {
    /// `requests_max`.
    #[default]
    Fixed,
    /// As many as its answers do not take longer for, at most `requests_max`.
    Adaptive,
}

/// Requests of one route under way at once, and those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulkhead {
    /// `None`: as many as there are.
    pub requests_max: Option<u32>,
    /// `None`: as many as may be under way.
    pub pending_max: Option<u32>,
    pub pending_timeout: PositiveDuration,
}

/// Requests of one route under way at once: a number, a map, or `off` for no bound.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongBulkhead {
    /// Requests under way at once, over all workers; what was upgraded counts to its end.
    #[schemars(range(min = 1))]
    requests_max: u32,
    /// Requests beyond that may wait for their turn; a 503 beyond. The first has the next turn, and
    /// the last one while more than half of these wait. Default: `requests_max`.
    #[serde(default)]
    pending_max: Option<u32>,
    /// How long a request may wait for its turn; a 503 after that. Default: `1s`.
    #[serde(default = "pending_timeout")]
    pending_timeout: PositiveDuration,
}

impl JsonSchema for Bulkhead {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bulkhead".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let off = json_schema!({ "type": "string", "enum": ["off"] });
        let number = json_schema!({ "type": "integer", "minimum": 1, "maximum": u32::MAX });
        short_or_long(vec![number, off], LongBulkhead::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for Bulkhead {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        let simple = |requests_max| Self {
            requests_max,
            pending_max: None,
            pending_timeout: pending_timeout(),
        };
        Ok(match &node.value {
            // The schema knows no other text.
            Value::Str(_) => simple(None),
            Value::Int(_) => simple(Some(u32::deserialize(&node).map_err(D::Error::custom)?)),
            _ => {
                let long = LongBulkhead::deserialize(&node).map_err(D::Error::custom)?;
                let requests_max = Some(long.requests_max);
                let LongBulkhead { pending_max, pending_timeout, .. } = long;
                Self { requests_max, pending_max, pending_timeout }
            }
        })
    }
}
