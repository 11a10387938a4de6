//! The file that lists the users.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use portcullis_core::Identity;
use serde::{Deserialize, Serialize};

use super::USER_BYTES_MAX;
use super::password::Hashed;
use crate::auth::listed;

const USERS_MAX: usize = 100_000;

/// One user, as it stands in the file.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// What is typed as the name; no colon.
    pub user: String,
    /// `$argon2id$…`, as `portcullis keys hash-password` prints it.
    pub hash: String,
    /// The client that this is. Default: the user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

impl fmt::Debug for UserEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserEntry").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A user whose entry is in order.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: Box<str>,
    pub(super) hashed: Arc<Hashed>,
    version: u64,
    client: String,
    tenant: Option<String>,
    scopes: Vec<String>,
}

#[derive(Debug)]
pub(super) struct User {
    pub(super) name: Box<str>,
    pub(super) hashed: Arc<Hashed>,
    /// Of the entry: what was remembered of another is not believed.
    pub(super) version: u64,
    pub(super) identity: Arc<Identity>,
}

impl Listed {
    pub(super) fn into_user(self, auth: &Arc<str>) -> User {
        let mut identity = Identity::new(Arc::clone(auth), self.client);
        identity.tenant = self.tenant;
        identity.scopes = self.scopes;
        identity.claims.insert("user".to_owned(), (*self.name).into());
        User {
            name: self.name,
            hashed: self.hashed,
            version: self.version,
            identity: Arc::new(identity),
        }
    }
}

/// Reads the file: YAML, of which JSON is a part.
///
/// # Errors
/// All that is wrong with it, as sentences for the operator.
pub fn read_entries(text: &[u8]) -> Result<Vec<UserEntry>, Vec<String>> {
    let entries = listed::entries(text, USERS_MAX)?;
    checked(entries.clone())?;
    Ok(entries)
}

pub(super) fn read(text: &[u8]) -> Result<Vec<Listed>, Vec<String>> {
    checked(listed::entries(text, USERS_MAX)?)
}

fn checked(entries: Vec<UserEntry>) -> Result<Vec<Listed>, Vec<String>> {
    let twice = listed::twice("user", entries.iter().map(|entry| entry.user.as_str()));
    match (listed::check_all(entries, "user", check), twice.is_empty()) {
        (Ok(checked), true) => Ok(checked),
        (Ok(_), false) => Err(twice),
        (Err(mut wrong), _) => {
            wrong.extend(twice);
            Err(wrong)
        }
    }
}

fn check(entry: UserEntry) -> Result<Listed, String> {
    let mut hasher = DefaultHasher::new();
    entry.hash(&mut hasher);
    let version = hasher.finish();
    let UserEntry { user, hash, client, tenant, scopes } = entry;
    if !listed::is_name(&user) || user.contains(':') || user.len() > USER_BYTES_MAX {
        return Err("a `user` is a name without a colon".to_owned());
    }
    let hashed = Hashed::read(&hash).map_err(|why| format!("the `hash` of `{user}` {why}"))?;
    let client = client.unwrap_or_else(|| user.clone());
    listed::check_owner(&user, &client, tenant.as_deref(), &scopes)?;
    let hashed = Arc::new(hashed);
    Ok(Listed { name: user.into(), hashed, version, client, tenant, scopes })
}
