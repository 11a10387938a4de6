//! Drills: a gateway before backends that fail in every way, and what clients saw of it, held
//! against what the gateway promises.
//!
//! It knows nothing of the gateway but its configuration and its socket: what runs is the program
//! that operators run, as a process of its own. All drills are played at once, each with a route
//! and a backend of its own, so that one also shows what the others' trouble does to a backend that
//! has none. It measures time, which tests do not; they assert its counts.

mod client;
mod endpoint;
mod gateway;
mod judge;
mod names;
mod report;
mod run;
mod scenario;

use std::path::PathBuf;
use std::time::Duration;

pub use report::{Drill, Kept, Report};
pub use run::run;

/// The most requests a second of one drill: more would measure this machine.
pub const RATE_MAX: u32 = 1_000;

/// How the drills are played.
#[derive(Clone, Debug)]
pub struct Options {
    /// The gateway: the `portcullis` program.
    pub program: PathBuf,
    /// Requests a second, for each drill; at most [`RATE_MAX`].
    pub rate: u32,
    /// How long the trouble lasts.
    pub trouble: Duration,
    /// The drills to play by their names; all if there are none.
    pub only: Vec<String>,
}

/// Why nothing could be played.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error("there is no drill `{name}`: there are {}", known.join(", "))]
    NoSuchDrill { name: String, known: Vec<String> },
    #[error("the gateway did not start: {0}")]
    Gateway(String),
    #[error("this machine lacks something: {0}")]
    Machine(#[from] std::io::Error),
}
