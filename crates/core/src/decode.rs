//! Typed settings out of a [`Node`]: every shape error at once, each at its place.
//!
//! [`Node::decode`] works in two steps. The first walks the node beside the JSON Schema of the type
//! and reports everything that does not fit ([`shape`]); only a node that fits is then read by
//! serde ([`read`]), whose errors are of meaning, not of shape. Types therefore need nothing but
//! `Deserialize` and `JsonSchema`, and the schema that editors use is the one that is enforced.
//!
//! What the walk enforces: `type`, `enum`, `const`, `properties`, `required`, unknown keys (refused
//! unless `additionalProperties` says otherwise), `items`, the numeric, length and item bounds,
//! `anyOf`/`oneOf`/`allOf` and `x-format`. It does not evaluate `pattern`: a text with a grammar
//! has an `x-format`, whose [`Format`] says what is wrong and where.

mod one_or_many;
mod read;
mod rules;
mod shape;
mod words;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, PoisonError};

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::finding::{Finding, Findings};
use crate::limit_config::{self, KeyPart, LimitConfig};
use crate::node::{Key, Node, SourceSpan, Value};
use crate::units;

pub use one_or_many::OneOrMany;
pub use read::DecodeError;
pub use rules::Ready;

/// What is wrong with a text that has a grammar, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Bytes of the text.
    pub at: Range<usize>,
    pub message: String,
    pub help: Option<String>,
}

impl Fault {
    #[must_use]
    pub fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), help: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same fault in a text that begins `by` bytes earlier.
    #[must_use]
    pub fn shifted(mut self, by: usize) -> Self {
        self.at = self.at.start + by..self.at.end + by;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// A grammar for texts, named by `x-format` in a schema.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    pub name: &'static str,
    pub check: fn(&str) -> Result<(), Fault>,
}

/// The grammars of this crate's own types.
const FORMATS: [Format; 7] = [
    Format { name: "duration", check: |text| units::parse_duration(text).map(drop) },
    Format {
        name: "positive-duration",
        check: |text| text.parse::<units::PositiveDuration>().map(drop),
    },
    Format {
        name: "duration-or-off",
        check: |text| text.parse::<units::DurationOrOff>().map(drop),
    },
    Format { name: "size", check: |text| units::parse_size(text).map(drop) },
    Format { name: "limit", check: |text| text.parse::<LimitConfig>().map(drop) },
    Format { name: "limit-key", check: |text| text.parse::<KeyPart>().map(drop) },
    Format { name: "limit-keys", check: limit_config::check_keys },
];

/// Gives types that are written as one text their `Deserialize`, `Serialize` and `JsonSchema`
/// from `FromStr<Err = Fault>` and `Display`: `Type: "x-format", "what is expected", pattern`.
#[macro_export]
macro_rules! written_as_text {
    ($($type:ident: $format:literal, $expected:literal, $pattern:literal;)*) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn schema_id() -> std::borrow::Cow<'static, str> {
                concat!(module_path!(), "::", stringify!($type)).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "x-format": $format,
                    "x-expected": $expected,
                })
            }
        }
    )*};
}

/// Gives types that have a short form, one text, and a long one, a map, their `Deserialize` and
/// `JsonSchema`, from `FromStr<Err = Fault>` and `From<Long>`:
/// `Type = Long: "x-format", "what is expected", pattern`.
#[macro_export]
macro_rules! written_short_or_long {
    ($($type:ident = $long:ident: $format:literal, $expected:literal, $pattern:expr;)*) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Forms;

                impl<'de> serde::de::Visitor<'de> for Forms {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!($expected, " or a map"))
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        map: A,
                    ) -> Result<$type, A::Error> {
                        let map = serde::de::value::MapAccessDeserializer::new(map);
                        <$long as serde::Deserialize>::deserialize(map).map(Into::into)
                    }
                }

                from.deserialize_any(Forms)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn schema_id() -> std::borrow::Cow<'static, str> {
                concat!(module_path!(), "::", stringify!($type)).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let short = schemars::json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "x-format": $format,
                    "x-expected": $expected,
                });
                let long = <$long as schemars::JsonSchema>::json_schema(generator);
                $crate::decode::short_or_long(vec![short], long)
            }
        }
    )*};
}

/// What decoding needs to know beyond the type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder<'a> {
    /// Grammars of texts, beside those of this crate.
    pub formats: &'a [Format],
    /// Keys that the caller has already taken out of the outermost map; known for suggestions.
    pub other_keys: &'a [&'a str],
}

impl Node {
    /// Reads settings of type `T`; `resource` is the node's path, `routes.orders.cors`.
    ///
    /// All shape errors are reported, each at its place; `None` means that at least one error was
    /// added to `findings`.
    pub fn decode<T: DeserializeOwned + JsonSchema>(
        &self,
        resource: &str,
        findings: &mut Findings,
    ) -> Option<T> {
        Decoder::default().decode(self, self.span, resource, findings)
    }
}

impl Decoder<'_> {
    /// Reports what does not fit a schema that stands by itself, without reading anything.
    pub fn check(
        &self,
        node: &Node,
        anchor: SourceSpan,
        schema: &Ready,
        resource: &str,
        findings: &mut Findings,
    ) {
        shape::Shape::new(schema, self).check(node, anchor, resource, findings);
    }

    /// Like [`Node::decode`]; `anchor` is where a missing key is reported, best the key that the
    /// node is the value of.
    pub fn decode<T: DeserializeOwned + JsonSchema>(
        &self,
        node: &Node,
        anchor: SourceSpan,
        resource: &str,
        findings: &mut Findings,
    ) -> Option<T> {
        let before = findings.errors();
        let schema = cached_schema::<T>();
        shape::Shape::new(&schema, self).check(node, anchor, resource, findings);
        if findings.errors() > before {
            return None;
        }
        match T::deserialize(node) {
            Ok(value) => Some(value),
            Err(error) => {
                findings.push(error.into_finding(node.span, resource));
                None
            }
        }
    }
}

/// The JSON Schema (draft 2020-12) of a type as it is enforced: a key is left out or has a value,
/// so nothing is nullable.
#[must_use]
pub fn schema_of<T: JsonSchema + ?Sized>() -> serde_json::Value {
    schema_by(T::json_schema)
}

/// The schema of a type with short forms and a long one, whose description becomes that of all.
#[must_use]
pub fn short_or_long(short: Vec<Schema>, mut long: Schema) -> Schema {
    let description = long.remove("description");
    let forms: Vec<Schema> = short.into_iter().chain([long]).collect();
    let mut schema = schemars::json_schema!({});
    if let Some(description) = description {
        schema.insert("description".to_owned(), description);
    }
    schema.insert("anyOf".to_owned(), serde_json::json!(forms));
    schema
}

/// As [`schema_of`], from the function that makes the schema.
pub fn schema_by(make: impl FnOnce(&mut SchemaGenerator) -> Schema) -> serde_json::Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = make(&mut generator).to_value();
    let definitions = generator.take_definitions(true);
    if let (serde_json::Value::Object(map), false) = (&mut schema, definitions.is_empty()) {
        map.insert("$defs".to_owned(), definitions.into());
    }
    forbid_null(&mut schema);
    schema
}

/// Schemas already made, by type: a configuration with 5,000 routes asks for the same few.
fn cached_schema<T: JsonSchema>() -> Arc<Ready> {
    static MADE: Mutex<Option<HashMap<&str, Arc<Ready>>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    Arc::clone(
        made.entry(std::any::type_name::<T>())
            .or_insert_with(|| Arc::new(Ready::new(&schema_of::<T>()))),
    )
}

/// Removes `null` wherever `Option` put it.
fn forbid_null(schema: &mut serde_json::Value) {
    use serde_json::Value as Json;
    let is_null_type = |json: &Json| json.get("type").and_then(Json::as_str) == Some("null");
    match schema {
        Json::Object(map) => {
            if map.get("default").is_some_and(Json::is_null) {
                map.shift_remove("default");
            }
            if let Some(Json::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Json::Array(values)) = map.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            for word in ["anyOf", "oneOf"] {
                let Some(Json::Array(branches)) = map.get_mut(word) else { continue };
                branches.retain(|branch| !is_null_type(branch));
                if let [Json::Object(only)] = branches.as_slice() {
                    let only = only.clone();
                    map.shift_remove(word);
                    for (key, value) in only {
                        map.entry(key).or_insert(value);
                    }
                }
            }
            map.values_mut().for_each(forbid_null);
        }
        Json::Array(items) => items.iter_mut().for_each(forbid_null),
        _ => {}
    }
}

/// A value and where it was written, for checks that come after decoding.
///
/// The place is known when the value is read from a [`Node`] directly; behind `flatten` and
/// `untagged`, which buffer, it is `SourceSpan::default()`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spanned<T> {
    pub value: T,
    pub span: SourceSpan,
}

impl<T> Spanned<T> {
    #[must_use]
    pub fn new(value: T, span: SourceSpan) -> Self {
        Self { value, span }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Spanned<T> {}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpannedVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for SpannedVisitor<T> {
            type Value = Spanned<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            // Any other deserializer: a value without a place.
            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Self::Value, D::Error> {
                T::deserialize(deserializer).map(|value| Spanned::new(value, SourceSpan::default()))
            }

            // Our own: file, start, end, value.
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let short = || serde::de::Error::custom("a value without its place");
                let file = seq.next_element()?.ok_or_else(short)?;
                let start = seq.next_element()?.ok_or_else(short)?;
                let end = seq.next_element()?.ok_or_else(short)?;
                let value = seq.next_element()?.ok_or_else(short)?;
                Ok(Spanned { value, span: SourceSpan { file, start, end } })
            }
        }

        deserializer.deserialize_newtype_struct(read::SPANNED, SpannedVisitor(PhantomData))
    }
}

/// A map in the order written, with the places of its keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Entries<T>(pub Vec<(Key, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Entries<T> {
    type Target = [(Key, T)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("MapOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "object",
            "additionalProperties": generator.subschema_for::<T>(),
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(0).min(1024));
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::<String>::deserialize(deserializer).map(|name| Self::new(name.value, name.span))
    }
}

impl JsonSchema for Node {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Any".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        true.into()
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(|Spanned { value, span }| Self { span, value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(read::ValueVisitor)
    }
}

impl DecodeError {
    fn into_finding(self, outermost: SourceSpan, resource: &str) -> Finding {
        let resource = join(resource, &self.path());
        Finding::error("invalid-value", self.span.unwrap_or(outermost), resource, self.message)
    }
}

/// `a` + `b` = `a.b`; an index keeps its bracket: `a` + `[0]` = `a[0]`.
fn join(resource: &str, step: &str) -> String {
    let dot =
        if resource.is_empty() || step.is_empty() || step.starts_with('[') { "" } else { "." };
    format!("{resource}{dot}{step}")
}

#[cfg(test)]
mod tests;
