//! Credentials that were verified once: a good one costs its verification once, not each time.
//!
//! Found by a hash of the whole credential under the process's secret. What is remembered holds for
//! the version of the keys it was verified with and for as long as it is usable; whoever asks says
//! what time it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::{Identity, Services};

use super::confirmation::Bound;
use crate::key::Secret;
use crate::table::Table;

const SHARDS: usize = 32;
/// Credentials remembered at once, of one `auth` entry.
const REMEMBERED_MAX: usize = 64 << 10;
/// Their length together; what is remembered of a token is about as large as it.
const BYTES_MAX: usize = 64 << 20;

/// The keys are hashes under a secret already.
const UNSEEDED: [u64; 2] = [0; 2];

const PURPOSE: u64 = 0x746f_6b65_6e73;

/// What is remembered of a credential.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) identity: Arc<Identity>,
    /// Since 1970.
    pub(super) usable_until: Duration,
    pub(super) bound: Bound,
}

impl Proven {
    /// Good for whoever has it.
    pub(super) fn unbound(identity: Arc<Identity>, usable_until: Duration) -> Self {
        Self { identity, usable_until, bound: Bound::ToNothing }
    }
}

#[derive(Debug)]
pub(super) struct Remembered {
    secret: Secret,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug)]
struct Shard {
    table: Table<Entry, 1>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Entry {
    /// Of what it was verified with.
    version: u64,
    /// Since 1970.
    usable_until: Duration,
    identity: Option<Arc<Identity>>,
    /// Few tokens are, so that the others have no room for it.
    bound: Option<Box<Bound>>,
    bytes: usize,
}

pub(super) enum Found {
    /// Whose it is, and what the client has to show beside it.
    Good(Arc<Identity>, Bound),
    Expired,
    Nothing,
}

impl Remembered {
    pub(super) fn new(secret: Secret) -> Self {
        let shard = || Mutex::new(Shard { table: Table::new(UNSEEDED), bytes: 0 });
        Self { secret, shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    pub(super) fn hash(&self, token: &[u8], services: &dyn Services) -> u128 {
        let mut hasher = self.secret.hasher(services, PURPOSE);
        hasher.text(token);
        hasher.finish()
    }

    fn shard(&self, hash: u128) -> MutexGuard<'_, Shard> {
        // A poisoned shard is as good as any: no panic can leave an entry half written.
        let index = (hash >> 64) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, hash: u128, version: u64, wall: Duration) -> Found {
        let mut shard = self.shard(hash);
        let Some(slot) = shard.table.find(hash) else { return Found::Nothing };
        let entry = shard.table.get(slot);
        let Some(identity) = entry.identity.as_ref().filter(|_| entry.version == version) else {
            shard.remove(slot);
            return Found::Nothing;
        };
        if entry.usable_until <= wall {
            return Found::Expired;
        }
        let bound = entry.bound.as_deref().map_or(Bound::ToNothing, |bound| *bound);
        let good = Found::Good(Arc::clone(identity), bound);
        shard.table.touch(slot, 0);
        good
    }

    pub(super) fn insert(&self, hash: u128, bytes: usize, version: u64, proven: &Proven) {
        let mut shard = self.shard(hash);
        if let Some(slot) = shard.table.find(hash) {
            shard.remove(slot);
        }
        while (shard.table.len() >= REMEMBERED_MAX / SHARDS
            || shard.bytes + bytes > BYTES_MAX / SHARDS)
            && let Some(oldest) = shard.table.oldest(0)
        {
            shard.remove(oldest);
        }
        shard.bytes += bytes;
        let Proven { identity, usable_until, bound } = proven;
        let entry = Entry {
            version,
            usable_until: *usable_until,
            identity: Some(Arc::clone(identity)),
            bound: (*bound != Bound::ToNothing).then(|| Box::new(*bound)),
            bytes,
        };
        shard.table.insert(hash, 0, entry);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().table.len()).sum()
    }
}

impl Shard {
    fn remove(&mut self, slot: u32) {
        self.bytes -= self.table.remove(slot).bytes;
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::carry::Carry;

    use super::*;

    #[test]
    fn memory_is_bounded_by_number_and_by_bytes() {
        let remembered = Remembered::new(Secret::of(&mut Carry::default()));
        let insert = |key: u128, bytes| {
            let hash = key << 64 | key;
            let proven = Proven::unbound(Arc::default(), Duration::from_secs(9));
            remembered.insert(hash, bytes, 1, &proven);
        };
        for key in 0..3 * REMEMBERED_MAX as u128 {
            insert(key, 500);
        }
        assert_eq!(remembered.len(), REMEMBERED_MAX);
        for key in 0..2 * REMEMBERED_MAX as u128 {
            insert(key, 16 << 10);
        }
        assert_eq!(remembered.len(), BYTES_MAX / (16 << 10));
    }
}
