//! Reading single words of a schema, and saying schemas and values in an operator's words.

use serde_json::Value as Json;

use crate::node::{Node, Value};

pub(super) fn add(into: &mut Vec<String>, text: String) {
    if !into.contains(&text) {
        into.push(text);
    }
}

pub(super) fn list<'a>(schema: &'a Json, word: &str) -> Option<&'a [Json]> {
    schema.get(word).and_then(Json::as_array).map(Vec::as_slice)
}

pub(super) fn types(schema: &Json) -> Option<Vec<&str>> {
    match schema.get("type")? {
        Json::String(name) => Some(vec![name]),
        Json::Array(names) => Some(names.iter().filter_map(Json::as_str).collect()),
        _ => None,
    }
}

/// The texts that `enum` or `const` allow.
pub(super) fn allowed(schema: &Json) -> Option<Vec<&str>> {
    if let Some(text) = schema.get("const").and_then(Json::as_str) {
        return Some(vec![text]);
    }
    list(schema, "enum").map(|values| values.iter().filter_map(Json::as_str).collect())
}

/// The one key of a branch that stands for a variant of an enum.
pub(super) fn tag(schema: &Json) -> Option<&str> {
    let closed = schema.get("additionalProperties").and_then(Json::as_bool) == Some(false);
    let properties = schema.get("properties").and_then(Json::as_object)?;
    match list(schema, "required")? {
        [Json::String(name)] if closed && properties.len() == 1 => Some(name),
        _ => None,
    }
}

pub(super) fn is_type(name: &str, node: &Node) -> bool {
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

pub(super) fn type_name(name: &str) -> &'static str {
    match name {
        "boolean" => "`true` or `false`",
        "integer" => "an integer",
        "number" => "a number",
        "string" => "a string",
        "array" => "a list",
        "object" => "a map",
        _ => "nothing",
    }
}

pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A scalar as it would stand in the file.
pub(super) fn plain(node: &Node) -> String {
    match &node.value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Str(text) => clip(text),
        Value::Null | Value::Seq(_) | Value::Map(_) => String::new(),
    }
}

pub(super) fn describe(node: &Node) -> String {
    let what = node.kind();
    match &node.value {
        Value::Null | Value::Seq(_) | Value::Map(_) => what.to_owned(),
        _ => format!("the {} `{}`", what.split(' ').next_back().unwrap_or(what), plain(node)),
    }
}
