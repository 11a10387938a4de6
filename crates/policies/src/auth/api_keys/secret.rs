//! The text of a key: how it is made, taken apart and hashed.

use std::fmt;

use super::file::KeyEntry;

const PREFIX: &[u8] = b"pk_";
/// Digits of 256 bits in base 62.
const SECRET_CHARS: usize = 43;
const ID_CHARS_MAX: usize = 64;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Tells these hashes from any others that are made of the same bytes. Not a secret.
const DOMAIN: &[u8; 32] = b"portcullis: hash of an api key 1";

/// A key that has just been made; the only moment at which its text is known.
#[derive(Clone)]
pub struct NewKey {
    /// What the client sends: `pk_ID_SECRET`.
    pub text: String,
    /// What the file lists.
    pub entry: KeyEntry,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// An id that no key can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdError;

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a key's id is 1 to {ID_CHARS_MAX} letters, digits, `-` and `.`")
    }
}

impl std::error::Error for IdError {}

/// Makes a key of 256 random bits. Tenant, scopes and times of the entry are the caller's to fill
/// in.
///
/// # Errors
/// The id has other characters than letters, digits, `-` and `.`.
pub fn generate(random: [u8; 32], id: &str, client: &str) -> Result<NewKey, IdError> {
    if !is_id(id.as_bytes()) {
        return Err(IdError);
    }
    let secret = base62(random);
    let hash = blake3::Hash::from_bytes(hash(id, &secret)).to_hex();
    Ok(NewKey {
        text: format!("pk_{id}_{}", String::from_utf8_lossy(&secret)),
        entry: KeyEntry {
            id: id.to_owned(),
            hash: format!("blake3:{hash}"),
            client: client.to_owned(),
            tenant: None,
            scopes: Vec::new(),
            expires: None,
            not_before: None,
        },
    })
}

pub(super) fn is_id(id: &[u8]) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() | (b == b'-') | (b == b'.');
    (1..=ID_CHARS_MAX).contains(&id.len()) && all(id, plain)
}

/// Without a branch for each byte, so that time does not depend on what they are.
fn all(text: &[u8], is_good: impl Fn(u8) -> bool) -> bool {
    text.iter().fold(true, |good, byte| good & is_good(*byte))
}

/// The id and the secret of a key's text.
pub(super) fn split(text: &[u8]) -> Option<(&str, &[u8])> {
    let rest = text.strip_prefix(PREFIX)?;
    let at = rest.iter().position(|byte| *byte == b'_')?;
    let (id, secret) = (&rest[..at], &rest[at + 1..]);
    let whole = secret.len() == SECRET_CHARS && all(secret, |b| b.is_ascii_alphanumeric());
    (whole && is_id(id)).then(|| str::from_utf8(id).ok())?.map(|id| (id, secret))
}

/// Over the id as well, so that an entry's hash is of no use under another id.
pub(super) fn hash(id: &str, secret: &[u8]) -> [u8; 32] {
    let mut text = [0; ID_CHARS_MAX + 1 + SECRET_CHARS];
    let (id_end, end) = (id.len(), id.len() + 1 + secret.len());
    text[..id_end].copy_from_slice(id.as_bytes());
    text[id_end + 1..end].copy_from_slice(secret);
    *blake3::keyed_hash(DOMAIN, &text[..end]).as_bytes()
}

/// Survives a double click, and needs no escaping anywhere.
fn base62(mut number: [u8; 32]) -> [u8; SECRET_CHARS] {
    let mut digits = [0; SECRET_CHARS];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            (*byte, rest) = ((value / 62) as u8, value % 62);
        }
        *digit = DIGITS[rest as usize];
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bits_are_in_the_text() {
        let zeros = "0".repeat(SECRET_CHARS);
        assert_eq!(base62([0; 32]), zeros.as_bytes());
        let mut one = [0; 32];
        one[31] = 62;
        assert_eq!(base62(one), format!("{}10", &zeros[2..]).as_bytes());
        // 2^256 - 1, as another program writes it.
        assert_eq!(base62([0xff; 32]), *b"yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1");
    }

    #[test]
    fn a_text_is_taken_apart_at_one_place() {
        let secret = "s".repeat(SECRET_CHARS);
        let good = format!("pk_a-1.b_{secret}");
        assert_eq!(split(good.as_bytes()), Some(("a-1.b", secret.as_bytes())));
        for bad in [
            format!("pk__{secret}"),
            format!("pk_a{secret}"),
            format!("sk_a_{secret}"),
            format!("pk_a_{secret}x"),
            format!("pk_a_{}", &secret[1..]),
            format!("pk_a_{}-", &secret[1..]),
            format!("pk_a b_{secret}"),
            format!("pk_{}_{secret}", "a".repeat(ID_CHARS_MAX + 1)),
            String::new(),
        ] {
            assert_eq!(split(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_text_of_a_new_key_is_not_shown() {
        let key = generate([9; 32], "a", "acme").unwrap();
        assert!(!format!("{key:?}").contains(&key.text));
        assert_eq!(generate([9; 32], "a_b", "acme").unwrap_err(), IdError);
    }
}
