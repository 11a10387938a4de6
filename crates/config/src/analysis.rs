//! How a canary is brought up by itself, as written.

use portcullis_core::decode::Spanned;
use portcullis_core::units::PositiveDuration;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::text::Name;

/// A canary under analysis.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// The variant that is brought up. The route has one other, which it is compared with.
    pub canary: Spanned<Name>,
    /// Its shares of the requests in percent, one after the other, each more than the one before;
    /// the first is less than 100. After the last one it is promoted and keeps it. With 100 nothing
    /// is left to compare it with, so that it is not watched any longer. Default:
    /// `[5, 25, 50, 100]`.
    #[schemars(length(min = 1, max = 20))]
    #[serde(default = "steps")]
    pub steps: Spanned<Vec<Share>>,
    /// How long a step takes at least. Default: `60s`.
    #[serde(default = "every")]
    pub every: PositiveDuration,
    /// Requests that both variants have to answer without an error (5xx) in a step before the next
    /// one begins, however long that takes. Default: 200.
    #[schemars(range(min = 1))]
    #[serde(default = "requests")]
    pub requests: u32,
}

/// A share of the requests: 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Share(#[schemars(range(min = 1, max = 100))] pub u8);

fn steps() -> Spanned<Vec<Share>> {
    Spanned::new([5, 25, 50, 100].map(Share).to_vec(), Default::default())
}

fn every() -> PositiveDuration {
    PositiveDuration::from_secs(60)
}

fn requests() -> u32 {
    200
}
