//! Copies that wait, and how many are under way. What is put in beyond the bounds is refused, and
//! nobody ever waits for room.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};

use crate::pool::Line;

/// Copies for one backend that one worker sends at once.
pub(super) const RUNNING_MAX: usize = 32;
/// And those that wait behind them.
pub(super) const WAITING_MAX: usize = 256;
/// Bytes of all copies of one worker, heads and bodies, waiting and under way.
pub(super) const BYTES_MAX: usize = 8 << 20;

/// By backend, so that a mirror that hangs leaves the others alone.
#[derive(Debug)]
pub(super) struct Queue<T> {
    lanes: RefCell<HashMap<Line, Lane<T>>>,
    bytes: Cell<usize>,
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<T>,
    running: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { lanes: RefCell::default(), bytes: Cell::default() }
    }
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), running: 0 }
    }
}

impl<T> Queue<T> {
    /// Whether one more would be taken.
    pub(super) fn has_room(&self, line: Line, bytes: usize) -> bool {
        let lanes = self.lanes.borrow();
        let waiting = lanes.get(&line).map_or(0, |lane| lane.waiting.len());
        waiting < WAITING_MAX && self.bytes.get().saturating_add(bytes) <= BYTES_MAX
    }

    /// Takes one for which there is room. True: another runner has to be started for it.
    pub(super) fn push(&self, line: Line, bytes: usize, job: T) -> bool {
        self.bytes.set(self.bytes.get() + bytes);
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes.entry(line).or_default();
        lane.waiting.push_back(job);
        let starts = lane.running < RUNNING_MAX;
        lane.running += usize::from(starts);
        starts
    }

    /// What a runner does next. `None`: there is nothing, and it is a runner no more.
    pub(super) fn next(&self, line: Line) -> Option<T> {
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes.get_mut(&line)?;
        let next = lane.waiting.pop_front();
        if next.is_none() {
            lane.running -= 1;
            if lane.running == 0 {
                lanes.remove(&line);
            }
        }
        next
    }

    /// One is done, whatever became of it.
    pub(super) fn release(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portcullis_upstream::Bulkhead;

    use super::*;

    /// Two backends. They have to live for as long as their lines are used.
    fn lines() -> [(Arc<Bulkhead>, Line); 2] {
        [(); 2].map(|()| {
            let bulkhead = Arc::new(Bulkhead::default());
            let line = Line::at(&bulkhead);
            (bulkhead, line)
        })
    }

    #[test]
    fn so_many_run_so_many_wait_and_the_rest_is_refused() {
        let [(_one, one), (_two, two)] = lines();
        let queue = Queue::default();
        let started = (0..RUNNING_MAX).filter(|job| queue.push(one, 1, *job)).count();
        assert_eq!(started, RUNNING_MAX);
        // Each runner takes one, which leaves room for as many as may wait.
        let first: Vec<_> = (0..RUNNING_MAX).filter_map(|_| queue.next(one)).collect();
        assert_eq!(first, (0..RUNNING_MAX).collect::<Vec<_>>());
        let taken = (0..).take_while(|job| queue.has_room(one, 1) && !queue.push(one, 1, *job));
        assert_eq!(taken.count(), WAITING_MAX);
        // Another backend is not concerned.
        assert!(queue.has_room(two, 1) && queue.push(two, 1, 7));
        assert_eq!(queue.next(one), Some(0));
        assert!(queue.has_room(one, 1));
    }

    #[test]
    fn bytes_count_until_a_copy_is_done() {
        let [(_one, one), (_two, two)] = lines();
        let queue = Queue::default();
        assert!(!queue.has_room(one, BYTES_MAX + 1));
        queue.push(one, BYTES_MAX - 1, ());
        assert!(queue.has_room(two, 1) && !queue.has_room(two, 2));
        assert_eq!(queue.next(one), Some(()));
        assert!(!queue.has_room(two, 2));
        queue.release(BYTES_MAX - 1);
        assert!(queue.has_room(two, BYTES_MAX));
    }

    #[test]
    fn nothing_is_left_of_a_queue_that_is_empty() {
        let [(_one, one), _] = lines();
        let queue = Queue::default();
        assert!(queue.push(one, 1, 1) && queue.push(one, 1, 2));
        assert_eq!([(); 4].map(|()| queue.next(one)), [Some(1), Some(2), None, None]);
        assert!(queue.lanes.borrow().is_empty());
        // A runner that has ended is started again.
        assert!(queue.push(one, 1, 3));
    }
}
