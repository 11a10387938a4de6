//! Which endpoint gets the next request: balancing, health, and how much a backend may hold.
//!
//! State machines and counters only. Time is `Now::mono`: a [`std::time::Duration`] on a
//! monotonic clock, one origin for every call; randomness is an argument. Connections, probes
//! and timers belong to `proxy`, which drives what is here. All of it is shared by every worker:
//! [`Balancer::pick`] takes no lock. The states are drawn in `LIFECYCLE.md`.

pub mod analysis;
pub mod backoff;
pub mod balancer;
pub mod breaker;
pub mod budget;
pub mod bulkhead;
pub mod capacity;
pub mod directory;
pub mod endpoint;
pub mod eprocess;
pub mod gradient;
pub mod health;
mod latency;
mod listed;
mod maglev;
pub mod mix;
pub mod outlier;
pub mod overrides;
mod part;
pub mod passive;
mod priority;
pub mod roster;
mod schedule;
pub mod shed;
#[cfg(test)]
mod simulation;
pub mod split;
pub mod subset;
pub mod tail;
pub mod tried;
pub mod verdict;
mod watching;
mod window;
pub mod zone;

pub use analysis::{Analysis, AnalysisSettings, Seen};
pub use balancer::{Algorithm, Ask, Balancer, EndpointIndex, EndpointsTooMany, Member, Settings};
pub use breaker::Breaker;
pub use budget::Budget;
pub use bulkhead::{Bounds, Bulkhead, Full, Seat, Waiting};
pub use capacity::{Capacity, Counter, Permit};
pub use directory::Directory;
pub use endpoint::{Endpoint, InFlight, Service};
pub use gradient::{Adaptive, Sample};
pub use health::{Health, HealthSettings, Outcome, Transition};
pub use listed::{Listed, ListedState};
pub use overrides::{Change, Override, Overrides};
pub use roster::Roster;
pub use shed::{Pressure, Priority, Shedder};
pub use split::Split;
pub use tail::Tail;
pub use tried::Tried;
pub use verdict::Verdict;
