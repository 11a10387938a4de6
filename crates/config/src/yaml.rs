//! YAML, and JSON as the part of it that it is, into the spanned tree.
//!
//! YAML 1.2 with less: one document, no anchors, aliases, tags, directives or merge keys, no key
//! twice, and no plain text that another YAML reader would take for a boolean or an octal number.
//! `off` is a word of the language and stays a text; keys are texts whatever they look like.
//!
//! The events are those of serde-saphyr's parser. Its serde side is not used, since it tells plain
//! and quoted texts apart only where a type asks for one of the two.

mod scalar;
mod syntax;

use std::collections::HashSet;

use portcullis_core::decode::Spanned;
use portcullis_core::finding::{Finding, Findings};
use portcullis_core::node::{Key, Node, SourceSpan, Value};
use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle};

/// Deepest nesting of maps and lists.
const DEPTH_MAX: usize = 64;

/// Most values in one file: 5,000 long routes have about 200,000.
const NODES_MAX: usize = 2_000_000;

/// Reads one file. `None` when it cannot be read as a whole; findings then say why.
pub(crate) fn read(file: u16, text: &str, findings: &mut Findings) -> Option<Node> {
    if u32::try_from(text.len()).is_err() {
        findings.error("file-too-large", None, "", "a configuration file has less than 4 GiB");
        return None;
    }
    let mut options = granit_parser::Options::default();
    options.disallow_directives = true;
    options.emit_unresolved_aliases = true;
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    options.set_emit_comments(false);
    let mut reader = Reader {
        file,
        text,
        findings,
        open: Vec::new(),
        root: None,
        documents: 0,
        nodes: 0,
        refused: false,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => {
                let range = span.byte_range().unwrap_or_default();
                let tag = span.tag_span().and_then(|tag| tag.byte_range());
                reader.event(event, range, tag)?;
            }
            Err(error) => {
                reader.findings.push(syntax::finding(file, text, &error));
                return None;
            }
        }
    }
    if reader.refused {
        return None;
    }
    let empty = || Node::new(SourceSpan::new(file, 0..0), Value::Map(Vec::new()));
    Some(reader.root.unwrap_or_else(empty))
}

struct Reader<'t, 'f> {
    file: u16,
    text: &'t str,
    findings: &'f mut Findings,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    /// Whether the tree is not what was written, so that decoding it would mislead.
    refused: bool,
}

/// A map or list whose end has not come yet.
struct Open {
    start: usize,
    /// End of the last thing within.
    end: usize,
    held: Held,
}

enum Held {
    Seq(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        names: HashSet<String>,
        /// The key whose value comes next; an error has been reported for the inner `None`.
        key: Option<Option<Key>>,
    },
}

impl Reader<'_, '_> {
    fn span(&self, range: std::ops::Range<usize>) -> SourceSpan {
        SourceSpan::new(self.file, range)
    }

    fn refuse(&mut self, finding: Finding) {
        self.refused = true;
        self.findings.push(finding);
    }

    /// `None` when there is no use in going on.
    fn event(
        &mut self,
        event: Event<'_>,
        at: std::ops::Range<usize>,
        tag: Option<std::ops::Range<usize>>,
    ) -> Option<()> {
        if let Some(tag) = tag {
            let written = self.text.get(tag.clone()).unwrap_or_default();
            let message = format!("the tag `{written}` is not part of the language");
            let finding = Finding::error("yaml-tag", self.span(tag), "", message);
            self.refuse(finding.help("leave it out; a text is put in quotes"));
        }
        if event.anchor_id().is_some() {
            self.anchor(at.start);
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents == 2 {
                    let finding = Finding::error(
                        "yaml-documents",
                        self.span(at),
                        "",
                        "a second document in one file",
                    );
                    self.findings.push(finding.help("a file has one document; use several files"));
                    return None;
                }
            }
            Event::Scalar(value, style, ..) => {
                let node = self.scalar(&value, style, at);
                self.value(node)?;
            }
            Event::SequenceStart(..) => self.begin(at, Held::Seq(Vec::new()))?,
            Event::MappingStart(..) => {
                let (entries, names) = (Vec::new(), HashSet::new());
                self.begin(at, Held::Map { entries, names, key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop()?;
                // The end of a block has no text of its own and lies on a later line.
                let end = if at.is_empty() { open.end } else { at.end };
                let value = match open.held {
                    Held::Seq(items) => Value::Seq(items),
                    Held::Map { entries, .. } => Value::Map(entries),
                };
                let span = self.span(open.start..end.max(open.start));
                self.value(Node::new(span, value))?;
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let finding = syntax::alias(self.file, self.text, at.clone());
                self.refuse(finding);
                self.value(Node::new(self.span(at), Value::Null))?;
            }
            _ => {}
        }
        Some(())
    }

    fn anchor(&mut self, before: usize) {
        // The name stands right before the value it names.
        let start = self.text.get(..before).and_then(|text| text.rfind('&')).unwrap_or(before);
        let length = self.text[start..].find(char::is_whitespace).unwrap_or(0);
        let message = "anchors and aliases are not part of the language";
        let finding = Finding::error("yaml-alias", self.span(start..start + length), "", message);
        self.refuse(finding.help("settings are shared with `defaults` and `groups`"));
    }

    fn begin(&mut self, at: std::ops::Range<usize>, held: Held) -> Option<()> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} maps and lists within each other");
            self.findings.error("yaml-depth", self.span(at), "", message);
            return None;
        }
        self.open.push(Open { start: at.start, end: at.end, held });
        Some(())
    }

    fn scalar(&mut self, value: &str, style: ScalarStyle, at: std::ops::Range<usize>) -> Node {
        let is_key =
            self.open.last().is_some_and(|open| matches!(&open.held, Held::Map { key: None, .. }));
        let span = self.span(at);
        if is_key || style != ScalarStyle::Plain {
            return Node::new(span, Value::Str(value.to_owned()));
        }
        match scalar::plain(value) {
            Ok(value) => Node::new(span, value),
            Err(fault) => {
                let mut finding = Finding::error(fault.code, span, "", fault.message);
                finding.help = Some(fault.help);
                self.refuse(finding);
                Node::new(span, Value::Str(value.to_owned()))
            }
        }
    }

    /// A finished value goes into what is open.
    fn value(&mut self, node: Node) -> Option<()> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values in one file");
            self.findings.error("file-too-large", node.span, "", message);
            return None;
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        open.end = open.end.max(node.span.end as usize);
        match &mut open.held {
            Held::Seq(items) => items.push(node),
            Held::Map { entries, names, key } => match key.take() {
                Some(Some(key)) => entries.push((key, node)),
                Some(None) => {}
                None => {
                    // A block's own beginning is where its first key is.
                    if entries.is_empty() {
                        open.start = open.start.min(node.span.start as usize);
                    }
                    match name(&node) {
                        Ok(name) if names.insert(name.value.clone()) => {
                            *key = Some(Some(Key::new(name.value, name.span)));
                        }
                        Ok(name) => {
                            *key = Some(None);
                            let first = entries.iter().find(|(key, _)| key.name == name.value);
                            let first = first.map_or(name.span, |(key, _)| key.span);
                            let message = format!("the key `{}` twice", name.value);
                            let finding = Finding::error("duplicate-key", name.span, "", message);
                            self.refuse(finding.related(first, "first here"));
                        }
                        Err((message, help)) => {
                            *key = Some(None);
                            let finding = Finding::error("yaml-key", node.span, "", message);
                            self.refuse(finding.help(help));
                        }
                    }
                }
            },
        }
        Some(())
    }
}

/// What a node says as a key.
fn name(node: &Node) -> Result<Spanned<String>, (&'static str, &'static str)> {
    const QUOTE: &str = "a key is a text; one that begins with `{` or `[` is put in quotes";
    match &node.value {
        Value::Str(name) if name == "<<" => {
            Err(("merge keys are not part of the language", "use `defaults` and `groups`"))
        }
        Value::Str(name) if name.is_empty() || node.span.start == node.span.end => {
            Err(("a `:` without a key before it", QUOTE))
        }
        Value::Str(name) => Ok(Spanned::new(name.clone(), node.span)),
        _ => Err(("a map or a list cannot be a key", QUOTE)),
    }
}

#[cfg(test)]
mod tests;
