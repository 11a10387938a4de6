//! What a signature covers, and the text that is signed (RFC 9421 §2).
//!
//! Values are those of the request as the client wrote it: its target is not the canonical one that
//! everybody else here sees.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::RequestHead;
use sfv::{Dictionary, FieldType, Item, List, ListEntry, Parser};

use super::written::combined;

/// Of the text that is signed.
const BASE_BYTES_MAX: usize = 128 << 10;

/// One component, by its identifier.
#[derive(Debug)]
pub(super) struct Component {
    /// In its one form: `"@query-param";name="Pet"`.
    identifier: String,
    part: Part,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Method,
    TargetUri,
    Authority,
    Scheme,
    RequestTarget,
    Path,
    Query,
    /// One parameter of the query, by its name as it is re-encoded.
    QueryParam(String),
    Field(String),
    /// Each line of the field as a byte sequence: `;bs`.
    Lines(String),
    /// One member of the field, a dictionary: `;key="…"`.
    Member(String, String),
}

impl Component {
    /// # Errors
    /// It is none, or none that is supported, of a request.
    pub(super) fn read(item: &Item) -> Result<Self, &'static str> {
        let name = item.bare_item.as_string().ok_or("a component that is no text")?.as_str();
        let text = |parameter: &str| {
            item.params.get(parameter).and_then(|value| value.as_string()).map(|t| t.as_str())
        };
        let only = |parameter: &str| {
            item.params.keys().all(|key| key.as_str() == parameter) && item.params.len() == 1
        };
        let part = match name.strip_prefix('@') {
            Some("query-param") => match text("name") {
                Some(parameter) if only("name") => Part::QueryParam(parameter.to_owned()),
                _ => return Err("`@query-param` without `name`"),
            },
            Some(_) if !item.params.is_empty() => {
                return Err("a parameter that the component does not have");
            }
            Some("method") => Part::Method,
            Some("target-uri") => Part::TargetUri,
            Some("authority") => Part::Authority,
            Some("scheme") => Part::Scheme,
            Some("request-target") => Part::RequestTarget,
            Some("path") => Part::Path,
            Some("query") => Part::Query,
            Some(_) => return Err("a component that no request has"),
            None => field(name, item, text("key"), only)?,
        };
        Ok(Self { identifier: item.serialize(), part })
    }

    /// As [`cover`] takes it: a plain name, or an identifier with parameters.
    pub(super) fn into_identifier(self) -> Box<str> {
        let Self { identifier, .. } = self;
        match identifier.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(name) if !name.contains('"') => name.into(),
            _ => identifier.into(),
        }
    }

    fn is_named(&self, name: &str) -> bool {
        let plain = self.identifier.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        plain == Some(name) || self.identifier == name
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.part == other.part
    }
}

fn field(
    name: &str,
    item: &Item,
    key: Option<&str>,
    only: impl Fn(&str) -> bool,
) -> Result<Part, &'static str> {
    let is_lower =
        |byte: u8| !byte.is_ascii_uppercase() && portcullis_core::head::is_token_byte(byte);
    if name.is_empty() || !name.bytes().all(is_lower) {
        return Err("a component that is no field name in lower case");
    }
    let name = name.to_owned();
    let is_set = |parameter: &str| {
        item.params.get(parameter).and_then(|value| value.as_boolean()) == Some(true)
    };
    match key {
        _ if item.params.is_empty() => Ok(Part::Field(name)),
        Some(key) if only("key") => Ok(Part::Member(name, key.to_owned())),
        None if only("bs") && is_set("bs") => Ok(Part::Lines(name)),
        // `sf` needs to know the type of every field; `req` and `tr` are of no request's head.
        _ => Err("a parameter of a component that is not supported"),
    }
}

/// Whether one of them is this one, or has it in it.
pub(super) fn cover(components: &[Component], identifier: &str) -> bool {
    components.iter().any(|component| {
        component.is_named(identifier)
            || match component.part {
                Part::TargetUri => {
                    matches!(identifier, "@scheme" | "@authority" | "@path" | "@query")
                }
                Part::RequestTarget => matches!(identifier, "@path" | "@query"),
                _ => false,
            }
    })
}

/// The text that is signed (RFC 9421 §2.5).
///
/// # Errors
/// The request has not, or has not in one sense, what is covered.
pub(super) fn base(
    components: &[Component],
    parameters: &str,
    original: &Original<'_>,
) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(512);
    for component in components {
        out.extend_from_slice(component.identifier.as_bytes());
        out.extend_from_slice(b": ");
        original.write(&component.part, &mut out)?;
        out.push(b'\n');
        if out.len() > BASE_BYTES_MAX {
            return Err("what is signed is too long");
        }
    }
    out.extend_from_slice(b"\"@signature-params\": ");
    out.extend_from_slice(parameters.as_bytes());
    if !out.is_ascii() {
        return Err("what is signed is not ASCII");
    }
    Ok(out)
}

/// The request as the client wrote it.
#[derive(Debug)]
pub(super) struct Original<'a> {
    request: &'a RequestHead,
    /// Of the target; `None` for `*`.
    path: Option<&'a [u8]>,
    query: Option<&'a [u8]>,
}

impl<'a> Original<'a> {
    pub(super) fn of(request: &'a RequestHead) -> Self {
        let target = request.target();
        let after_authority = match target.windows(3).position(|part| part == b"://") {
            Some(at) if !target.starts_with(b"/") => {
                let rest = &target[at + 3..];
                let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
                &rest[end.unwrap_or(rest.len())..]
            }
            _ => target,
        };
        let mut parts = after_authority.splitn(2, |byte| *byte == b'?');
        let path = parts.next().unwrap_or_default();
        let path = match path {
            b"" => Some(&b"/"[..]),
            [b'/', ..] => Some(path),
            _ => None,
        };
        Self { request, path, query: parts.next() }
    }

    fn path(&self) -> Result<&'a [u8], &'static str> {
        self.path.ok_or("a target without a path")
    }

    fn write(&self, part: &Part, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let request = self.request;
        match part {
            Part::Method => out.extend_from_slice(request.method.as_str().as_bytes()),
            Part::Authority => out.extend_from_slice(request.authority()),
            Part::Scheme => out.extend_from_slice(request.scheme.as_str().as_bytes()),
            Part::RequestTarget => out.extend_from_slice(request.target()),
            Part::Path => out.extend_from_slice(self.path()?),
            Part::Query => {
                out.push(b'?');
                out.extend_from_slice(self.query.unwrap_or_default());
            }
            Part::TargetUri => {
                out.extend_from_slice(request.scheme.as_str().as_bytes());
                out.extend_from_slice(b"://");
                out.extend_from_slice(request.authority());
                out.extend_from_slice(self.path()?);
                if let Some(query) = self.query {
                    out.push(b'?');
                    out.extend_from_slice(query);
                }
            }
            Part::QueryParam(name) => self.write_parameter(name, out)?,
            Part::Field(name) => {
                let value = combined(request, name.as_bytes()).ok_or(NO_FIELD)?;
                out.extend_from_slice(&value);
            }
            Part::Lines(name) => {
                let before = out.len();
                for line in request.fields.get_all(name.as_bytes()) {
                    let between: &[u8] = if out.len() > before { b", :" } else { b":" };
                    out.extend_from_slice(between);
                    out.extend_from_slice(STANDARD.encode(line).as_bytes());
                    out.push(b':');
                }
                if out.len() == before {
                    return Err(NO_FIELD);
                }
            }
            Part::Member(name, key) => {
                let value = combined(request, name.as_bytes()).ok_or(NO_FIELD)?;
                let members: Dictionary =
                    Parser::new(&value).parse().map_err(|_| "a field that is no dictionary")?;
                let text = match members.get(key.as_str()) {
                    None => return Err("a dictionary without the member"),
                    Some(ListEntry::Item(item)) => item.serialize(),
                    Some(list @ ListEntry::InnerList(_)) => {
                        let list: List = vec![list.clone()];
                        list.serialize().unwrap_or_default()
                    }
                };
                out.extend_from_slice(text.as_bytes());
            }
        }
        Ok(())
    }

    /// RFC 9421 §2.2.8: read as a form, and each part encoded again in one way.
    fn write_parameter(&self, name: &str, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let mut found = None;
        for parameter in self.query.unwrap_or_default().split(|byte| *byte == b'&') {
            let mut parts = parameter.splitn(2, |byte| *byte == b'=');
            let written = parts.next().unwrap_or_default();
            if encoded(&decoded(written)) == name && !parameter.is_empty() {
                if found.is_some() {
                    return Err("a parameter of the query that is there twice");
                }
                found = Some(parts.next().unwrap_or_default());
            }
        }
        let value = found.ok_or("a query without the parameter")?;
        out.extend_from_slice(encoded(&decoded(value)).as_bytes());
        Ok(())
    }
}

const NO_FIELD: &str = "a field that the request has not";

/// The application/x-www-form-urlencoded parser of the URL standard.
fn decoded(written: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(written.len());
    let mut rest = written;
    while let [first, after @ ..] = rest {
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let (byte, after) = match (first, after) {
            (b'%', [high, low, beyond @ ..]) => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => ((high << 4 | low) as u8, beyond),
                _ => (b'%', after),
            },
            (b'+', _) => (b' ', after),
            _ => (*first, after),
        };
        out.push(byte);
        rest = after;
    }
    match String::from_utf8_lossy(&out) {
        Cow::Borrowed(_) => out,
        Cow::Owned(text) => text.into_bytes(),
    }
}

fn encoded(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                out.push(char::from(*byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
