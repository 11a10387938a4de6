//! Written configuration → compiled snapshot: everything a request needs, checked, immutable.
//!
//! No sockets, no files, no clock: what must be read comes through `core::registry::Sources`.

pub mod authenticate;
pub mod backend;
pub mod client_certificates;
pub mod compile;
pub mod decide;
pub mod describe;
pub mod discovery;
pub mod endpoints;
pub mod explain;
mod identity;
pub mod inline_tests;
pub mod listener;
pub mod mirror;
pub mod question;
pub mod require;
pub mod router;
pub mod snapshot;
pub mod sticky;
pub mod targets;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod unverified;
mod version;

pub use backend::{
    Backend, BackendBreaker, BackendTls, EndpointAddress, ExpectedField, HealthProbe,
    HealthQuestion, HostHeader, Protocol, ProxyVersion,
};
pub use client_certificates::ClientCertificates;
pub use compile::{CompileContext, RECONCILE, compile, compile_with_patterns, listed};
pub use decide::{Decision, NoBody, Observer, Outcome, RequestBody, Verdict, decide};
pub use describe::{Coverage, MirrorRow, OpenRoute, RouteRow, TargetRow, coverage, describe};
pub use discovery::{Discovery, Facts, Origin, Place, Scheme};
pub use endpoints::{Chosen, EndpointSet, Endpoints, Shape, Unfit};
pub use explain::{Explain, Trace, TraceStep, explain};
pub use inline_tests::{TestReport, run_tests};
pub use listener::{
    Bind, H2Frames, Listener, ListenerLimits, ListenerTimeouts, ListenerTls, Redirect,
};
pub use mirror::Mirror;
pub use portcullis_config::RetryOn;
pub use portcullis_upstream::roster::{CONFIRM_AFTER, Update};
pub use portcullis_upstream::{EndpointIndex, Listed, ListedState};
pub use question::{Answer, Question};
pub use router::RouteIndex;
pub use snapshot::{
    Access, CertificateFacts, Hedge, NamedAuthenticator, Retry, Route, RouteBulkhead, Snapshot,
    Timeouts, Version,
};
pub use targets::{Canary, Overruled, Picked, PickedBy, Targets, Variant, When};
