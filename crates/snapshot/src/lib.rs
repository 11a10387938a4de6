//! Written configuration → compiled snapshot: everything a request needs, checked, immutable.
//!
//! No sockets, no files, no clock: what must be read comes through `core::registry::Sources`.

pub mod authenticate;
pub mod backend;
pub mod decide;
pub mod explain;
pub mod listener;
pub mod require;
pub mod router;
pub mod snapshot;
pub mod tls;

pub use backend::{Backend, BackendTls, EndpointAddress, HealthProbe, HostHeader};
pub use decide::{Decision, NoBody, Observer, Outcome, RequestBody, Verdict, decide};
pub use explain::{Explain, Trace, TraceStep, explain};
pub use listener::{Listener, ListenerLimits, ListenerTimeouts, ListenerTls, Redirect};
pub use router::RouteIndex;
pub use snapshot::{
    Access, CertificateFacts, NamedAuthenticator, Route, Snapshot, Targets, Timeouts, Version,
};
