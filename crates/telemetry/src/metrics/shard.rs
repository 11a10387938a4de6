//! Counters that one thread writes and any thread reads.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Which worker the holder is. There is one for each worker; it moves between threads but is never
/// on two at once (it is not `Sync` and cannot be copied), so whoever shows it may write the
/// worker's shards.
#[derive(Debug)]
pub struct WorkerId {
    index: usize,
    not_sync: PhantomData<Cell<()>>,
}

impl WorkerId {
    pub(crate) const fn new(index: usize) -> Self {
        Self { index, not_sync: PhantomData }
    }

    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }
}

/// A number that one thread writes. Two writers would lose counts, though nothing worse.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A `T` for each worker, made when the worker first needs it.
#[derive(Debug)]
pub struct Sharded<T> {
    shards: Box<[OnceLock<Box<T>>]>,
}

impl<T: Default> Sharded<T> {
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { shards: (0..workers).map(|_| OnceLock::new()).collect() }
    }

    /// The worker's own.
    ///
    /// # Panics
    /// When the id comes from a registry with more workers.
    #[must_use]
    pub fn of(&self, worker: &WorkerId) -> &T {
        self.shards[worker.index].get_or_init(Box::default)
    }

    /// Those that exist.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().filter_map(OnceLock::get).map(|shard| &**shard)
    }

    /// The sum of one number over all workers.
    pub fn sum<'a>(&'a self, number: impl Fn(&'a T) -> &'a Count) -> u64
    where
        T: 'a,
    {
        self.iter().map(|shard| number(shard).get()).fold(0, u64::wrapping_add)
    }
}
