//! The walk of a node beside a JSON Schema, which reports everything that does not fit.

use serde_json::Value as Json;

use super::words::{add, allowed, clip, describe, is_type, list, plain, tag, type_name, types};
use super::{Decoder, FORMATS, Fault, Format, join};
use crate::finding::{Finding, Findings, did_you_mean};
use crate::node::{Node, SourceSpan, Value};

/// A schema with its definitions, and what the caller adds to it.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    root: &'a Json,
    definitions: Option<&'a Json>,
    decoder: &'a Decoder<'a>,
}

impl<'a> Shape<'a> {
    pub(super) fn new(root: &'a Json, decoder: &'a Decoder<'a>) -> Self {
        Self { root, definitions: root.get("$defs"), decoder }
    }

    pub(super) fn check(
        &self,
        node: &Node,
        anchor: SourceSpan,
        resource: &str,
        findings: &mut Findings,
    ) {
        self.walk(self.root, At { node, anchor, resource, outermost: true }, findings);
    }

    fn resolve(&self, mut schema: &'a Json) -> &'a Json {
        // A chain of references longer than this would be a loop in our own types.
        for _ in 0..16 {
            let Some(reference) = schema.get("$ref").and_then(Json::as_str) else { break };
            let name = reference.strip_prefix("#/$defs/");
            let target = name.and_then(|name| self.definitions?.get(name));
            let Some(target) = target else { break };
            schema = target;
        }
        schema
    }

    fn walk(&self, schema: &'a Json, at: At<'_>, findings: &mut Findings) {
        let schema = self.resolve(schema);
        let before = findings.errors();
        if let Some(all) = list(schema, "allOf") {
            all.iter().for_each(|part| self.walk(part, at, findings));
        }
        if let Some(branches) = list(schema, "anyOf").or_else(|| list(schema, "oneOf")) {
            self.choose(schema, branches, at, findings);
        }
        if findings.errors() > before {
            return;
        }
        if !self.accepts(schema, at.node) {
            return findings.push(self.wrong_type(schema, at));
        }
        if let Some(allowed) = allowed(schema) {
            return self.one_of(&allowed, at, findings);
        }
        match &at.node.value {
            Value::Map(_) => self.map(schema, at, findings),
            Value::Seq(items) => self.seq(schema, items, at, findings),
            Value::Str(text) => self.text(schema, text, at, findings),
            Value::Int(value) => number(schema, *value as f64, at, findings),
            Value::Float(value) => number(schema, *value, at, findings),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Whether a node of this kind can be meant by the schema at all.
    fn accepts(&self, schema: &'a Json, node: &Node) -> bool {
        let schema = self.resolve(schema);
        if let Some(types) = types(schema) {
            return types.iter().any(|name| is_type(name, node));
        }
        if let Some(branches) = list(schema, "anyOf").or_else(|| list(schema, "oneOf")) {
            return branches.iter().any(|branch| self.accepts(branch, node));
        }
        if let Some(all) = list(schema, "allOf") {
            return all.iter().all(|part| self.accepts(part, node));
        }
        if schema.get("properties").is_some() {
            return node.is_map();
        }
        if allowed(schema).is_some() {
            return node.as_str().is_some();
        }
        schema.as_bool().unwrap_or(true)
    }

    /// Picks the branch that the node means and reports what does not fit that one.
    fn choose(&self, schema: &'a Json, branches: &'a [Json], at: At<'_>, findings: &mut Findings) {
        let fitting: Vec<&'a Json> =
            branches.iter().filter(|branch| self.accepts(branch, at.node)).collect();
        if fitting.is_empty() {
            return findings.push(self.wrong_type(schema, at));
        }
        if at.node.as_str().is_some() {
            let names: Option<Vec<_>> =
                fitting.iter().map(|branch| allowed(self.resolve(branch))).collect();
            if let Some(names) = names {
                return self.one_of(&names.concat(), at, findings);
            }
        }
        if at.node.is_map()
            && let Some(tags) =
                fitting.iter().map(|branch| tag(self.resolve(branch))).collect::<Option<Vec<_>>>()
            && tags.len() > 1
        {
            return self.tagged(&tags, &fitting, at, findings);
        }
        let tried = fitting.iter().map(|branch| {
            let mut found = Findings::new();
            self.walk(branch, at, &mut found);
            found
        });
        if let Some(best) = tried.min_by_key(Findings::errors) {
            findings.append(best);
        }
    }

    /// A map with exactly one key, which names the kind of thing it is.
    fn tagged(&self, tags: &[&str], branches: &[&'a Json], at: At<'_>, findings: &mut Findings) {
        let entries = at.node.entries();
        let names = || tags.iter().map(|tag| format!("`{tag}`")).collect::<Vec<_>>().join(", ");
        let [(key, _)] = entries else {
            let message = format!("exactly one of {} is needed, found {}", names(), entries.len());
            return findings.error("wrong-type", at.anchor, at.resource, message);
        };
        match tags.iter().position(|tag| *tag == key.name) {
            Some(index) => self.walk(branches[index], at, findings),
            None => {
                let message = format!("unknown key `{key}`, expected one of {}", names());
                let finding = Finding::error("unknown-key", key.span, at.resource, message);
                findings.push(finding.suggest(&key.name, tags.iter().copied()));
            }
        }
    }

    fn one_of(&self, allowed: &[&str], at: At<'_>, findings: &mut Findings) {
        let Some(text) = at.node.as_str() else { return };
        if allowed.contains(&text) {
            return;
        }
        let names = allowed.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        let message = match names.as_slice() {
            [only] => format!("unknown value `{}`, expected {only}", clip(text)),
            _ => format!("unknown value `{}`, expected one of {}", clip(text), names.join(", ")),
        };
        let finding = Finding::error("unknown-value", at.node.span, at.resource, message);
        findings.push(finding.suggest(text, allowed.iter().copied()));
    }

    fn map(&self, schema: &'a Json, at: At<'_>, findings: &mut Findings) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties").or_else(|| {
            let patterns = schema.get("patternProperties").and_then(Json::as_object);
            patterns.and_then(|patterns| patterns.values().next())
        });
        let refuse_others = match others {
            Some(others) => others.as_bool() == Some(false),
            None => properties.is_some(),
        };
        let mut meant = Vec::new();
        for (key, value) in at.node.entries() {
            let resource = join(at.resource, &key.name);
            let inner = At { node: value, anchor: key.span, resource: &resource, outermost: false };
            match properties.and_then(|properties| properties.get(&key.name)) {
                Some(schema) => self.walk(schema, inner, findings),
                None if refuse_others => {
                    let known = properties.into_iter().flat_map(|map| map.keys());
                    let mut known: Vec<&str> = known.map(String::as_str).collect();
                    if at.outermost {
                        known.extend(self.decoder.other_keys);
                    }
                    meant.extend(did_you_mean(&key.name, known.iter().copied()));
                    findings.push(unknown_key(key.span, &key.name, &known, at.resource));
                }
                None => {
                    if let Some(names) = schema.get("propertyNames") {
                        let name = Node::new(key.span, Value::Str(key.name.clone()));
                        self.walk(names, At { node: &name, ..inner }, findings);
                    }
                    if let Some(schema) = others {
                        self.walk(schema, inner, findings);
                    }
                }
            }
        }
        for name in list(schema, "required").into_iter().flatten().filter_map(Json::as_str) {
            // A misspelt key is not also a missing one.
            if at.node.get(name).is_none() && !meant.contains(&name) {
                let message = format!("the key `{name}` is missing");
                findings.error("missing-key", at.anchor, at.resource, message);
            }
        }
        let count = at.node.entries().len() as u64;
        count_bounds(schema, ["minProperties", "maxProperties"], count, "entry", at, findings);
    }

    fn seq(&self, schema: &'a Json, items: &[Node], at: At<'_>, findings: &mut Findings) {
        let prefix = list(schema, "prefixItems").unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            let Some(schema) = prefix.get(index).or_else(|| schema.get("items")) else { continue };
            let resource = join(at.resource, &format!("[{index}]"));
            let inner = At { node: item, anchor: item.span, resource: &resource, outermost: false };
            self.walk(schema, inner, findings);
        }
        count_bounds(schema, ["minItems", "maxItems"], items.len() as u64, "item", at, findings);
        if schema.get("uniqueItems").and_then(Json::as_bool) == Some(true) {
            for (index, item) in items.iter().enumerate() {
                if let Some(first) = items[..index].iter().find(|other| *other == item) {
                    let resource = join(at.resource, &format!("[{index}]"));
                    let message = "the same item twice";
                    findings.push(
                        Finding::error("duplicate-item", item.span, resource, message)
                            .related(first.span, "first here"),
                    );
                }
            }
        }
    }

    fn text(&self, schema: &'a Json, text: &str, at: At<'_>, findings: &mut Findings) {
        let length = text.chars().count() as u64;
        if length == 0 && schema.get("minLength").and_then(Json::as_u64) == Some(1) {
            return findings.error("out-of-range", at.node.span, at.resource, "must not be empty");
        }
        count_bounds(schema, ["minLength", "maxLength"], length, "character", at, findings);
        let Some(name) = schema.get("x-format").and_then(Json::as_str) else { return };
        if let Some(fault) = self.fault(name, text) {
            let span = at.node.span.within(text, &fault.at);
            let mut finding = Finding::error("invalid-value", span, at.resource, fault.message);
            finding.help = fault.help;
            findings.push(finding);
        }
    }

    fn wrong_type(&self, schema: &'a Json, at: At<'_>) -> Finding {
        let mut expected = Vec::new();
        self.expectations(schema, &mut expected);
        let expected = match expected.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => "nothing".to_owned(),
        };
        if at.node.is_null() {
            let name = at.resource.rsplit('.').next().unwrap_or_default();
            let message = format!("`{name}` has no value, expected {expected}");
            let finding = Finding::error("wrong-type", at.anchor, at.resource, message);
            return finding.help("give it a value, or remove the key");
        }
        let message = format!("expected {expected}, found {}", describe(at.node));
        let finding = Finding::error("wrong-type", at.node.span, at.resource, message);
        match self.remedy(schema, at.node) {
            Some(help) => finding.help(help),
            None => finding,
        }
    }

    /// What the schema wants, in an operator's words.
    fn expectations(&self, schema: &'a Json, into: &mut Vec<String>) {
        let schema = self.resolve(schema);
        if let Some(text) = schema.get("x-expected").and_then(Json::as_str) {
            return add(into, text.to_owned());
        }
        if let Some(allowed) = allowed(schema) {
            return allowed.iter().for_each(|name| add(into, format!("`{name}`")));
        }
        if let Some(types) = types(schema) {
            return types.iter().for_each(|name| add(into, type_name(name).to_owned()));
        }
        for word in ["anyOf", "oneOf", "allOf"] {
            for branch in list(schema, word).into_iter().flatten() {
                self.expectations(branch, into);
            }
        }
        if schema.get("properties").is_some() {
            add(into, "a map".to_owned());
        }
    }

    /// What to write instead, where that can be told from what was written.
    fn remedy(&self, schema: &'a Json, node: &Node) -> Option<String> {
        let mut forms = Vec::new();
        self.forms(schema, &mut forms);
        let takes = |name: &str| forms.iter().any(|form| form.name == name);
        let text = || forms.iter().filter(|form| form.name == "string");
        let is_time = |form: &Form<'_>| form.format.is_some_and(|name| name.contains("duration"));
        match &node.value {
            Value::Int(value) if text().any(is_time) => {
                Some(format!("a duration has a unit: `{value}s`"))
            }
            Value::Int(_) | Value::Bool(_) => {
                let written = plain(node);
                let passes = |form: &Form<'_>| {
                    form.format.is_none_or(|name| {
                        node.as_bool().is_none() && self.fault(name, &written).is_none()
                    })
                };
                if text().any(passes) {
                    return Some(format!("put it in quotes: `\"{written}\"`"));
                }
                takes("array").then(|| format!("make it a list: `[{written}]`"))
            }
            // How it was written (`1.10`) is no longer known.
            Value::Float(_) if takes("string") => Some("put it in quotes".to_owned()),
            // `{id}` without quotes is a map whose one key has no value.
            Value::Map(entries) if takes("string") => match entries.as_slice() {
                [(key, value)] if value.is_null() => {
                    Some(format!("a text with braces needs quotes: `\"{{{key}}}\"`"))
                }
                _ => None,
            },
            Value::Str(text) if takes("integer") && text.parse::<i64>().is_ok() => {
                Some(format!("remove the quotes: `{text}`"))
            }
            Value::Str(text) if takes("boolean") && (text == "true" || text == "false") => {
                Some(format!("remove the quotes: `{text}`"))
            }
            Value::Str(text) if takes("boolean") && text == "off" => {
                Some("write `false`".to_owned())
            }
            Value::Str(_) if takes("array") => Some(format!("make it a list: `[{}]`", plain(node))),
            _ => None,
        }
    }

    /// The types that would do, through all branches.
    fn forms(&self, schema: &'a Json, into: &mut Vec<Form<'a>>) {
        let schema = self.resolve(schema);
        let format = schema.get("x-format").and_then(Json::as_str);
        for name in types(schema).into_iter().flatten() {
            into.push(Form { name, format });
        }
        for word in ["anyOf", "oneOf", "allOf"] {
            list(schema, word).into_iter().flatten().for_each(|branch| self.forms(branch, into));
        }
    }

    /// What the grammar of that name says against a text.
    fn fault(&self, format: &str, text: &str) -> Option<Fault> {
        let mut formats = self.decoder.formats.iter().chain(&FORMATS);
        let Format { check, .. } = formats.find(|known| known.name == format)?;
        check(text).err()
    }
}

/// One type that would do, and its grammar if it is a text with one.
struct Form<'a> {
    name: &'a str,
    format: Option<&'a str>,
}

/// Where the walk is: a node, the place for errors about what is missing in it, and its path.
#[derive(Clone, Copy)]
struct At<'n> {
    node: &'n Node,
    anchor: SourceSpan,
    resource: &'n str,
    outermost: bool,
}

/// An unknown key, with the one that was probably meant or else those there are.
pub(super) fn unknown_key(span: SourceSpan, key: &str, known: &[&str], resource: &str) -> Finding {
    let finding = Finding::error("unknown-key", span, resource, format!("unknown key `{key}`"));
    let finding = finding.suggest(key, known.iter().copied());
    if finding.help.is_some() {
        return finding;
    }
    match known {
        [] => finding.help("no keys are known here"),
        _ => finding.help(format!("known keys: {}", known.join(", "))),
    }
}

fn number(schema: &Json, value: f64, at: At<'_>, findings: &mut Findings) {
    let bound = |word: &str| schema.get(word).and_then(Json::as_f64);
    let message = match (bound("minimum"), bound("maximum")) {
        (Some(low), Some(high)) if value < low || value > high => {
            format!("must be from {low} to {high}")
        }
        (Some(low), None) if value < low => format!("must be at least {low}"),
        (None, Some(high)) if value > high => format!("must be at most {high}"),
        _ => match (bound("exclusiveMinimum"), bound("exclusiveMaximum")) {
            (Some(low), _) if value <= low => format!("must be more than {low}"),
            (_, Some(high)) if value >= high => format!("must be less than {high}"),
            _ => return,
        },
    };
    findings.error("out-of-range", at.node.span, at.resource, message);
}

fn count_bounds(
    schema: &Json,
    [low, high]: [&str; 2],
    count: u64,
    noun: &str,
    at: At<'_>,
    findings: &mut Findings,
) {
    let bound = |word: &str| schema.get(word).and_then(Json::as_u64);
    let plural = |n: u64| match (n, noun) {
        (1, noun) => format!("1 {noun}"),
        (n, "entry") => format!("{n} entries"),
        (n, noun) => format!("{n} {noun}s"),
    };
    let message = match (bound(low), bound(high)) {
        (Some(low), _) if count < low => format!("needs at least {}", plural(low)),
        (_, Some(high)) if count > high => format!("takes at most {}", plural(high)),
        _ => return,
    };
    let span = if at.node.as_str().is_some() { at.node.span } else { at.anchor };
    findings.error("out-of-range", span, at.resource, message);
}
