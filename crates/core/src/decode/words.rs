//! Saying schemas and values in an operator's words.

use crate::node::{Node, Value};

pub(super) fn add(into: &mut Vec<String>, text: String) {
    if !into.contains(&text) {
        into.push(text);
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
