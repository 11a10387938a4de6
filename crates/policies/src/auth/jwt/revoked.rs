//! Tokens that are refused though they have not expired.
//!
//! The list is read again when its file changes. What was remembered under another list is verified
//! again (see [`Revoked::era`]), so looking at the list costs a remembered token nothing.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;

use super::token::Claims;

/// Entries of all kinds together.
const ENTRIES_MAX: usize = 1_000_000;
const NAME_BYTES_MAX: usize = 1024;

type Set<T> = HashSet<T, BuildHasherDefault<DefaultHasher>>;

/// The file, as it is written: YAML, of which JSON is a part.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    jti: Vec<String>,
    #[serde(default)]
    sub: Vec<String>,
    #[serde(default)]
    token_sha256: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// Which list it is: a hash of its text; 0 without one.
    pub(super) era: u64,
    jti: Set<Box<str>>,
    sub: Set<Box<str>>,
    tokens: Set<[u8; 32]>,
}

impl Revoked {
    /// # Errors
    /// What is wrong with the file, for the operator.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let text = str::from_utf8(text).map_err(|_| "not UTF-8".to_owned())?;
        // Nobody is revoked by an empty file; a parser would not call it a map.
        let file = if text.trim().is_empty() { "{}" } else { text };
        let file: File = serde_saphyr::from_str(file).map_err(|error| {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })?;
        let entries = file.jti.len() + file.sub.len() + file.token_sha256.len();
        if entries > ENTRIES_MAX {
            return Err(format!("{entries} entries, at most {ENTRIES_MAX}"));
        }
        for (kind, names) in [("jti", &file.jti), ("sub", &file.sub)] {
            if names.iter().any(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
                return Err(format!("an entry of `{kind}` has 1 to {NAME_BYTES_MAX} bytes"));
            }
        }
        let names = |names: Vec<String>| names.into_iter().map(String::into_boxed_str).collect();
        let tokens = file.token_sha256.iter().map(|text| {
            from_hex(text).ok_or("an entry of `token_sha256` has 64 hexadecimal digits")
        });
        let tokens = tokens.collect::<Result<_, _>>()?;
        Ok(Self { era: hasher.finish(), jti: names(file.jti), sub: names(file.sub), tokens })
    }

    pub(super) fn has(&self, token: &[u8], claims: &Claims) -> bool {
        let listed = |set: &Set<Box<str>>, name: &str| {
            claims.get(name).and_then(Value::as_str).is_some_and(|text| set.contains(text))
        };
        let hashed = || {
            let hash = digest(&SHA256, token);
            hash.as_ref().try_into().is_ok_and(|hash: [u8; 32]| self.tokens.contains(&hash))
        };
        listed(&self.jti, "jti")
            || listed(&self.sub, "sub")
            || (!self.tokens.is_empty() && hashed())
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}
