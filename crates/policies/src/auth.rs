//! Kinds of authentication, and what they share.
//!
//! Which of them a request is for, that it has one credential only, and that guessing is slowed, is
//! for whoever asks them. What costs more than a hash answers `Wait` and begins when it is polled,
//! so that a slowed address costs nothing.

pub mod api_keys;
pub mod basic;
mod confirmation;
pub(crate) mod cookies;
pub(crate) mod cross_site;
pub(crate) mod forward;
pub(crate) mod hmac;
pub(crate) mod introspection;
pub(crate) mod jwt;
mod listed;
pub(crate) mod mtls;
mod nonces;
pub(crate) mod oidc;
mod place;
mod remembered;
pub(crate) mod signature;

use std::sync::Arc;

use portcullis_core::auth::Verified;
use portcullis_core::codes::Code;
use portcullis_core::{Identity, Problem};

/// What the verification of one credential comes to, before it is told.
type Checked = Result<Arc<Identity>, Problem>;

fn told(checked: Checked) -> Verified {
    Ok(checked?.into())
}

/// A refusal with its `WWW-Authenticate` (RFC 9110 §11.6.1).
fn refuse(code: &'static Code, challenge: &str, detail: &str) -> Problem {
    Problem::new(code).detail(detail).field("www-authenticate", challenge)
}

/// The credentials after an authentication scheme, which is compared without case (RFC 9110 §11.1),
/// as a range of the value.
fn after_scheme(value: &[u8], scheme: &str) -> Option<std::ops::Range<usize>> {
    let (name, rest) = value.split_at_checked(scheme.len())?;
    if !name.eq_ignore_ascii_case(scheme.as_bytes()) {
        return None;
    }
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    (spaces > 0).then(|| scheme.len() + spaces..value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes() {
        let of =
            |value: &'static str| after_scheme(value.as_bytes(), "Bearer").map(|at| &value[at]);
        assert_eq!(of("Bearer a.b"), Some("a.b"));
        assert_eq!(of("bearer   a.b"), Some("a.b"));
        assert_eq!(of("BEARER "), Some(""));
        assert_eq!(of("Bearer"), None);
        assert_eq!(of("Bearera.b"), None);
        assert_eq!(of("Basic YTpi"), None);
        assert_eq!(of("Be"), None);
    }
}
