//! The JSON Schema (draft 2020-12) of the whole language, for editors and for the reference.
//!
//! It is made from the types that read the configuration and from the registry, in the same order
//! on every run. Two keywords are our own: `x-expected` says in words what a text must be, and
//! `x-format` names the grammar that the loader checks it with.

use portcullis_core::decode::schema_by;
use portcullis_core::registry::Registry;
use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde_json::{Map, Value as Json, json};

use crate::route::{GroupOnly, RouteOnly};
use crate::{ACTIONS, Acceptance, Backend, InlineTest, Listener, Name, Process, Settings};

/// The schema of a configuration file under this registry.
#[must_use]
pub fn schema(registry: &Registry) -> Json {
    let mut whole = schema_by(|generator| root(registry, generator));
    fill_limits(&mut whole);
    // Definitions are found in the order of use; a reader looks them up by name.
    if let Some(Json::Object(definitions)) = whole.get_mut("$defs") {
        let mut sorted: Vec<(String, Json)> = std::mem::take(definitions).into_iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        definitions.extend(sorted);
    }
    whole
}

fn root(registry: &Registry, generator: &mut SchemaGenerator) -> schemars::Schema {
    let define = |generator: &mut SchemaGenerator, name: &str, schema: Json| {
        generator.definitions_mut().insert(name.to_owned(), schema);
        json!({ "$ref": format!("#/$defs/{name}") })
    };
    let mut entry = |name: &str, make: fn(&mut SchemaGenerator) -> schemars::Schema| {
        let schema = make(generator).to_value();
        let says = schema.get("description").cloned();
        let mut reference = define(generator, name, schema);
        if let Some(says) = says {
            reference["description"] = says;
        }
        (name.to_owned(), reference)
    };
    entry("limit", registry.limit.schema);
    let kinds: Vec<_> = registry.auth.iter().map(|auth| entry(auth.name, auth.schema)).collect();
    let policies: Vec<_> =
        registry.policies.iter().map(|policy| entry(policy.name, policy.schema)).collect();

    let settings = Settings::json_schema(generator).to_value();
    let common: Vec<_> =
        policies.iter().filter(|(name, _)| !ACTIONS.contains(&name.as_str())).cloned().collect();
    let defaults = owner("What every route inherits.", &[&settings], &common);
    let route_only = RouteOnly::json_schema(generator).to_value();
    let route = owner(
        "One route. It has a `match`, exactly one of `to`, `respond`, `redirect` and `deny`, and \
         either an `auth` of its own or inherited, or `public`.",
        &[&route_only, &settings],
        &policies,
    );
    let route = define(generator, "Route", route);
    let mut group_only = GroupOnly::json_schema(generator).to_value();
    if let Some(routes) = group_only.pointer_mut("/properties/routes") {
        routes["additionalProperties"] = route.clone();
    }
    let group = owner(
        "Routes that share a beginning and settings. The full name of each is `GROUP/ROUTE`.",
        &[&group_only, &settings],
        &common,
    );
    let auth = json!({
        "description": "One way to authenticate: a map with one key, the kind.",
        "oneOf": kinds.iter().map(|(name, schema)| json!({
            "type": "object",
            "properties": { name: schema },
            "required": [name],
            "additionalProperties": false,
        })).collect::<Vec<_>>(),
    });
    let (defaults, group, auth) = (
        define(generator, "Defaults", defaults),
        define(generator, "Group", group),
        define(generator, "Auth", auth),
    );
    let listener = generator.subschema_for::<Listener>().to_value();
    let backend = generator.subschema_for::<Backend>().to_value();
    let test = generator.subschema_for::<InlineTest>().to_value();
    let acceptance = generator.subschema_for::<Acceptance>().to_value();
    let names = generator.subschema_for::<Name>().to_value();
    let map = |of: &Json, says: &str| {
        json!({
            "description": says,
            "type": "object",
            "propertyNames": names,
            "additionalProperties": of,
        })
    };
    let mut properties = Map::new();
    let mut say = |name: &str, schema: Json| properties.insert(name.to_owned(), schema);
    say("listeners", map(&listener, "Where clients connect, by name. All in one file."));
    say("auth", map(&auth, "How callers prove who they are, by name."));
    say("defaults", described(defaults, "What every route inherits. In one file."));
    say("groups", map(&group, "Routes that share a beginning and settings, by name."));
    say("routes", map(&route, "What becomes of which requests, by name."));
    say("backends", map(&backend, "The services behind the gateway, by name."));
    let tests = "Tests of this configuration. `portcullis check` runs them, without a network.";
    say("tests", json!({ "description": tests, "type": "array", "items": test }));
    let accept = "Warnings that are no danger here, each with the reason. `portcullis check` counts \
                  them apart, and warns of an entry that no finding needs any longer.";
    say("accept", json!({ "description": accept, "type": "array", "items": acceptance }));
    let process = Process::json_schema(generator).to_value();
    if let Some(Json::Object(more)) = process.get("properties") {
        properties.extend(more.clone());
    }
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Portcullis configuration",
        "description": "One file, or one of several that are put together.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// The schema of a map whose keys come from several types and from the registry.
fn owner(says: &str, types: &[&Json], policies: &[(String, Json)]) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for part in types {
        if let Some(Json::Object(more)) = part.get("properties") {
            properties.extend(more.clone());
        }
        if let Some(Json::Array(more)) = part.get("required") {
            required.extend(more.clone());
        }
    }
    properties.extend(policies.iter().cloned());
    let mut owner = json!({
        "description": says,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        owner["required"] = required.into();
    }
    owner
}

fn described(mut schema: Json, says: &str) -> Json {
    schema["description"] = says.into();
    schema
}

/// Puts the registry's schema of a limit where the types left room for it.
fn fill_limits(schema: &mut Json) {
    match schema {
        Json::Object(map) if map.get("x-registry").is_some_and(|name| name == "limit") => {
            *schema = json!({ "$ref": "#/$defs/limit" });
        }
        Json::Object(map) => map.values_mut().for_each(fill_limits),
        Json::Array(items) => items.iter_mut().for_each(fill_limits),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::node::{Node, Value};

    use super::*;
    use crate::testing::REGISTRY;
    use crate::yaml;

    fn json(node: &Node) -> Json {
        match &node.value {
            Value::Null => Json::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Str(text) => text.clone().into(),
            Value::Seq(items) => items.iter().map(json).collect(),
            Value::Map(entries) => {
                entries.iter().map(|(key, value)| (key.name.clone(), json(value))).collect()
            }
        }
    }

    /// Whether the schema, read by somebody else's validator, lets a configuration through.
    fn validates(text: &str) -> Result<(), String> {
        let mut findings = portcullis_core::finding::Findings::new();
        let node = yaml::read(0, text, &mut findings).expect("YAML");
        let validator = jsonschema::draft202012::new(&schema(&REGISTRY)).expect("a schema");
        validator.validate(&json(&node)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_schema_accepts_what_loads() {
        let text = crate::tests::GOOD;
        assert_eq!(validates(text), Ok(()));
        assert!(crate::testing::load_files(&[("a.yaml", text)]).config.is_some());
    }

    #[test]
    fn the_schema_refuses_what_does_not_load() {
        let texts = [
            "rotes: {}",
            "workers: 0",
            "routes: { a: { to: b } }",
            "routes: { a: { match: /a, to: b, timeout: 15 } }",
            "routes: { a: { match: /a, to: b, cors: {} } }",
            "routes: { a: { match: /a, to: b, limits: [\"many\"] } }",
            "routes: { a: { match: /a, to: { b: \"1\" } } }",
            "groups: { g: { routes: { a: { mach: /a, to: b } } } }",
            "defaults: { respond: { status: 200 } }",
            "auth: { a: { jwt: { issuer: x, audience: [a] }, api_keys: { keys: \"file:x\" } } }",
            "auth: { a: { saml: {} } }",
            "backends: { b: \"ftp://x\" }",
            "backends: { b: { endpoints: [\"http://x\"], protocol: h3 } }",
            "routes: { a: { match: { grpc: a/b/c }, to: b } }",
            "routes: { a: { match: /a, to: b, upgrade: [h2c] } }",
            "listeners: { l: { bind: 8080 } }",
            "\"a b\": {}",
            "tests: [GET x]",
        ];
        for text in texts {
            assert!(validates(text).is_err(), "the schema accepts {text}");
            assert!(crate::testing::load_files(&[("a.yaml", text)]).config.is_none(), "{text}");
        }
    }

    #[test]
    fn every_key_is_described() {
        fn walk(path: &str, schema: &Json, silent: &mut Vec<String>) {
            if let Some(Json::Object(properties)) = schema.get("properties") {
                for (name, property) in properties {
                    // A map with one key for its kind is described as a whole.
                    let whole = schema.get("description").filter(|_| properties.len() == 1);
                    let says = property.get("description").or(whole);
                    if says.is_none() {
                        silent.push(format!("{path}/{name}"));
                    }
                }
            }
            match schema {
                Json::Object(map) => {
                    map.iter().for_each(|(key, part)| walk(&format!("{path}/{key}"), part, silent));
                }
                Json::Array(parts) => parts.iter().for_each(|part| walk(path, part, silent)),
                _ => {}
            }
        }
        let mut silent = Vec::new();
        walk("", &schema(&REGISTRY), &mut silent);
        assert_eq!(silent, Vec::<String>::new());
    }

    #[test]
    fn it_is_the_same_on_every_run_and_refers_to_what_it_has() {
        let schema = schema(&REGISTRY);
        let text = schema.to_string();
        assert_eq!(text, super::schema(&REGISTRY).to_string());
        assert!(!text.contains("x-registry"));
        for part in text.split("\"#/$defs/").skip(1) {
            let name = part.split('"').next().expect("closed");
            assert!(schema.pointer(&format!("/$defs/{name}")).is_some(), "{name} is missing");
        }
    }
}
