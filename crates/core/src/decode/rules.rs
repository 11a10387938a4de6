//! A JSON Schema made ready to be walked: what each part of it says is looked up once, not at each
//! node of a configuration with 5,000 routes.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use crate::node::{Node, Value};

/// The position of a part within its [`Ready`] schema.
pub(super) type Id = usize;

/// The part that a schema which is `true` becomes.
const ANYTHING: Id = 0;

/// A schema with its references resolved.
#[derive(Debug)]
pub struct Ready {
    parts: Vec<Rules>,
    root: Id,
}

/// What one part of a schema says, as far as it is enforced.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// `true` fits everything, `false` nothing; `None` where there is more to say.
    pub(super) whole: Option<bool>,
    /// Names of types.
    pub(super) types: Option<Vec<String>>,
    /// The texts that `enum` or `const` allow.
    pub(super) allowed: Option<Vec<String>>,
    pub(super) all_of: Option<Vec<Id>>,
    /// `anyOf`, else `oneOf`.
    pub(super) any_of: Option<Vec<Id>>,
    /// In the order of the schema.
    pub(super) properties: Option<Vec<(String, Id)>>,
    /// What keys without a property of their own are.
    pub(super) others: Option<Id>,
    pub(super) refuse_others: bool,
    pub(super) names: Option<Id>,
    pub(super) required: Vec<String>,
    pub(super) prefix: Vec<Id>,
    pub(super) items: Option<Id>,
    pub(super) unique: bool,
    pub(super) entries: Bounds,
    pub(super) elements: Bounds,
    pub(super) length: Bounds,
    /// `minimum`, `maximum`.
    pub(super) range: [Option<f64>; 2],
    /// `exclusiveMinimum`, `exclusiveMaximum`.
    pub(super) between: [Option<f64>; 2],
    /// The grammar of a text.
    pub(super) format: Option<String>,
    /// What is expected, in an operator's words.
    pub(super) expected: Option<String>,
    /// The one key of a branch that stands for a variant of an enum.
    pub(super) tag: Option<String>,
}

/// Least and most of something that is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    pub(super) min: Option<u64>,
    pub(super) max: Option<u64>,
}

impl Ready {
    #[must_use]
    pub fn new(schema: &Json) -> Self {
        let mut reader = Reader {
            parts: vec![Rules { whole: Some(true), ..Rules::default() }],
            definitions: schema.get("$defs").and_then(Json::as_object),
            named: HashMap::new(),
        };
        let root = reader.part(schema);
        Self { parts: reader.parts, root }
    }

    pub(super) fn root(&self) -> &Rules {
        self.part(self.root)
    }

    pub(super) fn part(&self, id: Id) -> &Rules {
        &self.parts[id]
    }
}

impl Rules {
    pub(super) fn property(&self, name: &str) -> Option<Id> {
        let properties = self.properties.as_ref()?;
        properties.iter().find(|(known, _)| known == name).map(|(_, id)| *id)
    }

    pub(super) fn is_of_type(&self, node: &Node) -> bool {
        self.types.as_ref().is_none_or(|types| types.iter().any(|name| is_type(name, node)))
    }
}

struct Reader<'a> {
    parts: Vec<Rules>,
    definitions: Option<&'a Map<String, Json>>,
    /// Definitions that were read, or that are being read: a type may contain itself.
    named: HashMap<&'a str, Id>,
}

impl<'a> Reader<'a> {
    fn part(&mut self, schema: &'a Json) -> Id {
        let (name, schema) = self.resolve(schema);
        let Some(name) = name else {
            return match schema {
                Json::Object(map) => {
                    let rules = self.rules(map);
                    self.push(rules)
                }
                Json::Bool(false) => self.push(Rules { whole: Some(false), ..Rules::default() }),
                _ => ANYTHING,
            };
        };
        if let Some(id) = self.named.get(name) {
            return *id;
        }
        // Its place is taken before it is read, for the references to it within itself.
        let id = self.push(Rules::default());
        self.named.insert(name, id);
        self.parts[id] = match schema {
            Json::Object(map) => self.rules(map),
            other => Rules { whole: Some(other.as_bool().unwrap_or(true)), ..Rules::default() },
        };
        id
    }

    /// What a reference leads to in the end, with the name of the definition.
    fn resolve(&self, mut schema: &'a Json) -> (Option<&'a str>, &'a Json) {
        let mut found = None;
        // A chain of references longer than this would be a loop in our own types.
        for _ in 0..16 {
            let Some(reference) = schema.get("$ref").and_then(Json::as_str) else { break };
            let name = reference.strip_prefix("#/$defs/");
            let target = name.and_then(|name| self.definitions?.get_key_value(name));
            let Some((name, target)) = target else { break };
            (found, schema) = (Some(name.as_str()), target);
        }
        (found, schema)
    }

    fn push(&mut self, rules: Rules) -> Id {
        self.parts.push(rules);
        self.parts.len() - 1
    }

    fn rules(&mut self, map: &'a Map<String, Json>) -> Rules {
        let flag = |word: &str| map.get(word).and_then(Json::as_bool);
        let text = |word: &str| map.get(word).and_then(Json::as_str).map(str::to_owned);
        let number = |word: &str| map.get(word).and_then(Json::as_f64);
        let count = |word: &str| map.get(word).and_then(Json::as_u64);
        let bounds = |min, max| Bounds { min: count(min), max: count(max) };
        let properties = map.get("properties").and_then(Json::as_object);
        let patterns = map.get("patternProperties").and_then(Json::as_object);
        let others = map
            .get("additionalProperties")
            .or_else(|| patterns.and_then(|patterns| patterns.values().next()));
        let required = texts(map.get("required"));
        let closed = flag("additionalProperties") == Some(false);
        let tag = match (required.as_slice(), properties) {
            ([only], Some(properties)) if closed && properties.len() == 1 => Some(only.clone()),
            _ => None,
        };
        Rules {
            whole: None,
            types: map.get("type").map(|types| match types {
                Json::String(name) => vec![name.clone()],
                types => texts(Some(types)),
            }),
            allowed: text("const")
                .map(|only| vec![only])
                .or_else(|| map.get("enum").map(|values| texts(Some(values)))),
            refuse_others: match others {
                Some(others) => others.as_bool() == Some(false),
                None => properties.is_some(),
            },
            required,
            unique: flag("uniqueItems") == Some(true),
            entries: bounds("minProperties", "maxProperties"),
            elements: bounds("minItems", "maxItems"),
            length: bounds("minLength", "maxLength"),
            range: [number("minimum"), number("maximum")],
            between: [number("exclusiveMinimum"), number("exclusiveMaximum")],
            format: text("x-format"),
            expected: text("x-expected"),
            tag,
            all_of: self.list(map.get("allOf")),
            any_of: self.list(map.get("anyOf").or_else(|| map.get("oneOf"))),
            properties: properties.map(|properties| {
                properties.iter().map(|(name, part)| (name.clone(), self.part(part))).collect()
            }),
            others: others.map(|part| self.part(part)),
            names: map.get("propertyNames").map(|part| self.part(part)),
            prefix: self.list(map.get("prefixItems")).unwrap_or_default(),
            items: map.get("items").map(|part| self.part(part)),
        }
    }

    fn list(&mut self, parts: Option<&'a Json>) -> Option<Vec<Id>> {
        let parts = parts?.as_array()?;
        Some(parts.iter().map(|part| self.part(part)).collect())
    }
}

fn texts(values: Option<&Json>) -> Vec<String> {
    let values = values.and_then(Json::as_array).into_iter().flatten();
    values.filter_map(Json::as_str).map(str::to_owned).collect()
}

fn is_type(name: &str, node: &Node) -> bool {
    match name {
        "null" => node.is_null(),
        "boolean" => matches!(node.value, Value::Bool(_)),
        "integer" => matches!(node.value, Value::Int(_)),
        "number" => matches!(node.value, Value::Int(_) | Value::Float(_)),
        "string" => matches!(node.value, Value::Str(_)),
        "array" => matches!(node.value, Value::Seq(_)),
        "object" => node.is_map(),
        _ => false,
    }
}
