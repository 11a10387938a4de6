//! What is good once, nonces and signatures that have none, for as long as it could be good again.
//!
//! A signature is taken once. Where there is no room to remember another, none is taken: what was
//! forgotten could be sent again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::table::Table;

const SHARDS: usize = 32;
/// Some 60 bytes each. With the default window, 8,700 signatures a second.
const NONCES_MAX: usize = 1 << 20;
/// The keys are hashes under a secret already.
const UNSEEDED: [u64; 2] = [0; 2];

/// Why a nonce cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spent {
    Before,
    Full,
}

#[derive(Debug)]
pub(super) struct Nonces {
    /// By the monotonic clock, when each may be forgotten.
    shards: Box<[Mutex<Table<Duration, 1>>]>,
    shard_max: usize,
}

impl Nonces {
    pub(super) fn new() -> Self {
        Self::holding(NONCES_MAX)
    }

    fn holding(max: usize) -> Self {
        let shard = || Mutex::new(Table::new(UNSEEDED));
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), shard_max: max / SHARDS }
    }

    /// Uses a nonce up, for `lifetime` from `mono`.
    pub(super) fn spend(
        &self,
        hash: u128,
        mono: Duration,
        lifetime: Duration,
    ) -> Result<(), Spent> {
        let index = (hash >> 64) as usize % SHARDS;
        // A poisoned shard is as good as any: no panic can leave an entry half written.
        let mut table = self.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
        // In the order in which they came, which is that in which they end.
        while let Some(oldest) = table.oldest(0)
            && *table.get(oldest) <= mono
        {
            table.remove(oldest);
        }
        if table.find(hash).is_some() {
            return Err(Spent::Before);
        }
        if table.len() >= self.shard_max {
            return Err(Spent::Full);
        }
        table.insert(hash, 0, mono + lifetime);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(120);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_nonce_is_good_once_within_its_time() {
        let nonces = Nonces::new();
        assert_eq!(nonces.spend(7, at(0), LIFETIME), Ok(()));
        assert_eq!(nonces.spend(7, at(119), LIFETIME), Err(Spent::Before));
        assert_eq!(nonces.spend(8, at(119), LIFETIME), Ok(()));
        assert_eq!(nonces.spend(7, at(120), LIFETIME), Ok(()));
    }

    #[test]
    fn a_full_table_takes_none_until_there_is_room() {
        let nonces = Nonces::holding(3 * SHARDS);
        for hash in 0..3 {
            assert_eq!(nonces.spend(hash, at(hash as u64), LIFETIME), Ok(()));
        }
        assert_eq!(nonces.spend(9, at(119), LIFETIME), Err(Spent::Full));
        assert_eq!(nonces.spend(1, at(119), LIFETIME), Err(Spent::Before));
        assert_eq!(nonces.spend(9, at(120), LIFETIME), Ok(()), "the first has ended");
        // Another shard has room of its own.
        assert_eq!(nonces.spend(1 << 64, at(119), LIFETIME), Ok(()));
    }
}
