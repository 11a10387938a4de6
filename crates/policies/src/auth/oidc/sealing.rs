//! What the gateway hands to a browser and wants back as it was: encrypted, and bound to its place.
//!
//! AES-256-GCM. Every text has a key of its own, derived (HKDF, RFC 5869) from the operator's key
//! and 128 random bits, so that no number of texts wears a key out. What a text is for, and of
//! which entry of `auth:`, is authenticated with it: a login never passes for a session, nor one
//! provider's session for another's.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_core::Services;

/// Keys that are tried with each cookie.
pub(super) const KEYS_MAX: usize = 4;
pub(super) const KEY_BYTES_MIN: usize = 32;

/// The first byte of what is sealed.
const FORM: u8 = 1;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const HEAD_BYTES: usize = 1 + SALT_BYTES + NONCE_BYTES;

/// The operator's keys: the first seals, all of them open.
pub(super) struct Keyring(Vec<Prk>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// What was opened, and whether by a key that seals no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) plain: Vec<u8>,
    pub(super) by_old_key: bool,
}

impl Keyring {
    pub(super) fn new(secrets: &[Arc<[u8]>]) -> Self {
        let salt = Salt::new(HKDF_SHA256, b"portcullis oidc cookies");
        Self(secrets.iter().map(|secret| salt.extract(secret)).collect())
    }

    /// In base64url. `None` only where the library fails, which is a bug.
    pub(super) fn seal(
        &self,
        context: &[u8],
        plain: &[u8],
        services: &dyn Services,
    ) -> Option<String> {
        let mut head = [FORM; HEAD_BYTES];
        services.random(&mut head[1..]);
        let key = key(self.0.first()?, &head)?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(nonce(&head)?, Aad::from(context), &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&head[..], &sealed].concat()))
    }

    /// `None` for whatever was not sealed by one of the keys for this context.
    pub(super) fn open(&self, context: &[u8], text: &[u8]) -> Option<Opened> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (head, sealed) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        if head[0] != FORM {
            return None;
        }
        self.0.iter().enumerate().find_map(|(at, secret)| {
            let mut plain = sealed.to_vec();
            let opened = key(secret, head)?
                .open_in_place(nonce(head)?, Aad::from(context), &mut plain)
                .ok()?
                .len();
            plain.truncate(opened);
            Some(Opened { plain, by_old_key: at > 0 })
        })
    }
}

fn key(secret: &Prk, head: &[u8; HEAD_BYTES]) -> Option<LessSafeKey> {
    let info = [&b"cookie"[..], &head[1..=SALT_BYTES]];
    let derived = secret.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(derived)))
}

fn nonce(head: &[u8; HEAD_BYTES]) -> Option<Nonce> {
    Nonce::try_assume_unique_for_key(&head[1 + SALT_BYTES..]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scripted;

    fn keyring(secrets: &[u8]) -> Keyring {
        let secrets: Vec<Arc<[u8]>> =
            secrets.iter().map(|byte| vec![*byte; KEY_BYTES_MIN].into()).collect();
        Keyring::new(&secrets)
    }

    #[test]
    fn what_was_sealed_comes_back_and_nothing_else_does() {
        let services = Scripted::default();
        let ring = keyring(&[1]);
        let sealed = ring.seal(b"session", b"alice", &services).unwrap();
        let opened = Opened { plain: b"alice".to_vec(), by_old_key: false };
        assert_eq!(ring.open(b"session", sealed.as_bytes()), Some(opened));
        assert_eq!(ring.open(b"login", sealed.as_bytes()), None, "another context");
        assert_eq!(keyring(&[2]).open(b"session", sealed.as_bytes()), None, "another key");
        assert!(!sealed.contains("alice") && !format!("{ring:?}").contains("1, 1"));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(ring.open(b"session", &changed), None, "changed at {at}");
            assert_eq!(ring.open(b"session", &sealed.as_bytes()[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn the_first_key_seals_and_all_of_them_open() {
        let services = Scripted::default();
        let old = keyring(&[1]).seal(b"c", b"x", &services).unwrap();
        let ring = keyring(&[2, 1]);
        assert!(ring.open(b"c", old.as_bytes()).unwrap().by_old_key);
        let new = ring.seal(b"c", b"x", &services).unwrap();
        assert!(!ring.open(b"c", new.as_bytes()).unwrap().by_old_key);
        assert!(keyring(&[2]).open(b"c", new.as_bytes()).is_some());
    }
}
