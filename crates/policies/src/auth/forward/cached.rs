//! What an authorizer allowed a moment ago, for requests that are alike in all that it was told.
//!
//! Only what was allowed is kept: a refusal may be over with the next request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::auth::Accepted;
use portcullis_core::{Exchange, Identity, Services};

use super::{Plan, Shown};
use crate::key::Secret;
use crate::table::Table;

/// Answers kept of one authorizer.
const ENTRIES_MAX: usize = 16 << 10;
/// Their length together, as far as the authorizer has a say in it.
const BYTES_MAX: usize = 16 << 20;
/// The keys are hashes under a secret already.
const UNSEEDED: [u64; 2] = [0; 2];
const PURPOSE: u64 = 0x0066_6f72_7761_7264;

#[derive(Debug)]
pub(super) struct Cached {
    time_to_live: Duration,
    /// Of all that a request shows, only these tell two askers apart; `None` for everything.
    key: Option<Box<[Box<str>]>>,
    secret: Secret,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    table: Table<Entry, 1>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Entry {
    identity: Arc<Identity>,
    withheld: Vec<Box<str>>,
    until: Duration,
    bytes: usize,
}

impl Cached {
    pub(super) fn new(
        time_to_live: Duration,
        key: Option<Box<[Box<str>]>>,
        secret: Secret,
    ) -> Self {
        let kept = Mutex::new(Kept { table: Table::new(UNSEEDED), bytes: 0 });
        Self { time_to_live, key, secret, kept }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hash of what is asked and of who asks.
    pub(super) fn key(&self, plan: &Plan, exchange: &Exchange, services: &dyn Services) -> u128 {
        let mut hasher = self.secret.hasher(services, PURPOSE);
        let request = &exchange.request;
        hasher.text(request.method.as_str().as_bytes());
        hasher.text(request.scheme.as_str().as_bytes());
        hasher.text(request.authority());
        hasher.text(request.path());
        hasher.number(request.query().is_some().into());
        hasher.text(request.query().unwrap_or_default());
        let names = match (&self.key, &plan.shown) {
            (Some(names), _) => Some(names),
            (None, Shown::Named(names)) => Some(names),
            (None, Shown::All) => None,
        };
        for (name, value) in request.fields.iter() {
            let is_named = |names: &[Box<str>]| {
                names.iter().position(|named| name.eq_ignore_ascii_case(named.as_bytes()))
            };
            match names {
                None => hasher.text(&name.to_ascii_lowercase()),
                Some(names) => match is_named(names) {
                    Some(at) => hasher.number(at as u64),
                    None => continue,
                },
            }
            hasher.text(value);
        }
        if self.key.is_none() {
            // No end of the list of fields can be taken for these.
            hasher.number(u64::MAX);
            hasher.text(exchange.client_ip.to_string().as_bytes());
            if let Some(certificate) = &exchange.certificate {
                hasher.text(&certificate.sha256);
            }
        }
        hasher.finish()
    }

    pub(super) fn find(&self, key: u128, now: Duration) -> Option<Accepted> {
        let mut kept = self.lock();
        let slot = kept.table.find(key)?;
        let entry = kept.table.get(slot);
        if entry.until <= now {
            kept.remove(slot);
            return None;
        }
        let (identity, withheld) = (Arc::clone(&entry.identity), entry.withheld.clone());
        kept.table.touch(slot, 0);
        Some(Accepted { withheld, ..identity.into() })
    }

    pub(super) fn insert(
        &self,
        key: u128,
        now: Duration,
        identity: Arc<Identity>,
        withheld: Vec<Box<str>>,
    ) {
        let bytes = length(&identity) + withheld.iter().map(|name| name.len()).sum::<usize>();
        let mut kept = self.lock();
        if let Some(slot) = kept.table.find(key) {
            kept.remove(slot);
        }
        while (kept.table.len() >= ENTRIES_MAX || kept.bytes + bytes > BYTES_MAX)
            && let Some(oldest) = kept.table.oldest(0)
        {
            kept.remove(oldest);
        }
        kept.bytes += bytes;
        let until = now + self.time_to_live;
        kept.table.insert(key, 0, Entry { identity, withheld, until, bytes });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().table.len()
    }
}

impl Kept {
    fn remove(&mut self, slot: u32) {
        self.bytes -= self.table.remove(slot).bytes;
    }
}

/// About what an identity takes beside its own structure.
fn length(identity: &Identity) -> usize {
    let texts = identity.scopes.iter().chain([&identity.client, &identity.key]);
    let fields = identity.fields.iter().map(|(name, value)| name.len() + value.len());
    let claims = identity.claims.iter().map(|(name, value)| name.len() + value.to_string().len());
    texts.map(String::len).sum::<usize>() + fields.sum::<usize>() + claims.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use portcullis_core::carry::Carry;

    use super::*;

    #[test]
    fn memory_is_bounded_by_number_and_by_bytes() {
        let secret = Secret::of(&mut Carry::default());
        let cached = Cached::new(Duration::from_secs(1), None, secret);
        let insert = |key: usize, bytes: usize| {
            let identity = Identity::new("a".into(), "x".repeat(bytes / 2));
            cached.insert(key as u128, Duration::ZERO, Arc::new(identity), Vec::new());
        };
        for key in 0..2 * ENTRIES_MAX {
            insert(key, 100);
        }
        assert_eq!(cached.len(), ENTRIES_MAX);
        for key in 0..2000 {
            insert(key, 64 << 10);
        }
        assert!((200..=256).contains(&cached.len()), "{}", cached.len());
        assert!(cached.lock().bytes <= BYTES_MAX);
    }
}
