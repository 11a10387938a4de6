//! A password's hash: argon2id (RFC 9106) in the PHC string format, with bounds on what it costs.

use std::fmt;

use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Params, PasswordHash, PasswordHasher, Version};
use subtle::ConstantTimeEq;

use super::PASSWORD_BYTES_MAX;

pub const SALT_BYTES: usize = 16;
/// 256 MiB: so much for each verification that runs.
const MEMORY_KIB_MAX: u32 = 256 << 10;
const PASSES_MAX: u32 = 10;
const LANES_MAX: u32 = 16;
const OUTPUT_BYTES_MIN: usize = 16;

/// Memory in KiB and passes over it, each pair as hard to guess as the others; a hash has at least
/// as much of both as one of them (OWASP, Password Storage Cheat Sheet).
const LEAST: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];

/// A password that no user can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("a password is 1 to {PASSWORD_BYTES_MAX} bytes")]
    Length,
    #[error("a password has no control characters")]
    Control,
}

/// What the file of users says of a password; the least that is accepted (19 MiB, 2 passes).
///
/// # Errors
/// The password is empty, too long, or has control characters.
pub fn hash_password(password: &str, salt: [u8; SALT_BYTES]) -> Result<String, PasswordError> {
    if password.chars().any(char::is_control) {
        return Err(PasswordError::Control);
    }
    if !(1..=PASSWORD_BYTES_MAX).contains(&password.len()) {
        return Err(PasswordError::Length);
    }
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
    // Fails for lengths and parameters that these are not.
    let hash = argon2.hash_password_with_salt(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|_| PasswordError::Length)
}

/// The hash of one user's password.
pub(super) struct Hashed {
    argon2: Argon2<'static>,
    salt: Box<[u8]>,
    output: Box<[u8]>,
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let params = self.argon2.params();
        f.debug_struct("Hashed")
            .field("m", &params.m_cost())
            .field("t", &params.t_cost())
            .field("p", &params.p_cost())
            .finish_non_exhaustive()
    }
}

impl Hashed {
    /// Reads `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let form = || "is not `$argon2id$v=19$m=…,t=…,p=…$SALT$HASH`".to_owned();
        let hash = PasswordHash::new(text).map_err(|_| form())?;
        let version = u32::from(Version::V0x13);
        if hash.algorithm != ARGON2ID_IDENT || hash.version != Some(version) {
            return Err(form());
        }
        let params = Params::try_from(&hash).map_err(|_| form())?;
        let (Some(salt), Some(output)) = (hash.salt, hash.hash) else { return Err(form()) };
        if !params.keyid().is_empty() || !params.data().is_empty() {
            return Err("has a key or data beside the password".to_owned());
        }
        if params.m_cost() > MEMORY_KIB_MAX
            || params.t_cost() > PASSES_MAX
            || params.p_cost() > LANES_MAX
        {
            return Err(format!(
                "costs more than is spent on one: at most m={MEMORY_KIB_MAX}, t={PASSES_MAX}, p={LANES_MAX}"
            ));
        }
        if output.len() < OUTPUT_BYTES_MIN {
            return Err("is too short".to_owned());
        }
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            salt: salt.as_ref().into(),
            output: output.as_bytes().into(),
        })
    }

    /// Whether guessing is cheaper than it should be.
    pub(super) fn is_weak(&self) -> bool {
        let params = self.argon2.params();
        let fits = |(memory, passes)| params.m_cost() >= memory && params.t_cost() >= passes;
        !LEAST.into_iter().any(fits)
    }

    /// Takes tens of milliseconds and up to 256 MiB.
    pub(super) fn is_of(&self, password: &str) -> bool {
        let mut output = vec![0; self.output.len()];
        let hashed = self.argon2.hash_password_into(password.as_bytes(), &self.salt, &mut output);
        hashed.is_ok() && bool::from(output.ct_eq(&self.output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9106 gives no such vector without a key; this is the reference implementation's.
    #[test]
    fn a_hash_that_the_reference_implementation_made() {
        let hashed = Hashed::read(
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        )
        .unwrap();
        assert!(hashed.is_of("password"));
        assert!(!hashed.is_of("differentpassword"));
        assert!(!hashed.is_weak());
    }

    #[test]
    fn what_was_made_is_read() {
        let made = hash_password("correct horse", [7; SALT_BYTES]).unwrap();
        let hashed = Hashed::read(&made).unwrap();
        assert!(made.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{made}");
        assert!(hashed.is_of("correct horse") && !hashed.is_of("correct horsf"));
        assert!(!hashed.is_weak());
        assert_eq!(format!("{hashed:?}"), "Hashed { m: 19456, t: 2, p: 1, .. }");
        assert_eq!(hash_password("", [7; SALT_BYTES]), Err(PasswordError::Length));
        assert_eq!(hash_password("a\nb", [7; SALT_BYTES]), Err(PasswordError::Control));
        assert_eq!(hash_password(&"a".repeat(1025), [7; 16]), Err(PasswordError::Length));
    }

    #[test]
    fn costs_have_a_floor_and_a_ceiling() {
        let with = |params: &str| {
            let tail = "c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
            match Hashed::read(&format!("$argon2id$v=19${params}${tail}")) {
                Ok(hashed) if hashed.is_weak() => "weak",
                Ok(_) => "good",
                Err(reason) if reason.starts_with("costs more") => "too much",
                Err(_) => "nonsense",
            }
        };
        for (params, expected) in [
            ("m=19456,t=2,p=1", "good"),
            ("m=19455,t=2,p=1", "weak"),
            ("m=19456,t=1,p=4", "weak"),
            ("m=47104,t=1,p=1", "good"),
            ("m=7168,t=5,p=1", "good"),
            ("m=7168,t=4,p=1", "weak"),
            ("m=262144,t=10,p=16", "good"),
            ("m=262145,t=2,p=1", "too much"),
            ("m=19456,t=11,p=1", "too much"),
            ("m=19456,t=2,p=17", "too much"),
            ("m=19456,t=2", "good"),
            ("m=0,t=2,p=1", "nonsense"),
            ("x=1", "nonsense"),
        ] {
            assert_eq!(with(params), expected, "{params}");
        }
        for text in [
            "",
            "secret",
            "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=16$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ",
            "$2b$12$abcdefghijklmnopqrstuuZ5Zx5Zx5Zx5Zx5Zx5Zx5Zx5Zx5Zx5Zx",
        ] {
            assert!(Hashed::read(text).is_err(), "{text}");
        }
    }
}
