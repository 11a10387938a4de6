//! A table that gives each key one of several members, and most keys the same one when members come
//! or go (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", 2016, §3.4).
//!
//! The table depends on the members' names and weights alone, so every gateway with the same
//! members agrees on it.

use crate::mix::{Mix, scale};

/// Sizes; primes, so that every step visits every slot.
const SIZES: [usize; 6] = [251, 1_021, 4_093, 16_381, 65_521, 262_139];
/// Slots for each member at least, as far as the sizes go: shares are then within a few per cent.
const SLOTS_EACH: usize = 64;

/// Which member each slot belongs to; empty where no member has a weight.
#[derive(Debug)]
pub(crate) struct Maglev(Box<[u16]>);

/// Where one member would like to be next.
struct Preference {
    member: u16,
    weight: u32,
    /// Of `weight` against the heaviest; it takes a slot each time this is full.
    credit: u64,
    at: usize,
    step: usize,
}

impl Maglev {
    /// Members are given as (name, weight).
    pub(crate) fn new<'a>(members: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let mut all: Vec<(usize, &str, u32)> = members
            .enumerate()
            .filter(|(_, (_, weight))| *weight > 0)
            .map(|(index, (name, weight))| (index, name, weight))
            .collect();
        let Some(heaviest) = all.iter().map(|(_, _, weight)| *weight).max() else {
            return Self(Box::default());
        };
        // Who takes a slot first must not depend on the order in which they are written.
        all.sort_by_key(|(_, name, _)| *name);
        let wanted = all.len() * SLOTS_EACH;
        let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(SIZES[5]);
        let mut preferences: Vec<Preference> = all
            .into_iter()
            .map(|(index, name, weight)| {
                let mut mix = Mix::new(fingerprint(name));
                Preference {
                    member: index as u16,
                    weight,
                    credit: 0,
                    at: mix.below(size as u64) as usize,
                    step: 1 + mix.below(size as u64 - 1) as usize,
                }
            })
            .collect();
        Self(fill(&mut preferences, size, u64::from(heaviest)))
    }

    /// The members in the order in which a key prefers them, with repetitions; without end unless
    /// there is nobody.
    pub(crate) fn order(&self, key: u64) -> impl Iterator<Item = u16> + '_ {
        let start = scale(Mix::new(key).next(), self.0.len() as u64) as usize;
        self.0.iter().copied().cycle().skip(start)
    }
}

fn fill(preferences: &mut [Preference], size: usize, heaviest: u64) -> Box<[u16]> {
    const FREE: u16 = u16::MAX;
    let mut slots = vec![FREE; size];
    let mut taken = 0;
    while taken < size {
        for one in &mut *preferences {
            one.credit += u64::from(one.weight);
            if one.credit < heaviest || taken == size {
                continue;
            }
            one.credit -= heaviest;
            while slots[one.at] != FREE {
                one.at = (one.at + one.step) % size;
            }
            slots[one.at] = one.member;
            taken += 1;
        }
    }
    slots.into_boxed_slice()
}

/// FNV-1a.
fn fingerprint(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 100_000;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("http://10.0.0.{i}:8080")).collect()
    }

    fn table(names: &[String], weight: impl Fn(usize) -> u32) -> Maglev {
        Maglev::new(names.iter().enumerate().map(|(i, name)| (name.as_str(), weight(i))))
    }

    fn first(table: &Maglev, key: u64) -> u16 {
        table.order(key).next().unwrap()
    }

    #[test]
    fn shares_follow_the_weights() {
        let names = names(5);
        let table = table(&names, |i| [1, 2, 0, 3, 4][i]);
        let mut seen = [0_u32; 5];
        (0..KEYS).for_each(|key| seen[usize::from(first(&table, key))] += 1);
        for (count, weight) in seen.iter().zip([1, 2, 0, 3, 4]) {
            assert!(count.abs_diff(weight * 10_000) < 800, "{seen:?}");
        }
    }

    /// Of ten one leaves: its keys go elsewhere, and few of the others' do.
    #[test]
    fn most_keys_stay_when_a_member_leaves() {
        let all = names(10);
        let (before, after) = (table(&all, |_| 1), table(&all, |i| u32::from(i != 3)));
        let (mut moved, mut theirs) = (0, 0);
        for key in 0..KEYS {
            let (old, new) = (first(&before, key), first(&after, key));
            assert_ne!(new, 3);
            match old {
                3 => theirs += 1,
                old => moved += u32::from(old != new),
            }
        }
        assert!((9_000..11_000).contains(&theirs), "{theirs}");
        assert!(moved < KEYS as u32 / 25, "{moved} of the others' keys moved");
    }

    #[test]
    fn the_order_in_which_members_are_written_does_not_count() {
        let names = names(7);
        let mut turned = names.clone();
        turned.rotate_left(3);
        let (one, other) = (table(&names, |_| 1), table(&turned, |_| 1));
        for key in 0..1_000 {
            let (a, b) = (first(&one, key), first(&other, key));
            assert_eq!(names[usize::from(a)], turned[usize::from(b)]);
        }
    }

    #[test]
    fn nobody_is_nobody() {
        assert_eq!(Maglev::new([("a", 0)].into_iter()).order(1).next(), None);
    }

    #[test]
    fn the_most_members_fill_the_largest_table() {
        let names: Vec<String> = (0..4_096).map(|i| format!("http://{i}")).collect();
        let table = table(&names, |_| 1);
        let mut seen = vec![0_u32; names.len()];
        table.0.iter().for_each(|member| seen[usize::from(*member)] += 1);
        assert!(seen.iter().all(|count| (60..70).contains(count)));
    }
}
