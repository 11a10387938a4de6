//! A bounded table that knows which entry has been idle longest.
//!
//! Buckets are chosen under a seed, so that whoever can choose keys cannot crowd one of them.
//! Entries sit in one block of memory and are linked by index twice: in their bucket, and in one of
//! `LISTS` lists by the time of last use. Finding, moving and removing allocate nothing. Neither
//! locks nor time are its business.

/// End of a chain.
const NONE: u32 = u32::MAX;
/// Buckets of a new table.
const BUCKETS_MIN: usize = 16;

/// Chooses buckets; a secret where strangers have a hand in the keys.
pub(crate) type Seed = [u64; 2];

/// Spreads a key over all bits of the result.
pub(crate) fn spread(key: u128, [s0, s1]: Seed) -> u64 {
    let fold = |value: u64, factor: u64| {
        let product = u128::from(value) * u128::from(factor);
        product as u64 ^ (product >> 64) as u64
    };
    let low = fold(key as u64 ^ s0, 0x9e37_79b9_7f4a_7c15);
    fold((key >> 64) as u64 ^ s1 ^ low, 0xd6e8_feb8_6659_fd93)
}

/// Where an entry sits; good until it is removed.
pub(crate) type Slot = u32;

#[derive(Debug)]
struct Entry<V> {
    key: u128,
    value: V,
    list: u8,
    /// The next in its bucket; in a free entry, the next free one.
    chain: u32,
    /// Neighbours in its list: used later, used earlier.
    newer: u32,
    older: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    newest: u32,
    oldest: u32,
}

#[derive(Debug)]
pub(crate) struct Table<V, const LISTS: usize> {
    seed: Seed,
    entries: Vec<Entry<V>>,
    /// First of the free entries.
    free: u32,
    buckets: Vec<u32>,
    lists: [List; LISTS],
    len: usize,
}

impl<V: Default, const LISTS: usize> Table<V, LISTS> {
    /// What an entry takes beside memory of its own, without its bucket's four to eight bytes.
    #[cfg(test)]
    pub(crate) const ENTRY_BYTES: usize = size_of::<Entry<V>>();

    pub(crate) fn new(seed: Seed) -> Self {
        Self {
            seed,
            entries: Vec::new(),
            free: NONE,
            buckets: vec![NONE; BUCKETS_MIN],
            lists: [List { newest: NONE, oldest: NONE }; LISTS],
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn find(&self, key: u128) -> Option<Slot> {
        let mut at = self.buckets[self.bucket(key)];
        while at != NONE {
            let entry = &self.entries[at as usize];
            if entry.key == key {
                return Some(at);
            }
            at = entry.chain;
        }
        None
    }

    pub(crate) fn get(&self, slot: Slot) -> &V {
        &self.entries[slot as usize].value
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> &mut V {
        &mut self.entries[slot as usize].value
    }

    /// Makes it the entry used last, in that list.
    pub(crate) fn touch(&mut self, slot: Slot, list: u8) {
        let entry = &self.entries[slot as usize];
        if entry.newer == NONE && entry.list == list {
            return;
        }
        self.unlink(slot);
        self.link(slot, list);
    }

    /// Adds a key that is not there. The caller has made room.
    pub(crate) fn insert(&mut self, key: u128, list: u8, value: V) -> Slot {
        if self.len == self.buckets.len() {
            self.grow();
        }
        let bucket = self.bucket(key);
        let chain = self.buckets[bucket];
        let entry = Entry { key, value, list, chain, newer: NONE, older: NONE };
        let slot = match self.free {
            NONE => {
                self.entries.push(entry);
                (self.entries.len() - 1) as Slot
            }
            slot => {
                self.free = self.entries[slot as usize].chain;
                self.entries[slot as usize] = entry;
                slot
            }
        };
        self.buckets[bucket] = slot;
        self.len += 1;
        self.link(slot, list);
        slot
    }

    /// The entry of that list that has been idle longest.
    pub(crate) fn oldest(&self, list: u8) -> Option<Slot> {
        let slot = self.lists[usize::from(list)].oldest;
        (slot != NONE).then_some(slot)
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> V {
        self.unlink(slot);
        let bucket = self.bucket(self.entries[slot as usize].key);
        let next = self.entries[slot as usize].chain;
        if self.buckets[bucket] == slot {
            self.buckets[bucket] = next;
        } else {
            let mut at = self.buckets[bucket];
            while self.entries[at as usize].chain != slot {
                at = self.entries[at as usize].chain;
            }
            self.entries[at as usize].chain = next;
        }
        self.entries[slot as usize].chain = self.free;
        self.free = slot;
        self.len -= 1;
        std::mem::take(&mut self.entries[slot as usize].value)
    }

    fn bucket(&self, key: u128) -> usize {
        spread(key, self.seed) as usize & (self.buckets.len() - 1)
    }

    /// Twice as many buckets. Every entry is in use when this is called: the free ones were filled
    /// first.
    fn grow(&mut self) {
        self.buckets = vec![NONE; self.buckets.len() * 2];
        for slot in 0..self.entries.len() {
            let bucket = self.bucket(self.entries[slot].key);
            self.entries[slot].chain = self.buckets[bucket];
            self.buckets[bucket] = slot as u32;
        }
    }

    fn link(&mut self, slot: Slot, list: u8) {
        let ends = &mut self.lists[usize::from(list)];
        let older = std::mem::replace(&mut ends.newest, slot);
        if older == NONE {
            ends.oldest = slot;
        } else {
            self.entries[older as usize].newer = slot;
        }
        let entry = &mut self.entries[slot as usize];
        (entry.list, entry.newer, entry.older) = (list, NONE, older);
    }

    fn unlink(&mut self, slot: Slot) {
        let Entry { list, newer, older, .. } = self.entries[slot as usize];
        let ends = &mut self.lists[usize::from(list)];
        match newer {
            NONE => ends.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => ends.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// The same, kept simply: value, list, time of last use.
    #[derive(Default)]
    struct Model {
        entries: HashMap<u128, (u32, u8, usize)>,
    }

    impl Model {
        fn oldest(&self, list: u8) -> Option<u128> {
            let of_list = self.entries.iter().filter(|(_, entry)| entry.1 == list);
            of_list.min_by_key(|(_, entry)| entry.2).map(|(key, _)| *key)
        }
    }

    proptest! {
        #[test]
        fn a_table_is_a_map_with_an_order(
            steps in prop::collection::vec((0..4_u8, 0..48_u128, 0..3_u8, any::<u32>()), 1..400),
        ) {
            let mut table: Table<u32, 3> = Table::new([1, 2]);
            let mut model = Model::default();
            for (time, (what, key, list, value)) in steps.into_iter().enumerate() {
                match (what, table.find(key)) {
                    (0, Some(slot)) => {
                        let removed = model.entries.remove(&key).map(|entry| entry.0);
                        prop_assert_eq!(Some(table.remove(slot)), removed);
                    }
                    (1, Some(slot)) => {
                        table.touch(slot, list);
                        let entry = model.entries.get_mut(&key).unwrap();
                        (entry.1, entry.2) = (list, time);
                    }
                    (_, Some(slot)) => {
                        *table.get_mut(slot) = value;
                        model.entries.get_mut(&key).unwrap().0 = value;
                    }
                    (_, None) => {
                        prop_assert!(!model.entries.contains_key(&key));
                        table.insert(key, list, value);
                        model.entries.insert(key, (value, list, time));
                    }
                }
                prop_assert_eq!(table.len(), model.entries.len());
                for (key, entry) in &model.entries {
                    prop_assert_eq!(table.find(*key).map(|slot| *table.get(slot)), Some(entry.0));
                }
                for list in 0..3 {
                    let oldest = table.oldest(list).map(|slot| table.entries[slot as usize].key);
                    prop_assert_eq!(oldest, model.oldest(list));
                }
            }
        }
    }

    /// Keys that differ in a few bits of either half fill the buckets about evenly.
    #[test]
    fn keys_that_are_alike_do_not_crowd() {
        for shift in [0, 8, 16, 32, 48, 64, 80, 96, 112] {
            let mut full = [0_u32; 256];
            for key in 0..4096_u128 {
                full[(spread(key << shift, [3, 5]) & 0xff) as usize] += 1;
            }
            let most = full.iter().max().copied();
            assert!(most < Some(64), "{most:?} of 16 at shift {shift}");
        }
    }
}
