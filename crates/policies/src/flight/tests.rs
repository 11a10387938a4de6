use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;

use super::*;
use crate::testing::{Flag, ready};

type Outcome<T> = Result<T, Grounded<Infallible>>;

/// A job that ends when it is told to.
#[derive(Default)]
struct Gate {
    open: Cell<bool>,
    begun: Cell<u32>,
}

impl Gate {
    async fn pass(&self) -> u32 {
        self.begun.set(self.begun.get() + 1);
        let open = |_: &mut Context<'_>| match self.open.get() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        };
        std::future::poll_fn(open).await;
        self.begun.get()
    }
}

struct One<'a> {
    flag: Arc<Flag>,
    future: Pin<Box<dyn Future<Output = Outcome<u32>> + 'a>>,
}

impl<'a> One<'a> {
    fn new(future: impl Future<Output = Outcome<u32>> + 'a) -> Self {
        let mut one = Self { flag: Arc::default(), future: Box::pin(future) };
        assert_eq!(one.poll(), None);
        one
    }

    fn poll(&mut self) -> Option<Outcome<u32>> {
        self.flag.poll(&mut self.future)
    }
}

#[test]
fn one_does_the_job_and_the_others_are_told() {
    let (flight, gate) = (Flight::default(), Gate::default());
    let run = || One::new(flight.run(|| Ok(()), async || gate.pass().await));
    let mut all: Vec<_> = (0..4).map(|_| run()).collect();
    drop(all.remove(2));
    gate.open.set(true);
    assert_eq!(all[0].poll(), Some(Ok(1)));
    for one in &mut all[1..] {
        assert_eq!(one.flag.woken(), 1);
        assert_eq!(one.poll(), Some(Ok(1)));
    }
    assert_eq!(gate.begun.get(), 1);
    assert!(!flight.was_broken_off());
}

#[test]
fn it_is_taken_over_three_times() {
    let (flight, gate) = (Flight::default(), Gate::default());
    let run = || One::new(flight.run(|| Ok(()), async || gate.pass().await));
    let mut all: Vec<_> = (0..6).map(|_| run()).collect();
    for _ in 0..3 {
        drop(all.remove(0));
        assert_eq!(all[0].poll(), None);
    }
    assert_eq!(gate.begun.get(), 4);
    drop(all.remove(0));
    assert!(all.iter_mut().all(|one| one.poll() == Some(Err(Grounded::BrokenOff))));
    assert!(flight.was_broken_off());
    // The next one begins anew.
    gate.open.set(true);
    let again = ready(flight.run(|| Ok::<_, Infallible>(()), async || gate.pass().await));
    assert_eq!(again, Some(Ok(5)));
    assert!(!flight.was_broken_off());
}

/// Those who wait go away after whoever did the job, and before they have taken over.
#[test]
fn the_last_who_waits_ends_it() {
    let (flight, gate) = (Flight::default(), Gate::default());
    let run = || One::new(flight.run(|| Ok(()), async || gate.pass().await));
    let all = [run(), run(), run()];
    drop(all);
    assert!(flight.was_broken_off());
    assert!(flight.begin().is_some());
}

#[test]
fn who_may_not_begin_may_still_wait() {
    let (flight, gate) = (Flight::default(), Gate::default());
    let no = || flight.run(|| Err("no"), async || gate.pass().await);
    assert_eq!(ready(no()), Some(Err(Grounded::Refused("no"))));
    let lead = flight.begin().unwrap();
    assert!(flight.begin().is_none());
    let mut waiting = Box::pin(no());
    let flag: Arc<Flag> = Arc::default();
    assert_eq!(flag.poll(&mut waiting), None);
    lead.end(7);
    assert_eq!(flag.poll(&mut waiting), Some(Ok(7)));
}

#[test]
fn so_many_wait_and_no_more() {
    let (flight, gate) = (Flight::default(), Gate::default());
    let run = || One::new(flight.run(|| Ok(()), async || gate.pass().await));
    let all: Vec<_> = (0..=WAITERS_MAX).map(|_| run()).collect();
    let more = ready(flight.run(|| Ok::<_, Infallible>(()), async || gate.pass().await));
    assert_eq!(more, Some(Err(Grounded::Crowded)));
    assert_eq!(all.len(), WAITERS_MAX + 1);
}

#[test]
fn each_key_has_a_flight_for_as_long_as_somebody_is_in_it() {
    let (flights, gate) = (Flights::default(), Gate::default());
    let run = |key| One::new(flights.run(key, || Ok(()), async || gate.pass().await));
    let mut all = vec![run(1), run(1), run(2)];
    assert_eq!((flights.len(), gate.begun.get()), (2, 2));
    gate.open.set(true);
    for one in &mut all[..2] {
        assert_eq!(one.poll(), Some(Ok(2)));
    }
    drop(all.drain(..2));
    assert_eq!(flights.len(), 1);
    drop(all);
    assert_eq!(flights.len(), 0);
    gate.open.set(false);
    let all: Vec<_> = (0..FLIGHTS_MAX as u128).map(run).collect();
    let more = ready(flights.run(9999, || Ok::<_, Infallible>(()), async || gate.pass().await));
    assert_eq!(more, Some(Err(Grounded::Crowded)));
    assert_eq!(all.len(), flights.len());
}
