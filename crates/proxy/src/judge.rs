//! Has the outliers among the endpoints looked for. Who is one is `upstream`'s business.

use std::rc::Rc;

use portcullis_upstream::outlier::{Event, INTERVAL};

use crate::worker::Worker;

/// Runs on the first worker: judgements are few, and what follows from them is shared.
pub(crate) async fn run(worker: Rc<Worker>) {
    let clock = worker.shared.world.clock().clone();
    loop {
        clock.sleep(INTERVAL).await;
        for backend in &worker.active().snapshot.backends {
            let balancer = &backend.endpoints.load().balancer;
            for (index, event) in balancer.judge(clock.mono()) {
                let (name, endpoint) = (&*backend.name, balancer.endpoint(index).url());
                match event {
                    Event::Ejected { reason, pause, detail } => tracing::warn!(
                        backend = name,
                        endpoint,
                        reason = reason.name(),
                        ?pause,
                        "ejected: {detail}"
                    ),
                    Event::Returned => tracing::info!(backend = name, endpoint, "returned"),
                }
            }
        }
    }
}
