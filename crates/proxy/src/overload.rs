//! Load that the gateway itself cannot carry: how far behind each worker is, and which requests it
//! refuses therefore. How many is decided in [`portcullis_upstream::shed`].

use std::time::Duration;

use portcullis_core::{Exchange, Problem, codes};
use portcullis_snapshot::Route;
use portcullis_upstream::Pressure;

use crate::worker::Worker;

/// When whoever is refused may come again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What a worker sees of itself when it has its turn again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// How much later than meant it has it.
    pub(crate) delay: Duration,
    /// For how long it has had something to do since the last one.
    pub(crate) busy: Duration,
    /// How long ago that was.
    pub(crate) since: Duration,
}

/// Looks at a worker's delay on behalf of its listeners.
pub(crate) fn look(worker: &Worker, turn: Turn) {
    // Its own work is all that refusing can spare it: one that waits for the processor with nothing
    // else to do would be as late without any.
    let own = turn.delay.min(turn.busy);
    let mut most = Pressure::default();
    for (place, _) in worker.places.borrow().values() {
        most = most.max(place.look(own, turn.since));
    }
    worker.metrics.delayed(turn.delay, most.0);
}

/// Why this request is refused, if it is.
pub(crate) fn refuses(
    worker: &Worker,
    pressure: Pressure,
    route: &Route,
    exchange: &Exchange,
) -> Option<Problem> {
    if pressure.is_none() || !pressure.sheds(route.priority, exchange.random) {
        return None;
    }
    worker.metrics.shed(route.priority as usize);
    let (index, priority) = (worker.index, route.priority.name());
    let detail = format_args!("worker {index} is behind, pressure {}, {priority}", pressure.0);
    Some(Problem::new(codes::OVERLOADED).detail(detail).retry_after(RETRY_AFTER))
}
