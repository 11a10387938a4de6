//! What was learned of tokens, each found by a hash of the token under the process's secret.
//!
//! Bounded by number and by bytes; what has been idle longest goes first. What is known for good
//! and what is known to be bad have room of their own, so that guesses push out no good token. How
//! long something holds is for whoever put it there to say.

use std::sync::{Mutex, MutexGuard, PoisonError};

use portcullis_core::Services;

use crate::key::Secret;
use crate::table::Table;

const SHARDS: usize = 32;
/// Good ones, and their length together.
const GOOD_MAX: usize = 64 << 10;
const BYTES_MAX: usize = 64 << 20;
/// Bad ones; they take a few words each.
const BAD_MAX: usize = 32 << 10;

/// The keys are hashes under a secret already.
const UNSEEDED: [u64; 2] = [0; 2];

/// Which room something is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Good = 0,
    Bad = 1,
}

#[derive(Debug)]
pub(crate) struct Kept<V> {
    secret: Secret,
    /// Keeps its hashes apart from others under the same secret.
    purpose: u64,
    shards: Box<[Mutex<Shard<V>>]>,
}

#[derive(Debug)]
struct Shard<V> {
    table: Table<Entry<V>, 2>,
    /// How many are in each room.
    counts: [usize; 2],
    bytes: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: Option<V>,
    bytes: usize,
    room: usize,
}

impl<V> Default for Entry<V> {
    fn default() -> Self {
        Self { value: None, bytes: 0, room: 0 }
    }
}

impl<V: Clone> Kept<V> {
    pub(crate) fn new(secret: Secret, purpose: u64) -> Self {
        let shard = || Mutex::new(Shard { table: Table::new(UNSEEDED), counts: [0; 2], bytes: 0 });
        Self { secret, purpose, shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    pub(crate) fn hash(&self, token: &[u8], services: &dyn Services) -> u128 {
        let mut hasher = self.secret.hasher(services, self.purpose);
        hasher.text(token);
        hasher.finish()
    }

    fn shard(&self, hash: u128) -> MutexGuard<'_, Shard<V>> {
        // A poisoned shard is as good as any: no panic can leave an entry half written.
        let index = (hash >> 64) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, hash: u128) -> Option<V> {
        let mut shard = self.shard(hash);
        let slot = shard.table.find(hash)?;
        let entry = shard.table.get(slot);
        let (value, room) = (entry.value.clone(), entry.room);
        shard.table.touch(slot, room as u8);
        value
    }

    /// `bytes` is about what it takes.
    pub(crate) fn insert(&self, hash: u128, room: Room, bytes: usize, value: V) {
        let mut shard = self.shard(hash);
        shard.remove(hash);
        let room = room as usize;
        let most = [GOOD_MAX, BAD_MAX][room] / SHARDS;
        while shard.counts[room] >= most || shard.bytes + bytes > BYTES_MAX / SHARDS {
            // Bytes are freed where there are any: in the same room, else in the other.
            let room = if shard.counts[room] > 0 { room } else { 1 - room };
            let Some(oldest) = shard.table.oldest(room as u8) else { break };
            shard.drop_slot(oldest);
        }
        shard.counts[room] += 1;
        shard.bytes += bytes;
        shard.table.insert(hash, room as u8, Entry { value: Some(value), bytes, room });
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().table.len()).sum()
    }
}

impl<V> Shard<V> {
    fn remove(&mut self, hash: u128) {
        if let Some(slot) = self.table.find(hash) {
            self.drop_slot(slot);
        }
    }

    fn drop_slot(&mut self, slot: u32) {
        let entry = self.table.remove(slot);
        self.counts[entry.room] -= 1;
        self.bytes -= entry.bytes;
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::carry::Carry;

    use super::*;

    #[test]
    fn memory_is_bounded_and_guesses_push_out_no_good_token() {
        let kept = Kept::new(Secret::of(&mut Carry::default()), 1);
        let spread = |key: u128| key << 64 | key;
        for key in 0..1000 {
            kept.insert(spread(key), Room::Good, 500, key);
        }
        for key in 1000..100_000 {
            kept.insert(spread(key), Room::Bad, 0, key);
        }
        assert_eq!(kept.len(), 1000 + BAD_MAX);
        assert!((0..1000).all(|key| kept.find(spread(key)) == Some(key)));
        for key in 1000..200_000 {
            kept.insert(spread(key), Room::Good, 500, key);
        }
        let good = (0..200_000).filter(|key| kept.find(spread(*key)).is_some()).count();
        assert!(good <= GOOD_MAX + BAD_MAX, "{good}");
        for key in 0..20_000 {
            kept.insert(spread(key), Room::Good, 16 << 10, key);
        }
        assert!(kept.len() <= BYTES_MAX / (16 << 10) + BAD_MAX);
    }
}
