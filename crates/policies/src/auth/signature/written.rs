//! What a request says of its signatures: the fields `Signature-Input` and `Signature`, two
//! dictionaries with the same labels (RFC 9421 §4). Nothing is believed here.

use std::fmt;
use std::time::Duration;

use portcullis_core::RequestHead;
use portcullis_core::codes;
use portcullis_core::head::Span;
use sfv::visitor::{DictionaryVisitor, EntryVisitor};
use sfv::{BareItem, Dictionary, FieldType, InnerList, Item, KeyRef, List, ListEntry, Parser};

use super::components::Component;
use super::settings::Choice;
use super::{Refusal, invalid};

const SIGNATURE_INPUT: &[u8] = b"signature-input";
const SIGNATURE: &[u8] = b"signature";
/// Of one of the two fields, all lines together.
const FIELD_BYTES_MAX: usize = 16 << 10;
const COMPONENTS_MAX: usize = 64;

/// The signature that is for us.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) label: String,
    list: InnerList,
}

impl Chosen {
    pub(super) fn components(&self) -> Result<Vec<Component>, Refusal> {
        if self.list.items.len() > COMPONENTS_MAX {
            return invalid("it covers too many components");
        }
        let mut components: Vec<Component> = Vec::with_capacity(self.list.items.len());
        for item in &self.list.items {
            let component = Component::read(item).or_else(invalid)?;
            if components.iter().any(|other| other.is_same(&component)) {
                return invalid("it covers a component twice");
            }
            components.push(component);
        }
        Ok(components)
    }

    /// As they are signed (RFC 9421 §2.3): what was read, in its one form.
    pub(super) fn parameters(&self) -> String {
        let list: List = vec![ListEntry::InnerList(self.list.clone())];
        list.serialize().unwrap_or_default()
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.list.params.get(name).map(BareItem::as_string) {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(text.as_str())),
            Some(None) => invalid("a parameter that is no text"),
        }
    }

    /// Since 1970.
    pub(super) fn time(&self, name: &str) -> Result<Option<Duration>, Refusal> {
        let Some(value) = self.list.params.get(name) else { return Ok(None) };
        let seconds = value.as_integer().and_then(|integer| u64::try_from(integer).ok());
        match seconds {
            Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
            None => invalid("a time that is none"),
        }
    }
}

/// Where the first `Signature-Input` is.
pub(super) fn place(request: &RequestHead) -> Option<Span> {
    let bytes = request.fields.bytes();
    let is_input = |name: Span| name.of(bytes).eq_ignore_ascii_case(SIGNATURE_INPUT);
    request.fields.live().find(|field| is_input(field.name)).map(|field| field.value)
}

/// The signature that is for us, if there is one.
pub(super) fn choose(request: &RequestHead, choice: &Choice) -> Result<Option<Chosen>, Refusal> {
    let Some(members) = dictionary(request, SIGNATURE_INPUT)? else { return Ok(None) };
    let has_tag = |entry: &ListEntry, wanted: &str| {
        let ListEntry::InnerList(list) = entry else { return false };
        let tag = list.params.get("tag").and_then(BareItem::as_string);
        tag.is_some_and(|tag| tag.as_str() == wanted)
    };
    let mut fitting = members.into_iter().filter(|(label, entry)| match choice {
        Choice::Only => true,
        Choice::Label(wanted) => label.as_str() == &**wanted,
        Choice::Tag(wanted) => has_tag(entry, wanted),
    });
    match (fitting.next(), fitting.next()) {
        (None, _) => Ok(None),
        (Some((label, ListEntry::InnerList(list))), None) => {
            Ok(Some(Chosen { label: label.as_str().to_owned(), list }))
        }
        (Some(_), None) => invalid("the signature does not list what it covers"),
        (Some(_), Some(_)) => Err((codes::CREDENTIALS_AMBIGUOUS, "several signatures")),
    }
}

/// The bytes of the signature with this label.
pub(super) fn signature(request: &RequestHead, label: &str) -> Result<Vec<u8>, Refusal> {
    let members = dictionary(request, SIGNATURE)?.unwrap_or_default();
    match members.get(label) {
        Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(bytes), .. })) => {
            Ok(bytes.clone())
        }
        Some(_) => invalid("the signature is no byte sequence"),
        None => invalid("there is no signature with the label"),
    }
}

/// Takes the signature with this label out of both fields, and leaves the others.
pub(super) fn remove(request: &mut RequestHead, label: &str) {
    for name in [SIGNATURE_INPUT, SIGNATURE] {
        let Ok(Some(members)) = dictionary(request, name) else { continue };
        let others: Dictionary =
            members.into_iter().filter(|(other, _)| other.as_str() != label).collect();
        request.fields.remove(name);
        if let Some(text) = others.serialize() {
            request.fields.append(name, text.as_bytes());
        }
    }
}

/// A field's lines as one value (RFC 9110 §5.3); `None` where it has none.
pub(super) fn combined(request: &RequestHead, name: &[u8]) -> Option<Vec<u8>> {
    let mut lines = request.fields.get_all(name);
    let mut value = lines.next()?.to_vec();
    for line in lines {
        value.extend_from_slice(b", ");
        value.extend_from_slice(line);
    }
    Some(value)
}

fn dictionary(request: &RequestHead, name: &[u8]) -> Result<Option<Dictionary>, Refusal> {
    let Some(text) = combined(request, name) else { return Ok(None) };
    if text.len() > FIELD_BYTES_MAX {
        return invalid("the signature fields are too long");
    }
    match Parser::new(&text).parse_dictionary_with_visitor(Once(Dictionary::new())) {
        Ok(members) => Ok(Some(members)),
        Err(_) => invalid("the signature fields are not dictionaries, or have a label twice"),
    }
}

/// A dictionary that has each key once. Others take the last of two (RFC 9651 §4.2.2), so that two
/// readers could take two signatures for the one that counts.
struct Once(Dictionary);

#[derive(Debug)]
struct Twice;

impl fmt::Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key twice")
    }
}

impl std::error::Error for Twice {}

impl<'de> DictionaryVisitor<'de> for Once {
    type Out = Dictionary;
    type Error = Twice;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Twice> {
        if self.0.contains_key(key) {
            return Err(Twice);
        }
        DictionaryVisitor::entry(&mut self.0, key).map_err(|never| match never {})
    }

    fn finish(self) -> Result<Dictionary, Twice> {
        Ok(self.0)
    }
}
