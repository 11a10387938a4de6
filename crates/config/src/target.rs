//! Where a route sends its requests, as written: a backend, or variants with their shares.

use std::borrow::Cow;
use std::collections::BTreeMap;

use portcullis_core::decode::{Entries, Spanned, short_or_long};
use portcullis_core::node::{Key, Node, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::forms::OneOrMany;
use crate::matching::{Condition, LongValue, conditions};
use crate::text::Name;

/// More variants of one route are a slip.
const VARIANTS_MAX: usize = 64;

/// One variant of a route: a backend under a name, and its share of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The backend's, where no other is said.
    pub name: Spanned<String>,
    pub backend: Spanned<String>,
    pub weight: u32,
    pub subset: Option<Spanned<Subset>>,
    /// A request that meets any of these goes here, whatever the weights are.
    pub when: Vec<When>,
}

/// Endpoints with some labels.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// Names and values, all of which an endpoint has to have.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub labels: BTreeMap<String, String>,
    /// What becomes of requests when no such endpoint is usable: `refuse` answers with a 503, after
    /// those that are down by their checks have been tried as `panic_threshold` says; `any` takes
    /// another endpoint of the backend. Default: `refuse`.
    #[serde(default)]
    pub empty: WhenEmpty,
}

/// What becomes of requests when no endpoint of a subset is usable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenEmpty {
    /// A 503.
    #[default]
    Refuse,
    /// Another endpoint of the backend.
    Any,
}

/// Conditions, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When {
    pub headers: Vec<Condition>,
    pub cookies: Vec<Condition>,
    pub query: Vec<Condition>,
}

/// The written form of `to`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets(pub(crate) Vec<Target>);

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Weight(#[schemars(range(min = 0, max = 1_000_000))] u32);

/// A variant: its weight, or a map.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongTarget {
    /// The backend, for a variant that is not called like one. Several variants may have the same
    /// backend, which tells them apart by `Portcullis-Variant`.
    #[serde(default)]
    backend: Option<Spanned<Name>>,
    /// Its share of the requests, against the weights of the others. Default: 0, which gets only
    /// what `when` says.
    #[serde(default)]
    weight: Weight,
    /// Which endpoints of the backend it keeps to, by their labels. Default: all.
    #[serde(default)]
    subset: Option<Spanned<Subset>>,
    /// Requests that go here whatever the weights are: conditions, or a list of which any will do.
    /// Of several variants whose conditions hold the first has the request.
    #[serde(default)]
    when: Option<OneOrMany<LongWhen>>,
}

/// Conditions, all of which must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongWhen {
    /// On header fields, as in `match`.
    #[serde(default)]
    headers: Entries<LongValue>,
    /// On cookies, written as those on `headers`. Names of cookies have a case.
    #[serde(default)]
    cookies: Entries<LongValue>,
    /// On query parameters, as in `match`.
    #[serde(default)]
    query: Entries<LongValue>,
}

impl LongWhen {
    fn conditions(self) -> Result<When, &'static str> {
        let when = When {
            headers: conditions(self.headers, true),
            cookies: conditions(self.cookies, false),
            query: conditions(self.query, false),
        };
        match when == When::default() {
            true => Err("`when` has no condition: write `headers`, `cookies` or `query`"),
            false => Ok(when),
        }
    }
}

/// A weight, or a map.
struct Written(LongTarget);

impl JsonSchema for Written {
    fn schema_name() -> Cow<'static, str> {
        "Target".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let weight = Weight::json_schema(generator);
        short_or_long(vec![weight], LongTarget::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if node.is_map() {
            return LongTarget::deserialize(&node).map(Self).map_err(D::Error::custom);
        }
        let weight = Weight::deserialize(&node).map_err(D::Error::custom)?;
        Ok(Self(LongTarget { weight, ..LongTarget::default() }))
    }
}

impl JsonSchema for Targets {
    fn schema_name() -> Cow<'static, str> {
        "Targets".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                generator.subschema_for::<Name>(),
                {
                    "type": "object",
                    "additionalProperties": generator.subschema_for::<Written>(),
                    "minProperties": 1,
                },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if let Value::Str(name) = node.value {
            let backend = Spanned::new(name, node.span);
            let name = backend.clone();
            let (weight, subset, when) = (100, None, Vec::new());
            return Ok(Self(vec![Target { name, backend, weight, subset, when }]));
        }
        let entries = Entries::<Written>::deserialize(&node).map_err(D::Error::custom)?;
        if entries.iter().all(|(_, written)| written.0.weight.0 == 0) {
            return Err(D::Error::custom("at least one weight must be more than 0"));
        }
        if entries.0.len() > VARIANTS_MAX {
            return Err(D::Error::custom("a route has at most 64 variants"));
        }
        let targets = entries.0.into_iter().map(|(key, written)| target(key, written.0));
        targets.collect::<Result<_, _>>().map(Self).map_err(D::Error::custom)
    }
}

fn target(key: Key, long: LongTarget) -> Result<Target, String> {
    if let Err(fault) = key.name.parse::<Name>() {
        return Err(format!("`{}` cannot name a variant: {fault}", key.name));
    }
    let when = long.when.into_iter().flat_map(|when| when.0);
    let when = when.map(LongWhen::conditions).collect::<Result<_, _>>()?;
    let name = Spanned::new(key.name, key.span);
    let backend = match long.backend {
        Some(backend) => Spanned::new(backend.value.0, backend.span),
        None => name.clone(),
    };
    Ok(Target { name, backend, weight: long.weight.0, subset: long.subset, when })
}
