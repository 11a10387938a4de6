//! The tree that configuration is read into: plain values, each with the place it was written at.
//!
//! Readers (YAML, JSON) build it, [`crate::decode`] turns parts of it into typed settings. It knows
//! nothing about the format it came from and nothing about what its keys mean.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;

/// A range of bytes in one of the source files of a configuration.
///
/// Its debug form is empty with the flag `-`, as in `{:-?}`: for what is the same elsewhere too.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceSpan {
    /// Index into the list of sources the configuration was loaded from.
    pub file: u16,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl fmt::Debug for SourceSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.sign_minus() {
            return Ok(());
        }
        let Self { file, start, end } = self;
        f.debug_struct("SourceSpan")
            .field("file", file)
            .field("start", start)
            .field("end", end)
            .finish()
    }
}

impl SourceSpan {
    /// The span of `range` in file number `file`.
    #[must_use]
    pub fn new(file: u16, range: Range<usize>) -> Self {
        let clamp = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { file, start: clamp(range.start), end: clamp(range.end) }
    }

    /// The byte range in the file.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The place of `range` of the string `text`, where `self` is the place of the whole scalar.
    ///
    /// Exact for plain and quoted scalars without escapes; a scalar with escapes or folded lines
    /// gives the whole scalar, since its bytes no longer correspond.
    #[must_use]
    pub fn within(self, text: &str, range: &Range<usize>) -> Self {
        let written = (self.end - self.start) as usize;
        let quote = match written.checked_sub(text.len()) {
            Some(0) => 0,
            Some(2) => 1,
            _ => return self,
        };
        let start = self.start + quote + range.start.min(text.len()) as u32;
        let end = self.start + quote + range.end.min(text.len()) as u32;
        Self { file: self.file, start, end: end.max(start) }
    }
}

/// The name of a map entry and where it stands. Equal when the names are.
#[derive(Clone, Debug, Default)]
pub struct Key {
    pub name: String,
    pub span: SourceSpan,
}

impl Key {
    #[must_use]
    pub fn new(name: impl Into<String>, span: SourceSpan) -> Self {
        Self { name: name.into(), span }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Key {}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What a node holds. Maps keep the order in which they were written.
#[derive(Clone, Debug, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Seq(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A value and where it stands.
///
/// Equality and hash are those of the settings: they do not look at places, nor at the order of
/// keys. Two nodes are equal when they configure the same thing.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub span: SourceSpan,
    pub value: Value,
}

impl Node {
    #[must_use]
    pub fn new(span: SourceSpan, value: Value) -> Self {
        Self { span, value }
    }

    /// The value with this key, if the node is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, node)| node)
    }

    /// Like [`Self::get`], with the key, whose place an error about a missing value points at.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<(&Key, &Self)> {
        self.entries().iter().find(|(k, _)| k.name == key).map(|(k, node)| (k, node))
    }

    /// Removes the entry with this key, if the node is a map that has it.
    pub fn take(&mut self, key: &str) -> Option<(Key, Self)> {
        let Value::Map(entries) = &mut self.value else { return None };
        let at = entries.iter().position(|(k, _)| k.name == key)?;
        Some(entries.remove(at))
    }

    /// The entries of a map in the order written; empty for anything else.
    #[must_use]
    pub fn entries(&self) -> &[(Key, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a sequence; empty for anything else.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::Seq(items) => items,
            _ => &[],
        }
    }

    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self.value {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    #[must_use]
    pub fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    /// The kind of value in an operator's words, with its article: "a string", "a list".
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "no value",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::Seq(a), Value::Seq(b)) => a == b,
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(k, v)| other.get(&k.name) == Some(v))
            }
            _ => false,
        }
    }
}

impl Eq for Node {}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(&self.value).hash(state);
        match &self.value {
            Value::Null => {}
            Value::Bool(value) => value.hash(state),
            Value::Int(value) => value.hash(state),
            Value::Float(value) => value.to_bits().hash(state),
            Value::Str(value) => value.hash(state),
            Value::Seq(items) => items.hash(state),
            Value::Map(entries) => {
                let mut sorted: Vec<_> = entries.iter().map(|(k, v)| (&k.name, v)).collect();
                sorted.sort_by_key(|(name, _)| *name);
                sorted.hash(state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    fn text(value: &str, start: usize) -> Node {
        let span = SourceSpan::new(0, start..start + value.len());
        Node::new(span, Value::Str(value.to_owned()))
    }

    fn map(entries: &[(&str, Node)]) -> Node {
        let span = SourceSpan::default();
        let entries = entries.iter().map(|(k, v)| (Key::new(*k, span), v.clone())).collect();
        Node::new(span, Value::Map(entries))
    }

    #[test]
    fn equality_is_about_settings_not_places() {
        let a = map(&[("x", text("1", 0)), ("y", text("2", 9))]);
        let b = map(&[("y", text("2", 70)), ("x", text("1", 50))]);
        let c = map(&[("y", text("2", 70)), ("x", text("3", 50))]);
        let hasher = RandomState::new();
        assert_eq!(a, b);
        assert_eq!(hasher.hash_one(&a), hasher.hash_one(&b));
        assert_ne!(a, c);
        assert_ne!(hasher.hash_one(&a), hasher.hash_one(&c));
    }

    #[test]
    fn a_place_within_a_scalar_skips_the_quote() {
        let plain = SourceSpan::new(3, 10..15);
        assert_eq!(plain.within("abcde", &(1..3)), SourceSpan::new(3, 11..13));
        let quoted = SourceSpan::new(3, 10..17);
        assert_eq!(quoted.within("abcde", &(1..3)), SourceSpan::new(3, 12..14));
        let escaped = SourceSpan::new(3, 10..20);
        assert_eq!(escaped.within("abcde", &(1..3)), escaped);
    }

    #[test]
    fn take_removes() {
        let mut node = map(&[("x", text("1", 0)), ("y", text("2", 9))]);
        assert_eq!(node.take("x").map(|(_, n)| n), Some(text("1", 0)));
        assert!(node.take("x").is_none());
        assert_eq!(node.entries().len(), 1);
    }
}
