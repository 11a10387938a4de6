//! What operators type: the configuration language, its types, and everything said about it.
//!
//! [`load()`] reads texts into a [`Config`], or into findings with their places; nothing is
//! resolved against the world here, no file is opened and no name looked up. What a configuration
//! *means* is decided by `snapshot::compile`.

mod acceptance;
mod analysis;
mod backend;
mod balance;
mod bulkhead;
mod deadline;
mod discover;
mod forms;
mod gateway;
mod group;
mod health;
mod hours;
mod inline_test;
mod listener;
mod load;
mod matching;
mod mirror;
mod process;
mod render;
mod require;
mod retry;
mod route;
mod schema;
mod socket;
mod target;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod text;
mod watching;
mod yaml;

pub use acceptance::Acceptance;
pub use analysis::Analysis;
pub use backend::{Backend, BackendTls, Endpoint, Protocol, ProxyVersion, RetryBudget};
pub use balance::{Balance, CookieName, HashKey, Sticky};
pub use bulkhead::{Bulkhead, Concurrency};
pub use deadline::DeadlineHeader;
pub use discover::{Discover, NameServer, endpoints};
pub use forms::OneOrMany;
pub use gateway::{Gateway, GatewayZone, PreferZone, ZONE_BYTES_MAX};
pub use health::{ExpectHeader, Health};
pub use hours::{Days, Hours, Times, Zone};
pub use inline_test::{Caller, Expect, InlineTest, TestCertificate, TestRequest};
pub use listener::{
    CertificateHeader, CertificatePair, ClientMode, ClientTls, CrlDepth, H2Frames, HostOptions,
    Listener, ListenerTls, PathOptions, PathTreatment, Redirect,
};
pub use load::{Loaded, Source, load};
pub use matching::{Condition, Match, Method, PathText, ValueText};
pub use mirror::Mirror;
pub use process::{AccessLog, Admin, Probes, Process, Shutdown};
pub use render::{
    Report, ReportedFinding, ReportedPlace, ReportedRelated, render, render_accepted, report,
    summary,
};
pub use require::{CertificateRule, ClaimTest, Require, Requirement, Roles, Tenant};
pub use retry::{Hedge, Retry, RetryOn};
pub use route::{
    ACTIONS, AuthUse, Group, Layer, Limits, Priority, Route, Settings, Timeouts, Upgrade, Upgrades,
};
pub use schema::schema;
pub use socket::{BindAddress, SocketMode};
pub use target::{Subset, Target, When, WhenEmpty};
pub use text::{
    AbsolutePath, AdminAddress, EndpointUrl, HostHeader, HostName, ListenAddress, LogDestination,
    Name, Network, Reason, Reference, Statuses,
};
pub use watching::{Breaker, BreakerOf, Outliers, Switch};

use portcullis_core::node::{Node, SourceSpan};

/// A configuration as written: shapes are right, references to names are not resolved.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub process: Process,
    pub listeners: Vec<Named<Listener>>,
    pub auth: Vec<Named<AuthEntry>>,
    pub defaults: Layer,
    pub groups: Vec<Group>,
    /// Those of the groups among them, under their full names.
    pub routes: Vec<Route>,
    pub backends: Vec<Named<Backend>>,
    pub tests: Vec<InlineTest>,
    pub accept: Vec<Acceptance>,
}

/// A thing under its name in one of the flat maps.
#[derive(Clone, Debug)]
pub struct Named<T> {
    pub name: String,
    /// Where the name stands.
    pub span: SourceSpan,
    pub value: T,
}

/// One way to authenticate: the kind and its settings, for the registry to compile.
#[derive(Clone, Debug)]
pub struct AuthEntry {
    /// A name in the registry: `jwt`, `api_keys`.
    pub kind: String,
    pub kind_span: SourceSpan,
    pub settings: Node,
}
