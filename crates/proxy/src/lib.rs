//! The data plane: from an accepted connection to a finished response.
//!
//! Files in the order in which a request meets them: `listener` → `io` → `h1` or `h2` → `serve` →
//! `forward` → `pool`, `backend` → `relay` → `finish`; `mirror` beside them. Start reading
//! at [`serve`].

#![expect(
    clippy::redundant_allocation,
    reason = "an `Rc` around an `Arc` is cloned for each request without an atomic operation"
)]
#![expect(clippy::vec_box, reason = "what is leased moves often, and a box is one word")]

mod addresses;
mod analysis;
mod backend;
mod backend_h1;
mod backend_h2;
mod bounds;
mod buffer;
mod bulkhead;
mod call;
mod certificate;
mod circuit;
mod client;
mod clock;
mod connect;
mod deadline;
mod desk;
mod dial;
mod fault;
mod finish;
mod forward;
mod forwarded;
mod gateway;
mod grpc_health;
mod h1;
mod h2;
mod h2_guard;
mod h2_head;
mod hedge;
mod io;
mod judge;
mod listener;
mod max_forwards;
mod mirror;
mod outbox;
mod overload;
mod overrides;
mod patience;
mod pool;
mod prepare;
mod probe;
mod proxy_protocol;
mod relay;
mod retry;
mod serve;
mod services;
mod slot;
mod socket;
mod tunnel;
mod watch;
mod wire;
mod worker;

pub use analysis::{AnalysisEvent, AnalysisReport};
pub use clock::Clock;
pub use gateway::{BindError, Gateway, Options, StartError};
pub use overrides::{Order, OverrideError};
pub use services::{World, fill_random};
