//! Short forms beside long ones: how a type with both is read without losing places.

use std::borrow::Cow;

use portcullis_core::node::{Node, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::text::Statuses;

pub use portcullis_core::decode::OneOrMany;

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        let text = match &node.value {
            Value::Int(status) => status.to_string(),
            Value::Str(text) => text.clone(),
            _ => String::new(),
        };
        text.parse().map_err(D::Error::custom)
    }
}

impl serde::Serialize for Statuses {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl JsonSchema for Statuses {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "minimum": 100,
            "maximum": 599,
            "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$",
            "x-format": "statuses",
            "x-expected": "a status or a range such as `\"200-299\"`",
        })
    }
}
