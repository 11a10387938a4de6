//! The body's digest (`Content-Digest`, RFC 9530), by which a signature covers a body.

use aws_lc_rs::digest::{Algorithm, SHA256, SHA512, digest};
use portcullis_core::RequestHead;
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};
use subtle::ConstantTimeEq;

use super::written::combined;

/// Its identifier as a component.
pub(super) const COMPONENT: &str = "content-digest";

/// Those that are safe; the others of the registry are not looked at.
const ALGORITHMS: [(&str, &Algorithm); 2] = [("sha-256", &SHA256), ("sha-512", &SHA512)];

/// The digests that a body has to have, all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Digests(Vec<(&'static Algorithm, Vec<u8>)>);

impl Digests {
    /// # Errors
    /// There is none, or none by an algorithm that is safe.
    pub(super) fn of(request: &RequestHead) -> Result<Self, &'static str> {
        let text = combined(request, COMPONENT.as_bytes()).ok_or("no digest of the body")?;
        let members: Dictionary =
            Parser::new(&text).parse().map_err(|_| "a digest of the body that is none")?;
        let mut digests = Vec::new();
        for (name, algorithm) in ALGORITHMS {
            match members.get(name) {
                None => {}
                Some(ListEntry::Item(Item {
                    bare_item: BareItem::ByteSequence(bytes), ..
                })) => {
                    digests.push((algorithm, bytes.clone()));
                }
                Some(_) => return Err("a digest of the body that is none"),
            }
        }
        match digests.is_empty() {
            true => Err("no digest of the body by SHA-256 or SHA-512"),
            false => Ok(Self(digests)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn are_of(&self, body: &[u8]) -> bool {
        let mut digests = self.0.iter();
        digests.all(|(algorithm, wanted)| {
            bool::from(digest(algorithm, body).as_ref().ct_eq(wanted.as_slice()))
        })
    }
}
