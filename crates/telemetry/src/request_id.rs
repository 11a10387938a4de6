//! Which id a request goes by.

use portcullis_core::exchange::RequestId;
use portcullis_core::{Fields, Known};

/// The id that a trusted hop sent in `X-Request-Id`, else a new one from 128 random bits.
///
/// A stranger's id is never taken, since it would let them mix their requests up with others' in
/// the log; nor are two ids at once, nor one that [`RequestId::accept`] refuses.
#[must_use]
pub fn choose(fields: &Fields, trusted: bool, random: u128) -> RequestId {
    let mut sent = fields.known_all(Known::XRequestId);
    match (sent.next(), sent.next()) {
        (Some(id), None) if trusted => RequestId::accept(id),
        _ => None,
    }
    .unwrap_or_else(|| RequestId::new(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: &[&str], trusted: bool, expected: &str) {
        let mut fields = Fields::default();
        for id in sent {
            fields.append(b"X-Request-Id", id.as_bytes());
        }
        assert_eq!(choose(&fields, trusted, 0xabc).as_str(), expected);
    }

    const NEW: &str = "00000000000000000000000000000abc";

    #[test]
    fn only_one_plain_id_of_a_trusted_hop_is_taken() {
        check(&["7b3e-11.A_z"], true, "7b3e-11.A_z");
        check(&["7b3e-11.A_z"], false, NEW);
        check(&[], true, NEW);
        check(&["a", "b"], true, NEW);
        check(&[""], true, NEW);
        check(&["a b"], true, NEW);
        check(&["a\"}"], true, NEW);
        check(&[&"x".repeat(64)], true, &"x".repeat(64));
        check(&[&"x".repeat(65)], true, NEW);
    }
}
