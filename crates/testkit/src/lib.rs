//! The world around a gateway, for tests: backends that follow a script, clients that send exact
//! bytes, a clock that moves by hand, certificates made on the spot, policies that prove the
//! contract.
//!
//! Everything listens on port 0 and waits for events, never for time. Nothing here ships.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails the test")]

pub mod backend;
pub mod chromium;
pub mod client;
pub mod dns;
pub mod end_to_end;
pub mod fetcher;
pub mod gateway;
pub mod h1;
pub mod h2;
pub mod h2_backend;
pub mod oidc_provider;
pub mod pki;
pub mod policies;
pub mod raw_h2;
pub mod websocket;
mod wire;

use std::future::Future;
use std::time::Duration;

pub use backend::Backend;
pub use chromium::Chromium;
pub use client::{Answer, Body, Client, Cut, Protocol, Request};
pub use dns::NameServer;
pub use fetcher::Scripted;
pub use gateway::{Setup, TestGateway};
pub use h1::{End, H1Client};
pub use h2_backend::H2Backend;
pub use oidc_provider::{Issuer, OidcProvider};
pub use pki::Pki;
pub use raw_h2::RawH2;
pub use websocket::{Frame, WebSocket};

/// No event of a test takes nearly so long; a test that hangs ends in a panic instead.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Waits for an event, and panics where it does not come at all.
///
/// # Panics
/// After a minute of nothing.
pub async fn event<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(HANGS_AFTER, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// Waits until `condition` holds, letting everybody else run in between.
///
/// # Panics
/// After a minute of nothing.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    event(what, async {
        while !condition() {
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
    })
    .await;
}
