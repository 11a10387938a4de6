//! Where copies of a route's requests go beside their own backend, as written.

use std::borrow::Cow;

use portcullis_core::decode::{Spanned, short_or_long};
use portcullis_core::node::{Node, Value};
use portcullis_core::units::{PositiveDuration, Size};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::text::Name;

/// The most that may be kept of a body.
const BODY_MAX: Size = Size::mib(1);

/// A backend that gets copies, and of which requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    pub to: Spanned<String>,
    /// 0 to 100.
    pub percent: f64,
    pub body_max: Size,
    pub timeout: PositiveDuration,
    pub unsafe_methods: bool,
}

/// A backend that gets copies of requests: its name, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongMirror {
    /// The backend that gets the copies.
    to: Spanned<Name>,
    /// How many of a hundred requests are copied, each drawn by itself; `0.1` is one of a thousand,
    /// and `0` is none. Default: 100.
    #[serde(default = "percent")]
    #[schemars(range(min = 0, max = 100))]
    percent: f64,
    /// How much of a body is kept for the copy, at most `1MiB`; of a request with a larger one no
    /// copy is sent. Default: `64KiB`.
    #[serde(default = "body_max")]
    body_max: Size,
    /// How long the mirror may take for an answer, to its last byte. A copy that has waited in the
    /// queue for so long is not sent any more. Default: `15s`.
    #[serde(default = "timeout")]
    timeout: PositiveDuration,
    /// Whether requests are copied whose method is not safe, such as `POST`, and with it all of
    /// gRPC. What they do is done once more, by the mirror. Default: `false`, which is only `GET`,
    /// `HEAD`, `OPTIONS` and `TRACE`.
    #[serde(default)]
    unsafe_methods: bool,
}

const fn percent() -> f64 {
    100.0
}

const fn body_max() -> Size {
    Size::kib(64)
}

const fn timeout() -> PositiveDuration {
    PositiveDuration::from_secs(15)
}

impl JsonSchema for Mirror {
    fn schema_name() -> Cow<'static, str> {
        "Mirror".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<Name>();
        short_or_long(vec![name], LongMirror::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for Mirror {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if let Value::Str(name) = node.value {
            let (percent, body_max, timeout) = (percent(), body_max(), timeout());
            let to = Spanned::new(name, node.span);
            return Ok(Self { to, percent, body_max, timeout, unsafe_methods: false });
        }
        let LongMirror { to, percent, body_max, timeout, unsafe_methods } =
            LongMirror::deserialize(&node).map_err(D::Error::custom)?;
        if body_max > BODY_MAX {
            return Err(D::Error::custom("`body_max` of `mirror` is at most `1MiB`"));
        }
        let to = Spanned::new(to.value.0, to.span);
        Ok(Self { to, percent, body_max, timeout, unsafe_methods })
    }
}
