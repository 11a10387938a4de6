//! Bytes that are shown to nobody: secrets and tokens.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A secret, shared and never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hidden(Arc<[u8]>);

impl Hidden {
    pub(crate) fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl Hash for Hidden {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
