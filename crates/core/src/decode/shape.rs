//! The walk of a node beside a schema, which reports everything that does not fit.

use std::fmt;

use super::rules::{Bounds, Id, Ready, Rules};
use super::words::{add, clip, describe, plain, type_name};
use super::{Decoder, FORMATS, Fault, Format};
use crate::finding::{Finding, Findings, did_you_mean};
use crate::node::{Node, SourceSpan, Value};

/// A schema, and what the caller adds to it.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    schema: &'a Ready,
    decoder: &'a Decoder<'a>,
}

impl<'a> Shape<'a> {
    pub(super) fn new(schema: &'a Ready, decoder: &'a Decoder<'a>) -> Self {
        Self { schema, decoder }
    }

    pub(super) fn check(
        &self,
        node: &Node,
        anchor: SourceSpan,
        resource: &str,
        findings: &mut Findings,
    ) {
        let at = At { node, anchor, path: &Path::Begin(resource), outermost: true };
        self.walk(self.schema.root(), at, findings);
    }

    fn part(&self, id: Id) -> &'a Rules {
        self.schema.part(id)
    }

    fn parts(&self, ids: &'a [Id]) -> impl Iterator<Item = &'a Rules> {
        let schema = self.schema;
        ids.iter().map(|id| schema.part(*id))
    }

    fn walk(&self, rules: &'a Rules, at: At<'_>, findings: &mut Findings) {
        let before = findings.errors();
        if let Some(all) = &rules.all_of {
            self.parts(all).for_each(|part| self.walk(part, at, findings));
        }
        if let Some(branches) = &rules.any_of {
            self.choose(rules, branches, at, findings);
        }
        if findings.errors() > before {
            return;
        }
        if !self.accepts(rules, at.node) {
            return findings.push(self.wrong_type(rules, at));
        }
        if let Some(allowed) = &rules.allowed {
            let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
            return one_of(&allowed, at, findings);
        }
        match &at.node.value {
            Value::Map(_) => self.map(rules, at, findings),
            Value::Seq(items) => self.seq(rules, items, at, findings),
            Value::Str(text) => self.text(rules, text, at, findings),
            Value::Int(value) => number(rules, *value as f64, at, findings),
            Value::Float(value) => number(rules, *value, at, findings),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Whether a node of this kind can be meant by the schema at all.
    fn accepts(&self, rules: &'a Rules, node: &Node) -> bool {
        if rules.types.is_some() {
            return rules.is_of_type(node);
        }
        if let Some(branches) = &rules.any_of {
            return self.parts(branches).any(|branch| self.accepts(branch, node));
        }
        if let Some(all) = &rules.all_of {
            return self.parts(all).all(|part| self.accepts(part, node));
        }
        if rules.properties.is_some() {
            return node.is_map();
        }
        if rules.allowed.is_some() {
            return node.as_str().is_some();
        }
        rules.whole.unwrap_or(true)
    }

    /// Picks the branch that the node means and reports what does not fit that one.
    fn choose(&self, rules: &'a Rules, branches: &'a [Id], at: At<'_>, findings: &mut Findings) {
        let mut fitting = self.parts(branches).filter(|branch| self.accepts(branch, at.node));
        let fitting: Vec<&'a Rules> = match (fitting.next(), fitting.next()) {
            (None, _) => return findings.push(self.wrong_type(rules, at)),
            // The usual case, without a list.
            (Some(only), None) if only.allowed.is_none() => {
                return self.walk(only, at, findings);
            }
            (Some(only), None) => vec![only],
            (Some(first), Some(second)) => [first, second].into_iter().chain(fitting).collect(),
        };
        if at.node.as_str().is_some() {
            let names: Option<Vec<&Vec<String>>> =
                fitting.iter().map(|branch| branch.allowed.as_ref()).collect();
            if let Some(names) = names {
                let names: Vec<&str> = names.into_iter().flatten().map(String::as_str).collect();
                return one_of(&names, at, findings);
            }
        }
        if at.node.is_map()
            && fitting.len() > 1
            && let Some(tags) =
                fitting.iter().map(|branch| branch.tag.as_deref()).collect::<Option<Vec<_>>>()
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
    fn tagged(&self, tags: &[&str], branches: &[&'a Rules], at: At<'_>, findings: &mut Findings) {
        let entries = at.node.entries();
        let names = || tags.iter().map(|tag| format!("`{tag}`")).collect::<Vec<_>>().join(", ");
        let [(key, _)] = entries else {
            let message = format!("exactly one of {} is needed, found {}", names(), entries.len());
            return findings.error("wrong-type", at.anchor, at.resource(), message);
        };
        match tags.iter().position(|tag| *tag == key.name) {
            Some(index) => self.walk(branches[index], at, findings),
            None => {
                let message = format!("unknown key `{key}`, expected one of {}", names());
                let finding = Finding::error("unknown-key", key.span, at.resource(), message);
                findings.push(finding.suggest(&key.name, tags.iter().copied()));
            }
        }
    }

    fn map(&self, rules: &'a Rules, at: At<'_>, findings: &mut Findings) {
        let mut meant = Vec::new();
        for (key, value) in at.node.entries() {
            let path = Path::Key(at.path, &key.name);
            let inner = At { node: value, anchor: key.span, path: &path, outermost: false };
            match rules.property(&key.name) {
                Some(part) => self.walk(self.part(part), inner, findings),
                None if rules.refuse_others => {
                    let known = rules.properties.iter().flatten();
                    let mut known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
                    if at.outermost {
                        known.extend(self.decoder.other_keys);
                    }
                    meant.extend(did_you_mean(&key.name, known.iter().copied()));
                    findings.push(unknown_key(key.span, &key.name, &known, &at.resource()));
                }
                None => {
                    if let Some(names) = rules.names {
                        let name = Node::new(key.span, Value::Str(key.name.clone()));
                        self.walk(self.part(names), At { node: &name, ..inner }, findings);
                    }
                    if let Some(others) = rules.others {
                        self.walk(self.part(others), inner, findings);
                    }
                }
            }
        }
        for name in rules.required.iter().map(String::as_str) {
            // A misspelt key is not also a missing one.
            if at.node.get(name).is_none() && !meant.contains(&name) {
                let message = format!("the key `{name}` is missing");
                findings.error("missing-key", at.anchor, at.resource(), message);
            }
        }
        count_bounds(rules.entries, at.node.entries().len() as u64, "entry", at, findings);
    }

    fn seq(&self, rules: &'a Rules, items: &[Node], at: At<'_>, findings: &mut Findings) {
        for (index, item) in items.iter().enumerate() {
            let Some(part) = rules.prefix.get(index).copied().or(rules.items) else { continue };
            let path = Path::Item(at.path, index);
            let inner = At { node: item, anchor: item.span, path: &path, outermost: false };
            self.walk(self.part(part), inner, findings);
        }
        count_bounds(rules.elements, items.len() as u64, "item", at, findings);
        if rules.unique {
            for (index, item) in items.iter().enumerate() {
                if let Some(first) = items[..index].iter().find(|other| *other == item) {
                    let resource = Path::Item(at.path, index).to_string();
                    let message = "the same item twice";
                    findings.push(
                        Finding::error("duplicate-item", item.span, resource, message)
                            .related(first.span, "first here"),
                    );
                }
            }
        }
    }

    fn text(&self, rules: &'a Rules, text: &str, at: At<'_>, findings: &mut Findings) {
        if text.is_empty() && rules.length.min == Some(1) {
            let message = "must not be empty";
            return findings.error("out-of-range", at.node.span, at.resource(), message);
        }
        if rules.length.min.is_some() || rules.length.max.is_some() {
            let length = text.chars().count() as u64;
            count_bounds(rules.length, length, "character", at, findings);
        }
        let Some(name) = &rules.format else { return };
        if let Some(fault) = self.fault(name, text) {
            let span = at.node.span.within(text, &fault.at);
            let mut finding = Finding::error("invalid-value", span, at.resource(), fault.message);
            finding.help = fault.help;
            findings.push(finding);
        }
    }

    fn wrong_type(&self, rules: &'a Rules, at: At<'_>) -> Finding {
        let mut expected = Vec::new();
        self.expectations(rules, &mut expected);
        let expected = match expected.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => "nothing".to_owned(),
        };
        let resource = at.resource();
        if at.node.is_null() {
            let name = resource.rsplit('.').next().unwrap_or_default();
            let message = format!("`{name}` has no value, expected {expected}");
            let finding = Finding::error("wrong-type", at.anchor, resource, message);
            return finding.help("give it a value, or remove the key");
        }
        let message = format!("expected {expected}, found {}", describe(at.node));
        let finding = Finding::error("wrong-type", at.node.span, resource, message);
        match self.remedy(rules, at.node) {
            Some(help) => finding.help(help),
            None => finding,
        }
    }

    /// What the schema wants, in an operator's words.
    fn expectations(&self, rules: &'a Rules, into: &mut Vec<String>) {
        if let Some(text) = &rules.expected {
            return add(into, text.clone());
        }
        if let Some(allowed) = &rules.allowed {
            return allowed.iter().for_each(|name| add(into, format!("`{name}`")));
        }
        if let Some(types) = &rules.types {
            return types.iter().for_each(|name| add(into, type_name(name).to_owned()));
        }
        for branches in [&rules.any_of, &rules.all_of].into_iter().flatten() {
            self.parts(branches).for_each(|branch| self.expectations(branch, into));
        }
        if rules.properties.is_some() {
            add(into, "a map".to_owned());
        }
    }

    /// What to write instead, where that can be told from what was written.
    fn remedy(&self, rules: &'a Rules, node: &Node) -> Option<String> {
        let mut forms = Vec::new();
        self.forms(rules, &mut forms);
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
    fn forms(&self, rules: &'a Rules, into: &mut Vec<Form<'a>>) {
        let format = rules.format.as_deref();
        for name in rules.types.iter().flatten() {
            into.push(Form { name, format });
        }
        for branches in [&rules.any_of, &rules.all_of].into_iter().flatten() {
            self.parts(branches).for_each(|branch| self.forms(branch, into));
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
    path: &'n Path<'n>,
    outermost: bool,
}

impl At<'_> {
    /// The path as findings have it: `routes.orders.limits[0]`.
    fn resource(&self) -> String {
        self.path.to_string()
    }
}

/// A path that becomes a text only where something is wrong.
enum Path<'n> {
    Begin(&'n str),
    Key(&'n Self, &'n str),
    Item(&'n Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(path) => f.write_str(path),
            Self::Key(Path::Begin(""), name) => f.write_str(name),
            Self::Key(path, name) => write!(f, "{path}.{name}"),
            Self::Item(path, index) => write!(f, "{path}[{index}]"),
        }
    }
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

fn one_of(allowed: &[&str], at: At<'_>, findings: &mut Findings) {
    let Some(text) = at.node.as_str() else { return };
    if allowed.contains(&text) {
        return;
    }
    let names = allowed.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
    let message = match names.as_slice() {
        [only] => format!("unknown value `{}`, expected {only}", clip(text)),
        _ => format!("unknown value `{}`, expected one of {}", clip(text), names.join(", ")),
    };
    let finding = Finding::error("unknown-value", at.node.span, at.resource(), message);
    findings.push(finding.suggest(text, allowed.iter().copied()));
}

fn number(rules: &Rules, value: f64, at: At<'_>, findings: &mut Findings) {
    let message = match rules.range {
        [Some(low), Some(high)] if value < low || value > high => {
            format!("must be from {low} to {high}")
        }
        [Some(low), None] if value < low => format!("must be at least {low}"),
        [None, Some(high)] if value > high => format!("must be at most {high}"),
        _ => match rules.between {
            [Some(low), _] if value <= low => format!("must be more than {low}"),
            [_, Some(high)] if value >= high => format!("must be less than {high}"),
            _ => return,
        },
    };
    findings.error("out-of-range", at.node.span, at.resource(), message);
}

fn count_bounds(bounds: Bounds, count: u64, noun: &str, at: At<'_>, findings: &mut Findings) {
    let plural = |n: u64| match (n, noun) {
        (1, noun) => format!("1 {noun}"),
        (n, "entry") => format!("{n} entries"),
        (n, noun) => format!("{n} {noun}s"),
    };
    let message = match (bounds.min, bounds.max) {
        (Some(low), _) if count < low => format!("needs at least {}", plural(low)),
        (_, Some(high)) if count > high => format!("takes at most {}", plural(high)),
        _ => return,
    };
    let span = if at.node.as_str().is_some() { at.node.span } else { at.anchor };
    findings.error("out-of-range", span, at.resource(), message);
}
