//! The words of rate limiting: what is asked of a grantor, and what it answers.
//!
//! The algorithms live with the limits policy; a shared store speaks the same words.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::now::Now;

/// Which counter: a keyed hash over the limit's name and the values of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitKey(pub u128);

/// A limit as its grantor needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSpec {
    /// Requests (or cost units) in each `per`; at least 1.
    pub count: u32,
    pub per: Duration,
    pub algorithm: Algorithm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Never more than `count` in any window of length `per`.
    Window,
    /// `count / per` on average, and `burst` at once after a quiet time.
    Bucket { burst: u32 },
}

/// The answer to `take`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// How many of those wanted are granted.
    pub granted: u32,
    /// How many could still be taken now.
    pub remaining: u32,
    /// After a refusal: when asking again may succeed.
    pub retry_after: Duration,
    /// When the whole count will be free again if nobody takes more.
    pub reset: Duration,
}

/// Somebody who counts. The embedded one is exact over all cores of this process.
pub trait Grantor: fmt::Debug + Send + Sync {
    /// Takes `want` or nothing.
    fn take(&self, now: Now, key: LimitKey, spec: &LimitSpec, want: u32) -> Grant;

    /// What `take` would say, counting nothing.
    fn peek(&self, now: Now, key: LimitKey, spec: &LimitSpec, want: u32) -> Grant;
}

/// How a limit stands after this request, for the `RateLimit` fields of the answer.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The item of `RateLimit-Policy`, made at compile: `"name";q=100;w=1`.
    pub policy: Arc<str>,
    /// The limit's name as it stands in `policy`, quoted.
    pub name: Arc<str>,
    pub remaining: u32,
    pub reset: Duration,
}
