//! A sliding window in slots: never more than N in any window of length P.
//!
//! P is cut into 50 slots. A window of length P that ends now touches the slot of now and the 50
//! before it; the oldest of these counts whole, although a part of it is already outside. So what
//! is counted covers every window that ends now, and at most 2 % more.

use std::time::Duration;

use portcullis_core::limit::{Grant, LimitSpec};

/// Slots in a window.
const SLOTS: u64 = 50;
/// Slots that a window can touch.
const RING: usize = SLOTS as usize + 1;
/// A key with grants in no more slots than this needs no memory beside its entry.
const FEW: usize = 4;

/// The grants of one key.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// Nanoseconds in a slot; 0 when nothing has been granted.
    width: u64,
    /// Number of the newest slot looked at: its start divided by `width`.
    newest: u64,
    /// Number of the newest slot with a grant.
    filled: u64,
    /// Sum of the slots.
    sum: u32,
    slots: Slots,
}

/// How many were granted in which slot, by the slot's number modulo [`RING`].
#[derive(Clone, Debug)]
enum Slots {
    Few { places: [u8; FEW], counts: [u32; FEW], len: u8 },
    Many(Box<[u32; RING]>),
}

impl Default for Slots {
    fn default() -> Self {
        Self::Few { places: [0; FEW], counts: [0; FEW], len: 0 }
    }
}

impl Window {
    pub(super) fn take(&mut self, now: u64, spec: &LimitSpec, want: u32) -> Grant {
        let per = u64::try_from(spec.per.as_nanos()).unwrap_or(u64::MAX);
        // Rounded up: 50 slots are never shorter than the window.
        let width = per.div_ceil(SLOTS).max(1);
        if width != self.width {
            *self = Self { width, ..Self::default() };
        }
        // Two workers may have read the clock in another order than they come here.
        let slot = (now / width).max(self.newest);
        self.forget_until(slot);
        let left = spec.count.saturating_sub(self.sum);
        let granted = want.max(1) <= left;
        if granted && want > 0 {
            (self.newest, self.filled) = (slot, slot);
            self.sum += want;
            self.slots.add(place(slot), want);
        }
        Grant {
            granted: if granted { want } else { 0 },
            remaining: spec.count.saturating_sub(self.sum),
            retry_after: match granted {
                true => Duration::ZERO,
                false if want > spec.count => spec.per,
                false => self.free_again(now, want.max(1) - left),
            },
            reset: match self.sum {
                0 => Duration::ZERO,
                _ => self.leaves_after(now, self.filled),
            },
        }
    }

    /// Takes off what lies before the window that ends in `slot`.
    fn forget_until(&mut self, slot: u64) {
        if self.sum == 0 {
            return;
        }
        let passed = slot - self.newest;
        if passed > SLOTS {
            self.sum = 0;
            self.slots.clear();
            return;
        }
        self.sum -= self.slots.take_off(self.newest, passed);
        self.newest = slot;
    }

    /// When the grants of a slot stop counting.
    fn leaves_after(&self, now: u64, slot: u64) -> Duration {
        Duration::from_nanos((slot + SLOTS + 1).saturating_mul(self.width).saturating_sub(now))
    }

    /// How long until `missing` more are free, if nobody takes any.
    fn free_again(&self, now: u64, missing: u32) -> Duration {
        let mut freed = 0_u32;
        for slot in self.newest.saturating_sub(SLOTS)..self.filled {
            freed += self.slots.at(place(slot));
            if freed >= missing {
                return self.leaves_after(now, slot);
            }
        }
        self.leaves_after(now, self.filled)
    }
}

fn place(slot: u64) -> u8 {
    (slot % RING as u64) as u8
}

/// How many slots before `newest` the slot at this place is.
fn age(newest: u64, place: u8) -> u64 {
    (newest % RING as u64 + RING as u64 - u64::from(place)) % RING as u64
}

impl Slots {
    fn add(&mut self, place: u8, amount: u32) {
        match self {
            Self::Many(ring) => ring[usize::from(place)] += amount,
            Self::Few { places, counts, len } => {
                let used = usize::from(*len);
                if let Some(at) = places[..used].iter().position(|p| *p == place) {
                    counts[at] += amount;
                } else if used < FEW {
                    (places[used], counts[used], *len) = (place, amount, *len + 1);
                } else {
                    let mut ring = Box::new([0; RING]);
                    for (place, count) in places.iter().zip(counts) {
                        ring[usize::from(*place)] = *count;
                    }
                    ring[usize::from(place)] += amount;
                    *self = Self::Many(ring);
                }
            }
        }
    }

    fn at(&self, place: u8) -> u32 {
        match self {
            Self::Many(ring) => ring[usize::from(place)],
            Self::Few { places, counts, len } => {
                let used = places[..usize::from(*len)].iter().position(|p| *p == place);
                used.map_or(0, |at| counts[at])
            }
        }
    }

    /// Empties the places that fall out when the newest slot moves on by `passed`, which is at most
    /// [`SLOTS`]; says how much was in them.
    fn take_off(&mut self, newest: u64, passed: u64) -> u32 {
        let mut sum = 0;
        match self {
            // A slot takes the place of the one a whole ring before it.
            Self::Many(ring) => {
                for slot in newest + 1..=newest + passed {
                    sum += std::mem::take(&mut ring[usize::from(place(slot))]);
                }
            }
            Self::Few { places, counts, len } => {
                let mut kept = 0;
                for at in 0..usize::from(*len) {
                    if age(newest, places[at]) + passed > SLOTS {
                        sum += counts[at];
                    } else {
                        (places[kept], counts[kept]) = (places[at], counts[at]);
                        kept += 1;
                    }
                }
                *len = kept as u8;
            }
        }
        sum
    }

    /// Empties all and keeps the memory: who was busy once will be again.
    fn clear(&mut self) {
        match self {
            Self::Many(ring) => ring.fill(0),
            Self::Few { len, .. } => *len = 0,
        }
    }
}
