//! How many of the requests of the last while failed, counted in slots of time without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const SLOTS: u64 = 10;
/// Requests and failures of a slot stop here, as does then the share that they make.
const COUNT_MAX: u64 = (1 << 20) - 1;
/// Slots are numbered modulo this; one that is this old would pass for a new one.
const NUMBERS: u64 = 1 << 24;

/// Each slot is one word: its number (24 bits), requests (20), failures (20).
#[derive(Debug, Default)]
pub(crate) struct Window([AtomicU64; SLOTS as usize]);

/// Requests and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) ended: u64,
    pub(crate) failed: u64,
}

impl Window {
    /// `length` is that of the window: the sum of the last ten slots.
    pub(crate) fn count(&self, length: Duration, failed: bool, now: Duration) {
        let number = number(length, now);
        let slot = &self.0[(number % SLOTS) as usize];
        let tag = (number % NUMBERS) << 40;
        let counted = slot.fetch_update(Relaxed, Relaxed, |word| {
            let word = if word >> 40 << 40 == tag { word } else { tag };
            let full = (word >> 20) & COUNT_MAX == COUNT_MAX;
            (!full).then_some(word + (1 << 20) + u64::from(failed))
        });
        // A full slot has said enough.
        _ = counted;
    }

    pub(crate) fn sum(&self, length: Duration, now: Duration) -> Sum {
        let latest = number(length, now);
        let recent = |word: &u64| {
            let age = (latest % NUMBERS).wrapping_sub(word >> 40) % NUMBERS;
            age < SLOTS
        };
        self.0.iter().map(|slot| slot.load(Relaxed)).filter(recent).fold(
            Sum::default(),
            |sum, word| Sum {
                ended: sum.ended + ((word >> 20) & COUNT_MAX),
                failed: sum.failed + (word & COUNT_MAX),
            },
        )
    }

    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Relaxed));
    }
}

/// Which slot it is, counted from the beginning of time.
fn number(length: Duration, now: Duration) -> u64 {
    let slot = (length.as_nanos() / u128::from(SLOTS)).max(1);
    u64::try_from(now.as_nanos() / slot).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000 + seconds)
    }

    #[test]
    fn what_is_older_than_the_window_is_not_counted() {
        let window = Window::default();
        for second in 0..25 {
            window.count(LENGTH, second % 2 == 0, at(second));
            window.count(LENGTH, false, at(second));
        }
        assert_eq!(window.sum(LENGTH, at(24)), Sum { ended: 20, failed: 5 });
        assert_eq!(window.sum(LENGTH, at(30)), Sum { ended: 8, failed: 2 });
        assert_eq!(window.sum(LENGTH, at(34)), Sum::default());
        window.clear();
        assert_eq!(window.sum(LENGTH, at(24)), Sum::default());
    }

    #[test]
    fn a_slot_that_is_full_keeps_what_it_has() {
        let window = Window::default();
        for i in 0..COUNT_MAX + 5 {
            window.count(LENGTH, i % 4 == 0, at(0));
        }
        let Sum { ended, failed } = window.sum(LENGTH, at(0));
        assert_eq!((ended, failed), (COUNT_MAX, COUNT_MAX.div_ceil(4)));
    }
}
