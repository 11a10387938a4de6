//! What the files that list keys, users and signers have in common: they are YAML, each entry says
//! whom it stands for, and may say from when and until when.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use portcullis_core::calendar;
use portcullis_core::decode::Spanned;
use portcullis_core::registry::{Compile, Site};
use serde::de::DeserializeOwned;

/// Entries by a name that only the operator chooses, so that nobody can crowd a bucket.
pub(super) type ByName<T> = HashMap<Box<str>, T, BuildHasherDefault<DefaultHasher>>;

const NAME_BYTES_MAX: usize = 256;
const SCOPES_MAX: usize = 256;

/// Reads what `written` refers to; `None` after leaving at least one finding of that code.
pub(super) fn read<T>(
    written: &Spanned<String>,
    (key, code): (&str, &'static str),
    site: &Site<'_>,
    with: &mut Compile<'_>,
    parse: impl FnOnce(&[u8]) -> Result<T, Vec<String>>,
) -> Option<T> {
    let text = with.read(site, written.span, written)?;
    match parse(&text) {
        Ok(parsed) => Some(parsed),
        Err(reasons) => {
            let resource = format!("{}.{key}", site.resource);
            for reason in reasons {
                let message = format!("{}: {reason}", written.value);
                with.findings.error(code, written.span, &resource, message);
            }
            None
        }
    }
}

/// The entries of a file: YAML, of which JSON is a part. A file without any is an empty list.
///
/// # Errors
/// What is wrong with its form, as a sentence for the operator.
pub(super) fn entries<T: DeserializeOwned>(text: &[u8], max: usize) -> Result<Vec<T>, Vec<String>> {
    let text = str::from_utf8(text).map_err(|_| vec!["not UTF-8".to_owned()])?;
    let entries: Option<Vec<T>> = serde_saphyr::from_str(text).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        vec![first.to_owned()]
    })?;
    let entries = entries.unwrap_or_default();
    match entries.len() > max {
        true => Err(vec![format!("{} entries, at most {max}", entries.len())]),
        false => Ok(entries),
    }
}

/// Checks each entry; `name` is what one of them is called.
pub(super) fn check_all<T, C>(
    entries: Vec<T>,
    name: &str,
    check: impl Fn(T) -> Result<C, String>,
) -> Result<Vec<C>, Vec<String>> {
    let (mut checked, mut wrong) = (Vec::with_capacity(entries.len()), Vec::new());
    for (index, entry) in entries.into_iter().enumerate() {
        match check(entry) {
            Ok(entry) => checked.push(entry),
            Err(reason) => wrong.push(format!("{name} {}: {reason}", index + 1)),
        }
    }
    if wrong.is_empty() { Ok(checked) } else { Err(wrong) }
}

/// Says which names are there more than once.
pub(super) fn twice<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let pairs = names.windows(2).filter(|pair| pair[0] == pair[1]);
    pairs.map(|pair| format!("the {what} `{}` twice", pair[0])).collect()
}

/// Whether the entry `of` says in proper form whom it stands for.
pub(super) fn check_owner(
    of: &str,
    client: &str,
    tenant: Option<&str>,
    scopes: &[String],
) -> Result<(), String> {
    for (name, text) in [("client", Some(client)), ("tenant", tenant)] {
        if !text.is_none_or(is_name) {
            return Err(format!("the `{name}` of `{of}` is not a name"));
        }
    }
    let is_scope = |scope: &String| is_name(scope) && !scope.contains([' ', '"', '\\']);
    if scopes.len() > SCOPES_MAX || !scopes.iter().all(is_scope) {
        return Err(format!("a scope of `{of}` is not a scope"));
    }
    Ok(())
}

pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// From when and until when an entry holds, since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) not_before: Duration,
    pub(super) expires: Duration,
}

impl Period {
    pub(super) fn read(
        of: &str,
        expires: Option<&str>,
        not_before: Option<&str>,
    ) -> Result<Self, String> {
        let time = |name: &str, text: Option<&str>, without| match text.map(calendar::parse) {
            None => Ok(without),
            Some(Some(time)) => Ok(time),
            Some(None) => Err(format!(
                "the `{name}` of `{of}` is not a time: write `2027-01-31` or `2027-01-31T12:00:00Z`"
            )),
        };
        Ok(Self {
            expires: time("expires", expires, Duration::MAX)?,
            not_before: time("not_before", not_before, Duration::ZERO)?,
        })
    }
}
