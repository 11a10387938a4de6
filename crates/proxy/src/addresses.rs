//! How many connections each client address has, over all workers and listeners.
//!
//! Looked at when a connection begins and when it ends, never for a request.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// More than there are workers on most machines, so that they seldom meet.
const SHARDS: usize = 64;

/// An IPv4 address, or the /64 network that one subscriber has in IPv6 (RFC 6177 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4(u32),
    V6(u64),
}

impl Key {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

type Shard = Mutex<HashMap<Key, u32>>;

/// An address is in it only while it has connections, so that it never has more entries than there
/// are connections.
#[derive(Debug)]
pub(crate) struct Addresses {
    shards: [Shard; SHARDS],
    /// Seeded, so that nobody can choose addresses that share a shard.
    hasher: RandomState,
}

impl Default for Addresses {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Shard::default()), hasher: RandomState::new() }
    }
}

/// One connection of an address, until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    addresses: Arc<Addresses>,
    key: Key,
}

impl Addresses {
    /// `None` when the address has `max` connections already.
    pub(crate) fn seat(self: &Arc<Self>, address: IpAddr, max: u32) -> Option<Seat> {
        let key = Key::of(address);
        let mut shard = self.shard(key);
        match shard.entry(key) {
            Entry::Occupied(mut taken) if *taken.get() < max => *taken.get_mut() += 1,
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) => _ = free.insert(1),
        }
        Some(Seat { addresses: Arc::clone(self), key })
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, HashMap<Key, u32>> {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut shard = self.addresses.shard(self.key);
        if let Entry::Occupied(mut taken) = shard.entry(self.key) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
        // A burst of addresses that is over leaves no empty table behind.
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
            shard.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn entries(addresses: &Addresses) -> usize {
        addresses.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[test]
    fn an_address_has_so_many_and_others_have_their_own() {
        let addresses = Arc::new(Addresses::default());
        let one = addresses.seat(ip("192.0.2.1"), 2).unwrap();
        let _two = addresses.seat(ip("::ffff:192.0.2.1"), 2).unwrap();
        assert!(addresses.seat(ip("192.0.2.1"), 2).is_none());
        assert!(addresses.seat(ip("192.0.2.2"), 2).is_some());
        drop(one);
        assert!(addresses.seat(ip("192.0.2.1"), 2).is_some());
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_address() {
        let addresses = Arc::new(Addresses::default());
        let _one = addresses.seat(ip("2001:db8::1"), 1).unwrap();
        assert!(addresses.seat(ip("2001:db8::ffff:1"), 1).is_none());
        assert!(addresses.seat(ip("2001:db8:0:1::1"), 1).is_some());
    }

    #[test]
    fn nothing_stays_of_an_address_without_connections() {
        let addresses = Arc::new(Addresses::default());
        let seat = |i: u32| addresses.seat(IpAddr::V4(i.into()), 1).unwrap();
        let seats: Vec<_> = (0..100_000).map(seat).collect();
        assert_eq!(entries(&addresses), 100_000);
        drop(seats);
        assert_eq!(entries(&addresses), 0);
        let room = |shard: &Shard| shard.lock().unwrap().capacity();
        assert!(addresses.shards.iter().map(room).sum::<usize>() < 64 * SHARDS * 2);
    }
}
