//! Changing the configuration that serves: on change of a file and on request, never for a worse
//! one.

use std::sync::{Arc, Mutex, PoisonError};

use portcullis_config::{Source, render};
use portcullis_core::Now;
use portcullis_core::carry::Carry;
use portcullis_snapshot::Snapshot;

use crate::files::Files;
use crate::loader::{Attempt, Loader};

/// What the last attempt to load came to, for probes and people.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Counts the snapshots that have served.
    pub sequence: u64,
    /// Why the newest files do not serve, as rendered findings; `None` if they do.
    pub refused: Option<String>,
    /// When the serving snapshot was loaded, since 1970.
    pub loaded: std::time::Duration,
    /// The texts it was made of.
    pub sources: Vec<Source>,
}

/// What came of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Serving,
    Refused,
}

/// Holds what is needed to load again, and what the last load found.
#[derive(Debug)]
pub struct Reloader {
    loader: Loader,
    carry: Carry,
    files: Files,
    status: Arc<Mutex<Status>>,
}

impl Reloader {
    /// Takes over from the first load, whose snapshot is about to serve as number 1.
    #[must_use]
    pub fn new(loader: Loader, first: Attempt, now: Now) -> Self {
        let status =
            Status { sequence: 1, refused: None, loaded: now.wall, sources: first.sources };
        let carry = first.carry.next_generation();
        Self { loader, carry, files: first.files, status: Arc::new(Mutex::new(status)) }
    }

    /// The status as it will be whenever it is looked at.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Reads secrets beside the configuration.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Whether any file has changed since it was read.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.files.changed()
    }

    /// Loads again and lets `apply` put the snapshot in place. On any failure the old one serves
    /// on, untouched.
    pub fn reload(
        &mut self,
        now: Now,
        apply: impl FnOnce(Snapshot) -> Result<(), String>,
    ) -> Outcome {
        let Attempt { snapshot, findings, sources, files, carry, .. } =
            self.loader.load(&self.carry, now);
        // Also after a failure: the same broken files are not tried again.
        self.files = files;
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = match snapshot {
            None => Err(render(&findings, &sources, false)),
            Some(mut snapshot) => {
                snapshot.version.sequence = status.sequence + 1;
                apply(snapshot)
            }
        };
        match applied {
            Ok(()) => {
                self.carry = carry.next_generation();
                let sequence = status.sequence + 1;
                *status = Status { sequence, refused: None, loaded: now.wall, sources };
                Outcome::Serving
            }
            Err(reason) => {
                tracing::error!("the configuration is refused; the old one serves on\n{reason}");
                status.refused = Some(reason);
                Outcome::Refused
            }
        }
    }
}
