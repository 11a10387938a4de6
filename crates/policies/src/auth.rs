//! Kinds of authentication, and what they share: how they refuse, and how they slow down guessing.

pub mod api_keys;
pub(crate) mod jwt;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use portcullis_core::auth::Verify;
use portcullis_core::codes::Code;
use portcullis_core::limit::{Algorithm, Grant, LimitKey, LimitSpec};
use portcullis_core::services::{Lease, LocalFuture};
use portcullis_core::{Identity, Problem, Services, codes};

use crate::key::Secret;

type Verified = Result<Arc<Identity>, Problem>;

/// Failed authentications that an address may have in a minute before it is slowed.
const FAILURES: LimitSpec =
    LimitSpec { count: 20, per: Duration::from_secs(60), algorithm: Algorithm::Window };

/// Marks this counter's keys among all that hash under the same secret.
const PURPOSE: u64 = 0x6661_696c_7572_6573;

/// Counts failed authentications by address, over all kinds of credentials.
#[derive(Debug)]
struct Slowdown {
    secret: Secret,
}

impl Slowdown {
    /// The refusal for an address that has failed too often. Counts nothing.
    async fn refusal(&self, address: IpAddr, services: &dyn Services) -> Option<Problem> {
        let standing = self.lease(address, services, 0).await?;
        (standing.remaining == 0).then(|| {
            Problem::new(codes::AUTHENTICATION_SLOWED)
                .detail(address)
                .retry_after(standing.retry_after)
        })
    }

    async fn failed(&self, address: IpAddr, services: &dyn Services) {
        self.lease(address, services, 1).await;
    }

    /// `None` where nobody counts: this is a brake on guessing, and a store that is down must not
    /// lock everybody out.
    async fn lease(&self, address: IpAddr, services: &dyn Services, want: u32) -> Option<Grant> {
        let mut key = self.secret.hasher(services, PURPOSE);
        key.address(address);
        match services.lease(LimitKey(key.finish()), &FAILURES, want) {
            Lease::Ready(grant) => Some(grant),
            Lease::Wait(grant) => grant.await.ok(),
        }
    }
}

/// Most verifications end without a wait: then they are `Done`, which `explain` can show offline.
fn poll_once<'a>(mut verified: LocalFuture<'a, Verified>) -> Verify<'a> {
    // Whoever awaits what is pending polls it again, and with that registers a waker of its own.
    match Pin::new(&mut verified).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(verified) => Verify::Done(verified),
        Poll::Pending => Verify::Wait(verified),
    }
}

/// A refusal with its `WWW-Authenticate` (RFC 9110 §11.6.1).
fn refuse(code: &'static Code, challenge: &str, detail: &str) -> Problem {
    Problem::new(code).detail(detail).field("www-authenticate", challenge)
}

/// The credentials after an authentication scheme, which is compared without case (RFC 9110 §11.1),
/// as a range of the value.
fn after_scheme(value: &[u8], scheme: &str) -> Option<std::ops::Range<usize>> {
    let (name, rest) = value.split_at_checked(scheme.len())?;
    if !name.eq_ignore_ascii_case(scheme.as_bytes()) {
        return None;
    }
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    (spaces > 0).then(|| scheme.len() + spaces..value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes() {
        let of =
            |value: &'static str| after_scheme(value.as_bytes(), "Bearer").map(|at| &value[at]);
        assert_eq!(of("Bearer a.b"), Some("a.b"));
        assert_eq!(of("bearer   a.b"), Some("a.b"));
        assert_eq!(of("BEARER "), Some(""));
        assert_eq!(of("Bearer"), None);
        assert_eq!(of("Bearera.b"), None);
        assert_eq!(of("Basic YTpi"), None);
        assert_eq!(of("Be"), None);
    }
}
