//! The data plane over real sockets: scripted backends, clients that send exact bytes, a clock that
//! moves by hand.

#![allow(clippy::unwrap_used, reason = "a failure in a test's helper fails the test")]

mod analysis;
mod balance;
mod bulkheads;
mod calls;
mod client_certificates;
mod contract;
mod deadlines;
mod exhaustion;
mod external_authorization;
mod failures;
mod faults;
mod finding;
mod forwarded;
mod grpc;
mod h2_backends;
mod h2_guard;
mod h2_pieces;
mod h2spec;
mod health;
mod hedging;
mod http1;
mod identity;
mod lifecycle;
mod limits;
mod messages;
mod mirroring;
mod oauth;
mod outliers;
mod overload;
mod patience;
mod proxy_protocol;
mod queue;
mod retries;
mod rotation;
mod shifting;
mod signed;
mod sockets;
mod streams;
mod tls;
mod trailers;
mod versions;
mod websocket;

use portcullis_testkit::{Backend, Setup};

/// Everything goes to this backend.
fn to(backend: &Backend) -> Setup {
    Setup::new(&everything_to(backend))
}

fn everything_to(backend: &Backend) -> String {
    format!(
        r#"
routes:
  everything: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: "{}"
"#,
        backend.url()
    )
}
mod zones;
