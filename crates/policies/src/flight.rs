//! One job at a time, for everybody who needs its outcome: over all workers.
//!
//! Whoever comes first does the job, within a request or in the background; the others wait. If it
//! goes away before the end, one of those who wait begins again. States, edges and invariants are
//! in `LIFECYCLE.md` of `auth/jwt`, whose keys were the first to be fetched so. Why a job may or
//! may not begin is for the caller to say.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Requests that may wait for one job; more are turned away at once.
const WAITERS_MAX: usize = 1024;
/// How often a job whose request went away is begun again by one that waits for it. Bounded, so
/// that clients who hang up cannot make a storm.
const TAKEOVERS_MAX: u32 = 3;
/// Jobs of one kind with keys of their own.
const FLIGHTS_MAX: usize = 4096;

/// Why there is no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grounded<E> {
    /// What the caller said against beginning.
    Refused(E),
    /// Too many wait already.
    Crowded,
    /// Whoever did the job went away, and so did those who took over.
    BrokenOff,
}

#[derive(Debug)]
pub(crate) struct Flight<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    stage: Stage,
    /// Jobs that have ended; a waiter waits for the next.
    ended: u64,
    /// Of the last one; `None` before the first, and when it was broken off.
    outcome: Option<T>,
    waiters: Vec<(u64, Waker)>,
    next_waiter: u64,
    takeovers: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    None,
    Flying,
    /// Whoever did the job went away; one of the waiters begins again.
    Vacant,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                stage: Stage::None,
                ended: 0,
                outcome: None,
                waiters: Vec::new(),
                next_waiter: 0,
                takeovers: 0,
            }),
        }
    }
}

impl<T> Flight<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Every change is made as a whole, so a poisoned state is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody was left to end the last job.
    pub(crate) fn was_broken_off(&self) -> bool {
        let state = self.lock();
        state.stage == Stage::None && state.ended > 0 && state.outcome.is_none()
    }

    /// The duty to do the job, unless somebody is at it.
    pub(crate) fn begin(&self) -> Option<Lead<'_, T>> {
        let mut state = self.lock();
        if state.stage == Stage::Flying {
            return None;
        }
        state.stage = Stage::Flying;
        Some(Lead { flight: self, done: false })
    }

    fn enter<E>(&self, may_begin: impl FnOnce() -> Result<(), E>) -> Entered<'_, T, E> {
        let mut state = self.lock();
        if state.stage != Stage::None {
            if state.waiters.len() >= WAITERS_MAX {
                return Entered::Not(Grounded::Crowded);
            }
            let id = state.next_waiter;
            state.next_waiter += 1;
            return Entered::Wait(Waiter { flight: self, id, ended: state.ended });
        }
        if let Err(refused) = may_begin() {
            return Entered::Not(Grounded::Refused(refused));
        }
        state.takeovers = 0;
        state.stage = Stage::Flying;
        Entered::Lead(Lead { flight: self, done: false })
    }
}

impl<T: Clone> Flight<T> {
    /// Does the job or waits for the one in flight. `may_begin` is asked where there is none, and
    /// must not come back here.
    pub(crate) async fn run<E>(
        &self,
        may_begin: impl FnOnce() -> Result<(), E>,
        job: impl AsyncFnOnce() -> T,
    ) -> Result<T, Grounded<E>> {
        let entered = self.enter(may_begin);
        let lead = match entered {
            Entered::Lead(lead) => lead,
            Entered::Not(grounded) => return Err(grounded),
            Entered::Wait(mut waiter) => {
                let waited = std::future::poll_fn(|context| waiter.poll(context)).await;
                match waited {
                    Waited::Ended(outcome) => return outcome.ok_or(Grounded::BrokenOff),
                    Waited::Lead(lead) => lead,
                }
            }
        };
        let outcome = job().await;
        lead.end(outcome.clone());
        Ok(outcome)
    }
}

enum Entered<'a, T, E> {
    Lead(Lead<'a, T>),
    Wait(Waiter<'a, T>),
    Not(Grounded<E>),
}

enum Waited<'a, T> {
    Ended(Option<T>),
    Lead(Lead<'a, T>),
}

/// The duty to end the job, whatever happens: dropped, it leaves the job to a waiter.
#[derive(Debug)]
pub(crate) struct Lead<'a, T> {
    flight: &'a Flight<T>,
    done: bool,
}

impl<T> Lead<'_, T> {
    pub(crate) fn end(mut self, outcome: T) {
        self.done = true;
        self.flight.lock().end(Some(outcome));
    }
}

impl<T> State<T> {
    fn end(&mut self, outcome: Option<T>) {
        self.stage = Stage::None;
        self.ended += 1;
        self.outcome = outcome;
        for (_, waker) in self.waiters.drain(..) {
            waker.wake();
        }
    }
}

impl<T> Drop for Lead<'_, T> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.flight.lock();
        if state.waiters.is_empty() || state.takeovers == TAKEOVERS_MAX {
            state.end(None);
            return;
        }
        state.takeovers += 1;
        state.stage = Stage::Vacant;
        for (_, waker) in &state.waiters {
            waker.wake_by_ref();
        }
    }
}

struct Waiter<'a, T> {
    flight: &'a Flight<T>,
    id: u64,
    ended: u64,
}

impl<'a, T: Clone> Waiter<'a, T> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Waited<'a, T>> {
        let mut state = self.flight.lock();
        if state.ended != self.ended {
            return Poll::Ready(Waited::Ended(state.outcome.clone()));
        }
        if state.stage == Stage::Vacant {
            state.stage = Stage::Flying;
            state.waiters.retain(|(id, _)| *id != self.id);
            return Poll::Ready(Waited::Lead(Lead { flight: self.flight, done: false }));
        }
        match state.waiters.iter_mut().find(|(id, _)| *id == self.id) {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => state.waiters.push((self.id, context.waker().clone())),
        }
        Poll::Pending
    }
}

impl<T> Drop for Waiter<'_, T> {
    fn drop(&mut self) {
        let mut state = self.flight.lock();
        state.waiters.retain(|(id, _)| *id != self.id);
        if state.stage == Stage::Vacant && state.waiters.is_empty() {
            state.end(None);
        }
    }
}

type Keyed<T> = HashMap<u128, Arc<Flight<T>>, BuildHasherDefault<DefaultHasher>>;

/// Flights by key, for what is asked about one token. The keys are hashes under a secret.
#[derive(Debug)]
pub(crate) struct Flights<T> {
    flying: Mutex<Keyed<T>>,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { flying: Mutex::default() }
    }
}

impl<T: Clone> Flights<T> {
    /// As [`Flight::run`], for this key.
    pub(crate) async fn run<E>(
        &self,
        key: u128,
        may_begin: impl FnOnce() -> Result<(), E>,
        job: impl AsyncFnOnce() -> T,
    ) -> Result<T, Grounded<E>> {
        let seat = self.seat(key).ok_or(Grounded::Crowded)?;
        match &seat.flight {
            Some(flight) => flight.run(may_begin, job).await,
            None => Err(Grounded::BrokenOff),
        }
    }

    fn seat(&self, key: u128) -> Option<Seat<'_, T>> {
        let mut flying = self.lock();
        if !flying.contains_key(&key) && flying.len() >= FLIGHTS_MAX {
            return None;
        }
        let flight = Arc::clone(flying.entry(key).or_default());
        Some(Seat { flights: self, key, flight: Some(flight) })
    }
}

impl<T> Flights<T> {
    fn lock(&self) -> MutexGuard<'_, Keyed<T>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// A part in a flight; the last to leave takes it off the map.
struct Seat<'a, T> {
    flights: &'a Flights<T>,
    key: u128,
    /// Given up under the map's lock, so that whoever is last sees that it is.
    flight: Option<Arc<Flight<T>>>,
}

impl<T> Drop for Seat<'_, T> {
    fn drop(&mut self) {
        let mut flying = self.flights.lock();
        drop(self.flight.take());
        if flying.get(&self.key).is_some_and(|flight| Arc::strong_count(flight) == 1) {
            flying.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
