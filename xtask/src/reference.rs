//! The configuration reference, as one page of Markdown made from the JSON Schema: the doc comments
//! of the configuration types are the operator's manual, so nothing here adds words of its own.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The whole page. A type that is referred to gets a section after the one that first names it.
pub(crate) fn page(schema: &Value) -> String {
    let mut page = Page { schema, text: String::new(), queue: Vec::new(), seen: BTreeSet::new() };
    page.text.push_str(
        "# Configuration reference\n\n\
         This page is generated from the types that read the configuration \
         (`cargo xtask generate`). `portcullis schema` prints the same as JSON Schema, \
         for editors.\n",
    );
    page.section("The file", schema);
    while !page.queue.is_empty() {
        let name = page.queue.remove(0);
        if let Some(definition) = schema.pointer(&format!("/$defs/{name}")) {
            page.section(&name, definition);
        }
    }
    page.text
}

struct Page<'a> {
    schema: &'a Value,
    text: String,
    queue: Vec<String>,
    seen: BTreeSet<String>,
}

impl Page<'_> {
    fn section(&mut self, title: &str, schema: &Value) {
        self.text.push_str(&format!("\n## {title}\n\n"));
        if let Some(description) = description(schema) {
            self.text.push_str(&format!("{description}\n\n"));
        }
        self.forms(schema);
        self.fields(schema);
        while self.text.ends_with("\n\n") {
            self.text.pop();
        }
    }

    /// The alternatives of a type that can be written in several ways.
    fn forms(&mut self, schema: &Value) {
        if let Some(names) = schema.get("enum").and_then(Value::as_array) {
            let names: Vec<String> = names.iter().map(code).collect();
            self.text.push_str(&format!("One of {}.\n\n", names.join(", ")));
        }
        let Some(forms) = alternatives(schema) else { return };
        self.text.push_str("One of:\n\n");
        for form in forms {
            let written = self.written(form);
            let says = description(form).map(|text| format!(": {}", in_a_line(&text)));
            self.text.push_str(&format!("- {written}{}\n", says.unwrap_or_default()));
        }
        self.text.push('\n');
        for form in forms {
            self.fields(form);
        }
    }

    fn fields(&mut self, schema: &Value) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
        if properties.is_empty() {
            return;
        }
        let required = required(schema);
        self.text.push_str("| key | value | default | |\n|---|---|---|---|\n");
        for (key, field) in properties {
            let written = self.written(field);
            let default = match field.get("default") {
                Some(Value::Null) | None if required.contains(key.as_str()) => {
                    "required".to_owned()
                }
                Some(Value::Null) | None => String::new(),
                Some(value) => code(value),
            };
            let says = description(field).map(|text| in_a_line(&text)).unwrap_or_default();
            self.text.push_str(&format!("| `{key}` | {written} | {default} | {says} |\n"));
        }
        self.text.push('\n');
    }

    /// How a value is written: its type in a few words, with a link where it has a section.
    fn written(&mut self, schema: &Value) -> String {
        if let Some(name) = reference(schema) {
            return self.link(&name);
        }
        if let Some([only]) = schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            return self.written(only);
        }
        if let Some(value) = schema.get("const") {
            return code(value);
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return values.iter().map(code).collect::<Vec<_>>().join(", ");
        }
        if let Some(forms) = alternatives(schema) {
            let forms: Vec<String> = forms
                .iter()
                .filter(|form| form.get("type") != Some(&Value::from("null")))
                .map(|form| self.written(form))
                .collect();
            return match forms.as_slice() {
                [one, list] if *list == format!("list, each {one}") => {
                    format!("{one}, or a list of these")
                }
                _ => forms.join(" or "),
            };
        }
        self.of_type(schema)
    }

    fn of_type(&mut self, schema: &Value) -> String {
        // Texts with a grammar say in words what they are; the pattern is for editors.
        if let Some(expected) = schema.get("x-expected").and_then(Value::as_str) {
            return expected.replace('|', "\\|");
        }
        let names: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => return "anything".to_owned(),
        };
        let words: Vec<String> = names
            .into_iter()
            .filter(|name| *name != "null")
            .map(|name| match name {
                "array" => match schema.get("items") {
                    Some(items) => format!("list, each {}", self.written(items)),
                    None => "list".to_owned(),
                },
                "object" => self.object(schema),
                "integer" => "whole number".to_owned(),
                "boolean" => "`true` or `false`".to_owned(),
                "string" => match schema.get("pattern").and_then(Value::as_str) {
                    Some(pattern) => format!("string like {}", code(&Value::from(pattern))),
                    None => "string".to_owned(),
                },
                other => other.to_owned(),
            })
            .collect();
        words.join(" or ")
    }

    fn object(&mut self, schema: &Value) -> String {
        if let Some(values) = schema.get("additionalProperties").filter(|value| value.is_object()) {
            return format!("map of name to {}", self.written(values));
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let keys: Vec<String> =
            properties.into_iter().flat_map(Map::keys).map(|key| format!("`{key}`")).collect();
        if keys.is_empty() { "map".to_owned() } else { format!("map with {}", keys.join(", ")) }
    }

    fn link(&mut self, name: &str) -> String {
        if self.schema.pointer(&format!("/$defs/{name}")).is_none() {
            return name.to_owned();
        }
        if self.seen.insert(name.to_owned()) {
            self.queue.push(name.to_owned());
        }
        format!("[{name}](#{})", name.to_lowercase())
    }
}

fn alternatives(schema: &Value) -> Option<&Vec<Value>> {
    ["anyOf", "oneOf"].iter().find_map(|key| schema.get(key)).and_then(Value::as_array)
}

fn reference(schema: &Value) -> Option<String> {
    let path = schema.get("$ref")?.as_str()?;
    Some(path.strip_prefix("#/$defs/")?.to_owned())
}

fn required(schema: &Value) -> BTreeSet<&str> {
    let names = schema.get("required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn description(schema: &Value) -> Option<String> {
    schema.get("description").and_then(Value::as_str).map(str::to_owned)
}

/// A value as it is written in the file, safe inside a table.
fn code(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!("`{}`", text.replace('|', "\\|"))
}

/// Several paragraphs as one line of a table or a list.
fn in_a_line(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>());
    let lines: Vec<String> = paragraphs.map(|words| words.join(" ")).collect();
    lines.join("<br>").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_type_becomes_a_section_and_its_fields_a_table() {
        let schema = json!({
            "description": "What the gateway does.",
            "properties": {
                "routes": {
                    "description": "Every route,\nby name.",
                    "additionalProperties": { "$ref": "#/$defs/Route" },
                    "type": "object",
                },
                "workers": { "type": ["integer", "null"], "default": null },
                "wait": { "type": "string", "pattern": "^.*$", "x-expected": "a time | `off`" },
            },
            "required": ["routes"],
            "$defs": {
                "Route": {
                    "anyOf": [
                        { "type": "string", "description": "The name of a backend | none." },
                        { "type": "object", "properties": { "to": { "enum": ["a", "b"] } } },
                    ],
                },
            },
        });
        let page = super::page(&schema);
        for expected in [
            "## The file\n\nWhat the gateway does.\n",
            "| `routes` | map of name to [Route](#route) | required | Every route, by name. |",
            "| `workers` | whole number |  |  |",
            "| `wait` | a time \\| `off` |  |  |",
            "## Route\n\nOne of:\n\n- string: The name of a backend \\| none.\n- map with `to`\n",
            "| `to` | `a`, `b` |  |  |",
        ] {
            assert!(page.contains(expected), "{expected}\nis not in\n{page}");
        }
    }
}
