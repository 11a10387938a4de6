//! What the gateway tells its operator: the access log, metrics, trace context, latency by policy.
//!
//! Nothing here decides about a request. What a worker calls for every request allocates nothing,
//! locks nothing and formats into buffers it already has; the only input and output is the log's
//! own writer thread.

pub mod accounting;
mod digits;
pub mod json;
pub mod log;
pub mod metrics;
pub mod recent;
pub mod record;
pub mod request_id;
pub mod timestamp;
pub mod trace;

pub use accounting::Sampler;
pub use log::{Log, Target, WorkerLog};
pub use metrics::{Registry, WorkerMetrics};
pub use recent::Recent;
pub use record::Record;
