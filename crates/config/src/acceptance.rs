//! Findings that an operator has seen and lives with, as written.

use portcullis_core::decode::Spanned;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::text::{Name, Reason};

/// A finding that the operator has seen and lives with.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The code of the finding: `wildcard-host`. Errors cannot be accepted.
    pub finding: Spanned<Name>,
    /// Where it was found, as the finding says it: `routes.orders.match`, or the beginning of that
    /// up to a dot or bracket. Default: anywhere.
    #[serde(default)]
    pub at: Option<Spanned<String>>,
    /// Why it is no danger here.
    pub reason: Spanned<Reason>,
}
