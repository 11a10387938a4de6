//! Work of policies off the request path, such as refreshing keys.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::services::Services;
use portcullis_snapshot::Snapshot;
use tokio::task::JoinSet;

/// Nobody gets to be called more often.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The upkeep of one snapshot; dropping it ends all of it.
#[derive(Debug)]
pub struct Upkeep {
    _tasks: JoinSet<()>,
}

impl Upkeep {
    /// Begins it, as tasks of the current thread's local set.
    #[must_use]
    pub fn start(snapshot: &Snapshot, services: &Rc<dyn Services>) -> Self {
        let mut tasks = JoinSet::new();
        for policy in snapshot.policies() {
            let services = Rc::clone(services);
            tasks.spawn_local(async move {
                while let Some(work) = policy.upkeep(&*services) {
                    let pause = work.await;
                    tokio::time::sleep(pause.max(PAUSE_MIN)).await;
                }
            });
        }
        for named in &snapshot.authenticators {
            let (authenticator, services) = (Arc::clone(&named.authenticator), Rc::clone(services));
            tasks.spawn_local(async move {
                while let Some(work) = authenticator.upkeep(&*services) {
                    let pause = work.await;
                    tokio::time::sleep(pause.max(PAUSE_MIN)).await;
                }
            });
        }
        Self { _tasks: tasks }
    }
}
