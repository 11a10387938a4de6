//! The file that lists the keys.

use std::time::Duration;

use portcullis_core::calendar;
use serde::{Deserialize, Serialize};

use super::secret::is_id;

const KEYS_MAX: usize = 1_000_000;
const NAME_BYTES_MAX: usize = 256;

/// One key, as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Part of the key's text; finds this entry. Letters, digits, `-` and `.`.
    pub id: String,
    /// `blake3:` and 64 hexadecimal digits, as `portcullis keys` prints it.
    pub hash: String,
    /// Who the key was given to.
    pub client: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What the key may be used for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// From when on it is refused: `2027-01-31` or `2027-01-31T12:00:00Z`. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Until when it is refused, likewise. Default: valid at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
}

/// An entry whose every part is in order.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) id: String,
    pub(super) hash: [u8; 32],
    pub(super) client: String,
    pub(super) tenant: Option<String>,
    pub(super) scopes: Vec<String>,
    /// Since 1970.
    pub(super) expires: Option<Duration>,
    pub(super) not_before: Option<Duration>,
}

/// Reads the file: YAML, of which JSON is a part.
///
/// # Errors
/// All that is wrong with it, as sentences for the operator.
pub(super) fn read(text: &[u8]) -> Result<Vec<Checked>, Vec<String>> {
    let text = str::from_utf8(text).map_err(|_| vec!["not UTF-8".to_owned()])?;
    let entries: Vec<KeyEntry> = serde_saphyr::from_str(text).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        vec![first.to_owned()]
    })?;
    if entries.len() > KEYS_MAX {
        return Err(vec![format!("{} keys, at most {KEYS_MAX}", entries.len())]);
    }
    let mut wrong = Vec::new();
    let mut checked = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        match check(entry) {
            Ok(entry) => checked.push(entry),
            Err(reason) => wrong.push(format!("key {}: {reason}", index + 1)),
        }
    }
    let mut ids: Vec<&str> = checked.iter().map(|entry| entry.id.as_str()).collect();
    ids.sort_unstable();
    for pair in ids.windows(2).filter(|pair| pair[0] == pair[1]) {
        wrong.push(format!("the id `{}` twice", pair[0]));
    }
    if wrong.is_empty() { Ok(checked) } else { Err(wrong) }
}

fn check(entry: KeyEntry) -> Result<Checked, String> {
    let KeyEntry { id, hash, client, tenant, scopes, expires, not_before } = entry;
    if !is_id(id.as_bytes()) {
        return Err("an `id` is letters, digits, `-` and `.`".to_owned());
    }
    let digits = hash.strip_prefix("blake3:").and_then(|hex| blake3::Hash::from_hex(hex).ok());
    let hash = *digits
        .ok_or_else(|| format!("the `hash` of `{id}` is not `blake3:` and 64 digits"))?
        .as_bytes();
    for (name, text) in [("client", Some(&client)), ("tenant", tenant.as_ref())] {
        let good = |text: &String| {
            (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
        };
        if !text.is_none_or(good) {
            return Err(format!("the `{name}` of `{id}` is not a name"));
        }
    }
    if scopes.iter().any(|scope| scope.is_empty() || scope.contains([' ', '"', '\\'])) {
        return Err(format!("a scope of `{id}` is not a scope"));
    }
    let time = |name: &str, text: Option<String>| match text {
        None => Ok(None),
        Some(text) => match calendar::parse(&text) {
            Some(time) => Ok(Some(time)),
            None => Err(format!(
                "the `{name}` of `{id}` is not a time: write `2027-01-31` or `2027-01-31T12:00:00Z`"
            )),
        },
    };
    let (expires, not_before) = (time("expires", expires)?, time("not_before", not_before)?);
    Ok(Checked { id, hash, client, tenant, scopes, expires, not_before })
}
