//! The counter of limits that lives in this process: exact over all workers, bounded in memory.
//!
//! Keys are spread over shards, each behind a lock that is held for some tens of nanoseconds. What
//! an algorithm remembers of a key is in `window` and `bucket`; a store shared between
//! processes would be another [`Grantor`].

mod bucket;
#[cfg(test)]
mod tests;
mod window;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::Now;
use portcullis_core::limit::{Algorithm, Grant, Grantor, LimitKey, LimitSpec};

use crate::table::{Seed, Table, spread};
use bucket::Bucket;
use window::Window;

/// Keys remembered at once unless told otherwise.
pub const KEYS_MAX_DEFAULT: usize = 1_000_000;

/// More shards than any machine has cores, so that two workers seldom meet.
const SHARDS: usize = 64;
/// With fewer keys than this, shares would be uneven.
const SHARDED_FROM_KEYS: usize = 4096;

/// Keys are listed by the length of their window, four times as long in each class, so that in a
/// list whoever has been idle longest is also the first whose count is over.
const CLASSES: usize = 16;

/// Counts limits in this process.
///
/// `take` costs well under a microsecond, waits for nobody but another `take` on the same shard,
/// and never counts past a limit, however many workers ask. A key is forgotten once its count is
/// over. At `keys_max` keys the one that has been idle longest goes, with its count; see
/// [`Stats::evicted`].
#[derive(Debug)]
pub struct Embedded {
    shards: Box<[Line]>,
    keys_max_per_shard: usize,
    seed: Seed,
}

/// A shard on cache lines of its own, so that a lock is not slowed by its neighbour's.
#[derive(Debug)]
#[repr(align(128))]
struct Line(Mutex<Shard>);

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys remembered now.
    pub keys: usize,
    /// Keys that were forgotten before their time because there was no room.
    pub evicted: u64,
    /// Takes that were granted.
    pub allowed: u64,
    /// Takes that were not, those of limits in shadow included.
    pub refused: u64,
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new(KEYS_MAX_DEFAULT)
    }
}

impl Embedded {
    /// Remembers up to `keys_max` keys, in about 120 bytes each, or 350 for busy ones.
    ///
    /// Keys that are hashes under a secret need no more. Where strangers have a hand in what a key
    /// is, use [`Self::seeded`].
    #[must_use]
    pub fn new(keys_max: usize) -> Self {
        Self::seeded(keys_max, [0; 2])
    }

    /// The same under a random seed, so that nobody can choose keys that crowd one another.
    #[must_use]
    pub fn seeded(keys_max: usize, seed: [u64; 2]) -> Self {
        let shards = if keys_max < SHARDED_FROM_KEYS { 1 } else { SHARDS };
        Self {
            shards: (0..shards).map(|_| Line(Mutex::new(Shard::new(seed)))).collect(),
            keys_max_per_shard: (keys_max / shards).max(1),
            seed,
        }
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shards.iter().fold(Stats::default(), |sum, line| {
            let shard = lock(line);
            Stats {
                keys: sum.keys + shard.table.len(),
                evicted: sum.evicted + shard.evicted,
                allowed: sum.allowed + shard.allowed,
                refused: sum.refused + shard.refused,
            }
        })
    }

    fn shard(&self, key: LimitKey) -> MutexGuard<'_, Shard> {
        // The low bits choose the bucket within the shard.
        let index = (spread(key.0, self.seed) >> 48) as usize & (self.shards.len() - 1);
        lock(&self.shards[index])
    }
}

fn lock(line: &Line) -> MutexGuard<'_, Shard> {
    // No panic can leave a count half written, so a poisoned one is as good as any.
    line.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Grantor for Embedded {
    /// A `want` of 0 asks how the key stands; `retry_after` is set when nothing is left.
    fn take(&self, now: Now, key: LimitKey, spec: &LimitSpec, want: u32) -> Grant {
        let now = nanoseconds(now.mono);
        let mut shard = self.shard(key);
        let grant = shard.take(now, key.0, spec, want, self.keys_max_per_shard);
        match (want, grant.granted) {
            (0, _) => {}
            (_, 0) => shard.refused += 1,
            _ => shard.allowed += 1,
        }
        grant
    }

    fn peek(&self, now: Now, key: LimitKey, spec: &LimitSpec, want: u32) -> Grant {
        let now = nanoseconds(now.mono);
        let shard = self.shard(key);
        let mut state = match shard.table.find(key.0) {
            Some(slot) => shard.table.get(slot).state.clone(),
            None => State::default(),
        };
        state.take(now, spec, want)
    }
}

#[derive(Debug)]
struct Shard {
    table: Table<Counter, CLASSES>,
    /// The class whose oldest key is looked at next, beside the one in use.
    swept: u8,
    evicted: u64,
    allowed: u64,
    refused: u64,
}

/// What is kept of one key.
#[derive(Debug, Default)]
struct Counter {
    state: State,
    /// When nothing of it counts any more, in nanoseconds of the process.
    over: u64,
    /// Of the last use, likewise.
    used: u64,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    New,
    Window(Window),
    Bucket(Bucket),
}

impl State {
    fn take(&mut self, now: u64, spec: &LimitSpec, want: u32) -> Grant {
        match spec.algorithm {
            Algorithm::Window => {
                if !matches!(self, Self::Window(_)) {
                    *self = Self::Window(Window::default());
                }
                let Self::Window(window) = self else { return Grant::default() };
                window.take(now, spec, want)
            }
            Algorithm::Bucket { burst } => {
                if !matches!(self, Self::Bucket(_)) {
                    *self = Self::Bucket(Bucket::default());
                }
                let Self::Bucket(bucket) = self else { return Grant::default() };
                bucket.take(now, spec, burst, want)
            }
        }
    }
}

impl Shard {
    fn new(seed: Seed) -> Self {
        Self { table: Table::new(seed), swept: 0, evicted: 0, allowed: 0, refused: 0 }
    }

    fn take(&mut self, now: u64, key: u128, spec: &LimitSpec, want: u32, keys_max: usize) -> Grant {
        let class = class(spec.per);
        self.sweep(now, class);
        let Some(slot) = self.table.find(key) else {
            let mut state = State::default();
            let grant = state.take(now, spec, want);
            // Asking and being refused leave nothing to remember.
            if grant.granted > 0 {
                self.make_room(now, keys_max);
                let over = now.saturating_add(nanoseconds(grant.reset));
                self.table.insert(key, class, Counter { state, over, used: now });
            }
            return grant;
        };
        let counter = self.table.get_mut(slot);
        let grant = counter.state.take(now, spec, want);
        if grant.granted > 0 {
            counter.over = now.saturating_add(nanoseconds(grant.reset));
            counter.used = now;
            self.table.touch(slot, class);
        }
        grant
    }

    /// Forgets at most two keys whose count is over: a little with every take, never much at once.
    fn sweep(&mut self, now: u64, class: u8) {
        self.swept = (self.swept + 1) % CLASSES as u8;
        for list in [class, self.swept] {
            if let Some(slot) = self.table.oldest(list)
                && self.table.get(slot).over <= now
            {
                self.table.remove(slot);
            }
        }
    }

    fn make_room(&mut self, now: u64, keys_max: usize) {
        while self.table.len() >= keys_max {
            // One that is over, else the one used longest ago.
            let oldest = (0..CLASSES as u8).filter_map(|list| self.table.oldest(list));
            let Some(slot) = oldest.min_by_key(|slot| {
                let counter = self.table.get(*slot);
                (counter.over > now, counter.used)
            }) else {
                return;
            };
            let counter = self.table.remove(slot);
            self.evicted += u64::from(counter.over > now);
        }
    }
}

/// Which list a key with this window goes to.
fn class(per: Duration) -> u8 {
    let seconds = per.as_secs().max(1);
    (seconds.ilog2() / 2).min(CLASSES as u32 - 1) as u8
}

/// 584 years fit.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
