//! Bulkheads: how many requests may be under way at once, and who comes next when one has ended.
//!
//! A ship with bulkheads floats on when one compartment is full. Here a compartment is a backend or
//! a route: what hangs in one takes no room from the others. Whoever finds it full waits in a short
//! line; for how long is the caller's business, as is what a refusal looks like.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// One compartment, shared by all workers. Its bounds are given at each call, so that a reload may
/// change them while requests are under way; a lowered one takes nothing back.
// A cache line of its own: every request writes it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Bulkhead {
    used: AtomicU32,
    /// How many stand in line, so that whoever leaves sees without the lock that nobody waits.
    waiting: AtomicU32,
    /// Lowers every bound; what adaptive concurrency moves.
    ceiling: AtomicU32,
    full: AtomicU64,
    late: AtomicU64,
    line: Mutex<Line>,
}

/// Those who wait, in the order in which they came.
#[derive(Debug, Default)]
struct Line {
    tickets: VecDeque<Ticket>,
    next: u64,
    /// Of whoever came last.
    pending_max: u32,
}

#[derive(Debug)]
struct Ticket {
    number: u64,
    requests_max: u32,
    waker: Waker,
}

/// How much fits into a bulkhead, and how many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub requests_max: u32,
    pub pending_max: u32,
}

/// As many wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Default for Bulkhead {
    fn default() -> Self {
        Self {
            used: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            ceiling: AtomicU32::new(u32::MAX),
            full: AtomicU64::new(0),
            late: AtomicU64::new(0),
            line: Mutex::default(),
        }
    }
}

impl Bulkhead {
    /// A seat, where one is free and nobody waits for it.
    #[must_use]
    pub fn try_enter(self: &Arc<Self>, requests_max: u32) -> Option<Seat> {
        let free = self.waiting.load(SeqCst) == 0 && self.take(requests_max);
        free.then(|| Seat { of: Arc::clone(self) })
    }

    /// A place in the line.
    ///
    /// # Errors
    /// As many wait already as may. It is counted.
    pub fn wait(self: &Arc<Self>, bounds: Bounds, waker: &Waker) -> Result<Waiting, Full> {
        let mut line = self.line();
        if line.tickets.len() >= bounds.pending_max as usize {
            self.full.fetch_add(1, Relaxed);
            return Err(Full);
        }
        let number = line.next;
        line.next += 1;
        line.pending_max = bounds.pending_max;
        let requests_max = bounds.requests_max;
        line.tickets.push_back(Ticket { number, requests_max, waker: waker.clone() });
        self.count(&line);
        drop(line);
        // The last of those inside may have left while nobody stood in line yet.
        self.admit();
        Ok(Waiting { of: Arc::clone(self), number, seated: false })
    }

    /// Requests inside.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// Requests in line.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// How many came when as many waited as may.
    #[must_use]
    pub fn full(&self) -> u64 {
        self.full.load(Relaxed)
    }

    /// How many waited in vain.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late.load(Relaxed)
    }

    /// The bound that counts where `requests_max` is what was configured.
    #[must_use]
    pub fn bound(&self, requests_max: u32) -> u32 {
        requests_max.min(self.ceiling.load(Relaxed))
    }

    /// Holds every bound below this from now on; `u32::MAX` holds none. Whoever fits in now is let
    /// in with the next that leaves.
    pub fn set_ceiling(&self, ceiling: u32) {
        self.ceiling.store(ceiling, Relaxed);
    }

    fn take(&self, requests_max: u32) -> bool {
        let bound = self.bound(requests_max);
        let more = |used| if used < bound { Some(used + 1) } else { None };
        // The look that finds nothing free is in one order with the others too: see `leave`.
        self.used.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    fn leave(&self) {
        self.used.fetch_sub(1, SeqCst);
        // Whoever joins the line counts itself before it looks for a seat, and both are in one
        // order: either it sees this seat, or it is seen here.
        if self.waiting.load(SeqCst) > 0 {
            self.admit();
        }
    }

    /// Gives the free seats to those in line.
    fn admit(&self) {
        while let Some(waker) = self.admit_one() {
            waker.wake();
        }
    }

    fn admit_one(&self) -> Option<Waker> {
        let mut line = self.line();
        let next = line.next_up()?;
        if !self.take(line.tickets[next].requests_max) {
            return None;
        }
        let ticket = line.tickets.remove(next)?;
        self.count(&line);
        Some(ticket.waker)
    }

    fn count(&self, line: &Line) {
        self.waiting.store(line.tickets.len() as u32, SeqCst);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Who comes next: the first, as long as the line is at most half full. Beyond, the last: the
    /// first ones have waited so long that their clients may have gone, and by taking its turn each
    /// would only make the next one wait as long.
    fn next_up(&self) -> Option<usize> {
        let last = self.tickets.len().checked_sub(1)?;
        Some(if self.tickets.len() * 2 > self.pending_max as usize { last } else { 0 })
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.tickets.binary_search_by_key(&number, |ticket| ticket.number).ok()
    }
}

/// One request inside, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    of: Arc<Bulkhead>,
}

impl Seat {
    /// Where it is.
    #[must_use]
    pub const fn bulkhead(&self) -> &Arc<Bulkhead> {
        &self.of
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.of.leave();
    }
}

/// One request in line. Dropped, it leaves, and passes on a seat that it was given and did not
/// take.
#[derive(Debug)]
pub struct Waiting {
    of: Arc<Bulkhead>,
    number: u64,
    seated: bool,
}

impl Waiting {
    /// Ready once it is this one's turn. Not to be called again after that.
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<Seat> {
        let mut line = self.of.line();
        if let Some(at) = line.find(self.number) {
            let waker = &mut line.tickets[at].waker;
            if !waker.will_wake(cx.waker()) {
                *waker = cx.waker().clone();
            }
            return Poll::Pending;
        }
        drop(line);
        self.seated = true;
        Poll::Ready(Seat { of: Arc::clone(&self.of) })
    }

    /// It has waited as long as it may.
    pub fn give_up(self) {
        self.of.late.fetch_add(1, Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.seated {
            return;
        }
        let mut line = self.of.line();
        let in_line = line.find(self.number).and_then(|at| line.tickets.remove(at));
        self.of.count(&line);
        drop(line);
        match in_line {
            // With a line that is shorter now it may be another's turn.
            Some(_) => self.of.admit(),
            None => self.of.leave(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::task::Wake;

    use super::*;
    use crate::mix::Mix;

    fn bounds(requests_max: u32, pending_max: u32) -> Bounds {
        Bounds { requests_max, pending_max }
    }

    fn poll(waiting: &mut Waiting) -> Option<Seat> {
        match waiting.poll(&Context::from_waker(Waker::noop())) {
            Poll::Ready(seat) => Some(seat),
            Poll::Pending => None,
        }
    }

    /// The order in which those who wait come in, each leaving at once.
    fn order(pending_max: u32, count: usize) -> Vec<usize> {
        let bulkhead = Arc::new(Bulkhead::default());
        let inside = bulkhead.try_enter(1).unwrap();
        let wait = |_| bulkhead.wait(bounds(1, pending_max), Waker::noop()).unwrap();
        let mut line: Vec<_> = (0..count).map(wait).enumerate().collect();
        drop(inside);
        let mut order = Vec::new();
        while let Some(next) = line.iter_mut().find_map(|(number, waiting)| {
            let seat = poll(waiting)?;
            drop(seat);
            Some(*number)
        }) {
            order.push(next);
            line.retain(|(number, _)| *number != next);
        }
        assert_eq!((bulkhead.used(), bulkhead.waiting()), (0, 0));
        order
    }

    #[test]
    fn first_come_first_served_and_under_pressure_last_come() {
        assert_eq!(order(8, 4), [0, 1, 2, 3]);
        // Down to half of the line the last one, then the first.
        assert_eq!(order(8, 8), [7, 6, 5, 4, 0, 1, 2, 3]);
    }

    #[test]
    fn nobody_overtakes_the_line() {
        let bulkhead = Arc::new(Bulkhead::default());
        let inside = bulkhead.try_enter(1).unwrap();
        let mut first = bulkhead.wait(bounds(1, 8), Waker::noop()).unwrap();
        let mut second = bulkhead.wait(bounds(1, 8), Waker::noop()).unwrap();
        drop(inside);
        assert!(bulkhead.try_enter(1).is_none());
        assert!(poll(&mut second).is_none());
        assert!(poll(&mut first).is_some());
    }

    #[test]
    fn a_full_line_refuses_and_whoever_leaves_it_makes_room() {
        let bulkhead = Arc::new(Bulkhead::default());
        let inside = bulkhead.try_enter(1).unwrap();
        let first = bulkhead.wait(bounds(1, 1), Waker::noop()).unwrap();
        assert_eq!(bulkhead.wait(bounds(1, 1), Waker::noop()).unwrap_err(), Full);
        first.give_up();
        let given = bulkhead.wait(bounds(1, 1), Waker::noop()).unwrap();
        drop(inside);
        assert_eq!(bulkhead.used(), 1, "the seat is held for whoever was first");
        drop(given);
        assert_eq!((bulkhead.used(), bulkhead.waiting()), (0, 0));
        assert_eq!((bulkhead.full(), bulkhead.late()), (1, 1));
        assert!(bulkhead.wait(bounds(0, 0), Waker::noop()).is_err());
    }

    #[test]
    fn a_ceiling_holds_every_bound_below_it() {
        let bulkhead = Arc::new(Bulkhead::default());
        bulkhead.set_ceiling(2);
        let seats: Vec<_> = std::iter::from_fn(|| bulkhead.try_enter(9)).collect();
        assert_eq!(seats.len(), 2);
        let mut waiting = bulkhead.wait(bounds(9, 9), Waker::noop()).unwrap();
        bulkhead.set_ceiling(u32::MAX);
        assert!(poll(&mut waiting).is_none());
        drop(seats);
        assert!(poll(&mut waiting).is_some());
    }

    struct Thread(std::thread::Thread);

    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// Workers that come and go at random, and some that lose patience: never more inside than
    /// may be, and everybody who waits gets in.
    #[test]
    fn workers_together_never_exceed_the_bound_and_nobody_is_forgotten() {
        let bulkhead = Arc::new(Bulkhead::default());
        let highest = AtomicU32::new(0);
        let start = Barrier::new(4);
        let served: u32 = std::thread::scope(|scope| {
            let work = |seed: u64| {
                let (bulkhead, highest, start) = (&bulkhead, &highest, &start);
                move || {
                    start.wait();
                    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
                    let mut mix = Mix::new(seed);
                    let mut served = 0;
                    for _ in 0..5_000 {
                        let seat = bulkhead.try_enter(2).or_else(|| {
                            let mut waiting = bulkhead.wait(bounds(2, 9), &waker).ok()?;
                            if mix.below(4) == 0 {
                                return None;
                            }
                            loop {
                                let cx = Context::from_waker(&waker);
                                if let Poll::Ready(seat) = waiting.poll(&cx) {
                                    break Some(seat);
                                }
                                std::thread::park();
                            }
                        });
                        highest.fetch_max(bulkhead.used(), Relaxed);
                        served += u32::from(seat.is_some());
                    }
                    served
                }
            };
            let threads: Vec<_> = (0..4).map(|seed| scope.spawn(work(seed))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(highest.into_inner() <= 2);
        assert!(served >= 10_000, "{served}");
        assert_eq!((bulkhead.used(), bulkhead.waiting()), (0, 0));
    }
}
