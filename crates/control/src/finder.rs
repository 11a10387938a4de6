//! Finding endpoints: asks each place that a backend names, on one thread for all of them, and
//! gives the backend what was found.
//!
//! What an answer may change is the roster's to decide; a place that cannot
//! be asked, or whose answer is of no use, changes nothing.

mod dns;
mod file;
mod source;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use portcullis_snapshot::{
    Backend, CONFIRM_AFTER, Discovery, Listed, Place, RECONCILE, Snapshot, Update,
};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

pub use source::{Listing, Source, SourceFuture};

/// Longest wait for one answer.
const LIST_MAX: Duration = Duration::from_secs(10);
/// After a failure the place is asked again, then after twice the time, up to the longest.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A place that tells of changes and has told of none for so long is asked all the same.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// Between two looks at whether what came has proved itself.
const SETTLE: Duration = Duration::from_millis(200);

/// Monotonic time, the same for everybody who judges endpoints.
pub type Mono = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Finds the endpoints of all backends that do not have theirs written.
pub struct Finder {
    runtime: Handle,
    /// What paths of files are relative to.
    base: PathBuf,
    now: Mono,
    tasks: Mutex<HashMap<usize, Task>>,
    /// Ends the thread.
    _alive: oneshot::Sender<()>,
}

/// The search for one backend's endpoints.
struct Task {
    /// What it holds keeps the number from standing for another place.
    backend: watch::Sender<Arc<Backend>>,
    work: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl std::fmt::Debug for Finder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finder").field("tasks", &self.tasks().len()).finish_non_exhaustive()
    }
}

impl Finder {
    /// # Errors
    /// If there can be no thread.
    pub fn start(base: &Path, now: Mono) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, gone) = oneshot::channel();
        let thread = std::thread::Builder::new().name("finder".to_owned());
        thread.spawn(move || drop(runtime.block_on(gone)))?;
        let tasks = Mutex::default();
        Ok(Self { runtime: handle, base: base.to_owned(), now, tasks, _alive: alive })
    }

    /// To be called before a snapshot serves: asks the places that are new in it, and waits until
    /// each has answered or failed once, so that no backend begins with nothing. Waits for `wait`
    /// at most.
    pub fn prepare(&self, snapshot: &Snapshot, wait: Duration) {
        let (asked, answered) = mpsc::sync_channel::<()>(0);
        let mut tasks = self.tasks();
        for (backend, discovery) in found(snapshot) {
            let new = || self.search(backend, discovery, Some(asked.clone()));
            tasks.entry(number(discovery)).or_insert_with(new);
        }
        drop((tasks, asked));
        // Nothing is sent: it is over when everybody has dropped their end.
        if let Err(mpsc::RecvTimeoutError::Timeout) = answered.recv_timeout(wait) {
            tracing::warn!("some backends begin before their endpoints are found");
        }
    }

    /// To be called when a snapshot serves. Places that it does not name are asked no more.
    pub fn adopt(&self, snapshot: &Snapshot) {
        let mut tasks = self.tasks();
        let mut serving = HashMap::new();
        for (backend, discovery) in found(snapshot) {
            let task = match tasks.remove(&number(discovery)) {
                Some(task) => {
                    task.backend.send_replace(Arc::clone(backend));
                    task
                }
                None => self.search(backend, discovery, None),
            };
            serving.insert(number(discovery), task);
        }
        *tasks = serving;
    }

    fn search(
        &self,
        backend: &Arc<Backend>,
        discovery: &Arc<Discovery>,
        first: Option<mpsc::SyncSender<()>>,
    ) -> Task {
        let (sender, receiver) = watch::channel(Arc::clone(backend));
        let source: Box<dyn Source> = match &discovery.origin.place {
            Place::File { path } => Box::new(file::EndpointFile::new(self.base.join(path))),
            Place::Dns { .. } | Place::Srv { .. } => {
                Box::new(dns::Names::new(discovery.origin.clone()))
            }
        };
        let search = Search {
            backend: receiver,
            discovery: Arc::clone(discovery),
            source,
            now: Arc::clone(&self.now),
            failed: None,
        };
        let work = self.runtime.spawn(search.run(first));
        Task { backend: sender, work }
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<usize, Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn found(snapshot: &Snapshot) -> impl Iterator<Item = (&Arc<Backend>, &Arc<Discovery>)> {
    let backends = snapshot.backends.iter();
    backends.filter_map(|backend| Some((backend, backend.discovery.as_ref()?)))
}

/// A place is known by the state that outlives reloads.
fn number(discovery: &Arc<Discovery>) -> usize {
    Arc::as_ptr(discovery).addr()
}

struct Search {
    /// The one that serves now: a reload puts another in its place.
    backend: watch::Receiver<Arc<Backend>>,
    discovery: Arc<Discovery>,
    source: Box<dyn Source>,
    now: Mono,
    /// How long was waited after the last failure.
    failed: Option<Duration>,
}

impl Search {
    async fn run(mut self, mut first: Option<mpsc::SyncSender<()>>) {
        loop {
            let listing = timeout(LIST_MAX, self.source.list()).await;
            let pause = match listing.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok(listing) => self.listed(listing),
                Err(error) => self.failed(&error),
            };
            first.take();
            if !self.wait(Instant::now() + pause).await {
                return;
            }
        }
    }

    /// Returns when the place is to be asked again.
    fn listed(&mut self, listing: Listing) -> Duration {
        let Listing { endpoints, version, valid } = listing;
        let backend = Arc::clone(&self.backend.borrow_and_update());
        if let Err(unfit) = backend.endpoints.shape().check(&endpoints) {
            return self.failed(&unfit.to_string());
        }
        if self.failed.take().is_some() {
            tracing::info!(backend = &*backend.name, place = %self.place(), "endpoints are found");
        }
        let count = endpoints.len();
        let verdict = self.discovery.listed(endpoints, version.into(), (self.now)());
        self.apply();
        match verdict {
            Update::Same => {}
            Update::Changed { added, removed } => tracing::info!(
                backend = &*backend.name,
                place = %self.place(),
                endpoints = count,
                added,
                removed,
                "other endpoints"
            ),
            Update::Held => tracing::warn!(
                backend = &*backend.name,
                place = %self.place(),
                "no endpoints were found; the old ones stay until that is confirmed"
            ),
        }
        match verdict {
            Update::Held => CONFIRM_AFTER,
            _ => valid.unwrap_or(SILENT_MAX).min(RECONCILE),
        }
    }

    /// Returns when the place is to be asked again.
    fn failed(&mut self, error: &str) -> Duration {
        let pause = self.failed.map_or(RETRY, |before| (before * 2).min(RETRY_MAX));
        self.failed = Some(pause);
        let backend = Arc::clone(&self.backend.borrow());
        if self.discovery.failed(error) {
            let (name, place) = (&*backend.name, self.place());
            tracing::warn!(backend = name, %place, error, "endpoints stay as they are");
        }
        pause
    }

    /// Waits until then, or until the place says that there is news; meanwhile lets go of what
    /// went, and gives what is known to a backend that a reload has made. `false`: nobody wants
    /// to know any more.
    async fn wait(&mut self, until: Instant) -> bool {
        loop {
            let settle = self.discovery.is_settling().then(|| Instant::now() + SETTLE);
            let due = settle.map_or(until, |settle| settle.min(until));
            tokio::select! {
                () = self.source.changed() => return true,
                changed = self.backend.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                    self.apply();
                }
                () = sleep_until(due) => {
                    self.settle();
                    if Instant::now() >= until {
                        return true;
                    }
                }
            }
        }
    }

    fn settle(&self) {
        let backend = Arc::clone(&self.backend.borrow());
        let set = backend.endpoints.load();
        if self.discovery.settle(set.iter().map(|to| to.endpoint), (self.now)()) {
            self.apply();
        }
    }

    /// Makes the backend's endpoints what they are to be, whatever they are.
    fn apply(&self) {
        let backend = Arc::clone(&self.backend.borrow());
        let wanted = self.discovery.serving();
        let is_like = |have: &[Listed]| {
            have.len() == wanted.len() && have.iter().zip(&wanted).all(|(a, b)| a.is_like(b))
        };
        if is_like(&backend.endpoints.load().listed) {
            return;
        }
        if let Err(unfit) = backend.endpoints.replace(wanted, (self.now)()) {
            self.discovery.failed(&unfit.to_string());
        }
    }

    fn place(&self) -> &Place {
        &self.discovery.origin.place
    }
}
