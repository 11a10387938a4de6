//! The file that lists senders, with the secret that each shares with us.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::Identity;
use serde::Deserialize;

use super::form::Form;
use crate::auth::listed::{self, Period};

/// Requests do not say whose they are, so that each is tried: with both of a secret that is changed
/// that makes some eight senders at one place.
const KEYS_MAX: usize = 16;
/// A shorter secret could be guessed from one request.
const SECRET_BYTES_MIN: usize = 16;
const SECRET_BYTES_MAX: usize = 1024;
/// Of Standard Webhooks' secrets.
const PREFIX: &str = "whsec_";

/// One key, as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    id: String,
    /// The bytes of this text.
    #[serde(default)]
    secret: Option<String>,
    /// What this base64 stands for.
    #[serde(default)]
    secret_base64: Option<String>,
    client: String,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    expires: Option<String>,
    #[serde(default)]
    not_before: Option<String>,
}

pub(super) struct Key {
    pub(super) id: Box<str>,
    pub(super) period: Period,
    pub(super) identity: Arc<Identity>,
    pub(super) secret: hmac::Key,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Reads the file: YAML, of which JSON is a part.
///
/// # Errors
/// All that is wrong with it, as sentences for the operator.
pub(super) fn read(text: &[u8], form: &Form, auth: &Arc<str>) -> Result<Vec<Key>, Vec<String>> {
    let entries: Vec<KeyEntry> = listed::entries(text, KEYS_MAX)?;
    let mut wrong = listed::twice("id", entries.iter().map(|entry| entry.id.as_str()));
    wrong.extend(shared(&entries));
    match listed::check_all(entries, "key", |entry| check(entry, form, auth)) {
        Ok(keys) if wrong.is_empty() => Ok(keys),
        Ok(_) => Err(wrong),
        Err(more) => Err([more, wrong].concat()),
    }
}

/// Whose a request is could not be told.
fn shared(entries: &[KeyEntry]) -> Vec<String> {
    let mut all: Vec<_> =
        entries.iter().map(|key| ((&key.secret, &key.secret_base64), &key.id)).collect();
    all.sort_unstable();
    let pairs = all.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    pairs.map(|pair| format!("`{}` and `{}` have the same secret", pair[0].1, pair[1].1)).collect()
}

fn check(entry: KeyEntry, form: &Form, auth: &Arc<str>) -> Result<Key, String> {
    let KeyEntry { id, secret, secret_base64, client, tenant, scopes, expires, not_before } = entry;
    if !listed::is_name(&id) {
        return Err("an `id` is a name".to_owned());
    }
    let bytes = match (secret, secret_base64) {
        (Some(_), None) if form.secrets_are_base64 => {
            return Err(format!(
                "the secret of `{id}` is in base64 here: write it as `secret_base64`"
            ));
        }
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => STANDARD
            .decode(text.strip_prefix(PREFIX).unwrap_or(&text))
            .map_err(|_| format!("`secret_base64` of `{id}` is not base64"))?,
        _ => return Err(format!("`{id}` has a `secret` or a `secret_base64`")),
    };
    if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
        return Err(format!(
            "the secret of `{id}` has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes"
        ));
    }
    listed::check_owner(&id, &client, tenant.as_deref(), &scopes)?;
    let period = Period::read(&id, expires.as_deref(), not_before.as_deref())?;
    let mut identity = Identity::new(Arc::clone(auth), client);
    identity.tenant = tenant;
    identity.scopes = scopes;
    // For the log and for limits by key: which of a client's keys it was.
    identity.claims.insert("key_id".to_owned(), id.clone().into());
    let secret = hmac::Key::new(form.algorithm, &bytes);
    Ok(Key { id: id.into(), period, identity: Arc::new(identity), secret })
}
