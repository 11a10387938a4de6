//! Work that only so many may do at once, and for which only so many may wait, in the order in
//! which they came; over all workers.
//!
//! Whoever joins gets a place in the queue, then a [`Turn`]. A turn that is dropped goes to the
//! next; a place that is given up is as if it had never been.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
pub(super) struct Turns {
    at_once: usize,
    waiting_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Turns that are held, or given and not yet taken up.
    given: usize,
    last_ticket: u64,
    waiting: VecDeque<(u64, Option<Waker>)>,
    /// Who has been given a turn and has not taken it up.
    called: Vec<u64>,
}

impl Turns {
    pub(super) fn new(at_once: usize, waiting_max: usize) -> Self {
        Self { at_once, waiting_max, state: Mutex::default() }
    }

    /// A place in the queue; `None` where it is full.
    pub(super) fn join(self: &Arc<Self>) -> Option<Waiting> {
        let mut state = self.state();
        if state.given >= self.at_once && state.waiting.len() >= self.waiting_max {
            return None;
        }
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        if state.given < self.at_once {
            state.given += 1;
            state.called.push(ticket);
        } else {
            state.waiting.push_back((ticket, None));
        }
        drop(state);
        Some(Waiting { turns: Arc::clone(self), ticket: Some(ticket) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(&self) {
        let mut state = self.state();
        let next = state.waiting.pop_front();
        match &next {
            Some((ticket, _)) => state.called.push(*ticket),
            None => state.given -= 1,
        }
        drop(state);
        if let Some((_, Some(waker))) = next {
            waker.wake();
        }
    }
}

/// Becomes a [`Turn`].
#[derive(Debug)]
pub(super) struct Waiting {
    turns: Arc<Turns>,
    /// Until the turn is taken up.
    ticket: Option<u64>,
}

impl Future for Waiting {
    type Output = Turn;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn> {
        let this = self.get_mut();
        let mut state = this.turns.state();
        if let Some(at) = state.called.iter().position(|called| Some(*called) == this.ticket) {
            state.called.swap_remove(at);
            this.ticket = None;
            drop(state);
            return Poll::Ready(Turn(Arc::clone(&this.turns)));
        }
        let own = state.waiting.iter_mut().find(|(ticket, _)| Some(*ticket) == this.ticket);
        if let Some((_, waker)) = own {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.turns.state();
        state.waiting.retain(|(waiting, _)| *waiting != ticket);
        let called = state.called.iter().position(|called| *called == ticket);
        if let Some(at) = called {
            state.called.swap_remove(at);
            drop(state);
            self.turns.pass_on();
        }
    }
}

/// Leave to do the work, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Flag, ready};

    #[test]
    fn so_many_at_once_and_so_many_wait() {
        let turns = Arc::new(Turns::new(2, 2));
        let first = ready(turns.join().unwrap()).unwrap();
        let second = ready(turns.join().unwrap()).unwrap();
        let (third_flag, fourth_flag) = (Arc::new(Flag::default()), Arc::new(Flag::default()));
        let (mut third, mut fourth) = (turns.join().unwrap(), turns.join().unwrap());
        assert!(third_flag.poll(&mut third).is_none() && fourth_flag.poll(&mut fourth).is_none());
        assert!(turns.join().is_none(), "the queue is full");
        drop(second);
        assert_eq!((third_flag.woken(), fourth_flag.woken()), (1, 0), "in order");
        let third = third_flag.poll(&mut third).unwrap();
        drop((first, third));
        assert_eq!(fourth_flag.woken(), 1);
        drop(fourth_flag.poll(&mut fourth).unwrap());
        assert_eq!(turns.state().given, 0);
    }

    #[test]
    fn who_goes_away_holds_up_nobody() {
        let turns = Arc::new(Turns::new(1, 8));
        let first = ready(turns.join().unwrap()).unwrap();
        let (gone, called, flag) = (turns.join(), turns.join(), Arc::new(Flag::default()));
        let mut last = turns.join().unwrap();
        assert!(flag.poll(&mut last).is_none());
        drop(gone);
        drop(first);
        assert_eq!(flag.woken(), 0, "it is the turn of the one before");
        drop(called);
        assert_eq!(flag.woken(), 1);
        drop(flag.poll(&mut last).unwrap());
        let state = turns.state();
        assert_eq!((state.given, state.waiting.len(), state.called.len()), (0, 0, 0));
    }
}
