//! The file that lists the keys.

use serde::{Deserialize, Serialize};

use super::secret::is_id;
use crate::auth::listed::{self, Period};

const KEYS_MAX: usize = 1_000_000;

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
    pub(super) period: Period,
}

/// Reads the file: YAML, of which JSON is a part.
///
/// # Errors
/// All that is wrong with it, as sentences for the operator.
pub fn read_entries(text: &[u8]) -> Result<Vec<KeyEntry>, Vec<String>> {
    let entries = listed::entries(text, KEYS_MAX)?;
    checked(entries.clone())?;
    Ok(entries)
}

/// As [`read_entries`], in the form that the gateway works with.
pub(super) fn read(text: &[u8]) -> Result<Vec<Checked>, Vec<String>> {
    checked(listed::entries(text, KEYS_MAX)?)
}

fn checked(entries: Vec<KeyEntry>) -> Result<Vec<Checked>, Vec<String>> {
    let ids = entries.iter().filter(|entry| is_id(entry.id.as_bytes()));
    let twice = listed::twice("id", ids.map(|entry| entry.id.as_str()));
    match (listed::check_all(entries, "key", check), twice.is_empty()) {
        (Ok(checked), true) => Ok(checked),
        (Ok(_), false) => Err(twice),
        (Err(mut wrong), _) => {
            wrong.extend(twice);
            Err(wrong)
        }
    }
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
    listed::check_owner(&id, &client, tenant.as_deref(), &scopes)?;
    let period = Period::read(&id, expires.as_deref(), not_before.as_deref())?;
    Ok(Checked { id, hash, client, tenant, scopes, period })
}
